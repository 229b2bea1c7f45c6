"""The registry: phases, and where a conversation is found in each of them."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from playerstate.conversations.conversation import Conversation, Phase
from playerstate.conversations.receipts import Receipts
from playerstate.conversations.registry import ENDED_FOR, Registry
from playerstate.conversations.silence import Silence
from playerstate.conversations.states import States
from playerstate.testing import SteppedService
from playerstate.wire.messages import Codec, GoneReason
from tests.kit.support import LAW
from tests.unit.conversations.test_conversation import Wire

MOST_DEPARTED = 2


def make() -> Registry:
    """A registry of the slots of a table that nobody is in."""
    service = SteppedService(max_players=8).service
    seconds = service.clock.seconds
    codec = Codec(service.schema)
    receipts = Receipts(
        *(service.schema, codec.state_costs, service.table, service.ledger, seconds, lambda: 0.0)
    )
    states = States(codec, service.table, receipts, service.ledger, seconds)
    silence = Silence(service.table, seconds, 30.0)
    return Registry(service.table, receipts, states, silence, MOST_DEPARTED)


class RegistryTests(SynchronousTestCase):
    """A player's conversation from its JOIN on."""

    def setUp(self) -> None:
        """One that waits for the store."""
        self.registry = make()
        self.wire = Wire()
        self.talk = self.joining(42)

    def joining(self, session_id: int) -> Conversation:
        """A conversation that is JOINING."""
        talk = Conversation(session_id, self.wire, "here", 7, 0)
        self.registry.wait(talk)
        return talk

    def playing(self, session_id: int, slot: int) -> Conversation:
        """A conversation that is PLAYING."""
        talk = self.joining(session_id)
        self.registry.begin(talk, slot, 99)
        return talk

    def test_a_life(self) -> None:
        """From JOIN to the end of lingering it is found where its phase says, and nowhere else."""
        registry, talk = self.registry, self.talk
        self.assertEqual(registry.joining, {42: talk})
        registry.begin(talk, 3, 99)
        self.assertEqual((talk.phase, talk.slot, talk.secret), (Phase.PLAYING, 3, 99))
        self.assertEqual((registry.joining, registry.current), ({}, {42: talk}))
        self.assertEqual(registry.at_slot, {3: talk})
        registry.leave(talk)
        self.assertIs(talk.phase, Phase.LEAVING)
        self.assertEqual(registry.current, {42: talk})
        registry.depart(talk, b"saved", 5.0)
        self.assertIs(talk.phase, Phase.DEPARTED)
        self.assertEqual((registry.current, registry.at_slot), ({}, {}))
        registry.forget(4.9)
        self.assertEqual(registry.departed, {42: talk})
        registry.forget(5.0)
        self.assertEqual((registry.departed, talk.phase), ({}, Phase.OVER))
        self.assertEqual(self.wire.told, [])

    def test_end_while_waiting(self) -> None:
        """What it waited for is let go of, and the player is told if there is a reason."""
        joined = Deferred[Any]()
        self.talk.wait_for(joined)
        self.registry.end(self.talk, GoneReason.KICKED)
        self.failureResultOf(joined, CancelledError)
        self.assertEqual(self.registry.joining, {})
        self.assertEqual(len(self.wire.told), 2)

    def test_joins_again(self) -> None:
        """One that has departed is over when the next of that player begins, and not before."""
        registry = self.registry
        registry.begin(self.talk, 0, 99)
        registry.leave(self.talk)
        registry.depart(self.talk, b"saved", 5.0)
        again = self.joining(42)
        self.assertIs(self.talk.phase, Phase.DEPARTED)
        registry.begin(again, 0, 98)
        self.assertIs(self.talk.phase, Phase.OVER)
        self.assertEqual(registry.departed, {})

    def test_departed_are_bounded(self) -> None:
        """Invariant 11: of those who left, the last are remembered."""
        talks = [self.playing(session_id, session_id) for session_id in range(1, 5)]
        for talk in talks:
            self.registry.leave(talk)
            self.registry.depart(talk, b"saved", 5.0)
        self.assertEqual(list(self.registry.departed), [3, 4])
        self.assertEqual([talk.phase for talk in talks[:2]], [Phase.OVER] * 2)

    def test_ended_are_bounded(self) -> None:
        """Invariant 11: of ended conversations too, and for a while."""
        for session_id in range(1, 5):
            self.registry.end(self.playing(session_id, session_id))
        self.assertEqual(list(self.registry.ended), [3, 4])
        self.playing(3, 0)
        self.assertEqual(list(self.registry.ended), [4])
        self.registry.forget(self.registry.silence.now + ENDED_FOR)
        self.assertEqual(self.registry.ended, {})


class Phases(RuleBasedStateMachine):
    """Random histories of a few players; each conversation is where its phase says."""

    PLAYERS = st.integers(1, 4)

    def __init__(self) -> None:
        super().__init__()
        self.registry = make()
        self.all: list[Conversation] = []

    def one(self, session_id: int, *phases: Phase) -> Conversation | None:
        """The player's conversation in one of these phases."""
        return next((t for t in self.all if t.session_id == session_id and t.phase in phases), None)

    @rule(session_id=PLAYERS)
    def join(self, session_id: int) -> None:
        """A JOIN waits, as it only does for a player who is not there."""
        if self.one(session_id, Phase.JOINING, Phase.PLAYING, Phase.LEAVING) is None:
            self.all.append(Conversation(session_id, Wire(), "here", 7, 0))
            self.registry.wait(self.all[-1])

    @rule(session_id=PLAYERS)
    def begin(self, session_id: int) -> None:
        """The store has answered."""
        if (talk := self.one(session_id, Phase.JOINING)) is not None:
            self.registry.begin(talk, session_id, 99)

    @rule(session_id=PLAYERS)
    def leave(self, session_id: int) -> None:
        """A LEAVE comes."""
        if (talk := self.one(session_id, Phase.PLAYING)) is not None:
            self.registry.leave(talk)

    @rule(session_id=PLAYERS)
    def depart(self, session_id: int) -> None:
        """A leave is saved."""
        if (talk := self.one(session_id, Phase.LEAVING)) is not None:
            self.registry.depart(talk, b"saved", 5.0)

    @rule(session_id=PLAYERS, phase=st.sampled_from(list(Phase)[:-1]))
    def end(self, session_id: int, phase: Phase) -> None:
        """It ends, whatever it was about."""
        if (talk := self.one(session_id, phase)) is not None:
            self.registry.end(talk)

    @invariant()
    def found_by_phase(self) -> None:
        """Each index holds those of its phases, and no others."""
        registry = self.registry
        found = {
            Phase.JOINING: list(registry.joining.values()),
            Phase.PLAYING: [t for t in registry.current.values() if t.phase is Phase.PLAYING],
            Phase.LEAVING: [t for t in registry.current.values() if t.phase is Phase.LEAVING],
            Phase.DEPARTED: list(registry.departed.values()),
        }
        for phase, talks in found.items():
            assert set(map(id, talks)) == {id(t) for t in self.all if t.phase is phase}, phase
        assert sum(map(len, (found[Phase.PLAYING], found[Phase.LEAVING]))) == len(registry.current)
        assert registry.at_slot == {talk.slot: talk for talk in registry.current.values()}
        assert len(registry.departed) <= MOST_DEPARTED


class PhasesTests(SynchronousTestCase):
    """Whatever happens in whatever order."""

    def test_histories(self) -> None:
        """A conversation is found where its phase says."""
        run_state_machine_as_test(Phases, settings=settings(LAW, max_examples=60))
