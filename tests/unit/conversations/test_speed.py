"""How far a player may move, by the budget of the speed limit."""

from __future__ import annotations

import math
from typing import Any

import attrs
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from playerstate import PlayerState, SpeedLimit, StateSchema, server_owned, text
from playerstate.conversations.speed import LONGEST
from playerstate.interfaces import IMoveJudge, IStatefulJudge
from playerstate.state.layout import RowLayout
from tests.kit.support import LAW


@attrs.frozen
class Avatar:
    """Some fields that have a speed, and some that have none."""

    x: float = 0.0
    level: int = 0
    alive: bool = True
    zone: str = attrs.field(default="", metadata=text(8))
    gold: int = attrs.field(default=0, metadata=server_owned())


@attrs.frozen
class Puppet:
    """The client moves no number of it."""

    hp: int = attrs.field(default=1, metadata=server_owned())
    zone: str = attrs.field(default="", metadata=text(8))


class Walk:
    """Players and where they are, judged by one limit.

    Args:
        limit: the judge.
        state: the players' class.
    """

    def __init__(self, limit: SpeedLimit, state: type = PlayerState) -> None:
        schema = StateSchema.of(state)
        limit.prepare(schema)
        self.limit = limit
        self.rows = np.zeros(8, RowLayout(schema.fields).named)
        self.rows["session_id"] = np.arange(101, 109)

    def passes(self, slot: int, seconds: float, *, applied: bool = True, **fields: Any) -> bool:
        """Whether a move to there passes; it is applied then, unless another judge rejects it."""
        slots = np.array([slot])
        before, after = self.rows[slots], self.rows[slots]
        for name, value in fields.items():
            after[name] = value
        after["updated_at"] += 2
        [passes] = self.limit.passing(slots, before, after, np.array([seconds]))
        if passes and applied:
            self.limit.applied(slots)
            self.rows[slot] = after[0]
        return bool(passes)

    def set(self, slot: int, **fields: Any) -> None:
        """The program changes the player, or another comes into the slot."""
        for name, value in fields.items():
            self.rows[name][slot] = value


