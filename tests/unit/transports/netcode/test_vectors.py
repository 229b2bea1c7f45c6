"""Golden vectors of the reference implementation, where the checkout has them beside it."""

from __future__ import annotations

import json
from collections import deque
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from twisted.trial.unittest import SynchronousTestCase

from playerstate.transports.netcode.addresses import Address
from playerstate.transports.netcode.client import Client, State
from playerstate.transports.netcode.connections import Source
from playerstate.transports.netcode.packets import (
    TO_CLIENT,
    TO_SERVER,
    Ignored,
    Seals,
    check_body,
    read_header,
)
from playerstate.transports.netcode.replay import ReplayWindow
from playerstate.transports.netcode.server import Server
from playerstate.transports.netcode.settings import NetcodeSettings
from playerstate.transports.netcode.tokens import KEY_BYTES, ConnectToken, PrivateToken
from tests.kit.netcode import Driver, make_token, request_of

VECTORS = Path(__file__).parents[5] / "shared" / "netcode" / "vectors.json"


@cache
def vectors() -> dict[str, Any]:
    """All of them."""
    found: dict[str, Any] = json.loads(VECTORS.read_text(encoding="utf-8"))
    return found


def place(text: str) -> Source:
    """``ip:port`` as a source."""
    address = Address.parse(text)
    return (str(address.ip), address.port, None)


class VectorTestCase(SynchronousTestCase):
    """Tests that need the vectors."""

    def setUp(self) -> None:
        """Look whether they are there."""
        if not VECTORS.exists():
            self.skipTest(f"there is no {VECTORS}")


class Recorded(Driver):
    """A server as in the vectors: their key, their clock, their challenge key.

    Args:
        case: says `server_address`, `slots`, and more by keyword.
    """

    def __init__(
        self,
        token: dict[str, Any],
        *,
        server_address: str,
        slots: int,
        challenge_key: str | None = None,
        unix_now: float,
        started_at: float | None = None,
        max_token_lifetime: float | None = None,
    ) -> None:
        if started_at is None:
            started_at = token["create_timestamp"] - 60
        if max_token_lifetime is None:
            max_token_lifetime = token["expire_timestamp"] - token["create_timestamp"]
        settings = NetcodeSettings(
            bytes.fromhex(token["private_key"]),
            token["protocol_id"],
            frozenset((Address.parse(server_address),)),
            slots=slots,
            max_token_lifetime=max_token_lifetime,
        )
        self.sent, self.events = deque(), []
        self.unix_now = started_at
        self.now = 0.0
        self._challenge_key = bytes(KEY_BYTES)
        if challenge_key is not None:
            self._challenge_key = bytes.fromhex(challenge_key)
        self.server = Server(
            settings,
            now=started_at - unix_now,
            wall_clock=lambda: self.unix_now + self.now,
            random_bytes=self._random_bytes,
        )
        self.unix_now = unix_now

    def _random_bytes(self, size: int) -> bytes:
        return self._challenge_key if size == KEY_BYTES else bytes(size)

    def receive(self, datagram: bytes, source: Source) -> list[bytes]:
        """Let a datagram arrive; return what is sent because of it."""
        self.sent.clear()
        self.take_in(datagram, source)
        return [answer for answer, _ in self.sent]

    def why(self, datagram: bytes, source: Source) -> str:
        """Let a datagram arrive; return why it was ignored, or nothing."""
        before = self.server.tally.ignored.copy()
        events = len(self.events)
        answers = self.receive(datagram, source)
        reasons = self.server.tally.ignored - before
        if not reasons:
            return ""
        assert answers == []
        assert len(self.events) == events
        [reason] = reasons
        return reason


