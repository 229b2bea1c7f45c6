"""Who the persist thread speaks to."""

from __future__ import annotations

from typing import Protocol

from playerstate.saving.commit import Commit


class PersistListener(Protocol):
    """What the persist thread tells.  Every method is called on the persist thread."""

    def committed(self, commit: Commit) -> None:
        """Rows are in the store, or settled otherwise."""

    def recovered(self, commit: Commit) -> None:
        """The same of rows that a process before this one left; those committed are on disk."""

    def failed(self, error: Exception, rows: int) -> None:
        """So many rows are kept after this error, or the writer's maintenance met it (0 rows)."""

    def replaced(self, error: Exception) -> None:
        """The store is not the one that was opened; the writer waits for `Persister.resume`."""

    def held(self, number: int) -> None:
        """The writer was closed, as this call of `Persister.hold` asked for."""

    def beat(self) -> None:
        """The thread woke by itself; at most `MAX_SLEEP` passed since the last."""

    def died(self, error: BaseException) -> None:
        """The thread is about to end by an error; what it held is kept for the next thread."""

    def thread_ended(self, synced: bool) -> None:
        """The thread is about to end as it was told to, with its writer closed.

        Args:
            synced: whether everything committed is known to be on disk.
        """
