"""A player's rows, overwritten in a live file."""

from __future__ import annotations

import os

from playerstate.live.erasing import erase_player
from playerstate.live.leftover import HEADER, NotALiveFile
from playerstate.live.names import held
from tests.kit.livefiles import LiveFileTestCase, make_live_file, remaining


class ErasingTests(LiveFileTestCase):
    """`erase_player`."""

    def leave(self) -> None:
        """A live file in which two players are unsaved, the first with both halves written."""
        live_file, table = make_live_file(self.path)
        for who in (5, 6):
            table.apply(table.admit(who, (0.0, 0.0), 0), 1, (float(who), 2.0), 3)
        table.apply(table.slots[5], 2, (7.25, 8.5), 4)
        live_file.close(False)

    def erase(self, session_id: int) -> int:
        """How many rows were erased."""
        with held(self.path) as fd:
            return erase_player(fd, session_id)

    def test_erased(self) -> None:
        """Both halves are gone, and the other player's rows stay as they are."""
        self.leave()
        before = self.content()
        self.assertEqual(self.erase(5), 2)
        self.assertEqual(remaining(self.path), {6: (6.0, 2.0, 3)})
        self.assertEqual(len(self.content()), len(before))
        self.assertEqual(self.content()[: HEADER.size], before[: HEADER.size])
        self.assertEqual(self.erase(5), 0)

    def test_unknown(self) -> None:
        """Where the player is not in the file, it stays as it is."""
        self.leave()
        before = self.content()
        self.assertEqual(self.erase(7), 0)
        self.assertEqual(self.content(), before)

    def test_damaged(self) -> None:
        """A file that makes no sense is refused, and stays as it is."""
        self.leave()
        os.truncate(self.path, 5000)
        before = self.content()
        self.assertRaises(NotALiveFile, self.erase, 5)
        self.assertEqual(self.content(), before)