class BudgetTests(SynchronousTestCase):
    """What a player has left."""

    def setUp(self) -> None:
        """Ten a second, and four beyond."""
        self.walk = Walk(SpeedLimit("x", "y", per_second=10, slack=4))

    def far(self, slot: int, seconds: float = 0.0) -> float:
        """How far this player may move after so many seconds, to a quarter."""
        at = float(self.walk.rows["x"][slot])
        steps = np.arange(0.0, 60.0, 0.25)
        far = [s for s in steps if self.walk.passes(slot, seconds, applied=False, x=at + s)]
        self.assertEqual(far, list(steps[: len(far)]))
        return float(far[-1])

    def test_judge(self) -> None:
        """It is a judge that must be told the state class."""
        for interface in (IMoveJudge, IStatefulJudge):
            self.assertTrue(verifyObject(interface, self.walk.limit))

    def test_first_move(self) -> None:
        """A new player has all the slack, and what the time has earned."""
        self.assertEqual(self.far(0), 4.0)
        self.assertEqual(self.far(1, 0.5), 9.0)

    def test_used_and_earned(self) -> None:
        """A move takes off its way; time earns it again, and no more than the slack is kept."""
        self.assertTrue(self.walk.passes(0, 0.0, x=3.0))
        self.assertEqual(self.far(0), 1.0)
        self.assertTrue(self.walk.passes(0, 0.1, x=5.0))
        self.assertEqual(self.far(0), 0.0)
        self.assertTrue(self.walk.passes(0, 2.0, x=6.0))
        self.assertEqual(self.far(0), 4.0)

    def test_walk(self) -> None:
        """Who walks just as fast as allowed walks for ever; who is faster is stopped soon."""
        for step in range(1, 200):
            self.assertTrue(self.walk.passes(0, 0.125, x=step * 1.25))
        passed = [self.walk.passes(1, 0.125, x=step * 1.5) for step in range(1, 200)]
        self.assertEqual(passed.index(False), 16)

    def test_euclid(self) -> None:
        """The way is measured through all fields at once."""
        self.assertFalse(self.walk.passes(0, 0.1, x=3.0, y=4.125))
        self.assertTrue(self.walk.passes(0, 0.1, x=3.0, y=-4.0))

    def test_long_silence(self) -> None:
        """No more than some seconds count."""
        for seconds in (LONGEST, LONGEST + 1.0, 1e9, math.inf):
            self.assertEqual(self.far(0, seconds), 34.0)

    def test_rejected(self) -> None:
        """A rejected move takes off nothing, and the time goes on."""
        for seconds in (0.0, 0.1, 0.2):
            self.assertFalse(self.walk.passes(0, seconds, x=50.0))
        self.assertEqual(self.far(0, 0.2), 6.0)

    def test_rejected_by_another_judge(self) -> None:
        """Nor does one that passes here and is not applied."""
        self.assertTrue(self.walk.passes(0, 0.0, x=1.0))
        for _ in range(5):
            self.assertTrue(self.walk.passes(0, 0.0, applied=False, x=4.0))
        self.assertEqual(self.far(0), 3.0)

    def test_teleport(self) -> None:
        """What the program does takes off nothing, however far it is."""
        self.assertTrue(self.walk.passes(0, 0.0, x=3.0))
        self.walk.set(0, x=5000.0, y=-1e300)
        self.assertTrue(self.walk.passes(0, 0.0, x=5001.0))
        self.assertFalse(self.walk.passes(0, 0.0, x=5010.0))

    def test_another_player(self) -> None:
        """Who gets a slot has nothing to do with who had it before."""
        self.assertTrue(self.walk.passes(0, 0.0, x=4.0))
        self.assertEqual(self.far(0), 0.0)
        self.walk.set(0, session_id=999, updated_at=0)
        self.assertEqual(self.far(0), 4.0)

    def test_leaves_and_joins(self) -> None:
        """To leave and come back into another slot gains nothing."""
        self.assertTrue(self.walk.passes(0, 0.0, x=4.0))
        for seconds, far in (
            (0.0, 0.0),
            (0.5, 5.0),
            (LONGEST, 30.0),
            (LONGEST + 0.25, 32.5),
            (LONGEST + 9.0, 34.0),
        ):
            self.walk.set(3, session_id=101, updated_at=9, x=4.0)
            self.assertEqual(self.far(3, seconds), far)

    def test_default_slack(self) -> None:
        """Without a word the slack is what half a second allows."""
        self.walk = Walk(SpeedLimit("x", per_second=10))
        self.assertEqual(self.far(0), 5.0)

    def test_other_fields(self) -> None:
        """Fields that are not named change as they like."""
        walk = Walk(SpeedLimit("level", per_second=1, slack=1), Avatar)
        self.assertTrue(walk.passes(0, 0.0, x=1e9, alive=1, zone=b"far", level=1))
        self.assertFalse(walk.passes(0, 0.0, level=2))

    def test_far_apart(self) -> None:
        """No distance is too great to be seen."""
        ints = Walk(SpeedLimit("level", per_second=10), Avatar)
        ints.set(0, level=-(2**63))
        for level in (2**63 - 1, -1, 0, -(2**63) + 100):
            self.assertFalse(ints.passes(0, 1.0, level=level))
        self.assertTrue(ints.passes(0, 1.0, level=-(2**63) + 15))
        floats = Walk(SpeedLimit("x", "y", per_second=1e100, slack=1e100))
        floats.set(0, x=-1.7e308)
        for fields in ({"x": 1.7e308}, {"y": 1e300}, {"x": 1.7e308, "y": 1.7e308}):
            self.assertFalse(floats.passes(0, 1.0, **fields))

    @settings(LAW, max_examples=60)
    @given(
        moves=st.lists(
            st.tuples(st.sampled_from((0.0, 0.05, 0.2, 4.0)), st.floats(-9, 9), st.booleans()),
            max_size=30,
        )
    )
    def test_never_faster(self, moves: list[tuple[float, float, bool]]) -> None:
        """Over any time a player comes no farther than speed and slack allow."""
        walk = Walk(SpeedLimit("x", per_second=10, slack=4))
        way = waited = total = 0.0
        for seconds, step, again in moves:
            waited += seconds
            total += seconds
            if again and walk.rows["updated_at"][0]:  # into a slot that another had meanwhile
                walk.limit._budgets["session_id"][:] = 9
            at = float(walk.rows["x"][0])
            if walk.passes(0, waited, x=at + step):
                way += abs(step)
                waited = 0.0
            self.assertLessEqual(way, 4 + 10 * total + 1e-9)

    def test_together(self) -> None:
        """Many at a time, in any order of slots, are judged as each alone."""
        alone, together = (Walk(SpeedLimit("x", per_second=10, slack=4)) for _ in range(2))
        draw = np.random.default_rng(3)
        for _ in range(200):
            slots = draw.permutation(8)[: draw.integers(1, 9)]
            seconds, steps = draw.uniform(0, 0.5, len(slots)), draw.uniform(-6, 6, len(slots))
            there = together.rows["x"][slots] + steps
            expected = [
                alone.passes(int(slot), after, x=x)
                for slot, after, x in zip(slots, seconds, there, strict=True)
            ]
            before, after = together.rows[slots], together.rows[slots]
            after["x"] = there
            after["updated_at"] += 2
            passes = together.limit.passing(slots, before, after, seconds)
            self.assertEqual(passes.tolist(), expected)
            together.limit.applied(slots[passes])
            together.rows[slots[passes]] = after[passes]
        self.assertEqual(together.rows.tolist(), alone.rows.tolist())


