"""For the game's login service: connect tokens, and the key that seals them.

A player logs in, in the game's own way, and gets a connect token: 2,048 bytes that let this player
connect once, within some seconds, to the servers named in it.  The login service
and the game servers share nothing but a key and the game's protocol id::

    key = read_key("/etc/mygame/key")
    token = connect_token(
        42, key=key, protocol_id=0x1122334455667788, addresses=["203.0.113.7:40000"]
    )

A token is a secret of its player: hand it out over TLS only.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Sequence

from playerstate.arguments import check_session_id, check_whole, shown
from playerstate.transports.netcode.addresses import Address
from playerstate.transports.netcode.tokens import (
    KEY_BYTES,
    MAX_ADDRESSES,
    TOKEN_NONCE_BYTES,
    USER_DATA_BYTES,
    ConnectToken,
    PrivateToken,
)

__all__ = ["EXPIRES", "TIMEOUT", "KeyUnusable", "connect_token", "create_key", "read_key"]

EXPIRES = 30
"""Seconds for which a token lives by default.  A server rejects tokens that live longer than its
``--max-token-lifetime``, 30 by default."""
TIMEOUT = 5
"""Seconds of silence after which either end drops the connection, by default.  With more, a player
who is gone would stay in the game for longer; with fewer, connections would end over a network that
only stutters."""
_HEX_KEY = re.compile(rf"[0-9a-fA-F]{{{2 * KEY_BYTES}}}")


class KeyUnusable(Exception):
    """A key file cannot be used; the message says why, and what to do."""


def connect_token(
    session_id: int,
    *,
    key: bytes,
    protocol_id: int,
    addresses: Sequence[str],
    own_addresses: Sequence[str] | None = None,
    expires: int = EXPIRES,
    timeout: int = TIMEOUT,
    user_data: bytes = b"",
    wall_clock: Callable[[], float] = time.time,
    random_bytes: Callable[[int], bytes] = os.urandom,
) -> bytes:
    """Make a connect token: good for one connection of one player.

    Args:
        session_id: the player's, from 1 to 2^63 - 1.
        key: 32 bytes, shared with the game servers; see `read_key`.
        protocol_id: the game's, 64 bits, the same as the servers' ``--protocol-id``.
        addresses: of the servers, as a client reaches them, such as ``203.0.113.7:40000`` or
            ``[2001:db8::1]:40000``; 1 to 32, tried in order.  Each server remembers
            used tokens by itself: a token that names several servers works once at each.
        own_addresses: the servers' ``--public`` addresses, if they differ, as behind a relay;
            `addresses` by default.
        expires: seconds for which the token lives, at least 1.
        timeout: seconds of silence after which either end drops the connection, 1 to 60.
        user_data: up to 256 bytes that a server passes to its program when the player connects.
        wall_clock: returns seconds since the Unix epoch.
        random_bytes: returns that many random bytes, fit for keys.

    Returns:
        2,048 bytes, for that player's client only.

    Raises:
        TypeError: an argument has the wrong type; the message names it.
        ValueError: an argument is out of range, or no address; the message names it.
    """
    session_id = check_session_id(session_id)
    protocol_id = check_whole("protocol_id", protocol_id, 0, 2**64 - 1)
    expires = check_whole("expires", expires, 1, 2**32)
    timeout = check_whole("timeout", timeout, 1, 60)
    if not isinstance(key, bytes):
        raise TypeError(f"key is {KEY_BYTES} bytes, as from read_key, not a {type(key).__name__}")
    if not isinstance(user_data, bytes):
        raise TypeError(f"user_data {shown(user_data)} is not bytes")
    if len(key) != KEY_BYTES:
        raise ValueError(f"key has {len(key)} bytes, not {KEY_BYTES}")
    if len(user_data) > USER_DATA_BYTES:
        raise ValueError(f"user_data has {len(user_data)} bytes, more than {USER_DATA_BYTES}")
    public = _parse("addresses", addresses)
    private = public if own_addresses is None else _parse("own_addresses", own_addresses)
    created_at = int(wall_clock())
    expires_at = created_at + expires
    keys = random_bytes(KEY_BYTES), random_bytes(KEY_BYTES)
    nonce = random_bytes(TOKEN_NONCE_BYTES)
    user_data = user_data.ljust(USER_DATA_BYTES, b"\0")
    part = PrivateToken(session_id, timeout, private, *keys, user_data)
    sealed = part.seal(key, protocol_id, expires_at, nonce)
    token = ConnectToken(protocol_id, created_at, expires_at, nonce, sealed, timeout, public, *keys)
    return token.pack()


def create_key(path: str, random_bytes: Callable[[int], bytes] = os.urandom) -> None:
    """Create a key file that only its owner can read: 64 hex digits.

    Raises:
        KeyUnusable: the file exists already, or cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise KeyUnusable(
            "the file exists already; remove it if no server uses it, or name another"
        ) from None
    except OSError as error:
        raise KeyUnusable(
            f"cannot be created: {error.strerror}; name another file, in a directory that this user"
            " may write"
        ) from error
    with open(descriptor, "w", encoding="ascii") as file:
        file.write(random_bytes(KEY_BYTES).hex() + "\n")


def read_key(path: str) -> bytes:
    """The 32 bytes of a key file.

    Raises:
        KeyUnusable: there is no such file, users other than its owner can read or write it, or it
            does not hold 64 hex digits.
    """
    try:
        # Opening a FIFO must not block; permissions are checked of regular files only.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, encoding="ascii", errors="replace") as file:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise KeyUnusable("is not a regular file; name a key file")
            text = file.read(4096).strip()
    except FileNotFoundError:
        raise KeyUnusable(
            f"there is no such file; `playerstate key {path}` creates one, to be shared with the"
            " login service"
        ) from None
    except OSError as error:
        raise KeyUnusable(
            f"cannot be read: {error.strerror}; name a key file that this user may read"
        ) from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise KeyUnusable(
            "users other than its owner can read or write it, and a holder of the key can pose as"
            f" any player; chmod 600 {path}, and create a new key if another user may have read it"
        )
    if not _HEX_KEY.fullmatch(text):
        raise KeyUnusable(
            f"does not hold a key, which is {2 * KEY_BYTES} hex digits; `playerstate key PATH`"
            " creates one"
        )
    return bytes.fromhex(text)


def _parse(name: str, texts: Sequence[str]) -> tuple[Address, ...]:
    if not 1 <= len(texts) <= MAX_ADDRESSES:
        raise ValueError(f"{name}: a token names 1 to {MAX_ADDRESSES} addresses, not {len(texts)}")
    try:
        return tuple(map(Address.parse, texts))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
