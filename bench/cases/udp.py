"""Take moves off UDP: applied on one core, with receipts, and none lost on the way."""

from __future__ import annotations

from contextlib import ExitStack

from bench.children import Child, child
from bench.figures import OURS, Figure, Outcome, Target, median, ratio
from bench.rivals import has, missing
from bench.rounds import interleave
from bench.stage import Stage
from bench.udp_server import CARBON, NO_OP

NAMES = {OURS: OURS, NO_OP: "no-op DatagramProtocol", CARBON: "carbon"}
UNIT = "moves/s"


def run(stage: Stage) -> Outcome:
    """Let the servers take turns with their own senders."""
    sizes = (1_000,) if stage.quick else (1_000, 15_000)
    kinds = [kind for kind in NAMES if kind != CARBON or has(CARBON)]
    figures: list[Figure] = []
    lost = answers = 0
    for size in sizes:
        with ExitStack() as stack:
            stage.say(f"{size:,} players: start and join")
            turns = {kind: Turns(start(stack, stage, kind, size), stage.quick) for kind in kinds}
            interleave(
                {NAMES[kind]: turn.measure for kind, turn in turns.items()},
                stage.seconds / len(sizes) - 2.0,
                say=lambda text, size=size: stage.say(f"{size:,} players: {text}"),
            )
        for what in ("of one core", "wall clock"):
            setting = f"{size:,} players, {what}"
            figures += [
                Figure(NAMES[kind], setting, UNIT, turn.rates[what]) for kind, turn in turns.items()
            ]
        lost += sum(turn.lost for turn in turns.values())
        answers += turns[OURS].answers
    notes = [
        "of one core: a second in which the reactor thread has a processor; the persist thread and"
        " the sender have theirs besides",
        f"lost on the way: {lost} datagrams; receipts that came back: {answers:,}",
        "carbon takes a datagram of two lines, x and y; its writer does not run",
    ]
    return Outcome(figures, _targets(figures, sizes, lost), missing(CARBON), notes)


def start(stack: ExitStack, stage: Stage, kind: str, size: int) -> Child:
    """Start a server and a sender; return the sender, whose players have joined."""
    server = stack.enter_context(child("udp_server", kind, size, stage.directory))
    at = server.hear()
    sender = stack.enter_context(
        child("udp_sender", kind, size, at["port"], at["window"], at["counter"])
    )
    sender.hear()
    return sender


class Turns:
    """One server's turns.

    Attributes:
        rates: moves a second, of both kinds, a value a turn.
        lost: datagrams that were sent and did not reach the server.
        answers: receipts that came back.
    """

    def __init__(self, sender: Child, quick: bool) -> None:
        self._sender = sender
        self._seconds = 0.25 if quick else 1.0
        self.rates: dict[str, list[float]] = {"of one core": [], "wall clock": []}
        self.lost = self.answers = 0
        sender.ask(str(self._seconds / 4))  # warm

    def measure(self) -> float:
        """Take one turn; moves a second of one core."""
        found = self._sender.ask(str(self._seconds))
        self.rates["of one core"].append(found["taken"] / found["cpu"])
        self.rates["wall clock"].append(found["taken"] / found["elapsed"])
        self.lost += found["sent"] - found["taken"]
        self.answers += found["answers"]
        return self.rates["of one core"][-1]


def _targets(figures: list[Figure], sizes: tuple[int, ...], lost: int) -> list[Target]:
    targets = []
    for size in sizes:
        setting = f"{size:,} players, of one core"
        limit = ratio(figures, NAMES[NO_OP], setting)
        rate = median(figures, OURS, setting)
        # One of the two targets is enough.
        if rate is not None and rate >= 300_000:
            targets.append(Target(f"moves applied, {size:,} players", rate, 300_000, True, UNIT))
        else:
            targets.append(
                Target(f"of the no-op protocol's rate, {size:,} players", limit, 0.45, True)
            )
        targets.append(
            Target(f"times carbon, {size:,} players", ratio(figures, CARBON, setting), 4.0, True)
        )
    return [*targets, Target("datagrams lost on the way", lost, 0)]
