"""Anything at all to a netcode server; ``python -m tests.proof.fuzz_netcode`` breeds it.

`play` reads bytes as a scenario of noise, requests, packets and time, from a few addresses at which
clients are in, half-open, or not there.  Whatever it says, nothing may be raised; what is ignored
changes nothing; nothing is sent but to who showed a good token; and no answer is larger than what
it answers.  Hypothesis draws such scenarios in `tests.unit.transports.netcode.test_network`.
"""

from __future__ import annotations

from collections.abc import Callable

from playerstate.transports.netcode.client import State
from playerstate.transports.netcode.connections import Source
from playerstate.transports.netcode.limits import Rate
from tests.kit.netcode import MANY, Player, Table, make_token, request_of, source
from tests.proof.fuzz import Scenario, main

PAUSES = (0.0, 0.05, 0.1, 1.0, 5.0, 40.0)


def play(data: bytes) -> None:
    """Let a server live through a scenario.

    Raises:
        AssertionError: it did what it must not.
    """
    Play().live(Scenario(data))


class Play:
    """A server with room for two, and clients at four addresses.

    Attributes:
        table: the server.
        players: those who may come in, by number.
    """

    def __init__(self) -> None:
        self.table = Table(slots=2, source_rate=MANY, request_rate=MANY, payload_rate=Rate(10, 5))
        self.table.now = 40.0
        self._seed = 0
        self.players = [self._player(number) for number in range(4)]
        self.acts: tuple[Callable[[Scenario], None], ...] = (
            self.wait,
            self.send_noise,
            self.send_request,
            self.send_packet,
            self.take_turn,
            self.talk,
            self.replace,
            self.end,
            self.move,
        )

    def _player(self, number: int, port: int = 5000) -> Player:
        self._seed += 1
        now = int(self.table.wall_clock())
        token = make_token(1 + number, created_at=now, seed=self._seed)
        return self.table.player(token, source(number, port))

    def live(self, scenario: Scenario) -> None:
        """From start to stop."""
        while scenario:
            self.acts[scenario.number() % len(self.acts)](scenario)
            self.check()
        self.table.stop()
        assert not self.table.server.connections

    def check(self) -> None:
        """What holds after each act."""
        server = self.table.server
        roster, history = server._roster, server._handshake._history
        assert len(server.connections) <= 2
        assert server.half_open <= 8
        assert len(roster._free_slots) + len(roster) == 2
        assert len(history) == len(history._expiries)
        connected = {connection.client_id for connection in server.connections}
        assert connected == set(roster.by_client)
        assert all(roster.by_source[c.source] is c for c in server.connections)
        by_host = [c for each in roster.roaming._by_host.values() for c in each]
        assert len(by_host) == len(connected)
        assert all(c.source[0] == host[0] for host, e in roster.roaming._by_host.items() for c in e)

    def receive(self, datagram: bytes, whence: Source) -> None:
        """A datagram arrives; what is ignored has changed nothing, and got no answer."""
        server = self.table.server
        state, events = self.table.state, len(self.table.events)
        ignored = server.tally.ignored.copy()
        answers = self.table.receive(datagram, whence)
        assert sum(map(len, answers)) <= len(datagram)
        reasons = server.tally.ignored - ignored
        if not reasons:
            return
        assert reasons.total() == 1
        assert not answers
        assert len(self.table.events) == events
        if reasons.keys() <= {"bad_body_size", "payload_rate"}:
            return  # it was sealed well, so its number is used up
        after = self.table.state
        if reasons.keys() & {"half_open_full", "token_history_full"}:
            return  # the token is known from here on
        assert after == state, reasons

    def wait(self, scenario: Scenario) -> None:
        """Time passes, all at once."""
        self.table.now += PAUSES[scenario.number() % len(PAUSES)]
        self.table.tick()

    def send_noise(self, scenario: Scenario) -> None:
        """Anything, from anywhere."""
        self.receive(scenario.take(scenario.number()), source(scenario.number() % 5))

    def send_request(self, scenario: Scenario) -> None:
        """Somebody's request, with some bytes of it changed, from somewhere."""
        player = self.players[scenario.number() % 4]
        at = scenario.number() * 5 % 1078
        change = scenario.take(scenario.number() % 4)
        request = request_of(player.token)
        request = request[:at] + change + request[at + len(change) :]
        self.receive(request, source(scenario.number() % 4))

    def send_packet(self, scenario: Scenario) -> None:
        """A packet of any kind and length, sealed with somebody's key, from somewhere."""
        client = self.players[scenario.number() % 4].client
        kind, body = scenario.number() % 16, scenario.take(scenario.number())
        client._sequence = scenario.number()
        whence = scenario.number()
        datagram = client._seal(kind, body, self.table.now)
        self.receive(datagram, source(whence % 4, 5000 + whence // 128))

    def take_turn(self, scenario: Scenario) -> None:
        """A client hears what is there for it, and sends what is due."""
        self.players[scenario.number() % 4].turn()

    def talk(self, scenario: Scenario) -> None:
        """A client that is in says something, and the server as well."""
        player = self.players[scenario.number() % 4]
        if player.client.state == State.CONNECTED:
            datagram = player.client.send(scenario.take(1 + scenario.number()), self.table.now)
            self.receive(datagram, player.source)
        for connection in self.table.server.connections:
            self.table.send(connection, b"word")

    def end(self, scenario: Scenario) -> None:
        """A client is let go of, at once or in a while."""
        for connection in self.table.server.connections[:1]:
            self.table.disconnect(connection, scenario.number() % 2 * 0.25)

    def move(self, scenario: Scenario) -> None:
        """A client is at another port from now on."""
        choice = scenario.number()
        player = self.players[choice % 4]
        player.source = (player.source[0], 5000 + choice // 16, player.source[2])

    def replace(self, scenario: Scenario) -> None:
        """A client goes, with or without a word, and comes again with another token."""
        choice = scenario.number()
        number = choice % 4
        player = self.players[number]
        if choice & 0x80:
            for datagram in player.client.disconnect(self.table.now):
                self.receive(datagram, player.source)
        self.players[number] = self._player(number, 5000 + choice // 4 % 2)


if __name__ == "__main__":
    main(play)
