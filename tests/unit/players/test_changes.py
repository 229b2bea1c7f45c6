"""Changes of some fields, checked by themselves and called for an online player."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from playerstate import InvalidState, NotOnline, NotRunning, StateSchema, text, within
from playerstate.interfaces import Stored
from playerstate.players.changes import Change
from tests.kit.players import ServiceTestCase, move


@attrs.frozen
class Avatar:
    """A state with bounds, and with a field of every kind."""

    x: float = attrs.field(default=350.0, metadata=within(0, 4096))
    hp: int = attrs.field(default=100, metadata=within(0, 100))
    alive: bool = True
    zone: str = attrs.field(default="spawn", metadata=text(8))


SCHEMA = StateSchema.of(Avatar)


class ChangeTests(SynchronousTestCase):
    """A change, apart from any player."""

    def test_named_fields_change(self) -> None:
        """The named fields change, and the others keep what they hold, out of bounds or not."""
        before = SCHEMA.encode((9999.0, 7, False, "cave"))
        after = Change.of(SCHEMA, {"zone": "hall", "hp": 8}).of_values(before)
        self.assertEqual(SCHEMA.decode(after), (9999.0, 8, False, "hall"))

    def test_kept_as_in_an_update(self) -> None:
        """A value is kept in the form in which an update keeps it: without a negative zero."""
        (x, *_) = Change.of(SCHEMA, {"x": -0.0}).of_values(SCHEMA.spawn)
        self.assertEqual(str(x), "0.0")

    def test_nothing_named(self) -> None:
        """A change without fields is false, and changes nothing."""
        change = Change.of(SCHEMA, {})
        self.assertFalse(change)
        self.assertEqual(change.of_values(SCHEMA.spawn), SCHEMA.spawn)
        self.assertTrue(Change.of(SCHEMA, {"hp": 100}))

    def test_refused(self) -> None:
        """A value is refused exactly as an update refuses it."""
        for name, value in (
            *(("x", -1.0), ("x", float("nan")), ("x", "far"), ("x", None)),
            *(("hp", 101), ("hp", 2**63), ("hp", 1.5), ("alive", 1)),
            *(("zone", "far too long"), ("zone", b"x")),
        ):
            with self.subTest(name=name, value=value):
                updated = self.assertRaises(
                    InvalidState, SCHEMA.values, attrs.evolve(Avatar(), **{name: value})
                )
                error = self.assertRaises(InvalidState, Change.of, SCHEMA, {name: value})
                self.assertEqual((str(error), error.field), (str(updated), name))

    def test_unknown_field(self) -> None:
        """A name that no field has is refused, and the message lists the fields."""
        for name in ("mana", "updated_at", "session_id", "self"):
            error = self.assertRaises(InvalidState, Change.of, SCHEMA, {"hp": 1, name: 3})
            self.assertEqual(
                str(error), f"{name} = 3: must be one of the fields x, hp, alive, zone"
            )
            self.assertEqual((error.field, error.value), (name, 3))


class CallTests(ServiceTestCase):
    """The call for an online player."""

    def setUp(self) -> None:
        """A service with one player."""
        super().setUp()
        self.stepped = self.start(state=Avatar)
        self.service = self.stepped.service
        self.stepped.join(42)

    def counts(self) -> tuple[Any, ...]:
        """Received, applied, malformed and rejected."""
        ledger = self.service.ledger
        return ledger.received, ledger.applied, ledger.malformed, ledger.rejected

    def test_changes(self) -> None:
        """Only the named field changes; the others keep the newest applied values."""
        self.service.update(42, Avatar(x=1.0, zone="hall"))
        self.service.change(42, hp=9)
        self.assertEqual(self.service.state(42), Avatar(x=1.0, hp=9, zone="hall"))
        self.service.change(42, x=2.0, alive=False)
        self.assertEqual(self.service.state(42), Avatar(2.0, 9, False, "hall"))
        self.assertEqual(self.counts(), (3, 3, {}, {}))
        self.assertEqual(self.service.ledger.superseded, 2)

    def test_saved_like_an_update(self) -> None:
        """It is saved within `save_within`, and by a flush."""
        self.service.change(42, hp=9)
        flushed = self.service.flush()
        self.stepped.settle()
        self.successResultOf(flushed)
        self.assertEqual(self.stored(self.stepped), {42: (350.0, 9, True, "spawn")})

    def test_sequences_stay(self) -> None:
        """A change has no sequence: the next move is applied, and the progress is that of moves."""
        move(self.service, 42, 5, SCHEMA.spawn)
        self.service.change(42, hp=9)
        self.assertEqual(self.service.progress(42).applied, 5)
        self.assertTrue(move(self.service, 42, 6, SCHEMA.spawn))
        self.assertEqual(self.service.state(42), Avatar())

    def test_wider_bounds(self) -> None:
        """A stored value outside of today's bounds does not hinder a change of another field."""
        self.stepped.store.players[7] = Stored((9999.0, 100, True, "hall"), 5)
        self.stepped.join(7)
        self.service.change(7, hp=1)
        self.assertEqual(self.service.state(7), Avatar(9999.0, 1, True, "hall"))
        self.assertRaises(InvalidState, self.service.change, 7, x=9999.0)

    def test_refused_values(self) -> None:
        """A refused value changes nothing, not even the other fields, and counts as malformed."""
        for fields in ({"hp": 101}, {"x": 1.0, "hp": -1}, {"x": 1.0, "mana": 1}):
            self.assertRaises(InvalidState, self.service.change, 42, **fields)
        self.assertEqual(self.service.state(42), Avatar())
        self.assertEqual(self.counts(), (3, 0, {"value": 3}, {}))

    def test_refused_players(self) -> None:
        """Who is not online is refused, with fields or without, and counted as in an update."""
        self.service.update(42, Avatar(x=1.0))
        self.service.leave(42)
        for session_id in (42, 43):
            for fields in ({"hp": 9}, {}):
                self.assertRaises(NotOnline, self.service.change, session_id, **fields)
        self.assertEqual(self.counts(), (5, 1, {}, {"not_online": 4}))

    def test_no_field(self) -> None:
        """Without a field nothing changes, is saved or is counted."""
        self.service.change(42)
        self.assertEqual(self.counts(), (0, 0, {}, {}))
        self.assertEqual(self.service.ledger.snapshot().pending, 0)

    def test_not_running(self) -> None:
        """A service that stops or has stopped refuses it, as it does an update."""
        stopped = self.stepped.stop()
        self.assertRaises(NotRunning, self.service.change, 42, hp=9)
        self.successResultOf(stopped)
        self.assertRaises(NotRunning, self.service.change, 42, hp=9)
        self.assertEqual(self.counts(), (2, 0, {}, {"stopping": 2}))

    def test_session_ids(self) -> None:
        """A session id is checked as everywhere."""
        calls: tuple[Callable[..., Any], ...] = (self.service.change, self.service.edit)
        for call in calls:
            self.assertRaises(TypeError, call, "42", hp=9)
            self.assertRaises(ValueError, call, 0, hp=9)
        self.assertEqual(self.counts(), (0, 0, {}, {}))
