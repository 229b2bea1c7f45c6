"""Take moves off netcode: opened and applied on one core, at a pace, and forged requests."""

from __future__ import annotations

import time
from contextlib import ExitStack

import attrs

from bench.cases.udp import Turns, start
from bench.counter import Counter
from bench.figures import OURS, Figure, Outcome, Target, median
from bench.forged import Forgeries
from bench.leash import child
from bench.paced_sender import HERTZ
from bench.rounds import interleave
from bench.stage import Stage
from bench.udp_server import NETCODE, NO_OP
from bench.udp_server import OURS as PLAIN

PLAYERS = 1_000
NAMES = {NETCODE: OURS, PLAIN: "playerstate, plain UDP", NO_OP: "no-op DatagramProtocol"}
UNIT = "moves/s"
ONE_CORE, WALL = (f"{PLAYERS:,} players, {what}" for what in ("of one core", "wall clock"))
PACED = f"{PLAYERS:,} players at {HERTZ} Hz"
FORGED = "a forged request"
FORGED_NAMES = {
    "a forged request": OURS,
    "the unsealing alone": "its unsealing alone, by libsodium",
    "beyond the rate": "playerstate, beyond 2,000 a second",
}
SETTLES = 0.5
LOOK_EVERY = 0.005


def run(stage: Stage) -> Outcome:
    """Let the transports take turns with their own senders; then the pace, then the forgeries."""
    figures, lost = _flood(stage)
    paces = {NETCODE: 0.5} if stage.quick else {NETCODE: 30.0, PLAIN: 3.0}
    paced = {kind: _pace(stage, kind, seconds) for kind, seconds in paces.items()}
    figures += [Figure(NAMES[kind], PACED, "%", [found.cpu]) for kind, found in paced.items()]
    figures += _forge(stage)
    netcode = paced[NETCODE]
    notes = [
        "of one core: a second in which the reactor thread has a processor; the persist thread and"
        " the sender have theirs besides; receipts and keep-alives to all clients are included",
        "packets are sealed before a turn begins; each client has an address of its own",
        f"{PACED}: the reactor thread's time on a processor; {netcode.sent:,} moves in"
        f" {netcode.sent / PLAYERS / HERTZ:.0f} s over netcode",
    ]
    targets = [
        Target("moves opened and applied", median(figures, OURS, ONE_CORE), 150_000, True, UNIT),
        Target("datagrams lost on the way", lost, 0),
        Target(f"moves lost, {PACED}", netcode.lost, 0),
        Target(FORGED, median(figures, OURS, FORGED), 10.0, unit="us"),
    ]
    return Outcome(figures, targets, notes=notes)


def _flood(stage: Stage) -> tuple[list[Figure], int]:
    """As many as a core takes; the rates, and how many datagrams were lost."""
    with ExitStack() as stack:
        stage.say("start, connect and join")
        kinds = (NETCODE, PLAIN) if stage.quick else tuple(NAMES)
        turns = {kind: Turns(start(stack, stage, kind, PLAYERS), stage.quick) for kind in kinds}
        interleave(
            {NAMES[kind]: turn.measure for kind, turn in turns.items()},
            2.0 if stage.quick else 15.0,
            say=stage.say,
        )
    figures = [
        Figure(NAMES[kind], setting, UNIT, turn.rates[what])
        for setting, what in ((ONE_CORE, "of one core"), (WALL, "wall clock"))
        for kind, turn in turns.items()
    ]
    return figures, sum(turn.lost for turn in turns.values())


@attrs.frozen
class _Paced:
    """What came of players at their pace.

    Attributes:
        sent, lost: moves.
        cpu: of the reactor thread, in percent of the time.
    """

    sent: int
    lost: int
    cpu: float


def _pace(stage: Stage, kind: str, seconds: float) -> _Paced:
    stage.say(f"{NAMES[kind]}, {PACED}")
    with ExitStack() as stack:
        server = stack.enter_context(child("udp_server", kind, PLAYERS, stage.directory))
        at = server.hear()
        counter = Counter(at["counter"], new=False)
        moves = int(seconds * HERTZ)
        sender = stack.enter_context(
            child("paced_sender", kind, PLAYERS, at["port"], moves, stage.directory)
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
