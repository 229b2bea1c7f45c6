"""The live table: slots, changes, and what the store holds."""

from __future__ import annotations

import struct
from typing import Any

import attrs
import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from playerstate.live.sweeping import Sweep
from playerstate.live.table import LiveTable, TableFull
from playerstate.state.schema import StateSchema
from tests.kit.players import SCHEMA
from tests.kit.support import LAW, Everything
from tests.kit.tables import SPAWN, Sink, TableMemory, TableTestCase, settle

INT64_MAX = 2**63 - 1


class SlotTests(TableTestCase):
    """The players' slots."""

    def test_admit(self) -> None:
        """A new player has the state and the age that the store holds, clean and saved."""
        slot = self.table.admit(42, (1.0, 2.0), 99)
        self.assertEqual(self.table.slots, {42: slot})
        self.assertEqual(self.table.session_id(slot), 42)
        self.assertEqual(self.table.values(slot), (1.0, 2.0))
        self.assertEqual(self.table.updated_at(slot), 99)
        self.assertEqual(self.table.sequence(slot), 0)
        self.assertFalse(self.table.is_dirty(slot))
        self.assertTrue(self.table.is_saved(slot))

    def test_greatest_session_id(self) -> None:
        """The greatest session id is held whole."""
        slot = self.table.admit(INT64_MAX, SPAWN, INT64_MAX)
        self.assertEqual(self.table.session_id(slot), INT64_MAX)
        self.assertEqual(self.table.updated_at(slot), INT64_MAX)

    def test_every_kind_of_field(self) -> None:
        """A row holds every kind of field, and its neighbours keep theirs."""
        schema = StateSchema.of(Everything)
        table = LiveTable(schema, 3, lambda: 0.0, TableMemory(schema, 3).buffer)
        states = [
            Everything(1.5, -7, False, "a", 2.5),
            Everything(-1.5, 2**62, True, "wood of 16 bytes", 0.0),
            Everything(),
        ]
        slots = [table.admit(index + 1, schema.spawn, 0) for index in range(3)]
        for slot, state in zip(slots, states, strict=True):
            table.apply(slot, 1, schema.values(state), 5)
        self.assertEqual([schema.state(table.values(slot)) for slot in slots], states)
        self.assertEqual([table.session_id(slot) for slot in slots], [1, 2, 3])

    def test_length(self) -> None:
        """The table's length is the number of players in it."""
        self.admit(1, 2, 3)
        self.table.release(self.table.slots[2])
        self.assertEqual(len(self.table), 2)

    def test_full(self) -> None:
        """A table of so many players refuses one more, and keeps those it has."""
        slots = self.admit(*range(1, 9))
        self.assertEqual(sorted(slots), list(range(8)))
        self.assertRaises(TableFull, self.table.admit, 9, SPAWN, 0)
        self.assertNotIn(9, self.table.slots)

    def test_full_and_one_released(self) -> None:
        """A full table takes another player when one was released."""
        self.admit(*range(1, 9))
        freed = self.table.slots[4]
        self.table.release(freed)
        self.assertEqual(self.table.admit(9, SPAWN, 0), freed)
        self.assertRaises(TableFull, self.table.admit, 10, SPAWN, 0)

    def test_newest_freed_slot_first(self) -> None:
        """Freed slots are given out again, newest first, before any that was never used."""
        first, second, third = self.admit(1, 2, 3)
        self.table.release(first)
        self.table.release(third)
        self.assertEqual(self.admit(4, 5, 6), [third, first, third + 1])
        self.assertEqual(second, 1)
        self.assertEqual(self.table.high_water, 4)

    def test_release(self) -> None:
        """A released player is no longer in the table, and the slot is free."""
        (slot,) = self.admit(1)
        self.table.release(slot)
        self.assertEqual(self.table.slots, {})
        self.assertEqual(self.table.session_id(slot), 0)

    def test_release_of_a_dirty_player(self) -> None:
        """A player released while dirty is not swept, counted or unsaved."""
        (slot,) = self.admit(1)
        self.move(slot)
        self.table.release(slot)
        self.assertEqual(self.table.sweep(self.sink), Sweep(0, 0, False, None))
        self.assertEqual(self.table.dirty_count(), 0)
        self.assertIsNone(self.table.oldest_dirty())
        self.assertEqual(self.table.unsaved().tolist(), [])

    def test_slot_of_another_before(self) -> None:
        """Nothing of the player who had the slot before is left in it."""
        (slot,) = self.admit(1)
        self.move(slot)
        self.table.sweep(self.sink)
        settle(self.table, *self.sink.rows)
        self.table.release(slot)
        self.assertEqual(self.table.admit(2, (7.0, 8.0), 3), slot)
        self.assertEqual(self.table.values(slot), (7.0, 8.0))
        self.assertEqual(self.table.updated_at(slot), 3)
        self.assertEqual(self.table.sequence(slot), 0)
        self.assertTrue(self.table.is_saved(slot))
        self.assertFalse(self.table.is_dirty(slot))

    def test_number_that_cannot_be_packed(self) -> None:
        """A player whose values cannot be packed gets no slot; the next one gets it."""
        self.assertRaises(struct.error, self.table.admit, 1, (1.0, "north"), 0)
        self.assertEqual(self.table.slots, {})
        self.assertEqual(self.table.admit(2, SPAWN, 0), 0)
        self.assertEqual(self.memory.row(0)["session_id"], 2)


