"""One process's life: the service, the gateway and the transport, from start to stop or crash."""

from __future__ import annotations

import fcntl
import itertools
import os
from collections import deque
from collections.abc import Callable
from typing import Any, NoReturn

from twisted.application.service import MultiService
from twisted.internet.defer import maybeDeferred
from twisted.python.failure import Failure

from playerstate.conversations.gateway import Gateway
from playerstate.players.service import PlayerStateService
from playerstate.players.stopping import ABANDON_WITHIN, CLOSE_WITHIN
from playerstate.runtime import Runtime
from playerstate.saving.persister import Persister
from playerstate.state.layout import RowLayout
from playerstate.testing import Address, MemoryPort
from playerstate.transports.plain import PlainService
from tests.kit.players import run_of
from tests.proof.simulation.answers import Answers
from tests.proof.simulation.conversations import Conversations
from tests.proof.simulation.judge import Judge
from tests.proof.simulation.model import Model
from tests.proof.simulation.move_judge import MoveJudge
from tests.proof.simulation.plan import Plan
from tests.proof.simulation.store import Storm
from tests.proof.simulation.world import Crash, Reactor, Thread, World

PORT = 9000
GRACE = 5.0
"""Seconds that a stop may take beyond what its deadlines allow, for turns that come late."""


class Server:
    """The server in one process.

    Args:
        world, plan, store, model: of the run.
        live file: the live file's path, or None.
        sent: is given what it sends.

    Attributes:
        process: whether there is a process.
        table: the live table, also when the service has stopped.
        unsaved_named: the players that it said are not saved, as it said it.
        thread_given_up: whether it went on without its persist thread, which keeps the store.
        running: whether its service runs; it may be stopping.
        stopping_since: when it was told to stop; None for one that was not.
        stopped: whether it has stopped in order.
    """

    def __init__(
        self,
        world: World,
        plan: Plan,
        store: Storm,
        model: Model,
        live_file: str | None,
        sent: Callable[[bytes, Address], None],
    ) -> None:
        self._world = world
        self._plan = plan
        self._store = store
        self._model = model
        self._live_file = live_file
        self._sent = sent
        self._lock: int | None = None
        self._threads: dict[Persister, Thread] = {}
        self.unsaved_named = ""
        self.thread_given_up = False
        self.process = False
        self.running = False
        self.stopped = False
        self.stopping_since: float | None = None

    def start(self) -> None:
        """Begin a new process."""
        world, plan = self._world, self._plan
        self.process = True
        self._store.new_process()
        self._model.new_process()
        self.reactor = Reactor(world, plan.slow_reports)
        self.reactor.rightNow = world.now + world.wall_step
        runtime = Runtime(
            self.reactor, world.monotonic, world.wall_clock, self._start_thread, world.random.random
        )
        self.service = PlayerStateService(
            self._store,
            save_within=plan.save_within,
            queue_size=plan.queue_size,
            max_players=plan.places,
            stop_within=plan.stop_within,
            live_file=self._live_file,
            runtime=runtime,
        )
        self.gateway = Gateway(
            self.service,
            idle_timeout=plan.idle_timeout,
            judges=self._judges(),
            jitter=world.random.random,
            draw_secret=lambda: world.random.randrange(1, 2**64),
        )
        self.gateway._batch_min = plan.many
        self._root = MultiService()
        self.service.setServiceParent(self._root)
        PlainService(self.gateway, PORT, reactor=self.reactor).setServiceParent(self._root)
        self.start_again()

    def _judges(self) -> list[MoveJudge]:
        every = self._plan.judged
        judge = MoveJudge(self._world, self._store.schema, every, lambda: self.table)
        return [judge] if every else []

    def start_again(self) -> None:
        """Start what has stopped, in the same process."""
        self.running, self.stopped, self.stopping_since = True, False, None
        self.unsaved_named, self.thread_given_up = "", False
        self._store.begin()
        self._threads = {}
        self._model.begin()
        recovered = -self.service.ledger.recovered
        self._root.startService()
        recovered += self.service.ledger.recovered
        self.table = self.service.table
        self._hold_lock()
        world, model, gateway = self._world, self._model, self.gateway
        self.registry = run_of(gateway).registry
        self.talks = Conversations(world, model, gateway)
        loads, judged = self._store.loads, self._plan.judged
        self._judge = Judge(world, model, self.talks, gateway, loads, judged)
        answers = Answers(world, model, self.talks, gateway, self._sent)
        self.port: MemoryPort = self.reactor.ports[PORT]
        self.port.sent = _Outgoing(answers.wrote)
        world.check(recovered <= model.recoverable, "recovers", recovered, "players")
        model.recovering |= self.recovering
        world.note("the server runs;", recovered, "rows to recover")

    def _start_thread(self, run: Callable[[], None], name: str) -> Thread:
        self._store.next_thread()
        thread = Thread(self._world, self._plan.slow_reports, run)
        self._threads[thread.persister] = thread
        return thread

    @property
    def threads(self) -> list[Thread]:
        """The persist threads, one a lane; of each the last that was started."""
        return list(self._threads.values())

    def _hold_lock(self) -> None:
        """Keep hold of the live file's lock, to give it up where the system would."""
        if self._live_file is not None:
            if self._lock is not None:
                os.close(self._lock)
            fd = self.service._memory._fd  # type: ignore[attr-defined]
            self._lock = os.dup(fd)

    @property
    def recovering(self) -> bool:
        """Whether what a process before left is still being saved."""
        return self.running and self.service.run.recovering

    def receive(self, datagram: bytes, address: Address) -> None:
        """A datagram reaches the machine; it is lost where nobody listens."""
        if self.running and PORT in self.reactor.ports:
            self._judge.deliver(datagram, address, self.port.receive)
            self._model.look(self.table)

    def receive_together(self, arrived: list[tuple[bytes, Address]]) -> None:
        """Datagrams reach the machine, and are read together as far as they may be."""
        while arrived:
            many = list(itertools.takewhile(lambda one: self._judge.is_unanswered(one[0]), arrived))
            if len(many) < 2 or not (self.running and PORT in self.reactor.ports):
                self.receive(*arrived.pop(0))
                continue
            del arrived[: len(many)]
            self._judge.deliver_together(
                *map(list, zip(*many, strict=True)), self.port.receive_many
            )
            self._model.look(self.table)

    def stop(self) -> None:
        """Tell it to stop."""
        self.stopping_since = self._world.now
        self.talks.close()
        maybeDeferred(self._root.stopService).addBoth(self._have_stopped)

    def _have_stopped(self, result: object) -> None:
        self._world.check(not isinstance(result, Failure), "stopping fails:", result)
        self.stopped = True

    @property
    def must_have_stopped(self) -> bool:
        """Whether its deadlines for stopping have passed."""
        if self.stopping_since is None or self.stopped:
            return False
        most = self._plan.stop_within + CLOSE_WITHIN + ABANDON_WITHIN + GRACE
        return self._world.now > self.stopping_since + most

    @property
    def can_start_again(self) -> bool:
        """Whether the service has stopped with nothing left behind, in a process that goes on."""
        return self.stopped and not self.thread_given_up

    def leave_running_process(self) -> None:
        """The service has stopped; the process goes on, and may start it again."""
        self.running = False

    def exit(self) -> None:
        """The process ends, by itself or not: the system takes back what it held."""
        self.process = self.running = False
        for port in list(self.reactor.ports.values()):
            port.getHandle().close()
        self.reactor.ports.clear()
        if self._lock is not None:
            fcntl.flock(self._lock, fcntl.LOCK_UN)
            os.close(self._lock)
            self._lock = None
        if self._live_file is not None:
            self.service._memory._let_go_of_recovering()  # type: ignore[attr-defined]

    def die_writing(self, share: float, act: Callable[[], object]) -> NoReturn:
        """Die in the middle of the first row that `act` writes, this share of it written."""
        table = self.table
        layout = RowLayout(self._store.schema.fields)

        def torn(buffer: Any, at: int, version: int, session_id: int, *row: Any) -> None:
            slot_and_generation, updated_at, sequence, values = row
            if session_id:
                self._model.tear(session_id, updated_at)
            head = (version, session_id, slot_and_generation, updated_at, sequence)
            packed = layout.struct.pack(*head, *values, version)
            written = int(share * len(packed))
            buffer[at : at + written] = packed[:written]
            raise Crash("in the middle of a row")

        table._put = torn
        act()
        raise Crash("between two rows")


class _Outgoing(deque[tuple[bytes, Address]]):
    """What a port sends goes on at once."""

    def __init__(self, send: Callable[[bytes, Address], None]) -> None:
        super().__init__()
        self._send = send

    def append(self, sent: tuple[bytes, Address]) -> None:
        """The port sends."""
        self._send(*sent)
