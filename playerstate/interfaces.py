"""What a store is, as zope interfaces, each with its thread and its failures.

A store is opened by a factory from a URL, and hands out two ends: a *reader*, used on the reactor
thread alone, and a *writer*, made and used on the persist thread alone.  The two share nothing but
the stored rows, so neither ever waits for the other.

The `StateSchema` that a factory is given says what a player is.  Of it, a store needs:

- ``schema.fields``, each with its ``name``, its ``kind``, and its ``default`` as a plain value.
  Names differ in more than the case of their letters, and none is ``session_id`` or ``updated_at``.
- Of a kind: ``column``, which of four things a column of it is to hold
  (`Column`), so that a store maps these to types of its own and need not
  know the kinds; ``size``, the most bytes that a text takes; ``name``, for people to read.
- *Plain values*, which it keeps and gives back: a ``float``, ``int``, ``bool`` or ``str`` each, of
  just that type.  They are finite, but may lie outside the bounds of today's class.
- Records have the fields packed.  ``schema.decode`` makes plain values of the fields of one record,
  ``field.kind.decode`` of a single one, for a store that takes the records column by column.

The class may have changed since the store was last used.  A field may be new, so that its default
fills the column, or gone, so that its column stays; it may want another column, or be a text of
fewer bytes than are stored.  `IStateStore.migrate` fits the store to it, or refuses.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from playerstate.state.kind import Column, Kind
from playerstate.state.schema import StateSchema

__all__ = [
    "Column",
    "IFileStore",
    "IStateReader",
    "IStateStore",
    "IStateWriter",
    "IStoreBrowser",
    "IStoreFactory",
    "Kind",
    "LeftOut",
    "LiveFileUnusable",
    "Reason",
    "Records",
    "RowRefused",
    "StoreBusy",
    "StoreReplaced",
    "StoreUnusable",
    "Stored",
]

Records = npt.NDArray[np.void]
"""Rows as a store sees them, a structured array: ``session_id``, each field by its name (a bool as
0 or 1, a text as UTF-8 bytes), ``updated_at``."""


MOST_LANES = 64
"""The most lanes a store may ask for."""


class StoreUnusable(Exception):
    """The store cannot be used as it is; the message names it and says what to do."""


class LiveFileUnusable(StoreUnusable):
    """The same of the live file, which may be another file, or none."""


class StoreBusy(Exception):
    """Somebody else holds the store just now; the same call may succeed later."""


class StoreReplaced(Exception):
    """The store is no longer the one that was opened: a file was removed or replaced."""


class RowRefused(Exception):
    """The store can never take one of these rows, and cannot say which."""


class Reason(enum.Enum):
    """Why a store leaves a record out of a write; the value says it in words."""

    NEWER = "the store holds a newer state"
    FENCED = "the store takes this player's states from another server"
    REFUSED = "the store can never take it"


def _positions(given: npt.ArrayLike) -> npt.NDArray[np.intp]:
    return np.asarray(given, np.intp)


_NONE = _positions([])


@attrs.frozen(eq=False)
class LeftOut:
    """Which records a store left out of a write, by their positions, and for which `Reason`.

    Its length is the number of them; each is in one of the three.

    Attributes:
        newer: the store holds a newer ``updated_at`` of these players.
        fenced: these players' states belong to another server by now.
        refused: the store can never take these, since a constraint, a type or a size is against
            it; each with that in words.
    """

    newer: npt.NDArray[np.intp] = attrs.field(default=_NONE, converter=_positions)
    fenced: npt.NDArray[np.intp] = attrs.field(default=_NONE, converter=_positions)
    refused: Mapping[int, str] = attrs.field(factory=dict)

    def __len__(self) -> int:
        return len(self.newer) + len(self.fenced) + len(self.refused)


@attrs.frozen
class Stored:
    """One player as a store holds them.

    Attributes:
        values: plain values, in the order of the schema's fields.
        updated_at: microseconds since the Unix epoch.
    """

    values: tuple[Any, ...]
    updated_at: int


class IStateReader(Interface):
    """Loads players.  Reactor thread only."""

    def load(session_id: int) -> Stored | Deferred[Stored | None] | None:
        """One stored player, or None where there is none.

        A store across a network must return a Deferred, and stop its work when that is cancelled;
        one whose answer takes microseconds may return it plainly.

        Raises:
            StoreBusy: not now; the player may ask again.
            Exception: anything else, by raising or by the Deferred; the join fails with it.
        """

    def close() -> None:
        """Give back what the reader holds.  No call follows."""


class IStateWriter(Interface):
    """Saves players.  Made and used on the persist thread only, but for `interrupt`."""

    def write(records: Records) -> LeftOut:
        """Save one record a player, sorted by session id: all of them or none.  May block.

        A record is left out where the store holds a newer ``updated_at`` of that player; one of
        the same age is written again.  When this returns, those that it does not name are
        committed, and none of those that it names.

        Returns:
            The records left out; mostly none.  Those refused come again, until they are set aside.

        Raises:
            StoreBusy: nothing was written; the same records come again.
            RowRefused: nothing was written, since one of the records can never be; for a store
                that cannot say which.  The records come again in halves.
            Exception: anything else.  Nothing may have been written; the writer is closed, and
                the same records go to a new one.
        """

    def maintain() -> None:
        """Do what is due between two batches; called once a second at least.  May block.

        Raises:
            StoreReplaced: the store, an `IFileStore`, is not the one that was opened; the writer
                is closed.
            Exception: anything else is logged.
        """

    def quarantine(records: Records, reasons: Sequence[str]) -> None:
        """Keep these records, which `write` refused time and again, where an operator finds them.

        All of a batch come together, however many, each with the reason of its own.

        Raises:
            Exception: none of them is known to be kept; they come again.
        """

    def sync() -> None:
        """Bring everything committed to disk, past every cache.  May block.

        Raises:
            Exception: it is not known to be there.
        """

    def interrupt() -> None:
        """Make a running `write` end soon, by raising.  Any thread; harmless when nothing runs."""

    def close() -> None:
        """Give back what the writer holds.  No call follows."""


class IStateStore(Interface):
    """What a URL opens: one place where players are kept.

    Opening touches nothing: files, locks and connections wait for `prepare`.  A store across a
    network answers `prepare`, `migrate` and `open_reader` by Deferreds.  Each is awaited for 30
    seconds and cancelled then, or by a stop: whoever made it is to let go of all that was taken
    for it.  What fails raises or fails the Deferred.
    """

    schema: StateSchema = Attribute("The schema of the players it keeps.")
    lanes: int = Attribute(
        """How many writers it gains from at a time, from 1 to 64.

        Each is on a persist thread of its own, and saves players of its own, always the same."""
    )

    def prepare() -> bytes | Deferred[bytes]:
        """Take hold of the store: lock it, and look whether it can be used.  Changes nothing in it.

        Reactor thread, at start.

        Returns:
            The identity that `migrate` last gave it, 16 bytes; zeros for a store that has none.

        Raises:
            StoreUnusable: with one line that says what is wrong and what to do; nothing is held.
        """

    def migrate(identity: bytes) -> bytes | Deferred[bytes]:
        """Create the store, or fit it to the schema, and give it this identity.

        The identity ties a live file to the store whose it is: one restored from a copy of earlier
        days has another.  Reactor thread, after `prepare`.

        Returns:
            The identity it has now; another than this where it cannot be told from its copies.

        Raises:
            StoreUnusable: as for `prepare`; nothing was changed.
        """

    def open_reader() -> IStateReader | Deferred[IStateReader]:
        """A reader.  Reactor thread, after `migrate`, and after `IFileStore.reopen`."""

    def open_writer() -> IStateWriter:
        """A writer.  Persist thread, after `migrate`; may block, and may raise as `write` does."""

    def describe() -> str:
        """The store in a few words, for the log.  Any thread."""

    def close() -> None:
        """Let go of what `prepare` took.  Reactor thread, after both ends are closed."""


class IFileStore(IStateStore):
    """A store that keeps files, which may be removed or replaced while they are in use.

    It answers at once where `IStateStore` allows a Deferred.
    """

    path: str = Attribute("The file in which the players are.")
    files: Sequence[str] = Attribute("Every file that it may make; none is put in their place.")
    live_path: str = Attribute(
        "Where the live file of this store lies, unless it is told elsewhere."
    )

    def prepare() -> bytes:
        """See `IStateStore.prepare`; the lock is held until `close`, through every `reopen`."""

    def migrate(identity: bytes) -> bytes:
        """See `IStateStore.migrate`."""

    def open_reader() -> IStateReader:
        """See `IStateStore.open_reader`."""

    def reopen(identity: bytes, online: Set[int]) -> list[int] | None:
        """Go over to the store that has taken the place of the one that was opened.

        Called where the writer has raised `StoreReplaced`.  Persist thread, with the writer closed
        and the old reader still open, which nobody uses meanwhile: it may be asked once more, and
        closed.  May block.  Where this raises it is called again; once it has returned,
        `open_reader` is.

        Args:
            identity: for the store that is there now.
            online: the players whose rows will be written again.

        Returns:
            Other players whose newest state went with the old store, at most a thousand; None
            where it cannot be told who they are.

        Raises:
            StoreUnusable: what is there now cannot be used, or nothing can be put there.
        """


def file_store(store: IStateStore) -> IFileStore | None:
    """The store as one that keeps files, where it is one."""
    found: IFileStore | None = IFileStore(store, None)
    return found


class IStoreBrowser(Interface):
    """Looks into a store without knowing the state class, beside a server or without one.

    Every method may raise `StoreUnusable`, with one line that says what is wrong and what to do.
    """

    columns: tuple[str, ...] = Attribute("Names of the columns, ``session_id`` first.")

    def count() -> int:
        """How many players the store holds."""

    def latest(limit: int | None) -> Iterator[tuple[Any, ...]]:
        """Rows in the order of `columns`, the latest changed first; None for all."""

    def find(session_id: int) -> tuple[Any, ...] | None:
        """One player's row, or None."""

    def close() -> None:
        """Give back what the browser holds."""


class IStoreFactory(Interface):
    """Opens stores of one URL scheme.  Provide `twisted.plugin.IPlugin` as well, to be found."""

    scheme: str = Attribute("What stands before the first colon of the URLs.")

    def open(url: str, schema: StateSchema) -> IStateStore:
        """A store, as yet untouched; relative paths are resolved here.

        Raises:
            StoreUnusable: the URL cannot be understood.
        """

    def browse(url: str) -> IStoreBrowser:
        """Look into a store that exists.

        Raises:
            StoreUnusable: there is nothing to look into.
        """
