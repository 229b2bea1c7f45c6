"""STATEs and SEENs: what the program sets reaches the client, and no late move undoes it."""

from __future__ import annotations

import struct
from itertools import pairwise

import attrs

from playerstate import server_owned
from playerstate.conversations.conversation import TOLD_KEPT
from playerstate.conversations.states import LONGEST_GAP
from playerstate.interfaces import Stored
from playerstate.players.run import LEFT_KEPT
from tests.kit.players import RECEIPT, Client, GatewayTestCase, at

OVERRIDE, OTHER = 1, 0
"""Flags of a STATE."""
RESTORED, OVERRIDDEN = 1, 2
"""Flags of a WELCOME."""


@attrs.frozen
class Fighter:
    """A player whose `hp` is the server's."""

    x: float = 0.0
    hp: float = attrs.field(default=100.0, metadata=server_owned())


class StatesTestCase(GatewayTestCase):
    """A player who has moved to 1.0, by the move with number 1."""

    def begin(self, age: float = 0.0, **options: object) -> Client:
        """Start the server, wait for so many seconds, join, move."""
        self.open(save_within=1.0, **options)
        self.stepped.reactor.advance(age)
        client = self.joined()
        client.move(1, 1.0)
        self.advance(0.2)
        client.heard()
        return client

    def told(self, client: Client) -> tuple[int, int, float, float]:
        """The one STATE that comes within a tick."""
        self.advance(0.03)
        (state,) = client.states()
        return state


class OverrideTests(StatesTestCase):
    """The program sets fields of the client's."""

    def test_told(self) -> None:
        """The STATE carries all fields, and the date of the change as its number."""
        client = self.begin()
        self.service.change(42, x=9.0)
        number = self.service.table.updated_at(self.service.table.slots[42])
        self.assertEqual(self.told(client), (OVERRIDE, number, 9.0, 0.0))
        self.service.update(42, at(7.0))
        self.advance(0.1)
        ((flags, second, *fields),) = client.states()
        self.assertEqual((flags, fields), (OVERRIDE, [7.0, 0.0]))
        self.assertGreater(second, number)

    def test_moves_before_seen(self) -> None:
        """Moves are refused until the SEEN, and those sent before it are stale afterwards."""
        for many in (False, True):
            client = self.begin(batch_min=1)
            self.service.change(42, x=9.0)
            _, number, *_ = self.told(client)
            late = [struct.pack("<BIdd", 2, sequence, 5.0, 5.0) for sequence in range(2, 12)]
            for message in late:
                self.port.receive_many([client.framed(message)] * (1 + many), [client.address] * 2)
            self.assertEqual(self.books.rejected, {"not_seen": 10 * (1 + many)})
            client.seen(number, 11)
            for message in late:
                client.send(message)
            self.assertEqual(self.service.state(42), at(9.0))
            self.assertEqual(self.books.stale, 10)
            client.move(12, 3.0)
            self.assertEqual(self.service.state(42), at(3.0))
            self.assertEqual(self.books.imbalance(), [])

    def test_receipt(self) -> None:
        """A RECEIPT shows SEEN's number as applied, and as saved once the override is."""
        client = self.begin()
        self.service.change(42, x=9.0)
        _, number, *_ = self.told(client)
        client.seen(number, 11)
        self.idle(0.15)
        self.assertEqual(client.receipts()[-1], (11, 0))
        self.advance(1.5)
        client.ping(11)
        self.assertEqual(client.receipts()[-1], (11, 11))
        self.assertEqual(self.stored(self.stepped), {42: (9.0, 0.0)})

    def test_lower_number(self) -> None:
        """A SEEN whose sequence is below the highest applied takes nothing back."""
        client = self.begin()
        client.move(7, 2.0)
        self.service.change(42, x=9.0)
        _, number, *_ = self.told(client)
        client.seen(number, 3)
        for sequence in range(1, 8):
            client.move(sequence, 5.0)
        self.assertEqual(self.service.state(42), at(9.0))

    def test_repeated_seen(self) -> None:
        """A SEEN that comes again changes nothing, whatever it says."""
        client = self.begin()
        self.service.change(42, x=9.0)
        _, number, *_ = self.told(client)
        client.seen(number, 5)
        client.move(6, 3.0)
        client.seen(number, 5)
        client.seen(number, 99)
        client.move(7, 4.0)
        self.assertEqual(self.service.state(42), at(4.0))
        self.advance(5.0)
        self.assertEqual(client.states(), [])

    def test_delta_bases(self) -> None:
        """A state from before the override is no base any more."""
        client = self.begin()
        self.service.change(42, x=9.0)
        _, number, *_ = self.told(client)
        client.seen(number, 1)
        client.send(struct.pack("<BHBdd", 5, 2, 1, 3.0, 0.0))
        self.assertEqual(self.books.rejected, {"unknown_base": 1})

    def test_several(self) -> None:
        """Changes before a SEEN collapse into the newest; SEEN of an older one is not enough."""
        client = self.begin()
        self.service.change(42, x=8.0)
        _, first, *_ = self.told(client)
        for x in (9.0, 10.0, 11.0):
            self.service.change(42, x=x)
        self.advance(0.12)
        ((_, second, *fields),) = client.states()
        self.assertEqual(fields, [11.0, 0.0])
        client.seen(first, 1)
        client.move(2, 5.0)
        self.assertEqual(self.service.state(42), at(11.0))
        client.seen(second, 2)
        client.move(3, 6.0)
        self.assertEqual(self.service.state(42), at(6.0))
        self.assertEqual(self.books.malformed, {})

    def test_sign_of_life(self) -> None:
        """A player whose moves are refused is not idle, nor one who sends SEENs."""
        client = self.begin(idle_timeout=2.0)
        self.service.change(42, x=9.0)
        _, number, *_ = self.told(client)
        for sequence in range(2, 8):
            client.move(sequence, 5.0)
            self.advance(1.0)
        for _ in range(4):
            client.seen(number, 7)
            self.advance(1.0)
        self.assertEqual(self.service.state(42), at(9.0))

    def test_last_update_at_a_date(self) -> None:
        """A clock that stands does not make an override look like a move, nor the reverse."""
        client = self.begin()
        table, slot = self.service.table, self.service.table.slots[42]
        sequence = 1
        for _ in range(4):
            self.service.change(42, x=9.0)
            self.assertTrue(table.is_overridden(slot))
            self.idle(0.2)
            _, number, *_ = client.states()[-1]
            client.seen(number, sequence)
            self.stepped.wall_step -= 1.0
            sequence += 1
            client.move(sequence, 1.0)
            self.assertFalse(table.is_overridden(slot))


