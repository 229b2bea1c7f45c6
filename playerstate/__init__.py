"""Keeps where every player of a game stands, and saves it without the game ever waiting."""

from playerstate.interfaces import StoreBusy, StoreUnusable
from playerstate.leaves import Progress
from playerstate.outbox import NotSaved, Surroundings
from playerstate.schema import InvalidState, SchemaError, StateSchema, text, within
from playerstate.service import (
    Joined,
    NotOnline,
    NotRunning,
    PlayerStateService,
    ServerFull,
)
from playerstate.state import PlayerState
from playerstate.stores import open_store

__all__ = [
    "InvalidState",
    "Joined",
    "NotOnline",
    "NotRunning",
    "NotSaved",
    "PlayerState",
    "PlayerStateService",
    "Progress",
    "SchemaError",
    "ServerFull",
    "StateSchema",
    "StoreBusy",
    "StoreUnusable",
    "Surroundings",
    "open_store",
    "text",
    "within",
]
