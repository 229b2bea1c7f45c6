"""What a start makes of the rows that a process left: which it saves, and what waits for that."""

from __future__ import annotations

import math
import os
import shutil
from typing import Any

import apsw
import attrs
import numpy as np
from twisted.trial.unittest import SynchronousTestCase

from playerstate import PlayerState, StateSchema, text
from playerstate.interfaces import RowRefused, StoreBusy, Stored, StoreUnusable
from playerstate.live import recovery
from playerstate.live.file import LiveFile
from playerstate.live.leftover import Leftover, read_leftover
from playerstate.live.names import RECOVERING
from playerstate.live.recovery import as_rows
from playerstate.state.layout import RowLayout
from playerstate.state.schema import was
from playerstate.stores.memory import MemoryStore
from playerstate.stores.sqlite.store import SQLiteStore
from playerstate.testing import SteppedService
from tests.kit.livefiles import Avatar, LiveFileTestCase, make_table, remaining
from tests.kit.players import SCHEMA
from tests.kit.support import field, made


class Reader:
    """Holds an old state of everybody."""

    def __init__(self, values: tuple[Any, ...] = (1.0, 2.0)) -> None:
        self.values = values

    def load(self, session_id: int) -> Stored:
        """See `IStateReader.load`."""
        return Stored(self.values, 5)

    def close(self) -> None:
        """See `IStateReader.close`."""


class CostTests(SynchronousTestCase):
    """What it costs to compare many."""

    def layouts(self, players: int) -> int:
        """How many layouts are compiled to find so many unsaved players."""
        layout = RowLayout(SCHEMA.fields)
        records = np.zeros(players, layout.dtype).view(layout.record)
        records["session_id"] = np.arange(1, players + 1)
        records["updated_at"] = 10
        compiled: list[Any] = []

        def compile_layout(fields: Any) -> RowLayout:
            compiled.append(fields)
            return RowLayout(fields)

        patched = self.patch(recovery, "RowLayout", compile_layout)
        leftover = Leftover(bytes(16), False, tuple(SCHEMA.fields), records)
        self.assertEqual(len(recovery.find_unsaved(leftover, SCHEMA, Reader())), players)
        patched.restore()
        return len(compiled)

    def test_layout(self) -> None:
        """The layout is not compiled again for each row."""
        self.assertEqual(self.layouts(50), self.layouts(1))