class RepeatTests(StatesTestCase):
    """A STATE whose SEEN does not come."""

    def times(self, client: Client, seconds: float, act: object = None) -> list[float]:
        """When STATEs come, within so many seconds."""
        times = []
        for step in range(round(seconds / 0.01)):
            self.advance(0.01)
            if callable(act):
                act(step)
            times += [self.stepped.reactor.seconds()] * len(client.states())
        return times

    def test_silent(self) -> None:
        """A client that sends nothing gets as many as its JOIN paid for."""
        for size, expected in ((248, 3), (500, 3)):
            self.open()
            client = self.client()
            client.join(size=size)
            client.heard()
            self.service.change(42, x=9.0)
            self.assertEqual(len(self.times(client, 20.0)), expected)
            self.assertEqual(self.books.states, expected)

    def test_gaps(self) -> None:
        """While the client pays it comes again and again, with gaps that double up to a bound."""
        client = self.begin()
        self.service.change(42, x=9.0)
        times = self.times(client, 10.0, lambda step: client.move(2 + step, 5.0))
        gaps = [after - before for before, after in pairwise(times)]
        for gap, factor in zip(gaps, (1, 2, 4, 8, 16, 16, 16), strict=False):
            self.assertLess(abs(gap - 0.1 * min(factor, LONGEST_GAP)), 0.04)
        self.assertGreater(len(gaps), 6)

    def test_paid_by_pings(self) -> None:
        """A longer PING pays for a STATE, and one of 9 bytes for its RECEIPT alone."""
        for size, expected in ((9, 0), (58, 3)):
            self.open()
            client = self.joined()
            self.service.change(42, x=9.0)
            self.times(client, 5.0)
            ping = struct.pack("<BI", 4, 0).ljust(size, b"\0")
            told = 0
            for _ in range(3):
                client.send(ping)
                told += len(self.times(client, 5.0))
            self.assertEqual(told, expected, size)

    def test_paid_by_seen(self) -> None:
        """Each SEEN pays for the next STATE, so that a client that stands is always told."""
        self.open()
        client = self.joined()
        for x in range(20):
            self.service.change(42, x=float(x))
            _, number, *_ = self.told(client)
            client.seen(number, 0)
            self.idle(0.2)

    def test_other_address(self) -> None:
        """What the old address paid is not spent on the new one."""
        self.open()
        client = self.joined()
        client.ping(0)
        client.heard()
        self.service.change(42, x=9.0)
        client.address = ("192.0.2.9", 9)
        client.join(1, secret=client.secret)
        self.assertEqual(len(self.times(client, 20.0)), 3)

    def test_ends(self) -> None:
        """Nothing more is told to a player who was taken offline."""
        client = self.begin()
        self.service.change(42, x=9.0)
        self.gateway.kick(42)
        self.advance(5.0)
        self.assertEqual(client.states(), [])


