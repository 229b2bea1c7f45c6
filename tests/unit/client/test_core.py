"""A player's side of the conversation, without a socket and without a clock."""

from __future__ import annotations

import itertools
import math

import attrs
from twisted.trial.unittest import SynchronousTestCase

from playerstate import PlayerState, StateSchema, server_owned, within
from playerstate.client import PING_AFTER, RECEIPT_WITHIN, REPEAT_EVERY, Client, Phase
from playerstate.client.core import MOVES_REMEMBERED, RENUMBER_ABOVE, STATES_REMEMBERED
from playerstate.wire.deltas import DeltaCodec
from playerstate.wire.messages import (
    DELTA,
    MOVE,
    Codec,
    Gone,
    GoneReason,
    Join,
    Malformed,
    RefusedReason,
    Seen,
    encode_gone,
    encode_receipt,
    encode_refused,
    encode_state,
)
from tests.kit.support import field, made
from tests.kit.wire import ClientCodec, Leave, Move, Ping

HERE, THERE = (1.0, 2.0), (3.0, 4.0)
STALE_NONCE = 99


@attrs.frozen
class Fighter:
    """A state of which the client owns where it is."""

    hp: int = attrs.field(default=100, metadata=server_owned())
    x: float = attrs.field(default=1.0, metadata=within(resolution=0.5))


class ClientTestCase(SynchronousTestCase):
    """One client whose nonces are 1, 2, 3 and so on."""

    def setUp(self) -> None:
        """A client that has done nothing yet."""
        self.schema = StateSchema.of(PlayerState)
        self.codec = ClientCodec(self.schema)
        self.client = Client(self.codec, itertools.count(1).__next__)

    def due(self, now: float) -> list[Join | Move | Leave | Ping]:
        """What the client has to send."""
        return [self.codec.decode_client(message) for message in self.client.due(now)]

    def join_of(self, nonce: int, sequence: int = 0) -> Join:
        """The JOIN that the client should send."""
        return Join(1, self.schema.fingerprint, nonce, sequence, self.codec.join_size)

    def welcome(self, now: float, nonce: int = 1, updated_at: int = 5) -> None:
        """The server welcomes the client with the state `HERE`."""
        self.client.received(self.codec.encode_welcome(nonce, updated_at, HERE), now)

    def receipt(self, applied: int, saved: int, now: float) -> None:
        """The server tells how far it is."""
        self.client.received(encode_receipt(applied, saved), now)

    def go_online(self, now: float = 0.0) -> None:
        """The client joins and is welcomed."""
        self.client.join(now)
        self.client.due(now)
        self.welcome(now)


