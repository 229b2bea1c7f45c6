"""Why a server refused a player or ended the conversation, as text."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from playerstate.client import SentAway
from playerstate.wire.messages import Gone, GoneReason, Refused, RefusedReason


class SentAwayTests(SynchronousTestCase):
    """The text of a `SentAway`."""

    def test_text(self) -> None:
        """It names the reason, and gives the number of one that this client does not know."""
        for answer, text in (
            (Refused(1, RefusedReason.FULL), "refused: the server is full"),
            (Refused(1, 99), "refused: reason 99"),
            (
                Gone(1, GoneReason.KICKED),
                "sent away: kicked, or no longer known to the server",
            ),
            (Gone(1, 99), "sent away: reason 99"),
        ):
            error = SentAway(answer)
            self.assertEqual((str(error), error.answer), (text, answer))

    def test_every_reason(self) -> None:
        """Every reason of the protocol has a text of its own."""
        texts = [str(SentAway(Refused(1, reason))) for reason in RefusedReason]
        texts += [str(SentAway(Gone(1, reason))) for reason in GoneReason]
        self.assertEqual(len(set(texts)), len(texts))
        self.assertEqual([text for text in texts if ": reason" in text], [])
