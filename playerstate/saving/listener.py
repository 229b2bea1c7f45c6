"""What a persist thread reports to: the interface between it and the reactor thread."""

from __future__ import annotations

from typing import Protocol

from playerstate.saving.commit import Commit


class PersistListener(Protocol):
    """Receives a persist thread's reports.  Every method is called on the persist thread."""

    def committed(self, commit: Commit) -> None:
        """Rows are in the store, or settled otherwise."""

    def recovered(self, commit: Commit) -> None:
        """The same for rows that a previous process left; those committed are on disk."""

    def failed(self, error: Exception, rows: int) -> None:
        """The store failed; `rows` rows are kept, 0 where none were being written."""

    def replaced(self, error: Exception) -> None:
        """The store is not the one that was opened; nothing is written until `Persister.resume`."""

    def held(self, number: int) -> None:
        """The writer is closed, as the call of `Persister.hold` with this number requested."""

    def beat(self) -> None:
        """The thread woke; it slept at most `MAX_SLEEP` seconds since the last beat."""

    def died(self, error: BaseException) -> None:
        """The thread is about to die of an error; the rows it held are kept for the next thread."""

    def thread_ended(self, synced: bool) -> None:
        """The thread is about to end as requested, with its writer closed.

        Args:
            synced: whether everything committed is known to be on disk.
        """
