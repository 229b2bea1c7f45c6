"""One bot that a program changes: what it was set to, what its client knows, where it may be.

Places are the packed values of the client's fields.  Nothing here knows a clock or a server.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs


@attrs.define(eq=False)
class Changed:
    """What was done to one bot.

    Attributes:
        targets: where it was teleported to, in order.
        owned: the plain values of the server's fields that were set last, by field; empty before.
        noticed: how many of the targets its client has gone on from, or passed over for a newer
            one.
        here: where its client was after its last move or teleport.
        places: where the server may have it; None before the first teleport.
    """

    targets: list[bytes] = attrs.Factory(list)
    owned: Mapping[str, Any] = attrs.Factory(dict)
    noticed: int = 0
    here: bytes = b""
    places: set[bytes] | None = None

    @property
    def is_up_to_date(self) -> bool:
        """Whether its client has gone on from the last target."""
        return self.noticed == len(self.targets)

    def teleported(self, to: bytes) -> None:
        """The program has set it there: no move from before counts any more."""
        self.targets.append(to)
        self.places = {to}

    def stands(self, here: bytes) -> str:
        """Its client has it here, before its next move; return what is wrong with that, if any."""
        before, self.here = self.here, here
        if here == before:
            return ""
        # A client whose SEEN was lost is set to the same target again by the STATE of a later heal.
        for at in reversed(range(max(0, self.noticed - 1), len(self.targets))):
            if self.targets[at] == here:
                self.noticed = at + 1
                return ""
        if not before:
            return ""
        if here in self.targets:
            return "back to where it was teleported before"
        return "where it was never teleported"

    def moved(self, to: bytes) -> None:
        """Its client has sent a move; it counts if the client knew all targets."""
        self.here = to
        if self.places is not None and self.is_up_to_date:
            self.places.add(to)

    def may_be_at(self, place: bytes) -> bool:
        """Whether the server may have it there."""
        return self.places is None or place in self.places