class OwnedTests(StatesTestCase):
    """The program sets fields of the server's alone."""

    def open(self, **options: object) -> None:
        """Start a server of fighters."""
        super().open(state=Fighter, **options)

    def move(self, client: Client, sequence: int, x: float) -> None:
        """A MOVE of the client's field."""
        client.send(struct.pack("<BId", 2, sequence, x))

    def begin(self, **options: object) -> Client:
        """Start the server, join, move."""
        self.open(save_within=1.0, **options)
        client = self.joined()
        self.move(client, 1, 1.0)
        self.advance(0.2)
        client.heard()
        return client

    def test_goes_on(self) -> None:
        """The client is told, and no move is refused."""
        client = self.begin()
        self.service.change(42, hp=50.0)
        flags, number, *fields = self.told(client)
        self.assertEqual((flags, fields), (OTHER, [1.0, 50.0]))
        self.move(client, 2, 2.0)
        client.seen(number, 99)
        self.move(client, 3, 3.0)
        self.advance(5.0)
        self.assertEqual(client.states(), [])
        self.assertEqual(self.service.state(42), Fighter(3.0, 50.0))
        self.assertEqual(self.books.rejected, {})

    def test_base_stays(self) -> None:
        """A move stays a base of DELTAs, which leave the server's field as it is."""
        client = self.begin()
        self.service.change(42, hp=50.0)
        client.send(struct.pack("<BHBd", 5, 2, 1, 3.0))
        self.assertEqual(self.service.state(42), Fighter(3.0, 50.0))

    def test_after_an_override(self) -> None:
        """SEEN of the override lets moves in, though a later change is not seen yet."""
        client = self.begin()
        self.service.change(42, x=9.0)
        _, first, *_ = self.told(client)
        self.service.change(42, hp=50.0)
        self.advance(0.12)
        ((flags, second, *_),) = client.states()
        self.assertEqual(flags, OVERRIDE)
        client.seen(first, 1)
        self.move(client, 2, 3.0)
        self.assertEqual(self.service.state(42), Fighter(3.0, 50.0))
        self.advance(0.25)
        ((flags, number, *fields),) = client.states()
        self.assertEqual((flags, number, fields), (OTHER, second, [3.0, 50.0]))
        client.seen(second, 2)
        self.advance(5.0)
        self.assertEqual(client.states(), [])

    def test_override_stays_known(self) -> None:
        """It hides no override from the client's next conversation."""
        client = self.begin()
        self.service.change(42, x=9.0)
        self.service.change(42, hp=50.0)
        client.join(2)
        self.assertEqual(self.told(client)[0], OVERRIDE)


