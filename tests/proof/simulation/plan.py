"""What a seed decides once, before anything runs."""

from __future__ import annotations

import random
from typing import Any

import attrs

from playerstate.state.schema import server_owned, text, within


@attrs.frozen
class Walker:
    """A state whose row needs no padding.

    The fields of each state here belong together, so that a mixed row shows.
    """

    x: float = attrs.field(default=0.5, metadata=within(-1e9, 1e9))
    y: float = -0.5


@attrs.frozen
class Pacer(Walker):
    """A state whose row is padded."""

    steps: int = 0
    name: str = attrs.field(default="", metadata=text(12))
    resting: bool = True


@attrs.frozen
class Fighter(Walker):
    """A state of which the server owns a part."""

    steps: int = attrs.field(default=0, metadata=server_owned())
    name: str = attrs.field(default="", metadata=text(12))
    resting: bool = attrs.field(default=True, metadata=server_owned())


@attrs.frozen
class Stepper:
    """A state on a grid, whose DELTAs are steps."""

    x: float = attrs.field(default=0.5, metadata=within(-1e9, 1e9, resolution=0.25))
    y: float = attrs.field(default=-0.5, metadata=within(-1e9, 1e9, resolution=0.25))


@attrs.frozen
class Warden(Stepper):
    """A state on a grid, of which the server owns a part."""

    name: str = attrs.field(default="", metadata=text(12) | server_owned())
    steps: int = attrs.field(default=0, metadata=server_owned())


def values_of(number: int, state: type) -> tuple[Any, ...]:
    """Packed values of a state that bears this number in every field."""
    values = (number + 0.25, -number - 0.25)
    if state in (Walker, Stepper):
        return values
    name = str(number).encode().ljust(12, b"\0")
    return (*values, name, number) if state is Warden else (*values, number, name, number % 2)


STATES = (Walker, Pacer, Fighter, Stepper, Warden)


@attrs.frozen
class Plan:
    """One seed's circumstances.

    Attributes:
        state: the players' state class.
        players: session ids that take part.
        devices: whose the devices are that play by the rules, in order.
        clients: who has another client, which need not.
        places: `max_players`.
        queue_size, save_within, stop_within, idle_timeout: of the service.
        lanes: of the store.
        many: updates that are worth being taken in at once, where they arrive together.
        judged: how many states have one among them that the judge of moves rejects, and one of
            which it fails; 0 for no judge.
        live file: whether it has one.
        steps: how many things happen.
        loss, copies, jams: chances that a datagram is lost, comes twice, or takes long.
        bunches: datagrams arrive at multiples of so many seconds only, together; 0 for at any time.
        write_faults, load_faults: chances that a write or a load goes wrong.
        slow_loads: the chance that a load is answered by a Deferred.
        slow_reports: the chance that word from the persist thread takes long.
        refused: players whose rows the store refuses; every `refused_every`-th of their states.
        refused_by_name: whether it says which rows those are.
        refused_to_the_end: whether healing the store leaves that as it is.
        faults: weights of crashes, stops, clock steps and the like; 0 in a calm seed.
    """

    state: type
    players: tuple[int, ...]
    devices: tuple[int, ...]
    clients: tuple[int, ...]
    places: int
    queue_size: int
    lanes: int
    save_within: float
    stop_within: float
    idle_timeout: float
    many: int
    judged: int
    live_file: bool
    steps: int
    loss: float
    copies: float
    jams: float
    bunches: float
    write_faults: float
    load_faults: float
    slow_loads: float
    slow_reports: float
    refused: frozenset[int]
    refused_every: int
    refused_by_name: bool
    refused_to_the_end: bool
    faults: float

    @property
    def calm(self) -> bool:
        """Whether nothing keeps the service from saving in time."""
        return not (self.write_faults or self.refused or self.faults or self.slow_reports)


def draw(source: random.Random) -> Plan:
    """A plan; each kind of trouble is left out of many, so that the others are seen alone."""

    def sometimes(value: float, chance: float = 0.5) -> float:
        return value * source.random() if source.random() < chance else 0.0

    players = tuple(source.sample(range(1, 50), source.randint(1, 6)))
    devices = tuple(player for player in players for _ in range(source.choice((0, 0, 1, 1, 1, 2))))
    clients = tuple(i for i in players if i not in devices or source.random() < 0.1)
    troubled = source.random() < 0.85
    refused = source.sample(players, source.randint(1, len(players)))
    return Plan(
        state=source.choice(STATES),
        players=players,
        devices=devices,
        clients=clients,
        places=source.randint(1, len(players) + 1),
        queue_size=2 ** source.randint(1, 6),
        lanes=source.choice((1, 1, 4)),
        save_within=source.choice((0.2, 0.5, 1.0, 3.0, 5.0)),
        stop_within=source.choice((0.0, 0.5, 3.0, 10.0, 30.0)),
        idle_timeout=source.choice((0.5, 2.0, 10.0, 30.0)),
        many=source.choice((1, 2, 3, 400)),
        judged=source.choice((0, 0, 0, 3, 7)),
        live_file=source.random() < 0.6,
        steps=source.randint(20, 180),
        loss=sometimes(0.3),
        copies=sometimes(0.3),
        jams=sometimes(0.3),
        bunches=source.choice((0.0, 0.1, 0.5, 2.0)),
        write_faults=sometimes(0.6) if troubled else 0.0,
        load_faults=sometimes(0.4),
        slow_loads=sometimes(0.8),
        slow_reports=sometimes(0.5) if troubled else 0.0,
        refused=frozenset(refused if troubled and source.random() < 0.25 else ()),
        refused_every=source.choice((1, 2, 5)),
        refused_by_name=source.random() < 0.5,
        refused_to_the_end=source.random() < 0.3,
        faults=1.0 if troubled and source.random() < 0.8 else 0.0,
    )