class ErrorTests(SynchronousTestCase):
    """What it refuses to be made of."""

    def test_arguments(self) -> None:
        """Each error names what is wrong."""
        bad: list[tuple[tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
            ((), {"per_second": 1}, ValueError, "no field is named"),
            (("x", "y", "x"), {"per_second": 1}, ValueError, "twice in x, y, x"),
            ((7,), {"per_second": 1}, TypeError, "field 7 is not a text"),
            ((["x"],), {"per_second": 1}, TypeError, "is not a text"),
            (("x",), {"per_second": "8"}, TypeError, "per_second '8' is not a number"),
            (("x",), {"per_second": True}, TypeError, "per_second True is not a number"),
            (("x",), {"per_second": None}, TypeError, "per_second None is not a number"),
            (("x",), {"per_second": 0}, ValueError, "server_owned()"),
            (("x",), {"per_second": -1}, ValueError, "per_second -1 is not from 0"),
            (("x",), {"per_second": math.nan}, ValueError, "per_second nan is not from 0"),
            (("x",), {"per_second": 1, "slack": math.inf}, ValueError, "slack inf is not from"),
            (("x",), {"per_second": 1, "slack": -0.5}, ValueError, "slack -0.5 is not from"),
            (("x",), {"per_second": 1, "slack": [1]}, TypeError, "slack [1] is not a number"),
        ]
        for fields, named, error, what in bad:
            with self.subTest(fields=fields, **named):
                self.assertIn(what, str(self.assertRaises(error, SpeedLimit, *fields, **named)))

    def test_fields(self) -> None:
        """A field must be a number that clients move; the error says which are."""
        for state, name, why in (
            (Avatar, "z", "field 'z': there is no such field; name some of x, level"),
            (Avatar, "alive", "it is bool, and only float and int have a speed; name some of x"),
            (Avatar, "zone", "it is text(8), and only float and int"),
            (Avatar, "gold", "it is server_owned(), and no client moves it; name some of x, level"),
            (Puppet, "hp", "no field is a number that clients move"),
        ):
            with self.subTest(name=name):
                limit = SpeedLimit(name, per_second=1)
                error = self.assertRaises(ValueError, limit.prepare, StateSchema.of(state))
                self.assertIn(why, str(error))

    def test_repr(self) -> None:
        """It shows what it was made of, for the log."""
        self.assertEqual(
            repr(SpeedLimit("x", "y", per_second=8)),
            "SpeedLimit('x', 'y', per_second=8.0, slack=4.0)",
        )
