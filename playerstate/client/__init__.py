"""The client library, to use or to port.

`PlayerClient` is one player on a Twisted reactor, over plain UDP or netcode.  It consists of a
`Client`, the conversation without a socket and without a clock, and a `Link`, which carries its
messages; a program with its own loop needs only the `Client`.  `Codec` and `DeltaCodec` encode and
decode the messages.
"""

from playerstate.client.core import (
    MOVE_EVERY,
    PING_AFTER,
    RECEIPT_WITHIN,
    REPEAT_EVERY,
    Client,
    Phase,
)
from playerstate.client.link import Link
from playerstate.client.netcode import Netcode, NetcodeLink
from playerstate.client.plain import Plain, PlainLink, PlainPort
from playerstate.client.player import NotPlaying, PlayerClient, Progress, Route
from playerstate.client.reasons import SentAway
from playerstate.wire.deltas import Delta, DeltaCodec
from playerstate.wire.messages import (
    Codec,
    Gone,
    GoneReason,
    Malformed,
    Receipt,
    Refused,
    RefusedReason,
    Seen,
    State,
    Welcome,
)

__all__ = [
    "MOVE_EVERY",
    "PING_AFTER",
    "RECEIPT_WITHIN",
    "REPEAT_EVERY",
    "Client",
    "Codec",
    "Delta",
    "DeltaCodec",
    "Gone",
    "GoneReason",
    "Link",
    "Malformed",
    "Netcode",
    "NetcodeLink",
    "NotPlaying",
    "Phase",
    "Plain",
    "PlainLink",
    "PlainPort",
    "PlayerClient",
    "Progress",
    "Receipt",
    "Refused",
    "RefusedReason",
    "Route",
    "Seen",
    "SentAway",
    "State",
    "Welcome",
]
