"""The netcode server's states and rules, one step of the standard after the other."""

from __future__ import annotations

import random
import struct
import sys
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from twisted.trial.unittest import SynchronousTestCase

from playerstate.transports.netcode import roaming
from playerstate.transports.netcode.addresses import Address
from playerstate.transports.netcode.client import State
from playerstate.transports.netcode.events import Connected, Replaced
from playerstate.transports.netcode.handshake import TAKE_OVER_AFTER
from playerstate.transports.netcode.history import TokenHistory
from playerstate.transports.netcode.limits import Rate
from playerstate.transports.netcode.packets import (
    CHALLENGE,
    DENIED,
    DISCONNECT,
    KEEP_ALIVE,
    PAYLOAD,
    RESPONSE,
    TO_CLIENT,
    Ignored,
    Seals,
    read_header,
)
from playerstate.transports.netcode.roaming import Roaming
from playerstate.transports.netcode.tokens import ConnectToken
from tests.kit.netcode import (
    ADDRESS,
    EPOCH,
    PROTOCOL_ID,
    TICK,
    Player,
    Table,
    make_token,
    request_of,
    source,
)

MANY = Rate(1e6, 10**6)
"""A rate that holds nobody up."""


def opened(datagram: bytes, token: ConnectToken) -> tuple[int, int, bytes]:
    """Kind, sequence and body of what a server sent to the holder of a token."""
    kind, sequence, at = read_header(datagram, TO_CLIENT)
    cipher = ChaCha20Poly1305(token.server_to_client_key)
    return kind, sequence, Seals(PROTOCOL_ID).open(cipher, datagram, sequence, at)


class ServerTestCase(SynchronousTestCase):
    """Tests of a server that has run for a while: tokens made at `now` are good."""

    def table(self, *, start: float = 0.0, age: float = 40.0, **settings: Any) -> Table:
        """A server of that age."""
        table = Table(start=start, **settings)
        table.now += age
        return table

    def token(self, table: Table, client_id: int = 42, **token: Any) -> ConnectToken:
        """A fresh token."""
        return make_token(client_id, created_at=int(table.wall_clock()), **token)

    def half_open(self, table: Table, client_id: int = 42, **token: Any) -> Player:
        """A player who was challenged, and has not answered."""
        player = table.player(self.token(table, client_id, **token), source(client_id % 250))
        player.turn()
        assert player.client.state == State.SENDING_RESPONSE
        return player


