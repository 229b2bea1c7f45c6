"""What the API shows of players: in bulk from the live table, one by one from the store as well.

Session ids are strings in JSON, and so are whole numbers beyond 2**53: a JavaScript number cannot
hold them.  Reactor thread only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from playerstate.interfaces import Stored
from playerstate.live.rows import Slots
from playerstate.players.run import Run
from playerstate.players.service import PlayerStateService
from playerstate.state.field import Field
from playerstate.state.schema import StateSchema
from playerstate.web.frames import Flag, Seen
from playerstate.web.reading import one_of
from playerstate.web.refused import Refused, bad

MOST = 200
"""The most players in one answer: a millisecond's work."""
FEW = 50
"""Players in an answer, unless the query says how many."""
_EXACT = 2**53


@attrs.frozen
class Player:
    """One player as the API shows them.

    Attributes:
        session_id: the player's.
        state: plain values by the names of their fields.
        updated_at: microseconds since the Unix epoch; 0 for never.
        is_online: whether the player is in the game.
        is_saved: whether the store holds this state.
        distance: from the point asked for; None if none was.
    """

    session_id: int
    state: Mapping[str, Any]
    updated_at: int
    is_online: bool
    is_saved: bool
    distance: float | None = None

    def shown(self) -> dict[str, Any]:
        """As it stands in an answer."""
        shown = {
            "session_id": str(self.session_id),
            "online": self.is_online,
            "saved": self.is_saved,
            "updated_at": self.updated_at,
            "state": shown_state(self.state),
        }
        return shown if self.distance is None else {**shown, "distance": self.distance}


def shown_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values as they stand in an answer."""
    return {
        name: str(value) if type(value) is int and abs(value) > _EXACT else value
        for name, value in state.items()
    }


def float_fields(schema: StateSchema) -> tuple[str, ...]:
    """The names of the fields that may be axes of the map."""
    return tuple(field.name for field in schema.fields if field.kind.plain is float)


def axes_of(schema: StateSchema, query: Mapping[str, Any]) -> tuple[str, ...]:
    """The two axes that a query asks for, or the first two; empty if the class has no two.

    Raises:
        Refused: it asks for one only.
    """
    named = [query.get(name) for name in ("x", "y")]
    if None not in named:
        return tuple(map(str, named))
    if named != [None, None]:
        raise bad("y" if named[1] is None else "x", "given too: the axes are two")
    floats = float_fields(schema)[:2]
    return floats if len(floats) == 2 else ()


def axis_parsers(schema: StateSchema) -> dict[str, Any]:
    """How the parts of a query are read that name the axes."""
    parse = one_of(*float_fields(schema))
    return {"x": parse, "y": parse}


class Players:
    """Looks at the players of a service.

    Args:
        service: the players' service.
    """

    def __init__(self, service: PlayerStateService) -> None:
        self._service = service
        self._fields: Sequence[Field] = service.schema.fields

    async def find(self, session_id: int) -> Player:
        """One player, online or not.

        Raises:
            Refused: there is no such player, or what is stored of them cannot be read.
            Exception: the store's error, or `NotRunning`.
        """
        run = self._run()
        slot = run.table.slots.get(session_id)
        if slot is not None:
            return self._at(run, slot)
        found = run.reopening.load(session_id)
        if found is not None and not isinstance(found, Stored):
            found = await found
        if found is None:
            raise Refused(404, f"there is no player {session_id}")
        names = (field.name for field in self._service.schema.stored)
        state = dict(zip(names, found.values, strict=True))
        return Player(session_id, state, found.updated_at, is_online=False, is_saved=True)

    def online_after(self, after: int, limit: int) -> list[Player]:
        """Players online with the lowest session ids above `after`, in their order."""
        run = self._run()
        slots, session_ids = self._online(run)
        above = session_ids > after
        slots, session_ids = slots[above], session_ids[above]
        chosen = _lowest(session_ids, limit)
        return [self._at(run, int(slot)) for slot in slots[chosen]]

    def online_near(
        self, point: tuple[float, float], axes: Sequence[str], limit: int
    ) -> list[Player]:
        """Players online nearest to a point, nearest first."""
        run = self._run()
        slots, _ = self._online(run)
        with np.errstate(over="ignore"):
            x, y = (
                run.table.column(axis, slots) - at for axis, at in zip(axes, point, strict=True)
            )
            distances = np.minimum(np.hypot(x, y), np.finfo(np.float64).max)
        chosen = _lowest(distances, limit)
        return [
            attrs.evolve(self._at(run, int(slot)), distance=float(distance))
            for slot, distance in zip(slots[chosen], distances[chosen], strict=True)
        ]

    def seen(self, axes: Sequence[str], limit: int, follow: int | None) -> Seen:
        """Players for a map, at most `limit`, and the one who is followed; see `Seen`."""
        run = self._run()
        table = run.table
        stride = 1
        while stride * limit < len(table):
            stride *= 2
        slots = np.arange(0, table.high_water, stride)
        slots = slots[table.session_ids(slots) != 0]
        while len(slots) > limit:
            stride *= 2
            slots = slots[slots % stride == 0]
        followed = None if follow is None else table.slots.get(follow)
        if followed is not None and followed % stride:
            slots = np.append(slots, followed)
        flags = np.where(table.are_unsaved(slots), np.uint8(Flag.UNSAVED), np.uint8(0))
        flags[np.isin(slots, _offline(run))] |= np.uint8(Flag.LEAVING)
        columns = tuple(table.column(axis, slots) for axis in axes)
        return Seen(table.session_ids(slots), columns, slots, flags, stride)

    def _run(self) -> Run:
        """The present run, whose rows may be touched."""
        run = self._service.run
        run.guard()
        return run

    def _online(self, run: Run) -> tuple[Slots, npt.NDArray[np.int64]]:
        """The slots and the session ids of all who are online."""
        slots = np.arange(run.table.high_water)
        session_ids = run.table.session_ids(slots)
        session_ids[_offline(run)] = 0
        online = session_ids != 0
        return slots[online], session_ids[online]

    def _at(self, run: Run, slot: int) -> Player:
        table = run.table
        plain = self._service.schema.decode(table.values(slot))
        return Player(
            table.session_id(slot),
            {field.name: value for field, value in zip(self._fields, plain, strict=True)},
            table.updated_at(slot),
            is_online=not run.leaves.has_left(slot),
            is_saved=table.is_saved(slot),
        )


def _offline(run: Run) -> Slots:
    """The slots of those who are in the table only until saved."""
    return np.array([s for s in run.leaves.by_slot if run.leaves.has_left(s)], np.intp)


def _lowest(values: npt.NDArray[Any], number: int) -> Slots:
    """Where the lowest values are, ascending, at most so many."""
    chosen = np.arange(len(values))
    if len(values) > number:
        chosen = np.argpartition(values, number)[:number]
    ordered: Slots = chosen[np.argsort(values[chosen], kind="stable")]
    return ordered
