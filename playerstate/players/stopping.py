"""The order of a stop: refuse new work, save unsaved rows, join the threads, close the store.

Reactor thread only.
"""

from __future__ import annotations

import math
from functools import partial

from twisted.internet.defer import TimeoutError

from playerstate.log import PrintableLogger
from playerstate.players.run import Run
from playerstate.saving.commit import NotSaved, named

CLOSE_WITHIN = 5.0
"""Seconds the persist thread has at least to close its writer, even past the deadline."""
ABANDON_WITHIN = 1.0
"""Seconds an interrupted persist thread has to end, once the deadline has passed."""

_log = PrintableLogger()


async def stop(run: Run) -> None:
    """End a run, saving all that the store takes within `Options.stop_within` seconds."""
    run.refuse()
    end_within = await _save(run)
    try:
        synced = await run.outbox.ended.addTimeout(end_within, run.clock)
    except TimeoutError:
        # The store stays locked: the stuck call may still write.
        _log.critical(
            "the persist thread is stuck in the store {store}; going on without it",
            store=run.options.store.describe(),
        )
    else:
        run.outbox.join_threads(ABANDON_WITHIN)
        _close(run, synced)
    run.end()


async def _save(run: Run) -> float:
    """Save everything, or give up; return the seconds that the persist thread may take to end."""
    clock, within = run.clock, run.options.stop_within
    deadline = clock.seconds() + within
    progress = clock.every(1.0, partial(_log_progress, run, deadline))
    try:
        await run.outbox.saved_since(math.inf).addTimeout(within, clock)
    except TimeoutError:
        give_up(run, NotSaved(f"the store did not take everything within {within} s"))
        return ABANDON_WITHIN
    except NotSaved as error:
        _log.error("stopping: {error}", error=error)
    finally:
        progress.cancel()
    # Everything is settled: the thread may close its writer.
    run.outbox.finish()
    return max(deadline - clock.seconds(), CLOSE_WITHIN)


def _close(run: Run, synced: bool) -> None:
    """The persist thread has ended: close the reader, the live file and the store."""
    store = run.options.store
    if not run.gave_up:
        run.reopening.finish()
    if run.outbox.pending and not run.gave_up:
        # The last check found the store replaced, after it had taken everything.
        give_up(run, NotSaved("the store was removed or replaced while stopping"))
    run.gave_up |= run.reopening.in_doubt and not synced
    clean = synced and not run.gave_up
    for close in (run.reopening.close, partial(run.memory.close, clean=clean), store.close):
        # A failure is logged only: the waiters of the stop must still be notified.
        with _log.failuresHandled("closing {store} failed", store=store.describe()):
            close()


def _log_progress(run: Run, deadline: float) -> None:
    _log.info(
        "stopping: {pending} updates still wait for {store}; giving up in {seconds:.0f} s",
        pending=run.outbox.pending,
        store=run.options.store.describe(),
        seconds=deadline - run.clock.seconds(),
    )


def give_up(run: Run, why: NotSaved) -> None:
    """Nothing more can be saved: log the players whose updates are not, and fail all waiters."""
    run.gave_up = True
    run.salvage.check()  # so that the next start finds the live file
    unsaved = [*run.outbox.unrecovered(), *run.table.unsaved().tolist()]
    _log.error(
        "stopped with the newest state unsaved of player {players}; {why}; {notice}",
        players=named(unsaved),
        why=why,
        notice=run.memory.unsaved_notice,
    )
    run.outbox.abandon()
    end_waiting(run, why)


def end_waiting(run: Run, why: NotSaved) -> None:
    """Nothing more is saved: fail every waiter of a flush or a leave."""
    run.outbox.end(why)
    run.leaves.end(why)
