"""Whether the columns of a store fit a state class, and what has to change until they do.

A field has its column by its name, or by the first of its old names that has one, whose column is
renamed; otherwise it gets a new one.  A column of no field stays.  A column of another type, or of
longer texts than the field holds, refuses the class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import attrs

from playerstate.interfaces import StoreUnusable
from playerstate.state.field import Field
from playerstate.state.kind import Column
from playerstate.state.kinds import KINDS
from playerstate.state.schema import StateSchema, folded

_KINDS = {kind.column: kind.name for kind in KINDS}


@attrs.frozen
class Held:
    """A column that a store has.

    Attributes:
        name: as the store has it.
        declared: its type, in the store's words.
        column: its type, if a field may have it.
    """

    name: str
    declared: str
    column: Column | None

    @property
    def holds(self) -> str:
        """The name of the kind that it holds; the type itself if it is none of ours."""
        return self.declared if self.column is None else _KINDS[self.column]


@attrs.frozen
class Change:
    """What has to be done for a field.

    Attributes:
        field: which has no column of its name yet.
        before: the name of the column to be renamed; None if one is to be added.
    """

    field: Field
    before: str | None


def fit(
    place: str,
    schema: StateSchema,
    columns: Sequence[Held],
    longest: Callable[[Sequence[str]], Sequence[int | None]],
    ignores_case: bool = False,
) -> list[Change]:
    """What has to change, in the order of the fields.

    Args:
        place: the store, for messages.
        schema: of the players.
        columns: those that the store has; none for a store to be made.
        longest: asks the store for the longest text in each of these columns, in bytes; None where
            there is none.
        ignores_case: whether the store takes names that differ in case for the same.

    Raises:
        StoreUnusable: the class is refused; the message says what to do.
    """
    if not columns:
        return []
    there = {folded(held.name): held for held in columns} | {held.name: held for held in columns}
    changes, texts = [], {}
    for field in schema.stored:
        held = _find(there, field)
        if held is None:
            changes.append(Change(field, None))
            continue
        if not _is_named(held.name, field.name, ignores_case):
            changes.append(Change(field, held.name))
        if held.column is not field.kind.column:
            raise StoreUnusable(
                f"{place}: field {field.name} is {field.kind.name} now, but its column holds"
                f" {held.holds}; it was left as it is: give the field a new name (the"
                " old column stays), or convert the column first"
            )
        if field.kind.column is Column.TEXT:  # a store does not bound its length
            texts[held.name] = field
    _check_texts(place, texts, longest)
    return changes


def _find(there: Mapping[str, Held], field: Field) -> Held | None:
    """The column of a field, by one of its names; None if it has none yet."""
    for name in (field.name, *field.was):
        held = there.get(name) or there.get(folded(name))
        if held is not None:
            return held
    return None


def _is_named(name: str, wanted: str, ignores_case: bool) -> bool:
    return name == wanted or (ignores_case and folded(name) == folded(wanted))


def _check_texts(
    place: str,
    texts: Mapping[str, Field],
    longest: Callable[[Sequence[str]], Sequence[int | None]],
) -> None:
    """Check that no stored text is longer than its field holds."""
    if not texts:
        return
    for field, size in zip(texts.values(), longest(list(texts)), strict=True):
        if size is not None and size > field.kind.size:
            raise StoreUnusable(
                f"{place}: field {field.name} is {field.kind.canonical} now, but its column holds a"
                f" text of {size} bytes; it was left as it is: make the field text({size}), or"
                " shorten what is stored"
            )


def in_words(changes: Sequence[Change], add: str, rename: str) -> list[str]:
    """The changes as an operator reads them; empty if there are none.

    Args:
        changes: of `fit`.
        add: the verb for new columns, such as ``added``.
        rename: the verb for others, such as ``renamed``.
    """
    added = [change.field.name for change in changes if change.before is None]
    renamed = [
        f"{change.before} to {change.field.name}" for change in changes if change.before is not None
    ]
    return [
        f"{verb} columns {', '.join(names)}"
        for verb, names in ((add, added), (rename, renamed))
        if names
    ]