class TokenTests(VectorTestCase):
    """Connect tokens."""

    def test_built_from_their_fields(self) -> None:
        """Each token is rebuilt to identical bytes."""
        for case in vectors()["tokens"]:
            with self.subTest(case["name"]):
                private = case["private"]
                plain = PrivateToken(
                    private["client_id"],
                    private["timeout_seconds"],
                    tuple(map(Address.parse, private["addresses"])),
                    bytes.fromhex(private["client_to_server_key"]),
                    bytes.fromhex(private["server_to_client_key"]),
                    bytes.fromhex(private["user_data"]),
                )
                self.assertEqual(plain.pack().hex(), private["plain"])
                nonce = bytes.fromhex(case["nonce"])
                head = bytes.fromhex(case["private_key"]), case["protocol_id"]
                sealed = plain.seal(*head, case["expire_timestamp"], nonce)
                token = ConnectToken(
                    case["protocol_id"],
                    case["create_timestamp"],
                    case["expire_timestamp"],
                    nonce,
                    sealed,
                    case["timeout_seconds"],
                    tuple(map(Address.parse, case["public_addresses"])),
                    bytes.fromhex(case["client_to_server_key"]),
                    bytes.fromhex(case["server_to_client_key"]),
                )
                self.assertEqual(token.pack().hex(), case["token"])
                self.assertEqual(ConnectToken.unpack(token.pack()), token)
                opened = PrivateToken.unseal(sealed, *head, case["expire_timestamp"], nonce)
                self.assertEqual(opened, plain)


class PacketTests(VectorTestCase):
    """Packets and their numbers."""

    def test_sequence_coding(self) -> None:
        """Each number gives the recorded packet, and is read from it."""
        coding = vectors()["sequence_coding"]
        seals = Seals(coding["protocol_id"])
        cipher = ChaCha20Poly1305(bytes.fromhex(coding["key"]))
        body = bytes.fromhex(coding["body"])
        for case in coding["cases"]:
            with self.subTest(case["sequence"]):
                packet = seals.seal(cipher, coding["type"], case["sequence"], body)
                self.assertEqual(packet.hex(), case["packet"])
                self.assertEqual(packet[0], case["prefix"])
                kind, sequence, at = read_header(packet, TO_SERVER)
                self.assertEqual((kind, sequence), (coding["type"], case["sequence"]))
                self.assertEqual(packet[1:at].hex(), case["sequence_bytes"])
                self.assertEqual(seals.open(cipher, packet, sequence, at), body)

    def test_every_kind(self) -> None:
        """A packet of each kind is made and read as recorded."""
        recorded = vectors()["packets"]
        seals = Seals(recorded["protocol_id"])
        cipher = ChaCha20Poly1305(bytes.fromhex(recorded["key"]))
        for case in recorded["cases"]:
            with self.subTest(case["type"], sequence=case["sequence"]):
                body = bytes.fromhex(case["body"])
                packet = seals.seal(cipher, case["type_id"], case["sequence"], body)
                self.assertEqual(packet.hex(), case["packet"])
                kind, sequence, at = read_header(packet, TO_CLIENT | TO_SERVER)
                self.assertEqual((kind, sequence), (case["type_id"], case["sequence"]))
                self.assertEqual(seals.open(cipher, packet, sequence, at), body)
                check_body(kind, body)


class ReplayTests(VectorTestCase):
    """The replay window."""

    def test_verdicts(self) -> None:
        """Each number is accepted or refused as recorded."""
        for case in vectors()["replay"]["cases"]:
            with self.subTest(case["name"]):
                window = ReplayWindow()
                verdicts = []
                for sequence in case["received"]:
                    is_new = window.is_new(sequence)
                    if is_new:
                        window.note(sequence)
                    verdicts.append("accept" if is_new else "refuse")
                self.assertEqual(verdicts, case["verdict"])