class RequestTests(ServerTestCase):
    """What a request is answered with, and when it is not."""

    def test_challenge(self) -> None:
        """A good request is answered by one challenge, under the token's key."""
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

    def test_what_is_in_clear(self) -> None:
        """Length, version, protocol id and expiry are looked at in this order."""
        table = self.table()
        good = request_of(self.token(table))
        wrong_id = good[:14] + b"\xff" + good[15:]
        for datagram, reason in (
            (b"", "too_short"),
            (b"\0", "too_short"),
            (b"\0N", "bad_length"),
            (good[:-1], "bad_length"),
            (good + b"\0", "bad_length"),
            (b"\0X" + wrong_id[2:], "bad_version"),
            (wrong_id[:22] + bytes(8) + wrong_id[30:], "wrong_protocol_id"),
            (good[:22] + bytes(8) + good[30:], "expired"),
        ):
            self.assertEqual(table.why(datagram), reason)
        self.assertEqual(len(table.receive(good)), 1)

    def test_expiry(self) -> None:
        """A token is good until the very second of its expiry."""
        table = self.table()
        request = request_of(self.token(table))
        table.now += 29.9
        self.assertEqual(len(table.receive(request)), 1)
        table.now += 0.1
        self.assertEqual(table.why(request), "expired")

    def test_restart_rule(self) -> None:
        """What may have been issued before the start is refused; the first that cannot, is not."""
        table = self.table(age=0.0)
        limit = EPOCH + 30 + 2
        for expires_at, reason in (
            (limit - 10, "issued_before_start"),
            (limit, "issued_before_start"),
            (limit + 1, "lives_too_long"),
        ):
            token = make_token(created_at=EPOCH, lifetime=expires_at - EPOCH)
            self.assertEqual(table.why(request_of(token)), reason)
        table.now += 1.0
        token = make_token(created_at=EPOCH, lifetime=33)
        self.assertEqual(len(table.receive(request_of(token))), 1)

    def test_lives_too_long(self) -> None:
        """A token that claims more than the agreed lifetime and the skew of clocks is refused."""
        table = self.table()
        for lifetime, reason in ((33, "lives_too_long"), (2**64 - EPOCH - 41, "lives_too_long")):
            token = self.token(table, lifetime=lifetime)
            self.assertEqual(table.why(request_of(token)), reason)
        self.assertEqual(len(table.receive(request_of(self.token(table, lifetime=32)))), 1)

    def test_max_token_lifetime(self) -> None:
        """The login service's tokens may be told to live longer."""
        table = self.table(age=301.0, max_token_lifetime=300.0, clock_skew=0.0)
        token = self.token(table, lifetime=300)
        self.assertEqual(len(table.receive(request_of(token))), 1)
        self.assertEqual(table.why(request_of(self.token(table, lifetime=301))), "lives_too_long")

    def test_first_seconds(self) -> None:
        """Tokens of full life are taken 3 seconds after a start, in whatever part of a second."""
        waits = []
        for sixteenth in range(16):
            table = Table(start=sixteenth / 16)
            while not table.receive(request_of(self.token(table))):
                table.pass_time(1 / 16)
            waits.append(table.now - sixteenth / 16)
        self.assertLess(2.0, min(waits))
        self.assertEqual(max(waits), 3.0)

    def test_sealed_for_others(self) -> None:
        """Another key, or a header that is not the token's, and it does not open."""
        table = self.table()
        request = request_of(self.token(table))
        foreign = request_of(self.token(table, key=b"K" * 32))
        later = request[:22] + struct.pack("<Q", EPOCH + 60) + request[30:]
        for datagram in (foreign, later, request[:-1] + bytes((request[-1] ^ 1,))):
            self.assertEqual(table.why(datagram), "unseal_failed")

    def test_not_for_this_server(self) -> None:
        """IP and port must be in the private list; the public one is for the client."""
        table = self.table()
        port = Address(ADDRESS.ip, 40_001)
        ipv6 = Address.parse("[2001:db8::1]:40000")
        for addresses in ((port,), (ipv6,), (port, ipv6)):
            token = self.token(table, private_addresses=addresses)
            self.assertEqual(table.why(request_of(token)), "address_not_listed")
        token = self.token(table, addresses=(port,), private_addresses=(ipv6, ADDRESS))
        self.assertEqual(len(table.receive(request_of(token))), 1)

    def test_both_families(self) -> None:
        """A server may be known by several addresses, IPv6 among them."""
        ipv6 = Address.parse("[2001:db8::1]:40000")
        table = self.table(addresses=frozenset((ADDRESS, ipv6)))
        for number, address in enumerate((ADDRESS, ipv6), 1):
            token = self.token(table, 42 + number, addresses=(address,))
            self.assertEqual(len(table.receive(request_of(token), source(number))), 1)

    def test_unusable(self) -> None:
        """A client id that is no session id and a timeout out of range are of no use here."""
        table = self.table()
        for client_id in (0, 2**63, 2**64 - 1):
            request = request_of(self.token(table, client_id))
            self.assertEqual(table.why(request), "client_id")
        for timeout in (-1, 0, 61, 2**31 - 1):
            request = request_of(self.token(table, timeout=timeout))
            self.assertEqual(table.why(request), "timeout")
        for number, timeout in enumerate((1, 60), 1):
            token = self.token(table, 2**63 - number, timeout=timeout)
            self.assertEqual(len(table.receive(request_of(token), source(number))), 1)
        self.assertEqual(len(table.server._handshake._history), 2)

    def test_source_is_connected(self) -> None:
        """From where a client is, no other asks: nothing is unsealed, nothing is counted off."""
        table = self.table(source_rate=Rate(0.01, 1))
        player = table.connected()
        for _ in range(3):
            self.assertEqual(table.why(player.log[0], player.source), "address_connected")
        other = request_of(self.token(table, 43))
        self.assertEqual(table.why(other, player.source), "address_connected")
        forged = other[:-1] + b"\0"
        self.assertEqual(table.why(forged, player.source), "address_connected")

    def test_client_is_connected(self) -> None:
        """Who came in just now cannot come in once more, with whatever token."""
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
        """So many may be half-open and no more; who is may ask again."""
        table = self.table(slots=1, source_rate=MANY)
        requests = [request_of(self.token(table, 100 + n)) for n in range(5)]
        for n in range(4):
            self.assertEqual(len(table.receive(requests[n], source(n))), 1)
        self.assertEqual(table.why(requests[4], source(4)), "half_open_full")
        self.assertEqual(len(table.receive(requests[3], source(3))), 1)
        table.pass_time(5.0)
        self.assertEqual(len(table.receive(requests[4], source(4))), 1)

    def test_history_full(self) -> None:
        """A history that is full lets no new token in, and none that was used."""
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