class StateTests(ClientTestCase):
    """STATEs, which say what the program around the server set."""

    def state(self, number: int, now: float, is_override: bool = True) -> None:
        """The program sets `THERE`."""
        fields = self.schema.struct.pack(*THERE)
        self.client.received(encode_state(is_override, number, fields), now)

    def test_goes_on_from_there(self) -> None:
        """The client has the new state, and answers at once with its highest number."""
        self.go_online()
        self.client.move((5.0, 5.0), 0.1)
        self.state(77, 0.2)
        self.assertEqual((self.client.values, self.client.sequence), (THERE, 1))
        self.assertEqual((self.client.changes, self.client.overrides), (1, 1))
        self.assertEqual(self.client.wake_at, 0.2)
        self.assertEqual(self.due(0.2), [Seen(77, 1)])
        self.assertEqual(self.due(0.21), [])
        self.assertEqual(
            self.codec.decode_client(self.client.move((6.0, 6.0), 0.3) or b""), Move(2, (6.0, 6.0))
        )

    def test_repeated(self) -> None:
        """A STATE that comes again is answered again, by the number of the first time."""
        self.go_online()
        self.client.move((5.0, 5.0), 0.1)
        self.state(77, 0.2)
        self.due(0.2)
        self.client.move((6.0, 6.0), 0.3)
        self.state(77, 0.4)
        self.assertEqual(self.due(0.4), [Seen(77, 1)])
        self.assertEqual((self.client.values, self.client.changes), ((6.0, 6.0), 1))

    def test_overtaken(self) -> None:
        """An older one that comes late is neither taken nor answered."""
        self.go_online()
        self.state(78, 0.2)
        self.due(0.2)
        self.client.move((6.0, 6.0), 0.3)
        self.state(77, 0.4)
        self.assertEqual(self.due(0.4), [])
        self.assertEqual(self.client.values, (6.0, 6.0))

    def test_before_the_welcome(self) -> None:
        """One that overtakes the WELCOME is not taken: it comes again."""
        self.client.join(0.0)
        self.client.due(0.0)
        self.state(77, 0.1)
        self.assertEqual(self.client.changes, 0)
        self.welcome(0.2)
        self.assertEqual(self.client.values, HERE)
        self.state(77, 0.3)
        self.assertEqual(self.due(0.3), [Seen(77, 0)])

    def test_of_the_server_alone(self) -> None:
        """Fields of the server's change alone; the client's stay as it moved them."""
        schema = StateSchema.of(Fighter)
        codec = ClientCodec(schema)
        client = Client(codec, itertools.count(1).__next__)
        client.join(0.0)
        client.due(0.0)
        client.received(codec.encode_welcome(1, 5, (100, 1.0)), 0.0)
        client.move((0, 2.0), 0.1)
        client.received(encode_state(False, 77, schema.struct.pack(50, 1.5)), 0.2)
        self.assertEqual(client.values, (50, 2.0))
        self.assertEqual((client.changes, client.overrides), (1, 0))
        client.received(encode_state(True, 78, schema.struct.pack(40, 1.5)), 0.3)
        self.assertEqual(client.values, (40, 1.5))

    def test_fresh_bases(self) -> None:
        """What was sent before is no base of a DELTA any more."""
        schema = StateSchema.of(Fighter)
        client = Client.of(schema, itertools.count(1).__next__)
        codec = Codec(schema)
        client.join(0.0)
        client.due(0.0)
        client.received(codec.encode_welcome(1, 5, (100, 1.0)), 0.0)
        client.move((0, 2.0), 0.1)
        client.received(encode_receipt(1, 0), 0.2)
        message = client.move((0, 2.5), 0.3)
        assert message is not None
        self.assertEqual(message[0], DELTA)
        client.received(encode_state(True, 77, schema.struct.pack(100, 1.5)), 0.4)
        client.received(encode_receipt(2, 0), 0.5)
        message = client.move((0, 2.0), 0.6)
        assert message is not None
        self.assertEqual(message[0], MOVE)

    def test_joins_again(self) -> None:
        """A STATE that was seen in the last conversation is answered, and moves nothing back."""
        self.go_online()
        self.state(77, 0.2)
        self.due(0.2)
        self.client.move((6.0, 6.0), 0.3)
        self.client.due(10.0)
        self.client.received(self.codec.encode_welcome(2, 77, THERE), 10.1)
        self.assertEqual(self.due(10.1), [Move(2, (6.0, 6.0)), Ping(2)])
        self.state(77, 10.2)
        self.assertEqual(self.due(10.2), [Seen(77, 1)])
        self.assertEqual(self.client.values, (6.0, 6.0))
        self.assertEqual(self.due(11.0), [Move(2, (6.0, 6.0)), Ping(2)])

    def test_joins_again_unseen(self) -> None:
        """One that it had not seen takes the place of what it sent again."""
        self.go_online()
        self.client.move(THERE, 0.1)
        self.client.move((6.0, 6.0), 0.3)
        self.client.due(10.0)
        self.client.received(self.codec.encode_welcome(2, 77, THERE), 10.1)
        self.assertEqual(self.due(10.1), [Move(3, (6.0, 6.0)), Ping(3)])
        self.state(77, 10.2)
        self.assertEqual(self.due(10.2), [Seen(77, 3)])
        self.assertEqual(self.client.values, THERE)

    def test_overridden_while_away(self) -> None:
        """A WELCOME may bring a place where the client was before: it is the program's word."""
        self.go_online()
        self.client.move(THERE, 0.1)
        self.client.rejoin(10.0)
        self.client.due(10.0)
        welcome = self.codec.encode_welcome(2, 77, HERE, is_override=True)
        self.client.received(welcome, 10.1)
        self.assertEqual((self.client.values, self.client.overruled), (HERE, 1))
        self.client.received(encode_state(True, 77, self.schema.struct.pack(*HERE)), 10.2)
        self.assertEqual(self.due(10.2), [Seen(77, 1)])
        self.assertEqual(self.client.changes, 0)

    def test_overridden_as_known(self) -> None:
        """One that the client has seen before it moved on does not move it back."""
        self.go_online()
        self.state(77, 0.2)
        self.client.move((6.0, 6.0), 0.3)
        self.client.rejoin(10.0)
        self.client.due(10.0)
        self.client.received(self.codec.encode_welcome(2, 77, THERE, is_override=True), 10.1)
        self.assertEqual((self.client.values, self.client.overruled), ((6.0, 6.0), 0))

    def test_clock_set_back(self) -> None:
        """A lower number in a later conversation is of a server whose clock was set back."""
        self.go_online()
        self.state(77, 0.2)
        self.client.rejoin(10.0)
        self.client.due(10.0)
        self.client.received(self.codec.encode_welcome(2, 7, HERE), 10.1)
        self.state(7, 10.2)
        self.assertEqual(self.client.values, THERE)
        self.assertIn(Seen(7, 0), self.due(10.2))

    def test_leaving(self) -> None:
        """A client that leaves answers too, and leaves once SEEN's number is applied."""
        self.go_online()
        self.client.move((5.0, 5.0), 0.1)
        self.client.leave(0.2)
        self.due(0.2)
        self.state(77, 0.3)
        self.assertIn(Seen(77, 1), self.due(0.3))
        self.receipt(1, 0, 0.4)
        self.assertEqual(self.due(0.4), [Leave(1)])


