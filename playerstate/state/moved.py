"""The fields that a move carries: those that the client owns, in the order of the state class.

The other fields belong to the server: the program around the service sets them, and a move leaves
them as they are.  Nothing here depends on a thread.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from playerstate.state.compiling import compile_accept, compile_read
from playerstate.state.field import Field


class MovedFields:
    """The client's fields of one state class, compiled.

    Args:
        fields: all fields of the class, in order.

    Attributes:
        fields: the client's, in order; empty where the server owns all.
        are_all: whether the client owns every field.
        struct: packs and unpacks their packed values, little-endian, without padding.
        accept: ``accept(value, ...)``, with one packed value for each of them: returns the accepted
            values, or raises `InvalidState`.
        read: ``read(data, at)``: returns the u32 at that offset and the accepted packed values of
            the fields after it, or raises `InvalidState`.
        dtype: of an array of them, packed, by name.
    """

    def __init__(self, fields: Sequence[Field]) -> None:
        self._all = tuple(fields)
        self.fields = tuple(field for field in fields if not field.is_server_owned)
        self.are_all = len(self.fields) == len(fields)
        self._places = [place for place, field in enumerate(fields) if not field.is_server_owned]
        kinds = [field.kind for field in self.fields]

        def refuse(index: int, value: Any) -> NoReturn:
            raise self.fields[index].refusal(value)

        self.struct = struct.Struct("<" + "".join(kind.format for kind in kinds))
        self.accept: Callable[..., tuple[Any, ...]] = compile_accept(kinds, refuse)
        self.read: Callable[[bytes, int], tuple[int, tuple[Any, ...]]] = compile_read(kinds, refuse)
        self.dtype = np.dtype([(field.name, field.kind.dtype) for field in self.fields])

    def accept_many(self, rows: npt.NDArray[np.void]) -> npt.NDArray[np.bool_]:
        """Apply `accept` to many packed rows at once, in place.

        Args:
            rows: an array of `dtype`.

        Returns:
            A mask of the accepted rows; rejected rows are unchanged.
        """
        good = np.ones(len(rows), np.bool_)
        for field in self.fields:
            field.kind.check_column(rows[field.name], good)
        for field in self.fields:
            field.kind.settle_column(rows[field.name], good)
        return good

    def of(self, state: tuple[Any, ...]) -> tuple[Any, ...]:
        """The client's part of the packed values of a whole state."""
        return state if self.are_all else tuple(state[place] for place in self._places)

    def put(self, moved: tuple[Any, ...], state: tuple[Any, ...]) -> tuple[Any, ...]:
        """The packed values of a whole state, with these as the client's part."""
        if self.are_all:
            return moved
        values = list(state)
        for place, value in zip(self._places, moved, strict=True):
            values[place] = value
        return tuple(values)
