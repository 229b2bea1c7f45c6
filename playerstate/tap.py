"""``twistd playerstate``: its options, and the composition of its services."""

from __future__ import annotations

import atexit
import contextlib
import errno
import math
import os
import platform
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NoReturn

import apsw
from twisted.application.service import IService, MultiService, Service
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, ReactorNotRunning
from twisted.python import usage
from twisted.python.failure import Failure

from playerstate.conversations.gateway import Gateway
from playerstate.interfaces import LiveFileUnusable, StoreUnusable, file_store
from playerstate.listening import Listen, parse_protocol_id
from playerstate.live.names import check_apart
from playerstate.log import PrintableLogger
from playerstate.players.service import NotRunning, PlayerStateService
from playerstate.printable import one_line
from playerstate.state.default import DEFAULT_STATE, load_schema
from playerstate.state.schema import SchemaError
from playerstate.stores import open_store
from playerstate.tokens import EXPIRES, KeyUnusable, read_key
from playerstate.transports.netcode.addresses import Address
from playerstate.transports.netcode.service import NetcodeService
from playerstate.transports.netcode.settings import NetcodeSettings
from playerstate.transports.plain import PlainService

_log = PrintableLogger()


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


_NETCODE_NEEDS = {
    "key-file": "a key shared with the login service; `playerstate key PATH` creates one",
    "protocol-id": "the game's number, the same for its clients and its login service",
}

_LISTEN_REMEDIES = {
    errno.EADDRINUSE: "stop the program that listens there, or name another port",
    errno.EADDRNOTAVAIL: "the interface must be an address of this machine",
    errno.EACCES: "name a port from 1024 up, or allow this user lower ones",
}


