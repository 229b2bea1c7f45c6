"""Rows in hand that the store refuses: written again, and in the end quarantined."""

from __future__ import annotations

from playerstate.interfaces import RowRefused, StoreBusy
from playerstate.saving.refusals import REFUSALS
from tests.kit.persisting import (
    PersisterTestCase,
    drained,
    outdated,
    players_in,
    quarantined,
    raising,
)


class RefusedTests(PersisterTestCase):
    """Rows that the store can never take."""

    def test_one_among_many(self) -> None:
        """A bad row keeps no other from the store, is tried alone, and then is quarantined."""
        players = [(number, number * 10) for number in range(1, 9)]
        self.store.bad[6, 60] = "hp must be positive"
        self.push(*players)
        good = [player for player in players if player != (6, 60)]
        self.assertGreater(self.persister.step(), 0.0)
        ((committed, dropped),) = self.commits()
        self.assertCountEqual(committed, good)
        self.assertEqual(dropped, ())
        self.assertCountEqual([player for batch in self.store.written for player in batch], good)
        for refusal in range(1, REFUSALS):
            self.assertEqual(self.store.quarantined, [])
            self.assertEqual(self.failures(), [("hp must be positive", 1)])
            self.store.attempts.clear()
            wait = self.persister.step()
            self.assertEqual(wait == 0.0, refusal == REFUSALS - 1)
            self.assertEqual(len(self.store.attempts), 1)
            self.assertEqual(self.store.refused[-1], [(6, 60)])
        self.assertEqual(self.store.quarantined, [((6, 60), "hp must be positive")])
        self.assertEqual(self.commits(), [([], (quarantined(6, 60, "hp must be positive"),))])
        self.assertEqual(self.failures(), [])
        self.assertIsNone(self.persister.step())

    def test_many_named(self) -> None:
        """Where the store names its bad rows, a batch takes one write, however many are bad."""
        self.store.names_bad = True
        players = [(number, 1) for number in range(1, 17)]
        bad = players[::2]
        self.store.bad.update(dict.fromkeys(bad, "hp"))
        calls = iter(range(REFUSALS))
        self.store.on_quarantine = lambda: next(calls)
        self.push(*players)
        self.assertGreater(self.persister.step(), 0.0)
        self.assertEqual(len(self.store.attempts), 1)
        self.assertEqual(self.store.written, [players[1::2]])
        self.assertEqual(self.failures(), [("hp", len(bad))])
        for _ in range(REFUSALS - 1):
            self.persister.step()
        self.assertEqual(len(self.store.attempts), REFUSALS)
        self.assertEqual(next(calls), 1)
        self.assertEqual(self.store.quarantined, [(player, "hp") for player in bad])
        first, second = self.commits()
        self.assertEqual(first, (players[1::2], ()))
        self.assertCountEqual(second[1], [quarantined(*player, "hp") for player in bad])

    def test_own_error(self) -> None:
        """The listener gets the very error that the store raised."""
        error = RowRefused("hp")
        self.store.write_errors.append(error)
        self.push((1, 1))
        self.persister.step()
        self.assertEqual(self.failure(), (error, 1))

    def test_tried_no_more(self) -> None:
        """A row that was quarantined is not tried again, and the player's next row is."""
        self.store.bad[1, 1] = "hp"
        self.push((1, 1), (2, 2))
        for _ in range(REFUSALS):
            self.persister.step()
        attempts = len(self.store.attempts)
        self.assertIsNone(self.persister.step())
        self.assertEqual(len(self.store.attempts), attempts)
        self.push((1, 2))
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.store.written[-1], [(1, 2)])

    def test_last_reason(self) -> None:
        """A row is quarantined with the reason that it was refused for last."""
        self.push((1, 1), (2, 2))
        for reason in ("hp", "mp", "xp"):
            self.store.bad[2, 2] = reason
            self.persister.step()
        self.assertEqual(self.store.quarantined, [((2, 2), "xp")])

    def test_writer_is_kept(self) -> None:
        """A writer that refuses a row is not closed."""
        self.push((1, 1), (2, 2))
        self.store.bad[2, 2] = "hp"
        for _ in range(REFUSALS):
            self.persister.step()
        self.assertEqual([writer.closed for writer in self.store.writers], [False])

    def test_cursor(self) -> None:
        """Rows of the ring count as settled when the bad ones among them are."""
        self.push((1, 1), (2, 2), (1, 3))
        self.store.bad[2, 2] = "hp"
        self.persister.step()
        commit = self.commit()
        self.assertEqual((commit.read, commit.superseded), (0, 1))
        self.push((3, 3))
        for _ in range(REFUSALS - 1):
            self.persister.step()
        self.assertEqual([commit.read for commit in drained(self.listener.commits)], [0, 4])

    def test_ring_is_drained_meanwhile(self) -> None:
        """Rows that come while a bad one waits are committed in the next step, together with it."""
        self.push((1, 1), (3, 3))
        self.store.bad[3, 3] = "hp"
        self.persister.step()
        self.push((2, 2), (4, 4))
        self.assertGreater(self.persister.step(), 0.0)
        self.assertEqual(self.ring.depth, 0)
        (_, (committed, dropped)) = self.commits()
        self.assertCountEqual(committed, [(2, 2), (4, 4)])
        self.assertEqual(dropped, ())

    def test_all_rows(self) -> None:
        """Where the store takes no row at all, none is quarantined: the fault may be its own."""
        players = [(1, 1), (2, 2), (3, 3)]
        self.store.bad.update((player, "not today") for player in players)
        self.push(*players)
        for _ in range(4 * REFUSALS):
            self.assertGreater(self.persister.step(), 0.0)
        self.assertEqual(self.store.quarantined, [])
        self.assertEqual(self.commits(), [])
        self.store.bad.clear()
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.commits(), [(players, ())])

    def test_all_rows_until_another(self) -> None:
        """Rows that were refused for long are quarantined once the store has taken another."""
        self.store.bad.update({(1, 1): "hp", (2, 2): "mp"})
        self.push((1, 1), (2, 2))
        for _ in range(2 * REFUSALS):
            self.persister.step()
        self.assertEqual(self.store.quarantined, [])
        self.push((3, 3))
        self.assertEqual(self.persister.step(), 0.0)
        ((committed, dropped),) = self.commits()
        self.assertEqual(committed, [(3, 3)])
        self.assertCountEqual(dropped, [quarantined(1, 1, "hp"), quarantined(2, 2, "mp")])

    def test_all_rows_after_a_commit(self) -> None:
        """What was committed before a row came says nothing about the store as it is now."""
        self.push((9, 9))
        self.persister.step()
        self.commit()
        self.push((1, 1))
        self.store.bad[1, 1] = "hp"
        for _ in range(2 * REFUSALS):
            self.assertGreater(self.persister.step(), 0.0)
        self.assertEqual(self.store.quarantined, [])

    def test_all_outdated(self) -> None:
        """Rows that the store left out are none that it has taken."""
        self.store.bad[1, 1] = "hp"
        self.store.older.add((2, 2))
        self.push((1, 1), (2, 2))
        for _ in range(2 * REFUSALS):
            self.assertGreater(self.persister.step(), 0.0)
        self.assertEqual(self.store.quarantined, [])
        self.assertEqual(self.commits(), [([], (outdated(2, 2),))])

    def test_superseded(self) -> None:
        """A newer row of the player takes a bad one's place, and is committed if it is good."""
        self.push((1, 1), (2, 2))
        self.store.bad[2, 2] = "hp"
        self.persister.step()
        self.persister.step()
        self.push((2, 3))
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.store.written[-1], [(2, 3)])
        self.assertEqual(self.store.quarantined, [])
        first, second = drained(self.listener.commits)
        self.assertEqual((players_in(first), first.superseded), ([(1, 1)], 0))
        self.assertEqual((players_in(second), second.superseded), ([(2, 3)], 1))
        self.assertEqual(second.read, 3)

    def test_good_row_forgives(self) -> None:
        """The refusals of a player whose row was committed are counted from 0 again."""
        self.store.bad.update({(2, 2): "hp", (2, 4): "hp"})
        self.push((1, 1), (2, 2))
        self.persister.step()
        self.persister.step()
        self.push((2, 3))
        self.persister.step()
        self.push((1, 4), (2, 4))
        for _ in range(REFUSALS - 1):
            self.persister.step()
            self.assertEqual(self.store.quarantined, [])
        self.persister.step()
        self.assertEqual(self.store.quarantined, [((2, 4), "hp")])

    def test_one_player_who_is_always_bad(self) -> None:
        """A player whose rows are all bad is quarantined in the end, however often they change."""
        self.push((1, 1), (2, 1))
        for number in range(1, 3 * REFUSALS):
            self.store.bad[2, number] = "hp"
            self.persister.step()
            self.push((1, number + 1), (2, number + 1))
        self.assertGreater(len(self.store.quarantined), 0)

    def test_outdated_and_refused(self) -> None:
        """In one batch some may be committed, some left out and some refused."""
        self.push((1, 1), (2, 2), (3, 3), (4, 4), (5, 5))
        self.store.bad[3, 3] = "hp"
        self.store.older.update({(2, 2), (5, 5)})
        for _ in range(REFUSALS):
            self.persister.step()
        first, second = self.commits()
        self.assertCountEqual(first[0], [(1, 1), (4, 4)])
        self.assertCountEqual(first[1], [outdated(2, 2), outdated(5, 5)])
        self.assertEqual(second, ([], (quarantined(3, 3, "hp"),)))

    def test_busy_while_splitting(self) -> None:
        """What was committed before the store became busy is reported once; the rest later."""
        self.push((1, 1), (2, 2), (3, 3), (4, 4))
        self.store.bad[4, 4] = "hp"
        self.store.write_errors.extend([None, None, StoreBusy("locked")])
        self.assertGreater(self.persister.step(), 0.0)
        self.assertEqual(self.failures(), [("locked", 2)])
        self.assertEqual(self.commits(), [([(1, 1), (2, 2)], ())])
        self.assertGreater(self.persister.step(), 0.0)
        self.assertEqual(self.commits(), [([(3, 3)], ())])
        for _ in range(REFUSALS - 1):
            self.persister.step()
        self.assertEqual(self.commits(), [([], (quarantined(4, 4, "hp"),))])
        self.assertEqual(self.store.written, [[(1, 1), (2, 2)], [(3, 3)]])

    def test_busy_after_a_refusal(self) -> None:
        """A row that was refused alone before the store became busy is kept as well."""
        self.push((1, 1), (2, 2))
        self.store.bad[1, 1] = "hp"
        self.store.write_errors.extend([None, None, OSError("disk")])
        self.assertGreater(self.persister.step(), 0.0)
        self.assertEqual(self.failures(), [("disk", 2)])
        self.assertEqual(self.commits(), [])
        self.assertTrue(self.store.writers[0].closed)
        del self.store.bad[1, 1]
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.commits(), [([(1, 1), (2, 2)], ())])

    def test_outdated_before_a_failure(self) -> None:
        """Rows that were left out before the store failed are reported once."""
        self.push((1, 1), (2, 2))
        self.store.older.add((1, 1))
        self.store.write_errors.extend([RowRefused("both"), None, StoreBusy("locked")])
        self.assertGreater(self.persister.step(), 0.0)
        self.assertEqual(self.commits(), [([], (outdated(1, 1),))])
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.commits(), [([(2, 2)], ())])

    def test_refused_together_only(self) -> None:
        """Rows that are refused only together are all committed, and none is reported."""
        self.push((1, 1), (2, 2))
        self.store.write_errors.append(RowRefused("both"))
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.commits(), [([(1, 1), (2, 2)], ())])
        self.assertEqual(self.failures(), [])

    def test_abandoned_while_splitting(self) -> None:
        """Abandoned between two pieces, it begins no other, and reports what was committed."""
        self.push((1, 1), (2, 2))
        self.store.write_errors.append(RowRefused("both"))
        self.store.on_write = self.persister.abandon
        self.assertGreater(self.persister.step(), 0.0)
        self.assertEqual(self.commits(), [([(1, 1)], ())])
        self.assertEqual(len(self.store.attempts), 2)
        self.assertEqual([rows for _, rows in self.failures()], [1])

    def test_quarantine_fails(self) -> None:
        """A row that cannot be quarantined is kept, and quarantined when it can be."""
        self.push((1, 1), (2, 2))
        self.store.bad[2, 2] = "hp"
        disk = OSError("disk")
        self.store.on_quarantine = raising(disk)
        for _ in range(REFUSALS - 1):
            self.persister.step()
        self.failures()
        self.push((1, 3))
        self.commits()
        self.assertGreater(self.persister.step(), 0.0)
        self.assertEqual(self.failure(), (disk, 1))
        self.assertEqual((self.commits(), self.store.quarantined), ([([(1, 3)], ())], []))
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.store.quarantined, [((2, 2), "hp")])
        self.assertEqual(self.commits(), [([], (quarantined(2, 2, "hp"),))])

    def test_each_for_a_reason_of_its_own(self) -> None:
        """Invariant 7: bad rows with a reason each are quarantined together, or written again
        together; each is reported once."""
        self.store.names_bad = True
        bad = {(number, number): f"hp {number}" for number in range(2, 12)}
        self.store.bad.update(bad)
        self.push(*bad)
        calls, fail = iter(range(REFUSALS)), raising(OSError("disk"))
        self.store.on_quarantine = lambda: (next(calls), fail())
        for number in range(3 * REFUSALS):
            self.push((1, number))
            self.persister.step()
        self.assertEqual(next(calls), 2)
        dropped = [row for _, rows in self.commits() for row in rows]
        self.assertCountEqual(dropped, [quarantined(*player, why) for player, why in bad.items()])
        self.assertEqual(self.store.quarantined, list(bad.items()))
