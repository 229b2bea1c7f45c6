"""The live file: its bytes, how it is made, claimed and closed, and the room it takes."""

from __future__ import annotations

import fcntl
import os
import resource
import struct
import subprocess
import sys
from typing import Any

import apsw
import attrs
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from playerstate import PlayerState, StateSchema
from playerstate.interfaces import StoreBusy, StoreUnusable
from playerstate.live import file as live_file_module
from playerstate.live import leftover as leftover_module
from playerstate.live import names as names_module
from playerstate.live import table as table_module
from playerstate.live.file import LiveFile
from playerstate.live.leftover import FORMAT, MAGIC, PAGE, read_leftover
from playerstate.live.names import MAKING, RECOVERING
from playerstate.live.table import FIRST_PLACES, LiveTable
from playerstate.stores.sqlite.store import SQLiteWriter
from playerstate.testing import FaultyStore, SteppedService
from tests.kit.crash_live import LiveService
from tests.kit.livefiles import (
    IDENTITY,
    Avatar,
    LiveFileTestCase,
    leave_unsaved,
    make_live_file,
    make_table,
    remaining,
)
from tests.kit.players import SCHEMA
from tests.kit.support import UNMEASURED


class BytesTests(SynchronousTestCase):
    """The bytes of the file."""

    def test_header(self) -> None:
        """The header is what the module says, byte for byte; the rest is allocated and zero."""
        path = self.mktemp()
        make_table(path, StateSchema.of(Avatar), 3)
        with open(path, "rb") as file:
            content = file.read()
        names = b"x:float/0.015625,hp:int,alive:bool,zone:text(16)"
        expected = (
            b"PSLIVE\0\0"
            + b"\1\0\0\0"  # format
            + b"\x80\0\0\0"  # bytes of a half: 48 and 8 + 8 + 1 + 16, rounded up
            + b"\3\0\0\0\0\0\0\0"  # slots
            + b"\0\x10\0\0"  # bytes of the header
            + b"\0\0\0\0"  # not clean
            + IDENTITY
            + bytes([len(names), 0, 0, 0])
            + names
        )
        looks = content[4096 - 16 : 4096 - 8]  # from a random number
        expected = expected.ljust(4096 - 16, b"\0") + looks + struct.pack("<Q", 3)
        self.assertEqual(content[: len(expected)], expected)
        self.assertEqual(content[len(expected) :], bytes(3 * 2 * 128))
        self.assertEqual(FORMAT, 1)
        self.assertEqual(os.stat(path).st_blocks * 512 >= len(content), True)

    def test_a_row(self) -> None:
        """A half is what the layout says, byte for byte."""
        path = self.mktemp()
        table = make_table(path, SCHEMA, 4)
        table.admit(7, (1.0, 2.0), 5)
        slot = table.admit(42, (350.0, 200.0), 0)
        table.start_generation(slot, 9)
        table.apply(slot, 12, (1.5, -2.5), 1_700_000_000_000_000)
        with open(path, "rb") as file:
            file.seek(PAGE + 2 * 64 * slot)
            first, second = file.read(64), file.read(64)
        # The first write goes into the second half: admit (2), begin (3), apply (4).
        self.assertEqual(
            second,
            struct.pack("<QqIIqQdd", 4, 42, 1, 1, 17 * 10**14, 12, 1.5, -2.5) + b"\4" + bytes(7),
        )
        self.assertEqual(
            first, struct.pack("<QqIIqQdd", 3, 42, 1, 1, 0, 9, 350.0, 200.0) + b"\3" + bytes(7)
        )

    def test_large_schema(self) -> None:
        """A schema's text longer than a page makes the header longer, in whole pages."""
        fields = {f"a_rather_long_name_of_a_flag_{n:04}": True for n in range(400)}
        state = attrs.make_class(
            "Flags", {name: attrs.field(default=True, type=bool) for name in fields}, frozen=True
        )
        schema = StateSchema.of(state)
        path = self.mktemp()
        table = make_table(path, schema, 2)
        slot = table.admit(1, (1,) * 400, 0)
        table.apply(slot, 1, (0, 1) * 200, 77)
        with open(path, "rb") as file:
            header_bytes = struct.unpack_from("<I", file.read(28), 24)[0]
        self.assertEqual(header_bytes % PAGE, 0)
        self.assertGreaterEqual(header_bytes, 52 + len(schema.canonical))
        self.assertEqual(remaining(path), {1: (*(0, 1) * 200, 77)})

    def test_clean(self) -> None:
        """`close` says in the header whether everything is in the store, and changes no more."""
        for clean in (False, True):
            path = self.mktemp()
            live_file, table = make_live_file(path)
            table.apply(table.admit(5, (0.0, 0.0), 0), 1, (1.0, 2.0), 3)
            with open(path, "rb") as file:
                before = file.read()
            live_file.close(clean)
            with open(path, "rb") as file:
                after = file.read()
            looks = slice(PAGE - 16, PAGE - 8)  # which the last look counts
            after = after[: looks.start] + before[looks] + after[looks.stop :]
            self.assertEqual(after[:28] + after[32:], before[:28] + before[32:])
            self.assertEqual(after[28:32], bytes([clean, 0, 0, 0]))
            self.assertEqual(read_leftover(path).clean, clean)


