"""Take moves off netcode: opened and applied on one core, at a pace, and forged requests."""

from __future__ import annotations

import time
from contextlib import ExitStack

import attrs

from bench.cases.udp import Turns, start
from bench.children import child
from bench.counter import Counter
from bench.figures import OURS, Figure, Outcome, Target, median
from bench.forged import Forgeries
from bench.paced_sender import HERTZ
from bench.rounds import interleave
from bench.stage import Stage
from bench.udp_server import NETCODE, NO_OP
from bench.udp_server import OURS as PLAIN

PLAYERS, QUICK_PLAYERS = 1_000, 400
NAMES = {NETCODE: OURS, PLAIN: "playerstate, plain UDP", NO_OP: "no-op DatagramProtocol"}
UNIT = "moves/s"
FORGED = "a forged request"
FORGED_NAMES = {
    "a forged request": OURS,
    "the unsealing alone": "its unsealing alone, by libsodium",
    "beyond the rate": "playerstate, beyond 2,000 a second",
}
SETTLES = 0.5
LOOK_EVERY = 0.005


def run(stage: Stage) -> Outcome:
    """Let the transports take turns with their own senders; then measure the pace and forgeries."""
    players = QUICK_PLAYERS if stage.quick else PLAYERS
    figures, lost = _flood(stage, players)
    pace = f"{players:,} players at {HERTZ} Hz"
    paces = {NETCODE: 0.5} if stage.quick else {NETCODE: 30.0, PLAIN: 3.0}
    paced = {kind: _pace(stage, kind, players, seconds) for kind, seconds in paces.items()}
    figures += [Figure(NAMES[kind], pace, "%", [found.cpu]) for kind, found in paced.items()]
    figures += _forge(stage)
    netcode = paced[NETCODE]
    notes = [
        "of one core: a second in which the reactor thread has a processor; the persist thread and"
        " the sender have theirs besides; receipts and keep-alives to all clients are included",
        "packets are sealed before a turn begins; each client has its own address",
        f"{pace}: the reactor thread's time on a processor; {netcode.sent:,} moves in"
        f" {netcode.sent / players / HERTZ:.1f} s over netcode",
    ]
    targets = [
        Target(
            "moves opened and applied",
            median(figures, OURS, f"{players:,} players, of one core"),
            150_000,
            True,
            UNIT,
        ),
        Target("datagrams lost on the way", lost, 0),
        Target(f"moves lost, {pace}", netcode.lost, 0),
        Target(FORGED, median(figures, OURS, FORGED), 10.0, unit="us"),
    ]
    return Outcome(figures, targets, notes=notes)


def _flood(stage: Stage, players: int) -> tuple[list[Figure], int]:
    """Send as many as one core takes; return the rates and the number of datagrams lost."""
    with ExitStack() as stack:
        stage.say("start, connect and join")
        kinds = (NETCODE, PLAIN) if stage.quick else tuple(NAMES)
        turns = {kind: Turns(start(stack, stage, kind, players), stage.quick) for kind in kinds}
        interleave(
            {NAMES[kind]: turn.measure for kind, turn in turns.items()},
            2.0 if stage.quick else 15.0,
            say=stage.say,
        )
    figures = [
        Figure(NAMES[kind], f"{players:,} players, {what}", UNIT, turn.rates[what])
        for what in ("of one core", "wall clock")
        for kind, turn in turns.items()
    ]
    return figures, sum(turn.lost for turn in turns.values())


@attrs.frozen
class _Paced:
    """The result of players who move at a fixed pace.

    Attributes:
        sent, lost: moves.
        cpu: of the reactor thread, in percent of the time.
    """

    sent: int
    lost: int
    cpu: float


def _pace(stage: Stage, kind: str, players: int, seconds: float) -> _Paced:
    stage.say(f"{NAMES[kind]}, {players:,} players at {HERTZ} Hz")
    with ExitStack() as stack:
        server = stack.enter_context(child("udp_server", kind, players, stage.directory))
        at = server.hear()
        counter = Counter(at["counter"], new=False)
        moves = int(seconds * HERTZ)
        sender = stack.enter_context(
            child("paced_sender", kind, players, at["port"], moves, stage.directory)
        )
        while (began := counter.read()).count == 0:
            time.sleep(LOOK_EVERY)
        sent = sender.hear()["sent"]
        time.sleep(SETTLES)
        taken = counter.read()
        cpu = (taken.cpu - began.cpu) / (seconds + SETTLES) * 100.0
        return _Paced(sent, sent - taken.count, cpu)


def _forge(stage: Stage) -> list[Figure]:
    measures = Forgeries().measures()
    values = interleave(measures, 0.3 if stage.quick else 2.0, say=stage.say)
    return [Figure(FORGED_NAMES[name], FORGED, "us", found) for name, found in values.items()]
