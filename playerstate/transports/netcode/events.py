"""The events of a netcode server's clients.

Payloads are no events: at a hundred thousand a second, an object for each would cost too much.
`Server.payloads` returns them as two parallel lists, two appends a packet.
"""

from __future__ import annotations

import attrs

from playerstate.transports.netcode.connections import Connection


@attrs.frozen
class Connected:
    """A client connected."""

    connection: Connection


@attrs.frozen
class Replaced:
    """The client connected on another connection; packets from this one are no longer accepted.

    The server can still send to it, to give the reason, until `Server.disconnect` ends it.
    """

    connection: Connection


@attrs.frozen
class Disconnected:
    """A client disconnected; nothing can be sent to it any more."""

    connection: Connection


@attrs.frozen
class TimedOut:
    """A client timed out, or another client has its port; nothing can be sent to it any more."""

    connection: Connection


Event = Connected | Replaced | Disconnected | TimedOut
