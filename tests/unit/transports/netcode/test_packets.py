"""Packets, the replay window, the history of tokens, and limits: the parts of the netcode core."""

from __future__ import annotations

import struct

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.bindings import crypto_aead_chacha20poly1305_ietf_encrypt
from twisted.trial.unittest import SynchronousTestCase

from playerstate.transports.netcode.history import TokenHistory
from playerstate.transports.netcode.limits import Buckets, Rate, SourceBuckets
from playerstate.transports.netcode.packets import (
    CHALLENGE,
    DENIED,
    DISCONNECT,
    KEEP_ALIVE,
    PAYLOAD,
    RESPONSE,
    TO_SERVER,
    Ignored,
    Seals,
    check_body,
    read_header,
)
from playerstate.transports.netcode.replay import ReplayWindow
from playerstate.transports.netcode.settings import NetcodeSettings
from playerstate.transports.netcode.tally import Tally
from playerstate.transports.netcode.tokens import VERSION
from tests.kit.netcode import ADDRESS, KEY, PROTOCOL_ID
from tests.kit.support import LAW

sequences = st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 63).map(lambda n: 2**n))


class PacketTests(SynchronousTestCase):
    """Prefix byte, sequence, sealed body."""

    seals = Seals(PROTOCOL_ID)
    cipher = ChaCha20Poly1305(KEY)

    def test_bytes(self) -> None:
        """The number without high zero bytes, then the body, sealed by another's hand."""
        for sequence, prefix, number in (
            (0, 0x15, "00"),
            (255, 0x15, "ff"),
            (1000, 0x25, "e803"),
            (2**63, 0x85, "0000000000000080"),
        ):
            packet = self.seals.seal(self.cipher, PAYLOAD, sequence, b"abc")
            head = bytes((prefix,)) + bytes.fromhex(number)
            associated = VERSION + struct.pack("<QB", PROTOCOL_ID, prefix)
            nonce = bytes(4) + struct.pack("<Q", sequence)
            sealed = crypto_aead_chacha20poly1305_ietf_encrypt(b"abc", associated, nonce, KEY)
            self.assertEqual(packet, head + sealed)

    @LAW
    @given(
        kind=st.sampled_from(sorted(TO_SERVER)), sequence=sequences, body=st.binary(max_size=1200)
    )
    def test_round_trip(self, kind: int, sequence: int, body: bytes) -> None:
        """What is sealed is read again, and opens."""
        packet = self.seals.seal(self.cipher, kind, sequence, body)
        read = read_header(packet, TO_SERVER)
        self.assertEqual(read[:2], (kind, sequence))
        self.assertEqual(self.seals.open(self.cipher, packet, *read[1:]), body)

    @LAW
    @given(packet=st.binary(min_size=1, max_size=60), flipped=st.integers(0, 10**6))
    def test_reader(self, packet: bytes, flipped: int) -> None:
        """Anything at all is read, or ignored; nothing that was not sealed opens."""
        try:
            _, sequence, at = read_header(packet, TO_SERVER)
        except Ignored:
            pass
        else:
            self.assertRaises(Ignored, self.seals.open, self.cipher, packet, sequence, at)
        whole = self.seals.seal(self.cipher, PAYLOAD, 300, packet)
        bit = flipped % (8 * len(whole))
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        with self.assertRaises(Ignored):
            _, sequence, at = read_header(bytes(changed), TO_SERVER)
            self.seals.open(self.cipher, bytes(changed), sequence, at)

    def reason(self, packet: bytes) -> str:
        """Why a packet is not read."""
        return self.assertRaises(Ignored, read_header, packet, TO_SERVER).reason

    def test_reasons(self) -> None:
        """Length first, then the kind, then the number of sequence bytes."""
        rest = bytes(40)
        self.assertEqual(self.reason(b"\x15" + bytes(16)), "too_short")
        self.assertEqual(self.reason(b"\x15" + bytes(1225)), "too_long")
        for kind in (0, 7, 15):
            self.assertEqual(self.reason(bytes((0x10 | kind,)) + rest), "bad_type")
        for kind in (DENIED, CHALLENGE):
            self.assertEqual(self.reason(bytes((0x10 | kind,)) + rest), "type_not_allowed")
        for count in (0, 9, 15):
            self.assertEqual(self.reason(bytes((count << 4 | 5,)) + rest), "bad_sequence_length")
        self.assertEqual(self.reason(b"\x85" + bytes(23)), "too_short")
        read_header(b"\x85" + bytes(24), TO_SERVER)
        read_header(b"\x85" + bytes(1224), TO_SERVER)

    def test_long_form(self) -> None:
        """A number written longer than needed is read as itself."""
        packet = b"\x35\x05\0\0" + bytes(16)
        self.assertEqual(read_header(packet, TO_SERVER), (PAYLOAD, 5, 4))

    def test_body_sizes(self) -> None:
        """Each kind has its length."""
        for kind, low, high in (
            (DENIED, 0, 0),
            (CHALLENGE, 308, 308),
            (RESPONSE, 308, 308),
            (KEEP_ALIVE, 8, 8),
            (PAYLOAD, 1, 1200),
            (DISCONNECT, 0, 0),
        ):
            for size in (low, high):
                check_body(kind, bytes(size))
            for size in {low - 1, high + 1} - {-1}:
                self.assertRaises(Ignored, check_body, kind, bytes(size))