class JoiningTests(ClientTestCase):
    """From the first JOIN to its answer."""

    def test_joins_at_once(self) -> None:
        """After `join` a JOIN is due, long enough for its answer."""
        self.client.join(10.0)
        self.assertEqual(self.client.wake_at, 10.0)
        self.assertEqual(self.due(10.0), [self.join_of(1)])
        self.assertIs(self.client.phase, Phase.JOINING)

    def test_repeats_until_answered(self) -> None:
        """The same JOIN goes out again after a while, and not before."""
        self.client.join(0.0)
        self.client.due(0.0)
        self.assertEqual(self.due(REPEAT_EVERY - 0.01), [])
        self.assertEqual(self.due(REPEAT_EVERY), [self.join_of(1)])

    def test_welcome(self) -> None:
        """A WELCOME brings the player online, with the server's state."""
        self.client.join(0.0)
        self.client.due(0.0)
        self.welcome(0.25)
        self.assertIs(self.client.phase, Phase.ONLINE)
        self.assertEqual(self.client.values, HERE)
        assert self.client.welcome is not None
        self.assertTrue(self.client.welcome.restored)
        self.assertEqual(self.client.join_seconds, 0.25)

    def test_moves_while_joining(self) -> None:
        """The WELCOME's state replaces moves made before the first answer."""
        self.client.join(0.0)
        self.client.due(0.0)
        self.assertIsNone(self.client.move(THERE, 0.1))
        self.welcome(0.2)
        self.assertEqual(self.client.values, HERE)
        self.assertEqual((self.client.sequence, self.client.overruled), (0, 1))

    def test_woken(self) -> None:
        """A state that this client never sent is newer: the client adopts and counts it."""
        self.go_online()
        self.client.move(THERE, 0.1)
        self.client.due(10.0)
        self.client.move((7.0, 7.0), 10.1)
        self.client.received(self.codec.encode_welcome(2, 5, (5.0, 6.0)), 10.2)
        self.assertEqual(self.client.values, (5.0, 6.0))
        self.assertEqual(self.client.overruled, 1)
        self.assertEqual(self.due(10.2), [])

    def test_rejoins_where_it_was(self) -> None:
        """A server with a state that this client sent is sent the newest."""
        for state in (HERE, THERE):
            self.setUp()
            self.go_online()
            self.client.move(THERE, 0.1)
            self.client.move((7.0, 7.0), 0.2)
            self.client.due(10.0)
            self.client.received(self.codec.encode_welcome(2, 5, state), 10.2)
            self.assertEqual((self.client.values, self.client.overruled), ((7.0, 7.0), 0))
            self.assertEqual(self.due(10.2), [Move(3, (7.0, 7.0)), Ping(3)])

    def is_taken_over(self, nonce: int = 2) -> bool:
        """Whether the client adopts `HERE`, the server's state after a silence."""
        before = self.client.overruled
        self.client.due(10.0)
        self.welcome(10.2, nonce)
        return self.client.overruled > before

    def test_states_are_bounded(self) -> None:
        """What this client sent longer ago than can be unsaved is not known for its own."""
        for moves in (STATES_REMEMBERED - 1, STATES_REMEMBERED):
            self.setUp()
            self.go_online()
            for number in range(moves):
                self.client.move((float(number), 5.0), 0.1)
            self.assertEqual(self.is_taken_over(), moves == STATES_REMEMBERED)

    def test_states_are_bounded_when_numbered_again(self) -> None:
        """So it is once the numbers have begun at 1 again."""
        self.client = Client(self.codec, itertools.count(1).__next__, RENUMBER_ABOVE + 1)
        self.go_online()
        self.client.move(THERE, 0.1)
        self.assertFalse(self.is_taken_over())
        for number in range(STATES_REMEMBERED):
            self.client.move((float(number), 5.0), 10.3)
        self.client.due(20.0)
        self.welcome(20.2, nonce=3)
        self.assertEqual(self.client.overruled, 1)

    def test_states_before_the_saved_one(self) -> None:
        """A state before the one that is saved came from elsewhere, if the server has it again."""
        for saved in (0, 1):
            self.setUp()
            self.go_online()
            self.client.move(THERE, 0.1)
            self.receipt(1, saved, 0.2)
            self.client.move((7.0, 7.0), 0.3)
            self.assertEqual(self.is_taken_over(), saved == 1)

    def test_asks_to_be_moved(self) -> None:
        """A second of silence, and the JOIN goes out again, with the secret of the WELCOME."""
        self.client.join(0.0)
        self.client.due(0.0)
        self.client.received(self.codec.encode_welcome(1, 5, HERE, 77), 0.0)
        self.client.move(THERE, 0.1)
        self.assertNotIn(Join, map(type, self.due(1.0)))
        [join, *rest] = self.due(1.5)
        self.assertEqual(join, Join(1, self.schema.fingerprint, 1, 0, 248, 77))
        self.assertEqual(rest, [Move(1, THERE), Ping(1)])

    def test_tries_again(self) -> None:
        """After a temporary refusal it joins again, with growing backoff; if it leaves, it ends."""
        client = Client(self.codec, itertools.count(1).__next__, tries_again=True)
        client.join(0.0)
        waits, now = [], 0.0
        for nonce in range(1, 9):
            client.due(now)
            client.received(encode_refused(nonce, RefusedReason.STORE), now)
            self.assertIs(client.phase, Phase.JOINING)
            waits.append(client.wake_at - now)
            now = client.wake_at
        self.assertEqual(waits, [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 8.0])
        client.due(now)
        client.received(self.codec.encode_welcome(9, 5, HERE), now)
        client.received(encode_gone(9, GoneReason.SHUTTING_DOWN), now)
        self.assertEqual((client.phase, client.wake_at - now), (Phase.JOINING, 0.5))
        client.received(self.codec.encode_welcome(10, 5, HERE), now)
        client.received(encode_gone(10, GoneReason.IDLE), now)
        self.assertEqual((client.phase, client.wake_at - now), (Phase.JOINING, 0.5))
        client.leave(now)
        client.received(encode_refused(11, RefusedReason.SHUTTING_DOWN), now)
        self.assertIs(client.phase, Phase.GONE)

    def test_other_nonce(self) -> None:
        """Answers that bear another nonce are passed over."""
        self.client.join(0.0)
        self.welcome(0.1, STALE_NONCE)
        self.client.received(encode_refused(STALE_NONCE, RefusedReason.FULL), 0.1)
        self.client.received(encode_gone(STALE_NONCE, GoneReason.KICKED), 0.1)
        self.assertIs(self.client.phase, Phase.JOINING)

    def test_receipt_of_the_past(self) -> None:
        """A RECEIPT before the WELCOME belongs to an earlier conversation."""
        self.client.join(0.0)
        self.receipt(7, 7, 0.1)
        self.assertEqual((self.client.applied, self.client.receipts), (0, 0))

    def test_refused(self) -> None:
        """A REFUSED ends it, and says why."""
        self.client.join(0.0)
        self.client.received(encode_refused(1, RefusedReason.FULL), 0.1)
        self.assertIs(self.client.phase, Phase.GONE)
        assert self.client.ended_by is not None
        self.assertEqual(self.client.ended_by.reason, RefusedReason.FULL)
        self.assertEqual(self.due(100.0), [])

    def test_malformed(self) -> None:
        """Bytes that are no message raise, and change nothing."""
        self.client.join(0.0)
        with self.assertRaises(Malformed):
            self.client.received(b"\x80", 0.1)
        self.assertIs(self.client.phase, Phase.JOINING)