class WallClockTests(ServerTestCase):
    """The wall clock steps: used tokens stay used, and clients get in."""

    def test_used(self) -> None:
        """A token that expired is not good again where the clock is set back."""
        table = self.table()
        player = table.connected()
        player.say(player.client.disconnect(table.now)[0])
        request = player.log[0]
        table.pass_time(30.0)
        self.assertEqual(table.why(request, player.source), "expired")
        self.assertEqual(len(table.receive(request_of(self.token(table, 43)))), 1)
        table.wall_step = -20.0
        self.assertEqual(table.why(request, player.source), "token_consumed")

    def test_forward_for_a_while(self) -> None:
        """Ten minutes too many for three seconds keep nobody out for longer than that."""
        table = self.table()
        table.connected(1, 1)
        table.wall_step = 600.0
        table.pass_time(3.0)
        self.assertEqual(table.why(request_of(make_token(created_at=EPOCH + 43))), "expired")
        table.wall_step = 0.0
        table.connected(2, 2)

    def test_back_on_both_machines(self) -> None:
        """Where the login service's clock is set back as well, its tokens are taken at once."""
        table = self.table()
        table.connected(1, 1)
        table.pass_time(60.0)
        table.wall_step = -600.0
        table.connected(2, 2)

    def test_set_right_after_the_start(self) -> None:
        """A server that was started at a wrong time takes tokens of the right one, from 3 s on."""
        for step in (-600.0, 600.0):
            table = self.table(age=1.0)
            table.wall_step = step
            self.assertEqual(table.why(request_of(self.token(table))), "issued_before_start")
            table.now += 2.0
            self.assertEqual(len(table.receive(request_of(self.token(table)))), 1)

    def test_no_token_of_before_the_start(self) -> None:
        """What the run before took in is refused, though the clock was behind at the start."""
        table = self.table()
        player = table.connected()
        table.wall_step = -600.0
        table.start(seed=1)
        self.assertEqual(table.why(player.log[0], player.source), "lives_too_long")
        table.now += 1.0
        table.wall_step = 0.0
        self.assertEqual(table.why(player.log[0], player.source), "issued_before_start")

    def test_back_after_the_start(self) -> None:
        """A step back opens what was issued before the start by less than it, less the skew."""
        for back, is_open in ((3.0, False), (5.0, True)):
            table = self.table()
            player = table.connected()
            table.now += 1.0
            table.start(seed=1)
            table.wall_step = -back
            table.now += 1.0
            seen = {table.why(player.log[0], player.source)}
            table.now += 1.5
            if is_open:
                self.assertEqual(seen, {"lives_too_long"})
                self.assertEqual(len(table.receive(player.log[0], player.source)), 1)
            else:
                self.assertEqual(table.why(player.log[0], player.source), "issued_before_start")


class HistoryTests(SynchronousTestCase):
    """What is remembered of tokens."""

    def admit(self, history: TokenHistory, tag: int, expires_at: int, unix_now: float) -> str:
        """Show a token; why it was ignored, or nothing."""
        try:
            history.admit(bytes((tag,)), expires_at, "here", unix_now)
        except Ignored as ignored:
            return ignored.reason
        return ""

    def test_remembered(self) -> None:
        """Expired ones stay known as long as there is room, whatever the clock says."""
        history = TokenHistory(4, remembered=2)
        self.assertEqual(self.admit(history, 1, 30, 0.0), "")
        history.consume(b"\1")
        self.assertEqual(self.admit(history, 2, 40, 35.0), "")
        self.assertEqual(self.admit(history, 1, 30, 10.0), "token_consumed")

    def test_forgotten(self) -> None:
        """Forgotten ones are refused, with all that expire no later; what does is not."""
        history = TokenHistory(4, remembered=2)
        for tag, expires_at in ((1, 30), (2, 32)):
            self.assertEqual(self.admit(history, tag, expires_at, 0.0), "")
        self.assertEqual(self.admit(history, 3, 60, 31.0), "")
        self.assertEqual(len(history), 2)
        for tag, expires_at in ((1, 30), (4, 29), (4, 30)):
            self.assertEqual(self.admit(history, tag, expires_at, 10.0), "token_forgotten")
        self.assertEqual(self.admit(history, 2, 32, 10.0), "")
        self.assertEqual(self.admit(history, 4, 31, 10.0), "")

    def test_live_ones_stay(self) -> None:
        """Those that live are all remembered; the room for them has an end."""
        history = TokenHistory(4, remembered=2)
        for tag in range(4):
            self.assertEqual(self.admit(history, tag, 30, 0.0), "")
        self.assertEqual(self.admit(history, 9, 30, 0.0), "token_history_full")
        self.assertEqual(self.admit(history, 3, 30, 0.0), "")
        self.assertEqual(self.admit(history, 9, 60, 31.0), "")
        self.assertEqual(len(history), 2)

    def test_numbers(self) -> None:
        """Each new token has a higher number, and keeps it."""
        history = TokenHistory(4)
        numbers = [history.admit(tag, 30, "here", 0.0) for tag in (b"a", b"b", b"a", b"c")]
        self.assertEqual(numbers, [1, 2, 1, 3])


