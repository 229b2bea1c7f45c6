"""``twistd playerstate``: its options, and how its services are put together."""

from __future__ import annotations

import atexit
import ipaddress
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import attrs
from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.python import usage

from playerstate.gateway import Gateway
from playerstate.interfaces import StoreUnusable
from playerstate.schema import SchemaError
from playerstate.service import PlayerStateService
from playerstate.state import DEFAULT_STATE, load_schema
from playerstate.stores import open_store
from playerstate.transports.plain import PlainService


@attrs.frozen
class Listen:
    """Where to listen: ``udp:PORT:interface=ADDRESS``."""

    port: int
    interface: str

    @classmethod
    def parse(cls, text: str) -> Listen:
        r"""Read the text; a colon inside an address is written ``\:``.

        Raises:
            ValueError: saying what is allowed.
        """
        scheme, *parts = (part.replace("\\:", ":") for part in re.split(r"(?<!\\):", text))
        if scheme != "udp":
            raise ValueError("must be udp:PORT:interface=ADDRESS")
        try:
            port = _whole(0, 65_535)(parts[0] if parts else "")
        except ValueError as error:
            raise ValueError(f"the port {error}") from None
        interface = "127.0.0.1"
        for part in parts[1:]:
            key, _, value = part.partition("=")
            if key != "interface":
                raise ValueError(f"there is no {part!r}; must be udp:PORT:interface=ADDRESS")
            interface = value
        try:
            ipaddress.ip_address(interface)
        except ValueError:
            raise ValueError(
                f"interface {interface!r} must be an IP address of this machine, the colons of an"
                " IPv6 address written \\:"
            ) from None
        return cls(port, interface)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return ipaddress.ip_address(self.interface).is_loopback


def _seconds(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise ValueError(f"must be a number of seconds from {low:g} to {high:g}")
        return value

    return parse


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(text)

    return parse


def _power_of_two(text: str) -> int:
    try:
        value = _whole(2, 2**24)(text)
    except ValueError:
        value = 0
    if not value or value & (value - 1):
        raise ValueError("must be a power of two from 2 to 16777216")
    return value


class Options(usage.Options):
    """What ``twistd playerstate`` takes; every bad value ends it with one line."""

    synopsis = "[options]"
    longdesc = (
        "Takes players' moves over UDP, keeps where they stand, and saves it in batches from a"
        " thread of its own. A returning player stands where they left."
    )

    optParameters = [
        ["listen", "l", "udp:7777:interface=127.0.0.1", "Where to take players' moves."],
        ["store", "s", "sqlite:players.db", "Where to save: sqlite:PATH[?synchronous=normal]."],
        ["state", None, DEFAULT_STATE, "The state class, as MODULE:CLASS."],
        [
            *("journal", "j", None),
            "File that keeps moves beyond the death of the process, or none [default: beside the"
            " database, ending in .live; playerstate.live for stores without a file].",
        ],
        ["save-within", None, "5", "Seconds within which a move is to be saved."],
        ["queue-size", None, "8192", "Rows that may wait for the persist thread, a power of two."],
        ["max-players", None, "10000", "The most players at a time."],
        ["idle-timeout", None, "30", "Seconds of silence after which a player has left."],
    ]

    optFlags = [
        ["insecure", None, "Let the plain transport listen beyond this machine."],
    ]

    _parsers: dict[str, Callable[[str], Any]] = {
        "listen": Listen.parse,
        "state": load_schema,
        "save-within": _seconds(0.1, 86_400),
        "queue-size": _power_of_two,
        "max-players": _whole(1, 2**24),
        "idle-timeout": _seconds(0.1, 86_400),
    }

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse, and end with one line where Twisted would print its whole help."""
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            _end(f"{str(error).rstrip('.')}; --help lists the options")

    def postOptions(self) -> None:
        """Turn the texts into what they mean."""
        for name, parse in self._parsers.items():
            self._convert(name, parse)
        self._convert("store", lambda url: open_store(url, self["state"]))
        if self["journal"] is None:
            path = self["store"].path
            self["journal"] = "playerstate.live" if path is None else f"{path}.live"
        self["journal"] = None if self["journal"] == "none" else os.path.abspath(self["journal"])
        listen = self["listen"]
        if not (listen.is_loopback or self["insecure"]):
            _end(
                f"--listen interface={listen.interface}: the plain transport believes whoever sends"
                " and encrypts nothing, so it listens on loopback alone; --insecure lets it"
                " listen there all the same, on a network you trust"
            )

    def _convert(self, name: str, parse: Callable[[str], Any]) -> None:
        text = self[name]
        try:
            self[name] = parse(text)
        except (ValueError, SchemaError, StoreUnusable) as error:
            _end(f"--{name} {text}: {error}")


def makeService(options: Options) -> IService:
    """The whole server; nothing is opened before it is started."""
    service = PlayerStateService(
        options["store"],
        save_within=options["save-within"],
        queue_size=options["queue-size"],
        max_players=options["max-players"],
        journal=options["journal"],
    )
    root = _Server(options, service)
    service.setServiceParent(root)
    gateway = Gateway(service, idle_timeout=options["idle-timeout"])
    listen = options["listen"]
    PlainService(gateway, listen.port, listen.interface).setServiceParent(root)
    return root


class _Server(MultiService):
    """The services in their order, ending in one line where one of them cannot start."""

    def __init__(self, options: Options, service: PlayerStateService) -> None:
        super().__init__()
        self._options = options
        self._service = service

    def startService(self) -> None:
        """Start the store's service, then the transport."""
        try:
            super().startService()
        except StoreUnusable as error:
            self._cannot_start(f"--store: {error}")
        except CannotListenError as error:
            self._cannot_start(
                f"--listen udp:{error.port}:interface={error.interface}: cannot listen there:"
                f" {error.socketError.strerror}; end what listens there, or name another port"
            )

    def stopService(self) -> Deferred[Any]:
        """Stop the services; the process fails if not everything could be saved."""
        stopped: Deferred[Any] = super().stopService()
        return stopped.addCallback(self._set_exit_status)

    def _set_exit_status(self, result: object) -> None:
        if self._service.gave_up:
            from twisted.internet import reactor

            # twistd would end by the signal that stopped it, and knows no status of its own.
            reactor._exitSignal = None  # type: ignore[attr-defined]
            atexit.register(os._exit, 1)

    def _cannot_start(self, line: str) -> NoReturn:
        """End the process; do what twistd does after an exception, but without a traceback.

        What a process prints at its end goes to its log.
        """
        daemon: Mapping[str, Any] = self._options.parent or {}
        if (pipe := daemon.get("statusPipe")) is not None:
            # The process that was started waits here, to print what its daemon met.
            os.write(pipe, f"1 playerstate: {line}".encode()[:100])
            os.close(pipe)
        if (pidfile := daemon.get("pidfile")) and os.path.exists(pidfile):
            os.unlink(pidfile)
        _end(line)


def _end(line: str) -> NoReturn:
    raise SystemExit(f"playerstate: {line}")
