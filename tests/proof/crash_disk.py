"""A disk as a power cut leaves it: what SQLite writes and syncs is recorded, and cut anywhere.

`Recorder` is a VFS of SQLite's, put under all databases that are opened while it is there: every
write, truncation, deletion and sync of every file is an event in one list, in the order they were
made.  `Recorder.image` is what a disk may hold if the power goes after any one of them.

What was synced is there.  Of what was not, each sector is there or not, by chance: a write that
spans sectors may be torn, and a later write may have reached the disk before an earlier one.  A
file that was made is there for sure once a log or a rollback live file of its directory was synced,
which is when SQLite syncs the directory.
"""

from __future__ import annotations

import os
import random
import time
from typing import Any

import apsw
import attrs

SECTOR = 512


@attrs.frozen
class Event:
    """Something that happened to a file.

    Attributes:
        kind: ``open``, ``write``, ``truncate``, ``sync`` or ``delete``.
        path: the file's.
        at: the offset of a write, the size after a truncation, whether a deletion was synced.
        data: what was written.
        time: seconds of `time.monotonic`.
    """

    kind: str
    path: str
    at: int = 0
    data: bytes = b""
    time: float = attrs.field(factory=time.monotonic)


class Recorder(apsw.VFS):
    """Records everything from `__init__` to `close`.

    Attributes:
        events: in order; of whatever thread.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.base = apsw.vfs_names()[0]
        super().__init__("playerstate-recorder", self.base, makedefault=True)

    def close(self) -> None:
        """Record no more; everything opened in between is closed."""
        self.unregister()

    def xOpen(self, name: Any, flags: list[int]) -> _RecordedFile:  # noqa: N802
        """See `apsw.VFS.xOpen`."""
        return _RecordedFile(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        """See `apsw.VFS.xDelete`."""
        super().xDelete(filename, syncdir)
        self.events.append(Event("delete", filename, int(syncdir)))

    def image(self, events: int, chance: random.Random) -> dict[str, bytes]:
        """Files, by path, that a disk may hold after so many events."""
        files: dict[str, _Disk] = {}
        for event in self.events[:events]:
            disk = files.setdefault(event.path, _Disk())
            if event.kind == "open":
                disk.open()
            elif event.kind == "delete":
                disk.delete(bool(event.at))
            elif event.kind == "sync":
                disk.sync()
                if not event.path.endswith(".db"):
                    directory = os.path.dirname(event.path)
                    for path, other in files.items():
                        if os.path.dirname(path) == directory:
                            other.sync_entry()
            else:
                disk.unsynced.append(event)
        found = {path: disk.after_cut(chance) for path, disk in files.items()}
        return {path: content for path, content in found.items() if content is not None}


class _RecordedFile(apsw.VFSFile):
    def __init__(self, recorder: Recorder, name: Any, flags: list[int]) -> None:
        super().__init__(recorder.base, name, flags)
        self._events = recorder.events
        self._path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        self._events.append(Event("open", self._path))

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self._events.append(Event("write", self._path, offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        self._events.append(Event("truncate", self._path, newsize))
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802
        # Another thread may write to the same file meanwhile, and nobody knows of that.
        before = len(self._events)
        super().xSync(flags)
        written = any(e.path == self._path and e.kind != "open" for e in self._events[before:])
        if not written:
            self._events.append(Event("sync", self._path))


class _Disk:
    """One file on the disk, as far as is known."""

    def __init__(self) -> None:
        self.unsynced: list[Event] = []
        self._synced = bytearray()
        self._entry_synced = False
        self._deleted = False

    def open(self) -> None:
        """It is there, or made anew."""
        if self._deleted:
            self.__init__()  # type: ignore[misc]

    def sync(self) -> None:
        """Everything written is on disk."""
        for event in self.unsynced:
            _apply(self._synced, event)
        self.unsynced.clear()

    def sync_entry(self) -> None:
        """So is the directory."""
        if self._deleted:
            self.__init__()  # type: ignore[misc]
        else:
            self._entry_synced = True

    def delete(self, synced: bool) -> None:
        """It is deleted, perhaps for good."""
        self._deleted = True
        self.unsynced.clear()
        if synced or not self._entry_synced:
            self.__init__()  # type: ignore[misc]

    def after_cut(self, chance: random.Random) -> bytes | None:
        """What is left of it; None for nothing."""
        if self._deleted and chance.random() < 0.5:
            return None
        if not self._entry_synced and chance.random() < 0.5:
            return None
        content = bytearray(self._synced)
        kept = chance.choice((0.0, 0.1, 0.5, 0.9, 1.0))
        for event in self.unsynced:
            if event.kind == "write":
                for start in range(0, len(event.data), SECTOR):
                    if chance.random() < kept:
                        part = event.data[start : start + SECTOR]
                        _apply(content, Event("write", "", event.at + start, part))
            elif chance.random() < kept:
                _apply(content, event)
        return bytes(content)


def _apply(content: bytearray, event: Event) -> None:
    if event.kind == "write":
        if len(content) < event.at:
            content.extend(bytes(event.at - len(content)))
        content[event.at : event.at + len(event.data)] = event.data
    elif event.kind == "truncate":
        del content[event.at :]
