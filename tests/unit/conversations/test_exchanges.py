"""The exchanges that the page on the wire format shows, held by the server byte for byte."""

from __future__ import annotations

import re
import struct

import attrs
from twisted.trial.unittest import SynchronousTestCase

from playerstate import server_owned, text, within
from playerstate.conversations.gateway import Gateway
from playerstate.state.default import PlayerState
from playerstate.state.schema import StateSchema
from playerstate.transports.plain import PlainService
from playerstate.wire.messages import Codec
from tests.kit.pages import blocks, read
from tests.kit.players import ServiceTestCase
from tests.kit.support import field, made

PAGE = "docs/wire.md"
PLAYER, ADDRESS, NONCE, SECRET = 42, ("192.0.2.1", 1001), 0x0BADCAFE, 0x0123456789ABCDEF
TYPES = {
    **{"JOIN": 0x01, "MOVE": 0x02, "LEAVE": 0x03, "PING": 0x04, "DELTA": 0x05, "SEEN": 0x06},
    **{"WELCOME": 0x81, "RECEIPT": 0x82, "REFUSED": 0x83, "GONE": 0x84, "STATE": 0x85},
}
_LINE = re.compile(r"(->|<-) +([A-Z]+) +([0-9a-f ]+?)(?: and ([0-9]+) zero bytes)?(?:  .*)?")
_CALL = re.compile(r" +service\.(\w+)\(42, (.+?)\)(?:  .*)?")


@attrs.frozen
class Fighter:
    """The state of the exchange with changes."""

    x: float = 350.0
    y: float = 200.0
    hp: int = attrs.field(default=100, metadata=server_owned())


@attrs.frozen
class Stepper:
    """The state of the exchange with a DELTA."""

    x: float = attrs.field(default=350.0, metadata=within(resolution=1 / 64))
    y: float = attrs.field(default=200.0, metadata=within(resolution=1 / 64))


def exchange(containing: str) -> list[str]:
    """The lines of the one exchange of the page that contains this."""
    (lines,) = (b.text for b in blocks(PAGE) if b.kind == "text" and containing in b.text)
    return lines.splitlines()


def datagram(line: str) -> tuple[str, bytes]:
    """The arrow of a line, and the datagram that it shows, whose type is the one named."""
    found = _LINE.fullmatch(line)
    assert found is not None, f"no exchange has a line like {line!r}"
    arrow, name, digits, zeros = found.groups()
    data = bytes.fromhex(digits) + bytes(int(zeros or 0))
    assert data[12] == TYPES[name], line
    return arrow, data


class ExchangeTests(ServiceTestCase):
    """A server that is sent what the page shows answers what the page shows."""

    def open(self, state: type) -> None:
        """Start a server that draws the page's secret."""
        self.stepped = self.start(state=state, save_within=5.0)
        self.service = self.stepped.service
        gateway = Gateway(self.service, jitter=lambda: 0.0, draw_secret=lambda: SECRET)
        plain = PlainService(gateway, 7777, reactor=self.stepped.reactor)
        plain.startService()
        self.port = self.stepped.reactor.ports[7777]
        self.addCleanup(self.port.stopListening)

    def answer(self) -> bytes:
        """The next datagram of the server, which comes before it would be idle."""
        for _ in range(1000):
            if self.port.sent:
                sent, address = self.port.sent.popleft()
                self.assertEqual(address, ADDRESS)
                return sent
            self.stepped.reactor.advance(0.01)
            self.stepped.settle()
        raise AssertionError("no answer came")

    def play(self, lines: list[str]) -> None:
        """Send what the client sends, make the program's calls, and compare the answers."""
        for line in lines:
            if (call := _CALL.fullmatch(line)) is not None:
                fields = dict(part.split("=") for part in call[2].split(", "))
                change = {name: float(value) for name, value in fields.items() if name != "hp"}
                change |= {name: int(value) for name, value in fields.items() if name == "hp"}
                getattr(self.service, call[1])(PLAYER, **change)
                continue
            arrow, expected = datagram(line)
            if arrow == "->":
                self.assertEqual(list(self.port.sent), [], line)
                self.port.receive(expected, ADDRESS)
            else:
                self.assertEqual(self.answer().hex(" "), expected.hex(" "), line)
        self.assertEqual(list(self.port.sent), [])

    def rejected(self) -> dict[str, int]:
        """The messages rejected, by reason."""
        return dict(self.service.ledger.snapshot().rejected)

    def test_moves(self) -> None:
        """JOIN, MOVE, LEAVE."""
        self.open(PlayerState)
        self.play(exchange("LEAVE"))
        self.assertEqual(self.stored(self.stepped), {PLAYER: (352.5, 200.0)})
        self.assertEqual(self.rejected(), {})

    def test_changes(self) -> None:
        """The program sets what the server owns, then moves the player, and is never undone."""
        self.open(Fighter)
        self.play(exchange("STATE"))
        self.assertEqual(self.service.state(PLAYER), Fighter(101.0, 100.0, 50))
        self.assertEqual(self.rejected(), {"not_seen": 1})

    def test_delta(self) -> None:
        """A step of a grid, from a MOVE that a RECEIPT has shown."""
        self.open(Stepper)
        join = struct.pack("<QIBBIIIQ", PLAYER, NONCE, 1, 1, 0, NONCE, 0, 0)
        self.port.receive(join.ljust(260, b"\0"), ADDRESS)
        self.answer()
        self.play(exchange("DELTA"))
        self.assertEqual(self.service.state(PLAYER), Stepper(335.984375, 200.015625))


class FigureTests(SynchronousTestCase):
    """Figures of the page."""

    def test_fingerprint(self) -> None:
        """The fingerprint of the default state, and that in the JOINs."""
        fingerprint = StateSchema.of(PlayerState).fingerprint
        self.assertIn(f"`x:float,y:float`, `{fingerprint:#010x}`", read(PAGE))
        for containing, state in (("LEAVE", PlayerState), ("STATE", Fighter)):
            _, join = datagram(exchange(containing)[0])
            self.assertEqual(join[14:18], StateSchema.of(state).fingerprint.to_bytes(4, "little"))
        self.assertIn(f"`{StateSchema.of(Fighter).canonical}`", read(PAGE))

    def test_lengths(self) -> None:
        """The least bytes of a JOIN, the STATEs that it pays for, and a PING that pays for one."""
        rows = re.findall(
            r"^\| (\d[\d,]*)(?: to ([\d,]+))?(?: bytes)? \| (\d) \| (.+) \|$", read(PAGE), re.M
        )
        self.assertEqual(len(rows), 4)
        for *bounds, states, least in rows:
            for size in (int(bound.replace(",", "")) for bound in bounds):
                codec = Codec(StateSchema.of(made(t=field(str, "", text(size)))))
                found = re.fullmatch(r"(\d+) \+ (?:(\d) . )?fields", least)
                assert found is not None
                constant, factor = found.groups()
                self.assertEqual(codec.join_size, int(constant) + int(factor or 1) * size)
                self.assertEqual(codec.states_paid_by(codec.join_size), int(states))
                # A sum of floats may make it one byte more than the least.
                self.assertIn(10 + 9 * (22 + size) // 7 - codec.ping_size, (0, 1))
        self.assertRegex(
            read(PAGE), r"a PING of 10 \+ 9 . \(22 \+ fields\) / 7 bytes, rounded down"
        )
