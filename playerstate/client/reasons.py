"""The reasons of REFUSED and GONE, as text."""

from __future__ import annotations

from playerstate.wire.messages import Gone, GoneReason, Refused, RefusedReason

_REFUSED: dict[int, str] = {
    RefusedReason.FULL: "the server is full",
    RefusedReason.VERSION: "the server speaks another version of the protocol",
    RefusedReason.FINGERPRINT: "the server has another state class",
    RefusedReason.SHUTTING_DOWN: "the server is shutting down",
    RefusedReason.STORE: "the server's store cannot load now",
}
_GONE: dict[int, str] = {
    GoneReason.KICKED: "kicked, or no longer known to the server",
    GoneReason.IDLE: "no message arrived for too long",
    GoneReason.JOINED_ELSEWHERE: "the same session id joined from elsewhere",
    GoneReason.SHUTTING_DOWN: "the server is shutting down",
}


class SentAway(Exception):
    """The server refused a player or ended the conversation; the message says why.

    Attributes:
        answer: the server's message.
    """

    def __init__(self, answer: Refused | Gone) -> None:
        self.answer = answer
        if isinstance(answer, Refused):
            what, reasons = "refused", _REFUSED
        else:
            what, reasons = "sent away", _GONE
        super().__init__(f"{what}: {reasons.get(answer.reason, f'reason {answer.reason}')}")
