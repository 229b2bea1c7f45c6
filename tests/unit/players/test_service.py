"""The service in every phase: calls made from a callback, restarts, and histories of players."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.defer import Deferred
from twisted.logger import LogLevel
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from playerstate import (
    Joined,
    NotOnline,
    NotRunning,
    NotSaved,
    PlayerState,
    PlayerStateService,
    ServerFull,
    StoreBusy,
    StoreUnusable,
)
from playerstate.conversations.gateway import Gateway
from playerstate.interfaces import Stored
from playerstate.saving.persister import Persister
from playerstate.testing import FaultyStore, SteppedService
from tests.kit.players import (
    SCHEMA,
    FragileStore,
    ServiceTestCase,
    at,
    end_thread,
    go_over,
    outcome,
)
from tests.kit.support import LAW

SPAWN = PlayerState(350.0, 200.0)


class AgainTests(ServiceTestCase):
    """Starts of what runs, and of what has stopped."""

    def test_twice(self) -> None:
        """Starting what is started changes nothing."""
        stepped = self.start()
        stepped.join(42)
        thread = stepped.thread
        stepped.service.startService()
        self.assertIs(stepped.thread, thread)
        self.assertEqual(stepped.service.state(42), SPAWN)

    def test_again(self) -> None:
        """What was stopped may be started again, on the same store and with the same books."""
        stepped = self.start()
        for n in range(1, 4):
            stepped.join(42)
            stepped.service.update(42, at(n))
            self.successResultOf(stepped.stop())
            self.assertEqual(stepped.service.ledger.committed, n)
            stepped.service.startService()
            self.assertEqual(stepped.service.ledger.committed, n)
            self.assertEqual(stepped.service.ledger.snapshot().imbalance(), [])
            self.assertEqual(stepped.service.table.slots, {})
            self.assertEqual(stepped.join(42).state, at(n))


class RestartTests(ServiceTestCase):
    """Stop and start from inside of each other."""

    def test_second_stop_saves(self) -> None:
        """A service started again by the stop's callback saves all by its next stop."""
        stepped = self.start()
        seconds: list[Deferred[None]] = []

        def again(_: None) -> None:
            stepped.service.startService()
            stepped.join(42)
            stepped.service.update(42, at(7))
            seconds.append(stepped.service.stopService())

        stepped.join(41)
        stepped.service.update(41, at(1))
        stepped.service.stopService().addCallback(again)
        self.successResultOf(stepped.stop())
        self.waits(seconds[0])
        self.successResultOf(stepped.stop())
        self.successResultOf(seconds[0])
        self.assertEqual(self.stored(stepped), {41: (1.0, 0.0), 42: (7.0, 0.0)})

    def test_start_while_stopping(self) -> None:
        """A start while a stop is under way is refused, and the stop goes on."""
        stepped = self.start()
        stepped.join(42)
        stepped.service.update(42, at(1))
        stopped = stepped.service.stopService()
        self.assertRaises(NotRunning, stepped.service.startService)
        self.successResultOf(stepped.stop())
        self.successResultOf(stopped)
        self.assertEqual(self.stored(stepped), {42: (1.0, 0.0)})

    def test_retry_while_giving_up(self) -> None:
        """Who tries again on `NotSaved`, told that a stop gave up, gets `NotRunning` at once."""
        stepped = self.start(stop_within=1.0)
        stepped.join(42)
        stepped.service.update(42, at(1))
        stepped.store.failures.extend([OSError("full")] * 100)
        tries: list[Failure] = []

        def retry(failure: Failure) -> None:
            tries.append(failure)
            if failure.check(NotSaved):
                stepped.service.flush().addErrback(retry)

        leaves: list[Failure] = []

        def leave_again(failure: Failure) -> None:
            leaves.append(failure)
            if failure.check(NotSaved):
                stepped.service.leave(42).addErrback(leave_again)

        stepped.service.flush().addErrback(retry)
        stepped.service.leave(42).addErrback(leave_again)
        ends: list[None] = []
        stepped.service.stopService().addCallback(ends.append)
        for _ in range(4):
            stepped.step()
            stepped.reactor.advance(0.5)
        stepped.thread.run()
        stepped.reactor.deliver()
        self.assertEqual(ends, [None])
        self.assertTrue(stepped.service.gave_up)
        self.flushLoggedErrors(OSError)
        for failures in (tries, leaves):
            self.assertEqual([each.type for each in failures], [NotSaved, NotRunning])

    def test_stop_from_a_shared_load(self) -> None:
        """Who shares a load with one who stops the service is not joined to a stopping one."""
        stepped = self.start()
        stepped.store.hold_loads()
        first, second = stepped.service.join(42), stepped.service.join(42)
        first.addCallback(lambda _: stepped.service.stopService() and None)
        stepped.store.release_loads()
        self.failureResultOf(second, NotRunning)
        self.successResultOf(stepped.stop())

    def test_place_taken_from_a_shared_load(self) -> None:
        """Who finds the last place taken by a callback before gets `ServerFull`."""
        stepped = self.start(max_players=1)
        stepped.store.hold_loads()
        first, second = stepped.service.join(42), stepped.service.join(42)

        def make_room(joined: Joined) -> None:
            stepped.service.leave(42)
            stepped.store.held = None
            stepped.join(43)

        first.addCallback(make_room)
        held, stepped.store.held = stepped.store.held, []
        for _, answer in held:
            answer.callback(None)
        self.failureResultOf(second, ServerFull)


