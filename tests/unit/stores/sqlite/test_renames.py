"""Renamed fields: their columns are renamed, and keep the players' values."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import attrs
from twisted.logger import capturedLogs, formatEvent

from playerstate.interfaces import Stored, StoreUnusable
from playerstate.state.schema import text, was
from playerstate.stores import open_store
from tests.kit.databases import DirectoryTestCase, digest, records, state_class, take


def renamed(name: str, default: Any, *before: str, size: int = 32) -> type:
    """A state class of one field, which had these names before."""
    metadata = dict(was(*before))
    if isinstance(default, str):
        metadata |= text(size)
    field = attrs.field(default=default, type=type(default), metadata=metadata)
    return attrs.make_class("Made", {name: field}, frozen=True)


class RenameTests(DirectoryTestCase):
    """The start of a class with a renamed field."""

    def save(self, state: type, *players: tuple[Any, ...]) -> None:
        """Prepare the database for this class, and save players."""
        store = open_store(self.url, state)
        take(store)
        with closing(store), closing(store.open_writer()) as writer:
            self.assertEqual(len(writer.write(records(store.schema, *players))), 0)

    def load(self, state: type, session_id: int) -> Stored | None:
        """Prepare the database for this class, and load a player."""
        store = open_store(self.url, state)
        take(store)
        with closing(store), closing(store.open_reader()) as reader:
            return reader.load(session_id)

    def columns(self) -> list[str]:
        """The names of the columns."""
        return [name for (name,) in self.sql("SELECT name FROM pragma_table_info('player_state')")]

    def test_kept(self) -> None:
        """Players keep the values of each kind of field."""
        for default, value in ((1.5, 2.5), (1, 5), (True, False), ("", "öl")):
            self.use(f"{type(default).__name__}.db")
            self.save(state_class(hp=default), (1, value, 10))
            state = renamed("health", default, "hp")
            self.assertEqual(self.load(state, 1), Stored((value,), 10))
            self.save(state, (1, default, 11))
            self.assertEqual(self.load(state, 1), Stored((default,), 11))
            self.assertEqual(self.columns(), ["session_id", "health", "updated_at"])

    def test_logged(self) -> None:
        """The log says which column was renamed."""
        self.save(state_class(hp=1), (1, 5, 10))
        with capturedLogs() as events:
            self.load(renamed("health", 1, "hp"), 1)
        (line,) = map(formatEvent, events)
        self.assertEqual(line, f"{self.path}: renamed columns hp to health")

    def test_names_of_long_ago(self) -> None:
        """Of several old names the first that has a column counts, in any case."""
        self.save(state_class(life=1, hitpoints=2), (1, 5, 6, 10))
        self.assertEqual(self.load(renamed("health", 1, "hp", "HitPoints", "life"), 1).values, (6,))
        self.assertEqual(self.columns(), ["session_id", "life", "health", "updated_at"])

    def test_older_class_in_between(self) -> None:
        """The older class has a column of its own again, which the newer one leaves alone."""
        older, newer = state_class(hp=1), renamed("health", 1, "hp")
        self.save(older, (1, 5, 10))
        self.load(newer, 1)
        self.assertEqual(self.load(older, 1).values, (1,))
        self.save(older, (1, 7, 11))
        self.assertEqual(self.load(newer, 1), Stored((5,), 11))
        self.assertEqual(self.columns(), ["session_id", "health", "updated_at", "hp"])

    def test_new_database(self) -> None:
        """A new database has the new name alone."""
        self.load(renamed("health", 1, "hp"), 1)
        self.assertEqual(self.columns(), ["session_id", "health", "updated_at"])

    def test_does_not_fit(self) -> None:
        """An old column of another type, or with a longer text, refuses the class."""
        self.save(state_class(hp=1, name=""), (1, 5, "x" * 20, 10))
        for state, why in (
            (renamed("health", 1.0, "hp"), "field health is float now, but its column holds int"),
            (renamed("title", "", "name", size=8), "field title is text(8) now"),
        ):
            before = digest(self.path)
            store = open_store(self.url, state)
            with closing(store):
                error = self.assertRaises(StoreUnusable, take, store)
            self.assertIn(why, str(error))
            self.assertEqual(digest(self.path), before)
