"""The resource: which path and method is answered by what, and who may ask for it.

Mount it in a site of your own, or have `playerstate.web.service.WebService` listen.  Reactor thread
only.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from playerstate.log import PrintableLogger
from playerstate.players.service import PlayerStateService
from playerstate.sparing import SparingLogger
from playerstate.web.access import Access, Right
from playerstate.web.audit import Audit, LoggedAudit
from playerstate.web.changes import Author, Changes, Kicks, refused_by_service
from playerstate.web.channel import peer_of
from playerstate.web.feed import Feeds
from playerstate.web.health import readiness
from playerstate.web.history import History
from playerstate.web.metrics import CONTENT_TYPE, Metrics, Source
from playerstate.web.players import (
    FEW,
    MOST,
    Players,
    axes_of,
    axis_parsers,
)
from playerstate.web.reading import (
    MOST_BODY_BYTES,
    Parser,
    one_of,
    point,
    read_object,
    read_query,
    session_id,
    whole,
)
from playerstate.web.refused import Refused, bad
from playerstate.web.shell import PageFile, page_files

JSON = "application/json"
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Headers of every answer: what is loaded comes from this server, and no other page may use it."""
_ID = "ID"

_log = PrintableLogger()


@attrs.frozen
class Answer:
    """An answer that is complete."""

    body: bytes
    content_type: str = JSON
    status: int = 200

    @classmethod
    def of(cls, body: Mapping[str, Any], status: int = 200) -> Answer:
        """One whose body is JSON."""
        return cls(json.dumps(body, allow_nan=False).encode() + b"\n", JSON, status)


@attrs.frozen
class Asked:
    """What a request asks for.

    Attributes:
        request: the request itself.
        query: the parts of its query.
        session_id: the player whom its path names; 0 if it names none.
        author: whose token it carries, and where it came from.
        right: what it may do.
    """

    request: Any
    query: Mapping[str, Any]
    session_id: int
    author: Author
    right: Right


Handle = Callable[[Asked], Answer | Awaitable[Answer] | None]
"""Answers a request; None if the request is answered as it goes on."""


@attrs.frozen
class Route:
    """One method of one path.

    Attributes:
        method: GET, PATCH or POST.
        path: its segments; `_ID` stands for a session id.
        needs: the right that it needs.
        answer: answers it.
        parsers: of the parts of its query.
    """

    method: str
    path: tuple[str, ...]
    needs: Right
    answer: Handle
    parsers: Mapping[str, Parser] = attrs.field(factory=dict)


def _file_route(file: PageFile) -> Route:
    answer = Answer(file.body, file.content_type)
    return Route("GET", file.path, Right.NOTHING, lambda _: answer)


