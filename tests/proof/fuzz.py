"""Anything at all as datagrams: ``python -m tests.proof.fuzz`` lets atheris look for worse.

`play` reads bytes as a scenario: datagrams from a few addresses, well formed or not, with time, the
persist thread and the program around the service going on in between, and a judge of moves.
Whatever it says, nothing may be raised, nothing may grow, and the books must balance.  Hypothesis
draws such scenarios in
`tests.unit.conversations.test_fuzz`; atheris breeds them, led by the lines of the package that each
one reaches.
"""

from __future__ import annotations

import argparse
import resource
import struct
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, globalLogPublisher
from zope.interface import implementer

from playerstate import PlayerState, StateSchema
from playerstate.conversations.gateway import Gateway
from playerstate.interfaces import IMoveJudge
from playerstate.players.service import NotOnline, ServerFull, UnknownPlayer
from playerstate.testing import Address, SteppedService
from playerstate.transports.plain import PlainService
from playerstate.wire.messages import JOIN, LEAVE, MOVE, PING, SEEN, Codec, encode_numbered
from tests.kit.players import run_of

MAX_PLAYERS = 3
SESSION_IDS = (0, 1, 2, 3, 4, 2**63 - 1, 2**63, 2**64 - 1)
ADDRESSES: tuple[Address, ...] = tuple((f"192.0.2.{n}", 1000 + n) for n in range(4))
PAUSES = (0.0, 0.02, 0.1, 0.5, 3.0, 40.0)
CODEC = Codec(StateSchema.of(PlayerState))
JOIN_BYTES, SEEN_BYTES = CODEC.join_size, CODEC.seen_size
MAX_STORY = 4096


class Scenario:
    """Bytes that are read as numbers; at their end they are zeros."""

    def __init__(self, data: bytes) -> None:
        self._data = data[:MAX_STORY]
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        """So many bytes."""
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken.ljust(size, b"\0")

    def number(self) -> int:
        """A byte."""
        return self.take(1)[0]


def play(data: bytes) -> None:
    """Start a server, let it live through a scenario, and stop it.

    Raises:
        AssertionError: it logged a failure, something grew, or the books do not balance.
    """
    failures: list[LogEvent] = []

    def look(event: LogEvent) -> None:
        if "log_failure" in event:
            failures.append(event)

    globalLogPublisher.addObserver(look)
    server = Server()
    try:
        server.live(Scenario(data))
    finally:
        server.close()
        globalLogPublisher.removeObserver(look)
    assert not failures, failures[0]["log_failure"].getTraceback()


@implementer(IMoveJudge)
class LeftJudge:
    """A judge that lets no player move to the left of 0."""

    reason = "left"

    def passing(
        self,
        slots: npt.NDArray[np.intp],
        before: npt.NDArray[np.void],
        after: npt.NDArray[np.void],
        seconds: npt.NDArray[np.float64],
    ) -> npt.NDArray[np.bool_]:
        """See `IMoveJudge`."""
        passes: npt.NDArray[np.bool_] = after["x"] >= 0
        return passes


