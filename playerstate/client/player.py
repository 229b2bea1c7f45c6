"""One player on a Twisted reactor.

A `PlayerClient` adds little to its `Client` and its `Link`: a timer, and Deferreds and callbacks
for the program.  In a game engine, the frame is the timer.
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
from playerstate.sparing import SparingLogger
from playerstate.state.schema import StateSchema

BEAT = 0.05
"""Seconds between two calls of `Link.turn`."""

_log = PrintableLogger()
_lines = SparingLogger(_log, lines=20)  # a program of bots has many players


class NotPlaying(Exception):
    """The call is not allowed in the player's present phase."""


@attrs.frozen
class Progress:
    """The progress of a player's moves, as sequences.

    Attributes:
        sent: of the last move sent.
        applied: the highest known to be applied by the server.
        saved: the highest known to be in the server's store.
    """

    sent: int
    applied: int
    saved: int


class Route(Protocol):
    """How a player reaches a server: `Plain` or `Netcode`."""

    def link(self, client: Client, reactor: Any, seconds: Callable[[], float]) -> Link:
        """Return a link that carries the messages of this conversation."""


class PlayerClient:
    """One player, who joins, moves and leaves, and can join again.  Reactor thread only.

    While the player is in the game, the client joins again by itself if the server falls silent or
    restarts, and sends it the player's state: the program only goes on moving the player.  It also
    joins again if the server answers that it is stopping, that its store cannot load the player
    now, or that the player was silent for too long, as after a sleep: with retries at most 8
    seconds apart.

    Args:
        reactor: provides ``IReactorUDP`` and ``IReactorTime``.
        state_class: the server's, or its `StateSchema`.
        route: to the server, such as ``Plain(("127.0.0.1", 7777), 42)`` or ``Netcode(get_token)``.
        on_end: called when the game ends for the player without `leave`, with a `SentAway` or the
            route's error: what the token function raised, or that no port can be opened.  An error
            that ends a pending `join` or `leave` goes to its Deferred instead.  By default it is
            logged.
        on_overruled: called with the server's state when it replaces the client's own: the player
            was moved by another device, or by the program around the server, while this client
            could not reach it.  By default it is logged.
        on_change: called with the player's state and whether fields of the client's were set, after
            the program around the server changed the player: the player goes on from that state.
        seconds: the time, on a clock that never steps.
        draw_nonce: returns a 32-bit number, a different one each time.
    """

    def __init__(
        self,
        reactor: Any,
        state_class: type | StateSchema,
        route: Route,
        *,
        on_end: Callable[[Exception], object] | None = None,
        on_overruled: Callable[[Any], object] | None = None,
        on_change: Callable[[Any, bool], object] | None = None,
        seconds: Callable[[], float] = time.monotonic,
        draw_nonce: Callable[[], int] = draw_nonce,
    ) -> None:
        self._schema = StateSchema.of(state_class)
        self._client = Client.of(self._schema, draw_nonce, tries_again=True)
        self._link = route.link(self._client, reactor, seconds)
        self._link.notify = self._look
        self._on_end = on_end or _log_end
        self._on_overruled = on_overruled or _log_overruled
        self._on_change = on_change or _ignore_change
        self._overruled = self._changes = self._overrides = 0
        self._reactor = reactor
        self._seconds = seconds
        self._beating: Any = None
        self._joining: Deferred[Any] | None = None
        self._leaving: Deferred[None] | None = None

    @property
    def is_playing(self) -> bool:
        """Whether the player can move: from the answer to `join` until `leave` or the end."""
        return self._joining is None and self._client.phase in (Phase.JOINING, Phase.ONLINE)

    @property
    def state(self) -> Any:
        """The player's state: the last move's, or else the server's.

        Fields with a resolution are on their grid, so that the server's state is equal to the bit.

        Raises:
            NotPlaying: the player was never in the game.
        """
        if self._client.welcome is None:
            raise NotPlaying("the player has not joined yet, so its state is unknown")
        return self._schema.state(self._client.values)

    @property
    def restored(self) -> bool:
        """Whether the player's state was restored from an earlier game, not a new spawn."""
        return self._client.welcome is not None and self._client.welcome.restored

    @property
    def progress(self) -> Progress:
        """The progress of the moves; sequences continue from one game to the next."""
        client = self._client
        return Progress(client.sequence, client.applied, client.saved)

    def join(self) -> Deferred[Any]:
        """Join the game; the Deferred fires with the player's state.

        It has no time limit; set one by ``addTimeout``.  After a cancel, nothing more is sent to
        the server.

        Raises:
            NotPlaying: the player has joined already, or has not left yet.

        Returns:
            A Deferred that fails with `SentAway`, or with the route's error.
        """
        if self._beating is not None:
            raise NotPlaying("the player has joined already, and has not left yet")
        now = self._seconds()
        joining = self._joining = Deferred(self._give_up)
        self._client.join(now)
        self._beating = self._reactor.callLater(BEAT, self._beat)
        self._link.open(now)
        self._look()
        return joining

    def move(self, state: Any) -> None:
        """Send the player's present state.  Any rate is allowed; 20 calls a second are usual.

        Fields that the server owns are not sent, and stay as they are.

        Raises:
            InvalidState: the server would reject it; nothing was sent.
            NotPlaying: the player is not in the game.
        """
        if not self.is_playing:
            raise NotPlaying("the player is not in the game")
        values = self._schema.accept(*self._schema.values(state))
        self._link.move(values, self._seconds())
        self._look()

    def leave(self) -> Deferred[None]:
        """Leave the game; the Deferred fires when the last move is in the server's store.

        After a cancel, nothing more is sent to the server, which ends the conversation after its
        idle timeout.

        Raises:
            NotPlaying: the player is leaving already.

        Returns:
            A Deferred that fails as that of `join` does; whether all is saved is unknown then.
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
        """Try another path to the server at once: after a sleep, or a change of network.

        Without this call, the client does so after some seconds of silence.  Does nothing if the
        player is not in the game.
        """
        if self._beating is not None:
            self._link.reconnect(self._seconds())
            self._look()

    def _beat(self) -> None:
        self._beating = self._reactor.callLater(BEAT, self._beat)
        self._link.turn(self._seconds())
        self._look()

    def _look(self) -> None:
        """Fire the Deferred or the callback that the conversation's phase calls for."""
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
        elif self._changes != self._client.changes:
            is_override = self._overrides != self._client.overrides
            self._changes, self._overrides = self._client.changes, self._client.overrides
            self._on_change(self.state, is_override)

    def _give_up(self, waiting: Deferred[Any]) -> None:
        """A Deferred was cancelled: end the game."""
        if waiting is self._joining:
            self._joining = None
        else:
            self._leaving = None
        self._client.end()
        self._stop(CancelledError())

    def _stop(self, why: Exception | None) -> None:
        """The game is over: close the link, then notify the program."""
        waiting = [each for each in (self._joining, self._leaving) if each is not None]
        self._joining = self._leaving = None
        self._beating.cancel()
        self._beating = None
        closed = self._link.close(self._seconds())
        closed.addCallback(lambda _: self._notify_end(waiting, why))

    def _notify_end(self, waiting: list[Deferred[Any]], why: Exception | None) -> None:
        for each in waiting:
            if why is None:
                each.callback(None)
            else:
                each.errback(why)
        if why is not None and not waiting and not isinstance(why, CancelledError):
            self._on_end(why)


def _ignore_change(state: Any, is_override: bool) -> None:
    """The program reads the state as it goes."""


def _log_overruled(state: Any) -> None:
    _lines.warn(
        "the player was moved from elsewhere; its state is now {state}",
        state=state,
    )


def _log_end(why: Exception) -> None:
    _lines.warn("the game is over: {why}", why=why)
