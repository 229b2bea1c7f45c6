"""A store as across a network: it keeps no files, and answers when told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from playerstate.interfaces import IStateStore
from playerstate.testing import FaultyStore
from tests.kit.players import SCHEMA


@implementer(IStateStore)
class DistantStore(FaultyStore):
    """A store whose start is answered by Deferreds, one at a time.

    Attributes:
        asked: what the service waits for, as (name, Deferred, the answer in good order).
        calls: everything that was asked, and ``cancel NAME`` and ``close``.
    """

    def __init__(self) -> None:
        super().__init__(SCHEMA)
        self.asked: list[tuple[str, Deferred[Any], Callable[[], Any]]] = []
        self.calls: list[str] = []

    def _ask(self, name: str, answer: Callable[[], Any]) -> Deferred[Any]:
        self.calls.append(name)
        deferred: Deferred[Any] = Deferred(lambda _: self.calls.append(f"cancel {name}"))
        self.asked.append((name, deferred, answer))
        return deferred

    def answer(self, error: Exception | None = None) -> None:
        """Answer what was asked last, in good order or by this error."""
        _, deferred, answer = self.asked.pop()
        if error is not None:
            deferred.errback(error)
        else:
            deferred.callback(answer())

    def answer_all(self) -> None:
        """Answer until nothing more is asked."""
        while self.asked:
            self.answer()

    def prepare(self) -> Any:
        """See `IStateStore.prepare`."""
        return self._ask("prepare", super().prepare)

    def migrate(self, identity: bytes) -> Any:
        """See `IStateStore.migrate`."""
        return self._ask("migrate", lambda: super(DistantStore, self).migrate(identity))

    def open_reader(self) -> Any:
        """See `IStateStore.open_reader`."""
        return self._ask("open_reader", lambda: self)

    def close(self) -> None:
        """The reader, the writer, or the store itself."""
        self.calls.append("close")
