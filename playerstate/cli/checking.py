"""Checks the lines of a file of players, and says which are bad, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from playerstate.arguments import MAX_SESSION_ID
from playerstate.cli.formats import Line
from playerstate.players.changes import Change
from playerstate.state.field import InvalidState
from playerstate.state.schema import StateSchema

MOST_NAMED = 10
"""Bad lines that are named; the others are counted."""
DAY = 86_400 * 10**6
"""Microseconds."""


@attrs.frozen
class Given:
    """One player of a file, checked.

    Attributes:
        session_id: the player's.
        change: the fields that the file gives.
        is_whole: whether these are all that are stored.
        updated_at: microseconds since the Unix epoch; None where the file does not say.
    """

    session_id: int
    change: Change
    is_whole: bool
    updated_at: int | None


class BadLines(Exception):
    """Lines that cannot be imported.

    Attributes:
        named: number and reason of the first of them.
        count: how many there are.
    """

    def __init__(self, named: Sequence[tuple[int, str]], count: int) -> None:
        super().__init__(named, count)
        self.named = named
        self.count = count


class Checking:
    """Checks the lines of one file.

    Args:
        schema: of the store's players.
        from_text: whether the values are texts to be parsed, as in CSV.
        skip_unknown: whether columns that are no fields are ignored.
        now: microseconds since the Unix epoch.
    """

    def __init__(self, schema: StateSchema, from_text: bool, skip_unknown: bool, now: int) -> None:
        self._schema = schema
        self._stored = {field.name: field for field in schema.stored}
        self._from_text = from_text
        self._skip_unknown = skip_unknown
        self._latest = now + DAY
        self._lines: dict[int, int] = {}
        self._named: list[tuple[int, str]] = []
        self._bad = 0

    def check(self, lines: Sequence[Line]) -> list[Given]:
        """The good ones of these lines."""
        good = []
        for line in lines:
            try:
                given = self._given(line)
                first = self._lines.setdefault(given.session_id, line.number)
                if first != line.number:
                    raise ValueError(f"player {given.session_id} is in line {first} already")
            except ValueError as error:
                self._refuse(line.number, str(error))
            else:
                good.append(given)
        return good

    def refuse(self, session_id: int, why: str) -> None:
        """Note that the line of this player, which was good, is bad for another reason."""
        self._refuse(self._lines[session_id], why)

    def finish(self) -> None:
        """Check that no line was bad.

        Raises:
            BadLines: some were, or there was none at all.
        """
        if self._bad:
            raise BadLines(self._named, self._bad)
        if not self._lines:
            raise BadLines([(1, "there are no players")], 1)

    def _refuse(self, line: int, why: str) -> None:
        self._bad += 1
        if len(self._named) < MOST_NAMED:
            self._named.append((line, why))

    def _given(self, line: Line) -> Given:
        if line.why:
            raise ValueError(line.why)
        cells = dict(line.cells)
        if "session_id" not in cells:
            raise ValueError("there is no session_id")
        session_id = self._whole("session_id", cells.pop("session_id"), MAX_SESSION_ID)
        updated_at = cells.pop("updated_at", None)
        if updated_at is not None:
            updated_at = self._whole("updated_at", updated_at, self._latest)
        named = {
            name: self._value(name, value)
            for name, value in cells.items()
            if name in self._stored or not self._skip_unknown
        }
        change = Change.of(self._schema, named)
        return Given(session_id, change, len(named) == len(self._stored), updated_at)

    def _value(self, name: str, value: Any) -> Any:
        if name not in self._stored:
            raise InvalidState(name, value, f"one of the fields {', '.join(self._stored)}")
        kind = self._stored[name].kind
        if not self._from_text:
            return value
        try:
            return kind.parse(value)
        except ValueError:
            raise InvalidState(name, value, kind.allowed) from None

    def _whole(self, name: str, value: Any, most: int) -> int:
        try:
            number = int(value) if self._from_text else value
        except ValueError:
            number = None
        if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= most:
            raise InvalidState(name, value, f"a whole number from 1 to {most}")
        return number
