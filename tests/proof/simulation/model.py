"""What must be true of players, in plain values.

The model is told of every update, join and leave as it is made, and says from the rules alone what
follows.  What only the store can know it takes from the store itself: which rows are in it.
"""

from __future__ import annotations

import math
from typing import Any

from playerstate.interfaces import Stored
from playerstate.live.table import LiveTable
from playerstate.players.run import LEFT_KEPT
from playerstate.players.service import Joined
from tests.proof.simulation.intents import Intents
from tests.proof.simulation.plan import Plan, values_of
from tests.proof.simulation.players import Counts, Player, Values
from tests.proof.simulation.store import Storm
from tests.proof.simulation.world import World


def changed(values: Values, packed: dict[int, Any]) -> Values:
    """These packed values with others at some positions."""
    return tuple(packed.get(place, value) for place, value in enumerate(values))


class Model:
    """All players.

    Attributes:
        players: by session id.
        intents: what clients meant by their moves.
        counts: of the running process; `new_process` begins them anew.
        recoverable: how many players the live file may hold that a process before left.
        recovering: whether what a process before left is still being saved.
        lost_allowed: whether the service has said that it gave up.
        new_until: until when what was sent to an earlier process may still come.
    """

    def __init__(self, world: World, plan: Plan, store: Storm) -> None:
        self._world = world
        self._plan = plan
        self._store = store
        self._schema = store.schema
        self.intents = Intents(world, self._schema)
        self.players = {i: Player(i, self._schema.spawn) for i in plan.players}
        self.counts = Counts()
        self.recovering = False
        self.recoverable = 0
        self._entering: set[int] = set()
        self.new_until = math.inf
        self.lost_allowed = False
        self._stamp = 0
        store.keeper = self

    def next_values(self) -> Values:
        """A state that nobody ever had before."""
        self._stamp += 1
        return values_of(self._stamp, self._plan.state)

    def some_values(self, session_id: int) -> Values:
        """A new state mostly; else one that this player had before, or the spawn."""
        random = self._world.random
        past = tuple(self.players[session_id].history.values())
        if past and random.random() < 0.2:
            return random.choice(past)
        return self._schema.spawn if random.random() < 0.05 else self.next_values()

    def stored(self, player: Player) -> Stored | None:
        """What the store holds of this player, with packed values."""
        stored = self._store.players.get(player.session_id)
        if stored is None:
            return None
        return Stored(self._schema.encode(stored.values), stored.updated_at)

    def stored_at(self, player: Player) -> int:
        """How new the state is that the store holds of this player."""
        stored = self._store.players.get(player.session_id)
        return 0 if stored is None else stored.updated_at

    def reached(self, player: Player, updated_at: int) -> bool:
        """Whether that state is in the store, or one newer, or it was given up and reported."""
        return max(self.stored_at(player), player.given_up) >= updated_at

    def _due_date(self, player: Player, is_odd: bool) -> int:
        """When an update that is made now must be dated: later than the last, even or odd."""
        now, least = self._world.wall_clock() // 1000, player.updated_at + 1
        return max(now - now % 2 + is_odd, least + (least % 2 != is_odd))

    def apply(self, player: Player, sequence: int, values: Values, came_by: str) -> None:
        """An update is taken in, which came by a ``move``, a ``delta`` or the program.

        The date is odd from an ``override`` until the next move; a ``change`` of fields that the
        server owns leaves that as it is.
        """
        is_odd = came_by == "override" or (came_by == "change" and player.is_overridden)
        if came_by != "change":
            player.came_by = came_by
        player.before = player.newest
        player.updated_at = self._due_date(player, is_odd)
        if came_by == "override":
            player.overrides.append(player.updated_at)
            player.unseen = True
        player.values = player.history[player.updated_at] = values
        player.applied_at.append((player.updated_at, self._world.now))
        player.sequence = sequence
        player.numbers.setdefault(sequence, player.updated_at)
        self.counts.received += 1
        self.counts.applied += 1

    def change(self, player: Player, packed: dict[int, Any]) -> bool:
        """The program sets fields of a player; return whether some of them are the client's."""
        is_override = not all(self._schema.fields[at].is_server_owned for at in packed)
        came_by = "override" if is_override else "change"
        self.apply(player, player.sequence, changed(player.values, packed), came_by)
        return is_override

    def put_back(self, player: Player) -> None:
        """A judge rejects a move: the player stays, and the client is to be told so."""
        self.apply(player, player.sequence, player.values, "override")

    def seen(self, player: Player, sequence: int) -> None:
        """The client has seen an override: what it sent up to this sequence is stale."""
        player.came_by, player.unseen = "join", False
        player.sequence, player.saved = max(player.sequence, sequence), 0
        player.numbers = {player.sequence: player.updated_at}

    def edit(
        self, player: Player, packed: dict[int, Any], create: bool
    ) -> tuple[bool, bool | None]:
        """Fields of a player are to be changed, online or not.

        Returns:
            Whether that can be, and what `change` returns; None where nothing is changed.
        """
        if player.slot is None:
            stored = self.stored_at(player)
            if not stored and not create:
                self.counts.refuse("not_online")
                return False, None
            if stored and not packed:
                return True, None
            if stored > player.updated_at:
                self._take_newest(player)
            player.leaving = player.never_joined = True
            player.unseen = False
            player.sequence = player.saved = 0
            player.numbers = {0: player.updated_at}
        elif not packed:
            return True, None
        return True, self.change(player, packed)

    def leave(self, player: Player) -> None:
        """A player is taken offline, as `PlayerStateService.leave` does."""
        if player.slot is not None:
            player.leaving = True

    def enter(
        self,
        player: Player,
        sequence: int | None,
        slot: int,
        table: LiveTable,
        again: bool = False,
    ) -> None:
        """A player has joined, or joined anew; None for a program that gives no number.

        Args:
            player: who.
            sequence: of the join.
            slot: where in the live table.
            table: the live table.
            again: whether a conversation with the same nonce ended before.
        """
        check, stored = self._world.check, self.stored_at(player)
        if player.slot is None and stored > player.updated_at:
            self._take_newest(player)
        check(player.slot in (None, slot), "player", player.session_id, "has changed places")
        check(not self.recovering, "player", player.session_id, "joined during recovery")
        if sequence is None:
            sequence = 0 if player.slot is None else player.sequence
        if player.slot is None or sequence != player.sequence:
            player.came_by = "join"
        if player.slot is None:
            self.admitted(player, bool(table.unseen[slot]), again)
        elif again:
            player.unseen |= player.is_overridden
        player.slot, player.leaving, player.never_joined = slot, False, False
        player.sequence, player.saved = sequence, 0
        player.numbers = {sequence: player.updated_at}
        self.counts.joins += 1
        self.counts.restored += player.updated_at != 0

    def admitted(self, player: Player, unseen: bool, again: bool = False) -> None:
        """A player came into the table; whether an override counts as one that no client has seen.

        It does where what was sent to a process that died may still come, or to a conversation with
        the same nonce.
        """
        is_late = self._world.now > self.new_until - 1.0
        due = player.is_overridden and (again or player.was_online is not False)
        was_online = player.was_online is True and player.left_at == player.updated_at
        is_sure = again or (was_online and not is_late)
        self._world.check(
            unseen == due or not (unseen or is_sure),
            *("player", player.session_id, "of", player.updated_at, "is in, to be told:", unseen),
        )
        player.unseen, player.was_online = unseen, False

    def check_joined(self, player: Player, values: object, restored: bool, at: int) -> None:
        """A join must find the newest state."""
        self._world.check(
            (values, restored, at) == (player.values, player.updated_at != 0, player.updated_at),
            *("player", player.session_id, "joined at", values, restored, at),
            *("instead of", player.values, player.updated_at),
        )

    def joined(
        self, player: Player, joined: Joined, sequence: int | None, table: LiveTable
    ) -> None:
        """The embedding program's join was answered."""
        self.enter(player, sequence, table.slots[player.session_id], table)
        values = self._schema.values(joined.state)
        self.check_joined(player, values, joined.restored, joined.updated_at)

    def check_saved(self, player: Player, saved: int) -> None:
        """What is called saved must be in the store."""
        if saved == 0:
            return
        check, name = self._world.check, ("player", player.session_id)
        check(saved in player.numbers, *name, "saved", saved, "of", player.numbers)
        needed, stored = player.numbers[saved], self.stored_at(player)
        check(stored >= needed, *name, "saved", saved, "at", needed, "but the store has", stored)

    def look(self, table: LiveTable) -> None:
        """Find who was let go of, and whether that was right."""
        for player in self.players.values():
            if player.slot is not None and player.session_id not in table.slots:
                self._released(player)

    def _released(self, player: Player) -> None:
        name, check = ("player", player.session_id), self._world.check
        check(player.leaving, *name, "was let go of without leaving")
        check(
            self.reached(player, player.updated_at),
            *(*name, "was let go of at", player.updated_at),
            *("while the store has", self._store.players.get(player.session_id)),
        )
        player.slot, player.leaving, player.unseen = None, False, False
        if self.stored_at(player) != player.updated_at:
            self._take_newest(player)

    def _take_newest(self, player: Player) -> None:
        """From here on, what the store holds is the newest there is."""
        player.take(self.stored(player), self._schema.spawn)

    def written(self, session_id: int, before: Stored | None, after: Stored) -> None:
        """A row is in the store now."""
        player, check = self.players[session_id], self._world.check
        check(
            player.history.get(after.updated_at) == self._schema.encode(after.values),
            *("player", session_id, "was never", after, "but the store holds it"),
        )
        check(
            before is None or before.updated_at <= after.updated_at,
            *("player", session_id, "goes back in the store, from", before, "to", after),
        )

    def write_elsewhere(self, player: Player, updated_at: int) -> None:
        """Another program writes a player's row."""
        values = self.next_values()
        player.elsewhere, player.history[updated_at] = updated_at, values
        if updated_at % 2:
            player.overrides.append(updated_at)
        stored = Stored(self._schema.decode(values), updated_at)
        self._store.write_elsewhere(player.session_id, stored)

    def left_out(self, session_id: int, updated_at: int) -> None:
        """A row was settled without being stored."""
        player = self.players[session_id]
        player.given_up = max(player.given_up, updated_at)
        player.given_up_at = self._world.now

    def tear(self, session_id: int, updated_at: int) -> None:
        """The process dies while it writes this row, which may or may not be whole."""
        player = self.players[session_id]
        self._entering.add(session_id)
        is_newest = bool(player.applied_at) and player.applied_at[-1][1] == self._world.now
        if player.never_joined and player.updated_at > updated_at and is_newest:
            # The player dies on being admitted, before the edit is written.
            player.take(player.before, self._schema.spawn)
            return
        if player.updated_at != updated_at or updated_at not in player.history:
            return
        if player.applied_at and player.applied_at[-1] == (updated_at, self._world.now):
            player.torn, before = player.newest, player.before
            player.take(before, self._schema.spawn)

    def died(self, live_file: bool) -> None:
        """The process is no more; a live file keeps what was applied, for the next."""
        if not self.recovering:
            players = [p.session_id for p in self.players.values() if p.slot is not None]
            self.recoverable = len({*players, *self._entering})
        for player in self.players.values():
            if not live_file:
                player.torn = None
                self._settle_for_stored(player)
            elif player.slot is not None:
                # It is given to the store once more.
                player.given_up = 0
            if not live_file:
                player.was_online = False
            elif not self.recovering:
                player.left_at = player.updated_at
                is_entering = player.session_id in self._entering
                player.was_online = (
                    True if player.slot is not None else None if is_entering else False
                )
            player.slot, player.leaving, player.unseen = None, False, False
        self._entering.clear()
        self.recovering = live_file

    def new_process(self) -> None:
        """A process has started."""
        self.counts = Counts()

    def begin(self) -> None:
        """The service starts, in a process that may go on."""
        self.lost_allowed = False
        self.new_until = self._world.now + LEFT_KEPT
        for player in self.players.values():
            if player.was_online is not True:
                self.intents.forget(player.session_id)
            player.applied_at.clear()
            player.numbers.clear()

    def recovered(self) -> None:
        """What a process before left is said to be saved: nothing applied may be missing."""
        self.recovering = False
        self.new_until = self._world.now + LEFT_KEPT
        for player in self.players.values():
            allowed, stored = [player.newest], self.stored(player)
            if player.torn is not None:
                allowed.append(player.torn)
            elsewhere = player.elsewhere > player.updated_at
            self._world.check(
                stored in allowed or player.given_up >= player.updated_at or elsewhere,
                *("player", player.session_id, "was at", allowed, "and is recovered at", stored),
            )
            player.torn = None
            self._settle_for_stored(player)
        self._world.check(
            not self._store.unsynced,
            *("recovered, but not known to be on disk:", self._store.unsynced),
        )

    def _settle_for_stored(self, player: Player) -> None:
        """What the store does not hold is gone, and may never be seen again."""
        self._take_newest(player)
        player.history = {
            updated_at: values
            for updated_at, values in player.history.items()
            if updated_at <= player.updated_at
        }
        player.overrides = [each for each in player.overrides if each <= player.updated_at]

    def stopped(self, gave_up: bool, live_file: bool, named: str) -> None:
        """The service has stopped in order."""
        for player in self.players.values():
            missing = not self.reached(player, player.updated_at)
            self._world.check(
                not missing or (gave_up and str(player.session_id) in named.split(", ")),
                *("player", player.session_id, "of", player.updated_at, "was left unsaved"),
                *("and not told of, only", repr(named)),
            )
        if gave_up:
            self.died(live_file)
            return
        # One whose disk did not answer is not called clean, and looked into by the next.
        self.recoverable = sum(p.slot is not None for p in self.players.values())
        for player in self.players.values():
            player.was_online = None if player.slot is not None else False
            player.slot, player.leaving, player.unseen = None, False, False
            self._settle_for_stored(player)
