"""What the service tells of its players."""

from __future__ import annotations

from typing import Any

from playerstate import InvalidState, PlayerState
from playerstate.players.listener import PlayersListener
from tests.kit.players import ServiceTestCase, at


class Ear:
    """Keeps what it is told, and whether the player was there then."""

    def __init__(self, case: ListenerTests) -> None:
        self._case = case
        self.told: list[tuple[int, bool]] = []
        self.changes: list[tuple[int, bool, Any]] = []

    def on_leave(self, session_id: int) -> None:
        """See `PlayersListener`."""
        self.told.append((session_id, session_id in self._case.service.table.slots))

    def on_change(self, session_id: int, is_override: bool) -> None:
        """See `PlayersListener`."""
        self.changes.append((session_id, is_override, self._case.service.state(session_id)))


class ListenerTests(ServiceTestCase):
    """A listener beside the service."""

    def setUp(self) -> None:
        """Two players are online."""
        super().setUp()
        self.stepped = self.start()
        self.service = self.stepped.service
        self.stepped.join(1)
        self.stepped.join(2)
        self.ear = Ear(self)
        ear: PlayersListener = self.ear
        self.service.add_listener(ear)

    def test_told_before(self) -> None:
        """The player is in the table still, also where the slot is free at once."""
        self.service.update(2, at(1))
        self.successResultOf(self.service.leave(1))
        self.waits(self.service.leave(2))
        self.assertEqual(self.ear.told, [(1, True), (2, True)])

    def test_told_each_time(self) -> None:
        """A second leave is told as well; a leave of nobody is not."""
        self.service.update(2, at(1))
        for session_id in (2, 2, 3):
            self.service.leave(session_id).addErrback(lambda failure: None)
        self.assertEqual(self.ear.told, [(2, True)] * 2)

    def test_changes(self) -> None:
        """A change is told once it is made, with whether the client owns one of the fields."""
        self.service.update(2, at(1))
        self.service.change(1, x=3.0)
        self.service.change(1)
        self.assertRaises(InvalidState, self.service.change, 1, z=3.0)
        self.service.edit(2, y=4.0)
        self.service.edit(3, create=True, y=4.0)
        spawn = PlayerState()
        self.assertEqual(
            self.ear.changes,
            [(2, True, at(1)), (1, True, at(3, spawn.y)), (2, True, at(1, 4))],
        )

    def test_raises_at_a_change(self) -> None:
        """What a listener raises is logged; the others are told, and the change stands."""
        other = Ear(self)
        self.service.add_listener(other)
        self.patch(self.ear, "on_change", lambda *arguments: 1 / 0)
        self.service.update(1, at(1))
        self.assertEqual(other.changes, [(1, True, at(1))])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_raises(self) -> None:
        """What a listener raises is logged; the others are told, and the leave goes on."""
        other = Ear(self)
        self.service.add_listener(other)
        self.patch(self.ear, "on_leave", lambda session_id: 1 / 0)
        self.successResultOf(self.service.leave(1))
        self.assertEqual(other.told, [(1, True)])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertNotIn(1, self.service.table.slots)

    def test_removed(self) -> None:
        """It is told no more, and cannot be removed twice."""
        self.service.remove_listener(self.ear)
        self.service.leave(1)
        self.assertEqual(self.ear.told, [])
        self.assertRaises(ValueError, self.service.remove_listener, self.ear)
