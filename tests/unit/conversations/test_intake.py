"""Moves: what comes of each, and that those that came together come to the same."""

from __future__ import annotations

import contextlib
import itertools
import math
import struct
from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from playerstate.conversations.gateway import LOOK_EVERY, Gateway
from playerstate.conversations.intake import BATCH_MIN
from playerstate.conversations.speed import SpeedLimit
from playerstate.players.service import NotOnline
from playerstate.state.default import PlayerState
from playerstate.state.schema import server_owned, text, within
from playerstate.testing import EPOCH, Address, SteppedService
from playerstate.transports.plain import PlainService
from playerstate.wire.messages import receipts_for
from tests.kit.judges import Asked
from tests.kit.players import (
    OVERRIDDEN,
    RESTORED,
    WELCOME,
    Client,
    GatewayTestCase,
    ServiceTestCase,
    at,
    run_of,
)
from tests.kit.support import LAW, Everything

NOW = EPOCH * 10**6
CROWD = range(1, 2 * BATCH_MIN + 1)


@attrs.frozen
class Bounded:
    """A state most of which is refused."""

    x: float = attrs.field(default=0.0, metadata=within(-1.0, 1.0))
    level: int = attrs.field(default=1, metadata=within(1, 3))


@attrs.frozen
class Owned:
    """A state of which the client owns as much as of the one above."""

    hp: int = attrs.field(default=100, metadata=server_owned())
    x: float = attrs.field(default=0.0, metadata=within(-1.0, 1.0))
    name: str = attrs.field(default="nobody", metadata=text(8) | server_owned())
    level: int = attrs.field(default=1, metadata=within(1, 3))


@attrs.frozen
class Puppet:
    """A state of which the client owns nothing."""

    x: float = attrs.field(default=0.0, metadata=server_owned())


