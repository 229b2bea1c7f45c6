"""The memory in which the rows of a live table lie: what is asked of it, and memory without a file.

Reactor thread only.
"""

from __future__ import annotations

import mmap
from typing import Protocol

from playerstate.live.leftover import Leftover
from playerstate.live.table import LiveTable
from playerstate.state.schema import StateSchema


class RowMemory(Protocol):
    """Where the rows of a live table lie."""

    @property
    def unsaved_notice(self) -> str:
        """What happens to unsaved rows when the process ends, as a clause for log and errors."""

    def claim(self, identity: bytes) -> Leftover | None:
        """Take over what a previous process left of the store of this identity, if anything.

        Returns:
            The leftover, until `discard`; None if there is none, or all of it is saved.

        Raises:
            LiveFileUnusable: it cannot be read, or is in use.
        """

    def discard(self) -> None:
        """Remove the claimed leftover: all of it is in the store.

        Raises:
            LiveFileUnusable: it cannot be removed; until it is, no new rows may be kept.
        """

    def open(self, schema: StateSchema, capacity: int, identity: bytes) -> memoryview:
        """Return zeroed memory for `capacity` players of the store of this identity.

        Raises:
            LiveFileUnusable: there is no room for it, or no permission to make it, or it is in use.
        """

    def reserve(self, used: int) -> None:
        """Make sure that the first `used` bytes of the memory can be written.

        Raises:
            LiveFileUnusable: there is no room for them; the caller may try again.
        """

    def is_cut(self) -> bool:
        """Whether rows may have been cut off, so that touching them would kill the process.

        Far cheaper than `lost`.  The caller asks before each use of the table.
        """

    def lost(self) -> str:
        """What happened to the file that makes the next start miss the rows; empty if nothing."""

    def salvage(self, used: int) -> memoryview | None:
        """Switch to anonymous memory, with a copy of what can be read of the first `used` bytes.

        To be called once the file is lost, and before the rows are touched again: another process
        that wrote to the file wrote to the rows, and touching rows that were cut off kills this
        process.

        Returns:
            The memory; None where the switch was made before.
        """

    def renew(self, used: int) -> memoryview:
        """Make a new file after `salvage`, with the first `used` bytes of what is in memory.

        Raises:
            LiveFileUnusable: the file cannot be made; the rows stay where they are.
        """

    def close(self, clean: bool) -> None:
        """Release the memory; `clean` where everything in it is in the store."""


class AnonymousMemory:
    """Rows that die with the process."""

    unsaved_notice = "they are lost"

    def claim(self, identity: bytes) -> None:
        """See `RowMemory.claim`."""

    def discard(self) -> None:
        """See `RowMemory.discard`."""

    def open(self, schema: StateSchema, capacity: int, identity: bytes) -> memoryview:
        """See `RowMemory.open`."""
        # The system allocates anonymous memory page by page, as it is touched.
        return memoryview(mmap.mmap(-1, LiveTable.bytes_needed(schema, capacity)))

    def reserve(self, used: int) -> None:
        """See `RowMemory.reserve`."""

    def is_cut(self) -> bool:
        """See `RowMemory.is_cut`."""
        return False

    def lost(self) -> str:
        """See `RowMemory.lost`."""
        return ""

    def salvage(self, used: int) -> None:
        """See `RowMemory.salvage`."""

    def renew(self, used: int) -> memoryview:
        """See `RowMemory.renew`."""
        raise NotImplementedError("anonymous memory is never lost")

    def close(self, clean: bool) -> None:
        """See `RowMemory.close`."""
