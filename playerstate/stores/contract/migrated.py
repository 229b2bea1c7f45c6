"""A store follows its state class."""

from __future__ import annotations

import itertools
from contextlib import closing
from typing import Any

import attrs

from playerstate.interfaces import (
    Stored,
    StoreUnusable,
)
from playerstate.state.schema import StateSchema, text, was
from playerstate.stores.contract.base import StoreTestCase
from playerstate.stores.contract.states import (
    IDENTITY,
    state_class,
)


class MigratedTests(StoreTestCase):
    """One state class after another on the same store."""

    def assert_refused(self, state: type) -> None:
        """This state class is refused, in one line."""
        store = self.open(StateSchema.of(state))
        self.wait(store.prepare())
        with closing(store):
            try:
                self.wait(store.migrate(IDENTITY))
            except StoreUnusable as error:
                self.assertEqual(len(str(error).splitlines()), 1)
            else:
                self.fail(f"{state} was not refused")

    def test_new_fields(self) -> None:
        """Players who are stored have the default of each field that is new."""
        self.fitted(state_class(x=1.5), (7, 2.5, 10))
        self.start(StateSchema.of(state_class(x=1.5, hp=100, alive=True, zone="a 'b' \\ %s")))
        self.assertEqual(self.load(7), Stored((2.5, 100, True, "a 'b' \\ %s"), 10))
        self.assertEqual(self.write((7, 3.5, 1, False, "", 11)), [])
        self.assertEqual(self.load(7), Stored((3.5, 1, False, ""), 11))

    def test_removed_field(self) -> None:
        """What a field held is there again where an older class comes back."""
        older, newer = state_class(x=1.5, hp=100), state_class(x=1.5)
        self.fitted(older, (7, 2.5, 42, 10))
        self.fitted(newer, (7, 3.5, 11), (8, 4.5, 11))
        self.start(StateSchema.of(older))
        self.assertEqual(self.load(7), Stored((3.5, 42), 11))
        self.assertEqual(self.load(8), Stored((4.5, 100), 11))

    def test_order_of_fields_changed(self) -> None:
        """Fields are matched by their names."""
        self.fitted(state_class(x=1.5, y=2.5), (7, 3.5, 4.5, 10))
        self.start(StateSchema.of(state_class(y=0.0, x=0.0)))
        self.assertEqual(self.load(7), Stored((4.5, 3.5), 10))
        self.assertEqual(self.write((7, 5.5, 6.5, 11)), [])
        self.assertEqual(self.load(7), Stored((5.5, 6.5), 11))

    def test_renamed_field(self) -> None:
        """A renamed field has what it held under its old name."""
        self.fitted(state_class(x=1.5, hp=100), (7, 2.5, 42, 10))
        field = attrs.field(default=1, type=int, metadata=was("life", "hp"))
        renamed = attrs.make_class(
            "Made", {"x": attrs.field(default=0.0, type=float), "health": field}, frozen=True
        )
        self.start(StateSchema.of(renamed))
        self.assertEqual(self.load(7), Stored((2.5, 42), 10))

    def test_changed_kind(self) -> None:
        """A field of another kind is refused, and the older class finds everything as it was."""
        examples: dict[str, Any] = {"float": 1.5, "int": 1, "bool": True, "text": "a"}
        self.fitted(state_class(**{f"a_{name}": value for name, value in examples.items()}))
        for before, after in itertools.permutations(examples, 2):
            self.assert_refused(state_class(**{f"a_{before}": examples[after], "more": 1}))
        self.start(StateSchema.of(state_class(a_float=1.5, a_int=1, a_bool=True, a_text="a")))
        self.write((7, 2.5, 2, False, "b", 1))
        self.assertEqual(self.load(7), Stored((2.5, 2, False, "b"), 1))

    def test_shorter_text(self) -> None:
        """A text that became shorter than what is stored is refused; a longer one is not."""

        def with_text(size: int) -> type:
            field = attrs.field(default="", type=str, metadata=text(size))
            return attrs.make_class("Made", {"name": field}, frozen=True)

        self.fitted(with_text(8), (7, "öööö", 1))
        self.assert_refused(with_text(7))
        self.fitted(with_text(16), (8, "0123456789abcdef", 1))
        self.start(StateSchema.of(with_text(16)))
        self.assertEqual(self.load(7), Stored(("öööö",), 1))
