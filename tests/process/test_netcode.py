"""A real ``twistd playerstate`` that listens with netcode, and clients on real sockets."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from playerstate import PlayerState, StateSchema
from playerstate.tokens import connect_token, create_key, read_key
from playerstate.transports.netcode.client import Client, State
from playerstate.wire.messages import LEAVE, PING, Codec, Gone, Receipt, Welcome, encode_numbered
from tests.kit.processes import PATIENCE, Answer, Player, Server, run_to_end

PROTOCOL_ID = 0x1122334455667788
LIFETIME = 3
"""Seconds for which the servers' tokens live.  Right after a start a server accepts no token that
may have been issued before it, so that a client must request fresh ones for that long."""


class NetcodePlayer:
    """One player on a blocking socket of its own.

    Args:
        server: IP address and port.
        session_id: whose client it is.
        key: the server's.
        timeout: of its tokens.
    """

    def __init__(
        self, server: tuple[str, int], session_id: int, key: bytes, timeout: int = 5
    ) -> None:
        host, port = server
        self._address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._key = key
        self._session_id = session_id
        self._timeout = timeout
        self._codec = Codec(StateSchema.of(PlayerState))
        self._socket = socket.socket(
            socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM
        )
        self._socket.connect(server)
        self._socket.settimeout(0.02)
        self._server = server
        self.answers: list[Answer] = []
        self.sequence = 0
        self.tokens = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def connect(self) -> None:
        """Connect, with a fresh token each half second until one is accepted."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            self.tokens += 1
            token = connect_token(
                self._session_id,
                key=self._key,
                protocol_id=PROTOCOL_ID,
                addresses=[self._address],
                expires=LIFETIME,
                timeout=self._timeout,
                user_data=b"hello",
            )
            self.client = Client(token, time.monotonic())
            if self.turn_until(lambda: self.client.state == State.CONNECTED, 0.5):
                return
        raise AssertionError(f"not let in: {self.client.state}")

    def turn(self) -> None:
        """Send what is due, and receive."""
        datagram = self.client.due(time.monotonic())
        try:
            if datagram is not None:
                self._socket.send(datagram)
            data = self._socket.recv(2048)
        except (TimeoutError, ConnectionRefusedError):
            return
        message = self.client.receive(data, self._server, time.monotonic())
        if message is not None:
            self.answers.append(self._codec.decode_server(message))

    def turn_until(self, reached: Callable[[], Any], seconds: float = PATIENCE) -> bool:
        """Go on until something is reached; return whether it was."""
        deadline = time.monotonic() + seconds
        while not reached():
            if time.monotonic() > deadline:
                return False
            self.turn()
        return True

    def send(self, message: bytes) -> None:
        """Send a message."""
        self._socket.send(self.client.send(message, time.monotonic()))

    def wait_for(self, kind: type[Any], **fields: Any) -> Any:
        """The first answer of a kind whose fields are these."""

        def found() -> list[Any]:
            return [
                answer
                for answer in self.answers
                if isinstance(answer, kind)
                and all(getattr(answer, name) == value for name, value in fields.items())
            ]

        assert self.turn_until(found), (kind, fields, self.answers)
        answer = found()[0]
        self.answers.remove(answer)
        return answer

    def join(self, nonce: int = 1) -> Welcome:
        """Join and be welcomed."""
        self.send(self._codec.encode_join(nonce, self.sequence))
        welcome: Welcome = self.wait_for(Welcome)
        return welcome

    def move(self, *values: Any) -> None:
        """Send this player's state, and wait until it is applied."""
        self.sequence += 1
        self.send(self._codec.encode_move(self.sequence, values))
        self.send(encode_numbered(PING, self.sequence))
        self.wait_for(Receipt, applied=self.sequence)

    def disconnect(self) -> None:
        """Disconnect."""
        for datagram in self.client.disconnect(time.monotonic()):
            self._socket.send(datagram)