class SessionTests(VectorTestCase):
    """Whole sessions, played to a server core and to a client core."""

    def test_server(self) -> None:
        """The server answers byte for byte what the reference answered, at the same ticks."""
        for session in vectors()["sessions"]:
            with self.subTest(session["name"]):
                self.play_to_server(session)

    def play_to_server(self, session: dict[str, Any]) -> None:
        """Feed a session's datagrams and the application's acts, tick by tick."""
        token = session["token"]
        recorded = Recorded(
            token,
            server_address=session["server_address"],
            slots=session["slots"],
            challenge_key=session["challenge_key"],
            unix_now=session["wall_clock_at_t0"],
        )
        for number in range(session["occupied_slots"]):
            self.occupy(recorded, token, session, number)
        self.assertEqual(
            recorded.server._outgoing._global_sequence, session["start"]["global_sequence"]
        )
        recorded.sent.clear()
        recorded.events.clear()
        source = place(session["client_source"])
        log = session["log"]
        last = max(entry["t"] for entry in log)
        for tick in range(round(last / session["tick"]) + 1):
            t = recorded.now = tick * session["tick"]
            here = [entry for entry in log if entry["t"] == t]
            for entry in here:
                if entry["kind"] == "datagram" and entry["way"] == "c2s":
                    self.assertIn(entry["fate"], ("delivered", "late", "duplicate"))
                    recorded.take_in(bytes.fromhex(entry["hex"]), source)
            recorded.tick()
            for entry in here:
                if entry["kind"] == "event":
                    self.act_on_server(recorded, entry)
            answers = [
                entry["hex"]
                for entry in here
                if entry["kind"] == "datagram" and entry["way"] == "s2c"
            ]
            self.assertEqual([datagram.hex() for datagram, _ in recorded.sent], answers)
            recorded.sent.clear()
        payloads = [event[2].hex() for event in recorded.events if event[0] == "received"]
        self.assertEqual(payloads, self.delivered(session, "server"))
        joined = [e for e in log if e["kind"] == "event" and e["what"] == "connected"]
        self.assertEqual(
            [event for event in recorded.events if event[0] == "connected"],
            [("connected", entry["client_id"]) for entry in joined],
        )

    def occupy(
        self, recorded: Recorded, token: dict[str, Any], session: dict[str, Any], number: int
    ) -> None:
        """Let another client take a slot."""
        other = make_token(
            900 + number,
            key=bytes.fromhex(token["private_key"]),
            protocol_id=token["protocol_id"],
            addresses=(Address.parse(session["server_address"]),),
            created_at=token["create_timestamp"],
            lifetime=token["expire_timestamp"] - token["create_timestamp"],
        )
        client = Client(other.pack(), 0.0)
        source = ("192.0.2.1", number, None)
        [challenge] = recorded.receive(request_of(other), source)
        client.receive(challenge, client.server, 0.0)
        response = client.due(0.0)
        assert response is not None
        self.assertEqual(len(recorded.receive(response, source)), 1)

    def act_on_server(self, recorded: Recorded, entry: dict[str, Any]) -> None:
        """Do what the application did."""
        if entry["who"] == "server" and entry["what"] in ("app_send", "app_disconnect"):
            [connection] = recorded.server.connections
            if entry["what"] == "app_send":
                recorded.send(connection, bytes.fromhex(entry["body"]))
            else:
                recorded.disconnect(connection)
        elif entry["what"] == "set_server_sequence":
            recorded.server.connections[0].sequence = entry["value"]

    def delivered(self, session: dict[str, Any], who: str) -> list[str]:
        """The payloads that one end handed to its application."""
        return [
            entry["body"]
            for entry in session["log"]
            if entry["kind"] == "event" and (entry["who"], entry["what"]) == (who, "delivered")
        ]

    def test_client(self) -> None:
        """The client sends byte for byte what the reference's sent, at the same ticks."""
        for session in vectors()["sessions"]:
            with self.subTest(session["name"]):
                self.play_to_client(session)

    def play_to_client(self, session: dict[str, Any]) -> None:
        """Feed what the relay let through, a tick after it was sent."""
        client = Client(bytes.fromhex(session["token"]["token"]), 0.0)
        log = session["log"]
        states: list[int] = []
        payloads: list[str] = []
        arriving: list[str] = []
        last = max(entry["t"] for entry in log)
        for tick in range(round(last / session["tick"]) + 1):
            t = tick * session["tick"]
            here = [entry for entry in log if entry["t"] == t]
            for datagram in arriving:
                payload = client.receive(bytes.fromhex(datagram), client.server, t)
                if payload is not None:
                    payloads.append(payload.hex())
            sent = [client.due(t)]
            if not states or states[-1] != client.state:
                states.append(int(client.state))
            for entry in here:
                sent += self.act_on_client(client, entry, t)
            if states[-1] != client.state:
                states.append(int(client.state))
            said = [
                entry["hex"]
                for entry in here
                if entry["kind"] == "datagram"
                and entry["way"] == "c2s"
                and entry["fate"] != "duplicate"
            ]
            if here and here[0].get("state") == State.DISCONNECTED:
                # The reference says one more keep-alive in the tick in which it was disconnected.
                said = []
            self.assertEqual(
                sorted(datagram.hex() for datagram in sent if datagram is not None), sorted(said)
            )
            arriving = [
                entry["hex"]
                for entry in here
                if entry["kind"] == "datagram" and entry["way"] == "s2c" and entry["fate"] != "lost"
            ]
        self.assertEqual(payloads, self.delivered(session, "client"))
        recorded = [
            entry["state"] for entry in log if entry["kind"] == "event" and entry["what"] == "state"
        ]
        self.assertEqual(states, recorded)

    def act_on_client(self, client: Client, entry: dict[str, Any], t: float) -> list[bytes | None]:
        """Do what the application did; the datagrams of it."""
        if entry["kind"] != "event":
            return []
        if entry["what"] == "set_client_sequence":
            client._sequence = entry["value"]
        elif entry["who"] == "client" and entry["what"] == "app_send":
            return [client.send(bytes.fromhex(entry["body"]), t)]
        elif entry["who"] == "client" and entry["what"] == "app_disconnect":
            return list(client.disconnect(t))
        return []


