"""Queries and bodies, within bounds."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from playerstate.web.reading import (
    MOST_QUERY_BYTES,
    one_of,
    point,
    read_object,
    read_query,
    session_id,
    whole,
)
from playerstate.web.refused import Refused

PARSERS = {"limit": whole(1, 200), "near": point, "x": one_of("a", "b c"), "id": session_id}


class QueryTests(SynchronousTestCase):
    """What stands behind the question mark."""

    def test_parts(self) -> None:
        """Each part is read by its name, escapes included; missing ones are left out."""
        cases: list[tuple[bytes, dict[str, Any]]] = [
            (b"/p", {}),
            (b"/p?", {}),
            (b"/p?limit=7&&id=9223372036854775807", {"limit": 7, "id": 2**63 - 1}),
            (b"/p?near=-1.5,2e3", {"near": (-1.5, 2000.0)}),
            (b"/p?near=1%2C2&x=b+c", {"near": (1.0, 2.0), "x": "b c"}),
        ]
        for uri, expected in cases:
            with self.subTest(uri=uri):
                self.assertEqual(read_query(uri, PARSERS), expected)

    def test_bad(self) -> None:
        """A bad part is named, with what is allowed."""
        whole_number = "a whole number from 1 to 200"
        cases = [
            (b"?limit=0", "limit", whole_number),
            (b"?limit=201", "limit", whole_number),
            (b"?limit=" + b"9" * 500, "limit", whole_number),
            (b"?limit=1_0", "limit", whole_number),
            ("?limit=\u0663".encode(), "limit", whole_number),
            (b"?limit=-1", "limit", whole_number),
            (b"?limit=", "limit", whole_number),
            (b"?limit", "limit", whole_number),
            (b"?limit=1&limit=1", "limit", "given once"),
            (b"?near=1", "near", "two numbers with a comma"),
            (b"?near=1,2,3", "near", "two numbers with a comma"),
            (b"?near=1,nan", "near", "two numbers with a comma"),
            (b"?near=inf,1", "near", "two numbers with a comma"),
            (b"?x=c", "x", "one of a, b c"),
            (b"?id=0", "id", "from 1 to 9223372036854775807"),
            (b"?other=1", "other", "one of limit, near, x, id"),
            (b"?%ff=1", "\ufffd", "one of limit, near, x, id"),
        ]
        for uri, field, allowed in cases:
            with self.subTest(uri=uri):
                refused = self.assertRaises(Refused, read_query, uri, PARSERS)
                self.assertEqual((refused.status, refused.field), (400, field))
                self.assertIn(allowed, refused.allowed)

    def test_nothing_allowed(self) -> None:
        """Where no part is allowed, none is."""
        self.assertEqual(read_query(b"/p?", {}), {})
        refused = self.assertRaises(Refused, read_query, b"/p?a=1", {})
        self.assertEqual((refused.field, refused.allowed), ("a", "left out"))

    def test_length(self) -> None:
        """A query has a bound, and is not read beyond it."""
        parsers = {"a": str}
        longest = b"?a=" + b"x" * (MOST_QUERY_BYTES - 2)
        self.assertEqual(len(read_query(longest, parsers)["a"]), MOST_QUERY_BYTES - 2)
        refused = self.assertRaises(Refused, read_query, longest + b"x", parsers)
        self.assertEqual((refused.status, refused.field), (414, "query"))


class BodyTests(SynchronousTestCase):
    """The JSON object of a body."""

    def test_object(self) -> None:
        """An object is read; the type may have parameters."""
        body = b'{"x": 1.5, "name": "a"}'
        for content_type in (b"application/json", b"Application/JSON; charset=utf-8"):
            self.assertEqual(read_object(content_type, body), {"x": 1.5, "name": "a"})

    def test_bad(self) -> None:
        """What is no object is refused, and what a form can send is as well."""
        cases = [
            (b"text/plain", b"{}", 415, "Content-Type"),
            (b"application/x-www-form-urlencoded", b"{}", 415, "Content-Type"),
            (b"", b"{}", 415, "Content-Type"),
            (b"application/json", b"", 400, "body"),
            (b"application/json", b"[1]", 400, "body"),
            (b"application/json", b"{", 400, "body"),
            (b"application/json", b'{"x": NaN}', 400, "body"),
            (b"application/json", b'{"x": Infinity}', 400, "body"),
            (b"application/json", b"\xff", 400, "body"),
            (b"application/json", b"[" * 60_000, 400, "body"),
            (b"application/json", b'{"x": ' + b"9" * 50_000 + b"}", 400, "body"),
            (b"application/json", b'{"x": 1, "x": 2}', 400, "x"),
            (b"application/json", b'{"y": 1, "x": 1e999}', 400, "x"),
            (b"application/json", b'{"y": "a", "x": -1e999}', 400, "x"),
            (b"application/json", b'{"y": true, "x": null}', 400, "x"),
            (b"application/json", b'{"y": 1.5, "x": [1e999]}', 400, "x"),
            (b"application/json", b'{"x": {"y": 1}}', 400, "x"),
        ]
        for content_type, body, status, field in cases:
            with self.subTest(body=body[:20]):
                refused = self.assertRaises(Refused, read_object, content_type, body)
                self.assertEqual((refused.status, refused.field), (status, field))
