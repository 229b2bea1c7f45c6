"""One player on a Twisted reactor.

What a client does beyond its `Client` and its `Link` is little: it has a beat, and it tells those
who wait.  In an engine, the frame is the beat.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

import attrs
from twisted.internet.defer import CancelledError, Deferred, succeed

from playerstate.client.core import Client, Phase, draw_nonce
from playerstate.client.link import Link
from playerstate.client.reasons import SentAway
from playerstate.log import PrintableLogger
from playerstate.state.schema import StateSchema

BEAT = 0.05
"""Seconds between two looks at what is due."""

_log = PrintableLogger()


class NotPlaying(Exception):
    """The player is not in the game, and so cannot do this."""


@attrs.frozen
class Progress:
    """How far a player's moves have come, by their numbers.

    Attributes:
        sent: the last that was sent.
        applied: the highest that the server is known to have taken in.
        saved: the highest whose state is known to be in the server's store.
    """

    sent: int
    applied: int
    saved: int


class Route(Protocol):
    """How a player reaches a server: `Plain` or `Netcode`."""

    def link(self, client: Client, reactor: Any, seconds: Callable[[], float]) -> Link:
        """What carries the messages of a conversation."""


class PlayerClient:
    """One player, who joins, moves and leaves, and joins again if need be.  Reactor thread only.

    While the player is in the game, a server that falls silent or is started anew is joined again
    by itself, and told where the player stands: there is nothing to be done but to go on moving.
    So is one that says that it is stopping, that its store cannot load the player now, or that the
    player was silent for too long, as after a sleep: again and again, at least each 8 seconds.

    Args:
        reactor: provides ``IReactorUDP`` and ``IReactorTime``.
        state_class: the server's, or its `StateSchema`.
        route: to the server, such as ``Plain(("127.0.0.1", 7777), 42)`` or ``Netcode(get_token)``.
        on_end: called when the game is over for the player without `leave`, with a `SentAway` or
            what the route came upon: what the token function raised, or that there is no port.
            What ends a `join` or a `leave` is told by its Deferred instead.  By default it is
            logged.
        on_overruled: called with where the player stands where the server knows better, since the
            player was moved from elsewhere while this client could not reach it: by another device,
            or by the program around the server.  By default it is logged.
        seconds: the time, on a clock that never steps.
        draw_nonce: a number of 32 bits, another each time.
    """

    def __init__(
        self,
        reactor: Any,
        state_class: type | StateSchema,
        route: Route,
        *,
        on_end: Callable[[Exception], object] | None = None,
        on_overruled: Callable[[Any], object] | None = None,
        seconds: Callable[[], float] = time.monotonic,
        draw_nonce: Callable[[], int] = draw_nonce,
    ) -> None:
        self._schema = StateSchema.of(state_class)
        self._client = Client.of(self._schema, draw_nonce, tries_again=True)
        self._link = route.link(self._client, reactor, seconds)
        self._link.notify = self._look
        self._on_end = on_end or _log_end
        self._on_overruled = on_overruled or _log_overruled
        self._overruled = 0
        self._reactor = reactor
        self._seconds = seconds
        self._beating: Any = None
        self._joining: Deferred[Any] | None = None
        self._leaving: Deferred[None] | None = None

    @property
    def is_playing(self) -> bool:
        """Whether the player can move: from the answer to `join` to `leave`, or the end."""
        return self._joining is None and self._client.phase in (Phase.JOINING, Phase.ONLINE)

    @property
    def state(self) -> Any:
        """Where the player stands: the last move, or else where the server said.

        A field with a resolution is on its grid: the server has the same to the last bit.

        Raises:
            NotPlaying: the player was never in the game.
        """
        if self._client.welcome is None:
            raise NotPlaying("the server has not said yet where the player stands")
        return self._schema.state(self._client.values)

    @property
    def restored(self) -> bool:
        """Whether the player came back to where an earlier game ended, and did not spawn."""
        return self._client.welcome is not None and self._client.welcome.restored

    @property
    def progress(self) -> Progress:
        """How far the moves have come; the numbers go on from one game to the next."""
        client = self._client
        return Progress(client.sequence, client.applied, client.saved)

    def join(self) -> Deferred[Any]:
        """Join the game; the Deferred fires with where the player stands.

        It waits for as long as it takes; give it a time with ``addTimeout``.  Cancelled, nothing
        more is said to the server.

        Raises:
            NotPlaying: the player has joined already, or has not left yet.

        Returns:
            A Deferred that fails with `SentAway`, or with what the route came upon.
        """
        if self._beating is not None:
            raise NotPlaying("the player has joined before, and is not gone yet")
        now = self._seconds()
        joining = self._joining = Deferred(self._give_up)
        self._client.join(now)
        self._beating = self._reactor.callLater(BEAT, self._beat)
        self._link.open(now)
        self._look()
        return joining

    def move(self, state: Any) -> None:
        """Say where the player stands now.  It may be said at any rate; 20 a second is usual.

        Raises:
            InvalidState: the server would not take it; nothing was sent.
            NotPlaying: the player is not in the game.
        """
        if not self.is_playing:
            raise NotPlaying("the player is not in the game")
        values = self._schema.accept(*self._schema.values(state))
        self._link.move(values, self._seconds())
        self._look()

    def leave(self) -> Deferred[None]:
        """Leave the game; the Deferred fires when the last move is in the server's store.

        Cancelled, nothing more is said to the server, which takes the player to have left when it
        has not heard of one for some time.

        Raises:
            NotPlaying: the player is leaving already.

        Returns:
            A Deferred that fails as that of `join` does; it is not known then whether all is saved.
        """
        if self._beating is None:
            return succeed(None)
        if self._leaving is not None:
            raise NotPlaying("the player is leaving already")
        now = self._seconds()
        leaving = self._leaving = Deferred(self._give_up)
        self._client.leave(now)
        self._link.turn(now)
        self._look()
        return leaving

    def reconnect(self) -> None:
        """Reach the server by another way, at once: after a sleep, or a change of network.

        Without it that takes some seconds of silence.  Nothing where the player is not in the game.
        """
        if self._beating is not None:
            self._link.reconnect(self._seconds())
            self._look()

    def _beat(self) -> None:
        self._beating = self._reactor.callLater(BEAT, self._beat)
        self._link.turn(self._seconds())
        self._look()

    def _look(self) -> None:
        """Tell those who wait how far the conversation has come."""
        phase = self._client.phase
        if phase is Phase.GONE:
            if self._beating is not None:
                answer = self._client.ended_by
                self._stop(self._link.trouble if answer is None else SentAway(answer))
        elif phase is not Phase.JOINING and self._joining is not None:
            joining, self._joining = self._joining, None
            self._overruled = self._client.overruled
            joining.callback(self.state)
        elif self._overruled != self._client.overruled:
            self._overruled = self._client.overruled
            self._on_overruled(self.state)

    def _give_up(self, waiting: Deferred[Any]) -> None:
        """Somebody has waited long enough."""
        if waiting is self._joining:
            self._joining = None
        else:
            self._leaving = None
        self._client.end()
        self._stop(CancelledError())

    def _stop(self, why: Exception | None) -> None:
        """The game is over: say so, once nothing of it is left."""
        waiting = [each for each in (self._joining, self._leaving) if each is not None]
        self._joining = self._leaving = None
        self._beating.cancel()
        self._beating = None
        closed = self._link.close(self._seconds())
        closed.addCallback(lambda _: self._tell_end(waiting, why))

    def _tell_end(self, waiting: list[Deferred[Any]], why: Exception | None) -> None:
        for each in waiting:
            if why is None:
                each.callback(None)
            else:
                each.errback(why)
        if why is not None and not waiting and not isinstance(why, CancelledError):
            self._on_end(why)


def _log_overruled(state: Any) -> None:
    _log.warn("the player was moved from elsewhere, and stands at {state} now", state=state)


def _log_end(why: Exception) -> None:
    _log.warn("the game is over: {why}", why=why)
