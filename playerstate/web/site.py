"""All connections of an endpoint: how many, and how much of the reactor's time they take.

Reactor thread only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.tcp import Port
from twisted.web.resource import IResource
from twisted.web.server import Site

from playerstate.web.budget import Budget
from playerstate.web.channel import REQUEST_WITHIN, Channel

MOST_CONNECTIONS = 64
"""Connections at a time; a further one takes the place of that which has waited longest for a
request."""
ACCEPTED_AT_ONCE = 4
"""Connections accepted in one turn of the reactor."""
BACKLOG = 128
"""Connections that the system keeps until they are accepted."""


class WebSite(Site):
    """The connections.

    Args:
        resource: answers the requests.
        reactor: provides ``IReactorTime``.
        seconds: a clock that never steps, which measures the work.

    Attributes:
        budget: the time that requests may take.
        channels: the open connections, oldest first.
    """

    protocol: Any = Channel
    noisy = False

    def __init__(self, resource: IResource, reactor: Any, seconds: Callable[[], float]) -> None:
        super().__init__(resource, timeout=REQUEST_WITHIN, reactor=reactor)
        self.budget = Budget(seconds)
        self.channels: dict[Channel, None] = {}
        self._waiting: deque[Channel] = deque()
        self._call: IDelayedCall | None = None
        self.resume_accepting: Callable[[], object] = lambda: None

    def startFactory(self) -> None:  # noqa: N802 - of Twisted
        """Nothing: requests are not logged, since any client can make as many as it likes."""

    def stopFactory(self) -> None:  # noqa: N802 - of Twisted
        """Forget who waits: the port is closed."""
        if self._call is not None and self._call.active():
            self._call.cancel()

    def log(self, request: Any) -> None:
        """Nothing, as `startFactory`."""

    def opened(self, channel: Channel) -> None:
        """A connection is open; where there are too many, an idle one is closed."""
        if len(self.channels) >= MOST_CONNECTIONS:
            idle = next((each for each in self.channels if not each.is_answering), channel)
            self.channels.pop(idle, None)
            idle.transport.abortConnection()
            if idle is channel:
                return
        self.channels[channel] = None

    def closed(self, channel: Channel) -> None:
        """A connection is closed."""
        self.channels.pop(channel, None)

    def may_go_on(self, channel: Channel) -> bool:
        """Whether there is time for what this connection has sent; if not, it is called later."""
        if not self._waiting and not self.budget.wait:
            return True
        self._waiting.append(channel)
        self.plan()
        return False

    def plan(self) -> None:
        """Call those who wait once there is time."""
        if self._call is None or not self._call.active():
            self._call = self.reactor.callLater(self.budget.wait, self._go_on)

    def _go_on(self) -> None:
        while self._waiting and not self.budget.wait:
            channel = self._waiting.popleft()
            if channel in self.channels:
                channel.go_on()
        if self.budget.wait:
            self.plan()
        else:
            self.resume_accepting()

    def end(self) -> None:
        """Close every connection, once its answer is sent."""
        for channel in list(self.channels):
            channel.loseConnection()


class WebPort(Port):
    """A TCP port that accepts few connections at once, and none while the budget is overdrawn."""

    factory: Any

    def doRead(self) -> None:  # noqa: N802 - of Twisted
        """Accept what waits, within bounds."""
        site: WebSite = self.factory
        self.numberAccepts = min(self.numberAccepts, ACCEPTED_AT_ONCE)
        with site.budget.spending():
            super().doRead()
        if site.budget.wait:
            self.stopReading()
            site.resume_accepting = self._accept_again
            site.plan()

    def _accept_again(self) -> None:
        self.factory.resume_accepting = lambda: None
        if self.connected:
            self.startReading()
