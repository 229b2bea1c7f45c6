"""The feeds of pages: a picture of the game four times a second; `docs/web.md` has the format.

A page that reads slower than frames come is sent fewer, so that what waits for it stays bounded.
Reactor thread only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.interfaces import IPushProducer
from twisted.web.iweb import IRequest
from zope.interface import implementer

from playerstate.clock import Repetition
from playerstate.players.run import Run
from playerstate.players.service import PlayerStateService
from playerstate.web.frames import FORMAT, Kind, json_frame, players_frame
from playerstate.web.health import readiness
from playerstate.web.history import COLUMNS, History
from playerstate.web.history import EVERY as HISTORY_EVERY
from playerstate.web.metrics import our_version
from playerstate.web.players import Players, axes_of, axis_parsers, shown_state
from playerstate.web.reading import Parser, session_id, whole
from playerstate.web.refused import not_now

EVERY = 0.25
"""Seconds between two pictures."""
MOST_FEEDS = 8
"""Feeds at a time: each costs the reactor a millisecond a picture."""
MOST_PLAYERS, MANY_PLAYERS = 20_000, 5_000
"""The most players in a frame, and how many there are at most unless the query says."""
READ_WITHIN = 10.0
"""Seconds after which a page that reads nothing is cut off."""


@implementer(IPushProducer)
class Feed:
    """One page that is fed.

    Args:
        request: answered by the frames.
        axes: the names of the axes' fields.
        limit: the most players in a frame.
        follow: the player who is always in it.
        taken: how many rows of the history the page has.
    """

    def __init__(
        self, request: Any, axes: tuple[str, ...], limit: int, follow: int | None, taken: int
    ) -> None:
        self._request = request
        self.axes = axes
        self.limit = limit
        self.follow = follow
        self.taken = taken
        self.paused_at: float | None = None
        self._is_paused = False

    def send(self, frames: bytes) -> None:
        """Send frames, whole ones."""
        self._request.write(frames)

    def is_stuck(self, now: float) -> bool:
        """Whether the page has not read what it was sent, at this time."""
        if not self._is_paused:
            self.paused_at = None
        elif self.paused_at is None:
            self.paused_at = now
        return self._is_paused

    def finish(self, frames: bytes) -> None:
        """Send the last frames, and end the answer."""
        self._request.unregisterProducer()
        self._request.write(frames)
        self._request.finish()

    def cut_off(self) -> None:
        """End the connection at once, whatever is not read."""
        self._request.transport.abortConnection()

    def pauseProducing(self) -> None:  # noqa: N802 - Twisted calls it
        """See `IPushProducer.pauseProducing`: the page has not read what it was sent."""
        self._is_paused = True

    def resumeProducing(self) -> None:  # noqa: N802 - Twisted calls it
        """See `IPushProducer.resumeProducing`."""
        self._is_paused = False

    def stopProducing(self) -> None:  # noqa: N802 - Twisted calls it
        """See `IPushProducer.stopProducing`; the end of the connection is told to the request."""


class Feeds:
    """All feeds of a service.

    Args:
        service: the players' service.
        players: looks at its players.
        history: the last ten minutes.
        wall_clock: seconds since the Unix epoch.
    """

    def __init__(
        self,
        service: PlayerStateService,
        players: Players,
        history: History,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._service = service
        self._players = players
        self._history = history
        self._wall_clock = wall_clock
        self._feeds: dict[IRequest, Feed] = {}
        self._run: Run | None = None
        self._ticks: Repetition | None = None

    def __len__(self) -> int:
        return len(self._feeds)

    @property
    def parsers(self) -> dict[str, Parser]:
        """How the parts of a feed's query are read."""
        return {
            **axis_parsers(self._service.schema),
            "limit": whole(1, MOST_PLAYERS),
            "follow": session_id,
        }

    def open(self, request: Any, query: dict[str, Any], may_write: bool) -> None:
        """Feed a page by the answer to a request, until it or the service goes.

        Raises:
            Refused: there are too many feeds, or the query is wrong.
            NotRunning: the service does not run.
        """
        if len(self._feeds) >= MOST_FEEDS:
            raise not_now(f"{MOST_FEEDS} pages are fed already; close another")
        axes = axes_of(self._service.schema, query)
        self._history.follow()
        feed = Feed(
            request,
            axes,
            query.get("limit", MANY_PLAYERS),
            query.get("follow"),
            self._history.taken,
        )
        self._tick_with(self._service.run)
        request.setHeader(b"content-type", b"application/octet-stream")
        request.registerProducer(feed, True)
        self._feeds[request] = feed
        request.notifyFinish().addBoth(lambda _: self._feeds.pop(request, None))
        feed.send(json_frame(Kind.START, self._start(feed, may_write)))
        self._show(feed, self._gauges(), {})

    def _start(self, feed: Feed, may_write: bool) -> dict[str, Any]:
        schema, options = self._service.schema, self._service.options
        return {
            "format": FORMAT,
            "version": our_version(),
            "every": EVERY,
            "may_write": may_write,
            "axes": list(feed.axes) or None,
            "fields": [
                {
                    "name": field.name,
                    "kind": field.kind.name,
                    **shown_state({"default": field.default}),
                    "allowed": field.kind.allowed,
                    "server_owned": field.is_server_owned,
                    "transient": field.is_transient,
                }
                for field in schema.fields
            ],
            "limit": feed.limit,
            "save_within_seconds": options.save_within,
            "max_players": options.max_players,
            "history": {
                "every": HISTORY_EVERY,
                "columns": COLUMNS,
                "rows": list(self._history.rows),
            },
        }

    def _tick_with(self, run: Run) -> None:
        if run is not self._run:
            self._run, self._ticks = run, None
        if self._ticks is None:
            self._ticks = run.clock.every(EVERY, self._tick)

    def _tick(self) -> None:
        if not self._feeds:
            if self._ticks is not None:
                self._ticks.cancel()
                self._ticks = None
            return
        gauges = self._gauges()
        pictures: dict[tuple[Any, ...], bytes] = {}
        for feed in list(self._feeds.values()):
            now = self._service.clock.seconds()
            if not feed.is_stuck(now):
                self._show(feed, gauges, pictures)
            elif feed.paused_at is not None and now - feed.paused_at >= READ_WITHIN:
                feed.cut_off()

    def _show(
        self, feed: Feed, gauges: dict[str, Any], pictures: dict[tuple[Any, ...], bytes]
    ) -> None:
        """Send a feed the gauges and its picture, which is made once for all that want the same."""
        wanted = feed.axes, feed.limit, feed.follow
        if wanted not in pictures:
            pictures[wanted] = players_frame(self._players.seen(*wanted))
        gauges = {**gauges, "history": self._history.since(feed.taken)}
        feed.taken = self._history.taken
        feed.send(json_frame(Kind.GAUGES, gauges) + pictures[wanted])

    def _gauges(self) -> dict[str, Any]:
        books = self._service.ledger.snapshot()
        return {
            "at": round(self._wall_clock(), 3),
            **attrs.asdict(readiness(self._service)),
            "players_online": books.players_online,
            "players_leaving": books.players_leaving,
            "queue_depth": books.queue_depth,
            "queue_capacity": books.queue_size,
            "oldest_unsaved_seconds": round(books.oldest_unsaved_seconds, 3),
            "pending": books.pending,
            "received": books.received,
            "applied": books.applied,
            "committed": books.committed,
            "superseded": books.superseded,
            "commits": books.commits,
        }

    def end(self, why: str) -> None:
        """End every feed, with the reason."""
        for feed in list(self._feeds.values()):
            feed.finish(json_frame(Kind.END, {"why": why}))
        self._feeds.clear()
        if self._ticks is not None:
            self._ticks.cancel()
        self._run = self._ticks = None