class DisownTests(TableTestCase):
    """Rows that another process wrote over."""

    def test_lost_and_kept(self) -> None:
        """A player whose row was written over gets the spawn state, clean and dated as saved; other
        rows, free slots among them, stay as they are."""
        slots = self.admit(1, 2, 3)
        self.move(*slots)
        self.table.sweep(self.sink)
        settle(self.table, *self.sink.rows)
        self.move(*slots)
        self.table.release(slots[2])
        free = self.memory.row(slots[2]).tobytes()
        foreign = self.memory.halves[slots[1]]
        foreign["sequence"] += 1000
        foreign["version_again"] = foreign["version"] = 2**63
        self.assertEqual(self.table.disown(), [slots[1]])
        self.assertEqual([self.table.values(slot) for slot in slots[:2]], [(1.0, 2.0), SPAWN])
        self.assertEqual([self.table.sequence(slot) for slot in slots[:2]], [2, 1])
        self.assertEqual([self.table.is_dirty(slot) for slot in slots[:2]], [True, False])
        self.assertTrue(self.table.is_saved(slots[1]))
        self.assertEqual(self.memory.row(slots[2]).tobytes(), free)
        self.table.restore(slots[1], (7.0, 8.0), 50)
        self.assertEqual(self.table.values(slots[1]), (7.0, 8.0))
        self.assertEqual(self.table.updated_at(slots[1]), 50)
        self.assertTrue(self.table.is_saved(slots[1]))