class Cells:
    """The standard's own replay window: 256 cells, each with the last number that fell on it."""

    def __init__(self) -> None:
        self.newest = 0
        self.cells = [-1] * 256

    def take(self, sequence: int) -> bool:
        """Whether the number is taken in."""
        if self.newest >= 256 and sequence <= self.newest - 256:
            return False
        if self.cells[sequence % 256] >= sequence:
            return False
        self.cells[sequence % 256] = sequence
        self.newest = max(self.newest, sequence)
        return True


class ReplayTests(SynchronousTestCase):
    """The replay window."""

    @settings(LAW, max_examples=300)
    @given(
        start=st.sampled_from((0, 1, 255, 256, 2**32, 2**64 - 600)),
        steps=st.lists(st.integers(0, 599), max_size=80),
    )
    def test_as_the_standard_has_it(self, start: int, steps: list[int]) -> None:
        """Whatever comes, in whatever order, each number ends as with the standard's cells."""
        window, cells = ReplayWindow(), Cells()
        for step in steps:
            sequence = start + step
            is_new = window.is_new(sequence)
            if is_new:
                window.note(sequence)
            self.assertEqual(is_new, cells.take(sequence), sequence)

    def test_asking_changes_nothing(self) -> None:
        """A number that was asked for and not noted is still new."""
        window = ReplayWindow()
        window.note(1000)
        for sequence in (2**64 - 1, 999, 745):
            self.assertTrue(window.is_new(sequence))
        self.assertFalse(window.is_new(744))
        self.assertTrue(window.is_new(1001))

    def test_memory(self) -> None:
        """However far the numbers run, what is kept is a window's worth of bits."""
        window = ReplayWindow()
        for sequence in (*range(1000), 2**40, *range(2**63, 2**63 + 1000)):
            window.note(sequence)
        self.assertLessEqual(window._seen.bit_length(), 256)


class HistoryTests(SynchronousTestCase):
    """Which tokens were seen."""

    def admit(self, history: TokenHistory, tag: bytes, **given: object) -> str:
        """Why a token is refused; empty if it is not."""
        arguments = {"expires_at": 100, "source": "here", "unix_now": 50.0} | given
        try:
            history.admit(tag, **arguments)  # type: ignore[arg-type]
        except Ignored as ignored:
            return ignored.reason
        return ""

    def test_pending(self) -> None:
        """A token passes again from where it came first, and from nowhere else."""
        history = TokenHistory(4)
        self.assertEqual(self.admit(history, b"A"), "")
        self.assertEqual(self.admit(history, b"A"), "")
        self.assertEqual(self.admit(history, b"A", source="there"), "token_pending_elsewhere")
        self.assertEqual(self.admit(history, b"A"), "")

    def test_consumed(self) -> None:
        """A used token passes no more."""
        history = TokenHistory(4)
        self.admit(history, b"A")
        history.consume(b"A")
        self.assertEqual(self.admit(history, b"A"), "token_consumed")
        self.assertEqual(self.admit(history, b"A", source="there"), "token_consumed")

    def test_full(self) -> None:
        """A full history takes no new token, forgets none, and still knows its own."""
        history = TokenHistory(2)
        for tag in (b"A", b"B"):
            self.admit(history, tag)
        history.consume(b"A")
        for tag in (b"C", b"D"):
            self.assertEqual(self.admit(history, tag), "token_history_full")
        self.assertEqual(self.admit(history, b"A"), "token_consumed")
        self.assertEqual(self.admit(history, b"B"), "")

    def test_expiry(self) -> None:
        """A token is kept until it expires, to the second, and makes room then."""
        history = TokenHistory(2)
        self.admit(history, b"A", expires_at=60)
        self.admit(history, b"B", expires_at=70)
        self.assertEqual(self.admit(history, b"C", unix_now=59.9), "token_history_full")
        self.assertEqual(self.admit(history, b"C", unix_now=60.0), "")
        self.assertEqual(len(history), 2)
        history.consume(b"A")
        self.assertEqual(self.admit(history, b"B", unix_now=60.0), "")


