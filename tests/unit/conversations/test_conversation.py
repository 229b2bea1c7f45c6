"""One conversation by itself: where it is, what it has no business with, what it waits for."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from playerstate.conversations.conversation import Conversation, Phase
from playerstate.ledger import Outcome
from playerstate.wire.messages import GoneReason, encode_gone


class Wire:
    """A transport that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def send(self, session_id: int, peer: Any, nonce: int, message: bytes) -> None:
        """Keep a message."""
        self.told.append((session_id, peer, nonce, message))

    def end(self, session_id: int, peer: Any) -> None:
        """Keep who is to be let go of."""
        self.told.append((session_id, peer))


class ConversationTests(SynchronousTestCase):
    """The conversation of player 42 at a peer, of nonce 7."""

    def setUp(self) -> None:
        """It begins by waiting for its JOIN."""
        self.wire = Wire()
        self.talk = Conversation(42, self.wire, "here", 7, 0)

    def test_begins_joining(self) -> None:
        """It has no slot, and takes in any number, until the registry says otherwise."""
        self.assertIs(self.talk.phase, Phase.JOINING)
        self.assertEqual((self.talk.slot, self.talk.last_accepted), (-1, 2**32 - 1))

    def test_is_at(self) -> None:
        """A peer is one of its own transport only."""
        self.assertTrue(self.talk.is_at(self.wire, "here"))
        self.assertFalse(self.talk.is_at(self.wire, "there"))
        self.assertFalse(self.talk.is_at(Wire(), "here"))

    def test_rejects(self) -> None:
        """The address is looked at first, then the nonce, where there is one."""
        rejects = self.talk.rejects
        self.assertEqual((rejects("here", 7), rejects("here", None)), (None, None))
        self.assertIs(rejects("here", 8), Outcome.OTHER_CONVERSATION)
        self.assertIs(rejects("there", 8), Outcome.OTHER_ADDRESS)

    def test_bases(self) -> None:
        """The last two are kept, and the newest is not replaced by itself."""
        for sequence, fields in ((1, b"a"), (2, b"b"), (2, b"c"), (3, b"d")):
            self.talk.keep_base(sequence, fields)
        found = [self.talk.find_base(sequence) for sequence in (1, 2, 3, 2**32 + 3)]
        self.assertEqual(found, [None, b"b", b"d", b"d"])

    def test_send_gone(self) -> None:
        """The player is told first, then the transport."""
        self.talk.send_gone(GoneReason.IDLE)
        gone = encode_gone(7, GoneReason.IDLE)
        self.assertEqual(self.wire.told, [(42, "here", 7, gone), (42, "here")])

    def test_waits_for_one_thing(self) -> None:
        """Whoever waits anew waits no more for what was before; what has come is not waited for."""
        first, second = Deferred[None](), Deferred[None]()
        self.talk.wait_for(first)
        self.talk.wait_for(second)
        self.failureResultOf(first, CancelledError)
        self.assertNoResult(second)
        self.talk.wait_for(succeed(None))
        self.failureResultOf(second, CancelledError)
        self.assertIs(self.talk.waits_for, None)
        self.talk.wait_no_more()
