"""Take moves in, with and without a judge: what a speed limit adds to each move."""

from __future__ import annotations

import struct
import time
from typing import Any

import attrs

from bench.figures import Figure, Outcome, Target, ratio
from bench.ours import SCHEMA
from bench.rounds import interleave
from bench.stage import Stage
from playerstate import Gateway, PlayerState, SpeedLimit
from playerstate.testing import SteppedService
from playerstate.wire.messages import Codec

PLAYERS = 10_000
NONE, LIMIT = "playerstate, no judge", "playerstate, SpeedLimit"
SIZES = {128: "128 at a time", 1: "one at a time"}
UNIT = "moves/s"
STEP = 0.0625
"""Seconds between two moves of a player, by the servers' clock: a power of two."""


def run(stage: Stage) -> Outcome:
    """Let two gateways take turns, in one process."""
    figures: list[Figure] = []
    stage.say(f"{PLAYERS:,} players join, twice")
    crowds = {
        NONE: Crowd.joined([]),
        LIMIT: Crowd.joined([SpeedLimit("x", "y", per_second=32.0, slack=4.0)]),
    }
    for size, setting in SIZES.items():
        rates = interleave(
            {name: crowd.measure(size) for name, crowd in crowds.items()},
            stage.seconds / len(SIZES) - 0.5,
            say=lambda text, setting=setting: stage.say(f"{setting}: {text}"),
        )
        figures += [Figure(name, setting, UNIT, values) for name, values in rates.items()]
    for crowd in crowds.values():
        crowd.check()
    setting = SIZES[128]
    return Outcome(
        figures,
        [
            Target(
                f"of the rate without a judge, {PLAYERS:,} players, {setting}",
                ratio(figures, NONE, setting, LIMIT),
                0.5,
                at_least=True,
            )
        ],
        notes=[
            "from the gateway into the live table, in processor time; no socket, nothing is saved",
        ],
    )


class Nowhere:
    """A transport that takes answers and sends none."""

    def send(self, session_id: int, peer: Any, nonce: int, message: bytes) -> None:
        """See `Transport.send`."""

    def end(self, session_id: int, peer: Any) -> None:
        """See `Transport.end`."""


@attrs.define(eq=False)
class Crowd:
    """Players who walk on a server in this process.

    Attributes:
        stepped, gateway: the server.
        sequence: of the players' last moves.
    """

    stepped: SteppedService
    gateway: Gateway
    sequence: int = 0

    @classmethod
    def joined(cls, judges: list[Any]) -> Crowd:
        """Players who have joined a server with these judges."""
        stepped = SteppedService(PlayerState, max_players=PLAYERS, queue_size=16_384)
        gateway = Gateway(stepped.service, idle_timeout=3_600.0, judges=judges)
        gateway.start()
        crowd = cls(stepped, gateway)
        crowd.send([Codec(SCHEMA).encode_join(7, 0)] * PLAYERS, 128)
        return crowd

    def send(self, messages: list[bytes], size: int) -> float:
        """A message of each player arrives, so many at a time; seconds of the processor."""
        transport, ids = Nowhere(), list(range(1, PLAYERS + 1))
        received = self.gateway.received_many
        started = time.thread_time()
        for at in range(0, PLAYERS, size):
            some = ids[at : at + size]
            received(transport, some, some, messages[at : at + size], 0)
        return time.thread_time() - started

    def measure(self, size: int) -> Any:
        """A measure that returns moves a second of all players, so many at a time."""

        def measured() -> float:
            self.sequence += 1
            place = 350.0 + self.sequence
            message = struct.pack("<BIdd", 2, self.sequence, place, 200.0)
            self.stepped.reactor.advance(STEP)
            self.stepped.settle()
            return PLAYERS / self.send([message] * PLAYERS, size)

        measured()  # warm
        return measured

    def check(self) -> None:
        """Every move was applied."""
        applied = self.stepped.service.ledger.applied
        assert applied == PLAYERS * self.sequence, (applied, self.sequence)
