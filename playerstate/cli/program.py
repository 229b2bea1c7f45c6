"""A program around a server, which teleports and heals bots while they walk.

A bot is *teleported* by a change of all fields that the client owns, and *healed* by one of all
fields that the server owns.  Its client must go on from there, no move from before may undo it, and
the store must hold it in the end.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import singledispatch
from typing import Any

import attrs

from playerstate.cli.changed import Changed
from playerstate.cli.crowd import PATIENCE, Crowd, Turns
from playerstate.cli.outcome import Outcome
from playerstate.client import Phase
from playerstate.players.errors import NotOnline
from playerstate.players.service import PlayerStateService
from playerstate.state.field import Field
from playerstate.state.kind import Kind
from playerstate.state.kinds import Bool, Float, Int, Text
from playerstate.state.schema import server_owned, within

CHANGE_EVERY = 0.25
"""Seconds from one change of a bot to its next."""
FARTHEST = 1000
"""How far from the value nearest to zero a number is drawn, within the bounds of its field."""

Move = Callable[[int, float], None]
"""Has a bot move, given its session id and the time."""
Stored = Callable[[int], Mapping[str, Any] | None]
"""Returns a player's plain values in the store, by field; None for a player it does not know."""


@attrs.frozen
class Hero:
    """The state of bots who are teleported and healed, unless another class is named."""

    x: float = 350.0
    y: float = 200.0
    hp: int = attrs.field(default=100, metadata=within(0, 100) | server_owned())


class Program:
    """What a program does to bots who walk, and sees of them: nothing."""

    def turn(self, now: float) -> None:
        """Do what is due in this slice of the walk."""

    def look(self, session_id: int) -> None:
        """Look at a bot that is online and moves next."""

    def moved(self, session_id: int) -> None:
        """Note the move of that bot."""

    async def settle(self, move: Move) -> None:
        """Wait, at the end of the walk, until the bots may leave."""


NO_PROGRAM = Program()


