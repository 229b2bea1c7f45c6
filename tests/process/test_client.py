"""`PlayerClient` on a real reactor and real sockets, against a real server process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from playerstate import PlayerState
from playerstate.client import Netcode, Phase, Plain, PlayerClient, SentAway
from playerstate.tokens import connect_token, create_key, read_key
from tests.kit.processes import PATIENCE, Server

PROTOCOL_ID = 0x1122334455667788


@pytest.fixture
def directory(tmp_path: Any) -> str:
    """An empty directory with a key in it."""
    create_key(f"{tmp_path}/key")
    return str(tmp_path)


@pytest.fixture
def server(directory: str) -> Iterator[Server]:
    """A server with both transports, that ends with the test."""
    server = Server(
        directory,
        *("--listen", "netcode:0", "--key-file", "key", "--protocol-id", hex(PROTOCOL_ID)),
    )
    yield server
    server.kill()


@pytest.fixture(params=["plain", "netcode"])
def player(request: pytest.FixtureRequest, server: Server, directory: str) -> PlayerClient:
    """A player who has not joined yet, over one of the two."""
    if request.param == "plain":
        return PlayerClient(reactor, PlayerState, Plain(server.address, 42))
    found = server.wait_for(r"listening on udp ([\d.]+):(\d+), netcode")
    address, key = f"{found[1]}:{found[2]}", read_key(f"{directory}/key")

    def get_token() -> bytes:
        # Right after its start a server takes no token that may be older than it is: soon another.
        return connect_token(42, key=key, protocol_id=PROTOCOL_ID, addresses=[address], timeout=1)

    return PlayerClient(reactor, PlayerState, Netcode(get_token))


def soon(waiting: Deferred[Any]) -> Deferred[Any]:
    """The same, which fails in the end."""
    return waiting.addTimeout(PATIENCE, reactor)


@pytest_twisted.ensureDeferred
async def test_a_life(player: PlayerClient) -> None:
    """Join, move, leave saved, and come back: there, to the last bit."""
    place = PlayerState(1 / 3, -2.718281828459045e-300)
    assert await soon(player.join()) == PlayerState()
    player.move(PlayerState(1.0, 2.0))
    player.move(place)
    await soon(player.leave())
    assert player.progress.saved == 2
    assert await soon(player.join()) == place
    assert player.restored
    await soon(player.leave())


@pytest_twisted.ensureDeferred
async def test_server_stops(player: PlayerClient, server: Server) -> None:
    """A server that stops is asked to let the player in again, until that is cancelled."""
    await soon(player.join())
    player.move(PlayerState(1.0, 2.0))
    while player.progress.applied < 1:
        await deferLater(reactor, 0.01)
    server.stop()
    while player._client.phase is Phase.ONLINE:
        await deferLater(reactor, 0.01)
    assert player.is_playing
    leaving = player.leave()
    leaving.addErrback(lambda failure: failure.trap(CancelledError, SentAway))
    leaving.cancel()
    await soon(leaving)
    assert not player.is_playing
