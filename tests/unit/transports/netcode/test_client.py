"""The netcode client's states, to the standard's numbers."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from playerstate.transports.netcode.addresses import Address
from playerstate.transports.netcode.client import Client, State
from playerstate.transports.netcode.packets import (
    CHALLENGE,
    DENIED,
    KEEP_ALIVE,
    PAYLOAD,
    TO_SERVER,
    Seals,
    read_header,
)
from playerstate.transports.netcode.tokens import MalformedToken
from tests.kit.netcode import ADDRESS, EPOCH, PROTOCOL_ID, TICK, Player, Table, make_token, source

OTHERS = (Address.parse("203.0.113.8:40000"), Address.parse("[2001:db8::1]:40000"))


class ClientTestCase(SynchronousTestCase):
    """Tests of a client and a server on a table."""

    def setUp(self) -> None:
        """A server that has run for a while."""
        self.table = Table()
        self.table.now = 40.0
        self.now = 40.0

    def player(self, **token: object) -> Player:
        """A client that has sent nothing yet."""
        made = make_token(created_at=EPOCH + 40, **token)  # type: ignore[arg-type]
        return self.table.player(made)

    def pass_time(self, client: Client, seconds: float) -> list[bytes]:
        """Let time pass for a client that receives nothing; return what it sent."""
        said = []
        for _ in range(round(seconds / TICK)):
            self.now += TICK
            datagram = client.due(self.now)
            if datagram is not None:
                said.append(datagram)
        return said


class ConnectTests(ClientTestCase):
    """From the request to the connection."""

    def test_connects(self) -> None:
        """It asks, brings the challenge back at the next beat, and knows its slot then."""
        player = self.player()
        client = player.client
        self.assertEqual(client.state, State.SENDING_REQUEST)
        self.assertEqual(client.server, ("203.0.113.7", 40000))
        player.turn()
        self.assertEqual(client.state, State.SENDING_RESPONSE)
        self.assertIsNone(client.due(self.table.now))
        player.pass_time(4 * TICK)
        self.assertEqual(client.state, State.CONNECTED)
        self.assertEqual((client.slot, client.slots), (0, 4))
        self.assertEqual([len(datagram) for datagram in player.log], [1078, 326])

    def test_ten_a_second(self) -> None:
        """Requests go ten times a second, and use up numbers as all else does."""
        player = self.player()
        said = self.pass_time(player.client, 1.0)
        self.assertIn(len(said), (8, 9, 10))
        self.assertEqual(len(set(said)), 1)
        self.table.now = self.now
        player.connect()
        self.assertGreater(player.client._sequence, len(said))

    def test_not_a_token(self) -> None:
        """What is no token makes no client."""
        self.assertRaises(MalformedToken, Client, bytes(2048), 0.0)

    def test_nothing_before(self) -> None:
        """No payload can be sent before it is connected, nor one that is too short or too long."""
        player = self.player()
        self.assertRaises(ValueError, player.client.send, b"x", self.now)
        player.connect()
        for payload in (b"", bytes(1201)):
            self.assertRaises(ValueError, player.client.send, payload, self.now)
        player.send(bytes(1200))

    def test_only_its_server(self) -> None:
        """Datagrams of other senders are ignored, and kinds that are not for a client."""
        player = self.player()
        player.turn()
        client = player.client
        token = player.token
        seals = Seals(PROTOCOL_ID)
        denied = seals.seal(client._opener, DENIED, 2**63 + 9)
        client.receive(denied, ("203.0.113.7", 40001), self.now)
        client.receive(seals.seal(client._opener, 3, 5, bytes(308)), client.server, self.now)
        client.receive(b"", client.server, self.now)
        client.receive(b"\0" * 1078, client.server, self.now)
        self.assertEqual(client.state, State.SENDING_RESPONSE)
        self.assertEqual(token.addresses, (ADDRESS,))
        client.receive(denied, client.server, self.now)
        self.assertEqual(client.state, State.DENIED)

    def test_out_of_turn(self) -> None:
        """A payload before the keep-alive is discarded; a second challenge changes nothing."""
        player = self.player()
        player.turn()
        client = player.client
        seals = Seals(PROTOCOL_ID)
        payload = seals.seal(client._opener, PAYLOAD, 0, b"x")
        self.assertIsNone(client.receive(payload, client.server, self.now))
        kept = client._challenge
        other = seals.seal(client._opener, CHALLENGE, 2**63 + 5, bytes(308))
        client.receive(other, client.server, self.now)
        self.assertEqual(client._challenge, kept)


class EndTests(ClientTestCase):
    """How it ends."""

    def test_request_times_out(self) -> None:
        """A server that never answers is given up after the timeout."""
        client = self.player(timeout=5).client
        self.pass_time(client, 4.9)
        self.assertEqual(client.state, State.SENDING_REQUEST)
        self.pass_time(client, 0.2)
        self.assertEqual(client.state, State.REQUEST_TIMED_OUT)
        self.assertEqual(self.pass_time(client, 1.0), [])

    def test_response_times_out(self) -> None:
        """So is one that falls silent after its challenge."""
        player = self.player(timeout=5)
        player.turn()
        self.pass_time(player.client, 5.1)
        self.assertEqual(player.client.state, State.RESPONSE_TIMED_OUT)

    def test_connection_times_out(self) -> None:
        """So is one that falls silent later."""
        player = self.player(timeout=5)
        player.connect()
        self.now = self.table.now
        self.pass_time(player.client, 5.1)
        self.assertEqual(player.client.state, State.CONNECTION_TIMED_OUT)

    def test_never_times_out(self) -> None:
        """A token whose timeout is not above 0 waits until it expires."""
        client = self.player(timeout=-1).client
        self.pass_time(client, 29.0)
        self.assertEqual(client.state, State.SENDING_REQUEST)
        self.pass_time(client, 1.1)
        self.assertEqual(client.state, State.TOKEN_EXPIRED)

    def test_next_server(self) -> None:
        """The servers of the token are tried in order, each for its timeout."""
        client = self.player(addresses=(*OTHERS, ADDRESS), timeout=2).client
        tried = [client.server]
        for _ in range(2):
            self.pass_time(client, 2.1)
            tried.append(client.server)
        self.assertEqual(
            tried, [("203.0.113.8", 40000), ("2001:db8::1", 40000), ("203.0.113.7", 40000)]
        )
        self.pass_time(client, 2.1)
        self.assertEqual(client.state, State.REQUEST_TIMED_OUT)

    def test_numbers_go_on(self) -> None:
        """No number is used twice with a token's keys, on all of its servers together."""
        client = self.player(addresses=(*OTHERS, ADDRESS), timeout=2).client
        seals, said = Seals(PROTOCOL_ID), []
        for _ in range(3):
            self.pass_time(client, 0.5)
            challenge = seals.seal(client._opener, CHALLENGE, 2**63, bytes(308))
            client.receive(challenge, client.server, self.now)
            self.assertEqual(client.state, State.SENDING_RESPONSE)
            said += self.pass_time(client, 1.0)
            if client.server[0] == "203.0.113.7":
                break
            self.pass_time(client, 1.1)
        keep_alive = seals.seal(client._opener, KEEP_ALIVE, 0, bytes(8))
        client.receive(keep_alive, client.server, self.now)
        said += [client.send(b"x", self.now), *self.pass_time(client, 1.0)]
        said += client.disconnect(self.now)
        numbers = [read_header(datagram, TO_SERVER)[1] for datagram in said]
        self.assertGreater(len(numbers), 40)
        self.assertEqual(numbers, sorted(set(numbers)))

    def test_denied_then_next(self) -> None:
        """A server that is full sends a client on to the next."""
        table = Table(slots=1)
        table.now = 40.0
        table.connected(1, 1)
        token = make_token(42, created_at=EPOCH + 40, addresses=(ADDRESS, *OTHERS))
        player = table.player(token, source(2))
        player.turn()
        self.assertEqual(player.client.server, ("203.0.113.8", 40000))
        self.assertEqual(player.client.state, State.SENDING_REQUEST)

    def test_disconnected(self) -> None:
        """After a disconnect, by either side, it neither sends nor receives."""
        for by_server in (False, True):
            player = self.table.connected(42 + by_server, 1 + by_server)
            client = player.client
            connection = player.connection
            if by_server:
                self.table.disconnect(connection)
                player.hear()
            else:
                self.assertEqual(len(client.disconnect(self.table.now)), 10)
            self.assertEqual(client.state, State.DISCONNECTED)
            self.assertEqual(client.disconnect(self.table.now), [])
            self.assertIsNone(client.due(self.table.now + 1.0))
            self.assertRaises(ValueError, client.send, b"x", self.table.now)
            payload = Seals(PROTOCOL_ID).seal(client._opener, PAYLOAD, 10**6, b"x")
            self.assertIsNone(client.receive(payload, client.server, self.table.now))
