"""The zope interfaces of stores and of judges, with the thread and the errors of each method.

A judge, an `IMoveJudge`, says which moves of clients may be applied.

A store is opened by a factory from a URL, and hands out two ends: a *reader*, used on the reactor
thread alone, and a *writer*, made and used on the persist thread alone.  The two share nothing but
the stored rows, so neither ever waits for the other.

The `StateSchema` that a factory is given describes a player.  Of it, a store needs:

- ``schema.stored``, the fields to store, each with its ``name``, its ``kind``, and its ``default``
  as a plain value.  Names differ by more than case, and none is ``session_id`` or ``updated_at``.
- Of a kind: ``column``, one of the four types of column (`Column`), which a store maps to its own
  types without knowing the kinds; ``size``, the most bytes that a text takes; ``name``, for people
  to read.
- *Plain values*, which it stores and returns: each a ``float``, ``int``, ``bool`` or ``str``, of
  exactly that type.  They are finite, but may lie outside the bounds of the present class.
- Records, whose fields are packed.  ``schema.stored_values`` makes plain values of the fields of
  one record, ``field.kind.decode`` of a single field, for a store that takes records by columns.

The class may have changed since the store was last used.  A field may be new: its default fills the
column.  It may have been renamed: ``field.was`` holds its old names, and the column of the first of
them that has one is renamed.  It may be gone: its column stays.  It may need another type of
column, or be a text of fewer bytes than are stored.  `IStateStore.migrate` adapts the store to the
class, or refuses.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, Protocol

import attrs
import numpy as np
import numpy.typing as npt
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from playerstate.state.kind import Column, Kind
from playerstate.state.schema import StateSchema

__all__ = [
    "Column",
    "Erased",
    "IErasableStore",
    "IFileStore",
    "IHeldStore",
    "IMoveJudge",
    "IOperatedFactory",
    "IStateReader",
    "IStateStore",
    "IStateWriter",
    "IStatefulJudge",
    "IStoreBrowser",
    "IStoreContent",
    "IStoreFactory",
    "IStoreOperations",
    "Kind",
    "LeftOut",
    "LiveFileUnusable",
    "NotOffered",
    "OnProgress",
    "Reason",
    "Records",
    "RowRefused",
    "StoreBusy",
    "StoreInUse",
    "StoreReplaced",
    "StoreUnusable",
    "Stored",
]

Records = npt.NDArray[np.void]
"""Rows given to a store, a structured array: ``session_id``, each field by its name (a bool as
0 or 1, a text as UTF-8 bytes), ``updated_at``."""


class OnProgress(Protocol):
    """Is told now and then how far a long call has come."""

    def __call__(self, done: float, total: float, /) -> object:
        """So much is done, of so much, in any unit."""


MOST_LANES = 64
"""The most lanes that a store may have."""


class StoreUnusable(Exception):
    """The store cannot be used as it is; the message names it and says what to do."""


class LiveFileUnusable(StoreUnusable):
    """The live file cannot be used as it is; the message names it and says what to do.

    The operator may name another live file, or none.
    """


class StoreInUse(StoreUnusable):
    """A server, or a command, holds the store.

    Attributes:
        holder: who holds it, in words, such as ``process 4711``.
    """

    def __init__(self, message: str, holder: str) -> None:
        super().__init__(message)
        self.holder = holder


class NotOffered(StoreUnusable):
    """The store does not offer this; the message names it and says what to use instead."""


class StoreBusy(Exception):
    """Another process or connection holds the store now; the same call may succeed later."""


class StoreReplaced(Exception):
    """The store is no longer the one that was opened: a file was removed or replaced."""


class RowRefused(Exception):
    """The store can never take one of these rows, and cannot tell which."""


class Reason(enum.Enum):
    """Why a store leaves a record out of a write; the value is the text for the log."""

    NEWER = "the store holds a newer state"
    FENCED = "the store takes this player's states from another server"
    REFUSED = "the store can never take it"


def _positions(given: npt.ArrayLike) -> npt.NDArray[np.intp]:
    return np.asarray(given, np.intp)


_NONE = _positions([])


@attrs.frozen(eq=False)
class LeftOut:
    """Which records a store left out of a write, by their positions, and for which `Reason`.

    Its length is their number; each is in exactly one of the three.

    Attributes:
        newer: the store holds a newer ``updated_at`` of these players.
        fenced: another server has taken these players over.
        refused: the store can never take these, because of a constraint, a type or a size; each
            with that reason in words.
    """

    newer: npt.NDArray[np.intp] = attrs.field(default=_NONE, converter=_positions)
    fenced: npt.NDArray[np.intp] = attrs.field(default=_NONE, converter=_positions)
    refused: Mapping[int, str] = attrs.field(factory=dict)

    def __len__(self) -> int:
        return len(self.newer) + len(self.fenced) + len(self.refused)


@attrs.frozen
class Stored:
    """One player as stored.

    Attributes:
        values: plain values, in the order of the schema's fields.
        updated_at: microseconds since the Unix epoch.
    """

    values: tuple[Any, ...]
    updated_at: int


class IStateReader(Interface):
    """Loads players.  Reactor thread only."""

    def load(session_id: int) -> Stored | Deferred[Stored | None] | None:
        """One stored player; None if the store has no such player.

        A store across a network must return a Deferred, and stop its work when that is cancelled;
        a store that answers within microseconds may return the answer itself.

        Raises:
            StoreBusy: not now; the client may ask again.
            Exception: any other error, raised or by the Deferred; the join fails with it.
        """

    def close() -> None:
        """Give back what the reader holds.  No call follows."""


class IStateWriter(Interface):
    """Saves players.  Made and used on the persist thread only, but for `interrupt`."""

    def write(records: Records) -> LeftOut:
        """Save the records, one for each player, sorted by session id: all or none.  May block.

        A record is left out if the store holds a newer ``updated_at`` of that player; one with the
        same ``updated_at`` is written again.  When this returns, every record is committed except
        those that the result names, and none of those is.

        Returns:
            The records left out; mostly none.  Refused records come again, until they are
            quarantined.

        Raises:
            StoreBusy: nothing was written; the same records come again.
            RowRefused: nothing was written, since the store can never take one of the records and
                cannot tell which.  The records come again in halves.
            Exception: any other error; nothing may have been written.  The writer is closed, and
                the same records go to a new one.
        """

    def maintain() -> None:
        """Do the maintenance due between two batches; called at least once a second.  May block.

        Raises:
            StoreReplaced: the store, an `IFileStore`, is not the one that was opened; the writer
                is closed.
            Exception: any other error, which is logged.
        """

    def quarantine(records: Records, reasons: Sequence[str]) -> None:
        """Keep these records, which `write` refused repeatedly, where the operator finds them.

        All such records of a batch come in one call, however many, each with its own reason.

        Raises:
            Exception: none of them is known to be kept; they come again.
        """

    def sync() -> None:
        """Flush everything committed to disk, past every cache.  May block.

        Raises:
            Exception: it is not known to be on disk.
        """

    def interrupt() -> None:
        """Make a running `write` raise soon.  Any thread; does nothing if none runs."""

    def close() -> None:
        """Give back what the writer holds.  No call follows."""


class IStateStore(Interface):
    """One place where players are stored, opened by a URL.

    Opening touches nothing: files, locks and connections wait for `prepare`.  A store across a
    network answers `prepare`, `migrate` and `open_reader` by Deferreds.  The service waits 30
    seconds for each, and then cancels it, as does a stop: the store must then release all that the
    call took.  An error is raised, or fails the Deferred.
    """

    schema: StateSchema = Attribute("The schema of the players it keeps.")
    lanes: int = Attribute(
        """The number of writers that work best at a time, from 1 to 64.

        Each runs on its own persist thread, and saves its own players, always the same."""
    )

    def prepare() -> bytes | Deferred[bytes]:
        """Lock the store, and check whether it can be used.  Changes nothing in it.

        Reactor thread, at start.

        Returns:
            The identity that `migrate` last gave it, 16 bytes; zeros for a store that has none.

        Raises:
            StoreUnusable: its message, one line, says what is wrong and what to do; nothing is
                held.
        """

    def migrate(identity: bytes) -> bytes | Deferred[bytes]:
        """Create the store, or adapt it to the schema, and give it this identity.

        The identity ties a live file to its store: a store restored from an older copy has another
        identity.  Reactor thread, after `prepare`.

        Returns:
            The identity it has now; it differs from the given one if nothing distinguishes
            the store from its copies.

        Raises:
            StoreUnusable: as for `prepare`; nothing was changed.
        """

    def open_reader() -> IStateReader | Deferred[IStateReader]:
        """A reader.  Reactor thread, after `migrate`, and after `IFileStore.reopen`."""

    def open_writer() -> IStateWriter:
        """A writer.  Persist thread, after `migrate`.  May block; raises what `write` raises."""

    def describe() -> str:
        """The store in a few words, for the log.  Any thread."""

    def close() -> None:
        """Release what `prepare` took.  Reactor thread, after readers and writers are closed."""


class IFileStore(IStateStore):
    """A store that keeps files, which another process may remove or replace while in use.

    It answers at once where `IStateStore` allows a Deferred.
    """

    path: str = Attribute("The file in which the players are.")
    files: Sequence[str] = Attribute(
        "Every file that it may make; the live file must be none of them."
    )
    live_path: str = Attribute("The default path of the live file of this store.")

    def prepare() -> bytes:
        """See `IStateStore.prepare`; the lock is held until `close`, through every `reopen`."""

    def migrate(identity: bytes) -> bytes:
        """See `IStateStore.migrate`."""

    def open_reader() -> IStateReader:
        """See `IStateStore.open_reader`."""

    def reopen(identity: bytes, online: Set[int]) -> list[int] | None:
        """Switch over to the store that has replaced the one that was opened.

        Called after the writer has raised `StoreReplaced`.  Persist thread, with the writer closed
        and the old reader still open, which the service does not use meanwhile: this method may
        use it once more, and close it.  May block.  If this raises it is called again; once it has
        returned, the service calls `open_reader`.

        Args:
            identity: for the replacement.
            online: the players whose rows will be written again.

        Returns:
            Other players whose newest state was lost with the old store, at most a thousand; None
            if they are unknown.

        Raises:
            StoreUnusable: the replacement cannot be used, or no store can be created.
        """


def file_store(store: IStateStore) -> IFileStore | None:
    """The store as an `IFileStore`; None if it keeps no files."""
    found: IFileStore | None = IFileStore(store, None)
    return found


@attrs.frozen
class Erased:
    """What a store held of a player who was erased.

    Attributes:
        stored: rows of the player, 0 or 1.
        quarantined: rows of the player that it had quarantined.
    """

    stored: int
    quarantined: int


class IErasableStore(IStateStore):
    """A store that can erase a player."""

    def erase(session_id: int) -> Erased:
        """Delete all that the store keeps of this player, quarantined rows included.

        After `prepare`: while writers are in use, on the persist thread that saves this player,
        between two writes; otherwise on any thread.  May block.  When it returns, the player is
        gone from the disk, as far as the store can see to that; copies are not its own.

        Raises:
            StoreBusy: the same call may succeed later; nothing is known to be deleted.
            Exception: any other error, likewise.
        """


def erasable_store(store: IStateStore) -> IErasableStore | None:
    """The store as an `IErasableStore`; None if it cannot erase a player."""
    found: IErasableStore | None = IErasableStore(store, None)
    return found


class IStoreBrowser(Interface):
    """Reads a store without knowing the state class, whether or not a server runs on it.

    Every method may raise `StoreUnusable`, whose message, one line, says what is wrong and what to
    do.
    """

    columns: tuple[str, ...] = Attribute("Names of the columns, ``session_id`` first.")

    def count() -> int:
        """How many players the store holds."""

    def latest(limit: int | None) -> Iterator[tuple[Any, ...]]:
        """At most `limit` rows, None for all, in the order of `columns`, latest changed first."""

    def find(session_id: int) -> tuple[Any, ...] | None:
        """One player's row; None if there is none."""

    def close() -> None:
        """Release what the browser holds."""


