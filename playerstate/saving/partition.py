"""Which lane a player's rows go by: always the same, whatever else is going on."""

from __future__ import annotations

import attrs
import numpy as np
import numpy.typing as npt

from playerstate.live.table import Members

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""2**64 divided by the golden ratio: multiplying by it spreads ids that follow each other over the
high bits.  Source: Knuth, The Art of Computer Programming, vol. 3, section 6.4."""


@attrs.frozen
class Partition:
    """Players dealt out to so many lanes by a hash of the session id."""

    lanes: int

    def lane_of(self, session_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The lane of each of these players, from 0 up."""
        high = (session_ids.astype(np.uint64) * _GOLDEN) >> np.uint64(32)
        lane: npt.NDArray[np.int64] = (high % np.uint64(self.lanes)).astype(np.int64)
        return lane

    def members(self, lane: int) -> Members | None:
        """Tells which of some session ids belong to a lane; None where all do."""
        return None if self.lanes == 1 else lambda session_ids: self.lane_of(session_ids) == lane