class MakeTests(SynchronousTestCase):
    """Processes that make, claim and use a live file of one name at the same time."""

    def test_held(self) -> None:
        """A closed live file may be opened again, also by this process, while views of it live."""
        path = self.mktemp()
        live_file, table = make_live_file(path)
        self.assertRaises(StoreUnusable, LiveFile(path).claim, IDENTITY)
        live_file.close(True)
        self.assertIs(LiveFile(path).claim(IDENTITY), None)
        del table

    def test_in_use_while_it_is_made(self) -> None:
        """Another process that is making a live file of this name keeps it."""
        path = self.mktemp()
        refused: list[str] = []
        allocate = os.posix_fallocate

        def meanwhile(*arguments: int) -> None:
            self.patch(os, "posix_fallocate", allocate)
            error = self.assertRaises(StoreUnusable, LiveFile(path).open, SCHEMA, 2, bytes(16))
            refused.append(str(error))
            allocate(*arguments)

        self.patch(os, "posix_fallocate", meanwhile)
        table = make_table(path, SCHEMA, 2)
        self.assertIn("is in use by another process", refused[0])
        self.assertEqual(os.stat(path).st_nlink, 1)
        self.assertEqual(read_leftover(path).identity, IDENTITY)
        self.assertFalse(os.path.exists(path + MAKING))
        del table

    def test_made_by_another_meanwhile(self) -> None:
        """A start that locked a file which no longer has the name gives up."""
        path = self.mktemp()
        lock = names_module.lock

        def slow(fd: int, name: str) -> None:
            os.rename(path + MAKING, path)
            lock(fd, name)

        self.patch(live_file_module, "lock", slow)
        self.patch(names_module, "lock", slow)
        error = self.assertRaises(StoreUnusable, LiveFile(path).open, SCHEMA, 2, IDENTITY)
        self.assertIn("is in use by another process", str(error))
        self.assertEqual(os.path.getsize(path), 0)

    def test_killed_while_it_is_made(self) -> None:
        """A file that a killed start was making is made anew by the next, whatever its size."""
        for half in (b"", bytes(100_000), MAGIC + bytes(100), MAGIC + b"half of it" * 10_000):
            path = self.mktemp()
            with open(path + MAKING, "wb") as file:
                file.write(half)
            table = make_table(path, SCHEMA, 2)
            self.assertEqual(os.path.getsize(path), PAGE + LiveTable.bytes_needed(SCHEMA, 2))
            self.assertEqual(len(read_leftover(path).records), 0)
            self.assertFalse(os.path.exists(path + MAKING))
            del table

    def test_in_use_while_recovering(self) -> None:
        """Another process that still saves a leftover keeps it, and its new live file."""
        path = self.mktemp()
        leave_unsaved(path)
        first = LiveFile(path)
        self.assertIsNot(first.claim(IDENTITY), None)
        kept = first.open(SCHEMA, 2, IDENTITY)
        number = os.stat(path).st_ino
        other = LiveFile(path)
        with self.assertRaises(StoreUnusable):
            other.claim(bytes(16))
            other.open(SCHEMA, 2, bytes(16))
        self.assertEqual(os.stat(path).st_ino, number)
        self.assertTrue(os.path.exists(path + RECOVERING))
        del kept

    def test_recovering_is_held(self) -> None:
        """A leftover is locked until it is discarded, and the directory is synced then."""
        path = self.mktemp()
        leave_unsaved(path)
        live_file = LiveFile(path)
        self.assertIsNot(live_file.claim(IDENTITY), None)
        with open(path + RECOVERING, "rb") as file:
            with self.assertRaises(BlockingIOError):
                fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            synced: list[tuple[str, bool]] = []
            sync = os.fsync

            def recording(fd: int) -> None:
                there = os.path.exists(path + RECOVERING)
                synced.append((os.readlink(f"/proc/self/fd/{fd}"), there))
                sync(fd)

            self.patch(os, "fsync", recording)
            live_file.discard()
            self.assertEqual(synced, [(os.path.dirname(os.path.realpath(path)), False)])
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


