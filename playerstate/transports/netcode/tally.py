"""A netcode server's counters: ignored datagrams get no answer, so the log must report them."""

from __future__ import annotations

from collections import Counter

import attrs


@attrs.define
class Tally:
    """The counters of one server; each number only increases.

    Attributes:
        connected: clients that connected.
        disconnected: clients that disconnected.
        timed_out: clients that timed out.
        ended: clients that the server disconnected.
        replaced: those of them that connected on another connection.
        moved: connections that moved to another port of their client's address.
        challenged: requests answered by a challenge.
        denied: requests and responses answered by a denial, since no slot was free.
        ignored: datagrams ignored, by reason.
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
        """A copy of the present numbers."""
        return attrs.evolve(self, ignored=self.ignored.copy())

    def summary(self, before: Tally) -> str:
        """The differences to `before`, for the log; empty if there are none."""
        if self == before:
            return ""
        ignored = self.ignored - before.ignored
        reasons = ", ".join(f"{reason} {number}" for reason, number in ignored.most_common())
        return (
            f"{self.connected - before.connected} connected,"
            f" {self.disconnected - before.disconnected} disconnected,"
            f" {self.timed_out - before.timed_out} timed out,"
            f" {self.ended - before.ended} ended by the server,"
            f" {self.replaced - before.replaced} of them replaced,"
            f" {self.moved - before.moved} moved to another port;"
            f" {self.challenged - before.challenged} challenged,"
            f" {self.denied - before.denied} denied without a free slot;"
            f" {ignored.total()} datagrams ignored" + (f" ({reasons})" if reasons else "")
        )