class Changes(Program):
    """Changes some bots of a crowd and keeps watch over them.

    Args:
        crowd: the bots.
        service: their server's, in this process.
        session_ids: the bots that are changed.
        rng: draws the values.

    Attributes:
        troubles: what went wrong first with each bot, by session id.
        teleports, heals: how many were made.
    """

    def __init__(
        self,
        crowd: Crowd,
        service: PlayerStateService,
        session_ids: Iterable[int],
        rng: random.Random,
    ) -> None:
        self._crowd = crowd
        self._service = service
        self._schema = schema = service.schema
        self._bots = {session_id: Changed() for session_id in session_ids}
        self._moved_fields = schema.moved.fields
        self._owned_fields = [field for field in schema.fields if field.is_server_owned]
        self._draw = {field.name: _drawer(field.kind, rng) for field in schema.fields}
        kinds = ((self._teleport, self._moved_fields), (self._heal, self._owned_fields))
        self._kinds = [change for change, fields in kinds if fields]
        self._turns: Turns | None = None
        self._made = dict.fromkeys(self._bots, 0)
        self.troubles: dict[int, str] = {}
        self.teleports = self.heals = 0

    def turn(self, now: float) -> None:
        """Change the bots whose turns have come, each in another way than the last time."""
        if self._turns is None:
            self._turns = Turns(self._bots, CHANGE_EVERY, now)
        for session_id in self._turns.due(now):
            if self._crowd.clients[session_id].phase is not Phase.ONLINE:
                continue
            self._made[session_id] += 1
            change = self._kinds[(self._made[session_id] + session_id) % len(self._kinds)]
            try:
                change(session_id)
            except NotOnline:
                continue  # its client has not noticed yet, and will join again

    def _teleport(self, session_id: int) -> None:
        values = self._set(session_id, self._moved_fields)
        self._bots[session_id].teleported(self._schema.moved.struct.pack(*values))
        self.teleports += 1

    def _heal(self, session_id: int) -> None:
        values = self._set(session_id, self._owned_fields)
        self._bots[session_id].owned = _named(self._owned_fields, values)
        self.heals += 1

    def _set(self, session_id: int, fields: Sequence[Field]) -> list[Any]:
        """Set these fields to drawn values; return them, packed."""
        values = [self._draw[field.name]() for field in fields]
        self._service.change(session_id, **_named(fields, values))
        return values

    def look(self, session_id: int) -> None:
        """Compare a bot, as its client and as its server have it, with what it was set to."""
        bot = self._bots.get(session_id)
        if bot is None or session_id in self.troubles:
            return
        here = self._moved_of(self._crowd.clients[session_id].values)
        if wrong := bot.stands(here):
            self.troubles[session_id] = f"went {wrong}: {self._shown_moved(here)}"
            return
        try:
            there = self._moved_of(self._at_server(session_id))
        except NotOnline:
            return
        if not bot.may_be_at(there):
            self.troubles[session_id] = (
                f"was teleported to {self._shown_moved(bot.targets[-1])}, and an earlier move"
                f" undid that: {self._shown_moved(there)}"
            )

    def moved(self, session_id: int) -> None:
        """Note where a bot has moved."""
        if (bot := self._bots.get(session_id)) is not None:
            bot.moved(self._moved_of(self._crowd.clients[session_id].values))

    async def settle(self, move: Move) -> None:
        """Wait until every client knows what was set last, and have it take a step from there."""
        crowd = self._crowd
        start = now = crowd.seconds()
        while now - start < PATIENCE and not crowd.interrupted:
            now = await crowd.pause()
            online = [i for i in crowd.online() if i in self._bots]
            for session_id in online:
                self.look(session_id)
            if not any(self._lacks(session_id) for session_id in online):
                break
            crowd.show("waiting", now - start, PATIENCE)
        for session_id in crowd.online():
            if session_id in self._bots and not crowd.interrupted:
                if lacks := self._lacks(session_id):
                    self.troubles[session_id] = f"was not told in time that it was set to {lacks}"
                move(session_id, now)

    def _lacks(self, session_id: int) -> str:
        """What a bot's client does not know of what the program set last; empty if it knows all."""
        bot = self._bots[session_id]
        if session_id in self.troubles:
            return ""
        if not bot.is_up_to_date:
            return self._shown_moved(bot.targets[-1])
        if bot.owned and self._owned_of(self._crowd.clients[session_id].values) != bot.owned:
            return _shown(bot.owned)
        return ""

    def checked(self, outcome: Outcome, stored: Stored) -> Outcome:
        """Return the outcome, with what the store holds of the bots that were changed.

        Args:
            outcome: of the bots' visit, which has ended.
            stored: reads the store.
        """
        found = dict(self.troubles)
        if not outcome.interrupted:
            for session_id in self._bots.keys() - outcome.troubles.keys() - found.keys():
                if wrong := self._wrong_in_store(session_id, stored(session_id)):
                    found[session_id] = wrong
        clients = self._crowd.clients
        told = sum(clients[session_id].changes for session_id in self._bots)
        numbers = {"teleports": self.teleports, "heals": self.heals, "changes_told": told}
        troubles = {**outcome.troubles, **found}
        return attrs.evolve(
            outcome,
            numbers={**outcome.numbers, **numbers},
            troubles={i: troubles[i] for i in sorted(troubles)},
        )

    def _wrong_in_store(self, session_id: int, stored: Mapping[str, Any] | None) -> str:
        bot, values = self._bots[session_id], self._crowd.clients[session_id].values
        if stored is None:
            return "is not in the store"
        kept = {field.name for field in self._schema.stored}
        expected = {
            "as the program set it": bot.owned,
            "as its client left": _named(self._schema.fields, values),
        }
        for by, named in expected.items():
            wrong = {name: value for name, value in named.items() if name in kept}
            wrong = {name: value for name, value in wrong.items() if stored[name] != value}
            if wrong:
                found = {name: stored[name] for name in wrong}
                return f"ended in the store with {_shown(found)}, not with {_shown(wrong)}, {by}"
        return ""

    def _at_server(self, session_id: int) -> tuple[Any, ...]:
        """The packed values that the server has of a bot.

        Raises:
            NotOnline: the server does not have it online.
        """
        return self._schema.values(self._service.state(session_id))

    def _moved_of(self, values: tuple[Any, ...]) -> bytes:
        moved = self._schema.moved
        return moved.struct.pack(*moved.of(values))

    def _owned_of(self, values: tuple[Any, ...]) -> dict[str, Any]:
        named = _named(self._schema.fields, values)
        return {field.name: named[field.name] for field in self._owned_fields}

    def _shown_moved(self, place: bytes) -> str:
        moved = self._schema.moved
        return _shown(_named(moved.fields, moved.struct.unpack(place)))


def _named(fields: Sequence[Field], values: Sequence[Any]) -> dict[str, Any]:
    """Packed values as plain ones, by field."""
    pairs = zip(fields, values, strict=True)
    return {field.name: field.kind.decode(value) for field, value in pairs}


def _shown(named: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in named.items())


@singledispatch
def _drawer(kind: Kind, rng: random.Random) -> Callable[[], Any]:
    """Return a function that draws accepted packed values of this kind."""
    raise NotImplementedError(f"no program is defined for a field of kind {kind.name}")


def _span(kind: Float | Int) -> tuple[Any, Any]:
    middle = min(max(0, kind.low), kind.high)
    return max(kind.low, middle - FARTHEST), min(kind.high, middle + FARTHEST)


@_drawer.register
def _(kind: Float, rng: random.Random) -> Callable[[], Any]:
    low, high = _span(kind)
    return lambda: rng.uniform(low, high) + 0.0


@_drawer.register
def _(kind: Int, rng: random.Random) -> Callable[[], Any]:
    low, high = _span(kind)
    return lambda: rng.randint(low, high)


@_drawer.register
def _(kind: Bool, rng: random.Random) -> Callable[[], Any]:
    return lambda: rng.getrandbits(1)


@_drawer.register
def _(kind: Text, rng: random.Random) -> Callable[[], Any]:
    size = kind.size
    return lambda: f"{rng.getrandbits(64):x}".encode()[:size].ljust(size, b"\0")