class FaultTests(SynchronousTestCase):
    """The system refuses what is asked of the file."""

    def refuse(self, name: str) -> None:
        """Let this function of `os` fail from now on."""

        def refused(*arguments: Any) -> None:
            raise OSError(5, "Input/output error")

        self.patch(os, name, refused)

    def test_claim(self) -> None:
        """A live file that cannot be taken over refuses the start, and says what is needed."""
        path = self.mktemp()
        leave_unsaved(path)
        self.refuse("rename")
        error = self.assertRaises(StoreUnusable, LiveFile(path).claim, IDENTITY)
        self.assertIn("Input/output error; it must be a file that this user may read", str(error))

    def test_lost(self) -> None:
        """A file that can no longer be looked at counts as cut, and as lost."""
        live_file, table = make_live_file(self.mktemp())
        self.assertFalse(live_file.is_cut())
        self.refuse("lseek")
        self.assertTrue(live_file.is_cut())
        self.refuse("fstat")
        self.assertEqual(live_file.lost(), "unreadable or unwritable (Input/output error)")
        del table

    def test_reserve(self) -> None:
        """A file that was lost is not grown: it is made anew before that."""
        path = self.mktemp()
        live_file = LiveFile(path)
        live_file.open(SCHEMA, 2 * FIRST_PLACES, IDENTITY)
        os.unlink(path)
        error = self.assertRaises(StoreUnusable, live_file.reserve, 128 * FIRST_PLACES + 1)
        self.assertIn("was removed or renamed; it is made anew shortly", str(error))


class SetAsideTests(LiveFileTestCase):
    """Live files that cannot be used are kept, and the start goes on."""

    def levels(self) -> list[Any]:
        """Collects the levels of the log lines that report that one was set aside, from now on."""
        levels: list[Any] = []

        def observe(event: Any) -> None:
            if "set aside as" in event.get("log_format", ""):
                levels.append(event["log_level"])

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        return levels

    def test_kept(self) -> None:
        """It is kept byte for byte under a name that the log tells; critical if it may hold more
        than the store does."""
        self.crash(p1=1.0)
        whole = self.content()

        def changed(at: int, part: bytes, of: bytes = whole) -> bytes:
            return of[:at] + part + of[at + len(part) :]

        other = changed(32, b"of another store")
        for content, why, level in (
            (b"", "does not begin with the header", LogLevel.critical),
            # The pages never came to disk.
            (bytes(8192), "does not begin with the header", LogLevel.critical),
            (whole[:5000], "its size is not that of", LogLevel.critical),
            (changed(8, b"\2"), "it has format 2", LogLevel.critical),
            (changed(52, b"x:float,x:float"), "its schema is damaged", LogLevel.critical),
            (other, "holds 1 unsaved players of another store", LogLevel.critical),
            (changed(28, b"\1", other), "holds no unsaved players of another", LogLevel.info),
        ):
            with self.subTest(why):
                self.replace(content)
                self.log.lines.clear()
                levels = self.levels()
                stepped = self.start()
                self.assertEqual(stepped.join(1).restored, False)
                (aside,) = set(self.files()) - {"moves.live"}
                self.assertTrue(aside.startswith("moves.live."))
                with open(f"{self.directory}/{aside}", "rb") as file:
                    self.assertEqual(file.read(), content)
                (line,) = self.log.having("was set aside as")
                self.assertIn(why, line)
                self.assertIn(aside, line)
                self.assertEqual(levels, [level])
                self.successResultOf(stepped.stop())
                os.unlink(f"{self.directory}/{aside}")


