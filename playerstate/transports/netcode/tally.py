"""A netcode server's counters: ignored datagrams get no answer, so the log must report them."""

from __future__ import annotations

from collections import Counter

import attrs

from playerstate.figures import counter, described

SUMMARY = (
    "{connected} connected, {disconnected} disconnected, {timed_out} timed out,"
    " {ended} ended by the server, {replaced} of them replaced, {moved} moved to another port;"
    " {challenged} challenged, {denied} denied without a free slot;"
    " {ignored} datagrams ignored{ignored_reasons}"
)
"""The format of the log line that sums up a while; `Tally.since` gives its fields."""

_NUMBERS = (
    *("connected", "disconnected", "timed_out", "ended", "replaced", "moved", "challenged"),
    "denied",
)


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

    def since(self, before: Tally) -> dict[str, int | str]:
        """What happened since `before`, the fields of `SUMMARY`; empty if nothing did."""
        if self == before:
            return {}
        fields: dict[str, int | str] = {
            name: getattr(self, name) - getattr(before, name) for name in _NUMBERS
        }
        ignored = self.ignored - before.ignored
        reasons = ", ".join(f"{reason} {number}" for reason, number in ignored.most_common())
        fields["ignored"] = ignored.total()
        fields["ignored_reasons"] = f" ({reasons})" if reasons else ""
        return fields
