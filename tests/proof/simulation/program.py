"""The program that embeds the service, and calls it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from playerstate.arguments import MAX_SEQUENCE
from playerstate.interfaces import StoreBusy
from playerstate.players.edits import Edits
from playerstate.players.service import (
    Joined,
    NotOnline,
    NotRunning,
    ServerFull,
    UnknownPlayer,
)
from tests.proof.simulation.model import Model
from tests.proof.simulation.plan import Plan
from tests.proof.simulation.players import Player
from tests.proof.simulation.promises import Promises
from tests.proof.simulation.server import Server
from tests.proof.simulation.store import Broken
from tests.proof.simulation.world import Crash, World


@attrs.define(eq=False)
class Edit:
    """A call of `edit`.

    Attributes:
        player, packed, create: whom, the new values by position, and whether to create the player.
        edited: what the call returned.
        answer: fires as that does, once the edit is made.
        waits: whether the call came back with the player still to be loaded.
        entered: whether the player was loaded, if need be, and the edit is made.
    """

    player: Player
    packed: dict[int, Any]
    create: bool
    edited: Deferred[None] = attrs.field(factory=Deferred)
    answer: Deferred[None] = attrs.field(factory=Deferred)
    waits: bool = False
    entered: bool = False


class Program:
    """The program that embeds the service, and calls it."""

    def __init__(
        self, world: World, plan: Plan, model: Model, promises: Promises, server: Server
    ) -> None:
        self._world = world
        self._plan = plan
        self._random = world.random
        self._model = model
        self._promises = promises
        self._server = server
        self._loads: list[Deferred[Any]] = []
        self._edits: list[Deferred[None]] = []
        self._to_be_entered: dict[int, deque[Edit]] = {}
        self._watched: Edits | None = None
        self.weights: dict[Callable[[], None], float] = {
            self.update: 2.0,
            self.change: 0.5,
            self.teleport: 0.7,
            self.heal: 1.0,
            self.edit: 0.7,
            self.edit_meanwhile: 0.3,
            self.edit_leaving: 1.5,
            self.join: 0.7,
            self.leave: 0.5,
            self.flush: 0.5,
            self.update_and_flush: 0.3,
            self.kick: 0.1,
            self.look: 0.3,
            self.cancel_join: 0.2,
            self.cancel_edit: 0.1,
        }

    def _player(self) -> Player:
        return self._model.players[self._random.choice(self._plan.players)]

    def _player_online(self) -> Player:
        """Someone who is online, if anyone is."""
        players = self._model.players.values()
        online = [player for player in players if player.slot is not None and not player.leaving]
        return self._random.choice(online) if online else self._player()

    def new_process(self) -> None:
        """What was asked of the process before is void."""
        self._loads.clear()
        self._edits.clear()
        self._to_be_entered.clear()

    def update(self) -> None:
        """Call `update`."""
        player, service = self._player(), self._server.service
        values = self._model.some_values(player.session_id)
        self._world.note("update", player.session_id, values[0])
        self._apply(
            player,
            dict(enumerate(values)),
            lambda: service.update(player.session_id, service.schema.state(values)),
        )

    def change(self) -> None:
        """Call `change`, with any number of fields."""
        player = self._player()
        self._change(player, self._some_values(player))

    def teleport(self, player: Player | None = None) -> None:
        """Set the client's fields: to new values, to where the player was, or to the spawn."""
        player = player or self._player_online()
        self._change(player, self._part(player, is_server_owned=False))

    def heal(self) -> None:
        """Set fields that the server owns, if there are any."""
        player = self._player_online()
        self._change(player, self._part(player, is_server_owned=True))

    def _part(self, player: Player, is_server_owned: bool) -> dict[int, Any]:
        values, fields = self._model.some_values(player.session_id), self._server.service.schema
        return {
            place: values[place]
            for place, field in enumerate(fields.fields)
            if field.is_server_owned == is_server_owned
        }

    def _change(self, player: Player, packed: dict[int, Any]) -> None:
        self._world.note("change", player.session_id, packed)
        self._apply(
            player,
            packed,
            lambda: self._server.service.change(player.session_id, **self._named(packed)),
        )

    def _some_values(self, player: Player) -> dict[int, Any]:
        """Values of some fields, or of none, by position."""
        values = self._model.some_values(player.session_id)
        return {place: values[place] for place in range(len(values)) if self._world.chance(0.5)}

    def _named(self, packed: dict[int, Any]) -> dict[str, Any]:
        """The same, plain and by name."""
        fields = self._server.service.schema.fields
        return {fields[at].name: fields[at].kind.decode(packed[at]) for at in packed}

    def _apply(self, player: Player, packed: dict[int, Any], call: Callable[[], None]) -> None:
        """Make a call that changes who is online; what it must do is known before."""
        counts = self._model.counts
        expected: type[Exception] | None = None
        if self._server.talks.stopping:
            counts.refuse("stopping")
            expected = NotRunning
        elif player.slot is None or player.leaving:
            counts.refuse("not_online")
            expected = NotOnline
        elif packed:
            is_override = self._model.change(player, packed)
            self._server.talks.changed(player, is_override)
        try:
            call()
        except (NotRunning, NotOnline) as error:
            self._world.check(type(error) is expected, "the call raised", repr(error))
        else:
            self._world.check(expected is None, "the call did not raise", expected)

    def edit_meanwhile(self) -> None:
        """Edit a player, and do something else with the same one before or after at once."""
        player = self._player()
        calls = [self.edit, self._random.choice((self.join, self.leave, self.edit))]
        self._random.shuffle(calls)
        for call in calls:
            call(player)
            self._model.look(self._server.table)

    def edit_leaving(self) -> None:
        """Edit a player who is leaving, whose last moves may still come."""
        leaving = [p for p in self._model.players.values() if p.slot is not None and p.leaving]
        if leaving:
            self.edit(self._random.choice(leaving))

    def edit(self, player: Player | None = None) -> None:
        """Call `edit`; what it must do is known once the player is loaded."""
        player = player or self._player()
        service, talks = self._server.service, self._server.talks
        session_id, allowed = player.session_id, self._allowed_to_fail(player)
        edit = Edit(player, self._some_values(player), self._world.chance(0.5))
        self._world.note("edit", session_id, edit.packed, edit.create)
        self._watch(service.run.edits)
        waiting = self._to_be_entered.setdefault(session_id, deque())
        waiting.append(edit)

        def ended(result: Failure | None) -> None:
            if edit.entered:
                edit.answer.callback(result)
                return
            waiting.remove(edit)
            if edit.waits:
                talks.api_loads[session_id] -= 1
            assert isinstance(result, Failure), "answered without being entered"
            if result.check(NotRunning):
                self._model.counts.refuse("stopping")
            late = (Broken, *((NotRunning,) if talks.stopping else ()))
            self._world.check(result.check(*allowed, *late) is not None, "edit:", result)

        edited = service.edit(session_id, create=edit.create, **self._named(edit.packed))
        if not (edit.entered or edited.called):
            edit.waits = True
            talks.api_loads[session_id] = talks.api_loads.get(session_id, 0) + 1
        edited.addBoth(ended).addErrback(lambda _: None)
        edit.edited = edited
        if edit.entered and not edited.called:
            self._edits.append(edited)

    def _watch(self, edits: Edits) -> None:
        """Have the model told of each edit the moment it is made, before it is."""
        if edits is self._watched:
            return
        self._watched, enter = edits, edits._enter

        def entered(session_id: int, *args: Any) -> int | None:
            edit = self._to_be_entered[session_id].popleft()
            player, edit.entered = edit.player, True
            was_out = player.slot is None
            if edit.waits:
                self._server.talks.api_loads[session_id] -= 1
                self._edits.append(edit.edited)
            can_be, is_override = self._model.edit(player, edit.packed, edit.create)
            if is_override is not None:
                self._server.talks.changed(player, is_override)
            try:
                slot = enter(session_id, *args)
            except (UnknownPlayer, Crash) as error:
                self._world.check(not can_be or isinstance(error, Crash), "edit raised", error)
                edit.answer.addErrback(lambda _: None)
                raise
            self._world.check(can_be, "player", session_id, "is known")
            if slot is not None:
                if was_out and not is_override:
                    self._model.admitted(player, bool(self._server.table.unseen[slot]))
                self._world.check(player.slot in (None, slot), "player", session_id, "has moved")
                player.slot = slot
                self._promises.edit(player, edit.answer)
            return slot

        edits._enter = entered  # type: ignore[method-assign, assignment]

    def cancel_edit(self) -> None:
        """Give up on an edit that waits to be saved, which is saved all the same."""
        self._edits = [waiting for waiting in self._edits if not waiting.called]
        if self._edits:
            self._edits.pop(self._random.randrange(len(self._edits))).cancel()

    def join(self, player: Player | None = None) -> None:
        """Call `join`."""
        player = player or self._player()
        talks, service = self._server.talks, self._server.service
        session_id = player.session_id
        # Numbers that moves had, and that moves will have.
        near = min(max(player.sequence + self._random.randrange(-2, 3), 0), MAX_SEQUENCE)
        sequence = self._random.choice((None, None, 0, player.sequence, near))
        allowed = self._allowed_to_fail(player)
        self._world.note("join", session_id, sequence)

        def joined(result: Joined) -> None:
            talks.renumbered(session_id, sequence)
            self._model.joined(player, result, sequence, service.table)

        def failed(failure: Failure) -> None:
            # A load that waits may still fail, be cancelled, or be cut short by the stop.
            late = (Broken, CancelledError, *((NotRunning,) if talks.stopping else ()))
            self._world.check(failure.check(*allowed, *late) is not None, "join:", failure)

        def loaded(result: object) -> None:
            talks.api_loads[session_id] -= 1

        joining = service.join(session_id, sequence=sequence)
        waits = not joining.called
        joining.addCallbacks(joined, failed).addErrback(lambda _: None)
        if waits:
            talks.api_loads[session_id] = talks.api_loads.get(session_id, 0) + 1
            self._loads.append(joining)
            joining.addCallback(loaded)

    def _allowed_to_fail(self, player: Player) -> tuple[type[Exception], ...]:
        """How a join of this player may fail at once."""
        if self._server.talks.stopping:
            return (NotRunning,)
        if self._model.recovering:
            return (StoreBusy,)
        if player.slot is not None:
            return ()
        if self._server.talks.has_room(player.session_id):
            return (StoreBusy, Broken)
        return (ServerFull,)

    def cancel_join(self) -> None:
        """Give up on a join that waits."""
        self._loads = [waiting for waiting in self._loads if not waiting.called]
        if self._loads:
            self._loads.pop(self._random.randrange(len(self._loads))).cancel()

    def leave(self, player: Player | None = None) -> None:
        """Call `leave`."""
        player = player or self._player()
        self._world.note("leave", player.session_id)
        if player.may_leave:
            talks = self._server.talks
            talks.taken_offline(player)
            self._model.leave(player)
            self._promises.leave(player, self._server.service.leave(player.session_id))
            talks.kicking.clear()
            return
        outcome: list[object] = []
        self._server.service.leave(player.session_id).addBoth(outcome.append)
        refused = isinstance(outcome[0], Failure) and outcome[0].check(NotOnline, NotRunning)
        self._world.check(bool(refused), "left without being there:", outcome)

    def flush(self) -> None:
        """Call `flush`."""
        self._world.note("flush")
        self._promises.flush(self._server.service.flush())
        # What is changed from here on is changed later, as on any real clock.
        self._world.now += 1e-6

    def update_and_flush(self) -> None:
        """Have what changed this very moment saved, before the clock goes on."""
        for _ in self._plan.players:
            self.update()
        self.flush()

    def kick(self) -> None:
        """Kick a player."""
        player, talks = self._player(), self._server.talks
        if not player.may_leave:
            return
        self._world.note("kick", player.session_id)
        talks.kicking.add(player.session_id)
        self._model.leave(player)
        self._promises.leave(player, self._server.gateway.kick(player.session_id))
        talks.kicking.clear()

    def look(self) -> None:
        """Call `state`."""
        player = self._player()
        if player.slot is not None and not player.leaving and not self._server.talks.stopping:
            service = self._server.service
            state = service.schema.values(service.state(player.session_id))
            self._world.check(state == player.values, "state is", state, "not", player.values)