class OnlineTests(ClientTestCase):
    """Moves, receipts and silence."""

    def setUp(self) -> None:
        """A client that is online since second 0."""
        super().setUp()
        self.go_online()

    def test_moves_are_numbered(self) -> None:
        """Each MOVE has a number above the last."""
        moves = [self.client.move(HERE, 0.1), self.client.move(THERE, 0.2)]
        self.assertEqual(
            [self.codec.decode_client(move) for move in moves], [Move(1, HERE), Move(2, THERE)]
        )
        self.assertEqual(self.client.values, THERE)

    def test_receipts(self) -> None:
        """A RECEIPT raises what is applied and saved; a late one lowers neither."""
        for _ in range(3):
            self.client.move(HERE, 0.1)
        self.receipt(3, 2, 0.2)
        self.receipt(2, 1, 0.3)
        self.assertEqual((self.client.applied, self.client.saved), (3, 2))
        self.assertEqual(self.client.receipts, 2)

    def test_second_welcome(self) -> None:
        """The answer to a repeated JOIN changes nothing for a player online."""
        self.client.move(THERE, 0.1)
        self.welcome(0.2)
        self.assertEqual(self.client.values, THERE)

    def test_last_move_is_repeated(self) -> None:
        """The last MOVE is repeated with the same number until it is applied."""
        self.client.move(THERE, 0.1)
        self.assertEqual(self.due(0.55), [])
        self.assertEqual(self.due(1.06), [Move(1, THERE), Ping(1)])
        self.receipt(1, 0, 1.2)
        self.assertEqual(self.due(2.0), [])

    def test_ping(self) -> None:
        """A client that has sent nothing for a while sends a PING."""
        self.assertEqual(self.due(PING_AFTER - 0.1), [])
        self.assertEqual(self.due(PING_AFTER + REPEAT_EVERY), [Ping(0)])

    def test_joins_again(self) -> None:
        """Without a RECEIPT for its move it joins again, with another nonce and the last number."""
        self.client.move(HERE, 0.1)
        self.client.move(THERE, 1.0)
        self.assertNotIn(self.join_of(2, 2), self.due(RECEIPT_WITHIN))
        self.assertEqual(self.due(RECEIPT_WITHIN + 1.0), [self.join_of(2, 2)])
        self.assertIs(self.client.phase, Phase.JOINING)

    def test_receipt_puts_joining_again_off(self) -> None:
        """The wait for a RECEIPT begins with the first MOVE after the last one."""
        self.client.move(HERE, 0.1)
        self.receipt(1, 0, 2.0)
        self.client.move(THERE, 2.5)
        self.assertNotIn(self.join_of(2, 2), self.due(5.0))
        self.assertEqual(self.due(6.0), [self.join_of(2, 2)])

    def test_plays_on_after_joining_again(self) -> None:
        """The player stands where the player says: the last values go out under a new number."""
        self.client.move(THERE, 0.1)
        self.client.due(4.0)
        self.welcome(4.1, nonce=2)
        self.assertEqual(self.client.values, THERE)
        self.assertEqual(self.due(4.1), [Move(2, THERE), Ping(2)])

    def test_unmoved_after_joining_again(self) -> None:
        """A client that joins again without having moved adopts the server's state."""
        self.client.due(PING_AFTER)
        self.assertEqual(self.due(PING_AFTER + RECEIPT_WITHIN), [self.join_of(2)])
        self.client.received(self.codec.encode_welcome(2, 5, THERE), 9.0)
        self.assertEqual(self.client.values, THERE)
        self.assertEqual(self.due(9.0), [])

    def test_gone(self) -> None:
        """A GONE ends it, and says why."""
        self.client.received(encode_gone(1, GoneReason.IDLE), 0.1)
        self.assertIs(self.client.phase, Phase.GONE)
        self.assertEqual(self.client.ended_by, Gone(1, GoneReason.IDLE))
        self.assertEqual(self.client.wake_at, math.inf)

    def test_refused_too_late(self) -> None:
        """The refusal of a repeated JOIN does not end the conversation."""
        self.client.received(encode_refused(1, RefusedReason.SHUTTING_DOWN), 0.1)
        self.assertIs(self.client.phase, Phase.ONLINE)