class MoveTests(GatewayTestCase):
    """MOVE, and why one may not be applied."""

    def test_applied(self) -> None:
        """A MOVE is applied, whatever numbers it skips, up to the highest there is."""
        self.open()
        client = self.joined()
        for sequence in (1, 2, 1000, 2**31, 2**32 - 1):
            client.move(sequence, float(sequence), 0.5)
            self.assertEqual(self.service.state(42), at(sequence, 0.5))
        self.assertEqual((self.books.received, self.books.applied), (5, 5))

    def test_stale(self) -> None:
        """A MOVE not above the highest applied is stale."""
        self.open()
        client = self.joined()
        client.move(7, 7.0)
        for sequence in (0, 1, 6, 7):
            client.move(sequence, 1.0)
        self.assertEqual(self.service.state(42), at(7))
        self.assertEqual((self.books.received, self.books.applied, self.books.stale), (5, 1, 4))

    def test_not_joined(self) -> None:
        """Without a JOIN there is nothing but silence, for a MOVE, a LEAVE and a PING."""
        self.open()
        client = self.client()
        client.move(1, 1.0)
        client.leave(1)
        client.ping(1)
        self.assertEqual(client.heard(), [])
        self.assertEqual(self.books.rejected, {"not_joined": 3})

    def test_joined_by_the_program(self) -> None:
        """A player whom the program brought online has no conversation, and may begin one."""
        self.open()
        self.stepped.join(42)
        self.service.update(42, at(3))
        client = self.client()
        client.move(1, 1.0)
        self.assertEqual(self.books.rejected, {"not_joined": 1})
        client.join(1)
        self.assertEqual(client.heard(), [(WELCOME, RESTORED | OVERRIDDEN, 1, NOW + 1, 3.0, 0.0)])
        self.advance(4.0)

    def test_other_address(self) -> None:
        """A host or a port other than the JOIN's is another address."""
        self.open()
        self.joined()
        for address in (("192.0.2.2", 1001), ("192.0.2.1", 1002)):
            other = Client(self.port, 42, address)
            other.move(1, 1.0)
            other.leave(1)
            other.ping(1)
            self.assertEqual(other.heard(), [])
        self.assertEqual(self.service.state(42), at(350, 200))
        self.assertEqual(self.books.rejected, {"other_address": 6})

    def test_malformed(self) -> None:
        """What cannot be read is counted by reason, never answered, never applied."""
        self.open()
        client = self.joined()
        move = struct.pack("<BIdd", 2, 1, 1.0, 1.0)
        for message, reason in (
            (move[:-1], "too_short"),
            (move + b"\0", "too_long"),
            (struct.pack("<BIdd", 2, 1, float("nan"), 1.0), "value"),
            (struct.pack("<BIdd", 2, 1, 1.0, float("-inf")), "value"),
            (struct.pack("<BI31x", 3, 1)[:-1], "too_short"),
            (struct.pack("<BI3x", 4, 1), "too_short"),
            (struct.pack("<BI1196x", 4, 1), "too_long"),
            (struct.pack("<BQI13x", 6, 1, 0), "value"),
            (b"\x00", "unknown_type"),
            (b"\x81" + move, "unknown_type"),
            (b"\xff" * 40, "unknown_type"),
        ):
            before = self.books.malformed.get(reason, 0)
            client.send(message)
            self.assertEqual(self.books.malformed[reason], before + 1)
        self.assertEqual(client.heard(), [])
        self.assertEqual(self.service.state(42), at(350, 200))
        self.assertEqual(self.books.received, 11)

    def test_negative_zero(self) -> None:
        """-0.0 is taken in as 0.0."""
        self.open()
        self.joined().move(1, -0.0)
        self.assertEqual(str(self.service.state(42).x), "0.0")

    def test_server_owned(self) -> None:
        """A MOVE leaves what the server owns as the program has set it, alone and among many."""
        for many in (False, True):
            self.open(state=Owned, batch_min=1)
            client = self.client()
            client.join(size=400)
            self.service.change(42, hp=7, name="hurt")
            self.receive(client, struct.pack("<BIdq", 2, 1, 0.25, 3), many)
            self.assertEqual(self.service.state(42), Owned(7, 0.25, "hurt", 3), many)
            self.receive(client, struct.pack("<BIqdq", 2, 2, 100, 0.5, 1), many)
            self.assertEqual(self.service.state(42), Owned(7, 0.25, "hurt", 3), many)
            self.assertEqual((self.books.applied, self.books.malformed), (2, {"too_long": 1}))

    def test_all_server_owned(self) -> None:
        """Where the server owns all, a MOVE and a DELTA are rejected, alone and among many."""
        for many in (False, True):
            self.open(state=Puppet, batch_min=1)
            client = self.client()
            client.join(size=400)
            self.receive(client, struct.pack("<BI", 2, 1), many)
            self.receive(client, struct.pack("<BHB", 5, 1, 0), many)
            self.assertEqual(self.service.state(42), Puppet())
            self.assertEqual(self.books.rejected, {"server_owned": 2})
            self.service.update(42, Puppet(3.0))
            self.assertEqual(self.service.state(42), Puppet(3.0))

    def receive(self, client: Client, message: bytes, many: bool) -> None:
        """A message arrives alone, or in a batch of its own."""
        if many:
            self.port.receive_many([client.framed(message)], [client.address])
        else:
            client.send(message)

    def test_delta(self) -> None:
        """A DELTA is counted as one of an unknown base, and not applied."""
        self.open()
        client = self.joined()
        client.move(1, 1.0)
        client.send(delta(2, 1))
        self.assertEqual(self.service.state(42), at(1))
        self.assertEqual(self.books.rejected, {"unknown_base": 1})

    def test_while_stopping(self) -> None:
        """Invariant 10: with the service stopping, moves are refused."""
        self.open()
        client = self.joined()
        client.move(1, 1.0)
        self.service.stopService()
        client.move(2, 2.0)
        self.assertEqual(self.books.rejected, {"stopping": 1})
        self.assertEqual(self.service.table.values(0), (1.0, 0.0))

    def test_leaving_while_stopping(self) -> None:
        """A move beyond the LEAVE is one of a leaver, also with the service stopping."""
        self.open()
        client = self.joined()
        client.move(1, 1.0)
        client.leave(2)
        self.service.stopService()
        client.move(3, 3.0)
        client.move(2, 2.0)
        self.assertEqual(self.books.rejected, {"leaving": 1, "stopping": 1})

    def test_stale_delta(self) -> None:
        """A DELTA that is stale is so, whether or not its base is still known."""
        self.open()
        client = self.joined()
        client.move(7, 7.0)
        client.send(delta(7, 9))
        self.assertEqual((self.books.stale, self.books.rejected), (1, {}))

    def test_delta_beyond_the_highest(self) -> None:
        """A DELTA whose sequence would not fit into 32 bits is malformed."""
        self.open()
        client = self.joined()
        client.move(2**32 - 1, 7.0)
        client.send(delta(2**32 + 1, 2))
        self.assertEqual((self.books.malformed, self.books.rejected), ({"value": 1}, {}))

    def test_pays(self) -> None:
        """A message that can be read pays for receipts, whatever comes of it."""
        self.open()
        client = self.joined()
        client.move(7, 7.0)
        paid = run_of(self.gateway).registry.receipts.paid
        for message in (move(8, 8.0), move(7, 7.0), delta(7, 1), delta(9, 1)):
            before = paid[0]
            client.send(message)
            self.assertAlmostEqual(paid[0] - before, receipts_for(len(message)))
        self.assertEqual((self.books.applied, self.books.stale), (2, 2))
        self.assertEqual(self.books.rejected, {"unknown_base": 1})

    def test_slot_used_again(self) -> None:
        """A player in a slot that another had before gets receipts of their own alone."""
        self.open(max_players=1)
        first = self.joined(1, host=1)
        first.move(90, 1.0)
        first.leave(90)
        self.advance(0.1)
        second = self.joined(2, host=2)
        self.assertEqual(first.receipts(), [(90, 0), (90, 90)])
        self.advance(0.5)
        second.move(3, 1.0)
        self.advance(3.5)
        self.assertEqual(second.receipts(), [(3, 0), (3, 3)])
        self.assertEqual(first.heard(), [])