class CloseTests(LiveFileTestCase):
    """Whether a stop marks the file as clean."""

    def test_clean_stop_syncs_before_it_says_so(self) -> None:
        """The log is copied into the database and all of it synced; then the header says clean."""
        clean: list[bool] = []
        sync = SQLiteWriter.sync

        def watched(writer: SQLiteWriter) -> None:
            sync(writer)
            clean.append(read_leftover(self.path).clean)
            # The database alone has everything by now.
            connection = apsw.Connection(
                f"file:{self.directory}/players.db?immutable=1",
                flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI,
            )
            clean.append(connection.execute("SELECT x FROM player_state").get == 6.0)
            connection.close()

        self.patch(SQLiteWriter, "sync", watched)
        stepped = self.start(self.sqlite())
        stepped.join(1)
        stepped.service.update(1, PlayerState(6.0, 0.0))
        self.successResultOf(stepped.stop())
        self.assertEqual(clean, [False, True])
        self.assertTrue(read_leftover(self.path).clean)

    def test_stop_that_cannot_sync(self) -> None:
        """After a failed sync the live file is not marked clean."""

        def fail(writer: SQLiteWriter) -> None:
            raise OSError(5, "Input/output error")

        self.patch(SQLiteWriter, "sync", fail)
        stepped = self.start(self.sqlite())
        stepped.join(1)
        stepped.service.update(1, PlayerState(6.0, 0.0))
        self.successResultOf(stepped.stop())
        self.assertFalse(read_leftover(self.path).clean)
        self.flushLoggedErrors(OSError)

    def test_sync_beside_a_reader(self) -> None:
        """While another connection reads an older snapshot, a sync reaches the log instead."""
        store = self.sqlite()
        stepped = self.start(store)
        stepped.join(1)
        stepped.service.update(1, PlayerState(6.0, 0.0))
        stepped.service.flush()
        stepped.settle()
        reader = apsw.Connection(f"{self.directory}/players.db")
        self.addCleanup(reader.close)
        reader.execute("BEGIN; SELECT count(*) FROM player_state").get  # noqa: B018
        stepped.service.update(1, PlayerState(7.0, 0.0))
        stepped.service.flush()
        stepped.settle()
        synced: list[str] = []
        fsync = os.fsync

        def watched(fd: int) -> None:
            synced.append(os.readlink(f"/proc/self/fd/{fd}"))
            fsync(fd)

        self.patch(os, "fsync", watched)
        stepped.thread.persister._writer.sync()
        self.assertEqual(synced, [f"{self.directory}/players.db-wal"])
        self.successResultOf(stepped.stop())

    def test_deadline_of_stopping(self) -> None:
        """What the store did not take in time stays in the live file for the next start."""
        live = LiveService(
            self.sqlite(synchronous="full"), save_within=0.2, stop_within=0.3, live_file=self.path
        )
        live.join(1, 2)
        live.service.update(1, PlayerState(1.0, 1.0))
        live.flush()
        holder = apsw.Connection(f"{self.directory}/players.db")
        self.addCleanup(holder.close)
        holder.execute("BEGIN IMMEDIATE")
        live.service.update(2, PlayerState(2.0, 2.0))
        live.stop()
        self.assertTrue(live.service.gave_up)
        self.assertFalse(read_leftover(self.path).clean)
        (line,) = self.log.having("unsaved of player 2;")
        self.assertIn(f"the next start saves them from the live file {self.path}", line)
        holder.execute("ROLLBACK")
        del live
        stepped = self.start(self.sqlite())
        stepped.settle()
        self.assertEqual(stepped.join(2).state, PlayerState(2.0, 2.0))
        self.successResultOf(stepped.stop())