class LeavingTests(ClientTestCase):
    """The last move is made sure of, then the LEAVE."""

    def setUp(self) -> None:
        """A client that is online since second 0, and has moved once."""
        super().setUp()
        self.go_online()
        self.client.move(THERE, 0.1)

    def test_last_move_first(self) -> None:
        """The LEAVE waits for the last MOVE, which is repeated until it is applied."""
        self.client.leave(1.0)
        self.assertIs(self.client.phase, Phase.LEAVING)
        self.assertEqual(self.due(1.0), [Move(1, THERE), Ping(1)])
        self.receipt(0, 0, 1.1)
        self.assertEqual(self.due(1.1), [])
        self.assertEqual(self.due(1.5), [Move(1, THERE), Ping(1)])
        self.receipt(1, 0, 1.6)
        self.assertEqual(self.due(1.6), [Leave(1)])

    def test_leave_is_repeated(self) -> None:
        """The LEAVE goes out again until everything is saved."""
        self.receipt(1, 0, 0.2)
        self.client.leave(1.0)
        self.assertEqual(self.due(1.0), [Leave(1)])
        self.receipt(1, 0, 1.1)
        self.assertEqual(self.due(1.5), [Leave(1)])
        self.receipt(1, 1, 1.75)
        self.assertIs(self.client.phase, Phase.GONE)
        self.assertIsNone(self.client.ended_by)
        self.assertEqual(self.client.leave_seconds, 0.75)

    def test_saved_already(self) -> None:
        """A player with nothing to save can leave."""
        self.receipt(1, 1, 0.2)
        self.client.leave(1.0)
        self.assertEqual(self.due(1.0), [Leave(1)])
        self.assertIs(self.client.phase, Phase.LEAVING)
        self.receipt(1, 1, 1.1)
        self.assertIs(self.client.phase, Phase.GONE)

    def test_server_forgot(self) -> None:
        """If the server no longer knows the player, it joins again, sends its state, and leaves."""
        self.receipt(1, 0, 0.2)
        self.client.leave(1.0)
        self.assertEqual(self.due(1.0), [Leave(1)])
        self.assertEqual(self.due(4.0), [self.join_of(2, 1)])
        self.welcome(4.1, nonce=2)
        self.assertIs(self.client.phase, Phase.LEAVING)
        self.assertEqual(self.due(4.1), [Move(2, THERE), Ping(2)])
        self.receipt(2, 1, 4.2)
        self.assertEqual(self.due(4.2), [Leave(2)])
        self.receipt(2, 2, 4.3)
        self.assertIs(self.client.phase, Phase.GONE)

    def test_next_conversation(self) -> None:
        """The next conversation is numbered from where this one ended."""
        self.receipt(1, 1, 0.2)
        self.client.leave(1.0)
        self.client.due(1.0)
        self.receipt(1, 1, 1.1)
        self.client.join(2.0)
        self.assertEqual(self.due(2.0), [self.join_of(2, 1)])
        self.welcome(2.1, nonce=2)
        self.assertEqual(self.client.values, HERE)
        self.assertEqual((self.client.applied, self.client.saved), (1, 1))
        self.assertEqual(self.codec.decode_client(self.client.move(THERE, 2.2)), Move(2, THERE))

    def test_saved_is_not_presumed(self) -> None:
        """A WELCOME confirms what was applied; only a RECEIPT confirms what is saved."""
        self.client.due(4.0)
        self.welcome(4.1, nonce=2)
        self.assertEqual((self.client.applied, self.client.saved), (1, 0))

    def test_sent_away(self) -> None:
        """A GONE ends the leaving too."""
        self.client.leave(1.0)
        self.client.received(encode_gone(1, GoneReason.KICKED), 1.1)
        self.assertEqual(self.client.ended_by, Gone(1, GoneReason.KICKED))

    def test_gone_after_the_end(self) -> None:
        """A GONE after the player has left changes nothing."""
        self.receipt(1, 1, 0.2)
        self.client.leave(1.0)
        self.client.due(1.0)
        self.receipt(1, 1, 1.1)
        self.client.received(encode_gone(1, GoneReason.SHUTTING_DOWN), 1.2)
        self.assertIsNone(self.client.ended_by)