class LimitTests(ServerTestCase):
    """How many requests are unsealed."""

    def forged(self, table: Table) -> bytes:
        """A request that only the unsealing can tell from a good one."""
        return request_of(self.token(table, key=b"K" * 32))

    def reasons(self, table: Table, hosts: list[str]) -> list[str]:
        """What comes of a forged request from each of these hosts."""
        forged = self.forged(table)
        return [table.why(forged, (host, 1000 + n, "port")) for n, host in enumerate(hosts)]

    def test_one_source(self) -> None:
        """One address gets so many at once and then so many a second, from whatever ports."""
        table = self.table(source_rate=Rate(10.0, 3), request_rate=MANY)
        reasons = self.reasons(table, ["192.0.2.1"] * 5)
        self.assertEqual(reasons, ["unseal_failed"] * 3 + ["source_rate"] * 2)
        self.assertEqual(self.reasons(table, ["192.0.2.2"]), ["unseal_failed"])
        table.now += 0.1
        reasons = self.reasons(table, ["192.0.2.1"] * 2)
        self.assertEqual(reasons, ["unseal_failed", "source_rate"])

    def test_one_ipv6_network(self) -> None:
        """All of a /64 are one source."""
        table = self.table(source_rate=Rate(1.0, 1), request_rate=MANY)
        hosts = ["2001:db8:0:1::1", "2001:db8:0:1:ffff::2", "2001:db8:0:2::1"]
        reasons = self.reasons(table, hosts)
        self.assertEqual(reasons, ["unseal_failed", "source_rate", "unseal_failed"])

    def test_mapped(self) -> None:
        """An IPv4 sender is one source, however the socket names it."""
        table = self.table(source_rate=Rate(1.0, 1), request_rate=MANY)
        reasons = self.reasons(table, ["192.0.2.1", "::ffff:192.0.2.1"])
        self.assertEqual(reasons, ["unseal_failed", "source_rate"])

    def test_this_machine(self) -> None:
        """This machine is held to the common limit alone."""
        table = self.table(source_rate=Rate(1.0, 1), request_rate=Rate(1.0, 3))
        reasons = self.reasons(table, ["127.0.0.1", "127.0.0.1", "::1", "::1"])
        self.assertEqual(reasons, ["unseal_failed"] * 3 + ["request_rate"])

    def test_all_sources(self) -> None:
        """All together get no more than the common limit."""
        table = self.table(request_rate=Rate(10.0, 4))
        hosts = [f"198.51.100.{n}" for n in range(8)]
        reasons = self.reasons(table, hosts)
        self.assertEqual(reasons, ["unseal_failed"] * 4 + ["request_rate"] * 4)

    def test_secret(self) -> None:
        """Which sources share a measure is another matter at each start, for nobody to choose."""
        shared = []
        for seed in (1, 2):
            rate = Rate(1.0, 1)
            table = self.table(seed=seed, source_rate=rate, request_rate=MANY, source_buckets=64)
            hosts = [f"198.51.100.{n}" for n in range(200)]
            shared.append(self.reasons(table, hosts))
        self.assertNotEqual(*shared)

    def test_one_source_leaves_room(self) -> None:
        """A flood from one address does not use up the common limit."""
        table = self.table(source_rate=Rate(10.0, 2), request_rate=Rate(10.0, 4))
        self.reasons(table, ["192.0.2.1"] * 100)
        self.assertEqual(self.reasons(table, ["192.0.2.2"]), ["unseal_failed"])

    def test_cheap_ones_are_free(self) -> None:
        """What is refused before the unsealing is not counted off."""
        table = self.table(source_rate=Rate(0.01, 1))
        token = self.token(table)
        expired = make_token(created_at=EPOCH, lifetime=30)
        for _ in range(10):
            self.assertEqual(table.why(request_of(expired)), "expired")
        self.assertEqual(len(table.receive(request_of(token))), 1)

    def test_nothing_stays(self) -> None:
        """Forged requests, from as many sources as there are, leave nothing behind in memory."""
        table = self.table(request_rate=MANY)
        forged = self.forged(table)
        sources = [(f"198.18.{n >> 8}.{n & 255}", n, "port") for n in range(3000)]

        def flood(some: list[Any]) -> None:
            for one in some:
                table.take_in(forged, one)

        flood(sources[:1000])
        before = sys.getallocatedblocks()
        flood(sources[1000:])
        self.assertLess(sys.getallocatedblocks() - before, 100)
        self.assertEqual(table.server.tally.ignored.keys(), {"unseal_failed"})

    def test_payloads(self) -> None:
        """A client's payloads beyond its rate are counted and dropped; it stays in."""
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