EVENTS = ("stop", "flush", "leave", "join", "join refused", "given up", "stop given up")
CALLS: dict[str, Callable[[PlayerStateService, Gateway], Any]] = {
    "start": lambda service, _: service.startService(),
    "stop": lambda service, _: service.stopService(),
    "join": lambda service, _: service.join(7),
    "join again": lambda service, _: service.join(42),
    "leave": lambda service, _: service.leave(42),
    "flush": lambda service, _: service.flush(),
    "update": lambda service, _: service.update(41, at(9)),
    "state": lambda service, _: service.state(41),
    "progress": lambda service, _: service.progress(42),
    "kick": lambda _, gateway: gateway.kick(42),
    "close": lambda _, gateway: gateway.close(),
    "room": lambda service, _: service.has_room(7),
    "trouble": lambda service, _: service.trouble,
}
DOCUMENTED = (NotRunning, NotOnline, NotSaved)


class EveryCallTests(ServiceTestCase):
    """Every public call, made from inside of every Deferred that the service fires."""

    def fire(self, stepped: SteppedService, event: str) -> Deferred[Any]:
        """Begin what will fire the Deferred of this event."""
        service = stepped.service
        if event in ("given up", "stop given up"):
            stepped.store.failures.extend([StoreBusy("locked")] * 500)
            flushed, stopped = service.flush(), service.stopService()
            fires, other = (flushed, stopped) if event == "given up" else (stopped, flushed)
            other.addErrback(lambda failure: failure.trap(NotSaved))
            return fires
        if event in ("join", "join refused"):
            stepped.store.hold_loads()
            return service.join(43)
        begin = {"stop": service.stopService, "flush": service.flush}
        return service.leave(42) if event == "leave" else begin[event]()

    def drive(self, stepped: SteppedService) -> None:
        """Let time pass and the persist thread work, whichever run of the service it is of."""
        for _ in range(30):
            if stepped.service._run is not None and not stepped.service.run.outbox.ended.called:
                if stepped.thread.persister.told_to_end:
                    stepped.thread.run()
                    stepped.reactor.deliver()
                else:
                    stepped.step()
            stepped.reactor.advance(0.25)

    def ask(self, event: str, name: str) -> None:
        """Make one call inside of one event, and see that all ends well."""
        stepped = self.start(stop_within=2.0)
        service, gateway = stepped.service, Gateway(stepped.service)
        gateway.start()
        for session_id in (41, 42):
            stepped.join(session_id)
            service.update(session_id, at(session_id))
        answers: list[Any] = []

        def call(_: object) -> None:
            try:
                answer = CALLS[name](service, gateway)
            except DOCUMENTED as error:
                answers.append(error)
                return
            if isinstance(answer, Deferred):
                answer.addBoth(answers.append)
            else:
                answers.append(answer)

        self.fire(stepped, event).addBoth(call)
        if event == "join":
            stepped.store.release_loads()
        elif event == "join refused":
            service.stopService()
        self.drive(stepped)
        gave_up = service.gave_up
        stepped.store.failures.clear()
        stepped.store.held = None
        last = service.stopService()
        self.drive(stepped)
        self.successResultOf(last)
        (answer,) = answers
        if isinstance(answer, Failure):
            self.assertIsNotNone(answer.check(*DOCUMENTED), answer)
        self.failureResultOf(service.flush(), NotRunning)
        self.assertEqual(service.ledger.snapshot().imbalance(), [])
        self.assertEqual(stepped.reactor.getDelayedCalls(), [])
        if not gave_up and not event.endswith("given up"):
            moved = name == "update" and answer is None
            self.assertEqual(self.stored(stepped)[41], (9.0 if moved else 41.0, 0.0))
            self.assertEqual(self.stored(stepped)[42], (42.0, 0.0))

    def test_each(self) -> None:
        """Each ends with a result or a documented error, loses nothing and ends no other."""
        for event in EVENTS:
            for name in CALLS:
                self.ask(event, name)
        self.assertEqual(self.told("failed", LogLevel.critical), [])


