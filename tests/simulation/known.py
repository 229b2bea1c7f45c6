"""What is left out because the package is known to fail at it; each is to become True, and go.

Attributes:
    PADDED_ROWS: states whose row has padding.  `np.concatenate` drops it, so rows that were kept
        after a failed write can never be given to a store again.
    RECOVERED_ARE_NAMED: a service that gives up while it recovers names those players.
    FLIGHTS_ARE_BOUNDED: while a refused row is kept, sweeps are not remembered one by one.
    IDLE_CONVERSATIONS_ALONE_END: the idle conversation of a player whom the embedding program has
        taken offline, and brought back at another place, ends without taking that player offline.
    LEAVES_END: a leave of the embedding program is answered although the client goes on moving.
    DEAD_THREADS_FOLLOWED: a persist thread that died is followed by the next although the wall
        clock is set back in between.
"""

PADDED_ROWS = True
RECOVERED_ARE_NAMED = False
FLIGHTS_ARE_BOUNDED = False
IDLE_CONVERSATIONS_ALONE_END = True
LEAVES_END = True
DEAD_THREADS_FOLLOWED = False