class ResponseTests(ServerTestCase):
    """What lets a client in."""

    def test_connected(self) -> None:
        """The challenge that comes back takes a slot, and is answered by a keep-alive."""
        table = self.table(slots=7)
        player = self.half_open(table, user_data=b"hello")
        table.now += 1.0
        response = player.client.due(table.now)
        assert response is not None
        [answer] = table.receive(response, player.source)
        self.assertEqual(opened(answer, player.token), (KEEP_ALIVE, 0, struct.pack("<II", 0, 7)))
        self.assertEqual(table.events, [("connected", 42)])
        connection = player.connection
        self.assertEqual(connection.user_data, b"hello".ljust(256, b"\0"))
        self.assertEqual((connection.heard_at, connection.timeout), (table.now, 5))
        self.assertFalse(connection.is_confirmed)
        self.assertEqual(table.server.half_open, 0)

    def test_repeated(self) -> None:
        """A response that comes again is ignored: the client is in."""
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
        table.now += 1.0
        response = fresh.client.due(table.now)
        assert response is not None
        self.assertEqual(table.why(response, fresh.source), "bad_challenge")
        self.assertEqual(table.server.half_open, 1)

    def test_other_identity(self) -> None:
        """Who asks with two tokens from one address cannot be the one under the other's keys."""
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
        """The newest request from an address is the one that counts, keys and all."""
        table = self.table()
        first = self.half_open(table, 41)
        second = table.player(self.token(table, 43), first.source)
        second.turn()
        table.now += 1.0
        late = first.client.due(table.now)
        assert late is not None
        self.assertEqual(table.why(late, first.source), "open_failed")
        second.connect()
        self.assertEqual(table.events, [("connected", 43)])

    def test_client_came_in_elsewhere(self) -> None:
        """Of two tokens of one client, the first to come back wins."""
        table = self.table()
        first = self.half_open(table, 42)
        second = table.player(self.token(table, 42, seed=1), source(200))
        second.connect()
        table.now += 1.0
        response = first.client.due(table.now)
        assert response is not None
        self.assertEqual(table.why(response, first.source), "client_id_connected")

    def test_denied(self) -> None:
        """If the last slot went to another in the meantime, the answer is a denial."""
        table = self.table(slots=1)
        late = self.half_open(table, 42)
        table.connected(1, 201)
        table.now += 1.0
        response = late.client.due(table.now)
        assert response is not None
        [answer] = table.receive(response, late.source)
        self.assertEqual(opened(answer, late.token)[0], DENIED)
        self.assertEqual(table.events, [("connected", 1)])

    def test_lapses(self) -> None:
        """Who does not answer within the timeout is forgotten, whatever else comes from there."""
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
        """A repeat of the request begins the time anew."""
        table = self.table()
        player = self.half_open(table, timeout=3)
        table.pass_time(2.5)
        table.receive(player.log[0], player.source)
        table.pass_time(2.5)
        self.assertEqual(table.server.half_open, 1)

    def test_other_packets(self) -> None:
        """Payloads, keep-alives and disconnects of one who is not in yet are ignored."""
        table = self.table()
        player = self.half_open(table)
        for kind, body in ((PAYLOAD, b"x"), (KEEP_ALIVE, bytes(8)), (DISCONNECT, b"")):
            datagram = player.client._seal(kind, body, table.now)
            self.assertEqual(table.why(datagram, player.source), "not_connected")

    def test_unknown(self) -> None:
        """Packets from where nobody is known are ignored, whatever they hold."""
        table = self.table()
        for datagram in (b"\x15\0", b"\x13\0" + bytes(324), b"\xff" * 100):
            self.assertEqual(table.why(datagram, source(9)), "no_key")


