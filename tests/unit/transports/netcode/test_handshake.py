"""How clients get in: challenges, responses, and connections that are replaced."""

from __future__ import annotations

import struct

from playerstate.transports.netcode.client import State
from playerstate.transports.netcode.history import TokenHistory
from playerstate.transports.netcode.limits import Rate
from playerstate.transports.netcode.packets import (
    CHALLENGE,
    DENIED,
    DISCONNECT,
    KEEP_ALIVE,
    PAYLOAD,
    RESPONSE,
)
from tests.kit.netcode import (
    MANY,
    TICK,
    Player,
    ServerTestCase,
    Table,
    opened,
    request_of,
    source,
)


class RequestTests(ServerTestCase):
    """How a request is answered."""

    def test_challenge(self) -> None:
        """A valid request is answered by one challenge, sealed with the token's key."""
        table = self.table()
        token = self.token(table, user_data=b"hello")
        [answer] = table.receive(request_of(token))
        self.assertEqual(len(answer), 333)
        kind, sequence, body = opened(answer, token)
        self.assertEqual((kind, sequence, len(body)), (CHALLENGE, 2**63, 308))
        self.assertEqual(body[:8], bytes(8))
        self.assertEqual(table.server.half_open, 1)
        self.assertEqual(table.server.connections, [])
        self.assertEqual(table.events, [])

    def test_repeats(self) -> None:
        """Each repeat is answered by a challenge of its own, and nothing is counted twice."""
        table = self.table()
        token = self.token(table)
        numbers = []
        for _ in range(3):
            [answer] = table.receive(request_of(token))
            _, sequence, body = opened(answer, token)
            numbers.append((sequence - 2**63, struct.unpack_from("<Q", body)[0]))
        self.assertEqual(numbers, [(0, 0), (1, 1), (2, 2)])
        self.assertEqual(table.server.half_open, 1)

    def test_source_is_connected(self) -> None:
        """A request from an active client's address is ignored, unsealed and uncharged."""
        table = self.table(source_rate=Rate(0.01, 1))
        player = table.connected()
        for _ in range(3):
            self.assertEqual(table.why(player.log[0], player.source), "address_connected")
        other = request_of(self.token(table, 43))
        self.assertEqual(table.why(other, player.source), "address_connected")
        forged = other[:-1] + b"\0"
        self.assertEqual(table.why(forged, player.source), "address_connected")

    def test_client_is_connected(self) -> None:
        """A client that has just connected cannot connect again, with any token."""
        table = self.table()
        player = table.connected(42, 1)
        again = self.token(table, 42, seed=1)
        self.assertEqual(table.why(request_of(again), source(2)), "client_id_connected")
        player.say(player.client.disconnect(table.now)[0])
        self.assertEqual(len(table.receive(request_of(again), source(2))), 1)

    def test_denied(self) -> None:
        """Without a free slot the answer is a denial; the token stays known."""
        table = self.table(slots=1)
        table.connected(1, 1)
        token = self.token(table, 42)
        for number in (1, 2):
            [answer] = table.receive(request_of(token), source(2))
            self.assertEqual(len(answer), 25)
            self.assertEqual(opened(answer, token), (DENIED, 2**63 + number, b""))
        self.assertEqual(table.why(request_of(token), source(3)), "token_pending_elsewhere")
        self.assertEqual(table.server.half_open, 0)
        self.assertEqual(table.server.tally.denied, 2)

    def test_half_open_full(self) -> None:
        """Only so many clients may be half-open; those may repeat their requests."""
        table = self.table(slots=1, source_rate=MANY)
        requests = [request_of(self.token(table, 100 + n)) for n in range(5)]
        for n in range(4):
            self.assertEqual(len(table.receive(requests[n], source(n))), 1)
        self.assertEqual(table.why(requests[4], source(4)), "half_open_full")
        self.assertEqual(len(table.receive(requests[3], source(3))), 1)
        table.pass_time(5.0)
        self.assertEqual(len(table.receive(requests[4], source(4))), 1)

    def test_history_full(self) -> None:
        """With a full history no new token is accepted, and no used one; nothing changes."""
        table = self.table()
        table.server._handshake._history = TokenHistory(3)
        player = table.connected(1, 1)
        player.say(player.client.disconnect(table.now)[0])
        requests = [request_of(self.token(table, 100 + n)) for n in range(3)]
        for n in range(2):
            self.assertEqual(len(table.receive(requests[n], source(n))), 1)
        state = table.state
        self.assertEqual(table.why(requests[2], source(2)), "token_history_full")
        self.assertEqual(table.why(player.log[0], player.source), "token_consumed")
        self.assertEqual(table.state, state)
        table.pass_time(31.0)
        self.assertEqual(len(table.receive(request_of(self.token(table, 500)))), 1)