class CrowdTests(GatewayTestCase):
    """Enough players that their moves are taken in at once."""

    def setUp(self) -> None:
        """All of them have joined."""
        super().setUp()
        self.open(max_players=100)
        self.clients = {session_id: self.joined(session_id, session_id) for session_id in CROWD}

    def send(self, *messages: tuple[int, bytes]) -> None:
        """Messages of these players arrive together."""
        self.port.receive_many(
            [self.clients[session_id].framed(message) for session_id, message in messages],
            [self.clients[session_id].address for session_id, _ in messages],
        )

    def test_moves(self) -> None:
        """Each is applied to its player, counted, dated and saved."""
        calls: list[int] = []
        many = self.service.table.apply_many

        def apply_many(slots: Any, *arguments: Any) -> Any:
            calls.append(len(slots))
            return many(slots, *arguments)

        self.patch(self.service.table, "apply_many", apply_many)
        self.stepped.reactor.advance(1.0)
        self.send(*((i, move(3, float(i), -float(i))) for i in CROWD))
        self.assertEqual(calls, [len(CROWD)])
        for session_id in CROWD:
            self.assertEqual(self.service.state(session_id), at(session_id, -session_id))
            self.assertEqual(self.service.progress(session_id).applied, 3)
        self.assertEqual((self.books.received, self.books.applied), (len(CROWD), len(CROWD)))
        self.assertEqual(self.books.superseded, 0)
        self.send(*((i, move(4, 0.0)) for i in CROWD))
        self.assertEqual(self.books.superseded, len(CROWD))
        self.advance(6.0)
        stored = self.stepped.store.players
        self.assertEqual({stored[i].updated_at for i in CROWD}, {1_700_000_001_000_002})

    def test_few(self) -> None:
        """Few are taken in one by one."""
        self.patch(self.service.table, "apply_many", None)
        self.send(*((i, move(1, 1.0)) for i in CROWD[: BATCH_MIN - 1]))
        self.assertEqual(self.books.applied, BATCH_MIN - 1)

    def test_guarded(self) -> None:
        """Between two looks at the table's file no more are taken in by themselves than a few."""
        looks: list[int] = []
        run = run_of(self.gateway)
        received = run._received
        self.patch(self.service.run, "guard", lambda: looks.append(0))

        def counted(*message: object) -> None:
            looks[-1] += 1
            received(*message)  # type: ignore[arg-type]

        self.patch(run, "_received", counted)
        # Those at every 16th place are applied together: no such number is among the others.
        messages = []
        for session_id in CROWD[:LOOK_EVERY]:
            messages += [
                (session_id, move(1, 1.0)),
                *[(CROWD[LOOK_EVERY], b"\x77")] * (LOOK_EVERY - 1),
            ]
        self.send(*messages)
        self.assertEqual(self.books.applied, LOOK_EVERY)
        self.assertEqual(self.books.malformed, {"unknown_type": LOOK_EVERY * (LOOK_EVERY - 1)})
        self.assertEqual(sum(looks), LOOK_EVERY * (LOOK_EVERY - 1))
        self.assertEqual(max(looks), LOOK_EVERY)

    def test_odd_ones(self) -> None:
        """Among many good ones, each that is not gets what it would get by itself."""
        self.send(*((i, move(5, 1.0)) for i in CROWD))
        self.clients[50] = self.client(50)
        self.clients[4].address = ("192.0.2.99", 99)
        odd = [
            (1, move(5, 2.0)),
            (2, move(6, math.nan)),
            (3, move(6, 2.0)[:-1]),
            (4, move(6, 2.0)),
            (50, move(6, 2.0)),
            (5, b"\x77"),
        ]
        self.send(*odd, *((i, move(6, 3.0)) for i in CROWD[5:]))
        self.assertEqual(self.books.stale, 1)
        self.assertEqual(self.books.malformed, {"value": 1, "too_short": 1, "unknown_type": 1})
        self.assertEqual(self.books.rejected, {"other_address": 1, "not_joined": 1})
        self.assertEqual(self.books.received, 2 * len(CROWD) + 1)
        for session_id in CROWD:
            moved = session_id > 5
            self.assertEqual(self.service.state(session_id), at(3.0 if moved else 1.0))

    def test_order(self) -> None:
        """What one player said is taken in as it came."""
        rest = [(i, move(1, 1.0)) for i in CROWD[3:]]
        self.send(
            (1, move(1, 1.0)),
            *((2, numbered(3, 0)), (2, move(1, 1.0))),
            *((3, move(1, 1.0)), (3, move(2, 2.0)), (3, numbered(4, 2))),
            *rest,
            *((1, move(2, 2.0)), (1, move(3, 3.0))),
        )
        self.assertEqual(self.service.state(1), at(3.0))
        self.assertEqual(self.clients[2].receipts(), [(0, 0)] * 2)
        self.assertEqual(self.books.rejected, {"not_joined": 1})
        self.assertEqual(self.service.state(3), at(2.0))

    def test_taken_offline(self) -> None:
        """Those whom the program took offline move no more, though it brought one back."""
        for session_id in (1, 2, 3):
            self.service.leave(session_id)
        self.service.join(1)
        for session_id in (1, 2, 3):
            self.assertEqual(self.clients[session_id].heard(), [("gone", 1, 1)])
        self.send(*((i, move(1, 1.0)) for i in CROWD))
        self.assertEqual(self.books.rejected, {"not_joined": 3})
        self.assertEqual(self.books.applied, len(CROWD) - 3)
        self.assertEqual(self.service.state(1), at(350, 200))

    def test_while_stopping(self) -> None:
        """From the first moment of stopping none is applied, each is counted as refused."""
        self.service.stopService()
        self.send(*((i, move(1, 1.0)) for i in CROWD))
        self.assertEqual(self.books.rejected, {"stopping": len(CROWD)})
        self.assertEqual((self.books.received, self.books.applied), (len(CROWD), 0))
        self.successResultOf(self.stepped.stop())

    def test_of_leavers(self) -> None:
        """Who has left, and is not saved yet, is moved up to the number of the LEAVE only."""
        self.send(*((i, move(1, 1.0)) for i in CROWD))
        for session_id in (1, 2, 3):
            self.clients[session_id].leave(2)
        self.send(*((i, move(2 if i == 1 else 3, 2.0)) for i in CROWD))
        applied = [self.service.progress(session_id).applied for session_id in (1, 2, 3, 4)]
        self.assertEqual(applied, [2, 1, 1, 3])
        self.assertEqual(self.books.rejected, {"leaving": 2})

    def test_of_another_conversation(self) -> None:
        """Those of a conversation that is over do nothing to the present one."""
        for session_id in (1, 2):
            self.clients[session_id].nonce = 77
        self.send(*((i, move(1, 1.0)) for i in CROWD))
        self.assertEqual(self.books.rejected, {"other_conversation": 2})
        self.assertEqual(self.books.applied, len(CROWD) - 2)

    def test_bug(self) -> None:
        """One message's bug keeps nobody from taking in the others; it is logged once a minute."""
        self.patch(run_of(self.gateway).intake._codec, "decode_move", lambda data, where: 1 / 0)
        self.send(*((i, move(1, 1.0)) for i in CROWD), (1, move(2, 2.0)), (2, numbered(4, 1)))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.books.applied, len(CROWD) - 1)
        self.advance(0.2)
        self.assertEqual(self.clients[2].receipts(), [(0, 0)])

    def test_bug_in_what_is_done_at_once(self) -> None:
        """If that fails, each message is taken in by itself."""

        def fail(*arguments: Any) -> None:
            raise ZeroDivisionError

        self.patch(self.service.table, "apply_many", fail)
        self.send(*((i, move(1, 1.0)) for i in CROWD))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual((self.books.received, self.books.applied), (len(CROWD), len(CROWD)))

    def test_kept_awake(self) -> None:
        """Whoever moves in a crowd is not idle."""
        for number in range(1, 5):
            self.advance(10.0)
            self.send(*((i, move(number, 1.0)) for i in CROWD[1:]))
        self.assertNotIn(1, self.service.table.slots)
        self.assertEqual(len(self.service.table), len(CROWD) - 1)