class WebResource(Resource):
    """Figures, health, players, changes and the feed of one service.

    Args:
        service: the players' service.
        kicks: takes players offline so that their clients are told, such as a `Gateway`; without
            one the service does it, for programs without conversations of ours.
        sources: others with figures for Prometheus.
        access: who may do what.
        audit: where changes are recorded.
    """

    isLeaf = True  # noqa: N815 - of Twisted

    def __init__(
        self,
        service: PlayerStateService,
        kicks: Kicks | None = None,
        *,
        sources: Sequence[Source] = (),
        access: Access | None = None,
        audit: Audit | None = None,
        seconds: Callable[[], float] | None = None,
    ) -> None:
        super().__init__()
        self._service = service
        seconds = seconds or time.monotonic
        self._lines = SparingLogger(_log, seconds)
        self._access = access or Access()
        self._audit = audit or LoggedAudit()
        self._players = players = Players(service)
        self._history = History(service)
        self._feeds = Feeds(service, players, self._history)
        self._changes = Changes(service, kicks or _Leaves(service), players, self._audit)
        self._metrics = Metrics(service, sources, seconds)
        listing: dict[str, Parser] = {
            "near": point,
            "online": one_of("1"),
            "after": whole(0, 2**63 - 1),
            "limit": whole(1, MOST),
            **axis_parsers(service.schema),
        }
        self._routes = (
            Route("GET", ("health",), Right.NOTHING, self._health),
            Route("GET", ("ready",), Right.READ, self._ready),
            Route("GET", ("metrics",), Right.READ, self._scrape),
            Route("GET", ("feed",), Right.READ, self._feed, self._feeds.parsers),
            Route("GET", ("players",), Right.READ, self._list, listing),
            Route("GET", ("players", _ID), Right.READ, self._find),
            Route("PATCH", ("players", _ID), Right.WRITE, self._edit),
            Route("POST", ("players", _ID, "kick"), Right.WRITE, self._kick),
            Route("POST", ("players", _ID, "erase"), Right.WRITE, self._erase),
            Route("POST", ("flush",), Right.WRITE, self._flush),
            *map(_file_route, page_files()),
        )

    def start(self) -> None:
        """Begin to keep the last ten minutes and to measure, before anything asks for them.

        Raises:
            AuditUnusable: changes cannot be recorded.
            NotRunning: the players' service does not run.
        """
        self._audit.check()
        self._history.follow()
        self._metrics.follow()

    def close(self, why: str) -> None:
        """End every feed with the reason, and record no change any more."""
        self._feeds.end(why)
        self._audit.close()

    def render(self, request: Any) -> Any:
        """Answer a request."""
        answering = Deferred.fromCoroutine(self._answer(request))
        answering.addErrback(lambda failure: self._broken(request, failure))
        return NOT_DONE_YET

    async def _answer(self, request: Any) -> None:
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)
        for name, value in HEADERS.items():
            request.setHeader(name, value)
        try:
            route, player = self._route(request)
            found = route.answer(self._asked(request, route, player))
            answer = await found if isinstance(found, Awaitable) else found
        except Exception as error:
            refused = refused_by_service(error)
            if refused is None:
                raise
            for name, value in refused.headers.items():
                request.setHeader(name, value)
            answer = Answer.of(refused.body, refused.status)
        if answer is not None and not gone:
            _write(request, answer)

    def _broken(self, request: Any, failure: Any) -> None:
        """A request was not answered because of a bug or a failing store."""
        self._lines.failure("a request could not be answered: {path}", failure, path=request.path)
        if not (request.finished or request._disconnected):
            _write(request, Answer.of({"error": "the server failed; its log says why"}, 500))

    def _route(self, request: Any) -> tuple[Route, int]:
        """The route of a request, and the player whom its path names."""
        self._access.check_host(request.requestHeaders.getRawHeaders(b"host", ()))
        path = [segment.decode("utf-8", "replace") for segment in request.postpath]
        method = request.method.decode("latin-1")
        method = "GET" if method == "HEAD" else method
        found = [
            (route, player) for route in self._routes if (player := _match(route, path)) is not None
        ]
        if not found:
            raise Refused(404, "there is nothing at this path")
        for route, player in found:
            if route.method == method:
                _check_site(request, route)
                return route, player
        allowed = ", ".join(route.method for route, _ in found)
        raise Refused(405, f"the method must be {allowed}", "method", allowed, {"Allow": allowed})

    def _asked(self, request: Any, route: Route, player: int) -> Asked:
        """What a request asks for, once it is clear that it may."""
        given = request.requestHeaders.getRawHeaders(b"authorization", ())
        name, right = self._access.check(route.needs, given)
        if route.path[1:2] == (_ID,) and not player:
            raise bad("session id", f"a whole number from 1 to {2**63 - 1}")
        query = read_query(request.uri, route.parsers)
        return Asked(request, query, player, Author(name, peer_of(request)), right)

    def _health(self, asked: Asked) -> Answer:
        return Answer.of({"alive": True})

    def _ready(self, asked: Asked) -> Answer:
        found = readiness(self._service)
        return Answer.of(attrs.asdict(found), 200 if found.ready else 503)

    def _scrape(self, asked: Asked) -> Answer:
        return Answer(self._metrics.text(), CONTENT_TYPE)

    def _feed(self, asked: Asked) -> None:
        self._feeds.open(asked.request, dict(asked.query), asked.right is Right.WRITE)

    def _list(self, asked: Asked) -> Answer:
        query = asked.query
        limit = query.get("limit", FEW)
        if "near" in query:
            for other in ("after", "online"):
                if other in query:
                    raise bad(other, "left out where near is given")
            axes = axes_of(self._service.schema, query)
            if not axes:
                raise bad("near", "left out: the state class has no two float fields")
            found = self._players.online_near(query["near"], axes, limit)
            return Answer.of({"axes": axes, "players": [player.shown() for player in found]})
        if "online" not in query:
            raise bad("online", "1, or near is given")
        for other in ("x", "y"):
            if other in query:
                raise bad(other, "left out where near is not given")
        found = self._players.online_after(query.get("after", 0), limit)
        after = str(found[-1].session_id) if len(found) == limit else None
        return Answer.of({"players": [player.shown() for player in found], "after": after})

    async def _find(self, asked: Asked) -> Answer:
        return Answer.of((await self._players.find(asked.session_id)).shown())

    async def _edit(self, asked: Asked) -> Answer:
        headers = asked.request.requestHeaders
        content_type = headers.getRawHeaders(b"content-type", (b"",))[0]
        fields = read_object(content_type, asked.request.content.read(MOST_BODY_BYTES + 1))
        if not fields:
            raise bad("body", "an object with at least one field of the state class")
        return Answer.of(await self._changes.edit(asked.author, asked.session_id, fields))

    async def _kick(self, asked: Asked) -> Answer:
        return Answer.of(await self._changes.kick(asked.author, asked.session_id))

    async def _erase(self, asked: Asked) -> Answer:
        return Answer.of(await self._changes.erase(asked.author, asked.session_id))

    async def _flush(self, asked: Asked) -> Answer:
        return Answer.of(await self._changes.flush(asked.author))


class _Leaves:
    """Takes players offline where there is no gateway."""

    def __init__(self, service: PlayerStateService) -> None:
        self._service = service

    def kick(self, session_id: int) -> Deferred[Any]:
        """See `Kicks.kick`."""
        return self._service.leave(session_id)


def _check_site(request: Any, route: Route) -> None:
    """Let other sites link to the page, and nothing else."""
    site = request.requestHeaders.getRawHeaders(b"sec-fetch-site", (b"",))[0]
    if site == b"cross-site" and route.needs is not Right.NOTHING:
        raise Refused(403, "other sites may not ask this server", "Sec-Fetch-Site", "same-origin")


def _match(route: Route, path: Sequence[str]) -> int | None:
    """The player whom a path names, 0 for none or a wrong one; None if the route is another."""
    if len(path) != len(route.path):
        return None
    player = 0
    for wanted, segment in zip(route.path, path, strict=True):
        if wanted == _ID:
            try:
                player = session_id(segment)
            except ValueError:
                player = 0
        elif wanted != segment:
            return None
    return player


def _write(request: Any, answer: Answer) -> None:
    request.setResponseCode(answer.status)
    request.setHeader("Content-Type", answer.content_type)
    request.setHeader("Content-Length", str(len(answer.body)))
    request.write(answer.body)
    request.finish()
