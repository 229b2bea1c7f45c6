"""Thousands of rows that a real database refuses, beside as many that it takes."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import closing
from typing import Any

import apsw

from playerstate import PlayerState, open_store
from playerstate.saving.commit import NAMED_AT_MOST
from playerstate.saving.refusals import REFUSALS
from playerstate.stores.sqlite.refused import RefusedFile
from playerstate.stores.sqlite.writer import SQLiteWriter
from playerstate.testing import SteppedService
from tests.kit.players import ServiceTestCase, at

PLAYERS = range(1, 5001)
POISONED = PLAYERS[::2]
SAVE_WITHIN = 2.0


class ManyRefusedTests(ServiceTestCase):
    """Every second player is where a trigger lets nobody be."""

    def setUp(self) -> None:
        """Count what is done to the database and to the file beside it."""
        super().setUp()
        self.path = self.mktemp()
        self.done: Counter[str] = Counter()
        for owner, name in (
            (RefusedFile, "_replace"),
            (RefusedFile, "_append"),
            (RefusedFile, "_lines"),
            (SQLiteWriter, "write"),
        ):
            self.count(owner, name)

    def count(self, owner: type, name: str) -> None:
        """Count the calls of a method."""
        method = getattr(owner, name)

        def counted(this: Any, *given: Any) -> Any:
            self.done[name] += 1
            return method(this, *given)

        self.patch(owner, name, counted)

    def serve(self, reason: str) -> SteppedService:
        """A service whose database refuses who is west of 0, for this reason, in SQL."""
        stepped = self.start(
            store=open_store(f"sqlite:{self.path}", PlayerState), save_within=SAVE_WITHIN
        )
        with closing(apsw.Connection(self.path)) as database:
            for when in ("INSERT", "UPDATE"):
                database.execute(
                    f"CREATE TRIGGER no_{when} BEFORE {when} ON player_state WHEN new.x < 0"
                    f" BEGIN SELECT RAISE(ABORT, {reason}); END"
                )
        for session_id in PLAYERS:
            stepped.join(session_id)
        return stepped

    def walk(self, stepped: SteppedService, y: float) -> None:
        """All move, half of them to where they cannot be saved."""
        for session_id in PLAYERS:
            x = -1.0 if session_id in POISONED else 1.0
            stepped.service.update(session_id, at(x, y))

    def saved(self, y: float) -> int:
        """How many the database has at this place."""
        with closing(apsw.Connection(self.path)) as database:
            found: int = database.execute("SELECT count(*) FROM player_state WHERE y = ?", (y,)).get
        return found

    def aside(self) -> list[tuple[int, float]]:
        """Who is in the file, and at which place."""
        with open(f"{self.path}.refused.jsonl", encoding="ascii") as file:
            return [(entry["session_id"], entry["y"]) for entry in map(json.loads, file)]

    def let_pass(self, stepped: SteppedService, until: Any) -> None:
        """Let time pass in which everything is to be saved, until this is so."""
        for _ in range(int(SAVE_WITHIN / 0.05)):
            stepped.reactor.advance(0.05)
            stepped.step()
            if until():
                return
        self.fail("not in time")

    def check(self, reason: str) -> None:
        """Walk, walk again, walk while stopping."""
        stepped = self.serve(reason)
        self.walk(stepped, 1.0)
        good = len(PLAYERS) - len(POISONED)
        self.let_pass(stepped, lambda: self.done["write"])
        self.assertEqual((self.saved(1.0), self.done["write"]), (good, 1))
        for y in (1.0, 2.0):
            if y == 2.0:
                self.walk(stepped, y)
            self.let_pass(stepped, lambda: stepped.service.ledger.snapshot().pending == 0)
            self.assertEqual(self.saved(y), good)
            self.assertEqual(self.aside(), [(session_id, y) for session_id in POISONED])
            # The file is written once a batch, however many are in it, and in it already.
            self.assertEqual(self.done["write"], REFUSALS)
            self.assertEqual(self.done["_replace"] + self.done["_append"], 1)
            self.assertEqual(self.done["_lines"], 1)
            self.done.clear()
        self.walk(stepped, 3.0)
        self.successResultOf(stepped.stop())
        self.assertFalse(stepped.service.gave_up)
        self.assertEqual(self.saved(3.0), good)
        self.assertEqual(self.aside(), [(session_id, 3.0) for session_id in POISONED])
        self.assertEqual(self.done["_replace"] + self.done["_append"], 1)
        self.flushLoggedErrors()

    def test_one_reason(self) -> None:
        """The good are saved by the first commit; the others are set aside, and nothing waits."""
        self.check("'nobody goes west'")
        self.assertEqual(len(self.told("not saved to")), 3)

    def test_a_reason_each(self) -> None:
        """So it is where each has a reason of its own; the log is not flooded with them."""
        self.check("'player ' || new.session_id || ' went west'")
        told = self.told("not saved to")
        self.assertEqual(len(told), NAMED_AT_MOST + 1)
        self.assertIn("2480 other reasons", told[-1])
        self.assertEqual(len(self.told("2500 rows are kept and tried again")), 1)