def move(sequence: int, x: float, y: float = 0.0) -> bytes:
    """A MOVE."""
    return struct.pack("<BIdd", 0x02, sequence, x, y)


def delta(sequence: int, back: int) -> bytes:
    """A DELTA of whole values, whose base lies so many sequences back."""
    return struct.pack("<BHBdd", 0x05, sequence & 0xFFFF, sequence - back & 0xFF, 9.0, 9.0)


def numbered(kind: int, sequence: int) -> bytes:
    """A LEAVE or a PING."""
    return struct.pack("<BI", kind, sequence).ljust(36 if kind == 3 else 9, b"\0")


JOIN_SIZE = 400
"""Bytes of a JOIN that pays for the answers of each state class."""
UNLIKE = ("transport", "waits_for")
"""What two conversations of two servers do not share."""

ids = st.integers(1, 6)
sequences = st.one_of(st.integers(0, 12), st.sampled_from((2**32 - 2, 2**32 - 1)))


@st.composite
def messages(draw: st.DrawFn, state: type) -> tuple[int, int, int, bytes]:
    """A player, where the message comes from, of which conversation, and it: mostly a MOVE."""
    packer = {PlayerState: "dd", Bounded: "dq", Owned: "dq", Everything: "dqB16sd"}[state]
    kind = draw(st.sampled_from((0x02,) * 16 + (0x01, 0x03, 0x04, 0x05, 0x66)))
    number = draw(sequences)
    special = st.sampled_from((0.0, -0.0, 1.0, -1.0, 7.5, math.inf, math.nan))
    values = {
        "d": special,
        "q": st.integers(0, 4),
        "B": st.integers(0, 2),
        "16s": st.sampled_from((b"wood", b"\xff", b"a\0b", b"")),
    }
    kinds = ["d", "q", "B", "16s", "d"] if state is Everything else list(packer)
    fields = struct.pack("<" + packer, *(draw(values[kind]) for kind in kinds))
    if kind == 0x01:
        message = struct.pack(
            "<BBIIIQ", 1, 1, 0, draw(st.integers(1, 3)), number, draw(st.integers(0, 9))
        ).ljust(JOIN_SIZE, b"\0")
    elif kind == 0x02:
        message = struct.pack("<BI", 2, number) + fields
    elif kind == 0x05:
        message = struct.pack("<BHB", 5, number & 0xFFFF, draw(st.integers(0, 12))) + fields
    else:
        message = numbered(kind, number)
    if draw(st.integers(0, 30)) == 0:
        message = message[:-1]
    few = st.sampled_from((1, 1, 1, 1, 2))
    return draw(ids), draw(few), draw(few), message