class Options(usage.Options):
    """The options of ``twistd playerstate``; a bad value ends it with one line."""

    synopsis = "[options]"
    longdesc = (
        "Receives players' moves over UDP, keeps each player's newest state, and saves it in"
        " batches from a thread of its own. Returning players continue where they left."
    )

    optParameters = [
        [
            "store",
            "s",
            "sqlite:players.db",
            "Where to save: sqlite:PATH[?synchronous=normal], or memory:, which is lost at a stop.",
        ],
        ["state", None, DEFAULT_STATE, "The state class, as MODULE:CLASS."],
        [
            *("live-file", "j", None),
            "File in which moves outlive the process, or none [default: beside the"
            " database, ending in .live; playerstate.live for stores without a file].",
        ],
        ["save-within", None, "5", "Seconds within which a move is to be saved."],
        ["queue-size", None, "8192", "Rows that may wait for the persist thread, a power of two."],
        ["max-players", None, "10000", "The most players at a time."],
        ["idle-timeout", None, "30", "Seconds of silence after which a player has left."],
        ["key-file", None, None, "netcode: file of the key shared with the login service."],
        ["protocol-id", None, None, "netcode: the game's number, up to 64 bits, such as 0x1122."],
        [
            *("max-token-lifetime", None, None),
            "netcode: the longest lifetime of the login service's tokens, in seconds"
            f" [default: {EXPIRES}].",
        ],
    ]

    optFlags = [
        ["insecure", None, "Let the plain transport listen beyond this machine."],
    ]

    _parsers: dict[str, Callable[[str], Any]] = {
        "state": load_schema,
        "save-within": _seconds(0.1, 86_400),
        "queue-size": _power_of_two,
        "max-players": _whole(1, 2**24),
        "idle-timeout": _seconds(0.1, 86_400),
    }

    _netcode_parsers: dict[str, Callable[[str], Any]] = {
        "key-file": read_key,
        "protocol-id": parse_protocol_id,
        "max-token-lifetime": _seconds(1, 3600),
    }

    def __init__(self) -> None:
        super().__init__()
        self["listen"] = []
        self["public"] = []

    def opt_listen(self, text: str) -> None:
        """udp:PORT or netcode:PORT, [:interface=ADDRESS]; repeatable [default: udp:7777]."""
        self["listen"].append(self._parse("listen", text, Listen.parse))

    opt_l = opt_listen

    def opt_public(self, text: str) -> None:
        """netcode: ADDRESS:PORT by which tokens name this server; repeatable."""
        self["public"].append(self._parse("public", text, Address.parse))

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse; on an error, end with one line, where Twisted would print its whole help."""
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            _end(f"{str(error).rstrip('.')}; --help lists the options")

    def postOptions(self) -> None:
        """Convert the texts to values, and check how they fit together."""
        for name, parse in self._parsers.items():
            self._convert(name, parse)
        self._convert("store", lambda url: open_store(url, self["state"]))
        if self["live-file"] is None:
            files = file_store(self["store"])
            self["live-file"] = "playerstate.live" if files is None else files.live_path
        self._convert("live-file", self._live_file_path)
        self["listen"] = self["listen"] or [Listen("udp", 7777)]
        self._check_listen()
        self._check_netcode([listen for listen in self["listen"] if listen.scheme == "netcode"])

    def _live_file_path(self, text: str) -> str | None:
        if text == "none":
            return None
        path = os.path.abspath(text) if text else ""
        files = file_store(self["store"])
        check_apart(path, () if files is None else files.files)
        return path

    def _check_listen(self) -> None:
        places = set()
        for listen in self["listen"]:
            place = listen.port, listen.interface
            if listen.port and place in places:
                _end(f"--listen {listen}: an earlier --listen has this place; name another port")
            places.add(place)
            if listen.scheme == "udp" and not (listen.is_loopback or self["insecure"]):
                _end(
                    f"--listen interface={listen.interface}: the plain transport checks no sender"
                    " and encrypts nothing, so it listens on loopback only; listen with netcode, or"
                    " allow this interface by --insecure, on a network you trust"
                )

    def _check_netcode(self, listens: Sequence[Listen]) -> None:
        if not listens:
            for name in ("public", *self._netcode_parsers):
                if self[name]:
                    _end(
                        f"--{name} is for netcode, and no --listen uses it; add --listen"
                        " netcode:PORT"
                    )
            return
        for name, why in _NETCODE_NEEDS.items():
            if self[name] is None:
                _end(f"--listen {listens[0]}: netcode needs --{name}, {why}")
        if self["max-token-lifetime"] is None:
            self["max-token-lifetime"] = str(EXPIRES)
        for name, parse in self._netcode_parsers.items():
            self._convert(name, parse)
        for listen in listens:
            if listen.is_wildcard and not self["public"]:
                _end(
                    f"--listen {listen}: a token names its servers by address, and"
                    f" {listen.interface} names none; give the address by which clients reach this"
                    " server with --public ADDRESS:PORT"
                )

    def _convert(self, name: str, parse: Callable[[str], Any]) -> None:
        self[name] = self._parse(name, self[name], parse)

    def _parse(self, name: str, text: str, parse: Callable[[str], Any]) -> Any:
        try:
            return parse(text)
        except (ValueError, SchemaError, StoreUnusable, KeyUnusable) as error:
            _end(f"--{name} {text}: {error}")


def makeService(options: Options) -> IService:
    """The whole server; it opens nothing before it is started."""
    service = PlayerStateService(
        options["store"],
        save_within=options["save-within"],
        queue_size=options["queue-size"],
        max_players=options["max-players"],
        live_file=options["live-file"],
    )
    root = _Server(options, service)
    service.setServiceParent(root)
    gateway = Gateway(service, idle_timeout=options["idle-timeout"])
    places: dict[str, list[tuple[int, str]]] = {"udp": [], "netcode": []}
    for listen in options["listen"]:
        places[listen.scheme].append((listen.port, listen.interface))
    for port, interface in places["udp"]:
        PlainService(gateway, port, interface).setServiceParent(root)
    if places["netcode"]:
        settings = NetcodeSettings(
            options["key-file"],
            options["protocol-id"],
            frozenset(options["public"]),
            slots=options["max-players"],
            max_token_lifetime=options["max-token-lifetime"],
        )
        NetcodeService(gateway, settings, places["netcode"]).setServiceParent(root)
    return root


class _Server(MultiService):
    """The services in order; if one cannot start, the process ends with one line."""

    def __init__(self, options: Options, service: PlayerStateService) -> None:
        super().__init__()
        self._options = options
        self._service = service

    def startService(self) -> None:
        """Start the players' service, and the transports once its store is open."""
        _log.info("{versions}", versions=_versions())
        _mind_hangup()
        _check_log(self._options.parent or {})
        Service.startService(self)
        try:
            self._service.startService()
        except StoreUnusable as error:
            self._cannot_start(_unusable(error))
        opened = self._service.opened()
        if opened.called:
            self._listen()
        else:
            opened.addCallback(self._listen_late).addErrback(self._end_late)

    def _listen(self) -> None:
        try:
            for transport in self:
                if transport is not self._service:
                    transport.startService()
        except CannotListenError as error:
            place = error.port, error.interface
            listens = self._options["listen"]
            listen = next(each for each in listens if (each.port, each.interface) == place)
            why = error.socketError
            remedy = _LISTEN_REMEDIES.get(why.errno, "name another port or interface")
            self._cannot_start(f"--listen {listen}: cannot listen there: {why.strerror}; {remedy}")

    def _listen_late(self, _: None) -> None:
        """The store is open, some time after the process started."""
        if self.running:
            self._listen()

    def _end_late(self, failure: Failure) -> None:
        """The server cannot start, and the reactor runs already: log one line, and stop it."""
        if failure.check(NotRunning):
            return  # stopped meanwhile
        if failure.check(SystemExit):
            _log.critical("{line}", line=failure.value)
        else:
            _log.critical("playerstate: {line}", line=_unusable(failure.value))
        from twisted.internet import reactor

        self._fail_at_exit()
        with contextlib.suppress(ReactorNotRunning):
            reactor.stop()

    def stopService(self) -> Deferred[Any]:
        """Stop the services; the exit status is 1 if not everything could be saved."""
        stopped: Deferred[Any] = super().stopService()
        return stopped.addCallback(self._set_exit_status)

    def _set_exit_status(self, result: object) -> None:
        if self._service.gave_up:
            self._fail_at_exit()

    def _fail_at_exit(self) -> None:
        from twisted.internet import reactor

        # twistd would end by the signal that stopped it, and has no way to set a status.
        reactor._exitSignal = None  # type: ignore[attr-defined]
        atexit.register(os._exit, 1)

    def _cannot_start(self, line: str) -> NoReturn:
        """End the process as twistd does after an exception, but without a traceback.

        What the process prints at its end goes to its log.
        """
        daemon: Mapping[str, Any] = self._options.parent or {}
        if (pipe := daemon.get("statusPipe")) is not None:
            # The parent process waits on this pipe, to print the error of its daemon.
            os.write(pipe, f"1 playerstate: {one_line(line)}".encode()[:100])
            os.close(pipe)
        if (pidfile := daemon.get("pidfile")) and os.path.exists(pidfile):
            os.unlink(pidfile)
        _end(line)


