"""A power cut at any moment: what was called saved is saved, and every start succeeds.

The service runs in this process with its real store on a real file system.  All that SQLite writes
and syncs goes through a VFS that records it (`tests.proof.crash_disk`), and the live table's
live file is photographed all the time.  From that, disks are made up as power cuts at random
moments would have left them, and the service is started on each.

Not covered: a disk that lies about a sync, damages what it was not writing to, or fails to keep a
sector whole; and the ``-shm`` file, which SQLite makes anew after any crash.
"""

from __future__ import annotations

import os
import random
import time
from bisect import bisect_right
from typing import Any

import apsw
import attrs
import numpy as np
from twisted.trial.unittest import SynchronousTestCase

from playerstate import PlayerState, StateSchema
from playerstate.conversations.gateway import Gateway
from playerstate.live.leftover import PAGE
from playerstate.stores.sqlite import writer as sqlite_writer
from playerstate.stores.sqlite.store import SQLiteStore
from playerstate.testing import SteppedService
from playerstate.wire.messages import LEAVE, Codec, Receipt, encode_numbered
from tests.kit.crash_live import LiveService
from tests.proof.crash_disk import SECTOR, Recorder

COPIES = int(os.environ.get("PROOF_POWER_CUTS", "20"))
"""Power cuts, for each of the two settings of ``synchronous``."""
SEED = int(os.environ.get("PROOF_SEED", "20240229"))
PLAYERS = 24
SAVE_WITHIN = 0.25
SLACK = 1.0
"""Seconds that a busy machine may add to that."""
SCHEMA = StateSchema.of(PlayerState)

State = tuple[float, ...]


@attrs.frozen
class Said:
    """Something that was said or done when the recorder had seen so many events."""

    events: int
    time: float
    session_id: int
    number: int


@attrs.frozen
class Photograph:
    """The live file's bytes when the recorder had seen so many events."""

    events: int
    content: bytes


