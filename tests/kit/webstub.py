"""A stand-in for a server's web endpoint, on a real port, which answers as told."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet import reactor
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

TOKEN = "a-token-of-twenty-letters"


class Stub(Resource):
    """Every path of it.

    Attributes:
        requests: method, path and body of each request that had the token.
        answers: of a method and path, the status and the body; None for no answer at all.
        url: of it.
    """

    isLeaf = True  # noqa: N815 - Twisted's name

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[tuple[str, str, Any]] = []
        self.answers: dict[tuple[str, str], tuple[int, Any] | None] = {}
        self.port = reactor.listenTCP(0, Site(self), interface="127.0.0.1")
        self.url = f"http://127.0.0.1:{self.port.getHost().port}"

    def render(self, request: Any) -> Any:
        """Answer a request."""
        method, path = request.method.decode(), request.path.decode()
        body = request.content.read()
        if path != "/metrics" and request.getHeader("Authorization") != f"Bearer {TOKEN}":
            return self._write(request, 401, {"error": "this needs a token"})
        self.requests.append((method, path, json.loads(body) if body else None))
        answer = self.answers.get((method, path), (404, {"error": "no such player"}))
        return NOT_DONE_YET if answer is None else self._write(request, *answer)

    def _write(self, request: Any, status: int, body: Any) -> bytes:
        request.setResponseCode(status)
        if isinstance(body, bytes):
            return body
        request.setHeader("Content-Type", "application/json")
        return json.dumps(body).encode()
