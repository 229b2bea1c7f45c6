"""Bots over the wire: they walk, leave, join again, and must have the state that they left with."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
from functools import partial, singledispatch
from typing import Any

import attrs

from playerstate.cli.crowd import Crowd, Turns, run, troubles
from playerstate.cli.outcome import ENOUGH, Outcome, spread_ms
from playerstate.cli.own_server import OwnServer
from playerstate.cli.parameters import Address, Login
from playerstate.cli.program import NO_PROGRAM, Changes, Program
from playerstate.client import Phase
from playerstate.state.kind import Kind
from playerstate.state.kinds import Bool, Float, Int, Text
from playerstate.state.schema import StateSchema

STRIDE = 1.0
"""The longest step of a float field without bounds."""
STRIDES_ACROSS = 100
"""The fewest steps from one bound of a field to the other."""

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
        server: its address.
        login: to log in with; None for plain UDP.
        schema: of its state class.
        session_ids: the bots'.
        moves_a_second: of each bot.
        seconds: how long they walk.
    """
    walk = walker(schema, moves_a_second, seconds)
    return run(server, login, session_ids, schema, partial(visit_twice, schema=schema, walk=walk))


def simulate_changes(
    schema: StateSchema,
    session_ids: range,
    changed: int,
    moves_a_second: float,
    seconds: float,
) -> Outcome:
    """Send bots to a server of their own, whose program teleports and heals some of them.

    Args:
        schema: of the state class.
        session_ids: the bots'.
        changed: how many of them are changed, the first ones.
        moves_a_second: of each bot.
        seconds: how long they walk.
    """
    programs: list[Changes] = []

    async def visit(crowd: Crowd) -> Outcome:
        program = Changes(crowd, server.service, session_ids[:changed], random.Random())
        programs.append(program)
        walk = partial(walker(schema, moves_a_second, seconds), program=program)
        try:
            return await visit_twice(crowd, schema, walk)
        finally:
            await server.stop()

    with OwnServer.started(schema, len(session_ids)) as server:
        outcome = run(server.address, None, session_ids, schema, visit)
        return programs[0].checked(outcome, server.stored)


def walker(schema: StateSchema, moves_a_second: float, seconds: float) -> Walk:
    """Return what has all bots walk at random, so fast and so long."""
    step = stepper(schema, random.Random())
    return partial(walk_for, seconds=seconds, moves_a_second=moves_a_second, step=step)


async def visit_twice(crowd: Crowd, schema: StateSchema, walk: Walk) -> Outcome:
    """Have all bots join, walk and leave; then join again, compare states, and leave."""
    clients = crowd.clients
    await crowd.join(clients)
    joined = len(crowd.online())
    join_seconds = [client.join_seconds for client in clients.values()]
    walked = await walk(crowd)
    await crowd.leave()
    # Of the first leave only: at the second there is nothing to save.
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
        asked: the moves that the rate requires in that time.
        made: the moves that this process had time for.
    """

    seconds: float
    asked: int
    made: int

    def a_second(self, moves: int) -> float:
        """So many moves, as a rate a second."""
        return moves / self.seconds if self.seconds else 0.0

    def behind(self) -> str:
        """Describe how the walk fell behind the rate; empty if it did not."""
        if self.made >= ENOUGH * self.asked:
            return ""
        return (
            f"this process reached {self.a_second(self.made):,.0f} of the"
            f" {self.a_second(self.asked):,.0f} moves a second asked for; give it fewer --players"
            " or a lower --rate, or share them among several processes, each with a --first-id of"
            " its own"
        )


Walk = Callable[..., Coroutine[Any, Any, Walked]]
"""Has a crowd's bots walk, as `walk_for` does."""


async def walk_for(
    crowd: Crowd,
    seconds: float,
    moves_a_second: float,
    step: Step,
    program: Program = NO_PROGRAM,
) -> Walked:
    """Have all players online walk, until the time is over or none is left."""
    clients, links = crowd.clients, crowd.links

    def move(session_id: int, now: float) -> None:
        program.look(session_id)
        links[session_id].move(step(clients[session_id].values), now)
        program.moved(session_id)

    walkers = crowd.online()
    now = start = crowd.seconds()
    turns = Turns(walkers, 1 / moves_a_second, start)
    while now - start < seconds and not crowd.interrupted:
        if all(clients[i].phase is Phase.GONE for i in walkers):
            break
        now = await crowd.pause()
        program.turn(now)
        for session_id in turns.due(now):
            if clients[session_id].phase is Phase.ONLINE:
                move(session_id, now)
        crowd.show("walking", now - start, seconds)
    walked = Walked(now - start, turns.came, turns.taken)
    await program.settle(move)
    return walked


def stepper(schema: StateSchema, rng: random.Random) -> Step:
    """Return a function from a player's values to the values one step on, accepted ones."""
    steps = [_stay if field.is_server_owned else _step(field.kind, rng) for field in schema.fields]
    accept = schema.accept
    return lambda values: accept(*[step(value) for step, value in zip(steps, values, strict=True)])


def _stay(value: Any) -> Any:
    """The step of a field that the server owns."""
    return value


@singledispatch
def _step(kind: Kind, rng: random.Random) -> Callable[[Any], Any]:
    """Return a function from one packed value to the next; kinds themselves know no bots."""
    raise NotImplementedError(f"no step is defined for bots with a field of kind {kind.name}")


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
    """The players whose state at the second WELCOME differs from that at the first leave."""
    strays = {}
    for session_id in crowd.online():
        values = crowd.clients[session_id].values
        expected = schema.with_transients(left[session_id], schema.spawn)
        if schema.struct.pack(*values) != schema.struct.pack(*expected):
            strays[session_id] = (
                f"came back to {schema.decode(values)}, not to {schema.decode(expected)}"
            )
    return strays
