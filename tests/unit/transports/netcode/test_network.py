"""Netcode on a bad network and under attack: loss, replays, theft, restarts, noise."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from playerstate.transports.netcode.client import Client, State
from playerstate.transports.netcode.connections import Source
from playerstate.transports.netcode.packets import PAYLOAD, TO_CLIENT, TO_SERVER, read_header
from tests.kit.netcode import (
    ADDRESS,
    MANY,
    TICK,
    Link,
    Player,
    Table,
    make_token,
    request_of,
    source,
)
from tests.kit.support import LAW
from tests.proof.fuzz import Scenario
from tests.proof.fuzz_netcode import Play, play


def token_at(table: Table, client_id: int = 42, seed: int = 0, **token: Any) -> Any:
    """A token that was issued just now."""
    return make_token(client_id, created_at=int(table.wall_clock()), seed=seed, **token)


class World:
    """A server and players, with a bad network between them; every datagram is recorded.

    Attributes:
        table: the server.
        clients: by source.
        heard: the payloads that each client heard.
        to_server, to_clients: every datagram sent, with its source or the source it goes to.
    """

    def __init__(self, seed: int, players: int, loss: float = 0.2) -> None:
        draw = random.Random(seed)
        self.table = Table(slots=players, source_rate=MANY)
        self.table.now = 40.0
        self.up = Link(draw, self.arrive, loss)
        self.down = Link(draw, self.come_back, loss)
        self.clients: dict[Source, Client] = {}
        self.heard: dict[Source, list[bytes]] = {}
        self.to_server: list[tuple[bytes, Source]] = []
        self.to_clients: list[tuple[bytes, Source]] = []
        for number in range(1, players + 1):
            token = token_at(self.table, number, addresses=(ADDRESS,) * 3)
            self.clients[source(number)] = Client(token.pack(), self.table.now)
            self.heard[source(number)] = []

    def arrive(self, datagram: bytes, whence: Source) -> None:
        """At the server."""
        self.table.take_in(datagram, whence)

    def come_back(self, datagram: bytes, whither: Source) -> None:
        """At a client."""
        client = self.clients[whither]
        payload = client.receive(datagram, client.server, self.table.now)
        if payload is not None:
            self.heard[whither].append(payload)

    def say(self, datagram: bytes | None, whence: Source) -> None:
        """A client sends."""
        if datagram is not None:
            self.to_server.append((datagram, whence))
            self.up.send(self.table.now, datagram, whence)

    def turn(self) -> None:
        """One tick of the server and of each client."""
        table = self.table
        table.now += TICK
        self.up.deliver(table.now)
        table.tick()
        while table.sent:
            datagram, whither = table.sent.popleft()
            self.to_clients.append((datagram, whither))
            self.down.send(table.now, datagram, whither)
        self.down.deliver(table.now)
        for whence, client in self.clients.items():
            self.say(client.due(table.now), whence)

    def play(self, seconds: float, *, talk: bool = True) -> Iterator[None]:
        """Let time pass; in each tick, connected clients and the server send a payload."""
        for number in range(round(seconds / TICK)):
            self.turn()
            if talk:
                for whence, client in self.clients.items():
                    if client.state == State.CONNECTED:
                        self.say(client.send(b"up %d" % number, self.table.now), whence)
                for connection in self.table.server.connections:
                    self.table.send(connection, b"down %d" % number)
            yield


class LossTests(SynchronousTestCase):
    """A network that loses a fifth both ways, doubles, delays and reorders."""

    def test_all_connect(self) -> None:
        """All clients connect and stay connected; most payloads arrive, none twice."""
        for seed in range(3):
            world = World(seed, players=8)
            for _ in world.play(8.0):
                pass
            self.assertEqual({client.state for client in world.clients.values()}, {State.CONNECTED})
            for whence, heard in world.heard.items():
                self.assertGreater(len(heard), 120)
                self.assertEqual(len(set(heard)), len(heard))
                number = world.clients[whence].slot
                self.assertLess(number, 8)
            received = Counter(e[1:] for e in world.table.events if e[0] == "received")
            self.assertGreater(len(received), 8 * 120)
            self.assertEqual(set(received.values()), {1})

    def test_no_number_twice(self) -> None:
        """No key ever seals two packets under one number, through losses and disconnects."""
        world = World(7, players=6)
        for _ in world.play(4.0):
            pass
        table = world.table
        for connection in table.server.connections[:3]:
            table.disconnect(connection)
        for _ in world.play(2.0):
            pass
        for datagrams, allowed in ((world.to_clients, TO_CLIENT), (world.to_server, TO_SERVER)):
            numbers: dict[tuple[Source, int], bytes] = {}
            for datagram, where in datagrams:
                if datagram[0]:
                    _, sequence, _ = read_header(datagram, allowed)
                    self.assertEqual(numbers.setdefault((where, sequence), datagram), datagram)

    def test_leaving(self) -> None:
        """One of ten disconnect packets arrives, even here."""
        world = World(3, players=8)
        for _ in world.play(3.0, talk=False):
            pass
        for whence, client in world.clients.items():
            for datagram in client.disconnect(world.table.now):
                world.say(datagram, whence)
        for _ in world.play(1.0, talk=False):
            pass
        self.assertEqual(world.table.server.connections, [])
        self.assertEqual(world.table.server.tally.disconnected, 8)
        self.assertEqual(world.table.server.tally.timed_out, 0)

    def test_cut_off(self) -> None:
        """When no datagram arrives any more, both ends time out after the token's timeout."""
        world = World(4, players=4, loss=0.0)
        for _ in world.play(2.0):
            pass
        world.up._loss = world.down._loss = 1.0
        for _ in world.play(6.0):
            pass
        states = {client.state for client in world.clients.values()}
        self.assertEqual(states, {State.CONNECTION_TIMED_OUT})
        self.assertEqual(world.table.server.tally.timed_out, 4)