class FieldsTests(SynchronousTestCase):
    """Rows of yesterday's state class in today's."""

    def rows(self, before: type, values: tuple[Any, ...], today: type) -> dict[str, Any]:
        """One row of `before`, read as `today`."""
        path = self.mktemp()
        schema = StateSchema.of(before)
        table = make_table(path, schema, 4)
        table.apply(table.admit(7, schema.spawn, 0), 1, values, 77)
        schema = StateSchema.of(today)
        rows, _ = as_rows(read_leftover(path), schema)
        record = rows.view(RowLayout(schema.fields).record)
        assert record.dtype.names is not None
        return dict(zip(record.dtype.names, record[0].tolist(), strict=True))

    def test_the_same(self) -> None:
        """Nothing changed: every field is the same, bit for bit."""
        row = self.rows(Avatar, (1 / 3, -(2**63), 0, "Ærø".encode().ljust(16, b"\0")), Avatar)
        self.assertEqual(
            row,
            {"session_id": 7, "x": 1 / 3, "hp": -(2**63), "alive": 0, "zone": "Ærø".encode()}
            | {"updated_at": 77},
        )

    def test_gained_lost_and_moved(self) -> None:
        """Fields are found by name: one that is new has its default, one that is gone is gone."""
        today = attrs.make_class(
            "Today",
            {
                "zone": attrs.field(default="spawn", type=str, metadata=text(16)),
                "mana": attrs.field(default=12, type=int),
                "x": attrs.field(default=0.0, type=float),
            },
            frozen=True,
        )
        row = self.rows(Avatar, (1.5, 3, 0, b"mill".ljust(16, b"\0")), today)
        self.assertEqual(
            row, {"session_id": 7, "zone": b"mill", "mana": 12, "x": 1.5, "updated_at": 77}
        )

    def test_text_of_another_size(self) -> None:
        """A text that fits is kept, whether the field has grown or shrunk."""
        for size in (4, 8, 40):
            today = attrs.make_class(
                "Today",
                {"zone": attrs.field(default="home", type=str, metadata=text(size))},
                frozen=True,
            )
            row = self.rows(Avatar, (1.5, 3, 0, b"mill".ljust(16, b"\0")), today)
            self.assertEqual(row["zone"], b"mill", size)

    def test_field_that_came_back(self) -> None:
        """What the store still holds of a field that the last run did not know is not lost."""
        directory = os.path.abspath(self.mktemp())
        os.mkdir(directory)
        path, live_file = f"{directory}/players.db", f"{directory}/moves.live"
        with_hp = attrs.make_class(
            "WithHp",
            {
                "x": attrs.field(default=0.0, type=float),
                "hp": attrs.field(default=100, type=int),
            },
            frozen=True,
        )
        without = attrs.make_class(
            "Without", {"x": attrs.field(default=0.0, type=float)}, frozen=True
        )
        for state, values, kill in ((with_hp, (1.0, 57), False), (without, (2.0,), True)):
            store = SQLiteStore(path, StateSchema.of(state), "normal")
            stepped = SteppedService(state, store, live_file=live_file)
            stepped.join(7)
            stepped.service.update(7, state(*values))
            if kill:
                shutil.copy(live_file, f"{directory}/kept")
            self.successResultOf(stepped.stop())
        # As if the second run had been killed before anything of it was saved.
        connection = apsw.Connection(path)
        connection.execute("UPDATE player_state SET x = 1.0, updated_at = 5")
        connection.close()
        os.replace(f"{directory}/kept", live_file)
        stepped = SteppedService(
            with_hp, SQLiteStore(path, StateSchema.of(with_hp), "normal"), live_file=live_file
        )
        stepped.settle()
        self.assertEqual(stepped.join(7).state, with_hp(2.0, 57))
        self.successResultOf(stepped.stop())

    def test_field_that_came_back_with_a_bad_value(self) -> None:
        """A stored value that is not allowed leaves the default, and the start goes on."""
        before, today = made(x=field(float, 0.0)), made(x=field(float, 0.0), y=field(float, 4.0))
        layout = RowLayout(StateSchema.of(before).fields)
        records = np.zeros(1, layout.dtype).view(layout.record)
        records["session_id"], records["updated_at"], records["x"] = 7, 10, 3.0
        leftover = Leftover(bytes(16), False, tuple(StateSchema.of(before).fields), records)
        schema = StateSchema.of(today)
        for stored, expected in ((2.0, 2.0), (math.nan, 4.0)):
            reader = Reader((1.0, stored))
            rows = recovery.find_unsaved(leftover, schema, reader)
            self.assertEqual(schema.struct.unpack(rows["fields"][0]), (3.0, expected))


