"""Moves that are judged: over the wire, alone and many together."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from itertools import chain
from typing import Any

import attrs
import numpy as np

from playerstate import NotOnline, SpeedLimit, server_owned, text, within
from playerstate.interfaces import Stored
from playerstate.testing import EPOCH
from tests.kit.judges import Asked, Told
from tests.kit.players import (
    OVERRIDDEN,
    RESTORED,
    STATE,
    WELCOME,
    Client,
    GatewayTestCase,
    at,
    run_of,
)

NOW = EPOCH * 10**6
CROWD = range(1, 21)


@attrs.frozen
class Owned:
    """A state with each kind of field; the server owns one."""

    hp: int = attrs.field(default=100, metadata=server_owned())
    x: float = attrs.field(default=0.0, metadata=within(resolution=1.0))
    alive: bool = True
    name: str = attrs.field(default="nobody", metadata=text(8))


def below(limit: float) -> Any:
    """Passes what goes less far."""
    return lambda before, after: after["x"] < limit


class JudgingTestCase(GatewayTestCase):
    """Tests of judged moves."""

    def told_state(self, client: Client) -> tuple[Any, ...]:
        """The STATE that the client gets, alone, within half a second."""
        self.advance(0.5)
        states = {answer for answer in client.heard() if answer[0] == STATE}
        self.assertEqual(len(states), 1)
        return states.pop()


class SpeedTests(JudgingTestCase):
    """The whole way of a move that is too fast, by a client written from the wire format."""

    def test_too_fast(self) -> None:
        """It is not applied; the player is put back, and walks on once the client has seen it."""
        self.open(judges=[SpeedLimit("x", "y", per_second=10, slack=5)])
        client = self.joined()
        self.advance(1.0)
        client.move(1, 360.0, 200.0)
        client.move(2, 900.0, 200.0)
        client.move(3, 361.0, 200.0)
        self.assertEqual(self.service.state(42), at(360, 200))
        self.assertEqual(self.books.rejected, {"speed": 1, "not_seen": 1})
        # The client's move and the put-back are applied; three moves and the put-back received.
        self.assertEqual((self.books.received, self.books.applied), (4, 2))
        _, flags, number, x, y = self.told_state(client)
        self.assertEqual((flags, x, y), (1, 360.0, 200.0))
        client.seen(number, 3)
        client.move(3, 362.0, 200.0)
        client.move(4, 362.0, 200.0)
        self.assertEqual(self.books.stale, 1)
        self.assertEqual(self.service.state(42), at(362, 200))
        self.advance(6.0)
        self.assertEqual(self.stored(self.stepped), {42: (362.0, 200.0)})

    def test_time(self) -> None:
        """What the time since the last applied move allows, from the first move on."""
        self.open(judges=[SpeedLimit("x", per_second=10, slack=0)])
        client = self.joined()
        self.advance(0.5)
        client.move(1, 354.5, 200.0)
        self.advance(0.5)
        client.move(2, 359.4, 200.0)
        self.assertEqual(self.books.rejected, {})
        client.move(3, 359.6, 200.0)
        self.assertEqual(self.books.rejected, {"speed": 1})

    def test_teleport(self) -> None:
        """The program may set a player anywhere: the player walks on from there."""
        self.open(judges=[SpeedLimit("x", "y", per_second=10, slack=5)])
        client = self.joined()
        self.service.update(42, at(9000, 9000))
        _, _, number, *_ = self.told_state(client)
        client.seen(number, 0)
        client.move(1, 9003.0, 9000.0)
        self.assertEqual(self.service.state(42), at(9003, 9000))
        client.move(2, 353.0, 200.0)
        self.assertEqual(self.books.rejected, {"speed": 1})

    def test_slot_used_again(self) -> None:
        """Who gets the slot of another has a budget of their own."""
        self.open(judges=[SpeedLimit("x", per_second=1, slack=5)], max_players=1)
        first = self.joined(1)
        first.move(1, 354.0)
        first.leave(1)
        self.advance(0.2)
        second = self.joined(2, host=2)
        second.move(1, 354.5)
        self.assertEqual((self.books.applied, self.books.rejected), (2, {}))

    def test_joins_again(self) -> None:
        """To leave and come back gains nothing, and loses nothing but the slack."""
        self.open(judges=[SpeedLimit("x", per_second=10, slack=50)], max_players=2)
        self.joined(7, host=7)
        client = self.joined()
        client.move(1, 400.0)
        client.leave(1)
        self.advance(1.0)
        self.service.leave(7)
        self.advance(0.5)
        client.join(2)
        client.move(1, 466.0)
        self.assertEqual(self.books.rejected, {"speed": 1})
        self.assertEqual(self.service.state(42).x, 400.0)

    def test_put_back_survives(self) -> None:
        """Who leaves instead of answering is told by the next WELCOME, under the same number."""
        self.open(judges=[SpeedLimit("x", per_second=1, slack=1)])
        client = self.joined()
        client.move(1, 999.0)
        _, _, number, *_ = self.told_state(client)
        client.leave(1)
        self.advance(0.2)
        self.assertEqual(self.stepped.store.players, {42: Stored((350.0, 200.0), number)})
        client.heard()
        client.join(2)
        flags = RESTORED | OVERRIDDEN
        self.assertEqual(client.heard(), [(WELCOME, flags, 2, number, 350.0, 200.0)])

    def test_bound(self) -> None:
        """A client that answers every put-back by a worse move gets no farther."""
        self.open(judges=[SpeedLimit("x", per_second=10, slack=5)])
        client = self.joined()
        for sequence in range(1, 21):
            client.move(sequence, 1e6)
            _, _, number, *_ = self.told_state(client)
            client.seen(number, sequence)
        self.assertEqual(self.service.state(42), at(350, 200))
        self.assertEqual(self.books.rejected, {"speed": 20})


class Listener:
    """Does something whenever a player is changed.

    Args:
        do: called with the session id.
    """

    def __init__(self, do: Callable[[int], object]) -> None:
        self._do = do

    def on_leave(self, session_id: int) -> None:
        """See `PlayersListener`."""

    def on_change(self, session_id: int, is_override: bool) -> None:
        """See `PlayersListener`."""
        self._do(session_id)


class JudgeTests(JudgingTestCase):
    """What judges are asked and told, for a move alone and for many."""

    def crowd(self, *judges: Any, together: bool, **options: Any) -> None:
        """Players who have joined; whether their moves are taken in at once."""
        self.together = together
        self.open(max_players=100, judges=judges, batch_min=4, **options)
        self.clients = {session_id: self.client(session_id, session_id) for session_id in CROWD}
        for client in self.clients.values():
            client.join(size=300)

    def send(self, *messages: tuple[int, bytes]) -> None:
        """Messages of these players arrive."""
        datagrams = [self.clients[each].framed(message) for each, message in messages]
        addresses = [self.clients[each].address for each, _ in messages]
        if self.together:
            self.port.receive_many(datagrams, addresses)
        else:
            for datagram, address in zip(datagrams, addresses, strict=True):
                self.port.receive(datagram, address)

    def both(self) -> Any:
        """Twice: one by one, and together."""
        for together in (False, True):
            with self.subTest(together=together):
                yield together

    def test_asked(self) -> None:
        """A judge sees the rows before and after, by name, and the time since the last move."""
        for together in self.both():
            judge = Told("rule")
            self.crowd(judge, together=together, state=Owned)
            self.service.change(1, hp=7)
            self.advance(1.0)
            self.send(*((i, move_owned(1, i, 0, b"mover")) for i in CROWD))
            self.stepped.reactor.advance(0.5)
            self.send((1, move_owned(2, 5, 1, b"me")))
            slots, before, after, seconds = judge.asked[-1]
            self.assertEqual((slots, seconds), ([0], [0.5]))
            date = after[0].pop("updated_at")
            self.assertEqual(after, [row(session_id=1, hp=7, x=5.0, alive=1, name=b"me")])
            self.assertLess(before[0].pop("updated_at"), date)
            self.assertEqual(before, [row(session_id=1, hp=7, x=1.0, alive=0, name=b"mover")])
            self.assertEqual(self.service.table.updated_at(0), date)
            self.assertEqual(sorted(chain(*judge.told[:-1])), list(range(20)))
            self.assertEqual(judge.told[-1], [0])
            self.assertEqual(
                sorted(chain(*(slots for slots, *_ in judge.asked[:-1]))), list(range(20))
            )
            for *_, seconds in judge.asked[:-1]:
                self.assertAlmostEqual(max(seconds), 1.0)
                self.assertAlmostEqual(min(seconds), 1.0)
            self.assertEqual(len(judge.asked), 2 if together else 21)

    def test_some_rejected(self) -> None:
        """Those that pass are applied; the others change nothing, and are told so."""
        for together in self.both():
            self.crowd(Asked("far", below(15)), Asked("odd", odd), together=together)
            self.send(*((i, move(1, i)) for i in CROWD))
            self.assertEqual(self.books.rejected, {"far": 6, "odd": 7})
            self.assertEqual((self.books.received, self.books.applied), (33, 20))
            for i in CROWD:
                passed = i < 15 and i % 2 == 0
                expected = at(i) if passed else at(350, 200)
                self.assertEqual(self.service.state(i), expected)
                self.assertEqual(self.service.progress(i).applied, int(passed))
            self.advance(1.0)
            for i in CROWD:
                told = [answer for answer in self.clients[i].heard() if answer[0] == STATE]
                self.assertEqual(bool(told), not (i < 15 and i % 2 == 0))
            # No row lost its padding, or what it needs to be found after a death.
            memory = self.service.table._halves
            self.assertTrue((memory["version"] == memory["version_again"]).all())

    def test_few(self) -> None:
        """Two moves that arrive together are judged together."""
        judge = Asked()
        self.open(judges=[judge])
        clients = [self.joined(n, n) for n in (1, 2)]
        datagrams = [client.framed(move(1, 1.0)) for client in clients]
        self.port.receive_many(datagrams, [client.address for client in clients])
        self.assertEqual([sorted(slots) for slots, *_ in judge.asked], [[0, 1]])

    def test_not_asked(self) -> None:
        """Of what cannot be applied anyway no judge is asked."""
        for together in self.both():
            judge = Asked()
            self.crowd(judge, together=together)
            self.send(*((i, move(5, 1.0)) for i in CROWD))
            self.service.update(1, at(7))
            judge.asked.clear()
            self.send(
                (1, move(6, 1.0)),  # not seen
                *((2, move(5, 1.0)), (2, move(4, 1.0))),  # stale
                *((3, move(6, math.nan)), (3, move(6, 1.0)[:-1])),  # malformed
                *((4, b"\x05\x06\x00\x03" + bytes(16)), (4, b"\x77")),
            )
            self.service.stopService()
            self.send(*((i, move(6, 1.0)) for i in CROWD))
            self.assertEqual(judge.asked, [])
            self.assertEqual(self.books.rejected["not_seen"], 2)

    def test_delta(self) -> None:
        """A DELTA is judged like a MOVE, and one that is rejected is no step for the next."""
        judge = Asked("far", below(9))
        self.crowd(judge, together=False, state=Owned)
        client = self.clients[1]
        client.send(move_owned(1, 4, 1, b"me"))
        self.advance(0.2)
        client.send(delta_owned(2, 1, 2))
        self.assertEqual(self.service.state(1), Owned(100, 6.0, True, "me"))
        client.send(delta_owned(3, 1, 20))
        self.assertEqual(self.books.rejected, {"far": 1})
        self.assertEqual(judge.asked[-1][2][0]["x"], 24.0)
        self.assertEqual(self.service.state(1), Owned(100, 6.0, True, "me"))

    def test_leaving(self) -> None:
        """Who is leaving is not put back: the row stays as it is, and is saved as it is."""
        for together in self.both():
            self.crowd(Asked("far", below(9)), together=together)
            self.send(*((i, move(1, 1.0)) for i in CROWD))
            self.clients[1].leave(9)
            received = self.books.received
            self.send((1, move(2, 2.0)), (1, move(3, 30.0)), (1, move(4, 40.0)))
            self.assertEqual(self.books.rejected, {"far": 2})
            self.assertEqual(self.books.received, received + 3)
            self.advance(0.2)
            self.assertRaises(NotOnline, self.service.progress, 1)
            self.assertEqual(self.stored(self.stepped)[1], (2.0, 0.0))

    def test_fails(self) -> None:
        """Where a judge fails, the move is not applied, and the player is put back."""

        def answer(before: Any, after: Any) -> Any:
            if 13.0 in after["x"]:
                raise ZeroDivisionError
            return np.ones(len(after), bool)

        for together in self.both():
            self.crowd(Asked("rule", answer), together=together)
            self.send(*((i, move(1, i)) for i in CROWD))
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
            self.assertEqual(self.books.rejected, {"judge_failed": 1})
            self.assertEqual(self.service.state(13), at(350, 200))
            self.assertEqual(self.service.state(14), at(14))
            self.assertEqual(self.told_state(self.clients[13])[3:], (350.0, 200.0))

    def test_changes_players(self) -> None:
        """A judge that takes players offline has nothing applied, and harms no other player."""

        def answer(before: Any, after: Any) -> Any:
            if 1 in self.service.table.slots:
                self.service.leave(1)
            return np.ones(len(after), bool)

        for together in self.both():
            judge = Asked("rule")
            self.crowd(judge, together=together)
            judge.answer = answer
            self.send(*((i, move(1, i)) for i in CROWD[:10]))
            self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
            self.assertNotIn(1, self.service.table.slots)
            self.assertEqual(self.service.state(2), at(350, 200) if together else at(2))
            self.advance(31.0)
            self.assertEqual(self.service.table.slots, {})

    def test_listener_takes_players_offline(self) -> None:
        """A listener that is told of a player put back may take others offline."""
        for together in self.both():
            self.crowd(Asked("far", below(0)), together=together)
            leave = self.service.leave
            self.service.add_listener(Listener(lambda i, leave=leave: leave(i % len(CROWD) + 1)))
            self.send(*((i, move(1, i)) for i in CROWD))
            self.assertEqual(sum(self.books.rejected.values()), len(CROWD))
            self.advance(31.0)
            self.assertEqual(self.service.table.slots, {})
            self.assertEqual(self.flushLoggedErrors(), [])

    def test_listener_stops_the_service(self) -> None:
        """Or stop the service: nobody is put back then."""
        self.crowd(Asked("far", below(0)), together=True)
        self.service.add_listener(Listener(lambda _: self.service.stopService()))
        self.send(*((i, move(1, i)) for i in CROWD))
        self.assertEqual((self.books.applied, self.books.rejected), (1, {"far": 20}))
        self.successResultOf(self.stepped.stop())

    def test_without_judges(self) -> None:
        """Nothing is kept of anybody's moves."""
        self.open()
        self.assertIsNone(run_of(self.gateway).intake._judging)
        self.assertIsNone(run_of(self.gateway).registry._last_moves)

    def test_put_back(self) -> None:
        """A player put back counts as updated, and has the same state with a new, odd date."""
        self.open()
        client = self.joined()
        client.move(1, 5.0)
        self.service.run.put_back(0)
        self.assertEqual((self.books.received, self.books.applied), (2, 2))
        self.assertEqual(self.books.superseded, 1)
        self.assertEqual(self.service.table.updated_at(0), NOW + 1)
        self.assertEqual(self.told_state(client), (STATE, 1, NOW + 1, 5.0, 0.0))


def odd(before: Any, after: Any) -> Any:
    """Rejects odd numbers."""
    return after["x"] % 2 == 0


def row(**fields: Any) -> dict[str, Any]:
    """A row as a judge sees it."""
    return fields


def move(sequence: int, x: float, y: float = 0.0) -> bytes:
    """A MOVE."""
    return struct.pack("<BIdd", 0x02, sequence, x, y)


def move_owned(sequence: int, x: float, alive: int, name: bytes) -> bytes:
    """A MOVE of `Owned`."""
    return struct.pack("<BIdB8s", 0x02, sequence, x, alive, name)


def delta_owned(sequence: int, base: int, steps: int) -> bytes:
    """A DELTA of `Owned`, so many steps to the right."""
    return struct.pack("<BHBBB8s", 0x05, sequence, base, 2 * steps, 1, b"me")
