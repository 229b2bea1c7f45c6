"""Asks a server's web endpoint, over HTTP/1.1 and without a proxy, and waits for the answer."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import attrs
import click

PATIENCE = 60.0
"""Seconds within which the server must have answered as a whole.  A change is answered once it is
committed, which a full disk or a lock may delay."""
MOST_BYTES = 16 * 2**20
"""An answer that is longer is of no server of ours."""
_PIECE = 65_536

_CONNECTIONS: dict[str, Callable[..., http.client.HTTPConnection]] = {
    "http": http.client.HTTPConnection,
    "https": http.client.HTTPSConnection,
}


class WebError(click.ClickException):
    """The server did not do what it was asked to; the message, one line, says why."""


@attrs.frozen
class Web:
    """A server's web endpoint.

    Attributes:
        url: as the user gave it, such as ``http://127.0.0.1:7780``.
        token: that allows the changes; None for none.
        patience: seconds to wait for an answer.
    """

    url: str
    token: str | None = attrs.field(default=None, repr=False)
    patience: float = PATIENCE

    def ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """Ask for something, and return the server's answer, a JSON object.

        Raises:
            WebError: it was not done, or is not known to be done.
        """
        text = self._request(method, path, None if body is None else json.dumps(body).encode())
        try:
            answer = json.loads(text or b"{}")
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise WebError(f"{self.url} does not answer in JSON; is it a playerstate server?")
        return answer

    def read(self, path: str) -> str:
        """The text at a path.

        Raises:
            WebError: there is none.
        """
        return self._request("GET", path, None).decode(errors="replace")

    def _request(self, method: str, path: str, body: bytes | None) -> bytes:
        parts = urlsplit(self.url)
        headers = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        deadline = time.monotonic() + self.patience
        connect = _CONNECTIONS[parts.scheme]
        connection = connect(parts.hostname, parts.port, timeout=self.patience)
        try:
            connection.request(method, parts.path.rstrip("/") + path, body, headers)
            response = connection.getresponse()
            text = b""
            while piece := response.read1(_PIECE):
                text += piece
                if len(text) > MOST_BYTES:
                    raise WebError(f"{self.url}: the answer has more than {MOST_BYTES} bytes")
                if time.monotonic() > deadline:
                    raise TimeoutError
        except TimeoutError:
            raise WebError(
                f"{self.url} has not answered within {self.patience:g} s; what it was asked for may"
                " still be done"
            ) from None
        except OSError as error:
            raise WebError(
                f"cannot reach {self.url}: {error.strerror or error}; the server must run with"
                " --web"
            ) from error
        except http.client.HTTPException as error:
            raise WebError(f"{self.url} does not speak HTTP: {error!r}") from error
        finally:
            connection.close()
        if response.status >= 300:
            raise WebError(f"{self.url}: {_why(response.status, response.reason, text)}")
        return text


def _why(status: int, reason: str, text: bytes) -> str:
    """What an answer says of an error."""
    try:
        answer = json.loads(text)
        error, field = answer["error"], answer.get("field")
    except (ValueError, TypeError, LookupError, RecursionError, AttributeError):
        error, field = f"{status} {reason}", None
    said = f"{field}: {error}" if field and str(field) not in str(error) else str(error)
    return f"{said}; give one by --token-file" if status == 401 else said