class ChangeTests(TableTestCase):
    """What an update does."""

    def test_apply(self) -> None:
        """An update writes values, sequence and age, and makes the row dirty and unsaved."""
        (slot,) = self.admit(1)
        self.assertTrue(self.table.apply(slot, 7, (3.0, 4.0), 1000))
        self.assertEqual(self.table.values(slot), (3.0, 4.0))
        self.assertEqual(self.table.sequence(slot), 7)
        self.assertEqual(self.table.updated_at(slot), 1000)
        self.assertTrue(self.table.is_dirty(slot))
        self.assertFalse(self.table.is_saved(slot))

    def test_apply_again(self) -> None:
        """A second update before the sweep says that the row was dirty already."""
        (slot,) = self.admit(1)
        self.move(slot)
        self.assertFalse(self.table.apply(slot, 2, (5.0, 6.0), 1000))
        self.assertEqual(self.table.values(slot), (5.0, 6.0))
        self.assertEqual(self.table.dirty_count(), 1)

    def test_apply_after_a_sweep(self) -> None:
        """The first update after the sweep finds the row clean."""
        (slot,) = self.admit(1)
        self.move(slot)
        self.table.sweep(self.sink)
        self.assertFalse(self.table.is_dirty(slot))
        self.assertTrue(self.table.apply(slot, 2, (5.0, 6.0), 1000))

    def test_apply_leaves_others_alone(self) -> None:
        """An update touches its own row and no other."""
        slots = self.admit(1, 2, 3)
        before = self.memory.halves[[slots[0], slots[2]]].tobytes()
        self.table.apply(slots[1], 2**32 - 1, (-1.0, -1.0), INT64_MAX - 1)
        self.assertEqual(self.memory.halves[[slots[0], slots[2]]].tobytes(), before)

    def test_stale(self) -> None:
        """An update not above the highest applied changes nothing."""
        (slot,) = self.admit(1)
        self.table.apply(slot, 7, (3.0, 4.0), 1000)
        before = self.memory.row(slot).tobytes()
        for sequence in (7, 6, 0):
            self.assertIsNone(self.table.apply(slot, sequence, (5.0, 6.0), 2000))
        self.assertEqual(self.memory.row(slot).tobytes(), before)

    def test_without_a_number(self) -> None:
        """An update without a number is applied, and leaves the highest as it is."""
        (slot,) = self.admit(1)
        self.table.apply(slot, 7, (3.0, 4.0), 1000)
        self.assertIs(self.table.apply(slot, None, (5.0, 6.0), 2000), False)
        self.assertEqual(self.table.sequence(slot), 7)
        self.assertEqual(self.table.values(slot), (5.0, 6.0))

    def test_updated_at(self) -> None:
        """Invariant 5: an update has the wall clock's time if that is later than the last one's.

        Otherwise it is later by 1, or by 2 where the date would not be even or odd as the clock is.
        """
        slot = self.table.admit(1, SPAWN, 1000)
        for now, expected in (
            *((1000, 1002), (999, 1003), (0, 1004), (1003, 1005)),
            *((1005, 1007), (1009, 1009), (1008, 1010), (5000, 5000)),
        ):
            self.table.apply(slot, None, SPAWN, now)
            self.assertEqual(self.table.updated_at(slot), expected)

    def test_is_overridden(self) -> None:
        """An odd date of our age says that the program came last."""
        for updated_at, expected in ((0, False), (1, True), (1000, False), (-1, False)):
            slot = self.table.admit(7, SPAWN, updated_at)
            self.assertIs(self.table.is_overridden(slot), expected, updated_at)
            self.table.release(slot)

    def test_begin(self) -> None:
        """A fresh generation is numbered from its sequence, which is saved where the state is."""
        (slot,) = self.admit(1)
        self.table.start_generation(slot, 70)
        self.assertEqual(self.table.sequence(slot), 70)
        self.assertEqual(self.table.saved[slot], 70)

    def test_begin_unsaved(self) -> None:
        """Invariant 6: the number that a generation begins with is not saved before its state."""
        (slot,) = self.admit(1)
        self.move(slot)
        self.table.start_generation(slot, 70)
        self.assertEqual(self.table.sequence(slot), 70)
        self.assertEqual(self.table.saved[slot], 0)

    def test_generations_differ(self) -> None:
        """No two generations are the same, neither of one player nor of two."""
        first, second = self.admit(1, 2)
        generations = {int(self.memory.row(slot)["generation"]) for slot in (first, second)}
        self.table.start_generation(first, 0)
        generations.add(int(self.memory.row(first)["generation"]))
        self.assertEqual(len(generations), 3)
        self.assertNotIn(0, generations)

    def test_begin_keeps_the_state(self) -> None:
        """A fresh generation changes neither the state nor whether it is saved."""
        (slot,) = self.admit(1)
        self.move(slot)
        self.table.start_generation(slot, 0)
        self.assertEqual(self.table.values(slot), (1.0, 2.0))
        self.assertTrue(self.table.is_dirty(slot))
        self.assertFalse(self.table.is_saved(slot))


