"""What the API changes, each change recorded in the audit log before it is answered.

Reactor thread only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

import attrs
from twisted.internet.defer import Deferred, TimeoutError

from playerstate.interfaces import Erased, StoreBusy, StoreUnusable
from playerstate.log import PrintableLogger
from playerstate.players.errors import NotOnline, NotRunning, ServerFull, UnknownPlayer
from playerstate.players.service import PlayerStateService
from playerstate.saving.commit import NotSaved
from playerstate.state.field import InvalidState
from playerstate.web.audit import Audit, AuditUnusable
from playerstate.web.players import Players, shown_state
from playerstate.web.refused import Refused, not_now

SAVED_WITHIN = 30.0
"""Seconds that a change has to be saved, before it is answered that it is not yet."""
MOST_AT_A_TIME = 64
"""Changes that may wait for the store at a time."""

T = TypeVar("T")

_log = PrintableLogger()


class Kicks(Protocol):
    """Ends the conversations of players; `playerstate.conversations.gateway.Gateway` does."""

    def kick(self, session_id: int) -> Deferred[Any]:
        """Take a player offline and save them."""


@attrs.frozen
class Author:
    """Whose change it is: the name of the token, and the address that it came from."""

    token: str
    address: str


def refused_by_service(error: Exception) -> Refused | None:
    """The answer for an error of the service or the store; None for any other error."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, InvalidState):
        return Refused(400, str(error), error.field, error.allowed)
    if isinstance(error, (NotOnline, UnknownPlayer)):
        return Refused(404, str(error))
    if isinstance(error, (NotRunning, NotSaved, ServerFull, StoreBusy, StoreUnusable)):
        return not_now(str(error))
    return None


class Changes:
    """Makes changes, one method each, and records them.

    Args:
        service: the players' service.
        kicks: takes players offline.
        players: looks at players before and after.
        audit: where changes are recorded.
        wall_clock: seconds since the Unix epoch.
    """

    def __init__(
        self,
        service: PlayerStateService,
        kicks: Kicks,
        players: Players,
        audit: Audit,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._service = service
        self._kicks = kicks
        self._players = players
        self._audit = audit
        self._wall_clock = wall_clock
        self._under_way = 0

    async def edit(
        self, author: Author, session_id: int, fields: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Change fields of a player, in the game or not.

        Returns:
            The player as changed and saved.
        """
        before = (await self._players.find(session_id)).state
        values = {name: self._read(name, value) for name, value in fields.items()}
        changed = {name: before[name] for name in values if name in before}
        await self._make(
            author,
            "edit",
            lambda: self._service.run.edit(session_id, values, create=False),
            player=session_id,
            before=changed,
            after=values,
        )
        return (await self._players.find(session_id)).shown()

    def _read(self, name: str, value: Any) -> Any:
        """A value of a body; a whole number may be a string, since JSON's readers round it."""
        kinds = {field.name: field.kind for field in self._service.schema.fields}
        if name in kinds and kinds[name].plain is int and isinstance(value, str):
            try:
                return kinds[name].parse(value)
            except ValueError:
                return value
        return value

    async def kick(self, author: Author, session_id: int) -> dict[str, Any]:
        """Take a player offline; the client is told to go."""
        await self._make(author, "kick", lambda: self._kicks.kick(session_id), player=session_id)
        return {"session_id": str(session_id), "kicked": True}

    async def erase(self, author: Author, session_id: int) -> dict[str, Any]:
        """Take a player offline, and delete all that is kept of the player."""
        erased: Erased = await self._make(
            author, "erase", lambda: self._service.erase(session_id), player=session_id
        )
        return {"session_id": str(session_id), "erased": attrs.asdict(erased)}

    async def flush(self, author: Author) -> dict[str, Any]:
        """Have everything saved that is applied."""
        await self._make(author, "flush", self._service.flush)
        return {"flushed": True}

    async def _make(
        self, author: Author, what: str, change: Callable[[], Deferred[T]], **named: Any
    ) -> T:
        """Make a change, record it, and return its result.

        Raises:
            Refused: it was not made, or is not saved yet, or could not be recorded.
        """
        if self._under_way >= MOST_AT_A_TIME:
            raise not_now(f"{MOST_AT_A_TIME} changes wait for the store already")
        clock = self._service.clock
        try:
            self._audit.check()
        except AuditUnusable as error:
            raise not_now(f"nothing is changed without an audit log: {error}") from error
        self._under_way += 1
        failure: Exception | None = None
        try:
            result = await change().addTimeout(SAVED_WITHIN, clock)
        except TimeoutError:
            late = f"not saved within {SAVED_WITHIN:g} s; the server goes on trying"
            failure = Refused(504, late)
        except Exception as error:  # recorded, then raised
            failure = error
        finally:
            self._under_way -= 1
        self._record(author, what, named, failure)
        if failure is not None:
            raise failure
        return result

    def _record(
        self, author: Author, what: str, named: Mapping[str, Any], failure: Exception | None
    ) -> None:
        entry: dict[str, Any] = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._wall_clock())),
            "token": author.token,
            "address": author.address,
            "what": what,
        }
        for name, value in named.items():
            entry[name] = shown_state(value) if isinstance(value, Mapping) else str(value)
        entry["done"] = failure is None
        if failure is not None:
            entry["why"] = str(failure)
        try:
            self._audit.record(entry)
        except AuditUnusable as error:
            made = "made" if failure is None else "not made"
            raise Refused(
                500, f"the change was {made}, but is not in the audit log yet: {error}"
            ) from error