class RecoveryTests(LiveFileTestCase):
    """The start after a death."""

    def test_saved_before_anybody_joins(self) -> None:
        """Joins wait, with StoreBusy, until what was left is in the store; then all are there."""
        self.crash(p1=1.0, p2=2.0)
        self.store.failures.extend([StoreBusy("locked")] * 2)
        stepped = self.start()
        self.assertIn("moves.live.recovering", self.files())
        for _ in range(2):
            self.failureResultOf(stepped.service.join(1), StoreBusy)
            stepped.step()
            self.assertEqual(self.store.players, {})
        self.failureResultOf(stepped.service.join(3), StoreBusy)
        self.assertEqual(stepped.service.ledger.snapshot().pending, 2)
        stepped.settle()
        self.assertEqual(self.store.players[2].values, (2.0, 0.0))
        self.assertEqual(self.files(), ["moves.live"])
        joined = stepped.join(1)
        self.assertEqual((joined.state, joined.restored), (PlayerState(1.0, 0.0), True))
        self.assertEqual(stepped.service.ledger.snapshot().imbalance(), [])
        self.assertEqual(stepped.service.ledger.recovered, 2)
        self.assertEqual(len(self.log.having("did not stop cleanly")), 1)
        self.successResultOf(stepped.stop())

    def test_changed_and_edited(self) -> None:
        """A change and an edit that were applied when the process was killed are recovered."""
        self.store.players[2] = Stored((9.0, 9.0), 5)
        stepped = self.start()
        stepped.join(1)
        stepped.service.change(1, x=1.0)
        stepped.service.edit(2, x=2.0)
        stepped.service.edit(3, create=True, x=3.0)
        self.kill(stepped)
        stepped = self.start()
        stepped.settle()
        found = {player: stored.values for player, stored in self.store.players.items()}
        self.assertEqual(found, {1: (1.0, 200.0), 2: (2.0, 9.0), 3: (3.0, 200.0)})
        self.successResultOf(stepped.stop())

    def test_that_cannot_be_removed(self) -> None:
        """While the old live file cannot be removed, no player can join: it would hide new rows."""
        self.crash(p1=1.0)
        faults = [OSError(30, "Read-only file system")] * 2

        def unlink(path: str) -> None:
            if path.endswith(RECOVERING) and faults:
                raise faults.pop()
            os.remove(path)

        self.patch(os, "unlink", unlink)
        stepped = self.start()
        stepped.settle()
        for _ in range(2):
            self.failureResultOf(stepped.service.join(1), StoreBusy)
            stepped.reactor.advance(1.0)
        self.assertEqual(stepped.join(1).state, PlayerState(1.0, 0.0))
        self.assertEqual(self.files(), ["moves.live"])
        [line] = self.log.having("no player can join")[:1]
        self.assertIn("cannot be removed: Read-only file system; remove it", line)
        self.successResultOf(stepped.stop())

    def test_that_cannot_be_removed_at_start(self) -> None:
        """Where the store has all, and the old live file cannot be removed, nothing starts."""
        self.crash()

        def unlink(path: str) -> None:
            raise OSError(30, "Read-only file system")

        self.patch(os, "unlink", unlink)
        error = self.assertRaises(StoreUnusable, self.start)
        self.assertIn("cannot be removed", str(error))

    def test_removed_by_somebody(self) -> None:
        """Once the operator has removed the old live file, players can join."""
        self.crash(p1=1.0)
        stepped = self.start()
        os.remove(self.path + RECOVERING)
        stepped.settle()
        self.assertEqual(stepped.join(1).state, PlayerState(1.0, 0.0))

    def test_imported_without_a_date(self) -> None:
        """A row of the store whose date is 0 is a stored one, saved again into another store."""
        self.store.players[7] = Stored((3.0, 4.0), 0)
        stepped = self.start()
        joined = stepped.join(7)
        self.assertEqual((joined.restored, joined.state), (True, PlayerState(3.0, 4.0)))
        stepped.settle()
        self.assertEqual(self.store.players[7], Stored((3.0, 4.0), 0))  # nothing is to be saved
        del self.store.players[7]
        stepped.service.run._guard_and_dirty_all()
        self.successResultOf(stepped.stop())
        self.assertEqual(self.store.players[7].values, (3.0, 4.0))

    def test_memory(self) -> None:
        """Beside a store that forgets, the players who were online are there again."""
        stepped = self.start(MemoryStore(SCHEMA))
        stepped.join(1)
        stepped.service.update(1, PlayerState(1.0, 0.0))
        stepped.service.flush()
        stepped.settle()
        self.kill(stepped)
        stepped = self.start(MemoryStore(SCHEMA))
        stepped.settle()
        self.assertEqual(stepped.join(1).state, PlayerState(1.0, 0.0))
        self.assertEqual(self.log.having("set aside"), [])

    def test_only_what_is_newer(self) -> None:
        """Rows that the store has, or has newer, are not written."""
        self.crash(p1=1.0, p2=2.0, p3=3.0)
        rows = {i: updated_at for i, (_, _, updated_at) in remaining(self.path).items()}
        self.store.players[1] = Stored((8.0, 8.0), rows[1])
        self.store.players[2] = Stored((9.0, 9.0), rows[2] + 1)
        stepped = self.start()
        stepped.settle()
        self.assertEqual(self.store.writes, [1])
        self.assertEqual(self.store.players[1].values, (8.0, 8.0))
        self.assertEqual(self.store.players[2].values, (9.0, 9.0))
        self.assertEqual(self.store.players[3].values, (3.0, 0.0))
        self.assertIn("of 3 players in its live file, 1 are newer", self.log.having("cleanly")[0])

    def test_nothing_newer(self) -> None:
        """Where the store has everything, the start is a plain one, and the log names no date."""
        self.crash(p1=1.0)
        row = remaining(self.path)[1]
        self.store.players[1] = Stored(row[:2], row[2])
        stepped = self.start()
        self.assertEqual(stepped.join(1).state, PlayerState(1.0, 0.0))
        self.assertEqual(self.files(), ["moves.live"])
        self.assertEqual(self.log.having("1970"), [])

    def test_synced_before_it_is_forgotten(self) -> None:
        """A store that cannot sync keeps the live file and the players waiting."""
        self.crash(p1=1.0)
        faults = [OSError(5, "Input/output error")] * 2

        def sync() -> None:
            self.assertIn("moves.live.recovering", self.files())
            if faults:
                raise faults.pop()

        self.store.sync = sync
        stepped = self.start()
        for _ in range(2):
            stepped.step()
            self.assertIn("moves.live.recovering", self.files())
            self.failureResultOf(stepped.service.join(1), StoreBusy)
        stepped.settle()
        self.assertEqual(self.files(), ["moves.live"])
        self.assertEqual(stepped.join(1).state, PlayerState(1.0, 0.0))
        self.assertEqual(stepped.service.ledger.snapshot().imbalance(), [])
        self.flushLoggedErrors(OSError)

    def test_killed_while_recovering(self) -> None:
        """Killed at any step of the recovery, the next start does it again."""
        self.crash(p1=1.0, p2=2.0)
        recovering = self.path + RECOVERING
        # Renamed, and no more.
        os.rename(self.path, recovering)
        for steps in range(3):
            self.store.failures.append(StoreBusy("locked"))
            stepped = self.start()
            for _ in range(steps):
                self.store.failures.append(StoreBusy("locked"))
                stepped.step()
            self.assertEqual(self.files(), ["moves.live", "moves.live.recovering"])
            self.kill(stepped)
            self.store.failures.clear()
        # There is never more than the two: room for a third need not be there.
        live_file = LiveFile(self.path)
        self.assertIsNot(live_file.claim(self.store.identity), None)
        self.assertEqual(self.files(), ["moves.live.recovering"])
        live_file.close(clean=False)
        # Saved, and not yet forgotten.
        stepped = self.start()
        stepped.thread.persister.step()
        self.assertEqual(len(self.store.players), 2)
        self.assertEqual(self.files(), ["moves.live", "moves.live.recovering"])
        self.kill(stepped)
        before = dict(self.store.players)
        stepped = self.start()
        self.assertEqual(self.files(), ["moves.live"])
        self.assertEqual(stepped.join(2).state, PlayerState(2.0, 0.0))
        self.assertEqual(self.store.players, before)
        # Forgotten, and the next live file in use.
        stepped.service.update(2, PlayerState(4.0, 4.0))
        self.kill(stepped)
        stepped = self.start()
        stepped.settle()
        self.assertEqual(stepped.join(2).state, PlayerState(4.0, 4.0))

    def test_stopped_while_recovering(self) -> None:
        """A clean stop saves what was left first; one that cannot leaves it to the next start."""
        self.crash(p1=1.0)
        self.store.failures.extend([StoreBusy("locked")] * 3)
        stepped = self.start(stop_within=1.0)
        stepped.step()
        stopped = stepped.service.stopService()
        self.assertNoResult(stopped)
        stepped.reactor.advance(1.5)
        stepped.thread.run()
        stepped.reactor.deliver()
        self.successResultOf(stopped)
        self.assertTrue(stepped.service.gave_up)
        self.assertIn("moves.live.recovering", self.files())
        self.store.failures.clear()
        stepped = self.start()
        self.successResultOf(stepped.stop())
        self.assertEqual(self.files(), ["moves.live"])
        self.assertEqual(self.store.players[1].values, (1.0, 0.0))

    def test_rows_that_are_refused(self) -> None:
        """A row that the store can never take does not keep players out for good."""
        self.crash(p1=1.0, p2=2.0, p3=3.0)
        write = self.store.write

        def picky(records: Any) -> Any:
            if 2 in records["session_id"].tolist():
                raise RowRefused("not this one")
            return write(records)

        self.store.write = picky
        stepped = self.start()
        for _ in range(8):
            stepped.step()
        self.flushLoggedErrors()
        self.assertEqual(sorted(self.store.players), [1, 3])
        self.assertEqual(stepped.join(3).state, PlayerState(3.0, 0.0))
        self.assertEqual(stepped.service.ledger.snapshot().imbalance(), [])
        self.assertEqual(len(self.log.having("player 2: not this one")), 1)
        self.flushLoggedErrors()

    def test_stop_waits_for_all_of_them(self) -> None:
        """A stop while a part of what was left is saved waits for the rest of it."""
        self.crash(p1=1.0, p2=2.0)
        write, calls = self.store.write, []

        def picky(records: Any) -> Any:
            calls.append(len(records))
            if len(records) == 2:
                raise RowRefused("not both")
            if 2 in records["session_id"].tolist() and len(calls) < 12:
                raise StoreBusy("locked")
            return write(records)

        self.store.write = picky
        stepped = self.start()
        stepped.step()
        self.assertEqual(list(self.store.players), [1])
        stopped = stepped.service.stopService()
        self.assertFalse(stepped.thread.persister._finishing)
        self.assertNoResult(stopped)
        while stepped.step() is not None:
            pass
        stepped.thread.run()
        stepped.reactor.deliver()
        self.successResultOf(stopped)
        self.assertEqual(sorted(self.store.players), [1, 2])
        self.assertEqual(self.files(), ["moves.live"])

    def test_started_again_by_the_same_program(self) -> None:
        """A program that embeds the service may stop and start it."""
        stepped = self.start()
        stepped.join(1)
        stepped.service.update(1, PlayerState(1.0, 0.0))
        self.successResultOf(stepped.stop())
        self.assertTrue(read_leftover(self.path).clean)
        stepped.service.startService()
        self.assertEqual(stepped.join(1).state, PlayerState(1.0, 0.0))
        self.successResultOf(stepped.stop())

    def test_store_that_cannot_be_read(self) -> None:
        """Rows that cannot be compared are written, the guard compares, and one line says so."""
        self.crash(p1=1.0, p2=2.0)
        updated_at = remaining(self.path)[2][2]
        self.store.players[2] = Stored((9.0, 9.0), updated_at + 1)

        def busy(session_id: int) -> None:
            raise StoreBusy("locked")

        patched = self.patch(self.store, "load", busy)
        stepped = self.start()
        stepped.settle()
        patched.restore()
        self.assertEqual(self.store.players[1].values, (1.0, 0.0))
        self.assertEqual(self.store.players[2].values, (9.0, 9.0))
        (line,) = self.log.having("could not be compared with the store")
        self.assertIn("2 players in the live file", line)
        self.assertIn("locked", line)
        self.successResultOf(stepped.stop())

    def test_reader_that_answers_later(self) -> None:
        """Where the reader is not at hand, the writer's guard compares."""
        self.crash(p1=1.0, p2=2.0)
        updated_at = remaining(self.path)[2][2]
        self.store.players[2] = Stored((9.0, 9.0), updated_at + 1)
        self.store.hold_loads()
        stepped = self.start()
        stepped.settle()
        assert self.store.held is not None
        for session_id, answer in self.store.held:
            self.assertTrue(answer.called, session_id)  # cancelled: no load goes on for nothing
        self.store.held = None
        self.assertEqual(self.store.players[1].values, (1.0, 0.0))
        self.assertEqual(self.store.players[2].values, (9.0, 9.0))
        self.assertEqual(stepped.join(1).state, PlayerState(1.0, 0.0))
        self.assertEqual(stepped.service.ledger.snapshot().imbalance(), [])


