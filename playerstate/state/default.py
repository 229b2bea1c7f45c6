"""The default state class, and how a state class is loaded by name."""

import importlib
import os
import sys

import attrs

from playerstate.state.schema import SchemaError, StateSchema


@attrs.frozen
class PlayerState:
    """A player's position; the defaults are where a player spawns.

    Attributes:
        x, y: the coordinates, in the game's own units.
    """

    x: float = 350.0
    y: float = 200.0


DEFAULT_STATE = "playerstate:PlayerState"


def load_schema(name: str) -> StateSchema:
    """Load the state class named ``MODULE:CLASS`` and compile its schema.

    The working directory is on the import path, as it is for ``python -m``.

    Raises:
        SchemaError: there is no such class, or it cannot be packed; the message is one line.
    """
    module_name, _, class_name = name.partition(":")
    if not (module_name and class_name):
        raise SchemaError("must be MODULE:CLASS, such as mygame.state:Avatar")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # running a module may raise anything
        raise SchemaError(
            f"cannot import {module_name}: {type(error).__name__}: {error}; must be MODULE:CLASS,"
            " and is looked for from the working directory"
        ) from error
    if not hasattr(module, class_name):
        raise SchemaError(f"{module_name} has no {class_name}; must be MODULE:CLASS")
    return StateSchema.of(getattr(module, class_name))
