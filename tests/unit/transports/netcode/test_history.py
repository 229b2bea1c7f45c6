"""The history of connect tokens: pending, consumed, expired, forgotten."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from playerstate.transports.netcode.history import TokenHistory
from playerstate.transports.netcode.packets import Ignored


class HistoryTests(SynchronousTestCase):
    """Which requests a history admits."""

    def admit(self, history: TokenHistory, tag: bytes, **given: object) -> str:
        """Show a token to the history; why it is refused, or nothing."""
        arguments = {"expires_at": 100, "source": "here", "unix_now": 50.0} | given
        try:
            history.admit(tag, **arguments)  # type: ignore[arg-type]
        except Ignored as ignored:
            return ignored.reason
        return ""

    def test_pending(self) -> None:
        """A pending token is admitted again from the source that showed it first, and no other."""
        history = TokenHistory(4)
        for source, reason in (
            ("here", ""),
            ("here", ""),
            ("there", "token_pending_elsewhere"),
            ("here", ""),
        ):
            self.assertEqual(self.admit(history, b"A", source=source), reason)

    def test_consumed(self) -> None:
        """A consumed token is refused, from every source."""
        history = TokenHistory(4)
        self.admit(history, b"A")
        history.consume(b"A")
        for source in ("here", "there"):
            self.assertEqual(self.admit(history, b"A", source=source), "token_consumed")

    def test_full(self) -> None:
        """A full history refuses new tokens and still knows its own; it forgets no live one.

        So it does if it keeps fewer than its size beyond their expiry.
        """
        for remembered in (1, 2):
            history = TokenHistory(2, remembered=remembered)
            for tag in (b"A", b"B"):
                self.assertEqual(self.admit(history, tag), "")
            history.consume(b"A")
            for tag in (b"C", b"D"):
                self.assertEqual(self.admit(history, tag), "token_history_full")
            self.assertEqual(self.admit(history, b"A"), "token_consumed")
            self.assertEqual(self.admit(history, b"B"), "")

    def test_expiry(self) -> None:
        """A full history makes room by tokens that have expired, to the second; others stay."""
        history = TokenHistory(2)
        self.admit(history, b"A", expires_at=60)
        self.admit(history, b"B", expires_at=70)
        self.assertEqual(self.admit(history, b"C", unix_now=59.9), "token_history_full")
        self.assertEqual(self.admit(history, b"C", unix_now=60.0), "")
        self.assertEqual(len(history), 2)
        history.consume(b"A")
        self.assertEqual(self.admit(history, b"B", unix_now=60.0), "")

    def test_room_down_to_the_remembered(self) -> None:
        """Once its tokens have expired, a history shrinks to the number that it remembers."""
        history = TokenHistory(4, remembered=2)
        for tag in (b"A", b"B", b"C", b"D"):
            self.assertEqual(self.admit(history, tag, expires_at=60), "")
        self.assertEqual(self.admit(history, b"E", unix_now=61.0), "")
        self.assertEqual(len(history), 2)

    def test_remembered(self) -> None:
        """Expired tokens stay known while there is room, even if the clock is set back."""
        history = TokenHistory(4, remembered=2)
        self.assertEqual(self.admit(history, b"A", expires_at=30, unix_now=0.0), "")
        history.consume(b"A")
        self.assertEqual(self.admit(history, b"B", expires_at=40, unix_now=35.0), "")
        self.assertEqual(self.admit(history, b"A", expires_at=30, unix_now=10.0), "token_consumed")

    def test_forgotten(self) -> None:
        """An unknown token is refused if it expires no later than the last that was forgotten."""
        history = TokenHistory(4, remembered=2)
        for tag, expires_at in ((b"A", 30), (b"B", 32)):
            self.assertEqual(self.admit(history, tag, expires_at=expires_at, unix_now=0.0), "")
        self.assertEqual(self.admit(history, b"C", expires_at=60, unix_now=31.0), "")
        self.assertEqual(len(history), 2)
        for tag, expires_at, reason in (
            (b"A", 30, "token_forgotten"),
            (b"D", 29, "token_forgotten"),
            (b"D", 30, "token_forgotten"),
            (b"B", 32, ""),
            (b"D", 31, ""),
        ):
            found = self.admit(history, tag, expires_at=expires_at, unix_now=10.0)
            self.assertEqual(found, reason, (tag, expires_at))

    def test_numbers(self) -> None:
        """Each new token gets a higher number, and keeps it."""
        history = TokenHistory(4)
        numbers = [history.admit(tag, 30, "here", 0.0) for tag in (b"a", b"b", b"a", b"c")]
        self.assertEqual(numbers, [1, 2, 1, 3])