class LeavingEarlyTests(ClientTestCase):
    """Leaving where there is little to leave."""

    def test_while_joining(self) -> None:
        """A player who leaves while joining is welcomed first, and then leaves."""
        self.client.join(0.0)
        self.client.leave(0.1)
        self.assertEqual(self.due(0.1), [self.join_of(1)])
        self.welcome(0.2)
        self.assertEqual(self.due(0.2), [Leave(0)])

    def test_never_joined(self) -> None:
        """A player who never joined has nothing due."""
        self.client.leave(0.0)
        self.assertIs(self.client.phase, Phase.GONE)
        self.assertEqual(self.due(10.0), [])


class RejoiningTests(ClientTestCase):
    """`rejoin`, by a link that knows that the server has lost the conversation."""

    def test_online(self) -> None:
        """A player who has moved joins with another nonce, and then sends its state."""
        self.go_online()
        self.client.move(THERE, 0.1)
        self.client.rejoin(0.2)
        self.assertEqual(self.due(0.2), [self.join_of(2, 1)])
        self.welcome(0.3, nonce=2)
        self.assertEqual(self.due(0.3), [Move(2, THERE), Ping(2)])

    def test_joining(self) -> None:
        """A player who was joining joins again; the time is measured from here."""
        self.client.join(0.0)
        self.client.rejoin(5.0)
        self.assertEqual(self.due(5.0), [self.join_of(2)])
        self.welcome(5.25, nonce=2)
        self.assertEqual(self.client.join_seconds, 0.25)

    def test_leaving(self) -> None:
        """A player who was leaving is welcomed, and leaves."""
        self.go_online()
        self.client.leave(0.1)
        self.client.rejoin(0.2)
        self.welcome(0.3, nonce=2)
        self.assertEqual(self.due(0.3), [Leave(0)])

    def test_end(self) -> None:
        """After the end nothing is due, and messages are ignored."""
        self.go_online()
        self.client.end()
        self.welcome(0.1)
        self.assertIs(self.client.phase, Phase.GONE)
        self.assertEqual(self.due(100.0), [])