class ResponseTests(ServerTestCase):
    """What connects a client."""

    def test_connected(self) -> None:
        """A returned challenge takes a slot and is answered by a keep-alive."""
        table = self.table(slots=7)
        player = self.half_open(table, user_data=b"hello")
        response = player.response()
        [answer] = table.receive(response, player.source)
        self.assertEqual(opened(answer, player.token), (KEEP_ALIVE, 0, struct.pack("<II", 0, 7)))
        self.assertEqual(table.events, [("connected", 42)])
        connection = player.connection
        self.assertEqual(connection.user_data, b"hello".ljust(256, b"\0"))
        self.assertEqual((connection.heard_at, connection.timeout), (table.now, 5))
        self.assertFalse(connection.is_confirmed)
        self.assertEqual(table.server.half_open, 0)

    def test_repeated(self) -> None:
        """A repeated response is ignored: the client is connected."""
        table = self.table()
        player = table.connected()
        for _ in range(2):
            self.assertEqual(table.why(player.log[1], player.source), "address_connected")

    def test_challenge_of_another_start(self) -> None:
        """A challenge of this server before its restart does not open."""
        table = self.table()
        player = self.half_open(table)
        table.start(seed=1)
        table.now += 40.0
        fresh = table.player(self.token(table, 42, seed=2), player.source)
        fresh.turn()
        fresh.client._challenge = player.client._challenge
        response = fresh.response()
        self.assertEqual(table.why(response, fresh.source), "bad_challenge")
        self.assertEqual(table.server.half_open, 1)

    def test_other_identity(self) -> None:
        """The holder of two tokens cannot connect as the client of one under the other's keys."""
        table = self.table()
        first = self.half_open(table, 41)
        second = table.player(self.token(table, 43), first.source)
        second.turn()
        table.now += 1.0
        second.client._challenge = first.client._challenge
        mixed = second.client.due(table.now)
        assert mixed is not None
        self.assertEqual(table.why(mixed, first.source), "client_id_differs")
        self.assertEqual(table.events, [])

    def test_replaced(self) -> None:
        """Only the newest request from an address counts, with its keys."""
        table = self.table()
        first = self.half_open(table, 41)
        second = table.player(self.token(table, 43), first.source)
        second.turn()
        late = first.response()
        self.assertEqual(table.why(late, first.source), "open_failed")
        second.connect()
        self.assertEqual(table.events, [("connected", 43)])

    def test_client_came_in_elsewhere(self) -> None:
        """Of two tokens of one client, the first whose challenge is returned connects."""
        table = self.table()
        first = self.half_open(table, 42)
        second = table.player(self.token(table, 42, seed=1), source(200))
        second.connect()
        response = first.response()
        self.assertEqual(table.why(response, first.source), "client_id_connected")

    def test_denied(self) -> None:
        """If another client took the last slot in the meantime, the answer is a denial."""
        table = self.table(slots=1)
        late = self.half_open(table, 42)
        table.connected(1, 201)
        response = late.response()
        [answer] = table.receive(response, late.source)
        self.assertEqual(opened(answer, late.token)[0], DENIED)
        self.assertEqual(table.events, [("connected", 1)])

    def test_lapses(self) -> None:
        """A client that does not answer within the timeout is removed, whatever else it sends."""
        table = self.table()
        player = self.half_open(table, timeout=3)
        for _ in range(int(2.9 / TICK)):
            table.pass_time(TICK)
            table.receive(b"\x15\0" + bytes(40), player.source)
        self.assertEqual(table.server.half_open, 1)
        response = player.client._seal(RESPONSE, player.client._challenge, table.now)
        table.pass_time(0.2)
        self.assertEqual(table.server.half_open, 0)
        self.assertEqual(table.why(response, player.source), "no_key")

    def test_repeat_puts_off(self) -> None:
        """A repeat of the request starts the timeout again."""
        table = self.table()
        player = self.half_open(table, timeout=3)
        table.pass_time(2.5)
        table.receive(player.log[0], player.source)
        table.pass_time(2.5)
        self.assertEqual(table.server.half_open, 1)

    def test_other_packets(self) -> None:
        """Payloads, keep-alives and disconnects of a half-open client are ignored."""
        table = self.table()
        player = self.half_open(table)
        for kind, body in ((PAYLOAD, b"x"), (KEEP_ALIVE, bytes(8)), (DISCONNECT, b"")):
            datagram = player.client._seal(kind, body, table.now)
            self.assertEqual(table.why(datagram, player.source), "not_connected")

    def test_unknown(self) -> None:
        """Packets from an unknown source are ignored, whatever they contain."""
        table = self.table()
        for datagram in (b"\x15\0", b"\x13\0" + bytes(324), b"\xff" * 100):
            self.assertEqual(table.why(datagram, source(9)), "no_key")