class ManyTests(TableTestCase):
    """Many players' updates at once."""

    def test_same(self) -> None:
        """The rows are those that one update after the other makes."""
        slots = self.admit(1, 2, 3, 4)
        self.table.release(slots[1])
        self.table.apply(slots[0], None, SPAWN, 151)  # newer than the first of the moves below
        others = TableMemory(SCHEMA, 8)
        others.buffer[:] = self.memory.buffer
        other = LiveTable(SCHEMA, 8, lambda: self.time, others.buffer)
        other._place[:] = self.table._place
        other._version = self.table._version
        chosen = [slots[3], slots[0], slots[2]]
        for sequence, now in ((1, 100), (5, 50), (2**32 - 1, 2**62)):
            self.move_many(chosen, sequence, 7.0, now)
            for number, slot in enumerate(chosen):
                other.apply(slot, sequence, (7.0 + number, 0.0), now)
            self.assertEqual(self.memory.buffer, others.buffer)

    def test_in_two_steps(self) -> None:
        """Rows may be made first and written later: all of them, or those that are chosen."""
        for chosen in ([True, True, True], [False, True, False], [True, False, True]):
            with self.subTest(chosen=chosen):
                self.setUp()
                slots = np.array(self.admit(1, 2, 3, 4)[1:])
                before, version = bytes(self.memory.buffer), self.table.version
                others = TableMemory(SCHEMA, 8)
                others.buffer[:] = self.memory.buffer
                other = LiveTable(SCHEMA, 8, lambda: self.time, others.buffer)
                other._place[:] = self.table._place
                other._version = self.table._version
                fields = np.zeros(3, SCHEMA.moved.dtype)
                fields["y"] = (7.0, 8.0, 9.0)
                sequences = np.array([5, 6, 7], np.uint32)
                rows = self.table.moved_rows(slots, sequences, fields, 100)
                self.assertEqual(rows[["session_id", "y", "updated_at"]].tolist()[1], (3, 8.0, 100))
                self.assertEqual(self.table.named(slots)["x"].tolist(), [SPAWN[0]] * 3)
                self.assertEqual((bytes(self.memory.buffer), self.table.version), (before, version))
                self.assertEqual(self.table.put_moved(slots, rows, np.array(chosen)), 0)
                other.apply_many(slots[chosen], sequences[chosen], fields[chosen], 100)
                self.assertEqual(self.memory.buffer, others.buffer)
                self.assertEqual(self.table.version, version + sum(chosen))

    def test_end_of_time(self) -> None:
        """The last ``updated_at`` there is stays, by either way."""
        slots = [self.table.admit(number, SPAWN, INT64_MAX) for number in (1, 2)]
        self.move_many(slots, 1, 5.0, 100)
        self.table.apply(slots[0], 2, (6.0, 0.0), 100)
        for slot, x in zip(slots, (6.0, 6.0), strict=True):
            self.assertEqual(self.table.updated_at(slot), INT64_MAX)
            self.assertEqual(self.table.values(slot)[0], x)

    def test_dirty(self) -> None:
        """It says how many were dirty, and dates the others."""
        slots = self.admit(1, 2, 3)
        self.time = 5.0
        self.assertEqual(self.move_many(slots[:2], 1, 0.0, 100), 0)
        self.time = 9.0
        self.assertEqual(self.move_many(slots, 2, 0.0, 200), 2)
        self.assertEqual(self.table.oldest_dirty(), 5.0)
        self.assertEqual(self.table.sweep(self.sink).pushed, 3)
        self.assertIsNone(self.table.oldest_dirty())
        self.assertEqual(self.move_many(slots, 3, 0.0, 300), 0)
        self.assertEqual(self.table.oldest_dirty(), 9.0)

    def test_none(self) -> None:
        """None is no trouble."""
        self.assertEqual(self.move_many([], 1, 0.0, 100), 0)
        self.assertIsNone(self.table.oldest_dirty())


