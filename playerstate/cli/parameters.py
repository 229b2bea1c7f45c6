"""Parameter types of the commands, and click callbacks that read addresses, keys and schemas."""

from __future__ import annotations

import math
import os
import socket
import stat
from typing import Any
from urllib.parse import urlsplit

import attrs
import click

LAST_ID = 2**63 - 1
"""The highest session id."""
MOST_TOKEN_BYTES = 4096
"""A longer file is no file of a token."""


class Whole(click.IntRange):
    """A whole number within bounds; the error of another value states them."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See `click.ParamType.convert`."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            allowed = f"a whole number from {self.min} to {self.max}"
        return self.fail(f"{value!r} is not {allowed}.", param, ctx)


class AboveZero(click.FloatRange):
    """A number above zero, up to a bound; the error of another value states it.

    Infinity and nan are rejected, unlike by a range of click's.
    """

    def __init__(self, most: float) -> None:
        super().__init__(0, most, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See `click.ParamType.convert`."""
        try:
            number = super().convert(value, param, ctx)
        except click.BadParameter:
            number = math.nan
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a number above 0, and at most {self.max}.", param, ctx)
        return number


@attrs.frozen
class Address:
    """A server's address.

    Attributes:
        name: as the user gave it.
        ip, port: as resolved.
    """

    name: str
    ip: str
    port: int


@attrs.frozen
class Login:
    """A login service's secrets, to make tokens with.

    Attributes:
        key: 32 bytes, shared with the servers.
        protocol_id: the game's.
    """

    key: bytes = attrs.field(repr=False)
    protocol_id: int


def read_address(ctx: click.Context, param: click.Parameter, value: str) -> Address:
    """Read ``HOST:PORT``, an IPv6 address in brackets; a name is resolved at once."""
    host, _, port = value.rpartition(":")
    if not (host and port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        raise click.BadParameter(f"{value!r} is not HOST:PORT, such as 127.0.0.1:7777")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        raise click.BadParameter(f"no address found for {host!r}") from error
    # localhost has two addresses, and a server listens on 127.0.0.1 by default.
    ip = min(found, key=lambda info: info[0] != socket.AF_INET)[4][0]
    return Address(value, str(ip), int(port))


def read_schema(ctx: click.Context, param: click.Parameter, value: str) -> Any:
    """Read ``MODULE:CLASS``; return the schema of that state class."""
    from playerstate.state.default import load_schema
    from playerstate.state.schema import SchemaError

    try:
        return load_schema(value)
    except SchemaError as error:
        raise click.BadParameter(f"{value}: {error}") from error


def read_key_file(ctx: click.Context, param: click.Parameter, value: str | None) -> bytes | None:
    """Read the key in a key file; None for none."""
    from playerstate.tokens import KeyUnusable, read_key

    if value is None:
        return None
    try:
        return read_key(value)
    except KeyUnusable as error:
        raise click.BadParameter(f"{value}: {error}") from error


def read_protocol_id(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Read a 64-bit number, decimal or with ``0x``; None for none."""
    from playerstate.listening import parse_protocol_id

    if value is None:
        return None
    try:
        return parse_protocol_id(value)
    except ValueError as error:
        raise click.BadParameter(f"{value}: {error}") from error


def login_of(netcode: bool, key: bytes | None, protocol_id: int | None) -> Login | None:
    """Combine the transport's options: how to log in, or None for plain UDP.

    Raises:
        click.UsageError: an option is missing, or has no use.
    """
    if netcode and key is not None and protocol_id is not None:
        return Login(key, protocol_id)
    if netcode:
        raise click.UsageError("--netcode needs --key-file and --protocol-id, the server's own")
    if key is not None or protocol_id is not None:
        raise click.UsageError("--key-file and --protocol-id are of no use without --netcode")
    return None


def read_public(
    ctx: click.Context, param: click.Parameter, value: tuple[str, ...]
) -> tuple[str, ...]:
    """Check ``ADDRESS:PORT``, any number of times; return the texts unchanged."""
    from playerstate.transports.netcode.addresses import Address

    for text in value:
        try:
            Address.parse(text)
        except ValueError as error:
            raise click.BadParameter(f"{text}: {error}") from error
    return value


def read_web(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Check the URL of a web endpoint; None for none."""
    if value is None:
        return None
    try:
        parts = urlsplit(value)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        good = good and not (parts.query or parts.fragment or parts.username or parts.password)
        good = good and value.isascii() and value.isprintable() and " " not in value
    except ValueError:
        good = False
    if not good:
        raise click.BadParameter(f"{value!r} is not a URL such as http://127.0.0.1:7780")
    return value.rstrip("/")


def read_token_file(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Read the one token in a file, alone or as in the server's file; None for none."""
    if value is None:
        return None
    try:
        # Opened without waiting: a pipe without a writer is no file of a token.
        with open(os.open(value, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(MOST_TOKEN_BYTES + 1) or b""
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise click.BadParameter(f"{value}: cannot be read: {why}") from error
    if not stat.S_ISREG(mode):
        raise click.BadParameter(f"{value}: is not a regular file")
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise click.BadParameter(
            f"{value}: users other than its owner can read or write it; chmod 600, and draw a new"
            " token if another user may have read it"
        )
    lines = [line.split() for line in text.decode("ascii", "replace").splitlines()]
    lines = [words for words in lines if words and not words[0].startswith("#")]
    good = len(text) <= MOST_TOKEN_BYTES and len(lines) == 1 and len(lines[0]) in (1, 3)
    if not (good and lines[0][-1].isascii() and lines[0][-1].isprintable()):
        raise click.BadParameter(
            f"{value}: must hold one token: a line TOKEN, or NAME read|write TOKEN; put yours alone"
            " in a file"
        )
    return lines[0][-1]


def read_fields(
    ctx: click.Context, param: click.Parameter, value: tuple[str, ...]
) -> list[tuple[str, str]]:
    """Read ``FIELD=VALUE``, any number of times."""
    fields: dict[str, str] = {}
    for word in value:
        name, equals, text = word.partition("=")
        if not (name and equals):
            raise click.BadParameter(f"{word!r} is not FIELD=VALUE")
        if name in fields:
            raise click.BadParameter(f"{name} is given twice")
        fields[name] = text
    return list(fields.items())


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
state_option = click.option(
    "--state",
    "schema",
    metavar="MODULE:CLASS",
    callback=read_schema,
    default="playerstate:PlayerState",
    show_default=True,
    help="The server's state class.",
)
live_file_option = click.option(
    "--live-file",
    metavar="PATH",
    help="The server's live file, if it is not beside the store.",
)