class MalformedTests(StatesTestCase):
    """SEENs that answer nothing."""

    def test_not_sent(self) -> None:
        """The number of no STATE is malformed, also if the program has drawn it already."""
        client = self.begin()
        client.seen(0, 1)
        client.seen(1, 1)
        self.service.change(42, x=9.0)
        number = self.service.table.updated_at(self.service.table.slots[42])
        client.seen(number, 1)
        self.assertEqual(self.books.malformed, {"value": 3})
        self.assertEqual(self.told(client)[1], number)
        for wrong in (number - 1, number + 1, 2**64 - 1):
            client.seen(wrong, 1)
        client.move(2, 3.0)
        self.assertEqual(self.books.malformed, {"value": 6})
        self.assertEqual(self.service.state(42), at(9.0))

    def test_sequence(self) -> None:
        """One that leaves no sequence is malformed; one from before the JOIN's is stale."""
        self.open()
        client = self.joined(sequence=5)
        self.service.change(42, x=9.0)
        _, number, *_ = self.told(client)
        client.seen(number, 2**32 - 1)
        client.seen(number, 4)
        client.move(7, 3.0)
        self.assertEqual(self.books.rejected, {"not_seen": 1})
        self.assertEqual((self.books.malformed, self.books.stale), ({"value": 1}, 1))
        client.seen(number, 2**32 - 2)
        client.move(2**32 - 1, 3.0)
        self.assertEqual(self.service.state(42), at(3.0))

    def test_old_numbers(self) -> None:
        """A number that was sent is no fault, however long ago."""
        client = self.begin()
        numbers = []
        for x in range(TOLD_KEPT + 5):
            self.service.change(42, x=float(x))
            numbers.append(self.told(client)[1])
            client.seen(numbers[-1], 1)
            self.idle(0.2)
        for number in numbers:
            client.seen(number, 1)
        self.assertEqual(self.books.malformed, {})

    def test_elsewhere(self) -> None:
        """From another address, of another conversation, or of none."""
        client = self.begin()
        self.service.change(42, x=9.0)
        _, number, *_ = self.told(client)
        other = self.client(42, host=2)
        other.seen(number, 1)
        client.nonce = 2
        client.seen(number, 1)
        self.client(7, host=3).seen(number, 1)
        self.assertEqual(
            self.books.rejected,
            {"other_address": 1, "other_conversation": 1, "not_joined": 1},
        )
        self.assertEqual(self.service.state(42), at(9.0))

    def test_after_leaving(self) -> None:
        """A SEEN that comes after the player left is late."""
        client = self.begin()
        self.service.change(42, x=9.0)
        _, number, *_ = self.told(client)
        client.leave(1)
        self.advance(0.5)
        client.seen(number, 1)
        self.assertEqual((self.books.stale, self.books.leaves), (1, 1))