class OfTests(SynchronousTestCase):
    """A client for a state class."""

    def second_move(self, resolution: float | None) -> int:
        """The type of a move that follows one which is known to be applied."""
        metadata = within(0, 1000, resolution=resolution)
        fields = {name: attrs.field(default=1.0, type=float, metadata=metadata) for name in "xy"}
        schema = StateSchema.of(attrs.make_class("Walker", fields))
        client = Client.of(schema)
        client.join(0.0)
        client.received(Codec(schema).encode_welcome(client._nonce, 0, HERE), 0.0)
        client.move(HERE, 0.1)
        client.received(encode_receipt(1, 0), 0.2)
        return client.move(THERE, 0.3)[0]

    def test_grid(self) -> None:
        """Where a field has a resolution, DELTAs are sent."""
        self.assertEqual(self.second_move(0.25), DELTA)

    def test_no_grid(self) -> None:
        """Where none has, MOVEs are."""
        self.assertEqual(self.second_move(None), MOVE)


class BaseTests(SynchronousTestCase):
    """Which MOVE a DELTA starts from."""

    def setUp(self) -> None:
        """A client that is in the game, of a state with a grid."""
        metadata = within(0, 1000, resolution=0.25)
        fields = {name: attrs.field(default=1.0, type=float, metadata=metadata) for name in "xy"}
        self.schema = StateSchema.of(attrs.make_class("Walker", fields))
        self.codec = ClientCodec(self.schema)
        self.client = Client.of(self.schema, itertools.count(1).__next__)
        self.client.join(0.0)
        self.welcome(1, 0.0)

    def welcome(self, nonce: int, now: float) -> None:
        """The server welcomes the client with the state `HERE`."""
        self.client.received(self.codec.encode_welcome(nonce, 5, HERE), now)

    def receipt(self, applied: int, now: float) -> None:
        """The server tells what it has applied."""
        self.client.received(encode_receipt(applied, 0), now)

    def move(self, now: float) -> int:
        """The type of the message of the next move."""
        message = self.client.move(HERE, now)
        assert message is not None
        return message[0]

    def test_moves_are_bounded(self) -> None:
        """The last few MOVEs may become a base, an older one whose RECEIPT is late may not."""
        for back, kind in ((MOVES_REMEMBERED, MOVE), (MOVES_REMEMBERED - 1, DELTA)):
            self.setUp()
            for second in range(MOVES_REMEMBERED + 1):
                self.move(float(second))
            self.receipt(self.client.sequence - back, second + 0.1)
            self.assertEqual(self.move(second + 0.2), kind)

    def test_of_an_earlier_conversation(self) -> None:
        """A conversation has no base until a RECEIPT shows one of its own MOVEs."""
        self.assertEqual(self.move(0.1), MOVE)
        self.receipt(1, 0.2)
        self.assertEqual(self.move(0.3), DELTA)
        self.client.rejoin(0.4)
        self.welcome(2, 0.5)
        self.assertEqual([self.move(0.6), self.move(0.7)], [MOVE, MOVE])
        self.receipt(self.client.sequence, 0.8)
        self.assertEqual(self.move(0.9), DELTA)

    def test_shown_in_the_next_conversation(self) -> None:
        """A MOVE of an earlier conversation becomes none, though a RECEIPT has its number."""
        self.move(0.1)
        self.client.rejoin(0.2)
        self.welcome(2, 0.3)
        self.receipt(1, 0.4)
        self.assertEqual([self.move(0.5), self.move(0.6)], [MOVE, MOVE])


