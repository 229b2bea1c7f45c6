"""What a netcode server counts: the wire says nothing of what went wrong, so the log must."""

from __future__ import annotations

from collections import Counter

import attrs


@attrs.define
class Tally:
    """The counters of one server; each number only grows.

    Attributes:
        connected: clients let in.
        disconnected: clients that said that they go.
        timed_out: clients that fell silent.
        ended: clients that the server disconnected.
        replaced: those of them who came in on another connection.
        moved: connections that went over to another port of their client's address.
        challenged: requests answered by a challenge.
        denied: requests and responses answered by a denial, for want of a slot.
        ignored: by reason, datagrams that came to nothing.
    """

    connected: int = 0
    disconnected: int = 0
    timed_out: int = 0
    ended: int = 0
    replaced: int = 0
    moved: int = 0
    challenged: int = 0
    denied: int = 0
    ignored: Counter[str] = attrs.field(factory=Counter)

    def copy(self) -> Tally:
        """The numbers as they are now."""
        return attrs.evolve(self, ignored=self.ignored.copy())

    def summary(self, before: Tally) -> str:
        """What happened since `before`, for the log; empty if nothing did."""
        if self == before:
            return ""
        ignored = self.ignored - before.ignored
        reasons = ", ".join(f"{reason} {number}" for reason, number in ignored.most_common())
        return (
            f"{self.connected - before.connected} came,"
            f" {self.disconnected - before.disconnected} left,"
            f" {self.timed_out - before.timed_out} fell silent,"
            f" {self.ended - before.ended} were disconnected,"
            f" {self.replaced - before.replaced} of them replaced,"
            f" {self.moved - before.moved} moved;"
            f" {self.challenged - before.challenged} challenged,"
            f" {self.denied - before.denied} denied for want of a slot;"
            f" {ignored.total()} datagrams ignored" + (f" ({reasons})" if reasons else "")
        )