class SQLiteTests(LiveFileTestCase):
    """The same with a database."""

    def test_recovers(self) -> None:
        """Applied and unsaved updates are in the database before any player can join."""
        stepped = self.start(self.sqlite())
        for session_id in (1, 2):
            stepped.join(session_id)
            stepped.service.update(session_id, PlayerState(session_id / 3, 0.0))
        stepped.service.flush().addErrback(lambda _: None)
        stepped.settle()
        stepped.service.update(2, PlayerState(0.1, 0.2))
        self.kill(stepped)
        stepped = self.start(self.sqlite())
        self.failureResultOf(stepped.service.join(2), StoreBusy)
        stepped.settle()
        self.assertEqual(stepped.join(1).state, PlayerState(1 / 3, 0.0))
        self.assertEqual(stepped.join(2).state, PlayerState(0.1, 0.2))
        self.assertIn("of 2 players in its live file, 1 are newer", self.log.having("cleanly")[0])
        self.successResultOf(stepped.stop())

    def test_refused_migration(self) -> None:
        """A state class that does not fit the database leaves the live file for one that does."""
        stepped = self.start(self.sqlite())
        stepped.join(1)
        stepped.service.update(1, PlayerState(1.0, 2.0))
        self.kill(stepped)
        with open(self.path, "rb") as file:
            content = file.read()
        wrong = attrs.make_class("Wrong", {"x": attrs.field(default=1, type=int)}, frozen=True)
        for _ in range(2):
            error = self.assertRaises(StoreUnusable, self.start, self.sqlite(wrong), state=wrong)
            self.assertIn("field x is int now", str(error))
        (left,) = {"moves.live", "moves.live.recovering"} & set(self.files())
        with open(f"{self.directory}/{left}", "rb") as file:
            self.assertEqual(file.read(), content)
        stepped = self.start(self.sqlite())
        stepped.settle()
        self.assertEqual(stepped.join(1).state, PlayerState(1.0, 2.0))
        self.successResultOf(stepped.stop())

    def test_new_field(self) -> None:
        """The start that adds a column recovers the rows of the class before."""
        stepped = self.start(self.sqlite())
        stepped.join(1)
        stepped.service.update(1, PlayerState(1.0, 2.0))
        self.kill(stepped)
        grown = attrs.make_class(
            "Grown",
            {
                "hp": attrs.field(default=100, type=int),
                "y": attrs.field(default=0.0, type=float),
            },
            frozen=True,
        )
        stepped = self.start(self.sqlite(grown), state=grown)
        stepped.settle()
        self.assertEqual(stepped.join(1).state, grown(100, 2.0))
        self.successResultOf(stepped.stop())

    def test_database_of_earlier_days(self) -> None:
        """A live file is not for a database restored from before the run that wrote it."""
        for x in (1.0, 2.0):
            stepped = self.start(self.sqlite())
            stepped.join(1)
            stepped.service.update(1, PlayerState(x, 0.0))
            if x == 1.0:
                self.successResultOf(stepped.stop())
                shutil.copy(f"{self.directory}/players.db", f"{self.directory}/backup")
        self.kill(stepped)
        os.replace(f"{self.directory}/backup", f"{self.directory}/players.db")
        for ending in ("-wal", "-shm"):
            if os.path.exists(f"{self.directory}/players.db{ending}"):
                os.unlink(f"{self.directory}/players.db{ending}")
        stepped = self.start(self.sqlite())
        self.assertEqual(stepped.join(1).state, PlayerState(1.0, 0.0))
        self.assertEqual(len(self.log.having("before it was restored")), 1)
        self.successResultOf(stepped.stop())


class RenamedTests(SynchronousTestCase):
    """Rows of a class in which a field had another name."""

    def recovered(self, before: str, *names: str) -> Any:
        """What becomes of 5.0 in a field of this name, in a field that had these names."""
        field = attrs.field(default=1.0, type=float, metadata=was(*names))
        schema = StateSchema.of(attrs.make_class("Made", {"health": field}))
        old = StateSchema.of(
            attrs.make_class("Old", {before: attrs.field(default=0.0, type=float)})
        )
        records = np.zeros(1, RowLayout(old.fields).dtype).view(RowLayout(old.fields).record)
        records[0] = (1, 5.0, 10)
        rows, _ = recovery.as_rows(Leftover(bytes(16), False, old.fields, records), schema)
        return rows.view(RowLayout(schema.fields).named)["health"].item()

    def test_old_name(self) -> None:
        """The value of the field's old name is recovered."""
        self.assertEqual(self.recovered("HP", "life", "hp"), 5.0)

    def test_another_name(self) -> None:
        """A name that the field never had is none of it."""
        self.assertEqual(self.recovered("hp", "life"), 1.0)
