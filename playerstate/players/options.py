"""The options of a service, checked."""

from __future__ import annotations

import os

import attrs

from playerstate.arguments import check_seconds, check_whole
from playerstate.interfaces import MOST_LANES, IStateStore, file_store
from playerstate.live.names import check_apart


@attrs.frozen
class Options:
    """The options of a service; see `playerstate.players.service.PlayerStateService`."""

    store: IStateStore
    save_within: float
    queue_size: int
    max_players: int
    stop_within: float
    live_file: str | None

    @classmethod
    def checked(
        cls,
        store: IStateStore,
        save_within: float,
        queue_size: int,
        max_players: int,
        stop_within: float,
        live_file: str | os.PathLike[str] | None,
    ) -> Options:
        """The options, each checked for its type and range.

        Raises:
            TypeError, ValueError: an option is wrong; the message names it.
        """
        save_within = check_seconds("save_within", save_within, 0.1, 86_400.0)
        max_players = check_whole("max_players", max_players, 1, 2**24)
        queue_size = check_whole("queue_size", queue_size, 2, 2**24)
        stop_within = check_seconds("stop_within", stop_within, 0.0, 86_400.0)
        if queue_size & (queue_size - 1):
            raise ValueError(f"queue_size {queue_size} is not a power of two")
        if isinstance(store, (str, bytes, os.PathLike)):
            raise TypeError(f"{store!r} is not a store: pass open_store(URL, STATE_CLASS)")
        check_whole("lanes of the store", getattr(store, "lanes", None), 1, MOST_LANES)
        if live_file is not None:
            live_file = os.fspath(live_file)
            files = file_store(store)
            check_apart(live_file, () if files is None else files.files)
        return cls(store, save_within, queue_size, max_players, stop_within, live_file)
