"""A server in this process, on a free port of the loopback interface and with a temporary store."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from tempfile import TemporaryDirectory
from typing import Any, Self

import attrs

from playerstate.cli.parameters import Address
from playerstate.conversations.gateway import Gateway
from playerstate.players.service import PlayerStateService
from playerstate.state.schema import StateSchema
from playerstate.stores import browse_store, open_store
from playerstate.transports.plain import PlainService

HOST = "127.0.0.1"


@attrs.frozen(eq=False)
class OwnServer:
    """A running server; reactor thread only.

    Attributes:
        service: the players' service.
        address: where it listens.
    """

    service: PlayerStateService
    address: Address
    _plain: PlainService
    _url: str

    @classmethod
    @contextmanager
    def started(cls, schema: StateSchema, players: int) -> Iterator[Self]:
        """Start a server for so many players; its files are removed at the end of the block."""
        with TemporaryDirectory(prefix="playerstate-") as directory:
            path = os.path.join(directory, "players.db")
            url = f"sqlite:{path}"
            service = PlayerStateService(
                open_store(url, schema), max_players=players, live_file=f"{path}.live"
            )
            service.startService()
            plain = PlainService(Gateway(service), 0, HOST)
            plain.startService()
            yield cls(service, Address(f"{HOST}:{plain.port}", HOST, plain.port), plain, url)

    async def stop(self) -> None:
        """Take every player offline, save all, and close the port and the store."""
        await self._plain.stopService()
        await self.service.stopService()

    def stored(self, session_id: int) -> Mapping[str, Any] | None:
        """A player's plain values in the store, by column; None for one that it does not hold.

        To be called once the server has stopped.
        """
        with closing(browse_store(self._url)) as browser:
            row = browser.find(session_id)
            return None if row is None else dict(zip(browser.columns, row, strict=True))