class NextConversationTests(StatesTestCase):
    """An override that the client has not seen when its conversation ends."""

    def rejoins(self, client: Client, number: int) -> None:
        """The client joins again: it is told under the same number, and moves only then."""
        client.join(5)
        *_, welcome = client.heard()
        self.assertEqual(welcome[-2:], (9.0, 0.0))
        client.move(20, 5.0)
        self.assertEqual(self.told(client), (OVERRIDE, number, 9.0, 0.0))
        client.move(21, 5.0)
        self.assertEqual(self.service.state(42), at(9.0))
        client.seen(number, 21)
        client.move(22, 3.0)
        self.assertEqual(self.service.state(42), at(3.0))

    def test_joins_again(self) -> None:
        """By another JOIN while the player is online."""
        client = self.begin()
        self.service.change(42, x=9.0)
        self.rejoins(client, self.told(client)[1])

    def welcomed(self, client: Client) -> None:
        """The WELCOME says that the state is an override, and moves are applied at once."""
        client.join(5)
        *_, welcome = client.heard()
        self.assertEqual((welcome[1], welcome[-2:]), (RESTORED | OVERRIDDEN, (9.0, 0.0)))
        client.move(22, 3.0)
        self.assertEqual(self.service.state(42), at(3.0))
        self.advance(3.0)
        self.assertEqual(client.states(), [])

    def test_left(self) -> None:
        """After a leave, when the player is loaded from the store."""
        client = self.begin(LEFT_KEPT)
        self.service.change(42, x=9.0)
        client.leave(1)
        self.advance(0.5)
        self.assertEqual(list(self.service.table.slots), [])
        client.heard()
        self.welcomed(client)

    def test_edited_offline(self) -> None:
        """A player who was offline when the program set the field."""
        self.open()
        self.stepped.reactor.advance(LEFT_KEPT)
        self.stepped.store.players[42] = Stored((1.0, 0.0), 5_000_000)
        edited = self.service.edit(42, x=9.0)
        self.advance(0.2)
        self.successResultOf(edited)
        self.welcomed(self.client())

    def test_date_of_another_program(self) -> None:
        """A date may look like that of an override: the player moves at once all the same."""
        for date in (0, 1, 5_000_001, 2**63 - 1):
            self.open()
            self.stepped.store.players[42] = Stored((9.0, 0.0), date)
            client = self.joined()
            client.move(1, 5.0)
            self.assertEqual(self.service.state(42), at(5.0))
            self.advance(0.5)
            self.assertEqual(client.states(), [])

    def test_same_nonce(self) -> None:
        """A late JOIN may begin again what ended: a late move after it undoes no override."""
        client = self.begin(LEFT_KEPT)
        self.gateway.kick(42)
        self.advance(0.5)
        edited = self.service.edit(42, x=9.0)
        self.advance(0.2)
        self.successResultOf(edited)
        client.heard()
        client.join(1, 0)
        client.move(2, 5.0)
        self.assertEqual(self.books.rejected, {"not_seen": 1})
        client.heard()
        self.advance(0.03)
        ((_, number, *_),) = client.states()
        client.seen(number, 2)
        client.move(3, 3.0)
        self.assertEqual(self.service.state(42), at(3.0))

    def test_seen_and_not_moved(self) -> None:
        """Once the SEEN came, the next WELCOME says it until a move is applied."""
        client = self.begin()
        self.service.change(42, x=9.0)
        _, number, *_ = self.told(client)
        client.seen(number, 1)
        self.welcomed(client)

    def test_moved(self) -> None:
        """Once a move was applied there is nothing to tell."""
        client = self.begin()
        self.service.change(42, x=9.0)
        client.seen(self.told(client)[1], 1)
        client.move(2, 4.0)
        client.join(5)
        *_, welcome = client.heard()
        self.assertEqual(welcome[1], RESTORED)
        self.advance(3.0)
        self.assertEqual(client.states(), [])

    def test_killed(self) -> None:
        """After the process died with the override unsaved."""
        path = self.mktemp()
        client = self.begin(live_file=path)
        self.service.change(42, x=9.0)
        number = self.told(client)[1]
        with open(path, "rb") as file:
            left = file.read()
        with open(f"{path}.copy", "wb") as file:
            file.write(left)
        store = self.stepped.store
        self.open(store=store, live_file=f"{path}.copy")
        self.advance(0.5)
        again = self.client()
        self.rejoins(again, number)

    def test_leaving(self) -> None:
        """A LEAVE before the SEEN ends with the override saved, and no move after it."""
        client = self.begin()
        self.service.change(42, x=9.0)
        client.leave(9)
        client.move(2, 5.0)
        self.assertEqual(self.books.rejected, {"not_seen": 1})
        self.advance(0.5)
        self.assertIn(RECEIPT, [answer[0] for answer in client.heard()])
        self.assertEqual(self.stored(self.stepped), {42: (9.0, 0.0)})

    def test_never_overridden(self) -> None:
        """A player who spawns, or comes from the store, is told nothing."""
        self.open()
        self.stepped.reactor.advance(LEFT_KEPT)
        self.stepped.store.players[7] = Stored((1.0, 0.0), 5_000_000)
        self.stepped.store.players[8] = Stored((1.0, 0.0), 5_000_001)  # by another program
        for session_id in (42, 7, 8):
            client = self.joined(session_id, host=session_id)
            client.move(1, 3.0)
            self.advance(1.0)
            self.assertEqual(client.states(), [])
            self.assertEqual(self.service.state(session_id), at(3.0))
