"""Keeps the state of every player of a game, and saves it without the game ever waiting.

Programs import from five modules, the *doors*: this one, `playerstate.interfaces` for their own
stores and judges, `playerstate.client` for players, `playerstate.tokens` for login services and
`playerstate.testing` for tests.  The names in their ``__all__`` are public; every other module and
name may change in any version.

Each name of this module is imported on first use: a login service does not load a server, and
``twistd --help`` loads neither.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playerstate.conversations.gateway import Gateway
    from playerstate.conversations.speed import SpeedLimit
    from playerstate.interfaces import StoreBusy, StoreUnusable
    from playerstate.ledger import Counters, Gauges, Ledger, Snapshot
    from playerstate.players.leaves import Progress
    from playerstate.players.listener import PlayersListener
    from playerstate.players.service import (
        Joined,
        NotOnline,
        NotRunning,
        PlayerStateService,
        ServerFull,
        UnknownPlayer,
    )
    from playerstate.runtime import Runtime
    from playerstate.saving.commit import NotSaved
    from playerstate.saving.health import Trouble
    from playerstate.state.default import PlayerState
    from playerstate.state.field import Field, InvalidState
    from playerstate.state.schema import (
        SchemaError,
        StateSchema,
        server_owned,
        text,
        transient,
        was,
        within,
    )
    from playerstate.stores import StoreFactory, open_store
    from playerstate.transports.netcode.addresses import Address
    from playerstate.transports.netcode.limits import Rate
    from playerstate.transports.netcode.service import NetcodeService
    from playerstate.transports.netcode.settings import NetcodeSettings
    from playerstate.transports.netcode.tally import Tally
    from playerstate.transports.plain import PlainService

__all__ = [
    "Address",
    "Counters",
    "Field",
    "Gateway",
    "Gauges",
    "InvalidState",
    "Joined",
    "Ledger",
    "NetcodeService",
    "NetcodeSettings",
    "NotOnline",
    "NotRunning",
    "NotSaved",
    "PlainService",
    "PlayerState",
    "PlayerStateService",
    "PlayersListener",
    "Progress",
    "Rate",
    "Runtime",
    "SchemaError",
    "ServerFull",
    "Snapshot",
    "SpeedLimit",
    "StateSchema",
    "StoreBusy",
    "StoreFactory",
    "StoreUnusable",
    "Tally",
    "Trouble",
    "UnknownPlayer",
    "open_store",
    "server_owned",
    "text",
    "transient",
    "was",
    "within",
]

if not TYPE_CHECKING:  # a type checker knows the names from the imports above
    _NAMES = {
        "conversations.gateway": ["Gateway"],
        "conversations.speed": ["SpeedLimit"],
        "interfaces": ["StoreBusy", "StoreUnusable"],
        "ledger": ["Counters", "Gauges", "Ledger", "Snapshot"],
        "players.leaves": ["Progress"],
        "players.listener": ["PlayersListener"],
        "players.service": [
            "Joined",
            "NotOnline",
            "NotRunning",
            "PlayerStateService",
            "ServerFull",
            "UnknownPlayer",
        ],
        "runtime": ["Runtime"],
        "saving.commit": ["NotSaved"],
        "saving.health": ["Trouble"],
        "state.default": ["PlayerState"],
        "state.field": ["Field", "InvalidState"],
        "state.schema": [
            "SchemaError",
            "StateSchema",
            "server_owned",
            "text",
            "transient",
            "was",
            "within",
        ],
        "stores": ["StoreFactory", "open_store"],
        "transports.netcode.addresses": ["Address"],
        "transports.netcode.limits": ["Rate"],
        "transports.netcode.service": ["NetcodeService"],
        "transports.netcode.settings": ["NetcodeSettings"],
        "transports.netcode.tally": ["Tally"],
        "transports.plain": ["PlainService"],
    }
    _MODULES = {name: module for module, names in _NAMES.items() for name in names}

    def __getattr__(name: str) -> object:
        """Import a public name on first use; it is an attribute from then on."""
        if name not in _MODULES:
            raise AttributeError(f"module 'playerstate' has no attribute {name!r}")
        found: object = getattr(_import_module(f"playerstate.{_MODULES[name]}"), name)
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