class DirtyAllTests(TableTestCase):
    """What is saved again in a store that holds nothing."""

    def test_clean_and_changed(self) -> None:
        """Players who ever changed are dirty again, and unsaved, whether saved or restored."""
        moved, restored, spawned = (*self.admit(1), self.table.admit(2, SPAWN, 5), *self.admit(3))
        self.move(moved)
        self.table.sweep(self.sink)
        settle(self.table, *self.sink.rows)
        self.sink.take()
        self.assertEqual(self.table.unsaved().tolist(), [])
        self.assertEqual(self.table.dirty_all(), 2)
        self.assertEqual(self.table.unsaved().tolist(), [1, 2])
        self.assertFalse(self.table.is_dirty(spawned))
        self.assertTrue(self.table.is_saved(spawned))
        self.table.sweep(self.sink)
        self.assertEqual(self.sink.take(), [1, 2])
        self.assertFalse(self.table.is_dirty(restored))

    def test_dirty_before(self) -> None:
        """A player who was dirty is not counted again, and as old as before."""
        first, second = self.admit(1, 2)
        self.time = 10.0
        self.move(first)
        self.time = 20.0
        self.move(second)
        self.table.sweep_only(self.sink, [second])
        settle(self.table, *self.sink.rows)
        self.time = 30.0
        self.assertEqual(self.table.dirty_all(), 1)
        self.assertEqual(self.table.oldest_dirty(), 10.0)
        self.table.sweep_only(self.sink, [first])
        self.assertEqual(self.table.oldest_dirty(), 30.0)

    def test_on_its_way(self) -> None:
        """A row that was swept and is not yet saved comes to the new store by itself."""
        (slot,) = self.admit(1)
        self.move(slot)
        self.table.sweep(self.sink)
        self.assertEqual(self.table.dirty_all(), 0)
        self.assertFalse(self.table.is_dirty(slot))
        self.assertEqual(self.table.unsaved().tolist(), [1])

    def test_saved_at_of_the_dirty(self) -> None:
        """The store holds nothing of players who were already dirty, either."""
        slot = self.table.admit(1, SPAWN, 50)
        self.move(slot)
        self.assertEqual(self.table.dirty_all(), 0)
        self.assertEqual(self.table.unsaved().tolist(), [1])
        self.assertEqual(self.table.saved_at[slot], 0)

    def test_nobody(self) -> None:
        """In an empty table, and in free slots, there is nothing to save again."""
        self.assertEqual(self.table.dirty_all(), 0)
        (slot,) = self.admit(1)
        self.move(slot)
        self.table.release(slot)
        self.assertEqual(self.table.dirty_all(), 0)
        self.assertEqual(self.table.dirty_count(), 0)


class SettleTests(TableTestCase):
    """What the store holds."""

    def test_settle(self) -> None:
        """A commit raises ``saved`` and ``saved_at`` of its rows, and of no others."""
        slots = self.admit(1, 2)
        self.move(*slots)
        self.table.sweep(self.sink)
        settle(self.table, self.sink.rows[1])
        self.assertEqual(self.table.saved.tolist()[:2], [0, 1])
        self.assertEqual([self.table.is_saved(slot) for slot in slots], [False, True])
        self.assertEqual(self.table.unsaved().tolist(), [1])

    def test_changed_since(self) -> None:
        """A row changed between its sweep and its commit is not saved by that commit."""
        (slot,) = self.admit(1)
        self.move(slot)
        self.table.sweep(self.sink)
        self.move(slot)
        settle(self.table, *self.sink.rows)
        self.assertEqual(self.table.saved[slot], 1)
        self.assertFalse(self.table.is_saved(slot))
        self.assertEqual(self.table.unsaved().tolist(), [1])

    def test_another_generation(self) -> None:
        """Invariant 6: a row of an earlier generation saves the number this one began with."""
        (slot,) = self.admit(1)
        self.table.apply(slot, 50, (1.0, 2.0), 100)
        self.table.sweep(self.sink)
        self.table.start_generation(slot, 3)
        settle(self.table, *self.sink.rows)
        self.assertEqual(self.table.saved[slot], 3)
        self.assertTrue(self.table.is_saved(slot))

    def test_another_generation_and_changed_since(self) -> None:
        """Invariant 6: a row of an earlier generation saves no number of this where it moved on."""
        (slot,) = self.admit(1)
        self.table.apply(slot, 50, (1.0, 2.0), 100)
        self.table.sweep(self.sink)
        self.table.start_generation(slot, 3)
        self.move(slot)
        settle(self.table, *self.sink.rows)
        self.assertEqual(self.table.saved[slot], 0)
        self.assertFalse(self.table.is_saved(slot))
        self.assertEqual(self.table.saved_at[slot], 100)

    def test_generations_in_one_commit(self) -> None:
        """A commit of rows of this generation and of others settles each by its own."""
        slots = self.admit(1, 2, 3)
        self.move(*slots)
        self.table.sweep(self.sink)
        self.table.start_generation(slots[0], 7)
        self.table.start_generation(slots[2], 8)
        self.move(slots[2])
        settle(self.table, *self.sink.rows)
        self.assertEqual(self.table.saved.tolist()[:3], [7, 1, 0])

    def test_nothing(self) -> None:
        """A commit of no rows, where the guard left all of them out, changes nothing."""
        self.move(*self.admit(1))
        settle(self.table)
        self.assertEqual(self.table.unsaved().tolist(), [1])

    def test_unsaved_without_update(self) -> None:
        """A player who never moved is not unsaved, whether spawned or restored."""
        self.table.admit(1, SPAWN, 0)
        self.table.admit(2, SPAWN, 500)
        self.assertEqual(self.table.unsaved().tolist(), [])


