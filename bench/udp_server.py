"""A server in a process of its own: ``python -m bench.udp_server KIND PLAYERS DIRECTORY``.

It says its port and how many datagrams its socket can hold, and keeps a `Counter` up to date.  One
whose program changes players does so from a line `CHANGE` to a line `REST`, and answers the latter
with what came of it.
"""

from __future__ import annotations

import os
import socket
import sys
import types
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.protocol import DatagramProtocol

from bench.children import hold, say
from bench.counter import Counter
from bench.netcode_clients import KEY, LIFETIME, PROTOCOL_ID
from bench.ours import HERO_SCHEMA, SCHEMA
from bench.program import Program
from bench.upsert import SYNCHRONOUS
from playerstate.conversations.gateway import Gateway
from playerstate.players.service import PlayerStateService
from playerstate.stores.sqlite.store import SQLiteStore
from playerstate.transports.netcode.service import NetcodeService
from playerstate.transports.netcode.settings import NetcodeSettings
from playerstate.transports.plain import PlainService

OURS, NO_OP, CARBON, NETCODE = "playerstate", "no-op", "carbon", "netcode"
OWNED, CHANGED = "owned", "changed"
"""Ours, with a field that the server owns; and with a program that changes players besides."""
SCHEMAS = {OURS: SCHEMA, NETCODE: SCHEMA, OWNED: HERO_SCHEMA, CHANGED: HERO_SCHEMA}
CHANGE, REST = "change", "rest"
RECEIVE_BUFFER = 4 * 2**20
DATAGRAM_BYTES = 1_280
"""The system counts some 768 bytes for a small datagram; this leaves room."""
IDLE_TIMEOUT = 3_600.0
_SO_RCVBUFFORCE = 33

Count = Callable[[], int]


def main() -> None:
    """Serve until the parent ends."""
    kind, players, directory = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    lines: dict[str, Callable[[], None]] = {}
    hold(lambda line: reactor.callFromThread(lines[line]))
    from twisted.internet import reactor

    serve = {
        OURS: _serve_ours,
        OWNED: partial(_serve_ours, kind=OWNED),
        CHANGED: partial(_serve_changed, lines=lines),
        NETCODE: _serve_netcode,
        NO_OP: _serve_nothing,
        CARBON: _serve_carbon,
    }[kind]
    port, count = serve(reactor, players, directory)
    path = os.path.join(directory, f"{kind}-{players}.counter")
    Counter(path, new=True).publish(reactor, count)
    say({"port": port, "window": _window(), "counter": path})
    reactor.run(installSignalHandlers=False)


def _serve_ours(reactor: Any, players: int, directory: str, kind: str = OURS) -> tuple[int, Count]:
    """What ``twistd playerstate`` runs: gateway, live file, SQLite and the persist thread."""
    gateway = _gateway(players, directory, kind)
    plain = PlainService(gateway, 0, reactor=reactor)
    plain.startService()
    return plain.port, lambda: gateway.service.ledger.applied


def _serve_changed(
    reactor: Any, players: int, directory: str, lines: dict[str, Callable[[], None]]
) -> tuple[int, Count]:
    """The same with a program that changes players; its count is that of moves, refused or not."""
    gateway = _gateway(players, directory, CHANGED)
    plain = PlainService(gateway, 0, reactor=reactor)
    plain.startService()
    ledger = gateway.service.ledger
    program = Program(reactor, gateway.service, players)

    def figures() -> dict[str, int]:
        return {
            "applied": ledger.applied - program.changes,
            "rejected": sum(ledger.rejected.values()) + ledger.stale,
            "changes": program.changes,
            "states": ledger.states,
        }

    before = figures()

    def change() -> None:
        before.update(figures())
        program.start()

    def rest() -> None:
        program.stop()
        say({name: value - before[name] for name, value in figures().items()})

    lines.update({CHANGE: change, REST: rest})
    return plain.port, lambda: ledger.received - program.changes


def _serve_netcode(reactor: Any, players: int, directory: str) -> tuple[int, Count]:
    """The same behind netcode."""
    gateway = _gateway(players, directory, NETCODE)
    settings = NetcodeSettings(
        KEY, PROTOCOL_ID, slots=players, max_token_lifetime=LIFETIME, clock_skew=0.0
    )
    netcode = NetcodeService(gateway, settings, [(0, "127.0.0.1")], reactor=reactor)
    netcode.startService()
    [port] = netcode.ports
    return port, lambda: gateway.service.ledger.applied


def _gateway(players: int, directory: str, kind: str) -> Gateway:
    database = os.path.join(directory, f"{kind}-{players}.db")
    service = PlayerStateService(
        SQLiteStore(database, SCHEMAS[kind], SYNCHRONOUS),
        queue_size=1 << players.bit_length(),
        max_players=players,
        live_file=f"{database}.live",
    )
    service.startService()
    return Gateway(service, idle_timeout=IDLE_TIMEOUT)


class _NoOp(DatagramProtocol):
    """Takes datagrams and counts them."""

    count = 0

    def datagramReceived(self, datagram: bytes, address: Any) -> None:
        """One more."""
        self.count += 1


def _serve_nothing(reactor: Any, players: int, directory: str) -> tuple[int, Count]:
    protocol = _NoOp()
    return _listen(reactor, protocol), lambda: protocol.count


def _serve_carbon(reactor: Any, players: int, directory: str) -> tuple[int, Count]:
    """carbon's own pipeline from its UDP listener into its cache; its writer is not started."""
    # carbon.routers imports it for plugins that are not installed here; Python 3.12 removed it.
    sys.modules.setdefault("imp", types.ModuleType("imp"))
    import carbon.service
    from carbon import instrumentation
    from carbon.conf import settings
    from carbon.protocols import MetricDatagramReceiver

    for name in ("storage-schemas.conf", "storage-aggregation.conf"):
        open(os.path.join(directory, name), "w").close()
    settings.update(program="carbon-cache", instance="bench", CONF_DIR=directory)
    carbon.service.setupPipeline(["write"], carbon.service.CarbonRootService(), settings)
    stats = instrumentation.stats
    return _listen(reactor, MetricDatagramReceiver()), lambda: stats.get("metricsReceived", 0) // 2


def _listen(reactor: Any, protocol: DatagramProtocol) -> int:
    port = reactor.listenUDP(0, protocol, "127.0.0.1")
    _enlarge(port.getHandle())
    number: int = port.getHost().port
    return number


def _enlarge(handle: socket.socket) -> int:
    """As large a buffer as ours asks for; what the system counts against it, in bytes."""
    try:
        handle.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER)
    except OSError:
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    return handle.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


def _window() -> int:
    """How many datagrams may be on their way to a socket and none of them be dropped."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as like:
        return _enlarge(like) // DATAGRAM_BYTES


if __name__ == "__main__":
    main()
