"""When a link notifies its owner: in a consistent state, and of events from outside only."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.trial.unittest import SynchronousTestCase

from playerstate import PlayerState, StateSchema
from playerstate.client import Client, Netcode, Phase, Plain
from playerstate.testing import MemoryReactor


class NotifyTests(SynchronousTestCase):
    """The owner may call the link whenever it is notified."""

    def setUp(self) -> None:
        """A player who joins."""
        self.reactor = MemoryReactor()
        self.client = Client.of(StateSchema.of(PlayerState), lambda: 1)
        self.client.join(0.0)
        self.phases: list[Phase] = []

    def open(self, route: Any) -> Any:
        """An open link by this route."""
        link = route.link(self.client, self.reactor, self.reactor.seconds)
        link.notify = lambda: self.phases.append(self.client.phase)
        link.open(0.0)
        return link

    def test_own_call(self) -> None:
        """The link does not notify its owner of a failure in the owner's own call."""

        def refuse(*given: Any) -> None:
            raise CannotListenError("0.0.0.0", 0, OSError(24, "Too many open files"))

        self.patch(self.reactor, "listenUDP", refuse)
        for route in (Plain(("127.0.0.1", 7777), 42), Netcode(lambda: b"no token")):
            self.client.join(0.0)
            link = self.open(route)
            self.assertIs(self.client.phase, Phase.GONE)
            self.assertIsNotNone(link.trouble)
        self.assertEqual(self.phases, [])

    def test_later(self) -> None:
        """The owner is notified of a failed token request, once, and may open the link again."""
        asked: list[Deferred[bytes]] = []

        def get_token() -> Deferred[bytes]:
            asked.append(Deferred())
            return asked[-1]

        link = self.open(Netcode(get_token))

        def open_again() -> None:
            self.phases.append(self.client.phase)
            link.close(0.0)
            self.client.join(0.0)
            link.open(0.0)

        link.notify = open_again
        asked[0].errback(ZeroDivisionError())
        self.assertEqual(self.phases, [Phase.GONE])
        self.assertEqual((len(asked), asked[1].called), (2, False))
        self.assertIsNone(link.trouble)

    def test_taken_back(self) -> None:
        """The owner is not notified of a token request that was cancelled."""
        asked: Deferred[bytes] = Deferred()
        link = self.open(Netcode(lambda: asked))
        link.close(0.0)
        self.assertTrue(asked.called)
        self.assertEqual(self.phases, [])
