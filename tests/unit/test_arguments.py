"""The public calls, given what they cannot take: refused by name, with nothing changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import apsw
import attrs
import numpy as np
from twisted.trial.unittest import SynchronousTestCase

from playerstate import InvalidState, Progress, StateSchema, open_store, text
from playerstate.client import Netcode, Plain
from playerstate.conversations.gateway import Gateway
from playerstate.interfaces import Stored
from playerstate.testing import FaultyStore, SteppedService
from playerstate.tokens import connect_token
from tests.kit.players import ServiceTestCase, at, leave_behind

BAD_IDS = (0, -1, 2**63, 2**64, 10**5000, np.uint64(2**63), np.int64(0))
NO_IDS: tuple[Any, ...] = ("1", b"1", True, np.True_, 1.5, np.float64(1), None, [1])
TOKEN: dict[str, Any] = {"key": bytes(32), "protocol_id": 1, "addresses": ["192.0.2.1:1"]}


class Odd:
    """A number that raises whatever it likes."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __float__(self) -> float:
        raise self.error

    def __index__(self) -> int:
        raise self.error

    def __repr__(self) -> str:
        raise self.error


ODD = [Odd(error) for error in (KeyError("odd"), RuntimeError("odd"), RecursionError("odd"))]


def refusal(call: Callable[[], object]) -> str:
    """What a call is refused with, as its type and its words; nothing else may come of it."""
    try:
        answer = call()
    except (TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    raise AssertionError(f"answered by {answer!r}")


class SessionIdTests(ServiceTestCase):
    """A session id, wherever one is given."""

    def setUp(self) -> None:
        """One player is online."""
        super().setUp()
        self.stepped = self.start()
        service = self.stepped.service
        self.stepped.join(1)
        service.update(1, at(5))
        self.calls: dict[str, Callable[[Any], object]] = {
            "join": service.join,
            "update": lambda given: service.update(given, at(9)),
            "state": service.state,
            "leave": service.leave,
            "progress": service.progress,
            "kick": Gateway(service).kick,
            "stepped": self.stepped.join,
            "token": lambda given: connect_token(given, **TOKEN),
            "client": lambda given: Plain(("127.0.0.1", 7777), given),
        }

    def test_refused(self) -> None:
        """What is none is refused by name, and nothing has changed."""
        before = self.stepped.service.ledger.snapshot()
        for name, call in self.calls.items():
            for kind, values in (("ValueError", BAD_IDS), ("TypeError", (*NO_IDS, *ODD))):
                for place, value in enumerate(values):
                    with self.subTest(name, kind=kind, place=place):
                        told = refusal(lambda call=call, value=value: call(value))
                        self.assertRegex(told, f"^{kind}: session id .* is not (from|a whole)")
        self.assertEqual(self.stepped.service.ledger.snapshot(), before)
        self.assertEqual(len(self.stepped.service.table), 1)
        self.assertEqual(self.stepped.service.state(1), at(5))

    def test_numbers_of_numpy(self) -> None:
        """A whole number of numpy's is one."""
        service = self.stepped.service
        for kind in (np.int64, np.uint8, np.uint64):
            self.assertTrue(self.successResultOf(service.join(kind(1))).restored)
            service.update(kind(1), at(7))
            self.assertEqual(service.state(kind(1)), at(7))
            self.assertEqual(service.progress(kind(1)), service.progress(1))
            self.assertEqual(Plain(("127.0.0.1", 7777), kind(1)).session_id, 1)
            self.assertEqual(len(connect_token(kind(1), **TOKEN)), 2048)


class NumberTests(ServiceTestCase):
    """Other numbers that a program gives."""

    def test_sequence(self) -> None:
        """The number that moves go on from is a whole one; a join refused for it takes no place."""
        service = self.start().service
        for value in ("1", 1.5, True, [1], *ODD):
            told = refusal(lambda value=value: service.join(7, sequence=value))
            self.assertRegex(told, "^TypeError: sequence .* is not a whole number")
        self.assertEqual(len(service.table), 0)
        self.successResultOf(service.join(7, sequence=np.uint32(3)))
        self.assertEqual(service.progress(7), Progress(3, 3))

    def test_options(self) -> None:
        """An option of the service is named where it is no number, or out of range."""
        for name in ("max_players", "queue_size", "save_within", "stop_within"):
            for value in ("1", b"1", None, True, *ODD):
                told = refusal(lambda name=name, value=value: SteppedService(**{name: value}))
                self.assertRegex(told, f"^TypeError: {name} .* is not a (whole )?number")
            for value in (-1, 10**400):
                told = refusal(lambda name=name, value=value: SteppedService(**{name: value}))
                self.assertRegex(told, f"^ValueError: {name} .* is not from")

    def test_token(self) -> None:
        """What a token is made of is named where it is of another type."""
        for name in ("protocol_id", "expires", "timeout", "key", "user_data"):
            for value in ("x" * 32, None, 1.5, *ODD):
                given = TOKEN | {name: value}
                told = refusal(lambda given=given: connect_token(1, **given))
                self.assertRegex(told, f"^TypeError: {name} ")

    def test_idle_timeout(self) -> None:
        """So is the time after which a silent player is taken for gone."""
        service = self.start().service
        for value in ("1", None, True, *ODD):
            told = refusal(lambda value=value: Gateway(service, idle_timeout=value))
            self.assertRegex(told, "^TypeError: idle_timeout .* is not a number of seconds")


class PlainTests(SynchronousTestCase):
    """Where a client's server is."""

    def test_refused(self) -> None:
        """A server is an IP address and a port that can be sent to."""
        for server in (("localhost", 0), ("localhost", 7777), "127.0.0.1:7777", None, (1, 2), ()):
            told = refusal(lambda server=server: Plain(server, 42))
            self.assertRegex(told, "^ValueError: server .* is no IP address and port")
        for port in (0, -1, 65_536):
            told = refusal(lambda port=port: Plain(("127.0.0.1", port), 42))
            self.assertIn(f"ValueError: port of the server {port} is not from 1 to 65535", told)
        for port in ("7777", 1.5, True):
            told = refusal(lambda port=port: Plain(("127.0.0.1", port), 42))  # type: ignore[arg-type]
            self.assertIn("TypeError: port of the server", told)

    def test_token_in_place_of_its_source(self) -> None:
        """A client of netcode asks for tokens; one alone, good for once, is refused."""
        self.assertIn("get_token", refusal(lambda: Netcode(bytes(2048))))  # type: ignore[arg-type]

    def test_as_the_system_writes_it(self) -> None:
        """Answers are told by their address, so it is kept as the system will write that."""
        server: Any = ["2001:DB8:0::1", np.int64(7777)]
        self.assertEqual(Plain(server, 42).server, ("2001:db8::1", 7777))


@attrs.frozen
class Named:
    """A state with one field of each kind that raises in a way of its own."""

    x: float = 0.0
    hp: int = 0
    alive: bool = True
    name: str = attrs.field(default="", metadata=text(8))


class OddValueTests(ServiceTestCase):
    """Values of other hands."""

    def test_update(self) -> None:
        """A value that raises when it is looked at is refused as any other that does not fit."""
        stepped = self.start(state=Named)
        stepped.join(1)
        for name in ("x", "hp", "alive", "name"):
            for odd in ODD:
                with self.assertRaises(InvalidState) as caught:
                    stepped.service.update(1, attrs.evolve(Named(), **{name: odd}))
                self.assertEqual(caught.exception.field, name)
        self.assertEqual(stepped.service.state(1), Named())

    def test_stored(self) -> None:
        """A stored value that does not fit is told with whose it is, and what to do."""
        stepped = self.start(state=Named)
        good = (1.0, 1, True, "a")
        rows = {
            1: Stored(("left", 1, True, "a"), 5),
            2: Stored((1.0, 1, True, b"\xff"), 5),
            3: Stored(good, 2**70),
            4: Stored(good, "today"),  # type: ignore[arg-type]
            5: Stored(good, ODD[0]),  # type: ignore[arg-type]
        }
        stepped.store.players.update(rows)
        for session_id in rows:
            failure = self.failureResultOf(stepped.service.join(session_id), InvalidState)
            self.assertIn(f"player {session_id} is stored with it: correct", str(failure.value))
        self.assertEqual(len(stepped.service.table), 0)

    def test_recovered(self) -> None:
        """A start that brings in what a crash left is not kept down by such a value beside it."""
        today = attrs.make_class(
            "Today",
            {
                "x": attrs.field(default=0.0, type=float),
                "y": attrs.field(default=0.0, type=float),
                "name": attrs.field(default="new", type=str, metadata=text(8)),
            },
        )
        store = FaultyStore(StateSchema.of(today))
        store.players[1] = Stored((0.0, 0.0, b"\xff"), 5)
        leave_behind(self, {1: Stored((1.0, 2.0), 9)})
        stepped = self.start(state=today, store=store)
        stepped.settle()
        self.assertEqual(store.players[1], Stored((1.0, 2.0, "new"), 9))

    def test_bytes_that_are_no_text(self) -> None:
        """So is what a text column of SQLite holds of bytes that are none; the others join."""
        path = self.mktemp()
        stepped = self.start(state=Named, store=open_store(f"sqlite:{path}", Named))
        self.addCleanup(stepped.stop)
        for session_id in (1, 2):
            stepped.join(session_id)
            stepped.service.update(session_id, Named(name="\N{LATIN SMALL LETTER E WITH ACUTE}"))
            left = stepped.service.leave(session_id)
            stepped.reactor.advance(0.05)
            stepped.settle()
            self.successResultOf(left)
        database = apsw.Connection(path)
        self.addCleanup(database.close)
        database.execute(
            "UPDATE player_state SET name = CAST(x'ff41' AS TEXT) WHERE session_id = 1"
        )
        failure = self.failureResultOf(stepped.service.join(1), InvalidState)
        self.assertIn("name = b'\\xffA': must be text of at most 8 bytes", str(failure.value))
        self.assertIn("player 1 is stored with it", str(failure.value))
        self.assertEqual(stepped.join(2).state.name, "\N{LATIN SMALL LETTER E WITH ACUTE}")