class LimitTests(SynchronousTestCase):
    """Token buckets."""

    def test_rate(self) -> None:
        """So many at once, then so many a second, and after a rest as many at once again."""
        buckets = Buckets(Rate(10.0, 5))
        taken = [buckets.take(0.0) for _ in range(7)]
        self.assertEqual(taken, [True] * 5 + [False] * 2)
        # 100 a second ask for 10 seconds.
        passed = sum(buckets.take(0.01 * n) for n in range(1, 1001))
        self.assertIn(passed, (99, 100, 101))
        self.assertEqual([buckets.take(60.0) for _ in range(6)], [True] * 5 + [False])

    def test_one_apart(self) -> None:
        """With a burst of one they must keep their distance, and early ones cost nothing."""
        buckets = Buckets(Rate(4.0, 1))
        taken = [buckets.take(now) for now in (0.0, 0.125, 0.25, 0.375, 0.5)]
        self.assertEqual(taken, [True, False, True, False, True])

    def test_sources(self) -> None:
        """One network does not use up another's, and a million need no more memory than one."""
        buckets = SourceBuckets(Rate(1.0, 2), 64, b"secret")
        self.assertEqual([buckets.take(0.0, b"AAAA") for _ in range(3)], [True, True, False])
        others = [struct.pack("<I", n) for n in range(200)]
        self.assertGreater(sum(buckets.take(0.0, other) for other in others), 60)
        self.assertEqual(len(buckets._buckets._full_at), 64)

    def test_secret(self) -> None:
        """Which networks share a bucket depends on the secret."""

        def shared(secret: bytes) -> list[bool]:
            buckets = SourceBuckets(Rate(1.0, 1), 8, secret)
            return [buckets.take(0.0, struct.pack("<I", n)) for n in range(64)]

        self.assertEqual(shared(b"one"), shared(b"one"))
        self.assertNotEqual(shared(b"one"), shared(b"two"))


class SettingsTests(SynchronousTestCase):
    """What a server is told."""

    def test_bounds(self) -> None:
        """A key of another length and a protocol id beyond 64 bits are refused by name."""
        self.assertIn(
            "32 bytes", str(self.assertRaises(ValueError, NetcodeSettings, b"K", 1, frozenset()))
        )
        for protocol_id in (-1, 2**64):
            error = self.assertRaises(ValueError, NetcodeSettings, KEY, protocol_id)
            self.assertIn("protocol id", str(error))

    def test_history_size(self) -> None:
        """The history holds what is let pass while a token lives, and 8 tokens a slot at least."""
        small = NetcodeSettings(KEY, 1, frozenset((ADDRESS,)), slots=4)
        self.assertEqual(small.history_size, 2_000 * 32 + 4_000)
        self.assertEqual(small.half_open, 16)
        large = NetcodeSettings(KEY, 1, slots=100_000)
        self.assertEqual(large.history_size, 800_000)

    def test_key_is_not_shown(self) -> None:
        """What is printed of it shows no key."""
        self.assertNotIn("private_key", repr(NetcodeSettings(KEY, 1)))


class TallyTests(SynchronousTestCase):
    """The line in the log."""

    def test_summary(self) -> None:
        """It tells what was new, the commonest reason first; nothing where nothing was."""
        tally = Tally()
        self.assertEqual(tally.summary(Tally()), "")
        before = tally.copy()
        tally.connected += 3
        tally.denied += 1
        tally.ignored["expired"] += 2
        tally.ignored["open_failed"] += 5
        self.assertEqual(
            tally.summary(before),
            "3 connected, 0 disconnected, 0 timed out, 0 ended by the server, 0 of them replaced,"
            " 0 moved to another port; 0 challenged, 1 denied without a free slot;"
            " 7 datagrams ignored (open_failed 5, expired 2)",
        )
        before = tally.copy()
        tally.timed_out += 1
        self.assertIn("1 timed out", tally.summary(before))
        self.assertTrue(tally.summary(before).endswith("; 0 datagrams ignored"))
