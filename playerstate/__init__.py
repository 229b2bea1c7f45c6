"""Keeps where every player of a game stands, and saves it without the game ever waiting."""

from playerstate.interfaces import StoreBusy, StoreUnusable
from playerstate.players.leaves import Progress
from playerstate.players.service import (
    Joined,
    NotOnline,
    NotRunning,
    PlayerStateService,
    ServerFull,
)
from playerstate.runtime import Runtime
from playerstate.saving.commit import NotSaved
from playerstate.state.default import PlayerState
from playerstate.state.schema import InvalidState, SchemaError, StateSchema, text, within
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
    "Runtime",
    "SchemaError",
    "ServerFull",
    "StateSchema",
    "StoreBusy",
    "StoreUnusable",
    "open_store",
    "text",
    "within",
]
