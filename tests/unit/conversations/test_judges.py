"""Judges: how several decide together, and what comes of answers that are none."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from zope.interface import implementer

from playerstate import Gateway, SpeedLimit
from playerstate.conversations.judges import (
    FAILURE_LOGGED_EVERY,
    MOST_JUDGES,
    Judges,
    Moves,
    checked,
)
from playerstate.interfaces import IMoveJudge
from playerstate.ledger import Outcome
from playerstate.state.layout import RowLayout
from tests.kit.judges import Asked, Told
from tests.kit.players import SCHEMA, ServiceTestCase
from tests.kit.support import LAW

NAMED = RowLayout(SCHEMA.fields).named


@implementer(IMoveJudge)
class Wordless:
    """Has no reason."""

    def passing(self, slots: Any, before: Any, after: Any, seconds: Any) -> Any:
        """See `IMoveJudge.passing`."""


@implementer(IMoveJudge)
class Short:
    """Takes too few arguments."""

    reason = "short"

    def passing(self, before: Any, after: Any) -> Any:
        """See `IMoveJudge.passing`."""


def moves(*x: float) -> Moves:
    """A move of each of some players to there."""
    after = np.zeros(len(x), NAMED)
    after["x"] = x
    return Moves(np.arange(len(x)), np.zeros(len(x), NAMED), after, np.zeros(len(x)))


def below(limit: float) -> Any:
    """Passes what goes less far."""
    return lambda before, after: after["x"] < limit


class CheckedTests(ServiceTestCase):
    """What is given to a gateway."""

    def test_good(self) -> None:
        """Judges in any iterable; each is prepared for the schema."""
        one, other = Asked("one"), Told("_2")
        self.assertEqual(checked(iter([one, other]), SCHEMA), (one, other))
        self.assertEqual(other.schemas, [SCHEMA])
        self.assertEqual(checked((), SCHEMA), ())
        self.assertEqual(len(checked([Asked("same")] * MOST_JUDGES, SCHEMA)), MOST_JUDGES)

    def test_bad(self) -> None:
        """Each error names the judge, and what is wrong with it."""
        bad: list[tuple[Any, type[Exception], str]] = [
            (SpeedLimit("x", per_second=1), TypeError, "pass a list, judges=[...]"),
            ([Asked(f"r{n}") for n in range(MOST_JUDGES + 1)], ValueError, "17 judges are more"),
            ([object()], TypeError, "IMoveJudge"),
            ([Asked], TypeError, "IMoveJudge"),
            (["x,y:8"], TypeError, "judge 'x,y:8'"),
            ([Wordless()], TypeError, "reason"),
            ([Short()], TypeError, "passing"),
            ([Asked(None)], TypeError, "its reason None is not a str"),
            ([SpeedLimit("z", per_second=1)], ValueError, "field 'z': there is no such field"),
        ]
        for reason in ("", "too fast", "9lives", "größe", "x" * 33, "a\n", "a-b"):
            bad.append(([Asked(reason)], ValueError, f"its reason {reason!r} is not a name"))
        for reason in ("judge_failed", "not_seen", "value", "stopping"):
            bad.append(([Asked(reason)], ValueError, f"{reason!r} has another meaning"))
        service = self.start().service
        for judges, error, what in bad:
            with self.subTest(what=what):
                found = self.assertRaises(error, Gateway, service, judges=judges)
                self.assertIn(what, str(found))


class VerdictTests(ServiceTestCase):
    """What several judges decide."""

    def setUp(self) -> None:
        """A clock, and a number that changes with each change of a player."""
        super().setUp()
        self.now, self.version = 0.0, 0

    def decide(self, judges: list[Any], *x: float) -> list[str]:
        """What becomes of moves to there: ``applied``, or the reason."""
        made = getattr(self, "made", None) or self.judges(judges)
        found = (made.outcomes[verdict].value for verdict in made.verdicts(moves(*x)))
        return [reason or counter for counter, reason in found]

    def judges(self, judges: list[Any]) -> Judges:
        """These judges, kept for all decisions of the test."""
        self.made = Judges(tuple(judges), lambda: self.now, lambda: self.version)
        return self.made

    def test_all_must_pass(self) -> None:
        """The first that rejects a move gives the reason; the others are not asked about it."""
        judges = [Asked("far", below(9)), Asked("farther", below(20)), Asked("near", below(5))]
        self.assertEqual(
            self.decide(judges, 1, 30, 7, 2, 15), ["applied", "far", "near", "applied", "far"]
        )
        self.assertEqual(
            [slots for judge in judges for slots, *_ in judge.asked][1:], [[0, 2, 3]] * 2
        )

    def test_nothing_left(self) -> None:
        """Where one judge rejects all, the others are not asked."""
        judges = [Asked("far", below(0)), Asked()]
        self.assertEqual(self.decide(judges, 1, 2), ["far", "far"])
        self.assertEqual(judges[1].asked, [])

    def test_read_only(self) -> None:
        """What judges are given cannot be changed."""

        def change(before: Any, after: Any) -> Any:
            for rows in (before, after):
                self.assertRaises(ValueError, rows["x"].fill, 7.0)
            return np.ones(len(after), bool)

        self.assertEqual(self.decide([Asked("rule", change)] * 2, 1, 2), ["applied"] * 2)

    def test_fails_for_one(self) -> None:
        """Where a judge fails for some of several moves, each is judged alone."""

        def answer(before: Any, after: Any) -> Any:
            if 13 in after["x"]:
                raise ZeroDivisionError
            return after["x"] < 20

        judges = [Asked("far", answer), Asked()]
        self.assertEqual(
            self.decide(judges, 1, 13, 30, 2), ["applied", "judge_failed", "far", "applied"]
        )
        self.assertEqual([slots for slots, *_ in judges[1].asked], [[0, 3]])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(len(self.told("a judge failed: <tests.kit.judges.Asked")), 1)

    def test_logged_now_and_then(self) -> None:
        """Each judge's failures are logged once a minute at most."""

        def fail(before: Any, after: Any) -> Any:
            raise ZeroDivisionError

        judges = [Asked("one"), Asked("two")]
        self.decide(judges, 1)
        for number, judge in enumerate(judges):
            judge.answer = fail
            for _ in range(3):
                self.assertEqual(self.decide(judges, 1, 2), ["judge_failed"] * 2)
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1, number)
            judge.answer = below(9)
        judges[0].answer = fail
        self.now += FAILURE_LOGGED_EVERY
        self.decide(judges, 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_changes_a_player(self) -> None:
        """Where a judge changes players, nothing passes: the rows that it saw are outdated."""

        def change(before: Any, after: Any) -> Any:
            self.version += 1
            return np.ones(len(after), bool)

        judges = [Asked("far", below(2)), Asked("rule", change), Asked("last")]
        self.assertEqual(self.decide(judges, 1, 3, 1), ["judge_failed"] * 3)
        self.assertEqual([len(judge.asked) for judge in judges], [1, 1, 0])
        [failure] = self.flushLoggedErrors(RuntimeError)
        self.assertIn("must not change players", failure.getErrorMessage())

    def test_told(self) -> None:
        """Those that ask for it are told what is applied; their failure is logged."""
        judge = Told()
        made = self.judges([Asked(), judge])
        made.applied(np.array([3, 1]))
        self.assertEqual(judge.told, [[3, 1]])
        self.patch(judge, "applied", lambda slots: 1 / 0)
        made.applied(np.array([3, 1]))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_answers(self) -> None:
        """An answer that is not one bool for each move is a failure whose error says so."""
        for answer, what in (
            (None, "array of bool, not of object"),
            (True, "has shape (2,), not ()"),
            ([True], "has shape (2,), not (1,)"),
            ([True] * 3, "has shape (2,), not (3,)"),
            ([[True], [True]], "not (2, 1)"),
            ([1, 0], "not of int"),
            ([1.0, 0.0], "not of float64"),
            (["yes", "no"], "not of <U3"),
            ([True, None], "not of object"),
            ([[True], [True, False]], "inhomogeneous"),
            ({}, "not of object"),
        ):
            with self.subTest(answer=answer):
                self.now += FAILURE_LOGGED_EVERY
                judge = Asked("rule", lambda before, after, answer=answer: answer)
                self.judges([judge])
                self.assertEqual(
                    self.decide([], 1, 2)[0], "applied" if answer == [True] else "judge_failed"
                )
                errors = self.flushLoggedErrors(TypeError, ValueError)
                self.assertIn(what, errors[0].getErrorMessage())

    def test_lists(self) -> None:
        """A list of bools is an answer."""
        judge = Asked("rule", lambda before, after: [True, False])
        self.assertEqual(self.decide([judge], 1, 2), ["applied", "rule"])

    @settings(LAW, max_examples=150)
    @given(
        answers=st.lists(
            st.one_of(
                st.none(),
                st.booleans(),
                st.integers(),
                st.text(max_size=3),
                st.just(ZeroDivisionError()),
                st.lists(st.one_of(st.booleans(), st.integers(0, 1), st.none()), max_size=4),
                st.lists(st.lists(st.booleans(), max_size=3), max_size=3),
            ),
            min_size=1,
            max_size=6,
        ),
        count=st.integers(1, 3),
    )
    def test_any_answers(self, answers: list[Any], count: int) -> None:
        """Whatever a judge answers, each move has one outcome, and passes only by True."""
        given_answers = iter(answers)
        trues = []

        def answer(before: Any, after: Any) -> Any:
            found = next(given_answers, None)
            if isinstance(found, Exception):
                raise found
            trues.append(found)
            return found

        made = Judges((Asked("rule", answer),), lambda: self.now, lambda: 0)
        verdicts = made.verdicts(moves(*range(count)))
        self.flushLoggedErrors()
        self.assertEqual(verdicts.shape, (count,))
        good = [a for a in trues if isinstance(a, list) and all(type(each) is bool for each in a)]
        passed = sum(made.outcomes[verdict] is Outcome.APPLIED for verdict in verdicts)
        self.assertLessEqual(passed, sum(sum(each) for each in good))
