"""The error of a request that is not carried out, which becomes its answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs


@attrs.define(eq=False)
class Refused(Exception):
    """A request is not carried out.

    Attributes:
        status: of the answer.
        error: in words, for a person.
        field: what in the request is wrong: a header, a part of the query, a field of the body;
            empty if it is none of them.
        allowed: what `field` may be, in words.
        headers: of the answer, by name.
    """

    status: int
    error: str
    field: str = ""
    allowed: str = ""
    headers: Mapping[str, str] = attrs.field(factory=dict)

    def __str__(self) -> str:
        return self.error

    @property
    def body(self) -> dict[str, Any]:
        """The body of the answer."""
        body = {"error": self.error}
        if self.field:
            body |= {"field": self.field, "allowed": self.allowed}
        return body


def bad(field: str, allowed: str, status: int = 400) -> Refused:
    """The error of a request in which `field` is not what it may be."""
    return Refused(status, f"{field} must be {allowed}", field, allowed)


def not_now(error: str) -> Refused:
    """The error of a request that may succeed when it is made again."""
    return Refused(503, error, headers={"Retry-After": "1"})