@attrs.frozen
class Scenario:
    """A state class, how many are many, the judges by name, and what happens."""

    state: type
    many: int
    judges: tuple[str, ...]
    acts: list[tuple[str, Any]]


def picky(before: Any, after: Any) -> Any:
    """Rejects what stands still, and fails for some places."""
    if (after["x"] == -1.0).any():
        raise ZeroDivisionError
    return after["x"] != before["x"]


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    """What may happen to a server."""
    state = draw(st.sampled_from((PlayerState, Bounded, Owned, Everything)))
    acts = st.one_of(
        st.tuples(st.just("together"), st.lists(messages(state), min_size=1, max_size=12)),
        st.tuples(st.just("together"), st.lists(messages(state), min_size=1, max_size=12)),
        st.tuples(st.sampled_from(("join", "update", "leave", "kick")), ids),
        st.tuples(st.just("advance"), st.sampled_from((0.0, 0.02, 0.3, 2.0))),
        st.tuples(st.just("save"), st.none()),
        st.tuples(st.just("seen"), ids),
    )
    return Scenario(
        state,
        draw(st.integers(1, 4)),
        draw(st.sampled_from(((), (), ("picky",), ("speed",), ("picky", "speed")))),
        draw(st.lists(acts, min_size=1, max_size=25)),
    )