class IStoreFactory(Interface):
    """Opens stores of one URL scheme.  Also provide `twisted.plugin.IPlugin`, to be found."""

    scheme: str = Attribute("The part of the URLs before the first colon.")

    def open(url: str, schema: StateSchema) -> IStateStore:
        """A store, not yet prepared; relative paths are resolved here.

        Raises:
            StoreUnusable: the URL cannot be understood.
        """

    def browse(url: str) -> IStoreBrowser:
        """A browser of an existing store.

        Raises:
            StoreUnusable: there is no store at that URL.
        """


class IMoveJudge(Interface):
    """Says which moves may be applied; given to `playerstate.Gateway`.  Reactor thread only.

    A judge belongs to one gateway.  It sees moves alone, those of MOVEs and DELTAs, and neither
    what the program changes nor moves that are stale or malformed.
    """

    reason = Attribute(
        "The name under which the moves that it rejects are counted: at most 32 letters, digits and"
        " underscores of ASCII, not beginning with a digit.  Judges may share one."
    )

    def passing(
        slots: npt.NDArray[np.intp],
        before: npt.NDArray[np.void],
        after: npt.NDArray[np.void],
        seconds: npt.NDArray[np.float64],
    ) -> npt.NDArray[np.bool_]:
        """Which of these moves, one of each of some players, pass; the others change nothing.

        It must not wait, and must not call the service: where a player changes meanwhile, all moves
        are rejected, ``judge_failed``.  So is a move for which it raises, or answers with anything
        but one bool; the failure is logged.  If it fails for several moves, it is asked again about
        each alone.

        A move that passes is applied unless another judge rejects it; a judge that must know is an
        `IStatefulJudge`.

        Args:
            slots: the players' places in the live table: whole numbers from 0, below
                ``max_players``, given to other players once theirs have left.
            before: the newest rows, structured arrays like `Records`: ``session_id``, each field
                by its name, ``updated_at``.
            after: the same as the moves would make them.
            seconds: since each player's last applied move.  For a player who has not moved since
                the JOIN, since the player last changed; for one who never changed, since the JOIN.

        Returns:
            For each, whether it passes.
        """