class AttackTests(SynchronousTestCase):
    """What attackers can do with recorded datagrams."""

    def setUp(self) -> None:
        """A server that has run for a while."""
        self.table = Table(source_rate=MANY)
        self.table.now = 40.0

    def recorded(self) -> Player:
        """A player whose whole conversation was recorded, and who has left."""
        player = self.table.connected()
        for number in range(20):
            player.send(b"move %d" % number)
            player.pass_time(TICK)
        for datagram in player.client.disconnect(self.table.now):
            player.say(datagram)
        self.assertEqual(self.table.server.connections, [])
        return player

    def replay(self, log: list[bytes], whence: Source) -> None:
        """Send it all again: there is no answer, no event and no change."""
        state = self.table.state
        events = len(self.table.events)
        for datagram in log:
            self.assertEqual(self.table.receive(datagram, whence), [])
        self.assertEqual(self.table.state, state)
        self.assertEqual(len(self.table.events), events)

    def test_replayed_conversation(self) -> None:
        """Replays of a past conversation are ignored, from its own address or another."""
        player = self.recorded()
        for whence in (player.source, source(1, 5001), source(2)):
            self.replay(player.log, whence)
        self.assertEqual(self.table.server.tally.ignored.keys(), {"token_consumed", "no_key"})

    def test_replayed_into_a_connection(self) -> None:
        """So are replays while the player is connected."""
        player = self.table.connected()
        for number in range(20):
            player.send(b"move %d" % number)
        for whence in (player.source, source(1, 5001), source(2)):
            self.replay(player.log, whence)

    def test_replayed_into_the_next_connection(self) -> None:
        """Replays of one connection are ignored on the next, which has other keys."""
        log = self.recorded().log
        again = self.table.connected(42, 1, seed=1)
        self.assertEqual(again.source, source(1))
        self.replay(log, again.source)

    def test_replayed_after_a_restart(self) -> None:
        """A restarted server ignores all datagrams from before, from its first moment on."""
        player = self.recorded()
        ended = self.table.now
        for half_seconds in range(70):
            self.table.now = ended + half_seconds / 2
            self.table.start(seed=half_seconds)
            self.replay(player.log, player.source)
        self.table.now = ended
        self.table.start(seed=100)
        reasons = set()
        for _ in range(400):
            reasons.add(self.table.why(player.log[0], player.source))
            self.table.pass_time(0.1)
        self.assertEqual(reasons, {"issued_before_start", "expired"})

    def test_stolen_before_use(self) -> None:
        """A thief whose copy of a request is first binds the token, and can do no more."""
        token = token_at(self.table)
        thief = source(66)
        [challenge] = self.table.receive(request_of(token), thief)
        owner = self.table.player(token)
        state = self.table.state
        for _ in range(10):
            self.assertEqual(
                self.table.why(request_of(token), owner.source), "token_pending_elsewhere"
            )
        self.assertEqual(self.table.state, state)
        for guess in (challenge, b"\x13" + challenge[1:], b"\x83" + challenge[1:]):
            self.assertEqual(self.table.receive(guess, thief), [])
        self.assertEqual(self.table.events, [])
        # The owner asks the login service for another.
        self.table.player(token_at(self.table, seed=1), owner.source).connect()
        self.assertEqual(self.table.events, [("connected", 42)])

    def test_stolen_after_use(self) -> None:
        """A later copy is ignored, whether its owner is challenged, connected, or gone."""
        token = token_at(self.table)
        owner = self.table.player(token)
        owner.turn()
        request = request_of(token)
        self.assertEqual(self.table.why(request, source(66)), "token_pending_elsewhere")
        owner.pass_time(0.25)
        self.assertEqual(self.table.why(request, source(66)), "client_id_connected")
        owner.say(owner.client.disconnect(self.table.now)[0])
        self.assertEqual(self.table.why(request, source(66)), "token_consumed")

    def test_forged_sender(self) -> None:
        """Forged datagrams from a player's own address change nothing."""
        player = self.table.connected()
        draw = random.Random(1)
        state = self.table.state
        for _ in range(300):
            kind = draw.randrange(16)
            noise = bytes((draw.randrange(16) << 4 | kind,)) + draw.randbytes(draw.randrange(400))
            self.assertEqual(self.table.receive(noise, player.source), [])
        self.assertEqual(self.table.state, state)
        player.send(b"still here")
        self.assertEqual(self.table.events[-1], ("received", 42, b"still here"))

    def test_reflected(self) -> None:
        """The server's own packets do not open when they are sent back to it."""
        player = self.table.connected()
        player.connection.sequence = 1000
        self.table.send(player.connection, b"x")
        for datagram, _ in list(self.table.sent):
            self.assertEqual(self.table.why(datagram, player.source), "open_failed")


