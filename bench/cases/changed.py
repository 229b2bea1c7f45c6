"""Take moves off UDP while the program around the server changes players."""

from __future__ import annotations

from contextlib import ExitStack

import attrs

from bench.cases.udp import start
from bench.children import Child, child
from bench.figures import OURS as DEFAULT
from bench.figures import Figure, Outcome, Target, ratio
from bench.program import SHARE_A_SECOND
from bench.rounds import interleave
from bench.stage import Stage
from bench.udp_server import CHANGE, CHANGED, OURS, OWNED, REST

PLAYERS = 10_000
NAMES = {
    OURS: DEFAULT,
    OWNED: "playerstate, hp owned by the server",
    CHANGED: f"playerstate, hp owned, {SHARE_A_SECOND:.0%} changed a second",
}
UNIT = "moves/s"
SETTING = f"{PLAYERS:,} players, of one core"
LEAST = 0.95
"""Of the rate without changes, what is to be left of it."""


def run(stage: Stage) -> Outcome:
    """Let the servers take turns with their own senders."""
    with ExitStack() as stack:
        stage.say(f"{PLAYERS:,} players: start and join, {len(NAMES)} times")
        seconds = 0.25 if stage.quick else 1.0
        moves = {kind: Moves(start(stack, stage, kind, PLAYERS), seconds) for kind in (OURS, OWNED)}
        server, sender = start_both(stack, stage)
        changed = ChangedMoves(sender, seconds, server)
        turns = {**moves, CHANGED: changed}
        interleave(
            {NAMES[kind]: turn.measure for kind, turn in turns.items()},
            stage.seconds - 4.0,
            most=60,
            say=stage.say,
        )
    figures = [Figure(NAMES[kind], SETTING, UNIT, turn.rates) for kind, turn in turns.items()]
    books = changed.books
    lost = sum(turn.lost for turn in turns.values())
    return Outcome(
        figures,
        [
            Target(
                f"of the rate without changes, {PLAYERS:,} players",
                ratio(figures, NAMES[OWNED], SETTING, NAMES[CHANGED]),
                LEAST,
                at_least=True,
            ),
            Target(
                f"of the rate where the client owns all, {PLAYERS:,} players",
                ratio(figures, NAMES[OURS], SETTING, NAMES[OWNED]),
                LEAST,
                at_least=True,
            ),
            Target("datagrams lost on the way", lost, 0),
        ],
        notes=[
            "of one core: a second in which the reactor thread has a processor; only applied moves"
            " count",
            f"the program made {books.changes:,} changes, half of them of x and y, and clients were"
            f" told by {books.states:,} STATEs; {books.rejected:,} of"
            f" {books.applied + books.rejected:,} moves came before the SEEN, and were rejected or"
            " stale",
        ],
    )


def start_both(stack: ExitStack, stage: Stage) -> tuple[Child, Child]:
    """Start a server whose program changes players, and its sender."""
    server = stack.enter_context(child("udp_server", CHANGED, PLAYERS, stage.directory))
    at = server.hear()
    sender = stack.enter_context(
        child("udp_sender", CHANGED, PLAYERS, at["port"], at["window"], at["counter"])
    )
    sender.hear()
    return server, sender


class Moves:
    """One server's turns.

    Attributes:
        rates: applied moves a second of one core, a value a turn.
        lost: datagrams that were sent and did not reach the server.
    """

    def __init__(self, sender: Child, seconds: float) -> None:
        self._sender = sender
        self._seconds = seconds
        self.rates: list[float] = []
        self.lost = 0
        sender.ask(str(seconds / 4))  # warm

    def measure(self) -> float:
        """Take one turn; moves a second of one core."""
        found = self._sender.ask(str(self._seconds))
        self.rates.append(self._applied(found["taken"]) / found["cpu"])
        self.lost += found["sent"] - found["taken"]
        return self.rates[-1]

    def _applied(self, taken: int) -> float:
        return taken


@attrs.define
class Books:
    """What became of moves, and how many changes and STATEs there were."""

    applied: int = 0
    rejected: int = 0
    changes: int = 0
    states: int = 0


class ChangedMoves(Moves):
    """The turns of a server whose program changes players meanwhile.

    Attributes:
        books: of all turns.
    """

    def __init__(self, sender: Child, seconds: float, server: Child) -> None:
        super().__init__(sender, seconds)
        self._server = server
        self.books = Books()

    def measure(self) -> float:
        """See `Moves.measure`."""
        self._server.tell(CHANGE)
        return super().measure()

    def _applied(self, taken: int) -> float:
        turn = Books(**self._server.ask(REST))
        for name, value in attrs.asdict(turn).items():
            setattr(self.books, name, getattr(self.books, name) + value)
        return taken * turn.applied / (turn.applied + turn.rejected)
