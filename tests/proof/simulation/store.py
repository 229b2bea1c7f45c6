"""A store that fails, stalls and half-finishes, as a plan says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from twisted.internet.defer import Deferred

from playerstate.interfaces import LeftOut, Records, RowRefused, StoreBusy, Stored
from playerstate.state.schema import StateSchema
from playerstate.stores.memory import MemoryStore
from tests.proof.simulation.plan import Plan
from tests.proof.simulation.world import ThreadKilled, World

Way = Callable[[], None]


class Busy(StoreBusy):
    """A fault of this store's: nothing was written."""


class Broken(Exception):
    """A fault of this store's: nobody knows whether anything was written."""


class Ledgerkeeper(Protocol):
    """Who is told of every row that reaches the store."""

    def written(self, session_id: int, before: Stored | None, after: Stored) -> None:
        """This row is in the store now."""

    def left_out(self, session_id: int, updated_at: int) -> None:
        """This row is settled without being in the store."""


class Storm(MemoryStore):
    """A memory store with bad weather.

    What it holds outlives crashes.  A write that stalls lets the world go on inside it.

    Attributes:
        keeper: is told of every row.
        stall: lets the world go on for so many seconds, or until the write is interrupted.
        healed: whether the weather is over.
        outage: whether every write fails for now.
        loads: what became of each load: ``plain``, ``failed`` or ``waits``.
        waiting: loads not yet answered.
        unsynced: players with rows that are not known to be on disk.
        rows_settled: rows that writes which came back took or left out.
        interrupts: how often the writes that run were told to end.
    """

    keeper: Ledgerkeeper
    stall: Callable[[float], None]

    def __init__(self, schema: StateSchema, world: World, plan: Plan) -> None:
        super().__init__(schema, plan.lanes)
        self._world = world
        self._plan = plan
        self._identity = bytes(16)
        self._killing = False
        self.healed = False
        self.outage = False

    def new_process(self) -> None:
        """Another process counts what is settled from 0."""
        self.rows_settled = 0
        self.begin()

    def begin(self) -> None:
        """Forget what was under way: the run that asked for it is no more."""
        self.unsynced: set[int] = set()
        self.loads: list[str] = []
        self.waiting: list[tuple[int, Deferred[Stored | None]]] = []
        self.interrupts = 0
        self._killing = False

    def prepare(self) -> bytes:
        """See `IStateStore.prepare`."""
        return self._identity

    def migrate(self, identity: bytes) -> bytes:
        """See `IStateStore.migrate`."""
        self._identity = identity
        return identity

    def load(self, session_id: int) -> Stored | Deferred[Stored | None] | None:  # type: ignore[override]
        """See `IStateReader.load`."""
        world, plan = self._world, self._plan
        if not self.healed and world.chance(plan.load_faults):
            self.loads.append("failed")
            raise world.random.choice((Busy, Broken))("this load fails")
        if not world.chance(plan.slow_loads):
            self.loads.append("plain")
            return super().load(session_id)
        self.loads.append("waits")
        answer: Deferred[Stored | None] = Deferred()
        self.waiting.append((session_id, answer))
        return answer

    def answer_load(self) -> None:
        """Answer one of the loads that wait."""
        world = self._world
        session_id, answer = self.waiting.pop(world.random.randrange(len(self.waiting)))
        if answer.called:
            return
        world.note("the load of", session_id, "is answered")
        if not self.healed and world.chance(self._plan.load_faults):
            answer.errback(Broken("this load fails late"))
        else:
            answer.callback(self.players.get(session_id))

    def open_writer(self) -> Storm:
        """See `IStateStore.open_writer`."""
        if self._bad(0.2):
            raise self._world.random.choice((Busy, Broken))("no writer now")
        return self

    def _bad(self, share: float = 1.0) -> bool:
        return not self.healed and (
            self.outage or self._world.chance(self._plan.write_faults * share)
        )

    def write(self, records: Records) -> LeftOut:
        """See `IStateWriter.write`."""
        if self._killing:
            raise ThreadKilled
        ids = records["session_id"].tolist()
        self._world.check(ids == sorted(set(ids)) and ids, "a batch is not sorted:", ids)
        if not self._bad():
            return self._settled(records, self._commit(records))
        before, after = self._world.random.choice(self._ways())
        self._world.note("the write of", ids, *(way.__name__.strip("_") for way in (before, after)))
        before()
        left_out = self._commit(records)
        after()
        return self._settled(records, left_out)

    def _ways(self) -> list[tuple[Way, Way]]:
        """What may go wrong before the rows take effect, and after."""
        if self.outage:
            return [(self._busy, self._well), (self._broken, self._well)]
        return [
            *((way, self._well) for way in (self._busy, self._broken, self._stalls, self._dies)),
            *((self._well, way) for way in (self._broken, self._stalls, self._dies)),
            (self._stalls, self._breaks_or_not),
        ]

    def _well(self) -> None:
        pass

    def _busy(self) -> None:
        raise Busy("the store is busy")

    def _broken(self) -> None:
        raise Broken("the store is broken")

    def _dies(self) -> None:
        self._killing = True
        raise ThreadKilled

    def _stalls(self) -> None:
        before = self.interrupts
        self.stall(self._world.random.choice((0.01, 0.1, 0.5, 2.0, 8.0)))
        if self.interrupts > before and self._world.random.random() < 0.8:
            raise Broken("the write was interrupted")

    def _breaks_or_not(self) -> None:
        if self._world.random.random() < 0.5:
            self._broken()

    def next_thread(self) -> None:
        """A thread has died in a write; the next may live."""
        self._killing = False

    def _refused(self, records: Records) -> dict[int, str]:
        """Which records it refuses, by position, and why."""
        if self.healed and not self._plan.refused_to_the_end:
            return {}
        return {
            index: f"no row of player {session_id} like {values}"
            for index, (session_id, *values, _) in enumerate(records.tolist())
            if session_id in self._plan.refused and int(values[0]) % self._plan.refused_every == 0
        }

    def _commit(self, records: Records) -> LeftOut:
        refused = self._refused(records)
        if refused and not self._plan.refused_by_name:
            raise RowRefused(next(iter(refused.values())))
        before = dict(self.players)
        good = np.delete(np.arange(len(records)), list(refused))
        newer = good[super().write(records[good]).newer]
        for index, (session_id, *values, updated_at) in enumerate(records.tolist()):
            if index in refused:
                continue
            stored = self.players[session_id]
            if index in newer:
                self._world.check(
                    stored.updated_at > updated_at and stored == before.get(session_id),
                    *("player", session_id, "was left out, but the store holds", stored),
                )
                continue
            self._world.check(
                stored == Stored(self.schema.stored_values(tuple(values)), updated_at),
                *("player", session_id, "was written, but the store holds", stored),
            )
            self.unsynced.add(session_id)
            self.keeper.written(session_id, before.get(session_id), stored)
        return LeftOut(newer, refused=refused)

    def _settled(self, records: Records, left_out: LeftOut) -> LeftOut:
        self.rows_settled += len(records) - len(left_out.refused)
        for record in records[left_out.newer]:
            self.keeper.left_out(int(record["session_id"]), int(record["updated_at"]))
        return left_out

    def quarantine(self, records: Records, reasons: Sequence[str]) -> None:
        """See `IStateWriter.quarantine`."""
        if self._bad(0.3):
            raise Broken("no room for rows that are set aside")
        self.rows_settled += len(records)
        for record, reason in zip(records, reasons, strict=True):
            session_id, updated_at = int(record["session_id"]), int(record["updated_at"])
            self._world.note("player", session_id, "is set aside:", reason)
            self.keeper.left_out(session_id, updated_at)

    def sync(self) -> None:
        """See `IStateWriter.sync`."""
        if self._bad(0.2):
            self._world.note("the disk does not answer")
            raise Broken("the disk does not answer")
        self.unsynced.clear()

    def maintain(self) -> None:
        """See `IStateWriter.maintain`."""
        if self._bad(0.1):
            raise Broken("maintenance fails")

    def interrupt(self) -> None:
        """See `IStateWriter.interrupt`."""
        self.interrupts += 1

    def write_elsewhere(self, session_id: int, stored: Stored) -> None:
        """Another program writes a newer row."""
        self.players[session_id] = stored
