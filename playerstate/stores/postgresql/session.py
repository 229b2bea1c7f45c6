"""One connection to a PostgreSQL server, on which no call waits for longer than it is given.

The server may be stopped, or cut off by the network, while its host still acknowledges what is
sent: then neither the server's own time-outs nor TCP's end a call.  So each call has a deadline on
this side too, and another thread can end it.  A call that ends so has an unknown outcome, and the
connection is closed.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Generator, Sequence
from typing import Any, TypeVar

import attrs
import psycopg
from psycopg import capabilities
from psycopg.abc import Buffer
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg.waiting import Ready, Wait

CALL_SECONDS = 10.0
"""The longest wait for the answer of one call, unless the caller sets another."""
CANCEL_SECONDS = 1.0
"""The longest wait for a server to take the request to cancel what it does."""

RV = TypeVar("RV")

_BINARY = 1
_POLLED = {
    Wait.R: select.POLLIN,
    Wait.W: select.POLLOUT,
    Wait.RW: select.POLLIN | select.POLLOUT,
}


class Interrupted(psycopg.OperationalError):
    """Another thread has ended the call; its outcome is unknown."""


@attrs.frozen
class Command:
    """One statement of a pipeline.

    Attributes:
        sql: the statement.
        values: one for each parameter, in PostgreSQL's binary format.
        types: the oid of each parameter's type.
    """

    sql: bytes
    values: Sequence[Buffer] = ()
    types: Sequence[int] = ()

    def send(self, pgconn: PGconn) -> None:
        """Queue it to be sent."""
        formats = [_BINARY] * len(self.values)
        pgconn.send_query_params(self.sql, self.values, self.types, formats, _BINARY)


@attrs.frozen
class Prepare:
    """Has the server parse a statement, to be run under this name by `Prepared`."""

    name: bytes
    sql: bytes
    types: Sequence[int]

    def send(self, pgconn: PGconn) -> None:
        """Queue it to be sent."""
        pgconn.send_prepare(self.name, self.sql, self.types)


@attrs.frozen
class Prepared:
    """Runs a prepared statement."""

    name: bytes
    values: Sequence[Buffer]

    def send(self, pgconn: PGconn) -> None:
        """Queue it to be sent."""
        formats = [_BINARY] * len(self.values)
        pgconn.send_query_prepared(self.name, self.values, formats, _BINARY)


class Session(psycopg.Connection[tuple[Any, ...]]):
    """A connection in autocommit mode.  One thread at a time, but for `interrupt`.

    Attributes:
        patience: seconds that each call may wait for its answer; None for no limit.
    """

    patience: float | None

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.patience = CALL_SECONDS
        self._guard = threading.Lock()
        self._wake: int | None = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    @property
    def is_lost(self) -> bool:
        """Whether the connection is closed, or was found to be lost."""
        return self.closed or self.pgconn.status != ConnStatus.OK

    def interrupt(self) -> None:
        """End the running call, which raises `Interrupted`, or else the next.  Any thread."""
        with self._guard:
            if self._wake is not None:
                os.eventfd_write(self._wake, 1)

    def forget_interrupt(self) -> None:
        """Let an interrupt that came while no call was running end none."""
        if self._wake is not None:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._wake)

    def close(self) -> None:
        """Close the connection; the server rolls back what was not committed."""
        super().close()
        with self._guard:
            wake, self._wake = self._wake, None
            if wake is not None:
                os.close(wake)

    def wait(
        self,
        gen: Generator[Wait, Ready, RV],
        interval: float | None = None,
        timeout: float | None = None,
    ) -> RV:
        """See `psycopg.Connection.wait`; every call of a session waits here.

        Raises:
            Interrupted: see `interrupt`.
            psycopg.errors.QueryCanceled: `patience` has run out.
        """
        end = None if self.patience is None else time.monotonic() + self.patience
        try:
            wanted = next(gen)
            while True:
                wanted = gen.send(self._ready(wanted, end))
        except StopIteration as stop:
            result: RV = stop.value
            return result
        except (Interrupted, psycopg.errors.QueryCanceled) as error:
            if error.diag.sqlstate is None:  # it is of this side
                self._give_up()
            raise
        except KeyboardInterrupt:
            self._give_up()
            raise

    def _ready(self, wanted: Wait, end: float | None) -> Ready:
        """Wait until libpq can go on."""
        poll = select.poll()
        socket = self.pgconn.socket
        poll.register(socket, _POLLED[wanted])
        if self._wake is None:
            raise psycopg.OperationalError("the connection is closed")
        poll.register(self._wake, select.POLLIN)
        left = None if end is None else max(0.0, end - time.monotonic()) * 1000
        found = dict(poll.poll(left))
        if self._wake in found:
            raise Interrupted("interrupted; the outcome is unknown")
        if not found:
            raise psycopg.errors.QueryCanceled(
                f"the server has not answered within {self.patience:g} s"
            )
        events = found[socket]
        if not events & select.POLLOUT:
            return Ready.R  # after an error too: reading reports it
        return Ready.W if events == select.POLLOUT else Ready.RW

    def _give_up(self) -> None:
        """Ask the server to end what it does for us, and close the connection."""
        if capabilities.has_cancel_safe():  # or it would wait without a limit
            with contextlib.suppress(Exception):  # it may be the server that does not answer
                self.cancel_safe(timeout=CANCEL_SECONDS)
        self.close()

    def run(self, *commands: Command | Prepare | Prepared) -> list[PGresult]:
        """Send statements together, and wait for all their results; one round trip.

        Those after one that failed are not executed.

        Raises:
            psycopg.Error: of the first that failed, with the server's ``SQLSTATE``; or the
                connection was lost.
        """
        pgconn = self.pgconn
        with self.lock:
            try:
                pgconn.enter_pipeline_mode()
                for command in commands:
                    command.send(pgconn)
                pgconn.pipeline_sync()
                results = self.wait(self._fetch())
                pgconn.exit_pipeline_mode()
            except BaseException:  # what else comes over the connection is not known
                self.close()
                raise
        for result in results:
            if result.status == ExecStatus.FATAL_ERROR:
                raise psycopg.errors.error_from_result(result)
        return results

    def _fetch(self) -> Generator[Wait, Ready, list[PGresult]]:
        """The results up to the end of the pipeline."""
        pgconn = self.pgconn
        results: list[PGresult] = []
        while True:
            if pgconn.flush():
                if (yield Wait.RW) & Ready.R:
                    pgconn.consume_input()
            elif pgconn.is_busy():
                yield Wait.R
                pgconn.consume_input()
            elif (result := pgconn.get_result()) is None:  # the end of one statement's results
                if pgconn.status != ConnStatus.OK:
                    raise psycopg.OperationalError(pgconn.get_error_message())
            elif result.status == ExecStatus.PIPELINE_SYNC:
                return results
            else:
                results.append(result)