class TakeOverTests(ServerTestCase):
    """A client that is in comes in on another connection."""

    def again(self, table: Table, seed: int = 1, number: int = 2) -> Player:
        """The player of 42 elsewhere, with a fresh token."""
        return table.player(self.token(table, 42, seed=seed), source(number))

    def test_fresh_token(self) -> None:
        """Who answers a challenge with a fresh token ends the old connection, and is in."""
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
        """Requests and answers that were seen before end nothing, from anywhere."""
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
        """A fresh token's request ends nothing without the token's keys."""
        table = self.table()
        player = table.connected()
        player.pass_time(1.0)
        [challenge] = table.receive(request_of(self.token(table, 42, seed=1)), source(66))
        for guess in (challenge, b"\x13" + challenge[1:], b"\x83" + challenge[1:]):
            self.assertEqual(table.receive(guess, source(66)), [])
        player.send(b"still here")
        self.assertEqual(table.events[-1], ("received", 42, b"still here"))

    def test_older_token(self) -> None:
        """A token that was shown before that of the connection does not end it, however late."""
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
        """A client that was started again comes in from the port that it had."""
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
        """A client that is given the port of one who is silent comes in: that one is not there."""
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
        """A client that is heard again keeps its port, whoever was challenged there meanwhile."""
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
        """Two devices that go on with fresh tokens take turns, at most one in a second."""
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


class RoamingTests(ServerTestCase):
    """A client whose port changes in the middle of a connection."""

    def silent(self, table: Table, count: int = 1) -> list[Player]:
        """Clients at one host who were not heard for more than a second."""
        players = []
        for n in range(count):
            token = self.token(table, 100 + n, timeout=60)
            players.append(table.player(token, source(9, 1000 + n)))
            players[-1].connect()
        table.pass_time(1.1)
        table.sent.clear()
        return players

    def moved(self, player: Player) -> bool:
        """Whether a payload gets through from another port of its host."""
        before = player.table.server.tally.moved
        player.source = source(9, player.source[1] + 1000)
        player.say(player.client.send(b"x", player.table.now))
        return player.table.server.tally.moved > before

    def test_goes_on(self) -> None:
        """After a second of silence a new packet from another port is taken, and answered there."""
        table = self.table()
        [player] = self.silent(table)
        connection, events = player.connection, len(table.events)
        self.assertTrue(self.moved(player))
        self.assertEqual(table.events[events:], [("received", 100, b"x")])
        self.assertEqual((connection.source, connection.is_open), (player.source, True))
        player.pass_time(1.0)
        self.assertGreater(player.client.heard_at, table.now - 0.2)
        table.disconnect(connection)
        player.hear()
        self.assertEqual(player.client.state, State.DISCONNECTED)

    def test_spoken_to_lately(self) -> None:
        """A connection that is not silent stays where it is."""
        table = self.table()
        [player] = self.silent(table)
        at_home = player.source
        player.send(b"here")
        self.assertFalse(self.moved(player))
        self.assertEqual(table.server.connections[0].source, at_home)

    def test_replayed(self) -> None:
        """Nothing that was taken in, or is older than what was, moves a connection."""
        table = self.table()
        [player] = self.silent(table)
        held_back = player.client.send(b"late", table.now)
        player.send(b"newer")
        table.pass_time(1.1)
        for datagram in (*player.log[1:], held_back):
            self.assertEqual(table.why(datagram, source(9, 7)), "no_key")
        datagram = player.client.send(b"y", table.now)
        table.receive(datagram, source(9, 7))
        self.assertEqual(table.why(datagram, source(9, 7)), "replayed")
        table.pass_time(1.1)
        self.assertEqual(table.why(datagram, source(9, 8)), "no_key")
        self.assertEqual(table.server.tally.moved, 1)

    def test_secret(self) -> None:
        """Which networks share a measure is another matter at each start, for nobody to choose."""
        self.patch(roaming, "SOURCE_RATE", Rate(1.0, 1))
        self.patch(roaming, "SOURCE_BUCKETS", 64)
        taken = []
        for seed in (1, 2):
            tried = Roaming(random.Random(seed).randbytes)
            taken.append([tried.take(source(number), 0.0) for number in range(200)])
        self.assertNotEqual(*taken)
        self.assertLessEqual(max(map(sum, taken)), 64)

    def test_other_address(self) -> None:
        """A packet from another address, or that came in at another port, is not tried."""
        table = self.table()
        [player] = self.silent(table)
        for whence in (source(8, 1000), (*source(9, 7)[:2], "other port")):
            datagram = player.client.send(b"x", table.now)
            self.assertEqual(table.why(datagram, whence), "no_key")

    def test_other_kinds(self) -> None:
        """Only what is numbered is tried, and no number that a client can hardly have reached."""
        table = self.table()
        [player] = self.silent(table)
        client = player.client
        self.assertEqual(
            table.why(client._seal(RESPONSE, bytes(308), table.now), source(9, 7)), "no_key"
        )
        client._sequence += 2**16
        self.assertEqual(table.why(client.send(b"x", table.now), source(9, 7)), "no_key")

    def test_disconnects_from_there(self) -> None:
        """A client may also go from another port."""
        table = self.table()
        [player] = self.silent(table)
        table.receive(player.client.disconnect(table.now)[0], source(9, 7))
        self.assertEqual(table.events[-1], ("disconnected", 100))
        self.assertEqual(table.server.connections, [])

    def test_many_at_one_address(self) -> None:
        """Of many silent connections a few are tried for each packet, each in its turn."""
        table = self.table(slots=40, source_rate=MANY)
        players = self.silent(table, 30)
        opened_with = []
        real = table.server._open
        table.server._open = lambda *given: opened_with.append(given[0]) or real(*given)  # type: ignore[func-returns-value]
        last = players[-1]
        tries = 1
        while not self.moved(last):
            tries += 1
            last.source = source(9, last.source[1] - 1000)
        self.assertEqual(tries, 8)
        self.assertEqual(len(opened_with), 4 * 7 + 2 + 1)

    def test_budget(self) -> None:
        """Noise from an address where somebody is silent is tried no more than so often."""
        table = self.table()
        [player] = self.silent(table)
        opened_with = []
        real = table.server._open
        table.server._open = lambda *given: opened_with.append(given[0]) or real(*given)  # type: ignore[func-returns-value]
        noise = b"\x25\x40\x00" + bytes(40)
        for n in range(300):
            self.assertEqual(table.why(noise, source(9, 2000 + n)), "no_key")
        self.assertEqual(len(opened_with), 100)
        table.now += 1.0
        self.assertTrue(self.moved(player))

    def test_budget_of_all(self) -> None:
        """All addresses together have no more than so many packets tried."""
        roaming = Roaming(bytes)
        taken = [roaming.take((f"10.0.{n >> 8}.{n & 255}", 1, "port"), 0.0) for n in range(3000)]
        self.assertEqual(sum(taken), 2000)