class Server:
    """A server that lives through scenarios."""

    def __init__(self) -> None:
        self.stepped = SteppedService(max_players=MAX_PLAYERS, queue_size=2)
        self.service = self.stepped.service
        self.gateway = Gateway(
            self.service, idle_timeout=30.0, judges=[LeftJudge()], jitter=lambda: 0.5
        )
        reactor = self.stepped.reactor
        self.transport = PlainService(self.gateway, 7777, reactor=reactor)
        self.transport.startService()
        self.port = reactor.ports[7777]
        self.received = 0
        self.acts: tuple[Callable[[Scenario], None], ...] = (
            self.wait,
            self.send_noise,
            self.send_message,
            self.send_join,
            self.send_move,
            self.send_numbered,
            self.send_long,
            self.send_seen,
            self.change,
        )

    def live(self, scenario: Scenario) -> None:
        """From start to stop."""
        while scenario:
            self.acts[scenario.number() % len(self.acts)](scenario)
            self.check()
        stopped: list[Any] = []
        self.transport.stopService().addBoth(stopped.append)
        self.stepped.settle()
        self.stepped.reactor.advance(1.0)
        self.stepped.settle()
        assert len(stopped) == 1, "the transport does not stop"
        assert not self.service.ledger.snapshot().pending, "not all is saved"
        self.stepped.stop().addBoth(stopped.append)
        assert len(stopped) == 2, "it does not stop"
        assert not self.service.gave_up
        self.check()

    def close(self) -> None:
        """Let go of what the system gave."""
        self.port.getHandle().close()

    def check(self) -> None:
        """What holds after each act."""
        books = self.service.ledger.snapshot()
        assert not books.imbalance(), books.imbalance()
        if self.gateway._run is None:
            return
        registry = self.gateway._run.registry
        sizes = (
            *(len(registry.current), len(registry.at_slot), len(registry.departed)),
            *(
                len(registry.joining),
                books.players_online + books.players_leaving,
                books.players_online,
            ),
        )
        assert max(sizes) <= MAX_PLAYERS, sizes

    def wait(self, scenario: Scenario) -> None:
        """Time passes, and the persist thread may get a turn in it."""
        choice, known = scenario.number(), self._known()
        self.port.take()
        self.stepped.reactor.advance(PAUSES[choice % len(PAUSES)])
        if choice & 0x80:
            self.stepped.step()
        for message, to in self.port.take():
            assert to in known | self._known(), (message, to)

    def _known(self) -> set[Address]:
        """Where the players of all conversations are."""
        registry = run_of(self.gateway).registry
        return {each.peer for each in (*registry.current.values(), *registry.departed.values())}

    def receive(self, datagram: bytes, whence: int) -> None:
        """A datagram arrives; no answer to it is longer than itself, unless the sender has joined.

        Each sender of a JOIN pays for its answer.
        """
        before, known = self.service.ledger.snapshot(), self._known()
        self.port.take()
        address = ADDRESSES[whence % len(ADDRESSES)]
        self.port.receive(datagram, address)
        for answer, to in self.port.take():
            assert to in known or (to == address and len(answer) <= len(datagram)), (answer, to)
        after = self.service.ledger.snapshot()
        joins = sum(after.joins_refused.values()) + after.joins
        joins -= sum(before.joins_refused.values()) + before.joins
        # A player who is put back is changed.
        most = 1 + after.rejected.get("left", 0) - before.rejected.get("left", 0)
        assert after.received - before.received + joins <= most

    def send_noise(self, scenario: Scenario) -> None:
        """Anything, from anywhere."""
        self.receive(scenario.take(scenario.number()), scenario.number())

    def send_message(self, scenario: Scenario) -> None:
        """Anything, under some session id."""
        self.receive(self._id(scenario) + scenario.take(scenario.number() % 64), scenario.number())

    def send_join(self, scenario: Scenario) -> None:
        """A JOIN, of some length."""
        head = (JOIN, 1, 0, scenario.number() % 8, scenario.number(), scenario.number() % 2)
        join = struct.pack("<BBIIIQ", *head).ljust(JOIN_BYTES - 1 + scenario.number() % 4, b"\0")
        self.receive(self._id(scenario) + join, scenario.number())

    def send_move(self, scenario: Scenario) -> None:
        """A MOVE with any two floats."""
        move = struct.pack("<BI", MOVE, scenario.number()) + scenario.take(16)
        self.receive(self._id(scenario) + move, scenario.number())

    def send_numbered(self, scenario: Scenario) -> None:
        """A LEAVE or a PING."""
        kind = (LEAVE, PING)[scenario.number() % 2]
        self.receive(
            self._id(scenario) + encode_numbered(kind, scenario.number()), scenario.number()
        )

    def send_long(self, scenario: Scenario) -> None:
        """Something near the longest there is."""
        message = bytes((scenario.number() % 8,)) * (1190 + scenario.number() % 32)
        self.receive(self._id(scenario) + message, scenario.number())

    def send_seen(self, scenario: Scenario) -> None:
        """A SEEN, of the player's present number, or of one near it."""
        head = self._id(scenario)
        slot = self.service.table.slots.get(struct.unpack_from("<Q", head)[0])
        number = 0 if slot is None else self.service.table.updated_at(slot)
        number = max(0, number + (0, 0, 0, 1, -1, -2, 2**62, -(2**62))[scenario.number() % 8])
        seen = struct.pack("<BQI", SEEN, number, scenario.number()).ljust(SEEN_BYTES, b"\0")
        self.receive(head + seen, scenario.number())

    def change(self, scenario: Scenario) -> None:
        """The program changes a player, who may be offline or leave."""
        session_id, choice = 1 + scenario.number() % 4, scenario.number()
        service, value = self.service, float(scenario.number())
        try:
            if choice % 4 == 0:
                service.change(session_id, x=value)
            elif choice % 4 == 1:
                service.update(session_id, PlayerState(value, value))
            else:
                call = service.edit(session_id, create=choice & 4 != 0, x=value)
                self._expect(call if choice % 4 == 2 else service.leave(session_id), call)
        except NotOnline:
            pass

    def _expect(self, *calls: Deferred[Any]) -> None:
        """They may fail, but by nothing unforeseen."""
        for call in calls:
            call.addErrback(lambda failure: failure.trap(NotOnline, ServerFull, UnknownPlayer))

    def _id(self, scenario: Scenario) -> bytes:
        return struct.pack(
            "<QI", SESSION_IDS[scenario.number() % len(SESSION_IDS)], scenario.number() % 8
        )


def main(play: Callable[[bytes], None] = play) -> None:
    """Let atheris breed scenarios for so long."""
    parser = argparse.ArgumentParser(prog="python -m tests.proof.fuzz")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long")
    parser.add_argument(
        "corpus", nargs="?", help="a directory of scenarios to begin with, or one scenario"
    )
    options = parser.parse_args()
    try:
        import atheris
    except ImportError:
        sys.exit("python -m tests.proof.fuzz needs atheris: pip install atheris")
    for name in [name for name in sys.modules if name.startswith("playerstate.")]:
        module = sys.modules[name]
        for value in list(vars(module).values()):
            if isinstance(value, type) and value.__module__ == name:
                _instrument(atheris, value)
    begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    flags = (
        *(f"-max_total_time={int(options.minutes * 60)}", f"-max_len={MAX_STORY}"),
        *("-rss_limit_mb=1024", "-timeout=20", "-print_final_stats=1"),
    )
    corpus = [options.corpus] if options.corpus else []
    sys.stderr.write(f"begins at {begun >> 10} MiB\n")
    atheris.Setup([sys.argv[0], *flags, *corpus], play)
    atheris.Fuzz()


def _instrument(atheris: Any, cls: type) -> None:
    """Have every function of a class tell which of its lines are reached."""
    for name, function in list(vars(cls).items()):
        if isinstance(function, type(main)) and not name.startswith("__"):
            setattr(cls, name, atheris.instrument_func(function))


if __name__ == "__main__":
    main()
