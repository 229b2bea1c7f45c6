"""An IP address and a UDP port, as text and as packed in connect tokens."""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

import attrs

_IPV4, _IPV6 = 1, 2
"""The two address types of netcode 1.02, one byte each."""
_IPV4_BODY = struct.Struct("<4sH")
_IPV6_BODY = struct.Struct("<8HH")
_GROUPS = struct.Struct(">8H")
_MAPPED = bytes(10) + b"\xff\xff"
"""The prefix of an IPv4-mapped IPv6 address (RFC 4291, 2.5.5.2)."""


@attrs.frozen
class Address:
    """Where a server can be reached.

    Attributes:
        ip: the IP address, without a zone.
        port: the UDP port, 0 to 65535.
    """

    ip: IPv4Address | IPv6Address
    port: int

    @classmethod
    def of(cls, host: str, port: int) -> Address:
        """The address of a host given as an IP address.

        Raises:
            ValueError: it is not an IP address, or has a zone, which no token can carry.
        """
        ip = ip_address(host)
        if isinstance(ip, IPv6Address) and ip.scope_id is not None:
            raise ValueError(f"{host!r} has a zone, which means nothing on another machine")
        return cls(ip, port)

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``203.0.113.7:40000`` or ``[2001:db8::1]:40000``.

        Raises:
            ValueError: saying what is allowed.
        """
        host, _, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        try:
            if not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
                raise ValueError
            address = cls.of(host[1:-1] if bracketed else host, int(port))
            if bracketed != isinstance(address.ip, IPv6Address):
                raise ValueError
        except ValueError:
            raise ValueError(
                "must be an IP address and a port, such as 203.0.113.7:40000 or [2001:db8::1]:40000"
            ) from None
        return address

    def __str__(self) -> str:
        host = f"[{self.ip}]" if isinstance(self.ip, IPv6Address) else str(self.ip)
        return f"{host}:{self.port}"

    def pack(self) -> bytes:
        """The form in a token: the type, the address, the port; 7 bytes (IPv4) or 19 (IPv6).

        The standard writes the groups of an IPv6 address as eight little-endian numbers.
        """
        if isinstance(self.ip, IPv4Address):
            return bytes((_IPV4,)) + _IPV4_BODY.pack(self.ip.packed, self.port)
        groups = _GROUPS.unpack(self.ip.packed)
        return bytes((_IPV6,)) + _IPV6_BODY.pack(*groups, self.port)


def unpack_address(data: bytes, at: int) -> tuple[Address, int]:
    """The address that begins at `at`, and where it ends.

    Raises:
        ValueError: its type is unknown, or the data end within it.
    """
    try:
        kind = data[at]
        if kind == _IPV4:
            packed, port = _IPV4_BODY.unpack_from(data, at + 1)
            return Address(IPv4Address(packed), port), at + 1 + _IPV4_BODY.size
        if kind == _IPV6:
            *groups, port = _IPV6_BODY.unpack_from(data, at + 1)
            return Address(IPv6Address(_GROUPS.pack(*groups)), port), at + 1 + _IPV6_BODY.size
    except (IndexError, struct.error) as error:
        raise ValueError("the data end within an address") from error
    raise ValueError(f"there is no address of type {kind}")


def network_of(host: str) -> bytes:
    """The network that a sender counts under: an IPv4 address, or 64 bits of an IPv6 one.

    One customer commonly has a whole /64, so a finer count could be evaded.  An IPv4 sender seen by
    a dual-stack socket, as ``::ffff:203.0.113.7``, counts as the IPv4 sender.

    Args:
        host: an IP address as a socket names it; an IPv6 one may carry a zone.
    """
    if ":" not in host:
        return socket.inet_pton(socket.AF_INET, host)
    packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    return packed[12:] if packed.startswith(_MAPPED) else packed[:8]


def is_loopback(network: bytes) -> bool:
    """Whether a network, as `network_of` returns it, is this machine: 127/8, or ::1's."""
    return network[0] == 127 if len(network) == 4 else not any(network)