class ConnectedTests(ServerTestCase):
    """A connection, until it ends."""

    def test_payloads(self) -> None:
        """Each end hears the other's payloads, once."""
        table = self.table()
        player = table.connected()
        datagram = player.send(b"hello")
        self.assertEqual(table.events[-1], ("received", 42, b"hello"))
        self.assertEqual(table.why(datagram, player.source), "replayed")
        table.send(player.connection, b"welcome")
        player.hear()
        self.assertEqual(player.heard, [b"welcome"])

    def test_unconfirmed(self) -> None:
        """Until a client was heard, each payload to it comes after a keep-alive."""
        table = self.table()
        player = self.half_open(table)
        table.now += 1.0
        response = player.client.due(table.now)
        assert response is not None
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
        """If the first keep-alive is lost, the next brings the client in."""
        table = self.table()
        player = self.half_open(table)
        table.now += 1.0
        response = player.client.due(table.now)
        assert response is not None
        table.receive(response, player.source)
        table.sent.clear()
        player.pass_time(0.2)
        self.assertEqual(player.client.state, State.CONNECTED)

    def test_keep_alives(self) -> None:
        """A silent connection carries ten a second each way, a busy one none."""
        table = self.table()
        player = table.connected()
        before = player.connection.sequence
        table.pass_time(1.0)
        self.assertIn(player.connection.sequence - before, (7, 8, 9, 10))
        before = player.connection.sequence
        for _ in range(30):
            table.send(player.connection, b"x")
            table.pass_time(TICK)
        self.assertEqual(player.connection.sequence - before, 30)

    def test_times_out(self) -> None:
        """Silence for as long as the token says ends a connection, without a word."""
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
        """A replay, garbage, or the response again keep nobody in; a keep-alive does."""
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

    def test_server_stood_still(self) -> None:
        """A server that was stopped for a while has heard nobody, and lets nobody go for that."""
        table = self.table()
        player = table.connected(timeout=5)
        table.pass_time(2.0)
        table.now += 3600.0
        table.tick()
        player.hear()
        table.pass_time(1.0)
        self.assertEqual(len(table.server.connections), 1)
        self.assertLessEqual(player.connection.heard_at, table.now)
        table.pass_time(2.5)
        self.assertEqual(table.server.connections, [])

    def test_read_before_judged(self) -> None:
        """Whose packets wait in the socket while the process stands still is not taken for gone."""
        table = self.table()
        player = table.connected(timeout=1)
        half_open = self.half_open(table, 43, timeout=1)
        table.pass_time(0.875)
        waiting = player.client.send(b"x", table.now)
        response = half_open.client.due(table.now)
        assert response is not None
        table.now += 60.0
        table.pass_time(0.25)
        table.receive(waiting, player.source)
        table.pass_time(0.5)
        self.assertEqual([c.client_id for c in table.server.connections], [42])
        table.pass_time(1.0)
        self.assertEqual(table.server.connections, [])

    def test_read_in_time(self) -> None:
        """Whose packets were read before the late tick is charged with all that follows."""
        table = self.table()
        player = table.connected(timeout=5)
        table.now += 60.0
        player.send(b"x")
        table.tick()
        self.assertEqual(player.connection.heard_at, table.now)
        self.assertEqual(player.connection.payload_at, table.now)
        table.pass_time(5.0)
        self.assertEqual(table.server.connections, [])

    def test_half_open_meanwhile(self) -> None:
        """Nor is one forgotten whose response waits there."""
        table = self.table()
        player = self.half_open(table, timeout=1)
        table.pass_time(0.25)
        response = player.client.due(table.now)
        assert response is not None
        table.now += 60.0
        table.tick()
        self.assertEqual(len(table.receive(response, player.source)), 1)
        self.assertEqual(len(table.server.connections), 1)

    def test_busy_server(self) -> None:
        """A server whose ticks are all late lets go of the silent all the same."""
        table = self.table()
        table.connected(timeout=5)
        for _ in range(30):
            table.now += 2.0
            table.tick()
        self.assertEqual(table.server.connections, [])

    def test_wrong_length(self) -> None:
        """A sealed packet of the wrong length is ignored; its number is used up all the same."""
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
        """The first of ten disconnects ends it without an answer; the others mean nothing."""
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

    def test_server_disconnects(self) -> None:
        """Ten disconnects, each under its own number, and the client is not heard any more."""
        table = self.table()
        player = table.connected()
        connection = player.connection
        sequence = connection.sequence
        table.sent.clear()
        table.disconnect(connection)
        sent = [opened(datagram, player.token) for datagram, _ in table.sent]
        self.assertEqual(sent, [(DISCONNECT, sequence + n, b"") for n in range(10)])
        self.assertEqual(table.events, [("connected", 42)])
        player.hear()
        self.assertEqual(player.client.state, State.DISCONNECTED)
        table.disconnect(connection)
        table.send(connection, b"x")
        self.assertEqual(len(table.sent), 0)

    def test_disconnects_later(self) -> None:
        """One that is to read something first is told later, and neither heard nor sent to."""
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
        """At a stop everyone is disconnected, and half-open ones are forgotten."""
        table = self.table()
        players = [table.connected(n, n) for n in (1, 2)]
        self.half_open(table, 3)
        table.stop()
        for player in players:
            player.hear()
            self.assertEqual(player.client.state, State.DISCONNECTED)
        self.assertEqual((table.server.connections, table.server.half_open), ([], 0))
        self.assertEqual(table.server.tally.ended, 2)

    def test_slots(self) -> None:
        """The lowest free slot is taken, and one that is given back can be taken again."""
        table = self.table(source_rate=MANY)
        players = [table.connected(n, n) for n in (1, 2, 3)]
        self.assertEqual([player.client.slot for player in players], [0, 1, 2])
        table.disconnect(players[1].connection)
        self.assertEqual(table.connected(4, 4).client.slot, 1)
        self.assertEqual(table.connected(5, 5).client.slot, 3)

    def test_many(self) -> None:
        """There may be more than 256."""
        table = self.table(slots=300, source_rate=MANY)
        for n in range(300):
            token = self.token(table, 1 + n)
            player = table.player(token, ("192.0.2.1", 1000 + n, "port"))
            player.turn()
            player.client._spoke_at = -1.0
            player.turn()
        self.assertEqual(len(table.server.connections), 300)
        self.assertEqual((player.client.slot, player.client.slots), (299, 300))
        token = self.token(table, 301)
        [answer] = table.receive(request_of(token), source(2))
        self.assertEqual(opened(answer, token)[0], DENIED)

    def test_replaced_is_told_last_words(self) -> None:
        """One who was replaced is heard no more, and sent to until it is disconnected."""
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
        """What happened before a datagram's bug is returned with the next."""
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
