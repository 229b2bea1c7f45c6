"""The service that twistd runs: it starts and stops the others, and ends the process on failure."""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NoReturn

import apsw
from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, ReactorNotRunning
from twisted.logger import ILogObserver
from twisted.python.failure import Failure

from playerstate.hangup import catch_hangup
from playerstate.interfaces import LiveFileUnusable, StoreUnusable
from playerstate.jsonlog import observer
from playerstate.listening import WEB_SCHEMES, Listen
from playerstate.log import PrintableLogger
from playerstate.players.service import NotRunning, PlayerStateService
from playerstate.printable import one_line
from playerstate.stores.sqlite.messages import log_messages
from playerstate.web.audit import AuditUnusable
from playerstate.web.service import WebService

_log = PrintableLogger()

_LISTEN_REMEDIES = {
    errno.EADDRINUSE: "stop the program that listens there, or name another port",
    errno.EADDRNOTAVAIL: "the interface must be an address of this machine",
    errno.EACCES: "name a port from 1024 up, or allow this user lower ones",
}


class Server(MultiService):
    """The services in order; if one cannot start, the process ends with one line.

    Args:
        service: the players' service, a child of this one, as the transports are.
        listens: the options by which the transports listen, and where, to name the one at fault.
        daemon: the options of twistd itself; empty where there is no twistd.
        logs_json: whether twistd's log is to be JSON.
    """

    def __init__(
        self,
        service: PlayerStateService,
        listens: Sequence[tuple[str, Listen]],
        daemon: Mapping[str, Any],
        *,
        logs_json: bool = False,
    ) -> None:
        super().__init__()
        self._service = service
        self._listens = listens
        self._daemon = daemon
        self._logs_json = logs_json

    def setServiceParent(self, parent: Any) -> None:
        """Join twistd's application, which has its log begun once it has all services."""
        if self._logs_json:
            parent.setComponent(ILogObserver, observer(self._daemon))
        super().setServiceParent(parent)

    def startService(self) -> None:
        """Start the players' service, and the transports once its store is open."""
        _log.info(
            "playerstate {playerstate} on Python {python}, SQLite {sqlite}, {platform}",
            **_versions(),
        )
        log_messages()
        catch_hangup()
        _check_log(self._daemon)
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
        for transport in self:
            if transport is self._service:
                continue
            try:
                transport.startService()
            except CannotListenError as error:
                self._cannot_listen(error, isinstance(transport, WebService))
            except AuditUnusable as error:
                self._cannot_start(f"--audit-log: {error}")

    def _cannot_listen(self, error: CannotListenError, is_web: bool) -> NoReturn:
        option, listen = next(
            (option, each)
            for option, each in self._listens
            if (each.port, each.interface) == (error.port, error.interface)
            and (each.scheme in WEB_SCHEMES) == is_web
        )
        why = error.socketError
        remedy = _LISTEN_REMEDIES.get(why.errno, "name another port or interface")
        self._cannot_start(f"{option} {listen}: cannot listen there: {why.strerror}; {remedy}")

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
        if (pipe := self._daemon.get("statusPipe")) is not None:
            # The parent process waits on this pipe, to print the error of its daemon.
            os.write(pipe, f"1 playerstate: {one_line(line)}".encode()[:100])
            os.close(pipe)
        if (pidfile := self._daemon.get("pidfile")) and os.path.exists(pidfile):
            os.unlink(pidfile)
        end(line)


def _unusable(error: BaseException | None) -> str:
    """The line for a store or live file that cannot be used, with the option at fault."""
    return f"--live-file: {error}" if isinstance(error, LiveFileUnusable) else f"--store: {error}"


def _versions() -> dict[str, str]:
    """The versions of this server and what it runs on, for its log."""
    try:
        ours = version("playerstate")
    except PackageNotFoundError:
        ours = "(not installed)"
    return {
        "playerstate": ours,
        "python": platform.python_version(),
        "sqlite": apsw.sqlite_lib_version(),
        "platform": platform.platform(),
    }


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


def end(line: str) -> NoReturn:
    """End the process with status 1 and one line on standard error."""
    raise SystemExit(f"playerstate: {one_line(line)}")
