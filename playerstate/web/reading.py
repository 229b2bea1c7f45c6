"""What a request asks for: its query and its body, each within bounds."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from playerstate.arguments import MAX_SESSION_ID
from playerstate.web.refused import Refused, bad

MOST_QUERY_BYTES = 1024
"""Bytes of the longest query; the longest that is of use has some hundred."""
MOST_BODY_BYTES = 65_536
"""Bytes of the longest body: a state has 1,024 bytes, which as JSON may take six times as many."""
_DIGITS = re.compile(r"[0-9]{1,20}")

Parser = Callable[[str], Any]
"""Reads the text of one part of a query; raises `ValueError` with what is allowed."""


def whole(low: int, high: int) -> Parser:
    """Reads a whole number within bounds."""

    def parse(text: str) -> int:
        if not (_DIGITS.fullmatch(text) and low <= int(text) <= high):
            raise ValueError(f"a whole number from {low} to {high}")
        return int(text)

    return parse


session_id = whole(1, MAX_SESSION_ID)
"""Reads a session id."""


def one_of(*allowed: str) -> Parser:
    """Reads one of these words."""

    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"one of {', '.join(allowed)}" if allowed else "left out")
        return text

    return parse


def point(text: str) -> tuple[float, float]:
    """Reads two finite numbers."""
    try:
        x, y = map(float, text.split(","))
        if math.isfinite(x) and math.isfinite(y):
            return x, y
    except ValueError:
        pass
    raise ValueError("two numbers with a comma in between, such as 350,200")


def read_query(uri: bytes, parsers: Mapping[str, Parser]) -> dict[str, Any]:
    """The parts of a query, by name; those that are missing are left out.

    Args:
        uri: of the request.
        parsers: of the parts that it may have.

    Raises:
        Refused: the query is too long, or has another part, one twice, or one that is wrong.
    """
    _, _, query = uri.partition(b"?")
    if len(query) > MOST_QUERY_BYTES:
        raise bad("query", f"at most {MOST_QUERY_BYTES} bytes", 414)
    found: dict[str, Any] = {}
    for part in filter(None, query.split(b"&")):
        name, text = (
            unquote_to_bytes(each.replace(b"+", b" ")).decode("utf-8", "replace")
            for each in part.partition(b"=")[::2]
        )
        if name not in parsers:
            allowed = f"one of {', '.join(parsers)}" if parsers else "left out"
            raise Refused(400, f"the query has no part of this name: {name!r}", name, allowed)
        if name in found:
            raise bad(name, "given once")
        try:
            found[name] = parsers[name](text)
        except ValueError as error:
            raise bad(name, str(error)) from None
    return found


def read_object(content_type: bytes, body: bytes) -> dict[str, Any]:
    """The JSON object of a body, whose values are texts, numbers, true or false.

    Raises:
        Refused: it is none.
    """
    if content_type.split(b";")[0].strip().lower() != b"application/json":
        raise bad("Content-Type", "application/json", 415)
    try:
        found = json.loads(body, object_pairs_hook=_once, parse_constant=_no_constant)
    except Refused:
        raise
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise bad("body", "a JSON object")
    for name, value in found.items():
        # JSON has 1e999, but a line of the audit log could not show it.
        if not isinstance(value, str | bool | int | float) or value in (math.inf, -math.inf):
            raise bad(name, "a text, a finite number, true or false")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise bad(next(name for name in names if names.count(name) > 1), "given once")
    return found


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")
