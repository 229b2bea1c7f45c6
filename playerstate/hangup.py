"""SIGHUP: it stops a server whose terminal was closed, and changes nothing where there is none."""

from __future__ import annotations

import os
import signal
import threading

from twisted.internet.error import ReactorNotRunning

from playerstate.log import PrintableLogger

_log = PrintableLogger()


def catch_hangup() -> None:
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
