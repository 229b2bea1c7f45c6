"""Which lane takes a player's rows: the same in every run, whatever other players are online."""

from __future__ import annotations

import attrs
import numpy as np

from playerstate.saving.ring import Rows

_GOLDEN = 0x9E3779B97F4A7C15
"""2**64 divided by the golden ratio: multiplying by it spreads consecutive ids over the high bits.
Source: Knuth, The Art of Computer Programming, vol. 3, section 6.4."""


@attrs.frozen
class Partition:
    """Distributes players over `lanes` lanes by a hash of the session id."""

    lanes: int

    def lane_of(self, session_id: int) -> int:
        """The lane of a player, from 0 up."""
        return ((session_id * _GOLDEN & 0xFFFF_FFFF_FFFF_FFFF) >> 32) % self.lanes

    def of_lane(self, lane: int, rows: Rows) -> Rows:
        """The rows of this lane's players, in the order given."""
        if self.lanes == 1:
            return rows
        hashes = rows["session_id"].astype(np.uint64) * np.uint64(_GOLDEN) >> np.uint64(32)
        mine: Rows = rows[hashes % np.uint64(self.lanes) == lane]
        return mine
