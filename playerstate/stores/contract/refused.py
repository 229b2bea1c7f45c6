"""Rows that a store can never take."""

from __future__ import annotations

from playerstate.interfaces import (
    LeftOut,
    Records,
    RowRefused,
    Stored,
)
from playerstate.stores.contract.base import StoreTestCase
from playerstate.stores.contract.states import (
    PLAIN,
    records,
    spawned,
)


class RefusedTests(StoreTestCase):
    """Refused rows are named, and nothing else is lost by them."""

    def write_refused(self, batch: Records) -> LeftOut | None:
        """Write a batch with a refused row; None if it was refused as a whole."""
        try:
            return self.opened_writer().write(batch)
        except RowRefused as error:
            self.assertTrue(str(error))
            return None

    def test_refused_row(self) -> None:
        """A refused row is named, and the others are saved; or the whole batch is refused."""
        self.start()
        self.write((1, 0.0, 0.0, 1), (2, 0.0, 0.0, 1), (3, 0.0, 0.0, 9), (4, 0.0, 0.0, 1))
        self.refuse(2)
        left_out = self.write_refused(spawned(PLAIN, (1, 2, 3, 4), updated_at=2))
        dates = [self.stored(player).updated_at for player in (1, 2, 3, 4)]
        if left_out is None:
            self.assertEqual(dates, [1, 1, 9, 1])
            return
        self.assertEqual((list(left_out.refused), left_out.newer.tolist()), ([1], [2]))
        self.assertTrue(left_out.refused[1])
        self.assertEqual(dates, [2, 1, 9, 2])

    def test_refused_alone(self) -> None:
        """A refused row in a batch of its own changes nothing, and writing goes on."""
        self.start()
        self.write((1, 0.0, 0.0, 1), (2, 0.0, 0.0, 1))
        self.refuse(2)
        left_out = self.write_refused(spawned(PLAIN, [2], updated_at=2))
        if left_out is not None:
            self.assertEqual(list(left_out.refused), [0])
        self.opened_writer().quarantine(spawned(PLAIN, [2], updated_at=2), ["not that one"])
        self.assertEqual(self.write((1, 1.0, 1.0, 2)), [])
        self.assertEqual([self.stored(player).updated_at for player in (1, 2)], [2, 1])

    def test_refused_in_a_large_batch(self) -> None:
        """Of a large batch each refused row is named, or nothing of it is saved."""
        self.start()
        self.refuse(700)
        self.refuse(1999)
        left_out = self.write_refused(spawned(PLAIN, range(1, 2001)))
        saved = [player for player in (1, 699, 701, 1998, 2000) if self.load(player) is not None]
        self.assertIsNone(self.load(700))
        self.assertIsNone(self.load(1999))
        if left_out is None:
            self.assertEqual(saved, [])
        else:
            self.assertEqual(sorted(left_out.refused), [699, 1998])
            self.assertEqual(saved, [1, 699, 701, 1998, 2000])

    def test_quarantine(self) -> None:
        """A record that is quarantined changes nothing that is stored, and writing goes on."""
        self.start()
        self.write((1, 1.0, 1.0, 1))
        self.opened_writer().quarantine(records(PLAIN, (1, 9.0, 9.0, 9)), ["too far"])
        self.assertEqual(self.load(1), Stored((1.0, 1.0), 1))
        self.assertEqual(self.write((1, 2.0, 2.0, 2)), [])
        self.assertEqual(self.load(1), Stored((2.0, 2.0), 2))
