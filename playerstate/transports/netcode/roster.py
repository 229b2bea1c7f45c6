"""The clients connected to one netcode server: by source, by client id, and the slots they take."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from playerstate.transports.netcode.connections import Connection, HalfOpen, Source
from playerstate.transports.netcode.roaming import Roaming


class Roster:
    """The connections of one server, from its start to its stop.

    Args:
        slots: the most clients at a time.
        random_bytes: returns so many random bytes.

    Attributes:
        by_source: the connections by their source.  Read for each packet; changed here only.
        by_client: the same by client id.
        roaming: the same by address without the port.
    """

    def __init__(self, slots: int, random_bytes: Callable[[int], bytes]) -> None:
        self.by_source: dict[Source, Connection] = {}
        self.by_client: dict[int, Connection] = {}
        self.roaming = Roaming(random_bytes)
        self._free_slots = list(range(slots))

    def __len__(self) -> int:
        return len(self.by_source)

    @property
    def is_full(self) -> bool:
        """Whether no slot is free."""
        return not self._free_slots

    def add(self, half: HalfOpen, source: Source, now: float) -> Connection:
        """Connect a client, in the lowest free slot; neither it nor another is connected there."""
        token = half.token
        connection = Connection(
            client_id=token.client_id,
            user_data=token.user_data,
            source=source,
            slot=heapq.heappop(self._free_slots),
            timeout=token.timeout_seconds,
            opener=half.opener,
            sealer=half.sealer,
            number=half.number,
            began_at=now,
            heard_at=now,
            spoke_at=now,
            payload_at=now,
            payloads_full_at=now,
        )
        self.by_source[source] = self.by_client[token.client_id] = connection
        self.roaming.add(connection)
        return connection

    def remove(self, connection: Connection) -> None:
        """Accept no more of a connection's packets, and free its slot."""
        self.roaming.remove(connection)
        del self.by_source[connection.source]
        del self.by_client[connection.client_id]
        heapq.heappush(self._free_slots, connection.slot)

    def move(self, connection: Connection, source: Source) -> None:
        """Move a connection to another port of its client, where no client is connected."""
        del self.by_source[connection.source]
        self.by_source[source] = connection
        connection.source = source  # the same host and local port, so `roaming` stays valid
