"""The endpoint as a service: it listens while the players' service runs, and while that stops."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed

from playerstate.log import PrintableLogger
from playerstate.players.errors import NotRunning
from playerstate.players.service import PlayerStateService
from playerstate.web.resource import WebResource
from playerstate.web.site import BACKLOG, WebPort, WebSite

_log = PrintableLogger()


class WebService(Service):
    """Listens on one TCP port.

    Args:
        players: the players' service, which must be started before this one.
        resource: answers the requests.
        port: the port's number; 0 for any free port.
        interface: the IP address to listen on.
        reactor: the global reactor by default.
        seconds: a clock that never steps.
    """

    def __init__(
        self,
        players: PlayerStateService,
        resource: WebResource,
        port: int,
        interface: str = "127.0.0.1",
        reactor: Any = None,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._players = players
        self._resource = resource
        self._number = port
        self._interface = interface
        self._reactor = reactor
        self._seconds = seconds
        self._port: WebPort | None = None

    def startService(self) -> None:
        """Bind the port and begin to answer.

        Raises:
            twisted.internet.error.CannotListenError: the port cannot be bound.
            AuditUnusable: changes cannot be recorded.
            NotRunning: the players' service does not run.
        """
        reactor = self._reactor
        if reactor is None:
            from twisted.internet import reactor
        self._resource.start()
        self._site = WebSite(self._resource, reactor, self._seconds)
        port = WebPort(self._number, self._site, BACKLOG, self._interface, reactor)
        port.startListening()
        self._port = port
        super().startService()
        address = port.getHost()
        _log.info("answering http on {host}:{port}", host=address.host, port=address.port)

    @property
    def port(self) -> int:
        """The number of the bound port.

        Raises:
            NotRunning: the endpoint does not run.
        """
        if self._port is None:
            raise NotRunning("the web endpoint does not run")
        return int(self._port.getHost().port)

    def stopService(self) -> Deferred[Any]:
        """Go on until the players' service has stopped, so that it can be watched; then close."""
        if not self.running:
            return succeed(None)
        super().stopService()
        return self._players.stopService().addBoth(self._close)

    def _close(self, result: object) -> Deferred[Any]:
        port, self._port = self._port, None
        assert port is not None
        self._resource.close("the server has stopped")
        closed = maybeDeferred(port.stopListening)
        self._site.end()
        return closed.addCallback(lambda _: result)