class TakeOverTests(ServerTestCase):
    """A connected client connects again, with a fresh token."""

    def again(self, table: Table, seed: int = 1, number: int = 2) -> Player:
        """The player with id 42 at another source, with a fresh token."""
        return table.player(self.token(table, 42, seed=seed), source(number))

    def test_fresh_token(self) -> None:
        """A client that answers a challenge with a fresh token replaces its old connection."""
        table = self.table(slots=1)
        player = table.connected()
        connection = player.connection
        player.pass_time(1.0)
        again = self.again(table)
        again.turn()
        self.assertTrue(connection.is_open)
        again.connect()
        self.assertFalse(connection.is_open)
        self.assertEqual([c.source for c in table.server.connections], [again.source])
        self.assertEqual(table.events, [("connected", 42), ("replaced", 42), ("connected", 42)])
        player.hear()
        self.assertEqual(player.client.state, State.DISCONNECTED)
        tally = table.server.tally
        self.assertEqual((tally.connected, tally.ended, tally.replaced), (2, 1, 1))

    def test_used_token(self) -> None:
        """Requests and responses that were used before end no connection, from any source."""
        table = self.table()
        first = table.connected()
        first.pass_time(1.5)
        second = self.again(table)
        second.connect()
        second.pass_time(1.5)
        state = table.state
        for datagram in (*first.log, *second.log):
            for whence in (first.source, second.source, source(3), source(2, 5001)):
                self.assertEqual(table.receive(datagram, whence), [])
        self.assertEqual(table.state, state)
        self.assertTrue(second.connection.is_open)

    def test_stolen_request(self) -> None:
        """Without the token's keys, a copied request with a fresh token ends no connection."""
        table = self.table()
        player = table.connected()
        player.pass_time(1.0)
        [challenge] = table.receive(request_of(self.token(table, 42, seed=1)), source(66))
        for guess in (challenge, b"\x13" + challenge[1:], b"\x83" + challenge[1:]):
            self.assertEqual(table.receive(guess, source(66)), [])
        player.send(b"still here")
        self.assertEqual(table.events[-1], ("received", 42, b"still here"))

    def test_older_token(self) -> None:
        """A token first shown before that of the connection does not end it, however late."""
        table = self.table()
        late = self.again(table, seed=2, number=3)
        late.turn()
        newer = table.connected()
        newer.pass_time(2.0)
        response = late.client.due(table.now)
        assert response is not None
        self.assertEqual(table.why(response, late.source), "client_id_connected")
        self.assertEqual(table.why(late.log[0], late.source), "client_id_connected")

    def test_same_port(self) -> None:
        """A restarted client connects from the port that it had."""
        table = self.table(slots=1)
        connection = table.connected().connection
        again = self.again(table, number=1)
        self.assertEqual(table.why(request_of(again.token), again.source), "address_connected")
        table.pass_time(1.1)
        again.connect()
        self.assertFalse(connection.is_open)
        self.assertEqual(table.events[1:], [("replaced", 42), ("connected", 42)])
        again.send(b"here")
        self.assertEqual(table.events[-1], ("received", 42, b"here"))

    def test_port_of_another(self) -> None:
        """A client that has the port of a silent one connects; the silent one times out."""
        table = self.table(slots=1)
        table.connected(42).pass_time(0.5)
        table.pass_time(1.1)
        other = table.player(self.token(table, 43), source(1))
        other.connect()
        self.assertEqual(table.events[1:], [("timed out", 42), ("connected", 43)])
        self.assertEqual([c.client_id for c in table.server.connections], [43])
        self.assertEqual((table.server.tally.timed_out, table.server.tally.denied), (1, 0))
        self.assertEqual(len(table.server._roster._free_slots), 0)

    def test_speaks_after_all(self) -> None:
        """A client that sends again keeps its port, even if another was challenged there."""
        table = self.table()
        player = table.connected()
        table.pass_time(1.1)
        table.sent.clear()
        for other in (self.again(table, number=1), table.player(self.token(table, 43), source(1))):
            other.turn()
            player.send(b"still here")
            table.now += 0.5
            response = other.client.due(table.now)
            assert response is not None
            self.assertEqual(table.why(response, source(1)), "address_connected")
            self.assertTrue(player.connection.is_open)
            table.pass_time(0.75)
            table.sent.clear()

    def test_turns(self) -> None:
        """Two devices with fresh tokens replace one another at most once a second."""
        table = self.table(slots=1)
        players = [table.connected()]
        for number in range(2, 8):
            player = self.again(table, number, number)
            player.turn()
            while player.client.state != State.CONNECTED:
                player.pass_time(TICK)
            players.append(player)
            self.assertEqual(len(table.server.connections), 1)
        self.assertGreater(table.now, 40.0 + 6 * 1.0)
        self.assertLess(table.now, 40.0 + 6 * 1.5)
        self.assertEqual(table.server.tally.replaced, 6)
        self.assertEqual(len(table.server._roster._free_slots), 0)