good = Table()
good.now = 40.0
requests = [request_of(token_at(good, client_id)) for client_id in (1, 2, 3)]
hosts = st.sampled_from([source(1), source(2), source(3), ("2001:db8::1", 7, "port")])
cuts = st.tuples(st.sampled_from(requests), st.integers(0, 1078), st.binary(max_size=4))
datagrams = st.one_of(
    st.binary(max_size=60),
    st.builds(
        lambda prefix, rest: bytes((prefix,)) + rest,
        st.integers(0, 255),
        st.binary(max_size=400),
    ),
    st.binary(min_size=1200, max_size=1400),
    cuts.map(lambda cut: cut[0][: cut[1]] + cut[2] + cut[0][cut[1] + len(cut[2]) :]),
    st.sampled_from(requests),
)
byte = st.integers(0, 255)
acts = st.one_of(
    st.tuples(st.just(0), byte).map(bytes),
    st.builds(
        lambda noise, whence: bytes((1, len(noise), *noise, whence)), st.binary(max_size=60), byte
    ),
    st.builds(
        lambda who, at, change, whence: bytes((2, who, at, len(change), *change, whence)),
        *(byte, byte, st.binary(max_size=3), byte),
    ),
    st.builds(
        lambda who, kind, body, number, whence: bytes(
            (3, who, kind, len(body), *body, number, whence)
        ),
        *(byte, st.integers(0, 15), st.binary(max_size=40), byte, byte),
    ),
    *[st.tuples(st.just(act), byte).map(bytes) for act in (4, 4, 4, 6, 7, 8)],
    st.tuples(st.just(5), byte, st.just(1), byte, byte).map(bytes),
)


