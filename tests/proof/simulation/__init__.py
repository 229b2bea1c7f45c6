"""The whole service on a clock, a network and a store that do what a seed says.

A run draws everything from ``random.Random(seed)``: how many players there are, how large the ring
is, what the network loses, when the store fails, when the process dies.  The real gateway, service,
persister and live file live in it, with nothing of their own replaced; beside them a model of plain
values says what must have become of every datagram and every call.  After each step the two are
compared, and whatever `docs` promise to hold always is looked at.

- `plan`: what a seed decides once.
- `world`: time, the reactor, the persist thread, what has happened.
- `network`, `store`: datagrams on their way; a store that fails, stalls and half-finishes.
- `players`, `model`, `promises`: what must be of players, and of those who wait for them.
- `conversations`, `judge`, `answers`: what must be of conversations, of what comes in, of what is
  sent.
- `move_judge`: a judge of moves, which the gateway of some seeds has.
- `checks`: what always holds.
- `server`: one process's life, from start to stop or crash.
- `clients`, `program`, `faults`: who does something next.
- `simulation`: one seed from beginning to end.

``python -m tests.proof.simulation --seeds 1000 --from 0`` runs many; a seed that fails runs again
alone.
"""