class IStatefulJudge(IMoveJudge):
    """A judge that depends on the state class, or on the moves that were applied before."""

    def prepare(schema: StateSchema) -> None:
        """Check that it can judge players of this schema; called when the gateway is made.

        Raises:
            ValueError: it cannot; the message says what to change.
        """

    def applied(slots: npt.NDArray[np.intp]) -> None:
        """Moves that passed are applied: of these players, the ones that it was asked about last.

        Where it raises, the failure is logged.
        """


class IOperatedFactory(IStoreFactory):
    """A factory whose stores can be operated on by the commands of ``playerstate``.

    A store need not offer that: the commands then say so.
    """

    def operate(url: str) -> IStoreOperations:
        """What an operator can do with the store at this URL, which need not exist yet.

        Raises:
            StoreUnusable: the URL cannot be understood.
            NotOffered: these stores cannot be operated on.
        """


class IStoreContent(Interface):
    """What an operator looks at in a store.

    Nothing here changes a player.  One thread uses it, without a reactor: each method may block,
    and passes on what a signal raises meanwhile.  Each may raise `StoreUnusable`, whose message,
    one line, says what is wrong and what to do, or `NotOffered`.
    """

    live_path: str | None = Attribute(
        "The default path of the live file of this store; None if it has none."
    )

    def exists() -> bool:
        """Whether there is a store of players, even of none."""

    def identity() -> bytes:
        """The identity that `IStateStore.migrate` last gave it; zeros for none."""

    def count() -> int:
        """How many players the store holds."""

    def columns() -> Sequence[str]:
        """The names of the columns, ``session_id`` first."""

    def rows() -> Iterator[tuple[Any, ...]]:
        """All players as one moment saw them, by session id, as plain values of `columns`.

        A value of a column of another program may be of any type.
        """

    def updated_at(session_ids: Iterable[int]) -> Mapping[int, int]:
        """When each of these players last changed, in microseconds since the Unix epoch.

        Players whom the store does not hold are missing.
        """

    def plan(schema: StateSchema) -> Sequence[str]:
        """What `IStateStore.migrate` would change for this schema, in words; empty if nothing.

        The store exists.

        Raises:
            StoreUnusable: it would refuse the schema.
        """

    def check() -> Sequence[str]:
        """Read all of the store; the damage found, in words, empty if there is none."""

    def quarantined() -> int:
        """How many rows are quarantined."""

    def backup(path: str, progress: OnProgress) -> int:
        """Write a copy, as one moment saw the store, verify it, and sync it to disk.

        Args:
            path: of a file that does not exist yet.
            progress: called now and then.

        Returns:
            How many players are in it.
        """


