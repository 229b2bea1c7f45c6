"""Erases a player from a live file that no process uses."""

from __future__ import annotations

import os

import numpy as np

from playerstate.live.leftover import SLOTS_AT_ONCE, NotALiveFile, read_header


def erase_player(fd: int, session_id: int) -> int:
    """Overwrite a player's rows by zeros, as if they had never been written, and sync the file.

    Args:
        fd: of the file, open for reading and writing, and locked.
        session_id: the player's.

    Returns:
        How many rows there were, the older halves included.

    Raises:
        NotALiveFile: the file is not a live file, or is damaged.
        OSError: it cannot be read or written.
    """
    erased = 0
    with open(fd, "rb", closefd=False) as file:
        header = read_header(file)
        size = header.layout.size
        room = np.empty(2 * min(header.slots, SLOTS_AT_ONCE), header.layout.dtype)
        for first in range(0, header.slots, SLOTS_AT_ONCE):
            at = header.rows_at + 2 * first * size
            halves = room[: 2 * min(SLOTS_AT_ONCE, header.slots - first)]
            file.seek(at)
            if file.readinto(halves.view(np.uint8).data) != halves.nbytes:
                raise NotALiveFile("it was cut while it was being read")
            for place in np.flatnonzero(halves["session_id"] == session_id).tolist():
                os.pwrite(fd, bytes(size), at + place * size)
                erased += 1
    if erased:
        os.fsync(fd)
    return erased
