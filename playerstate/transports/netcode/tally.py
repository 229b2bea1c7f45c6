"""A netcode server's counters: ignored datagrams get no answer, so the log must report them."""

from __future__ import annotations

from collections import Counter

import attrs

from playerstate.figures import counter, described


@described
@attrs.define(slots=False)
class Tally:
    """The counters of one server; each number only increases."""

    connected: int = counter("clients that connected", "netcode_connected")
    disconnected: int = counter("clients that disconnected", "netcode_disconnected")
    timed_out: int = counter("clients that timed out", "netcode_timed_out")
    ended: int = counter("clients that the server disconnected", "netcode_ended")
    replaced: int = counter(
        "those of them that connected on another connection", "netcode_replaced"
    )
    moved: int = counter(
        "connections that moved to another port of their client's address", "netcode_moved"
    )
    challenged: int = counter("requests answered by a challenge", "netcode_challenged")
    denied: int = counter(
        "requests and responses answered by a denial, since no slot was free", "netcode_denied"
    )
    ignored: Counter[str] = counter(
        "datagrams ignored, by reason", "netcode_ignored", label="reason", default=Counter
    )

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