@attrs.define
class Player:
    """What the model knows of one player."""

    slot: int
    values: tuple[float, float]
    updated_at: int
    saved_at: int
    sequence: int = 0
    saved: int = 0
    generation: int = 0
    dirtied_at: float | None = None


coordinates = st.tuples(st.floats(-10, 10), st.floats(-10, 10))


class TableMachine(RuleBasedStateMachine):
    """The table beside a dict of players, with rows on their way to the store."""

    CAPACITY = 5

    def __init__(self) -> None:
        super().__init__()
        self.time = 0.0
        self.memory = TableMemory(SCHEMA, self.CAPACITY)
        self.table = LiveTable(SCHEMA, self.CAPACITY, lambda: self.time, self.memory.buffer)
        self.sink = Sink()
        self.players: dict[int, Player] = {}
        self.generation = 0
        self.resume = 0
        self.flights: list[list[Any]] = []

    def pick(self, data: st.DataObject) -> tuple[int, Player]:
        """One of the players."""
        return data.draw(st.sampled_from(sorted(self.players.items())))

    @rule(session_id=st.integers(1, 8), values=coordinates, updated_at=st.integers(0, 50))
    def admit(self, session_id: int, values: tuple[float, float], updated_at: int) -> None:
        """Admit a player who is not in the table, or find that it is full."""
        if session_id in self.players:
            return
        if len(self.players) == self.CAPACITY:
            try:
                self.table.admit(session_id, values, updated_at)
            except TableFull:
                return
            raise AssertionError("a full table took one more")
        slot = self.table.admit(session_id, values, updated_at)
        assert slot not in {player.slot for player in self.players.values()}
        self.players[session_id] = Player(slot, values, updated_at, updated_at)
        self.start(self.players[session_id], 0)

    @precondition(lambda self: self.players)
    @rule(data=st.data(), sequence=st.integers(0, 9))
    def begin(self, data: st.DataObject, sequence: int) -> None:
        """Begin a fresh generation."""
        self.start(self.pick(data)[1], sequence)

    def start(self, player: Player, sequence: int) -> None:
        self.table.start_generation(player.slot, sequence)
        self.generation += 1
        player.generation = self.generation
        player.sequence = sequence
        player.saved = sequence if player.updated_at == player.saved_at else 0

    @precondition(lambda self: self.players)
    @rule(data=st.data(), values=coordinates, now=st.integers(0, 60), later=st.floats(0, 5))
    def apply(
        self, data: st.DataObject, values: tuple[float, float], now: int, later: float
    ) -> None:
        """Apply an update, at a wall clock that goes where it likes."""
        player = self.pick(data)[1]
        self.time += later
        was_clean = self.table.apply(player.slot, player.sequence + 1, values, now)
        assert was_clean == (player.dirtied_at is None)
        player.values = values
        player.sequence += 1
        least = player.updated_at + 1
        player.updated_at = max(now, least + (least ^ now) % 2)
        if player.dirtied_at is None:
            player.dirtied_at = self.time

    @rule(room=st.integers(0, 6))
    def sweep(self, room: int) -> None:
        """Sweep all into a sink of little room."""
        dirty = sorted(p.slot for p in self.players.values() if p.dirtied_at is not None)
        turn = [slot for slot in dirty if slot >= self.resume]
        turn += [slot for slot in dirty if slot < self.resume]
        self.sink.room = room
        self.note(self.table.sweep(self.sink), turn, room)
        self.resume = turn[room] if room < len(turn) else 0

    @precondition(lambda self: self.players)
    @rule(data=st.data(), room=st.integers(0, 6))
    def sweep_only(self, data: st.DataObject, room: int) -> None:
        """Sweep some."""
        slots = sorted(player.slot for player in self.players.values())
        chosen = data.draw(st.lists(st.sampled_from(slots), unique=True))
        dirty = {p.slot for p in self.players.values() if p.dirtied_at is not None}
        self.sink.room = room
        sweep = self.table.sweep_only(self.sink, chosen)
        pushed = [int(row["slot"]) for row in self.sink.rows]
        assert set(pushed) <= dirty.intersection(chosen)
        rest = sorted(dirty.intersection(chosen).difference(pushed))
        self.note(sweep, pushed + rest, room)

    def note(self, sweep: Sweep, turn: list[int], room: int) -> None:
        """Compare a sweep with what it should have done, and keep what it pushed."""
        owners = {player.slot: (ids, player) for ids, player in self.players.items()}
        pushed = [owners[slot] for slot in turn[:room]]
        oldest = min((player.dirtied_at for _, player in pushed), default=None)
        left = len(turn) - len(pushed)
        assert sweep == Sweep(len(pushed), left, left > 0, oldest)
        assert [row.item()[1:6] for row in self.sink.rows] == [
            (ids, player.slot, player.generation, player.updated_at, player.sequence)
            for ids, player in pushed
        ]
        fields = [SCHEMA.struct.unpack(row["fields"].tobytes()) for row in self.sink.rows]
        assert fields == [player.values for _, player in pushed]
        for _, player in pushed:
            player.dirtied_at = None
        if self.sink.rows:
            self.flights.append(list(self.sink.rows))
        self.sink.rows.clear()

    @precondition(lambda self: self.flights)
    @rule()
    def settle(self) -> None:
        """Commit the rows that were swept first."""
        rows = self.flights.pop(0)
        settle(self.table, *rows)
        for row in rows:
            player = self.players[int(row["session_id"])]
            player.saved_at = int(row["updated_at"])
            if player.generation == row["generation"]:
                player.saved = int(row["sequence"])
            elif player.saved_at == player.updated_at:
                player.saved = player.sequence

    @rule()
    def dirty_all(self) -> None:
        """Find that the store was replaced."""
        changed = [player for player in self.players.values() if player.updated_at]
        settled = [player for player in changed if player.updated_at == player.saved_at]
        clean = [player for player in settled if player.dirtied_at is None]
        assert self.table.dirty_all() == len(clean)
        for player in changed:
            player.saved_at = player.saved = 0
        for player in clean:
            player.dirtied_at = self.time

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """Release a player of whom nothing is on its way, as the service does."""
        away = {int(row["session_id"]) for rows in self.flights for row in rows}
        free = sorted(set(self.players) - away)
        if not free:
            return
        session_id = data.draw(st.sampled_from(free))
        self.table.release(self.players.pop(session_id).slot)

    @invariant()
    def agrees(self) -> None:
        """The table and the model know the same."""
        table = self.table
        assert len(table) == len(self.players)
        assert table.slots == {ids: player.slot for ids, player in self.players.items()}
        for session_id, player in self.players.items():
            slot = player.slot
            assert table.session_id(slot) == session_id
            assert table.values(slot) == player.values
            assert table.updated_at(slot) == player.updated_at
            assert table.sequence(slot) == player.sequence
            assert table.saved[slot] == player.saved
            assert table.saved_at[slot] == player.saved_at
            assert table.is_dirty(slot) == (player.dirtied_at is not None)
            assert table.is_saved(slot) == (player.updated_at == player.saved_at)
            assert table.sequences()[slot] == player.sequence
            row = self.memory.row(slot)
            assert row.item()[1:6] == (
                *(session_id, slot, player.generation, player.updated_at, player.sequence),
            )
            assert SCHEMA.struct.unpack(row["fields"].tobytes()) == player.values
        online = {int(self.memory.row(slot)["session_id"]) for slot in range(self.CAPACITY)} - {0}
        assert online == set(self.players)
        ages = [p.dirtied_at for p in self.players.values() if p.dirtied_at is not None]
        assert table.dirty_count() == len(ages)
        assert table.oldest_dirty() == min(ages, default=None)
        assert sorted(table.unsaved().tolist()) == sorted(
            ids for ids, player in self.players.items() if player.updated_at != player.saved_at
        )


class TableLawTests(SynchronousTestCase):
    """The table beside a model."""

    def test_table_and_model_agree(self) -> None:
        """Whatever is done in whatever order, the table knows what a dict would know."""
        run_state_machine_as_test(
            TableMachine, settings=settings(LAW, max_examples=50, stateful_step_count=40)
        )
