"""When each stored player last changed, compared in bulk."""

from __future__ import annotations

from contextlib import closing

import apsw
import numpy as np

from playerstate.stores.sqlite import newest
from playerstate.stores.sqlite.newest import missed, read_newest
from tests.kit.databases import PLAIN, spawned
from tests.kit.sqlite_stores import StoreTestCase


def rows(*players: tuple[int, int]) -> newest.Newest:
    """Session ids with their times."""
    return np.array(players, np.int64).reshape(-1, 2)


class NewestTests(StoreTestCase):
    """What is read, and what of it another database lacks."""

    def test_read(self) -> None:
        """All players come in the order of their ids, in parts of any size, or those asked for."""
        with self.writer(self.prepare()) as (writer, _):
            writer.write(spawned(PLAIN, [3, 1, -7, 2], updated_at=5))
        with closing(apsw.Connection(self.path)) as connection:
            for size in (1, 2, 4, 5):
                self.patch(newest, "ROWS_A_PART", size)
                found = read_newest(connection)
                self.assertEqual(found.tolist(), [[-7, 5], [1, 5], [2, 5], [3, 5]])
            self.assertEqual(read_newest(connection, [3, 9, 1]).tolist(), [[1, 5], [3, 5]])
            self.assertEqual(read_newest(connection, [9]).shape, (0, 2))

    def test_missed(self) -> None:
        """Missed are players who are not there, or only in an older state."""
        for held, there, expected in (
            (rows(), rows(), []),
            (rows(), rows((1, 5)), []),
            (rows((1, 5), (2, 5)), rows(), [1, 2]),
            (rows((1, 5), (2, 5), (3, 5), (9, 5)), rows((1, 5), (2, 4), (3, 6), (4, 1)), [2, 9]),
            (rows((-(2**63), 0), (2**63 - 1, 1)), rows((2**63 - 1, 0)), [-(2**63), 2**63 - 1]),
        ):
            self.assertEqual(missed(held, there).tolist(), expected)
