"""The netcode transport as a service: its ports, its start and its stop."""

from __future__ import annotations

from twisted.internet.error import CannotListenError
from twisted.internet.task import Clock

from playerstate import NotRunning
from playerstate.transports.netcode.addresses import Address
from playerstate.transports.netcode.client import Client, State
from playerstate.transports.netcode.run import READ_WITHIN
from playerstate.transports.netcode.service import NetcodeService
from playerstate.transports.netcode.settings import NetcodeSettings
from playerstate.transports.udp import LISTEN_AGAIN_FIRST
from tests.kit.netcode import KEY, PROTOCOL_ID, make_token
from tests.kit.netcode_service import (
    ADDRESS,
    CLOSED,
    PORT,
    NetcodePlayer,
    NetcodeServiceTestCase,
)
from tests.kit.players import GONE, RECEIPT, REFUSED, WELCOME, at


class PortTests(NetcodeServiceTestCase):
    """The ports, from the start to the stop."""

    def test_log(self) -> None:
        """At the start the log names the ports, and the tokens that are accepted."""
        self.open()
        self.assertEqual(len(self.told(f"listening on udp 127.0.0.1:{PORT}, netcode")), 1)
        [line] = self.told("netcode accepts clients")
        self.assertIn(f"tokens name 127.0.0.1:{PORT} and live for 30 s at most", line)

    def test_public_address(self) -> None:
        """With a public address, it accepts tokens for that one only."""
        public = Address.parse("203.0.113.7:40000")
        self.open(addresses=frozenset((public,)), listen=((PORT, "0.0.0.0"),))
        self.joined(addresses=(public,))
        player = NetcodePlayer(self, 43, 2)
        player.turn()
        self.assertEqual(player.client.state, State.SENDING_REQUEST)
        self.assertEqual(self.netcode.tally.ignored, {"address_not_listed": 1})

    def test_wildcard(self) -> None:
        """Without a public address it refuses to listen on all interfaces."""
        for interface in ("0.0.0.0", "::"):
            with self.assertRaises(ValueError) as caught:
                self.open(listen=((PORT, interface),))
            self.assertIn("all interfaces", str(caught.exception))

    def test_any_port(self) -> None:
        """Port 0 binds any free port; tokens name that one."""
        self.open(listen=((0, "127.0.0.1"),))
        [number] = self.netcode.ports
        self.assertGreater(number, 0)
        self.joined(addresses=(Address.parse(f"127.0.0.1:{number}"),))

    def test_two_ports(self) -> None:
        """Two ports share clients and tokens; each answers its own clients."""
        self.open(listen=((PORT, "127.0.0.1"), (PORT + 1, "127.0.0.1")))
        second = self.stepped.reactor.ports[PORT + 1]
        both = (ADDRESS, Address.parse(f"127.0.0.1:{PORT + 1}"))
        first = self.joined(42, 1, addresses=both)
        again = NetcodePlayer(self, 42, 1, second, addresses=both)
        again.turn()
        self.assertEqual(self.netcode.tally.ignored, {"client_id_connected": 1})
        first.disconnect()
        again.turn()
        self.advance(0.2)
        again.turn()
        self.assertEqual(self.netcode.tally.ignored["token_consumed"], 1)
        other = NetcodePlayer(self, 43, 2, second, addresses=both)
        other.connect()
        other.join()
        self.assertEqual(other.names(), [WELCOME])
        self.successResultOf(second.stopListening())

    def test_cannot_listen(self) -> None:
        """If one port cannot be bound all are closed, and a stop is harmless."""
        self.open()
        calls = len(self.service.clock.getDelayedCalls())
        other = NetcodeService(
            self.gateway,
            NetcodeSettings(KEY, PROTOCOL_ID),
            [(PORT + 1, "127.0.0.1"), (PORT, "127.0.0.1")],
            reactor=self.stepped.reactor,
        )
        self.assertRaises(CannotListenError, other.startService)
        self.assertEqual(list(self.stepped.reactor.ports), [PORT])
        self.assertEqual(len(self.service.clock.getDelayedCalls()), calls)
        self.successResultOf(other.stopService())

    def test_not_started(self) -> None:
        """Before its first start the transport has no ports and no counters, and says so."""
        self.open()
        settings = NetcodeSettings(KEY, PROTOCOL_ID)
        other = NetcodeService(self.gateway, settings, [(PORT + 1, "127.0.0.1")])
        for name in ("ports", "tally"):
            self.assertRaises(NotRunning, getattr, other, name)

    def test_started_again(self) -> None:
        """A restarted service knows no client, and accepts no token from before."""
        self.open()
        token = make_token(42, created_at=int(self.wall_clock()), addresses=(ADDRESS,)).pack()
        player = self.joined()
        player.client = Client(token, self.now)
        self.netcode.stopService()
        self.advance(0.5)
        self.netcode.startService()
        self.port = player.port = self.stepped.reactor.ports[PORT]
        self.advance(0.1)
        player.turn()
        self.assertEqual(self.netcode.tally.ignored, {"issued_before_start": 1})
        self.successResultOf(self.port.stopListening())

    def test_port_is_lost(self) -> None:
        """A port that the system closes is bound again, and its clients play on."""
        self.open(listen=((PORT, "127.0.0.1"), (PORT + 1, "127.0.0.1")))
        other = self.stepped.reactor.ports[PORT + 1]
        self.addCleanup(other.stopListening)
        player = self.joined()
        player.move(1, 5.0)
        self.port.stopListening()
        self.assertEqual(len(self.told(f"127.0.0.1:{PORT}, netcode: the system closed the")), 1)
        self.assertEqual(list(self.stepped.reactor.ports), [PORT + 1])
        self.stepped.reactor.advance(LISTEN_AGAIN_FIRST)
        self.assertEqual(len(self.told(f"127.0.0.1:{PORT}, netcode: listening again")), 1)
        player.port = self.stepped.reactor.ports[PORT]
        player.names()
        player.move(2, 6.0)
        self.assertEqual(self.service.state(42), at(6.0))
        self.play(7.0, player)
        self.assertIn((RECEIPT, 2, 2), player.heard)
        late = NetcodePlayer(self, 43, 2, player.port)
        late.connect()
        self.assertEqual((self.netcode.tally.connected, self.netcode.tally.ended), (2, 0))
        stopped = self.netcode.stopService()
        self.advance(0.5)
        self.successResultOf(stopped)
        self.assertEqual(self.stepped.reactor.ports, {})

    def test_stopped_while_a_port_is_lost(self) -> None:
        """A stop while a port is lost saves every player and ends; no port is bound after it."""
        self.open()
        player = self.joined()
        player.move(1, 5.0)
        self.port.stopListening()
        stopped = self.netcode.stopService()
        self.advance(0.5)
        self.successResultOf(stopped)
        self.stepped.reactor.advance(60.0)
        self.assertEqual(self.stepped.reactor.ports, {})
        self.assertEqual(self.stored(self.stepped), {42: (5.0, 0.0)})