class World:
    """A server that gets what comes together either so, or one by one."""

    def __init__(self, scenario: Scenario, together: bool) -> None:
        self.together = together
        self.stepped = SteppedService(scenario.state, max_players=5, save_within=1.0)
        self.service = self.stepped.service
        made = {"picky": Asked("picky", picky), "speed": SpeedLimit("x", per_second=5, slack=2)}
        judges = [made[name] for name in scenario.judges]
        self.gateway = Gateway(self.service, idle_timeout=3.0, judges=judges, jitter=lambda: 0.0)
        self.gateway._draw_secret = itertools.count(1).__next__
        self.gateway._batch_min = scenario.many
        self.plain = PlainService(self.gateway, 7777, reactor=self.stepped.reactor)
        self.plain.startService()
        self.port = self.stepped.reactor.ports[7777]
        for session_id in range(1, 5):
            Client(self.port, session_id, address(session_id, 1)).join(size=JOIN_SIZE)

    def do(self, act: str, what: Any) -> None:
        """Let something happen."""
        service, outcome = self.service, None
        if act == "together":
            self.receive(what)
        elif act == "update":
            state = service.schema.state(service.schema.spawn)
            if isinstance(state, Owned):
                state = attrs.evolve(state, hp=what, name="hurt")
            with contextlib.suppress(NotOnline):
                service.update(what, state)
        elif act == "advance":
            self.stepped.reactor.advance(what)
        elif act == "seen":
            self.see(what)
        elif act == "save":
            self.stepped.settle()
        elif act == "join":
            outcome = service.join(what, sequence=what if what % 2 else None)
        else:
            outcome = (service.leave if act == "leave" else self.gateway.kick)(what)
        if outcome is not None:
            outcome.addErrback(lambda failure: None)

    def see(self, session_id: int) -> None:
        """A SEEN of the last STATE that was sent to this player, if there was one."""
        run = run_of(self.gateway)
        conversation = run.registry.current.get(session_id)
        if conversation is not None and conversation._told:
            number, sequence = (
                conversation._told[-1],
                self.service.table.sequence(conversation.slot),
            )
            seen = run._codec.encode_seen(number, sequence)
            datagram = struct.pack("<QI", session_id, conversation.nonce) + seen
            self.port.receive(datagram, conversation.peer)

    def receive(self, what: list[tuple[int, int, int, bytes]]) -> None:
        """These messages arrive."""
        datagrams = [
            struct.pack("<QI", session_id, nonce) + message
            for session_id, _, nonce, message in what
        ]
        addresses = [address(session_id, host) for session_id, host, _, _ in what]
        if self.together:
            self.port.receive_many(datagrams, addresses)
        else:
            for datagram, sender in zip(datagrams, addresses, strict=True):
                self.port.receive(datagram, sender)

    def look(self) -> dict[str, Any]:
        """All there is to see."""
        service, table = self.service, self.service.table
        answers: dict[Address, list[bytes]] = {}
        for datagram, whither in self.port.take():
            answers.setdefault(whither, []).append(datagram)
        return {
            "answers": answers,
            "books": service.ledger.snapshot(),
            "dirty": [table.is_dirty(slot) for slot in table.slots.values()],
            "oldest": table.oldest_dirty(),
            "players": {
                session_id: (slot, table._head(slot), table.values(slot), int(table.saved[slot]))
                for session_id, slot in table.slots.items()
            },
            "heard": run_of(self.gateway).silence.last_heard.tolist(),
            "talks": {
                session_id: attrs.astuple(talk, filter=lambda a, _: a.name not in UNLIKE)
                for session_id, talk in run_of(self.gateway).registry.current.items()
            },
        }

    def end(self) -> None:
        """Stop it."""
        self.plain.stopService()
        self.stepped.stop()


def address(session_id: int, host: int) -> Address:
    """Where a player is, or somebody else."""
    return (f"192.0.2.{host}", 1000 + session_id)


class LawTests(ServiceTestCase):
    """Two servers, told the same, the one in batches."""

    @settings(LAW, max_examples=400)
    @given(scenario=scenarios())
    def test_same(self, scenario: Scenario) -> None:
        """Whether messages come together or one by one, nobody can tell the difference."""
        worlds = [World(scenario, together) for together in (False, True)]
        try:
            for act in scenario.acts:
                for world in worlds:
                    world.do(*act)
                apart, together = (world.look() for world in worlds)
                self.assertEqual(apart, together)
        finally:
            self.flushLoggedErrors(ZeroDivisionError)
            for world in worlds:
                world.end()