class SessionIdTests(SynchronousTestCase):
    """Session ids given to a service and to a gateway."""

    def test_session_ids(self) -> None:
        """0, a bool and a text are refused in words; a whole number of numpy's is one."""
        stepped = SteppedService()
        service, gateway = stepped.service, Gateway(stepped.service)
        calls = [service.join, service.leave, service.state, service.progress, gateway.kick]
        calls.append(lambda session_id: service.update(session_id, at(1)))
        for call in calls:
            for wrong, error in ((0, ValueError), (2**63, ValueError), (True, TypeError)):
                self.assertRaises(error, call, wrong)
            self.assertRaises(TypeError, call, "42")
        stepped.join(int(np.int64(42)))
        self.assertEqual(service.state(np.int64(42)), at(350, 200))
        self.assertEqual(service.ledger.snapshot().imbalance(), [])


class NotRunningTests(ServiceTestCase):
    """What is asked of a service that has stopped."""

    def check(self, service: PlayerStateService, gateway: Gateway) -> None:
        """Every call says that the service is not running."""
        for name in ("clock", "table", "run"):
            self.assertRaises(NotRunning, getattr, service, name)
        calls: list[Any] = [service.state, service.progress]
        calls += [lambda n: service.update(n, at(1))]
        for call in calls:
            self.assertRaises(NotRunning, call, 42)
        for ask in (service.join, service.leave, gateway.kick):
            self.failureResultOf(ask(42), NotRunning)
        self.failureResultOf(service.flush(), NotRunning)
        self.assertRaises(NotRunning, gateway.start)
        self.successResultOf(gateway.close())
        self.assertFalse(service.has_room(42))
        self.assertIsNone(service.trouble)
        service.guard()

    def test_before_and_after(self) -> None:
        """Before the first start, and after each stop."""
        service = PlayerStateService(FaultyStore(SCHEMA))
        self.check(service, Gateway(service))
        stepped = self.start()
        for _ in range(2):
            self.successResultOf(stepped.stop())
            self.check(stepped.service, Gateway(stepped.service))
            stepped.service.startService()

    def test_run(self) -> None:
        """A restart is another run; the one before takes nothing in."""
        stepped = self.start()
        stepped.join(42)
        before = stepped.service.run
        self.successResultOf(stepped.stop())
        stepped.service.startService()
        self.assertIsNot(stepped.service.run, before)
        self.assertRaises(NotRunning, before.update, 42, at(1))
        self.failureResultOf(before.join(42, None), NotRunning)

    def test_restart_from_the_stop(self) -> None:
        """Whoever is told of the stop may start the service again, at once."""
        stepped = self.start()
        stopped = stepped.service.stopService()
        stopped.addCallback(lambda _: stepped.service.startService())
        end_thread(stepped)
        self.successResultOf(stopped)
        self.assertEqual(stepped.join(42).restored, False)