class NetcodeProcessTests(SynchronousTestCase):
    """Tokens, conversations and ends with a server in a process of its own."""

    def setUp(self) -> None:
        """An empty directory with a key in it."""
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)
        create_key(f"{self.directory}/key")
        self.key = read_key(f"{self.directory}/key")

    def serve(self, *options: str, interface: str = "127.0.0.1") -> tuple[Server, tuple[str, int]]:
        """A running server that listens with netcode beside plain UDP, and where."""
        escaped = interface.replace(":", "\\:")
        server = Server(
            self.directory,
            *("--listen", f"netcode:0:interface={escaped}", "--key-file", "key"),
            *("--protocol-id", hex(PROTOCOL_ID), "--max-token-lifetime", str(LIFETIME)),
            *options,
        )
        self.addCleanup(server.kill)
        found = server.wait_for(r"listening on udp ([\d.:a-f]+):(\d+), netcode")
        return server, (found[1], int(found[2]))

    def player(self, address: tuple[str, int], session_id: int = 42, **given: Any) -> NetcodePlayer:
        """A connected player with a socket of its own."""
        player = NetcodePlayer(address, session_id, self.key, **given)
        self.addCleanup(player.close)
        player.connect()
        return player

    def test_a_life(self) -> None:
        """A player who connects again with another token has the same state, bit for bit.

        At the stop the player hears GONE, and is disconnected.
        """
        server, address = self.serve()
        player = self.player(address)
        self.assertFalse(player.join().restored)
        place = (1 / 3, -2.718281828459045e-300)
        player.move(*place)
        player.disconnect()
        again = self.player(address)
        self.assertEqual(again.join(2).values, place)
        self.assertEqual(server.stop(), -signal.SIGTERM)
        self.assertEqual(again.wait_for(Gone).reason, 4)
        self.assertTrue(again.turn_until(lambda: again.client.state == State.DISCONNECTED))
        lines = "\n".join(server.lines)
        self.assertIn("netcode: 0 connected now, 0 half-open; 2 connected, 1 disconnected", lines)

    def test_beside_plain(self) -> None:
        """A netcode player and a plain one are in the same game."""
        server, address = self.serve()
        plain = Player(server.address, 7)
        self.addCleanup(plain.close)
        plain.join()
        player = self.player(address)
        player.join()
        plain.move(1.0, 2.0)
        player.move(3.0, 4.0)
        plain.leave()
        player.send(encode_numbered(LEAVE, player.sequence))
        player.wait_for(Receipt, saved=1)
        server.stop()
        self.assertIn("2 rows saved", "\n".join(server.lines))

    def test_falls_silent(self) -> None:
        """A player whose client dies is saved after the token's timeout."""
        server, address = self.serve("--save-within", "60")
        player = self.player(address, timeout=1)
        player.join()
        player.move(5.0, 6.0)
        time.sleep(1.5)
        again = self.player(address)
        self.assertEqual(again.join().values, (5.0, 6.0))
        server.stop()
        self.assertIn("1 timed out", "\n".join(server.lines))

    def test_ipv6(self) -> None:
        """The same over IPv6."""
        try:
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
                probe.bind(("::1", 0))
        except OSError:
            self.skipTest("this machine has no IPv6")
        server, address = self.serve(interface="::1")
        player = self.player(address)
        player.join()
        player.move(1.5, 2.5)
        self.assertEqual(server.stop(), -signal.SIGTERM)
        self.assertEqual(player.wait_for(Gone).reason, 4)

    def test_both_families(self) -> None:
        """A port on all IPv6 interfaces takes IPv4 clients too, known by their IPv4 address."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        server = Server(
            self.directory,
            *("--listen", f"netcode:{port}:interface=\\:\\:", "--public", f"127.0.0.1:{port}"),
            *("--public", f"[::1]:{port}", "--key-file", "key", "--protocol-id", hex(PROTOCOL_ID)),
            *("--max-token-lifetime", str(LIFETIME)),
        )
        self.addCleanup(server.kill)
        server.wait_for("netcode accepts clients")
        for session_id, host in enumerate(("127.0.0.1", "::1"), 42):
            try:
                player = self.player((host, port), session_id)
            except OSError:
                self.skipTest("this machine has no IPv6")
            player.join()
            player.move(1.5, 2.5)
        server.stop()

    def test_other_address_of_ours(self) -> None:
        """A port on all interfaces that tokens name by one of its addresses answers from that one.

        A client takes nothing from elsewhere, and would otherwise never get in.
        """
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("127.0.0.2", 0))
            except OSError:
                self.skipTest("this machine has no second loopback address")
            port = probe.getsockname()[1]
        server = Server(
            self.directory,
            *("--listen", f"netcode:{port}:interface=0.0.0.0", "--public", f"127.0.0.2:{port}"),
            *("--key-file", "key", "--protocol-id", hex(PROTOCOL_ID)),
            *("--max-token-lifetime", str(LIFETIME)),
        )
        self.addCleanup(server.kill)
        server.wait_for(f"tokens name 127.0.0.2:{port}")
        player = self.player(("127.0.0.2", port))
        player.join()
        player.move(1.5, 2.5)
        self.assertEqual(server.stop(), -signal.SIGTERM)
        self.assertEqual(player.wait_for(Gone).reason, 4)

    def test_port_is_taken(self) -> None:
        """A port that is taken is reported in one line, with the name of the transport."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            status, output = run_to_end(
                self.directory,
                *("-n", "--pidfile=", "playerstate", "--listen", f"netcode:{port}"),
                *("--key-file", "key", "--protocol-id", "1"),
            )
        self.assertEqual(status, 1)
        self.assertIn(f"playerstate: --listen netcode:{port}:interface=127.0.0.1: cannot", output)
