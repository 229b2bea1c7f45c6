"""A netcode server's connections: payloads, time-outs, disconnects, events."""

from __future__ import annotations

from playerstate.transports.netcode.client import State
from playerstate.transports.netcode.events import Connected, Replaced
from playerstate.transports.netcode.handshake import TAKE_OVER_AFTER
from playerstate.transports.netcode.limits import Rate
from playerstate.transports.netcode.packets import (
    DISCONNECT,
    KEEP_ALIVE,
    PAYLOAD,
    RESPONSE,
)
from tests.kit.netcode import (
    TICK,
    ServerTestCase,
    opened,
    source,
)


class ConnectedTests(ServerTestCase):
    """A connection, until it ends."""

    def test_payloads(self) -> None:
        """Each side receives the other's payloads, once."""
        table = self.table()
        player = table.connected()
        datagram = player.send(b"hello")
        self.assertEqual(table.events[-1], ("received", 42, b"hello"))
        self.assertEqual(table.why(datagram, player.source), "replayed")
        table.send(player.connection, b"welcome")
        player.hear()
        self.assertEqual(player.heard, [b"welcome"])

    def test_unconfirmed(self) -> None:
        """Until a client has sent a packet, each payload to it follows a keep-alive."""
        table = self.table()
        player = self.half_open(table)
        response = player.response()
        table.receive(response, player.source)
        connection = player.connection
        table.sent.clear()
        for _ in range(2):
            table.send(connection, b"x")
        kinds = [opened(datagram, player.token)[:2] for datagram, _ in table.sent]
        self.assertEqual(kinds, [(KEEP_ALIVE, 1), (PAYLOAD, 2), (KEEP_ALIVE, 3), (PAYLOAD, 4)])
        player.hear()
        player.send(b"y")
        table.send(connection, b"x")
        self.assertEqual(opened(table.sent[0][0], player.token)[0], PAYLOAD)

    def test_first_keep_alive_lost(self) -> None:
        """If the first keep-alive is lost, the next one connects the client."""
        table = self.table()
        player = self.half_open(table)
        response = player.response()
        table.receive(response, player.source)
        table.sent.clear()
        player.pass_time(0.2)
        self.assertEqual(player.client.state, State.CONNECTED)

    def test_times_out(self) -> None:
        """A client silent for its token's timeout is timed out; it is sent nothing about it."""
        table = self.table()
        player = table.connected(timeout=5)
        heard_at = player.connection.heard_at
        while table.server.connections:
            table.sent.clear()
            table.pass_time(TICK)
        self.assertAlmostEqual(table.now - heard_at, 5.0, delta=TICK)
        self.assertEqual(table.events[-1], ("timed out", 42))
        for datagram, _ in table.sent:
            self.assertEqual(opened(datagram, player.token)[0], KEEP_ALIVE)
        self.assertEqual(table.server.tally.timed_out, 1)

    def test_what_counts_as_heard(self) -> None:
        """Replays, garbage and a repeated response do not put the time-out off; keep-alives do."""
        table = self.table()
        player = table.connected(timeout=5)
        connection = player.connection
        old = player.send(b"x")
        for _ in range(4):
            table.pass_time(1.0)
            table.why(old, player.source)
            table.why(player.log[1], player.source)
            table.why(b"\x15\x09" + bytes(30), player.source)
        self.assertTrue(connection.is_open)
        table.pass_time(1.0)
        self.assertFalse(connection.is_open)

        player = table.connected(43, 2, timeout=5)
        connection = player.connection
        player.pass_time(12.0)
        self.assertTrue(connection.is_open)

    def test_wrong_length(self) -> None:
        """A sealed packet of the wrong length is ignored; its number is used up."""
        table = self.table()
        player = table.connected()
        connection = player.connection
        heard_at = connection.heard_at
        table.now += 1.0
        client = player.client
        for kind, body in (
            *((PAYLOAD, b""), (PAYLOAD, bytes(1201)), (KEEP_ALIVE, bytes(7))),
            *((DISCONNECT, b"x"), (RESPONSE, bytes(307))),
        ):
            datagram = client._seal(kind, body, table.now)
            self.assertEqual(table.why(datagram, player.source), "bad_body_size")
            again = "bad_body_size" if kind == RESPONSE else "replayed"
            self.assertEqual(table.why(datagram, player.source), again)
        self.assertEqual(connection.heard_at, heard_at)

    def test_client_disconnects(self) -> None:
        """The first of ten disconnect packets ends a connection; none of them is answered."""
        table = self.table()
        player = table.connected()
        connection = player.connection
        first, *others = player.client.disconnect(table.now)
        self.assertEqual(len(others), 9)
        self.assertEqual(table.receive(first, player.source), [])
        self.assertEqual(table.events[-1], ("disconnected", 42))
        self.assertFalse(connection.is_open)
        for datagram in others:
            self.assertEqual(table.why(datagram, player.source), "no_key")

    def test_disconnects_later(self) -> None:
        """With a delay, the disconnect packets are sent later, and nothing else in between."""
        table = self.table()
        player = table.connected()
        connection = player.connection
        table.send(connection, b"goodbye")
        table.disconnect(connection, 0.25)
        self.assertEqual((table.server.connections, table.server.is_ending), ([], True))
        player.hear()
        self.assertEqual((player.heard, player.client.state), ([b"goodbye"], State.CONNECTED))
        self.assertEqual(table.why(player.client.send(b"x", table.now), player.source), "no_key")
        table.pass_time(0.1875)
        player.hear()
        self.assertEqual(player.client.state, State.CONNECTED)
        table.pass_time(0.125)
        player.hear()
        self.assertEqual(player.client.state, State.DISCONNECTED)
        self.assertFalse(table.server.is_ending)
        self.assertEqual(table.server.tally.ended, 1)

    def test_stop(self) -> None:
        """A stop disconnects every client and removes the half-open ones."""
        table = self.table()
        players = [table.connected(n, n) for n in (1, 2)]
        self.half_open(table, 3)
        table.stop()
        for player in players:
            player.hear()
            self.assertEqual(player.client.state, State.DISCONNECTED)
        self.assertEqual((table.server.connections, table.server.half_open), ([], 0))
        self.assertEqual(table.server.tally.ended, 2)

    def test_replaced_is_told_why(self) -> None:
        """A replaced connection is sent to until it is disconnected, and not received from."""
        table = self.table()
        old = table.connected()
        connection = old.connection
        table.now += TAKE_OVER_AFTER
        new = table.player(self.token(table, 42, seed=1), source(2))
        new.turn()
        new.client._spoke_at = -1.0
        response = new.client.due(table.now)
        assert response is not None
        events = table.server.receive(response, new.source, table.now)
        self.assertEqual([type(event) for event in events], [Replaced, Connected])
        self.assertEqual(events[0].connection, connection)
        word = old.client.send(b"still?", table.now)
        self.assertEqual(table.server.receive(word, old.source, table.now), ())
        table.carry_out()
        table.sent.clear()
        table.send(connection, b"why")
        table.disconnect(connection)
        table.send(connection, b"too late")
        self.assertEqual({to for _, to in table.sent}, {old.source})
        kinds = [opened(datagram, old.token)[0] for datagram, _ in table.sent]
        self.assertEqual(kinds, [PAYLOAD] + 10 * [DISCONNECT])
        self.assertEqual(table.server.connections, [new.connection])
        self.assertEqual(table.server.tally.ended, 1)

    def test_events_outlive_a_bug(self) -> None:
        """Events before a bug in the handling of a datagram are returned by the next call."""
        table = self.table()
        old, new = table.connected(), table.player(self.token(table, 42, seed=1), source(2))
        connection = old.connection
        table.pass_time(TAKE_OVER_AFTER)
        new.turn()
        response = new.client.due(table.now + 1)
        assert response is not None
        self.patch(table.server._roster, "add", lambda *_: 1 / 0)
        with self.assertRaises(ZeroDivisionError):
            table.server.receive(response, new.source, table.now)
        self.assertEqual(table.server.receive(b"", source(3), table.now), [Replaced(connection)])

    def test_payload_rate(self) -> None:
        """A client's payloads beyond its rate are counted and dropped; it stays connected."""
        table = self.table(payload_rate=Rate(10.0, 5))
        player = table.connected()
        for n in range(8):
            player.send(bytes((n + 1,)))
        received = [event[2] for event in table.events if event[0] == "received"]
        self.assertEqual(received, [bytes((n + 1,)) for n in range(5)])
        self.assertEqual(table.server.tally.ignored, {"payload_rate": 3})
        player.pass_time(6.0)
        player.send(b"later")
        self.assertEqual(table.events[-1], ("received", 42, b"later"))
