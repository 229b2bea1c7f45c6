"""The switch of all lanes to the store that replaced the one that was opened.

In order: a lane finds the store replaced; the writers of the others are closed; one lane's persist
thread goes over to the store that is there now, as often as it takes; all lanes write again.
Reactor thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from playerstate.saving.lane import Lane

T = TypeVar("T")


class Switch:
    """Holds all lanes while the store is exchanged under them, and picks the one that goes over.

    Args:
        lanes: all lanes.
        replaced: called when a lane finds the store replaced, unless a switch is under way already.
        reopen: called once every writer is closed; calls `go_over`, and once that has succeeded,
            `resume`.

    Attributes:
        under_way: whether the store was replaced, and `resume` not called since.
    """

    def __init__(
        self, lanes: Sequence[Lane], replaced: Callable[[], None], reopen: Callable[[], None]
    ) -> None:
        self._lanes = lanes
        self._replaced = replaced
        self._reopen = reopen
        self._is_closing = False
        self._lane = lanes[0]
        self._requested: Callable[[], None] | None = None
        self.under_way = False

    def found(self, lane: Lane) -> None:
        """Close the writers of the other lanes: this one has found the store replaced."""
        if not self.under_way:
            self._is_closing = self.under_way = True
            self._lane = lane
            self._replaced()
            for other in self._lanes:
                other.hold()  # without effect on the lane that found it
        self.held()

    def held(self) -> None:
        """Call `reopen` if the last of the writers is now closed."""
        if self._is_closing and all(lane.is_held for lane in self._lanes):
            self._is_closing = False
            self._reopen()

    def ended(self, lane: Lane) -> None:
        """Have another lane go over, if the one that ended was to."""
        if lane is self._lane:
            self._have_lane_go_over()

    def go_over(self, call: Callable[[], T], then: Callable[[T | Exception], object]) -> None:
        """Have the persist thread that found the store replaced go over to the one there now.

        Another lane's does it where that has ended, or ends before; where all have, neither is
        called.

        Args:
            call: goes over; called on that thread, while no writer of any lane is open.
            then: called on the reactor thread, with what `call` returned or raised.
        """

        def gone_over(outcome: T | Exception) -> None:
            self._requested = None
            then(outcome)

        self._requested = lambda: self._lane.reopen(call, gone_over)
        self._have_lane_go_over()

    def _have_lane_go_over(self) -> None:
        """Pass the request, if there is one, to a lane whose thread has not ended."""
        alive = [lane for lane in self._lanes if lane.synced is None]
        if alive and self._requested is not None:
            if self._lane not in alive:
                self._lane = alive[0]
            self._requested()

    def put_off(self) -> None:
        """Note that going over is not possible yet; the caller will call `go_over` again."""
        for lane in self._lanes:
            lane.persister.put_off()

    def resume(self) -> None:
        """Let the lanes write again, to the store that has replaced the opened one."""
        self.under_way = False
        for lane in self._lanes:
            lane.resume()
