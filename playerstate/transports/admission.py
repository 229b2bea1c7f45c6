"""How many strangers are let in, and when: by the load.

While all that waited in the socket could be read, some are let in in each turn of the reactor.
While more waits, perhaps from players who are in, it is so many in `LOADED_EVERY`, whatever comes:
the time that strangers cost is bounded, and the rest goes into reading.  Reactor thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.interfaces import IDelayedCall

from playerstate.transports.strangers import Source, Strangers

LOADED_EVERY = 0.01
"""Seconds from one turn of strangers to the next, under load."""


class Admission:
    """Lets in who waits, in turns.

    Args:
        clock: the service's.
        let_in: takes in a stranger's datagram.
        a_turn: how many are let in in one turn of the reactor, at most.
        a_loaded_turn: how many in `LOADED_EVERY` under load.
        has_room: whether one more may be let in now.
    """

    def __init__(
        self,
        clock: Any,
        let_in: Callable[[Source, bytes], object],
        a_turn: int,
        a_loaded_turn: int,
        has_room: Callable[[], bool] = lambda: True,
    ) -> None:
        self._clock = clock
        self._let_in = let_in
        self._a_turn = a_turn
        self._a_loaded_turn = a_loaded_turn
        self._has_room = has_room
        self._strangers = Strangers()
        self._is_loaded = False
        self._later: IDelayedCall | None = None

    def __bool__(self) -> bool:
        """Whether anybody waits."""
        return bool(self._strangers)

    def came(self, sources: Sequence[Source], datagrams: Sequence[bytes]) -> int:
        """Have strangers wait; `turn` is to follow.  See `Strangers.put`."""
        return self._strangers.put(sources, datagrams)

    def turn(self, is_loaded: bool) -> None:
        """The socket was read, and the players' datagrams are taken in: let some strangers in.

        Args:
            is_loaded: whether more may wait in the socket.
        """
        self._is_loaded = is_loaded
        is_stuck = not is_loaded and not self._let_some_in(self._a_turn)
        if self._strangers and (self._later is None or not self._later.active()):
            self._go_on(is_loaded or is_stuck)

    def close(self) -> None:
        """Forget who waits: they ask again, or another server."""
        self._strangers = Strangers()
        if self._later is not None and self._later.active():
            self._later.cancel()

    def _go_on(self, is_slow: bool) -> None:
        self._later = self._clock.callLater(LOADED_EVERY if is_slow else 0.0, self._turn_alone)

    def _turn_alone(self) -> None:
        """A turn for those who wait; under load the only one, and else for where nothing came."""
        # It is loaded no more where nothing is read until the next.
        is_loaded, self._is_loaded = self._is_loaded, False
        is_stuck = not self._let_some_in(self._a_loaded_turn if is_loaded else self._a_turn)
        if self._strangers:
            self._go_on(is_loaded or is_stuck)

    def _let_some_in(self, most: int) -> bool:
        """Let in so many; whether there was room for them."""
        for _ in range(most):
            if not self._strangers:
                break
            if not self._has_room():
                return False
            self._let_in(*self._strangers.take())
        return True