class NoiseTests(SynchronousTestCase):
    """Any bytes, from any source."""

    @settings(LAW, max_examples=300)
    @given(scenario=st.lists(st.tuples(datagrams, hosts), max_size=20))
    def test_noise(self, scenario: list[tuple[bytes, Source]]) -> None:
        """Only valid requests are answered, by fewer bytes; all else changes nothing.

        A connected and a half-open client are at addresses that the noise comes from.
        """
        table = Table()
        table.now = 40.0
        table.connected(3, 3)
        table.player(token_at(table, 2, seed=9), source(2)).turn()
        for datagram, whence in scenario:
            state = table.state
            ignored = table.server.tally.ignored.total()
            answers = table.receive(datagram, whence)
            if answers:
                self.assertIn(datagram, requests)
                self.assertEqual([len(answer) for answer in answers], [333])
            else:
                self.assertEqual(table.state, state)
                self.assertEqual(table.server.tally.ignored.total(), ignored + 1)
        self.assertEqual(table.events, [("connected", 3)])

    @settings(LAW, max_examples=300)
    @given(scenario=st.lists(acts, max_size=60).map(b"".join))
    def test_scenarios(self, scenario: bytes) -> None:
        """So it is in longer scenarios, with clients that connect and disconnect."""
        play(scenario)

    def test_scenarios_connect(self) -> None:
        """A scenario can connect a client, let it send, and disconnect it."""
        scene = Play()
        turn, pause, talk, leave = b"\4\0", b"\0\2", b"\5\0\1\x41\x42", b"\6\x80"
        scene.live(Scenario(turn + pause + turn + talk + leave))
        tally = scene.table.server.tally
        self.assertEqual((tally.connected, tally.disconnected), (1, 1))
        self.assertIn("received", {event[0] for event in scene.table.events})

    def test_scenarios_replace_and_move(self) -> None:
        """A scenario can replace a connection, and move one to another port."""
        scene = Play()
        turn, pause, second, talk = b"\4\0", b"\0\2", b"\0\3", b"\5\0\1\x41\x42"
        scene.live(Scenario(turn + pause + turn + talk + second + b"\6\x04" + turn + pause + turn))
        self.assertEqual(scene.table.server.tally.replaced, 1)
        scene = Play()
        scene.live(Scenario(turn + pause + turn + 6 * second + b"\x08\x10" + talk))
        self.assertEqual(scene.table.server.tally.moved, 1)

    @settings(LAW, max_examples=200)
    @given(scenario=st.lists(st.tuples(st.binary(max_size=400), st.booleans()), max_size=10))
    def test_client(self, scenario: list[tuple[bytes, bool]]) -> None:
        """Noise does not change a client either, from its server's address or another."""
        table = Table()
        table.now = 40.0
        player = table.connected()
        client = player.client
        state = (client.state, client.heard_at, client._sequence, client._window.newest)
        for datagram, from_server in scenario:
            whence = client.server if from_server else ("192.0.2.66", 1)
            self.assertIsNone(client.receive(datagram, whence, table.now))
        self.assertEqual(
            (client.state, client.heard_at, client._sequence, client._window.newest), state
        )

    def test_no_answer_is_larger(self) -> None:
        """During a whole connection, no datagram is answered by more bytes than it has.

        Clients that returned a challenge are the exception.
        """
        table = Table(slots=1)
        table.now = 40.0
        for client_id in (1, 2):
            player = table.player(token_at(table, client_id), source(client_id))
            for _ in range(20):
                table.pass_time(TICK)
                while table.sent:
                    datagram, _ = table.sent.popleft()
                    player.client.receive(datagram, player.client.server, table.now)
                datagram = player.client.due(table.now) or b""
                answers = table.receive(datagram, player.source)
                self.assertLessEqual(sum(map(len, answers)), len(datagram))
                for answer in answers:
                    player.client.receive(answer, player.client.server, table.now)
        self.assertEqual(table.events, [("connected", 1)])
        self.assertEqual(player.client.state, State.DENIED)


class PayloadTests(SynchronousTestCase):
    """Payloads through the whole core."""

    @settings(LAW, max_examples=50)
    @given(payloads=st.lists(st.binary(min_size=1, max_size=1200), min_size=1, max_size=6))
    def test_any_bytes(self, payloads: list[bytes]) -> None:
        """Any payload arrives as it was sent, in both directions."""
        table = Table()
        table.now = 40.0
        player = table.connected()
        for payload in payloads:
            datagram = player.send(payload)
            self.assertEqual(read_header(datagram, TO_SERVER)[0], PAYLOAD)
            table.send(player.connection, payload)
        player.hear()
        received = [event[2] for event in table.events if event[0] == "received"]
        self.assertEqual((received, player.heard), (payloads, payloads))
