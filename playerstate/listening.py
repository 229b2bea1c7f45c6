r"""Parses where a server listens, and its protocol id, as given on the command line.

``udp:PORT:interface=ADDRESS`` is the plain transport, ``netcode:PORT:interface=ADDRESS`` the
netcode transport, and ``tcp:PORT:interface=ADDRESS`` the web endpoint; a colon inside an address is
written ``\:``.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

import attrs

SCHEMES = ("udp", "netcode")
"""Where players' moves come in."""
WEB_SCHEMES = ("tcp",)
"""Where the web endpoint listens."""
LOOPBACK = "127.0.0.1"


@attrs.frozen
class Listen:
    """One port and interface to listen on.

    Attributes:
        scheme: ``udp`` or ``netcode``; ``tcp`` for the web endpoint.
        port: the port number; 0 for any free one.
        interface: an IP address of this machine, or the wildcard address.
    """

    scheme: str
    port: int
    interface: str = LOOPBACK

    @classmethod
    def parse(cls, text: str, schemes: Sequence[str] = SCHEMES) -> Listen:
        """Parse the text.

        Args:
            text: as given.
            schemes: those that are allowed.

        Raises:
            ValueError: the text is wrong; the message says what is allowed.
        """
        if remedy := _escaped(text):
            raise ValueError(f"the colons of an IPv6 address are written \\:, so write {remedy}")
        form = " or ".join(f"{scheme}:PORT:interface=ADDRESS" for scheme in schemes)
        scheme, *parts = (part.replace("\\:", ":") for part in re.split(r"(?<!\\):", text))
        if scheme not in schemes:
            raise ValueError(f"must be {form}")
        port = parts[0] if parts else ""
        if not (port.isascii() and port.isdigit() and int(port) < 65_536):
            raise ValueError("the port must be a whole number from 0 to 65535")
        interface = LOOPBACK
        for part in parts[1:]:
            key, _, value = part.partition("=")
            if key != "interface":
                raise ValueError(f"unknown part {part!r}; must be {form}")
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
        """Whether only this machine can reach the interface."""
        return ipaddress.ip_address(self.interface).is_loopback

    @property
    def is_wildcard(self) -> bool:
        """Whether the interface is the wildcard address, which names no single one."""
        return ipaddress.ip_address(self.interface).is_unspecified


def _escaped(text: str) -> str | None:
    """The text with the bare colons of an IPv6 interface escaped; None if it has none."""
    start, key, address = text.partition(":interface=")
    try:
        ipaddress.IPv6Address(address.strip("[]"))
    except ValueError:
        return None
    return f"{start}{key}" + address.strip("[]").replace(":", "\\:")


def parse_protocol_id(text: str) -> int:
    """A protocol id, ``0x`` and hex digits or a decimal number.

    Raises:
        ValueError: the text is not a number of up to 64 bits.
    """
    try:
        value = int(text, 0) if text.isascii() and text.isalnum() else -1
    except ValueError:
        value = -1
    if not 0 <= value < 2**64:
        raise ValueError("must be a number of up to 64 bits, such as 0x1122334455667788")
    return value