class NegativeTests(VectorTestCase):
    """What must be ignored, each for its reason."""

    def setUp(self) -> None:
        """The cases."""
        super().setUp()
        self.cases = vectors()["negative"]
        self.source = place(self.cases["client_source"])

    def serve(self, **settings: Any) -> Recorded:
        """A fresh server."""
        settings.setdefault("unix_now", self.cases["now"])
        return Recorded(
            self.cases["token"],
            server_address=self.cases["server_address"],
            slots=self.cases["slots"],
            **settings,
        )

    def test_requests(self) -> None:
        """Each request is ignored, and the one that they were made of is not."""
        for case in self.cases["requests"]:
            with self.subTest(case["name"]):
                reason = self.serve().why(bytes.fromhex(case["hex"]), self.source)
                self.assertEqual(reason, case["reason"])
        [challenge] = self.serve().receive(
            bytes.fromhex(self.cases["control_request"]), self.source
        )
        self.assertEqual(len(challenge), 333)

    def test_edges_of_expiry(self) -> None:
        """A token is good until the second before its expiry."""
        request = bytes.fromhex(self.cases["control_request"])
        lifetime = self.cases["token"]["expire_timestamp"]
        for case in self.cases["clock"]:
            with self.subTest(case["now"]):
                server = self.serve(
                    unix_now=case["now"], started_at=-60.0, max_token_lifetime=lifetime
                )
                self.assertEqual(server.why(request, self.source), case.get("reason", ""))

    def connect(self) -> Recorded:
        """A server that has gone through the recorded responses."""
        half_open = self.cases["half_open"]
        server = self.serve(challenge_key=half_open["challenge_key"])
        control = bytes.fromhex(self.cases["control_request"])
        self.assertEqual(len(server.receive(control, self.source)), 1)
        early = half_open["early_payload"]
        self.assertEqual(server.why(bytes.fromhex(early["hex"]), self.source), early["reason"])
        for case in self.cases["responses"]:
            with self.subTest(case["name"]):
                reason = server.why(bytes.fromhex(case["hex"]), self.source)
                self.assertEqual(reason, case.get("reason", ""))
        self.assertEqual(server.events, [("connected", 4242)])
        server.events.clear()
        return server

    def test_packets(self) -> None:
        """Each packet is ignored by the peer that it was made for, which still takes good ones.

        Those that were sealed well, and have a body of the wrong length, move the replay window.
        """
        server = self.connect()
        [connection] = server.server.connections
        for case in self.cases["packets"]:
            with self.subTest(case["name"]):
                window = connection.window.newest, connection.window._seen
                source = place(case.get("from", self.cases["client_source"]))
                reason = server.why(bytes.fromhex(case["hex"]), source)
                self.assertEqual(reason, case["reason"])
                moved = window != (connection.window.newest, connection.window._seen)
                self.assertEqual(moved, case.get("moves_window", False))
        self.assertFalse(connection.is_confirmed)
        for case in self.cases["then"]:
            with self.subTest(case["name"]):
                server.events.clear()
                reason = server.why(bytes.fromhex(case["hex"]), self.source)
                self.assertEqual(reason, case.get("reason", ""))
                payloads = [event[2].hex() for event in server.events]
                self.assertEqual(payloads, [case["body"]] if "body" in case else [])
        self.assertTrue(connection.is_confirmed)


