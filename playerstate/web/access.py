"""Who may do what: tokens, and the names by which a server may be called.

A change needs a token that may write, wherever it comes from.  What only looks needs none on a
loopback interface, and one on any other.  The ``Host`` of each request is held against the names of
the server: a page elsewhere, whose name was made to lead to a loopback interface, gets nothing.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import ipaddress
import os
import re
import stat
from collections.abc import Sequence

import attrs

from playerstate.web.refused import Refused, bad

MOST_BYTES = 65_536
"""Bytes of the longest token file."""
_LINE = re.compile(r"(?P<name>[\w.@-]{1,64})\s+(?P<right>read|write)\s+(?P<token>\S+)", re.ASCII)
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{20,256}")
_FORM = "NAME read TOKEN or NAME write TOKEN, the token 20 to 256 letters, digits or ._~+/=-"
_HOST = re.compile(
    r"(\[[0-9a-f:.]{1,64}\]|[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63}){0,16}\.?)(:[0-9]{1,5})?",
    re.ASCII,
)
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


class TokensUnusable(Exception):
    """A token file cannot be used; the message says why, and what to do."""


class Right(enum.IntEnum):
    """What a request needs; a token that may write may read as well."""

    NOTHING = 0
    """All may: `/health`, and the page without anything in it."""
    READ = 1
    WRITE = 2


@attrs.frozen
class Token:
    """One token, as its hash: what is compared tells nothing of the token by its time.

    Attributes:
        name: for the audit log.
        right: what it allows.
        digest: the SHA-256 of the token.
    """

    name: str
    right: Right
    digest: bytes = attrs.field(repr=False)

    @classmethod
    def of(cls, name: str, right: Right, token: str) -> Token:
        """Make one of its text."""
        return cls(name, right, hashlib.sha256(token.encode()).digest())


def read_tokens(path: str) -> tuple[Token, ...]:
    """The tokens of a file, one a line: a name, ``read`` or ``write``, and the token.

    Empty lines, and those that begin with ``#``, are skipped.

    Raises:
        TokensUnusable: there is no such file, other users may read it, or a line is wrong.
    """
    try:
        # Opening a FIFO must not block; permissions are checked of regular files only.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, encoding="utf-8", errors="replace") as file:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise TokensUnusable("is not a regular file; name a token file")
            text = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise TokensUnusable(
            f"cannot be read: {error.strerror}; name a token file that this user may read"
        ) from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise TokensUnusable(
            "users other than its owner can read or write it; chmod 600, and draw new tokens if"
            " another user may have read them"
        )
    if len(text) > MOST_BYTES:
        raise TokensUnusable(f"has more than {MOST_BYTES} bytes; name a token file")
    tokens: dict[str, Token] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None or not _TOKEN.fullmatch(match["token"]):
            raise TokensUnusable(f"line {number} must be {_FORM}")
        if match["name"] in tokens:
            raise TokensUnusable(f"line {number}: {match['name']} has a token already")
        right = Right[match["right"].upper()]
        tokens[match["name"]] = Token.of(match["name"], right, match["token"])
    if not tokens:
        raise TokensUnusable(f"holds no token; a line is {_FORM}")
    return tuple(tokens.values())


def parse_host(text: str) -> str:
    """A name by which a server may be called, as given on the command line.

    Raises:
        ValueError: it is no host name or address.
    """
    match = _HOST.fullmatch(text.lower())
    if match is None or match[2]:
        raise ValueError("must be a host name or an IP address, without a port")
    return match[1].rstrip(".")


@attrs.frozen
class Access:
    """The rules of one endpoint.

    Attributes:
        interface: the IP address that it listens on.
        tokens: those that it knows.
        hosts: names by which it may be called, besides its address; see `parse_host`.
    """

    interface: str = "127.0.0.1"
    tokens: tuple[Token, ...] = ()
    hosts: Sequence[str] = ()
    _names: tuple[str, ...] = attrs.field(init=False)

    @_names.default
    def _all_names(self) -> tuple[str, ...]:
        address = ipaddress.ip_address(self.interface)
        own = f"[{address}]" if address.version == 6 else str(address)
        names = [] if address.is_unspecified else [own]
        names += _LOOPBACK if address.is_loopback else ()
        return tuple(dict.fromkeys([*names, *self.hosts]))

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return ipaddress.ip_address(self.interface).is_loopback

    def check_host(self, headers: Sequence[bytes]) -> None:
        """Check the ``Host`` headers of a request.

        Raises:
            Refused: they do not name this server.
        """
        match = _HOST.fullmatch(headers[0].decode("latin-1").lower()) if len(headers) == 1 else None
        if match is None:
            raise bad("Host", "given once, as the name or address of this server")
        name = match[1].rstrip(".")
        if name not in self._names and not (self._is_wildcard and _is_address(name)):
            allowed = ", ".join((*self._names, *(["any IP address"] if self._is_wildcard else [])))
            raise Refused(
                421,
                f"this server is not called {name!r}; --web-host allows another name",
                "Host",
                f"one of {allowed}",
            )

    @property
    def _is_wildcard(self) -> bool:
        return ipaddress.ip_address(self.interface).is_unspecified

    def right_of(self, headers: Sequence[bytes]) -> tuple[str, Right]:
        """Whose token a request carries, empty for none, and what the request may do.

        Args:
            headers: its ``Authorization`` headers.

        Raises:
            Refused: it carries a token that is not known.
        """
        if not headers:
            return "", Right.READ if self.is_loopback else Right.NOTHING
        scheme, _, given = headers[0].partition(b" ")
        digest = hashlib.sha256(given.strip()).digest()
        found = None
        for token in self.tokens:  # all of them, so that the time tells nothing
            if hmac.compare_digest(token.digest, digest):
                found = token
        if found is None or len(headers) > 1 or scheme.lower() != b"bearer":
            raise self._unauthorized("the token is not known")
        return found.name, found.right

    def check(self, needed: Right, headers: Sequence[bytes]) -> tuple[str, Right]:
        """Check that a request may do what needs this right; return what `right_of` returns.

        Raises:
            Refused: it may not.
        """
        if needed is Right.NOTHING:
            return "", Right.NOTHING
        name, right = self.right_of(headers)
        if right < needed:
            if name:
                raise Refused(
                    403,
                    f"the token of {name} may only read",
                    "Authorization",
                    "Bearer and a token that may write",
                )
            raise self._unauthorized(
                "this needs a token" if self.tokens else "this needs --web-token-file"
            )
        return name, right

    def _unauthorized(self, error: str) -> Refused:
        return Refused(
            401,
            error,
            "Authorization",
            "Bearer and a token of --web-token-file",
            {"WWW-Authenticate": 'Bearer realm="playerstate"'},
        )


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
