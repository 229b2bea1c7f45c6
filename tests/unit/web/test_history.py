"""The last ten minutes, one row a second."""

from __future__ import annotations

from playerstate import NotRunning
from playerstate.web.history import COLUMNS, ROWS, History
from tests.kit.players import ServiceTestCase, at


class HistoryTests(ServiceTestCase):
    """Rows of a service."""

    def setUp(self) -> None:
        """A service with a player, and its history."""
        super().setUp()
        self.stepped = self.start()
        self.stepped.join(42)
        self.history = History(self.stepped.service, lambda: 1_700_000_000.0)

    def second(self) -> None:
        """A second passes."""
        self.stepped.reactor.advance(1.0)
        self.stepped.settle()

    def newest(self) -> dict[str, float | None]:
        """The newest row, by the names of its columns."""
        return dict(zip(COLUMNS, self.history.rows[-1], strict=True))

    def test_quiet(self) -> None:
        """A second in which nothing happens has no mean of its commits."""
        self.history.follow()
        self.second()
        row = self.newest()
        self.assertEqual((row["at"], row["players_online"]), (1_700_000_000.0, 1))
        self.assertEqual((row["moves"], row["commits"]), (0.0, 0))
        self.assertEqual((row["commit_rows"], row["commit_seconds"]), (None, None))

    def test_moves_and_commits(self) -> None:
        """What happened in a second stands in its row, and in no other."""
        self.history.follow()
        for x in range(7):
            self.stepped.service.update(42, at(x))
        self.stepped.service.flush()
        self.stepped.settle()
        self.second()
        row = self.newest()
        self.assertEqual((row["moves"], row["commits"], row["commit_rows"]), (7.0, 1, 1.0))
        self.assertIsNotNone(row["commit_seconds"])
        self.second()
        self.assertEqual(self.newest()["moves"], 0.0)

    def test_followed_twice(self) -> None:
        """To follow it again takes no second row."""
        self.history.follow()
        self.history.follow()
        self.second()
        self.assertEqual(len(self.history.rows), 1)

    def test_since(self) -> None:
        """A page gets the rows that it does not have, and no more than are kept."""
        self.history.follow()
        for _ in range(5):
            self.second()
        self.assertEqual(self.history.since(5), [])
        self.assertEqual(self.history.since(3), list(self.history.rows)[3:])
        self.assertEqual(self.history.since(0), list(self.history.rows))

    def test_ten_minutes(self) -> None:
        """Ten minutes are kept."""
        self.history.follow()
        for _ in range(ROWS + 10):
            self.stepped.reactor.advance(1.0)
        self.assertEqual((len(self.history.rows), self.history.taken), (ROWS, ROWS + 10))
        self.assertEqual(len(self.history.since(0)), ROWS)

    def test_next_run(self) -> None:
        """No row is taken of a service that has stopped, and the next run is followed anew."""
        self.history.follow()
        self.successResultOf(self.stepped.stop())
        self.stepped.reactor.advance(10.0)
        self.assertEqual(len(self.history.rows), 0)
        self.assertRaises(NotRunning, self.history.follow)