class ServerOwnedTests(SynchronousTestCase):
    """A state of which the server owns a part."""

    def setUp(self) -> None:
        """A client that is in the game, where the server has set its hp to 60."""
        self.schema = StateSchema.of(Fighter)
        self.codec = ClientCodec(self.schema)
        self.client = Client.of(self.schema, itertools.count(1).__next__)
        self.client.join(0.0)
        self.client.received(self.codec.encode_welcome(1, 5, (60, 1.0)), 0.0)

    def test_sent(self) -> None:
        """A move carries the client's fields; what it says of the others is ignored."""
        move = self.client.move((100, 2.0), 0.0)
        assert move is not None
        self.assertEqual(self.codec.decode_move(move), (1, (2.0,)))
        self.assertEqual(self.client.values, (60, 2.0))

    def test_delta(self) -> None:
        """So does a DELTA, as steps of these fields alone."""
        self.client.move((60, 2.0), 0.0)
        self.client.received(encode_receipt(1, 0), 0.1)
        delta = self.client.move((60, 3.0), 0.2)
        assert delta is not None
        self.assertEqual(delta[:1], bytes([DELTA]))
        decoded = DeltaCodec(self.schema).decode(delta)
        self.assertEqual(DeltaCodec(self.schema).restore(decoded, (7, 2.0)), (3.0,))

    def test_changed_while_away(self) -> None:
        """A client that goes on with its own fields has the server's newest in the others."""
        self.client.move((60, 2.0), 0.0)
        self.client.rejoin(1.0)
        self.client.received(self.codec.encode_welcome(2, 9, (10, 2.0)), 1.0)
        self.assertEqual((self.client.overruled, self.client.values), (0, (10, 2.0)))

    def test_nothing_to_move(self) -> None:
        """Where the server owns all, nothing is ever sent."""
        schema = StateSchema.of(made(x=field(float, 1.0, server_owned())))
        client = Client.of(schema, itertools.count(1).__next__)
        client.join(0.0)
        client.received(Codec(schema).encode_welcome(1, 5, (4.0,)), 0.0)
        self.assertIsNone(client.move((2.0,), 0.0))
        self.assertEqual((client.sequence, client.values), (0, (4.0,)))
