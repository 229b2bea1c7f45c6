"""The netcode transport as a service: its ports, its start and its stop."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.error import CannotListenError

from playerstate.clock import sleep_apart
from playerstate.conversations.gateway import Gateway
from playerstate.log import PrintableLogger
from playerstate.players.errors import NotRunning
from playerstate.transports.netcode.addresses import Address
from playerstate.transports.netcode.packets import MAX_DATAGRAM
from playerstate.transports.netcode.protocol import NetcodeProtocol
from playerstate.transports.netcode.run import OnConnect, Run, Sleep
from playerstate.transports.netcode.server import Server
from playerstate.transports.netcode.settings import NetcodeSettings
from playerstate.transports.netcode.tally import Tally
from playerstate.transports.recvmmsg import is_wildcard
from playerstate.transports.udp import UDPPort

_log = PrintableLogger()


class NetcodeService(Service):
    """The netcode transport on one UDP port or several, which share clients, slots and tokens.

    Args:
        gateway: its service must be started before this one.
        settings: of the server; without addresses, the ports' bound addresses are taken.
        listen: the ports, each by number and interface; number 0 is any free port.
        on_connect: called on the reactor thread with the session id and the 256 bytes of user data
            of a client that connected, before its first message; its result is ignored.  If it
            raises, the failure is logged and the client disconnected: a game that could not handle
            a player's user data does not play with that player.
        reactor: provides ``IReactorUDP``; the global reactor by default.
        wall_clock: seconds since the Unix epoch, by which tokens expire.
        random_bytes: returns so many random bytes, fit for keys.
        sleep: returns a Deferred that fires after so many seconds, even if the wall clock steps.

    Raises:
        ValueError: the settings have no addresses, and a port listens on all interfaces.
    """

    def __init__(
        self,
        gateway: Gateway,
        settings: NetcodeSettings,
        listen: Sequence[tuple[int, str]],
        *,
        on_connect: OnConnect | None = None,
        reactor: Any = None,
        wall_clock: Callable[[], float] = time.time,
        random_bytes: Callable[[int], bytes] = os.urandom,
        sleep: Sleep = sleep_apart,
    ) -> None:
        if not settings.addresses and any(is_wildcard(interface) for _, interface in listen):
            raise ValueError(
                "a server that listens on all interfaces needs the addresses that tokens name it by"
            )
        self._gateway = gateway
        self._settings = settings
        self._listen = listen
        self._on_connect = on_connect
        self._reactor = reactor
        self._wall_clock = wall_clock
        self._random_bytes = random_bytes
        self._sleep = sleep
        self._run: Run | None = None

    def startService(self) -> None:
        """Bind the ports and begin to answer, with no state of an earlier run.

        Raises:
            twisted.internet.error.CannotListenError: a port cannot be bound; all are closed then.
        """
        reactor = self._reactor
        if reactor is None:
            from twisted.internet import reactor
        seconds = self._gateway.service.clock.seconds
        ports: list[tuple[UDPPort, NetcodeProtocol]] = []
        try:
            for number, interface in self._listen:
                protocol = NetcodeProtocol(seconds)
                ports.append((self._bind(reactor, protocol, number, interface), protocol))
        except CannotListenError:
            DeferredList([port.close() for port, _ in ports])
            raise
        settings = self._settings
        if not settings.addresses:
            bound = frozenset(Address.of(port.host, port.number) for port, _ in ports)
            settings = attrs.evolve(settings, addresses=bound)
        server = Server(
            settings,
            now=seconds(),
            wall_clock=self._wall_clock,
            random_bytes=self._random_bytes,
        )
        self._gateway.start()
        self._run = Run(
            self._gateway,
            server,
            ports,
            on_connect=self._on_connect,
            sleep=self._sleep,
            reactor=reactor,
        )
        super().startService()
        _log.info(
            "netcode accepts clients whose tokens name {addresses} and live for {lifetime:g} s at"
            " most",
            addresses=" or ".join(map(str, sorted(settings.addresses, key=str))),
            lifetime=settings.max_token_lifetime,
        )

    def _bind(
        self, reactor: Any, protocol: NetcodeProtocol, number: int, interface: str
    ) -> UDPPort:
        service = self._gateway.service
        return UDPPort(reactor, service, protocol, number, interface, MAX_DATAGRAM, "netcode")

    @property
    def ports(self) -> list[int]:
        """The numbers of the bound ports.

        Raises:
            NotRunning: the transport was never started.
        """
        return [port.number for port in self._last_run().ports]

    @property
    def tally(self) -> Tally:
        """The counters since the start.

        Raises:
            NotRunning: the transport was never started.
        """
        return self._last_run().server.tally

    def _last_run(self) -> Run:
        """What was started, even if it has been stopped since."""
        if self._run is None:
            raise NotRunning("the netcode transport was never started")
        return self._run

    def stopService(self) -> Deferred[Any]:
        """Save and notify every player, disconnect every client, and close the ports."""
        if not self.running:
            return succeed(None)
        super().stopService()
        run = self._last_run()
        return self._gateway.close().addCallback(lambda _: run.stop())