class StepsTests(LiveFileTestCase):
    """A live file with room for more players than use it."""

    def setUp(self) -> None:
        """Steps that are soon taken."""
        super().setUp()
        for module in (table_module, live_file_module):
            self.patch(module, "FIRST_PLACES", 64)

    def test_allocated_as_it_is_used(self) -> None:
        """Places take no disk before they are used, and all that are used are found again."""
        stepped = self.start(max_players=2**20)
        before = os.stat(self.path)
        self.assertEqual(before.st_size, PAGE + 128 * 2**20)
        self.assertLess(before.st_blocks * 512, 65_536)
        for player in range(1, 202):
            stepped.join(player)
            stepped.service.update(player, PlayerState(float(player), 0.0))
        self.assertGreaterEqual(os.stat(self.path).st_blocks * 512, PAGE + 256 * 128)
        self.assertEqual(stepped.service.table.room, 256)
        self.kill(stepped)
        reads: list[int] = []
        newest = leftover_module._newest_whole

        def counting(halves: Any) -> Any:
            reads.append(len(halves))
            return newest(halves)

        self.patch(leftover_module, "_newest_whole", counting)
        self.assertEqual(len(remaining(self.path)), 201)
        self.assertEqual(reads, [2 * 256])

    def test_no_room_for_a_step(self) -> None:
        """A player refused for lack of room may try again; no other player is affected."""
        stepped = self.start(max_players=1000)
        for player in range(1, 65):
            stepped.join(player)

        def full(*arguments: int) -> None:
            raise OSError(28, "No space left on device")

        patched = self.patch(os, "posix_fallocate", full)
        for _ in range(2):
            failure = self.failureResultOf(stepped.service.join(65), StoreBusy)
            self.assertIn("make room", failure.getErrorMessage())
        self.assertEqual(len(stepped.service.table), 64)
        patched.restore()
        stepped.join(65)
        self.successResultOf(stepped.stop())


class RoomTests(SynchronousTestCase):
    """A live file for which there is no room is a refusal to start, with one line."""

    START = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "from playerstate import PlayerState, StateSchema\n"
        "from playerstate.interfaces import StoreUnusable\n"
        "from playerstate.live.file import LiveFile\n"
        "try:\n"
        "    LiveFile(sys.argv[1]).open(StateSchema.of(PlayerState), 10_000, bytes(16))\n"
        "except StoreUnusable as error:\n"
        "    print(error)\n"
    )

    def test_limit_of_a_file(self) -> None:
        """A limit on the size of a file."""
        path = os.path.abspath(self.mktemp())
        done = subprocess.run(
            [sys.executable, "-c", self.START.format(limit=65_536), path],
            env=os.environ | UNMEASURED,
            capture_output=True,
            text=True,
            timeout=20,
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn(f"cannot make the live file {path} of 1284096 bytes", done.stdout)
        self.assertIn("File too large", done.stdout)
        self.assertEqual(len(done.stdout.splitlines()), 1)
        self.assertFalse(os.path.exists(path))
        self.assertNotEqual(resource.getrlimit(resource.RLIMIT_FSIZE)[0], 65_536)

    def test_full_disk(self) -> None:
        """A file system with too little room: nothing is left there."""
        directory = os.path.abspath(self.mktemp())
        os.mkdir(directory)
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", directory], capture_output=True
        )
        if mounted.returncode:
            raise SkipTest("a file system can only be mounted by root")
        self.addCleanup(subprocess.run, ["umount", directory], check=True)
        live_file = f"{directory}/moves.live"
        error = self.assertRaises(
            StoreUnusable, LiveFile(live_file).open, SCHEMA, 10_000, bytes(16)
        )
        self.assertIn("No space left on device; make room", str(error))
        self.assertEqual(os.listdir(directory), [])
        store = FaultyStore(SCHEMA)
        closed: list[bool] = []
        store.close = lambda: closed.append(True)  # type: ignore[method-assign]
        self.assertRaises(StoreUnusable, SteppedService, store=store, live_file=live_file)
        # The reader's end and the store itself.
        self.assertEqual(closed, [True, True])
        smaller = LiveFile(live_file)
        self.assertEqual(len(smaller.open(SCHEMA, 100, bytes(16))), 100 * 128)
        smaller.close(False)

    def test_no_such_directory(self) -> None:
        """A directory that is missing."""
        path = os.path.abspath(self.mktemp()) + "/nowhere/moves.live"
        error = self.assertRaises(StoreUnusable, LiveFile(path).open, SCHEMA, 10, bytes(16))
        self.assertEqual(len(str(error).splitlines()), 1)
        self.assertIn("No such file or directory", str(error))