class StopTests(NetcodeServiceTestCase):
    """The stop, and what clients get before it ends."""

    def test_stop(self) -> None:
        """Players get a RECEIPT, a GONE and disconnect packets; other clients only the last."""
        self.open()
        player = self.joined()
        player.move(1, 5.0)
        idler = NetcodePlayer(self, 43, 2)
        idler.connect()
        stopped = self.netcode.stopService()
        self.advance(0.5)
        self.successResultOf(stopped)
        for one in (player, idler):
            one.hear()
        self.assertEqual(player.names()[-3:], [RECEIPT, GONE, "disconnected"])
        self.assertEqual(idler.names(), ["disconnected"])
        self.assertEqual(self.stored(self.stepped), {42: (5.0, 0.0)})
        self.assertEqual(self.stepped.reactor.ports, {})

    def test_gone_is_read(self) -> None:
        """The stop waits until each client has had time to read its GONE."""
        for hertz in (10, 20, 60):
            self.open()
            player = self.joined()
            player.move(1, 5.0)
            stopped = self.netcode.stopService()
            self.assertIn((GONE, 1, CLOSED), self.seen(player, hertz))
            self.assertEqual(player.client.state, State.DISCONNECTED)
            self.successResultOf(stopped)
            self.assertEqual(self.stored(self.stepped), {42: (5.0, 0.0)})

    def test_receipt_is_read(self) -> None:
        """It waits for the RECEIPT of a player who left just before, too."""
        for hertz in (10, 20, 60):
            self.open()
            player = self.joined()
            player.leave(0)
            self.stepped.settle()
            stopped = self.netcode.stopService()
            self.assertIn((RECEIPT, 0, 0), self.seen(player, hertz))
            self.assertEqual(player.client.state, State.DISCONNECTED)
            self.successResultOf(stopped)

    def test_refusal_is_read(self) -> None:
        """It waits for the answer to a late JOIN, even if no player is left to get a GONE."""
        for hertz in (10, 20, 60):
            self.open()
            last, late = self.joined(42, 1), NetcodePlayer(self, 43, 2)
            late.connect()
            last.move(1, 5.0)
            stopped = self.netcode.stopService()
            late.join()
            last.disconnect()
            self.stepped.settle()
            self.assertFalse(self.netcode._run.server.is_ending)
            self.assertEqual(self.seen(late, hertz), [(REFUSED, 1, CLOSED)])
            self.successResultOf(stopped)

    def test_clock_is_set_back(self) -> None:
        """The stop ends even while the reactor's timers stand still, as its clock is set back."""
        self.steady = Clock()
        self.open()
        self.joined()
        stopped = self.netcode.stopService()
        self.stepped.settle()
        self.successResultOf(self.stepped.stop())
        self.steady.advance(READ_WITHIN - 0.01)
        self.assertNoResult(stopped)
        self.steady.advance(0.01)
        self.successResultOf(stopped)

    def test_no_clients(self) -> None:
        """Without a connected client the stop does not wait."""
        self.open()
        self.successResultOf(self.netcode.stopService())

    def test_service_stops_first(self) -> None:
        """The last messages are sent even if the player state service has stopped by then."""
        self.open()
        player = self.joined()
        stopped = self.netcode.stopService()
        self.successResultOf(self.stepped.stop())
        self.assertNoResult(stopped)
        self.advance(0.5)
        self.successResultOf(stopped)
        player.hear()
        self.assertEqual(player.names()[-2:], [GONE, "disconnected"])

    def test_late_messages(self) -> None:
        """Messages between the last GONE and the end are not answered."""
        self.open()
        self.joined()
        idler = NetcodePlayer(self, 43, 2)
        idler.connect()
        stopped = self.netcode.stopService()
        self.advance(0.1)
        self.assertTrue(self.netcode._run.server.is_ending)
        idler.join()
        self.play(0.4, idler)
        self.assertEqual(idler.names(), ["disconnected"])
        self.successResultOf(stopped)