def _unusable(error: BaseException | None) -> str:
    """The line for a store or live file that cannot be used, with the option at fault."""
    return f"--live-file: {error}" if isinstance(error, LiveFileUnusable) else f"--store: {error}"


def _versions() -> str:
    """The versions of this server and what it runs on, for its log."""
    try:
        ours = version("playerstate")
    except PackageNotFoundError:
        ours = "(not installed)"
    return (
        f"playerstate {ours} on Python {platform.python_version()}, SQLite"
        f" {apsw.sqlite_lib_version()}, {platform.platform()}"
    )


def _check_log(daemon: Mapping[str, Any]) -> None:
    """Warn if Twisted could not rotate the log, which it would not report itself."""
    path = daemon.get("logfile") or ("" if daemon.get("nodaemon", True) else "twistd.log")
    if not os.path.isfile(path):
        return
    places = (path, os.path.dirname(path) or ".")
    if not all(os.access(place, os.W_OK) for place in places):
        _log.warn(
            "SIGUSR1 cannot rotate the log: the user that the server runs as may not write"
            " {path} or its directory; grant it both",
            path=os.path.abspath(path),
        )


def _mind_hangup() -> None:
    """Make SIGHUP stop the server cleanly if it has a terminal, and do nothing if it has none.

    The terminal is looked up now, since it is gone at a hangup. If SIGHUP is ignored, as under
    nohup, it stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_DFL:
        return
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
        hang_up = _stop_for_hangup
    except OSError:
        hang_up = _go_on_after_hangup

    def on_hangup(*signal_and_frame: object) -> None:
        from twisted.internet import reactor

        reactor.callFromThread(hang_up)  # type: ignore[attr-defined]

    signal.signal(signal.SIGHUP, on_hangup)


def _stop_for_hangup() -> None:
    from twisted.internet import reactor

    _log.info("the terminal was closed (SIGHUP): stopping")
    try:
        reactor.stop()
    except ReactorNotRunning:
        _log.info("the server is stopping already")


def _go_on_after_hangup() -> None:
    _log.info(
        "SIGHUP: there is nothing to reload, the server keeps running; options are read at a start,"
        " and SIGTERM stops it"
    )


def _end(line: str) -> NoReturn:
    raise SystemExit(f"playerstate: {one_line(line)}")
