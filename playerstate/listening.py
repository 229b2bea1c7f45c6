r"""Where a server listens and under which addresses it is known, as the command line writes it.

``udp:PORT:interface=ADDRESS`` is the plain transport, ``netcode:PORT:interface=ADDRESS`` the one
that speaks netcode; a colon inside an address is written ``\:``.
"""

from __future__ import annotations

import ipaddress
import re

import attrs

SCHEMES = ("udp", "netcode")
LOOPBACK = "127.0.0.1"
_FORM = "udp:PORT:interface=ADDRESS or netcode:PORT:interface=ADDRESS"


@attrs.frozen
class Listen:
    """One place to listen at.

    Attributes:
        scheme: ``udp`` or ``netcode``.
        port: the port's number; 0 for any that is free.
        interface: an IP address of this machine, or one for all of them.
    """

    scheme: str
    port: int
    interface: str = LOOPBACK

    @classmethod
    def parse(cls, text: str) -> Listen:
        """Read the text.

        Raises:
            ValueError: saying what is allowed.
        """
        if remedy := _escaped(text):
            raise ValueError(f"the colons of an IPv6 address are written \\:, so write {remedy}")
        scheme, *parts = (part.replace("\\:", ":") for part in re.split(r"(?<!\\):", text))
        if scheme not in SCHEMES:
            raise ValueError(f"must be {_FORM}")
        port = parts[0] if parts else ""
        if not (port.isascii() and port.isdigit() and int(port) < 65_536):
            raise ValueError("the port must be a whole number from 0 to 65535")
        interface = LOOPBACK
        for part in parts[1:]:
            key, _, value = part.partition("=")
            if key != "interface":
                raise ValueError(f"there is no {part!r}; must be {_FORM}")
            interface = value
        try:
            ipaddress.ip_address(interface)
        except ValueError:
            raise ValueError(
                f"interface {interface!r} must be an IP address of this machine, the colons of an"
                " IPv6 address written \\:"
            ) from None
        return cls(scheme, int(port), interface)

    def __str__(self) -> str:
        escaped = self.interface.replace(":", "\\:")
        return f"{self.scheme}:{self.port}:interface={escaped}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return ipaddress.ip_address(self.interface).is_loopback

    @property
    def is_wildcard(self) -> bool:
        """Whether it is at every address of this machine, and so names none."""
        return ipaddress.ip_address(self.interface).is_unspecified


def _escaped(text: str) -> str | None:
    """The text as it must be written, where its interface is an IPv6 address with bare colons."""
    start, key, address = text.partition(":interface=")
    try:
        ipaddress.IPv6Address(address.strip("[]"))
    except ValueError:
        return None
    return f"{start}{key}" + address.strip("[]").replace(":", "\\:")


def parse_protocol_id(text: str) -> int:
    """A protocol id, ``0x`` and hex digits or a decimal number.

    Raises:
        ValueError: it is none of 64 bits.
    """
    try:
        value = int(text, 0) if text.isascii() and text.isalnum() else -1
    except ValueError:
        value = -1
    if not 0 <= value < 2**64:
        raise ValueError("must be a number of up to 64 bits, such as 0x1122334455667788")
    return value
