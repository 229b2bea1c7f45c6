"""Requests to connect: which are accepted, and how many are unsealed."""

from __future__ import annotations

import struct
import sys
from typing import Any

from playerstate.transports.netcode.addresses import Address
from playerstate.transports.netcode.limits import Rate
from tests.kit.netcode import (
    ADDRESS,
    EPOCH,
    MANY,
    ServerTestCase,
    Table,
    make_token,
    request_of,
    source,
)


class RequestTests(ServerTestCase):
    """What is checked of a request."""

    def test_what_is_in_clear(self) -> None:
        """Length, version, protocol id and expiry are checked in this order."""
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
        """A token is accepted until the second of its expiry."""
        table = self.table()
        request = request_of(self.token(table))
        table.now += 29.9
        self.assertEqual(len(table.receive(request)), 1)
        table.now += 0.1
        self.assertEqual(table.why(request), "expired")

    def test_restart_rule(self) -> None:
        """A token that may have been issued before the start is refused, and no later one."""
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
        """A token that claims more than the longest lifetime and the clock skew is refused."""
        table = self.table()
        for lifetime, reason in ((33, "lives_too_long"), (2**64 - EPOCH - 41, "lives_too_long")):
            token = self.token(table, lifetime=lifetime)
            self.assertEqual(table.why(request_of(token)), reason)
        self.assertEqual(len(table.receive(request_of(self.token(table, lifetime=32)))), 1)

    def test_max_token_lifetime(self) -> None:
        """A server can be set to accept longer lifetimes."""
        table = self.table(age=301.0, max_token_lifetime=300.0, clock_skew=0.0)
        token = self.token(table, lifetime=300)
        self.assertEqual(len(table.receive(request_of(token))), 1)
        self.assertEqual(table.why(request_of(self.token(table, lifetime=301))), "lives_too_long")

    def test_first_seconds(self) -> None:
        """Tokens with the longest lifetime are accepted 3 seconds after a start at the latest."""
        waits = []
        for sixteenth in range(16):
            table = Table(start=sixteenth / 16)
            while not table.receive(request_of(self.token(table))):
                table.pass_time(1 / 16)
            waits.append(table.now - sixteenth / 16)
        self.assertLess(2.0, min(waits))
        self.assertEqual(max(waits), 3.0)

    def test_sealed_for_others(self) -> None:
        """A token sealed with another key, and one with a changed header or seal, does not open."""
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
        """A server may have several addresses, IPv6 among them."""
        ipv6 = Address.parse("[2001:db8::1]:40000")
        table = self.table(addresses=frozenset((ADDRESS, ipv6)))
        for number, address in enumerate((ADDRESS, ipv6), 1):
            token = self.token(table, 42 + number, addresses=(address,))
            self.assertEqual(len(table.receive(request_of(token), source(number))), 1)

    def test_unusable(self) -> None:
        """A client id that is no session id, and a timeout out of range, are refused."""
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


class WallClockTests(ServerTestCase):
    """The wall clock steps: used tokens stay used, and clients still get in."""

    def test_used(self) -> None:
        """A used token that expired is not accepted again if the clock is set back."""
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
        """A clock that is wrong for three seconds keeps clients out for no longer than that."""
        table = self.table()
        table.connected(1, 1)
        table.wall_step = 600.0
        table.pass_time(3.0)
        self.assertEqual(table.why(request_of(make_token(created_at=EPOCH + 43))), "expired")
        table.wall_step = 0.0
        table.connected(2, 2)

    def test_back_on_both_machines(self) -> None:
        """If the login service's clock is set back as well, its tokens are accepted at once."""
        table = self.table()
        table.connected(1, 1)
        table.pass_time(60.0)
        table.wall_step = -600.0
        table.connected(2, 2)

    def test_set_right_after_the_start(self) -> None:
        """A server whose clock is corrected after its start accepts tokens from 3 s on."""
        for step in (-600.0, 600.0):
            table = self.table(age=1.0)
            table.wall_step = step
            self.assertEqual(table.why(request_of(self.token(table))), "issued_before_start")
            table.now += 2.0
            self.assertEqual(len(table.receive(request_of(self.token(table)))), 1)

    def test_no_token_of_before_the_start(self) -> None:
        """A token that an earlier run accepted is refused, even if the clock was behind then."""
        table = self.table()
        player = table.connected()
        table.wall_step = -600.0
        table.start(seed=1)
        self.assertEqual(table.why(player.log[0], player.source), "lives_too_long")
        table.now += 1.0
        table.wall_step = 0.0
        self.assertEqual(table.why(player.log[0], player.source), "issued_before_start")

    def test_back_after_the_start(self) -> None:
        """A step back lets in tokens issued before the start by less than it, minus the skew."""
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