class Run:
    """A server's life or two, and all there is to know about it.

    Args:
        directory: of the database and the live file.
        chance: where the moves come from.
        synchronous: the store's setting.
    """

    def __init__(self, directory: str, chance: random.Random, synchronous: str) -> None:
        self.database = f"{directory}/players.db"
        self.live_file = f"{directory}/players.db.live"
        self.synchronous = synchronous
        self.saved: list[Said] = []
        self.applied: list[Said] = []
        self.states: dict[int, dict[State, int]] = {i: {} for i in range(1, PLAYERS + 1)}
        self.photographs: list[Photograph] = []
        self.recorder = Recorder()
        self._chance = chance
        self._codec = Codec(SCHEMA)
        self._numbers = dict.fromkeys(self.states, 0)
        self._told = dict.fromkeys(self.states, 0)

    def send(self, session_id: int, peer: Any, nonce: int, message: bytes) -> None:
        """Note what the server says; see `playerstate.conversations.gateway.Transport`."""
        answer = self._codec.decode_server(message)
        if isinstance(answer, Receipt) and answer.saved > self._told[session_id]:
            self._told[session_id] = answer.saved
            self._say(self.saved, session_id, answer.saved)

    def end(self, session_id: int, peer: Any) -> None:
        """Nothing is kept of a peer."""

    def _say(self, list_: list[Said], session_id: int, number: int) -> None:
        list_.append(Said(len(self.recorder.events), time.monotonic(), session_id, number))

    def live(self, seconds: float) -> None:
        """A server that runs for so long, and is stopped."""
        live = LiveService(
            SQLiteStore(self.database, SCHEMA, self.synchronous),
            save_within=SAVE_WITHIN,
            live_file=self.live_file,
        )
        gateway = Gateway(live.service)
        gateway.start()
        for session_id in self.states:
            self._join(gateway, session_id)
        end = time.monotonic() + seconds
        flushed: list[dict[int, int]] = []
        while time.monotonic() < end:
            for session_id in self._chance.sample(sorted(self.states), PLAYERS // 3):
                self._move(gateway, session_id)
            leaver = self._chance.randrange(1, PLAYERS * 8)
            if leaver in self.states:
                message = encode_numbered(LEAVE, self._numbers[leaver])
                gateway.received_many(self, [leaver], [None], [message], 0)
                live.run(0.02)
                self._join(gateway, leaver)
            if self._chance.random() < 0.03:
                numbers = dict(self._numbers)
                live.service.flush().addCallback(lambda _, n=numbers: flushed.append(n))
            live.turn(0.001)
            for numbers in flushed:
                for session_id, number in numbers.items():
                    self._say(self.saved, session_id, number)
            flushed.clear()
            self._photograph()
        closed = gateway.close()
        live.stop()
        live.result(closed)
        for session_id, number in self._numbers.items():
            self._say(self.saved, session_id, number)
        self._photograph()

    def _join(self, gateway: Gateway, session_id: int) -> None:
        nonce = self._chance.getrandbits(32)
        join = self._codec.encode_join(nonce, self._numbers[session_id])
        gateway.received_many(self, [session_id], [None], [join], 0)

    def _move(self, gateway: Gateway, session_id: int) -> None:
        self._numbers[session_id] = number = self._numbers[session_id] + 1
        state = (self._chance.uniform(-1e6, 1e6), float(number))
        self.states[session_id][state] = number
        applied = gateway.service.ledger.applied
        move = self._codec.encode_move(number, state)
        gateway.received_many(self, [session_id], [None], [move], 0)
        assert gateway.service.ledger.applied == applied + 1
        self._say(self.applied, session_id, number)

    def _photograph(self) -> None:
        with open(self.live_file, "rb") as file:
            self.photographs.append(Photograph(len(self.recorder.events), file.read()))

    def live_file_after(self, events: int, chance: random.Random) -> bytes | None:
        """The live file as a power cut may leave it: of each sector any version there ever was."""
        count = bisect_right([photograph.events for photograph in self.photographs], events)
        if not count or chance.random() < 0.1:
            return None
        newest = np.frombuffer(self.photographs[count - 1].content, np.uint8)
        content = newest.copy()
        oldest = chance.choice((1, 3, 30, 10_000))
        first = PAGE if chance.random() < 0.9 else 0
        for start in range(first, len(content), SECTOR):
            # The kernel writes back by itself, now and then, or never.
            index = chance.randrange(max(-1, count - 1 - oldest), count)
            version = b"" if index < 0 else self.photographs[index].content
            sector = version[start : start + SECTOR] or bytes(len(content[start : start + SECTOR]))
            content[start : start + SECTOR] = np.frombuffer(sector, np.uint8)
        return content.tobytes()

    def newest(self, said: list[Said], events: int, before: float = float("inf")) -> dict[int, int]:
        """By player, the highest number of those said up to then."""
        found: dict[int, int] = {}
        for each in said:
            if each.events <= events and each.time < before:
                found[each.session_id] = max(found.get(each.session_id, 0), each.number)
        return found


class PowerCutTests(SynchronousTestCase):
    """Disks after power cuts at random moments."""

    def setUp(self) -> None:
        """A directory."""
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)
        self.made = 0

    def record(self, synchronous: str) -> Run:
        """Two lives of a server."""
        # So that the log is copied into the database many times.
        self.patch(sqlite_writer, "CHECKPOINT_BYTES", 100_000)
        run = Run(self.directory, random.Random(SEED), synchronous)
        fsync = os.fsync

        def recorded(fd: int) -> None:
            fsync(fd)
            path = os.readlink(f"/proc/self/fd/{fd}")
            run.recorder.events.append(_synced(path))

        self.patch(os, "fsync", recorded)
        try:
            run.live(1.0)
            run.live(0.7)
        finally:
            run.recorder.close()
        self.patch(os, "fsync", fsync)
        return run

    def put(self, run: Run, files: dict[str, bytes], live_file: bytes | None) -> str:
        """A disk with these files; its database's path."""
        self.made += 1
        directory = f"{self.directory}/{self.made}"
        os.mkdir(directory)
        for path, content in files.items():
            with open(f"{directory}/{os.path.basename(path)}", "wb") as file:
                file.write(content)
        if live_file is not None:
            with open(f"{directory}/players.db.live", "wb") as file:
                file.write(live_file)
        return f"{directory}/players.db"

    def restored(self, run: Run, path: str, live_file: bool) -> dict[int, State]:
        """Start on this disk; where everybody stands who is known."""
        stepped = SteppedService(
            store=SQLiteStore(path, SCHEMA, run.synchronous),
            live_file=f"{path}.live" if live_file else None,
        )
        stepped.settle()
        found = {}
        for session_id in run.states:
            joined = stepped.join(session_id)
            if joined.restored:
                found[session_id] = (joined.state.x, joined.state.y)
        stopped = stepped.stop()
        self.successResultOf(stopped)
        connection = apsw.Connection(path)
        self.assertEqual(connection.pragma("integrity_check"), "ok")
        connection.close()
        return found

    def numbers(self, run: Run, found: dict[int, State], what: str) -> dict[int, int]:
        """The numbers of the moves that led there; each must be one."""
        for session_id, state in found.items():
            self.assertIn(state, run.states[session_id], f"{what}: player {session_id}")
        return {session_id: run.states[session_id][state] for session_id, state in found.items()}

    def cut(self, run: Run, number: int) -> tuple[int, dict[int, int]]:
        """One power cut: start without the live file, and with it; when, and what was restored."""
        chance = random.Random(f"{SEED} {number}")
        events = chance.randrange(len(run.recorder.events) + 1)
        what = f"seed {SEED}, power cut {number} after event {events}"
        files = run.recorder.image(events, chance)
        live_file = run.live_file_after(events, chance)
        alone = self.numbers(
            run, self.restored(run, self.put(run, files, None), live_file=False), what
        )
        path = self.put(run, files, live_file)
        both = self.numbers(run, self.restored(run, path, live_file=True), what)
        applied = run.newest(run.applied, events)
        for session_id in run.states:
            # The live file may help; it never takes anything away.
            self.assertGreaterEqual(
                both.get(session_id, 0), alone.get(session_id, 0), f"{what}: player {session_id}"
            )
            self.assertLessEqual(both.get(session_id, 0), applied.get(session_id, 0) + 1, what)
        return events, alone

    def test_full(self) -> None:
        """With ``synchronous=full`` the database alone has everything that was called saved, and
        all that is older than the server may take to save it."""
        run = self.record("full")
        self.assertGreater(len({(said.session_id, said.number) for said in run.saved}), 20)
        self.assertTrue([e for e in run.recorder.events if e.kind == "sync"])
        written = {e.path for e in run.recorder.events if e.kind == "write"}
        self.assertLessEqual({run.database, f"{run.database}-wal"}, written)
        for number in range(COPIES):
            events, restored = self.cut(run, number)
            what = f"seed {SEED}, power cut {number} after event {events}"
            for session_id, saved in run.newest(run.saved, events).items():
                self.assertGreaterEqual(
                    restored.get(session_id, 0), saved, f"{what}: player {session_id} was saved"
                )
            if events:
                then = run.recorder.events[events - 1].time - SAVE_WITHIN - SLACK
                for session_id, old in run.newest(run.applied, events, then).items():
                    self.assertGreaterEqual(
                        restored.get(session_id, 0), old, f"{what}: player {session_id} is late"
                    )

    def test_normal(self) -> None:
        """With ``synchronous=normal`` the last commits may be gone, but every start succeeds, with
        states that really were, and a clean stop is as good as with ``full``."""
        run = self.record("normal")
        for number in range(COPIES):
            self.cut(run, number)
        chance = random.Random(SEED)
        for number in range(5):
            files = run.recorder.image(len(run.recorder.events), chance)
            found = self.restored(run, self.put(run, files, None), live_file=False)
            what = f"seed {SEED}, power cut {number} after the stop"
            everything = run.newest(run.applied, len(run.recorder.events))
            self.assertEqual(self.numbers(run, found, what), everything)


def _synced(path: str) -> Any:
    from tests.proof.crash_disk import Event

    return Event("sync", path)
