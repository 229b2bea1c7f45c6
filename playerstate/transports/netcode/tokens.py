"""Connect tokens and challenge tokens, byte by byte.

A login service makes a *connect token*.  Its *private part* is sealed with the key that the
service shares with the game servers, and is all that a server ever sees of it; the rest is for the
client itself.  A server makes a *challenge token*, which only that server can open.

Layouts and seals are those of the netcode 1.02 standard; all numbers are little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import attrs
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
)
from nacl.exceptions import CryptoError

from playerstate.transports.netcode.addresses import Address, unpack_address

VERSION = b"NETCODE 1.02\0"
KEY_BYTES = 32
TAG_BYTES = 16
TOKEN_NONCE_BYTES = 24
TOKEN_BYTES = 2048
SEALED_BYTES = 1024
USER_DATA_BYTES = 256
MAX_ADDRESSES = 32
CHALLENGE_BYTES = 8 + 300
"""A challenge's number and its sealed token, as sent to the client and returned by it."""

_PRIVATE_BYTES = SEALED_BYTES - TAG_BYTES
_CHALLENGE_PLAIN_BYTES = 300 - TAG_BYTES
_PRIVATE_HEAD = struct.Struct("<Qi")
_PUBLIC_HEAD = struct.Struct(f"<13sQQQ{TOKEN_NONCE_BYTES}s{SEALED_BYTES}si")
_COUNT = struct.Struct("<I")
_ASSOCIATED = struct.Struct("<13sQQ")
_CHALLENGE = struct.Struct(f"<Q{USER_DATA_BYTES}s")
_U64 = struct.Struct("<Q")
_PACKET_NONCE = struct.Struct("<4xQ")


class MalformedToken(ValueError):
    """A token opens, or needs no opening, and its content is invalid."""


class NotSealed(Exception):
    """A token was not sealed with this key, for this protocol id and expiry."""


@attrs.frozen
class PrivateToken:
    """The private part of a connect token: a server's information on a client.

    Attributes:
        client_id: the client's id.
        timeout_seconds: seconds of silence after which either side ends the connection; 0 or below
            for never.
        addresses: of the servers that may accept the client, as their settings have them; 1 to 32.
        client_to_server_key, server_to_client_key: 32 bytes each, made for this token.
        user_data: 256 bytes for the game.
    """

    client_id: int
    timeout_seconds: int
    addresses: tuple[Address, ...]
    client_to_server_key: bytes = attrs.field(repr=False)
    server_to_client_key: bytes = attrs.field(repr=False)
    user_data: bytes = attrs.field(repr=False)

    def pack(self) -> bytes:
        """Return the 1,008 bytes to be sealed."""
        parts = (
            _PRIVATE_HEAD.pack(self.client_id, self.timeout_seconds),
            _pack_addresses(self.addresses),
            self.client_to_server_key,
            self.server_to_client_key,
            self.user_data,
        )
        return b"".join(parts).ljust(_PRIVATE_BYTES, b"\0")

    @classmethod
    def unpack(cls, plain: bytes) -> PrivateToken:
        """Read the bytes that were sealed.

        Raises:
            MalformedToken: it has other than 1 to 32 addresses, or one of an unknown type.
        """
        client_id, timeout_seconds = _PRIVATE_HEAD.unpack_from(plain)
        addresses, at = _unpack_addresses(plain, _PRIVATE_HEAD.size)
        keys, user = at + 2 * KEY_BYTES, at + 2 * KEY_BYTES + USER_DATA_BYTES
        return cls(
            client_id,
            timeout_seconds,
            addresses,
            plain[at : at + KEY_BYTES],
            plain[at + KEY_BYTES : keys],
            plain[keys:user],
        )

    def seal(self, key: bytes, protocol_id: int, expires_at: int, nonce: bytes) -> bytes:
        """Return the sealed private part, 1,024 bytes; the last 16, the tag, identify the token."""
        associated = _ASSOCIATED.pack(VERSION, protocol_id, expires_at)
        sealed: bytes = crypto_aead_xchacha20poly1305_ietf_encrypt(
            self.pack(), associated, nonce, key
        )
        return sealed

    @classmethod
    def unseal(
        cls, sealed: bytes, key: bytes, protocol_id: int, expires_at: int, nonce: bytes
    ) -> PrivateToken:
        """Open a sealed private part and read it.

        Raises:
            NotSealed: it cannot be opened.
            MalformedToken: see `unpack`.
        """
        associated = _ASSOCIATED.pack(VERSION, protocol_id, expires_at)
        try:
            plain = crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, associated, nonce, key)
        except CryptoError:
            raise NotSealed from None
        return cls.unpack(plain)