class PlayersMachine(RuleBasedStateMachine):
    """Random histories of a few players against a dict of where each stands.

    What a join returns is always the model's, the books balance after each step, and after a stop
    the store is the model.  The store may be replaced by a copy of earlier times: then the model
    of who is not in the game is that copy.
    """

    PLAYERS = st.integers(1, 6)
    NUMBERS = st.integers(0, 3)
    LANES = 1

    def __init__(self) -> None:
        super().__init__()
        self.store = FragileStore(self.LANES)
        self.stepped = SteppedService(
            store=self.store, queue_size=2, max_players=4, save_within=1.0
        )
        self.service = self.stepped.service
        self.backup: dict[int, Stored] = {}
        self.dead: Any = None
        self.reopen, self.store.reopen = self.store.reopen, self.gone_over  # type: ignore[method-assign]
        self.model: dict[int, PlayerState] = {}
        self.online: set[int] = set()
        self.applied = 0
        self.waiting: list[tuple[int | None, dict[int, PlayerState], list[Any]]] = []

    @rule(session_id=PLAYERS)
    def join(self, session_id: int) -> None:
        """The player stands where the model says, or there is no place."""
        taken = len(self.service.table)
        [result] = outcome(self.service.join(session_id))
        if isinstance(result, ServerFull):
            assert taken == 4
            return
        assert result.state == self.model.get(session_id, SPAWN)
        assert result.restored == (session_id in self.model)
        self.online.add(session_id)

    @rule(session_id=PLAYERS, x=st.integers(0, 9))
    def update(self, session_id: int, x: int) -> None:
        """The model follows, where the player is online."""
        try:
            self.service.update(session_id, at(x, self.applied))
        except NotOnline:
            assert session_id not in self.online
            return
        assert session_id in self.online
        self.model[session_id] = at(x, self.applied)
        self.applied += 1

    @rule(session_id=PLAYERS)
    def leave(self, session_id: int) -> None:
        """What fires later must find the state of now, or a newer one, in the store."""
        left = outcome(self.service.leave(session_id))
        self.online.discard(session_id)
        if session_id in self.model:
            self.waiting.append((session_id, {session_id: self.model[session_id]}, left))

    @rule()
    def flush(self) -> None:
        """Likewise, of everybody."""
        self.waiting.append((None, dict(self.model), outcome(self.service.flush())))

    @rule(seconds=st.sampled_from([0.01, 0.05, 0.5, 5.0]))
    def advance(self, seconds: float) -> None:
        """Time passes."""
        self.stepped.reactor.advance(seconds)

    @property
    def alive(self) -> bool:
        """Whether there is every persist thread just now."""
        return self.dead not in self.stepped.threads

    @precondition(lambda self: self.alive)
    @rule()
    def step(self) -> None:
        """The persist thread goes on a step, and the reactor hears of it."""
        self.stepped.step()

    @precondition(lambda self: self.alive)
    @rule(number=NUMBERS)
    def step_unheard(self, number: int) -> None:
        """A persist thread goes on a step, and the reactor does not hear of it yet."""
        self.stepped.threads[number % self.LANES].persister.step()

    @precondition(lambda self: self.alive)
    @rule(number=NUMBERS)
    def die(self, number: int) -> None:
        """A persist thread dies, whatever it holds."""
        self.stepped.reactor.deliver()
        self.dead = self.stepped.threads[number % self.LANES]
        self.service.run.outbox._lanes[number % self.LANES].died(SystemExit("out"))
        self.stepped.reactor.deliver()

    @rule()
    def back_up(self) -> None:
        """Somebody takes a copy of the store."""
        self.backup = dict(self.store.players)

    @property
    def writing(self) -> list[Persister]:
        """Who has a writer, which alone can find out that the store was replaced."""
        persisters = [thread.persister for thread in self.stepped.threads]
        return [one for one in persisters if self.alive and one._writer is not None]

    @precondition(lambda self: self.writing)
    @rule(failures=st.integers(0, 2), number=NUMBERS)
    def replace(self, failures: int, number: int) -> None:
        """The copy takes the store's place, and is found out; it may not be usable at once."""
        self.stepped.reactor.deliver()
        self.check_waiting()  # in the store that it was, not in the next
        self.store.successor, self.backup = dict(self.backup), {}
        self.store.reopen_failures.extend(StoreUnusable("not yet") for _ in range(failures))
        self.writing[number % len(self.writing)]._maintain()
        self.stepped.reactor.deliver()

    def gone_over(self, identity: bytes, online: Any) -> list[int]:
        """Who is not in the game stands where the copy has them; nobody waits for more."""
        lost = self.reopen(identity, online)
        for session_id in set(self.model) - online:
            stored = self.store.players.get(session_id)
            if stored is None:
                del self.model[session_id]
            else:
                self.model[session_id] = PlayerState(*stored.values)
            for _, expected, _ in self.waiting:
                expected.pop(session_id, None)
        return lost

    @rule(error=st.sampled_from([StoreBusy("locked"), StoreBusy("still locked")]))
    def fail_store(self, error: Exception) -> None:
        """The store fails the next write."""
        self.stepped.store.failures.append(error)

    @rule(seconds=st.sampled_from([-3600.0, 0.0, 86_400.0]))
    def step_wall_clock(self, seconds: float) -> None:
        """The wall clock is set."""
        self.stepped.wall_step = seconds

    @precondition(lambda self: self.model)
    @rule()
    def restart(self) -> None:
        """After a stop the store is the model, and everybody who waited was told."""
        self.store.failures.clear()
        while not self.alive or self.store.successor is not None:
            if self.alive:
                self.stepped.step()
            self.stepped.reactor.advance(1.0)
            if self.alive:
                go_over(self.stepped)
        stopped = self.stepped.stop()
        assert stopped.called
        stored = {key: PlayerState(*row.values) for key, row in self.stepped.store.players.items()}
        assert stored == self.model
        self.check_waiting()
        assert not self.waiting
        self.service.startService()
        self.online.clear()

    @invariant()
    def check_waiting(self) -> None:
        """Whoever was told that it is saved finds it, or something newer, in the store."""
        for entry in list(self.waiting):
            _, expected, results = entry
            if not results:
                continue
            self.waiting.remove(entry)
            assert not isinstance(results[0], NotSaved)
            if isinstance(results[0], Exception):
                continue
            for session_id, state in expected.items():
                assert self.store.players[session_id].values[1] >= state.y

    @invariant()
    def check_books(self) -> None:
        """Invariant 7, and that the players counted are the players there are."""
        books = self.service.ledger.snapshot()
        assert books.imbalance() == []
        assert books.players_online == len(self.online)
        assert books.players_online + books.players_leaving == len(self.service.table)
        assert books.oldest_unsaved_seconds == 0.0 or books.pending


class LanesMachine(PlayersMachine):
    """The same over three lanes."""

    LANES = 3


class PlayersTests(SynchronousTestCase):
    """Random histories of a few players."""

    def test_histories(self) -> None:
        """Invariants 4, 7, 9 and 10 hold in each of them."""
        run_state_machine_as_test(
            PlayersMachine, settings=settings(LAW, max_examples=120, stateful_step_count=50)
        )
        self.flushLoggedErrors(SystemExit)

    def test_histories_over_lanes(self) -> None:
        """So they do over several lanes."""
        run_state_machine_as_test(
            LanesMachine, settings=settings(LAW, max_examples=120, stateful_step_count=50)
        )
        self.flushLoggedErrors(SystemExit)
