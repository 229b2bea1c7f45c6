"""What a netcode server says has happened to its clients.

Payloads are no events: they come by the hundred thousand a second, where an object each is felt.
`Server.payloads` gives them as two lists side by side, two appends a packet.
"""

from __future__ import annotations

import attrs

from playerstate.transports.netcode.connections import Connection


@attrs.frozen
class Connected:
    """A client is in."""

    connection: Connection


@attrs.frozen
class Replaced:
    """A client is in on another connection, and this one is heard no more.

    It may still be sent to, and be told why, until it is ended by `Server.disconnect`.
    """

    connection: Connection


@attrs.frozen
class Disconnected:
    """A client said that it goes; nothing can be sent to it any more."""

    connection: Connection


@attrs.frozen
class TimedOut:
    """A client fell silent, or another has its port; nothing can be sent to it any more."""

    connection: Connection


Event = Connected | Replaced | Disconnected | TimedOut
