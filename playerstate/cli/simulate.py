"""Bots over the wire: they walk, leave, come back, and must stand where they left."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
from functools import partial, singledispatch
from typing import Any

import attrs

from playerstate.cli.crowd import Crowd, Turns, run, troubles
from playerstate.cli.outcome import ENOUGH, Outcome, spread_ms
from playerstate.cli.parameters import Address, Login
from playerstate.client import Phase
from playerstate.state.kind import Kind
from playerstate.state.kinds import Bool, Float, Int, Text
from playerstate.state.schema import StateSchema

STRIDE = 1.0
"""The longest step of a float without bounds."""
STRIDES_ACROSS = 100
"""The fewest steps from one bound to the other."""

Step = Callable[[tuple[Any, ...]], tuple[Any, ...]]


def simulate(
    server: Address,
    login: Login | None,
    schema: StateSchema,
    session_ids: range,
    moves_a_second: float,
    seconds: float,
) -> Outcome:
    """Send bots to a server.

    Args:
        server: where it listens.
        login: to log in with; None for plain UDP.
        schema: of its state class.
        session_ids: the bots'.
        moves_a_second: of each bot.
        seconds: how long they walk.
    """
    step = stepper(schema, random.Random())
    walk = partial(walk_for, seconds=seconds, moves_a_second=moves_a_second, step=step)
    return run(server, login, session_ids, schema, partial(visit_twice, schema=schema, walk=walk))


async def visit_twice(
    crowd: Crowd, schema: StateSchema, walk: Callable[[Crowd], Coroutine[Any, Any, Walked]]
) -> Outcome:
    """Join, walk, leave; join again, compare, leave again."""
    clients = crowd.clients
    await crowd.join(clients)
    joined = len(crowd.online())
    join_seconds = [client.join_seconds for client in clients.values()]
    walked = await walk(crowd)
    await crowd.leave()
    # Of the first leave alone: at the second there is nothing to save.
    leave_seconds = [client.leave_seconds for client in clients.values()]
    moves = sum(client.sequence for client in clients.values())
    applied = sum(client.applied for client in clients.values())
    failed = troubles(crowd.links)

    left = {i: client.values for i, client in clients.items() if i not in failed}
    mismatches = 0
    if not crowd.interrupted:
        await crowd.join(left)
        join_seconds += [clients[i].join_seconds for i in left]
        strays = _strays(crowd, schema, left)
        await crowd.leave()
        mismatches = len(strays)
        failed = {**strays, **troubles(crowd.links)}
    return Outcome(
        numbers={
            "players": len(clients),
            "joined": joined,
            "moves_sent": moves,
            "receipts": sum(client.receipts for client in clients.values()),
            "applied_at_leave": applied,
            "lost_moves": moves - applied,
            "mismatches": mismatches,
            "join_ms": spread_ms(join_seconds),
            "leave_ms": spread_ms(leave_seconds),
            "seconds": round(walked.seconds, 2),
            "moves_per_second": round(walked.a_second(moves), 1),
            "moves_per_second_asked": round(walked.a_second(walked.asked), 1),
        },
        troubles=failed,
        interrupted=crowd.interrupted,
        behind=walked.behind(),
    )


@attrs.frozen
class Walked:
    """How a walk went.

    Attributes:
        seconds: how long it took.
        asked: the moves there should have been in that time.
        made: those that there was time for.
    """

    seconds: float
    asked: int
    made: int

    def a_second(self, moves: int) -> float:
        """So many moves, by the second."""
        return moves / self.seconds if self.seconds else 0.0

    def behind(self) -> str:
        """How it fell behind the rate, if it did."""
        if self.made >= ENOUGH * self.asked:
            return ""
        return (
            f"this process reached {self.a_second(self.made):,.0f} of the"
            f" {self.a_second(self.asked):,.0f} moves a second asked for; give it fewer --players"
            " or a lower --rate, or share them among several processes, each with a --first-id of"
            " its own"
        )


async def walk_for(
    crowd: Crowd,
    seconds: float,
    moves_a_second: float,
    step: Step,
) -> Walked:
    """Have everyone online walk, as long as anyone is."""
    clients, links = crowd.clients, crowd.links
    walkers = crowd.online()
    now = start = crowd.seconds()
    turns = Turns(walkers, 1 / moves_a_second, start)
    while now - start < seconds and not crowd.interrupted:
        if all(clients[i].phase is Phase.GONE for i in walkers):
            break
        now = await crowd.pause()
        for session_id in turns.due(now):
            client = clients[session_id]
            if client.phase is Phase.ONLINE:
                links[session_id].move(step(client.values), now)
        crowd.show("walking", now - start, seconds)
    return Walked(now - start, turns.came, turns.taken)


def stepper(schema: StateSchema, rng: random.Random) -> Step:
    """A function from where a player stands to where the next step leads, as accepted values."""
    steps = [_step(field.kind, rng) for field in schema.fields]
    accept = schema.accept
    return lambda values: accept(*[step(value) for step, value in zip(steps, values, strict=True)])


@singledispatch
def _step(kind: Kind, rng: random.Random) -> Callable[[Any], Any]:
    """From one packed value of a kind to the next; a kind knows nothing of bots."""
    raise NotImplementedError(f"no bot knows a step of {kind.name}")


@_step.register
def _(kind: Float, rng: random.Random) -> Callable[[Any], Any]:
    low, high, draw = kind.low, kind.high, rng.random
    stride = min(STRIDE, (high - low) / STRIDES_ACROSS)
    return lambda value: min(max(value + stride * (2 * draw() - 1), low), high)


@_step.register
def _(kind: Int, rng: random.Random) -> Callable[[Any], Any]:
    low, high, draw = kind.low, kind.high, rng.random
    return lambda value: min(max(value + (1 if draw() < 0.5 else -1), low), high)


@_step.register
def _(kind: Bool, rng: random.Random) -> Callable[[Any], Any]:
    return lambda value: 1 - value


@_step.register
def _(kind: Text, rng: random.Random) -> Callable[[Any], Any]:
    size = kind.size
    return lambda value: f"{rng.getrandbits(64):x}".encode()[:size].ljust(size, b"\0")


def _strays(crowd: Crowd, schema: StateSchema, left: dict[int, tuple[Any, ...]]) -> dict[int, str]:
    """Who was welcomed anywhere but where they left, on the grid of the fields that have one."""
    strays = {}
    for session_id in crowd.online():
        values, expected = crowd.clients[session_id].values, left[session_id]
        if schema.struct.pack(*values) != schema.struct.pack(*expected):
            strays[session_id] = (
                f"came back to {schema.decode(values)}, not to {schema.decode(expected)}"
            )
    return strays
