"""Packed rows in one buffer, two halves a slot.

Reactor thread only.  Each write goes into the half that is not current and then makes it current,
so a process that is killed during the write leaves the other one whole; `playerstate.state.layout`
has the format.  What decides whether a row of the buffer is ours is kept outside of the buffer as
well: in a live file another process may write over it.
"""

from __future__ import annotations

import struct
from array import array
from typing import Any

import numpy as np
import numpy.typing as npt

from playerstate.state.layout import FIELDS_AT, RowLayout
from playerstate.state.schema import StateSchema

Slots = npt.NDArray[np.intp]

HEAD_AT = 8
HEAD = struct.Struct("<qqqQ").unpack_from
"""Session id, slot and generation, ``updated_at``, sequence: adjacent in a half, from `HEAD_AT`."""


class Rows:
    """Packed rows by slot.

    Args:
        schema: the state's schema.
        buffer: holds the rows; `bytes_needed` bytes, zeroed.
        first_version: the version before that of the first row written; see `_remove_foreign`.

    Attributes:
        high_water: the first slot of those that were never used.
        room: slots in the arrays that are indexed by slot; they grow as slots are used, and are
            replaced each time.
    """

    def __init__(self, schema: StateSchema, buffer: memoryview, first_version: int = 0) -> None:
        self._layout = layout = RowLayout(schema.fields)
        self._size = layout.size
        self._put = layout.write
        self._put_move = layout.write_move
        self._unpack_fields = layout.fields.unpack_from
        self._version = self._first_version = first_version
        self.high_water = 0
        self.room = 0
        # By slot, the index of its current half among all halves: an array, which is faster to
        # index by one slot, and a numpy view of it for many.
        self._place = array("q")
        # By slot, as in its row: a commit of many rows is settled without touching the rows.
        self._generations = np.zeros(0, np.uint32)
        self.lie_in(buffer)

    def _make_room(self, room: int) -> None:
        """Grow the arrays to `room` slots."""
        # New objects, since an array that numpy has a view of cannot be resized.
        self._place = self._place + array("q", np.arange(2 * self.room, 2 * room, 2).tobytes())
        self._places = np.frombuffer(self._place, np.int64)
        self._generations = np.append(self._generations, np.zeros(room - self.room, np.uint32))
        self.room = room

    @staticmethod
    def bytes_needed(schema: StateSchema, capacity: int) -> int:
        """The size of the buffer for `capacity` players."""
        return 2 * RowLayout(schema.fields).size * capacity

    @property
    def version(self) -> int:
        """The version of the row that was written last."""
        return self._version

    @property
    def used_bytes(self) -> int:
        """How many bytes from the start of the buffer have ever been in use."""
        return 2 * self._size * self.high_water

    def lie_in(self, buffer: memoryview) -> None:
        """Switch to a buffer that holds the same rows as the present one, up to `used_bytes`."""
        self._buffer = buffer
        self._halves = np.frombuffer(buffer, self._layout.dtype)
        # As blocks of bytes: numpy drops the padding where it copies structured rows.
        self._blocks = self._halves.view(f"V{self._size}")
        self._heads = self._halves.view(self._layout.head)["head"]
        self._tails = self._halves["version_again"]
        self._session_ids = self._halves["session_id"]
        self._updated_at = self._halves["updated_at"]
        self._sequences = self._halves["sequence"]
        self._fields = self._halves["fields"]
        self._named = self._halves.view(self._layout.named)

    def _remove_foreign(self, session_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Zero every half up to `high_water` that is not the current one or was not written here.

        Args:
            session_ids: of the players of all slots up to `high_water`; 0 for a free slot.

        Returns:
            Whether the row of each slot was written here.
        """
        places = self._places[: self.high_water]
        rows = self._halves[places]
        ours: npt.NDArray[np.bool_] = (
            (rows["version"] == rows["version_again"])
            & (rows["version"] > self._first_version)
            & (rows["version"] <= self._version)
            & (rows["session_id"] == session_ids)
            & (rows["slot"] == np.arange(self.high_water))
            & (rows["generation"] == self._generations[: self.high_water])
        )
        # The other half may be foreign too, with a higher version.
        self._blocks[places ^ 1] = np.zeros((), self._blocks.dtype)
        self._blocks[places[~ours]] = np.zeros((), self._blocks.dtype)
        return ours

    def _write(
        self,
        slot: int,
        session_id: int,
        generation: int,
        updated_at: int,
        sequence: int,
        values: tuple[Any, ...],
    ) -> None:
        """Write the other half, and make it the current one.

        Raises:
            struct.error: a number cannot be packed; the row is unchanged.
        """
        self._version = version = self._version + 1
        place = self._place[slot] ^ 1
        row = (session_id, slot | generation << 32, updated_at, sequence, values)
        self._put(self._buffer, place * self._size, version, *row)
        self._place[slot] = place
        self._generations[slot] = generation

    def _write_many(
        self, slots: Slots, places: npt.NDArray[np.int64], rows: npt.NDArray[np.void]
    ) -> None:
        """Write the other half of each of these slots, and make it the current one.

        Args:
            slots: each at most once.
            places: of their current halves; changed to those of the halves written.
            rows: what to write, but for the versions; changed.
        """
        rows["version"] = versions = np.arange(self._version + 1, self._version + 1 + len(slots))
        places ^= 1
        # The closing version goes last: a half is whole only once all of it is written.
        self._heads[places] = rows.view(self._layout.head)["head"]
        self._tails[places] = versions
        self._version += len(slots)
        self._places[slots] = places

    def _head(self, slot: int) -> tuple[int, ...]:
        return HEAD(self._buffer, self._place[slot] * self._size + HEAD_AT)

    def session_id(self, slot: int) -> int:
        """The player of this slot; 0 for a free slot."""
        return self._head(slot)[0]

    def updated_at(self, slot: int) -> int:
        """When this player last changed, microseconds since the Unix epoch; 0 for never."""
        return self._head(slot)[2]

    def sequence(self, slot: int) -> int:
        """The highest sequence applied in this player's generation."""
        return self._head(slot)[3]

    def sequences(self, slots: Slots | None = None) -> npt.NDArray[np.uint64]:
        """`sequence` of each of these slots; by default of every slot below `high_water`."""
        places = self._places[: self.high_water] if slots is None else self._places[slots]
        sequences: npt.NDArray[np.uint64] = self._sequences[places]
        return sequences

    def named(self, slots: Slots) -> npt.NDArray[np.void]:
        """A copy of each of these players' rows, as `playerstate.state.layout.RowLayout.named`."""
        return self._blocks.take(self._places[slots]).view(self._layout.named)

    def session_ids(self, slots: Slots) -> npt.NDArray[np.int64]:
        """The player of each of these slots; 0 for a free one."""
        ids: npt.NDArray[np.int64] = self._session_ids[self._places[slots]]
        return ids

    def column(self, name: str, slots: Slots) -> npt.NDArray[Any]:
        """The packed values of one field, of each of these players."""
        values: npt.NDArray[Any] = self._named[name][self._places[slots]]
        return values

    def fields(self, slots: Slots) -> list[bytes]:
        """The packed values of each of these players."""
        fields: list[bytes] = self._fields[self._places[slots]].tolist()
        return fields

    def values(self, slot: int) -> tuple[Any, ...]:
        """This player's packed values."""
        return self._unpack_fields(self._buffer, self._place[slot] * self._size + FIELDS_AT)