class HistoryTests(VectorTestCase):
    """One connection per token."""

    def test_verdicts(self) -> None:
        """Requests, responses and disconnects end as recorded."""
        history = vectors()["token_history"]
        base = vectors()["negative"]["token"]
        for case in history["cases"]:
            with self.subTest(case["name"]):
                server = Recorded(
                    base,
                    server_address="127.0.0.1:40000",
                    slots=history["server"]["slots"],
                    unix_now=base["create_timestamp"],
                )
                self.play(server, base, case["steps"])

    def play(self, server: Recorded, base: dict[str, Any], steps: list[dict[str, Any]]) -> None:
        """Take the steps of a case."""
        clients: dict[str, Client] = {}
        for step in steps:
            source = place(step["from"])
            if step["op"] == "request":
                token = make_token(
                    step["client_id"],
                    key=bytes.fromhex(base["private_key"]),
                    protocol_id=base["protocol_id"],
                    addresses=(Address.parse("127.0.0.1:40000"),),
                    created_at=base["create_timestamp"],
                    lifetime=base["expire_timestamp"] - base["create_timestamp"],
                    seed=len(step["token"]),
                )
                if "reason" in step:
                    self.assertEqual(server.why(request_of(token), source), step["reason"])
                    continue
                clients[step["from"]] = client = Client(token.pack(), 0.0)
                [answer] = server.receive(request_of(token), source)
                self.assertEqual((step["verdict"], len(answer)), ("challenge", 333))
                client.receive(answer, client.server, 0.0)
            elif step["op"] == "respond":
                response = clients[step["from"]].due(0.0)
                assert response is not None
                [answer] = server.receive(response, source)
                self.assertEqual((step["verdict"], len(answer)), ("keep_alive", 26))
            else:
                server.receive(clients[step["from"]].disconnect(0.0)[0], source)
                self.assertEqual(server.events[-1][0], "disconnected")


class ReadingTests(VectorTestCase):
    """The reader alone."""

    def test_nothing_recorded_is_read_both_ways(self) -> None:
        """A kind of packet for one direction only is refused in the other."""
        for case in vectors()["packets"]["cases"]:
            packet = bytes.fromhex(case["packet"])
            for allowed in (TO_SERVER, TO_CLIENT):
                if case["type_id"] not in allowed:
                    with self.assertRaises(Ignored) as caught:
                        read_header(packet, allowed)
                    self.assertEqual(caught.exception.reason, "type_not_allowed")