class IStoreOperations(IStoreContent):
    """What an operator does with a store, whether or not a server runs on it."""

    def recognise(path: str) -> None:
        """Check that a file may be one that `backup` wrote, without reading all of it."""

    def hold(create: bool = False) -> IHeldStore:
        """Take the store's lock.

        Args:
            create: whether the store need not exist.

        Raises:
            StoreInUse: a server holds it.
        """


class IHeldStore(IStoreContent):
    """A store that no server can use until `close`; a method that raises has changed nothing."""

    def migrate(schema: StateSchema) -> None:
        """Create the store, or adapt it to the schema; it keeps its identity if it has one."""

    def load(schema: StateSchema, session_ids: Iterable[int]) -> Mapping[int, Stored]:
        """These players, as stored; those whom the store does not hold are missing."""

    def write(schema: StateSchema, records: Records) -> LeftOut:
        """Save the records, one for each player, sorted by session id, and sync: all or none.

        A record is left out if the store holds a newer ``updated_at`` of that player.  If one is
        refused, none is saved.
        """

    def erase(session_id: int) -> Erased:
        """See `IErasableStore.erase`; if it raises, call it again: it goes on with the rest."""

    def idle(before: int) -> int:
        """How many players last changed before this, in microseconds since the Unix epoch."""

    def prune(before: int) -> int:
        """Delete these players, and sync; return how many they were."""

    def restore(path: str, progress: OnProgress) -> Sequence[str]:
        """Put a copy that `backup` wrote in the store's place, with an identity of its own.

        Args:
            path: of the copy, which is verified first, and stays.
            progress: called now and then.

        Returns:
            The names under which the files of the former store were set aside.
        """

    def close() -> None:
        """Release the lock."""
