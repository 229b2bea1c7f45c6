"""What is logged while players play, and how much of it."""

from __future__ import annotations

from collections import Counter

from twisted.logger import LogEvent, LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from playerstate import PlayerState
from tests.kit.playing import NETCODE, PLAIN, Game


class QuantityTests(SynchronousTestCase):
    """Lines do not grow with players or packets."""

    def play(self, players: int, moves: int, garbage: int) -> Counter[str]:
        """How often each format was logged by the server, at info level and above.

        Players join by both transports, move, come back, leave, are kicked, and go silent, amid
        datagrams that mean nothing.
        """
        with capturedLogs() as events:
            game = Game(slots=2 * players)
            self.addCleanup(game.close)
            crowd = [
                make(number, on_end=lambda why: None)
                for make, first in ((game.plain, 1), (game.encrypted, 101))
                for number in range(first, first + players)
            ]
            for each in crowd:
                each.join()
            game.pass_time(1.0)
            for number in range(moves):
                for each in crowd:
                    each.move(PlayerState(float(number), 1.0))
                game.pass_time(0.25)
            for number in range(garbage):
                for port in (PLAIN, NETCODE):
                    game.reactor.ports[port].receive(bytes([number]) * 40, ("192.0.2.9", 9))
            game.pass_time(1.0)
            for each in crowd[::3]:
                each.leave()
            for number in range(2, players + 2, 3):
                game.gateway.kick(number)
            game.pass_time(2.0)
            self.assertEqual(game.stepped.service.ledger.joins, 2 * players)
            game.is_cut = True
            game.pass_time(45.0)
            self.assertEqual(game.stepped.service.ledger.snapshot().players_online, 0)
        return Counter(str(event["log_format"]) for event in events if is_ours(event))

    def test_at_info(self) -> None:
        """Twice the players, moves and noise: the same lines."""
        few, many = self.play(3, 4, 20), self.play(12, 16, 100)
        self.assertEqual(few, many)
        self.assertTrue(any("players online" in line for line in few))


def is_ours(event: LogEvent) -> bool:
    """Whether a server of ours logs this where debugging is off."""
    ours = event["log_namespace"].startswith("playerstate.")
    return bool(ours and event["log_level"] >= LogLevel.info)