@attrs.frozen
class ConnectToken:
    """A whole connect token, for a client alone: it holds the keys of the connection.

    Attributes:
        protocol_id: of the game; the same on both sides.
        created_at, expires_at: seconds since the Unix epoch.
        nonce: 24 bytes, never used twice with one key.
        sealed: the private part, 1,024 bytes.
        timeout_seconds: as in the private part.
        addresses: of the servers, for the client to try in order; 1 to 32.
        client_to_server_key, server_to_client_key: as in the private part.
    """

    protocol_id: int
    created_at: int
    expires_at: int
    nonce: bytes
    sealed: bytes = attrs.field(repr=False)
    timeout_seconds: int
    addresses: tuple[Address, ...]
    client_to_server_key: bytes = attrs.field(repr=False)
    server_to_client_key: bytes = attrs.field(repr=False)

    def pack(self) -> bytes:
        """Return the 2,048 bytes that a login service gives to a client."""
        head = _PUBLIC_HEAD.pack(
            VERSION,
            self.protocol_id,
            self.created_at,
            self.expires_at,
            self.nonce,
            self.sealed,
            self.timeout_seconds,
        )
        keys = self.client_to_server_key + self.server_to_client_key
        return (head + _pack_addresses(self.addresses) + keys).ljust(TOKEN_BYTES, b"\0")

    @classmethod
    def unpack(cls, data: bytes) -> ConnectToken:
        """Read a token as a client does.

        Raises:
            MalformedToken: its length or version is wrong, it expires before it was made, or has
                other than 1 to 32 addresses.
        """
        if len(data) != TOKEN_BYTES:
            raise MalformedToken(f"a token has {TOKEN_BYTES} bytes, not {len(data)}")
        version, protocol_id, created_at, expires_at, nonce, sealed, timeout = (
            _PUBLIC_HEAD.unpack_from(data)
        )
        if version != VERSION:
            raise MalformedToken(f"this is no token of {VERSION[:-1].decode()}")
        if created_at > expires_at:
            raise MalformedToken("it expires before it was made")
        addresses, at = _unpack_addresses(data, _PUBLIC_HEAD.size)
        middle, end = at + KEY_BYTES, at + 2 * KEY_BYTES
        return cls(
            protocol_id,
            created_at,
            expires_at,
            nonce,
            sealed,
            timeout,
            addresses,
            data[at:middle],
            data[middle:end],
        )


class Challenges:
    """Makes the challenge tokens of one server, from its start to its stop, and opens them.

    Args:
        key: 32 random bytes, new at each start: the numbers begin at 0 again, and a key must not
            seal two tokens under the same number.
    """

    def __init__(self, key: bytes) -> None:
        self._cipher = ChaCha20Poly1305(key)
        self._sequence = 0

    def make(self, client_id: int, user_data: bytes) -> bytes:
        """Return the 308 bytes of the next challenge: its number, and the sealed token."""
        number = self._sequence
        self._sequence += 1
        plain = _CHALLENGE.pack(client_id, user_data).ljust(_CHALLENGE_PLAIN_BYTES, b"\0")
        return _U64.pack(number) + self._cipher.encrypt(_PACKET_NONCE.pack(number), plain, None)

    def open(self, body: bytes) -> int:
        """Return the client id of a challenge that a client returned.

        Raises:
            NotSealed: this object did not make it.
        """
        nonce = _PACKET_NONCE.pack(_U64.unpack_from(body)[0])
        try:
            plain = self._cipher.decrypt(nonce, body[_U64.size :], None)
        except InvalidTag:
            raise NotSealed from None
        client_id: int = _U64.unpack_from(plain)[0]
        return client_id


def _pack_addresses(addresses: Sequence[Address]) -> bytes:
    return _COUNT.pack(len(addresses)) + b"".join(address.pack() for address in addresses)


def _unpack_addresses(data: bytes, at: int) -> tuple[tuple[Address, ...], int]:
    (count,) = _COUNT.unpack_from(data, at)
    if not 1 <= count <= MAX_ADDRESSES:
        raise MalformedToken(f"it names {count} addresses, not 1 to {MAX_ADDRESSES}")
    at += _COUNT.size
    addresses = []
    for _ in range(count):
        try:
            address, at = unpack_address(data, at)
        except ValueError as error:
            raise MalformedToken(str(error)) from None
        addresses.append(address)
    return tuple(addresses), at