class LimitTests(ServerTestCase):
    """How many requests are unsealed."""

    def forged(self, table: Table) -> bytes:
        """A request that only the unsealing can tell from a valid one."""
        return request_of(self.token(table, key=b"K" * 32))

    def reasons(self, table: Table, hosts: list[str]) -> list[str]:
        """Why a forged request from each of these hosts is ignored."""
        forged = self.forged(table)
        return [table.why(forged, (host, 1000 + n, "port")) for n, host in enumerate(hosts)]

    def test_table(self) -> None:
        """Which requests are unsealed, by the rates of one source and of all."""
        many, unsealed = MANY, "unseal_failed"
        flood, others = ["192.0.2.1"], [f"198.51.100.{n}" for n in range(8)]
        for name, one, all_sources, hosts, reasons in (
            (
                "another address is another source",
                *(Rate(10.0, 3), many, flood * 5 + ["192.0.2.2"]),
                [unsealed] * 3 + ["source_rate"] * 2 + [unsealed],
            ),
            (
                "all of a /64 are one source",
                *(Rate(1.0, 1), many),
                ["2001:db8:0:1::1", "2001:db8:0:1:ffff::2", "2001:db8:0:2::1"],
                [unsealed, "source_rate", unsealed],
            ),
            (
                "an IPv4 sender is one source, however the socket names it",
                *(Rate(1.0, 1), many, ["192.0.2.1", "::ffff:192.0.2.1"]),
                [unsealed, "source_rate"],
            ),
            (
                "this machine is held to the rate of all sources only",
                *(Rate(1.0, 1), Rate(1.0, 3), ["127.0.0.1", "127.0.0.1", "::1", "::1"]),
                [unsealed] * 3 + ["request_rate"],
            ),
            (
                "all together have no more than their common rate",
                *(Rate(50.0, 100), Rate(10.0, 4), others),
                [unsealed] * 4 + ["request_rate"] * 4,
            ),
            (
                "a flood from one address does not use up the common rate",
                *(Rate(10.0, 2), Rate(10.0, 4), flood * 100 + ["192.0.2.2"]),
                [unsealed] * 2 + ["source_rate"] * 98 + [unsealed],
            ),
        ):
            with self.subTest(name):
                table = self.table(source_rate=one, request_rate=all_sources)
                self.assertEqual(self.reasons(table, hosts), reasons)

    def test_one_source(self) -> None:
        """One address has a burst and then a rate, whatever ports it sends from."""
        table = self.table(source_rate=Rate(10.0, 3), request_rate=MANY)
        reasons = self.reasons(table, ["192.0.2.1"] * 5)
        self.assertEqual(reasons, ["unseal_failed"] * 3 + ["source_rate"] * 2)
        table.now += 0.1
        reasons = self.reasons(table, ["192.0.2.1"] * 2)
        self.assertEqual(reasons, ["unseal_failed", "source_rate"])

    def test_secret(self) -> None:
        """Each start draws anew which sources share a bucket, so that no sender can choose."""
        shared = []
        for seed in (1, 2):
            rate = Rate(1.0, 1)
            table = self.table(seed=seed, source_rate=rate, request_rate=MANY, source_buckets=64)
            hosts = [f"198.51.100.{n}" for n in range(200)]
            shared.append(self.reasons(table, hosts))
        self.assertNotEqual(*shared)

    def test_cheap_ones_are_free(self) -> None:
        """A request that is refused before the unsealing is not charged."""
        table = self.table(source_rate=Rate(0.01, 1))
        token = self.token(table)
        expired = make_token(created_at=EPOCH, lifetime=30)
        for _ in range(10):
            self.assertEqual(table.why(request_of(expired)), "expired")
        self.assertEqual(len(table.receive(request_of(token))), 1)

    def test_nothing_stays(self) -> None:
        """Forged requests from many sources leave nothing behind in memory."""
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
