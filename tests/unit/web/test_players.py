"""Players as the API shows them, and as the feed does."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
from twisted.internet.defer import Deferred

from playerstate.interfaces import StoreBusy, Stored
from playerstate.state.schema import StateSchema
from playerstate.web.frames import Flag
from playerstate.web.players import Player, Players, axes_of, axis_parsers, shown_state
from playerstate.web.refused import Refused
from tests.kit.players import ServiceTestCase, at
from tests.kit.support import Everything


@attrs.frozen
class Scored:
    """A class with one float only."""

    score: float = 0.0
    lives: int = 3


class PlayersTestCase(ServiceTestCase):
    """A service whose players are looked at."""

    def begin(self, **options: Any) -> None:
        """Start it."""
        self.stepped = self.start(**options)
        self.service = self.stepped.service
        self.players = Players(self.service)

    def walk(self, **places: float) -> None:
        """Let players join, named ``p1`` and so on, and go to these places."""
        for name, x in places.items():
            self.stepped.join(int(name[1:]))
            self.service.update(int(name[1:]), at(x))

    def find(self, session_id: int) -> Player:
        """One player, of a store that answers at once."""
        return self.successResultOf(Deferred.fromCoroutine(self.players.find(session_id)))


class FindTests(PlayersTestCase):
    """One player."""

    def test_online(self) -> None:
        """A player in the game is shown as applied, and whether that is saved."""
        self.begin()
        self.walk(p42=7.0)
        player = self.find(42)
        self.assertEqual(player.state, {"x": 7.0, "y": 0.0})
        self.assertEqual((player.is_online, player.is_saved), (True, False))
        self.service.flush()
        self.stepped.settle()
        self.assertTrue(self.find(42).is_saved)

    def test_leaving(self) -> None:
        """One who left is not online, though not saved yet."""
        self.begin()
        self.walk(p42=7.0)
        self.service.leave(42)
        player = self.find(42)
        self.assertEqual((player.is_online, player.is_saved), (False, False))

    def test_offline(self) -> None:
        """One who is offline is shown as stored."""
        self.begin()
        self.stepped.store.players[42] = Stored((1.0, 2.0), 5)
        self.assertEqual(
            self.find(42), Player(42, {"x": 1.0, "y": 2.0}, 5, is_online=False, is_saved=True)
        )

    def test_late(self) -> None:
        """A store may answer late."""
        self.begin()
        self.stepped.store.players[42] = Stored((1.0, 2.0), 5)
        self.stepped.store.hold_loads()
        found = Deferred.fromCoroutine(self.players.find(42))
        self.assertNoResult(found)
        self.stepped.store.release_loads()
        self.assertEqual(self.successResultOf(found).updated_at, 5)

    def test_none(self) -> None:
        """Whom neither knows is not found; a store's error is passed on."""
        self.begin()
        found = Deferred.fromCoroutine(self.players.find(42))
        self.assertEqual(self.failureResultOf(found, Refused).value.status, 404)

        def fail(session_id: int) -> None:
            raise StoreBusy("later")

        self.patch(self.stepped.store, "load", fail)
        self.failureResultOf(Deferred.fromCoroutine(self.players.find(42)), StoreBusy)

    def test_shown(self) -> None:
        """Numbers that JavaScript would round are strings."""
        self.begin(state=Everything)
        big = 2**63 - 1
        self.stepped.join(big)
        self.service.change(big, hp=-(2**63), alive=True)
        shown = self.find(big).shown()
        self.assertEqual(shown["session_id"], str(big))
        self.assertEqual(shown["state"]["hp"], str(-(2**63)))
        self.assertIs(shown["state"]["alive"], True)
        self.assertNotIn("distance", shown)
        limit = 2**53
        self.assertEqual(
            shown_state({"a": limit, "b": limit + 1, "c": 1e300}),
            {"a": limit, "b": str(limit + 1), "c": 1e300},
        )


class ListTests(PlayersTestCase):
    """Many players."""

    def setUp(self) -> None:
        """Five players; the fourth leaves, and another is only edited."""
        super().setUp()
        self.begin()
        self.walk(p5=50.0, p1=10.0, p4=40.0, p3=30.0, p2=20.0)
        self.service.leave(4)
        self.service.edit(9, create=True, x=11.0)

    def ids(self, players: list[Player]) -> list[int]:
        """Who they are."""
        return [player.session_id for player in players]

    def test_online(self) -> None:
        """Those who are online come by session id, page by page."""
        self.assertEqual(self.ids(self.players.online_after(0, 10)), [1, 2, 3, 5])
        self.assertEqual(self.ids(self.players.online_after(0, 2)), [1, 2])
        self.assertEqual(self.ids(self.players.online_after(2, 2)), [3, 5])
        self.assertEqual(self.ids(self.players.online_after(5, 2)), [])
        self.assertEqual(self.players.online_after(2, 1)[0].state, {"x": 30.0, "y": 0.0})

    def test_near(self) -> None:
        """Those nearest to a point come first, with how far they are."""
        found = self.players.online_near((22.0, 0.0), ("x", "y"), 2)
        self.assertEqual(self.ids(found), [2, 3])
        self.assertEqual([player.distance for player in found], [2.0, 8.0])
        self.assertEqual(
            self.ids(self.players.online_near((0.0, 0.0), ("y", "y"), 9)), [5, 1, 3, 2]
        )

    def test_far(self) -> None:
        """A distance that no double can hold is the greatest that it can."""
        (found,) = self.players.online_near((1.7e308, -1.7e308), ("x", "y"), 1)
        self.assertEqual(found.distance, np.finfo(np.float64).max)

    def test_nobody(self) -> None:
        """An empty game has no players."""
        self.begin()
        self.assertEqual(self.players.online_after(0, 10), [])
        self.assertEqual(self.players.online_near((0.0, 0.0), ("x", "y"), 10), [])

    def test_guarded(self) -> None:
        """Rows are touched only once it is clear that they may be."""
        calls: list[int] = []
        self.patch(self.service.run, "guard", lambda: calls.append(1))
        self.players.online_after(0, 1)
        self.players.online_near((0.0, 0.0), ("x", "y"), 1)
        self.players.seen((), 1, None)
        self.find(1)
        self.assertEqual(len(calls), 4)


class SeenTests(PlayersTestCase):
    """Players for a map."""

    def test_all(self) -> None:
        """Where there are few, all are seen, with what is not saved and who is leaving."""
        self.begin()
        self.walk(p1=10.0, p2=20.0, p3=30.0)
        self.service.flush()
        self.stepped.settle()
        self.walk(p2=21.0, p3=31.0)
        self.service.leave(3)
        seen = self.players.seen(("x", "y"), 10, None)
        self.assertEqual(seen.session_ids.tolist(), [1, 2, 3])
        self.assertEqual([axis.tolist() for axis in seen.axes], [[10, 21, 31], [0, 0, 0]])
        self.assertEqual(seen.slots.tolist(), [0, 1, 2])
        self.assertEqual(seen.flags.tolist(), [0, Flag.UNSAVED, Flag.UNSAVED | Flag.LEAVING])
        self.assertEqual(seen.stride, 1)

    def test_nobody(self) -> None:
        """An empty game is an empty picture."""
        self.begin()
        seen = self.players.seen(("x", "y"), 10, 5)
        self.assertEqual((len(seen.slots), len(seen.axes[0]), seen.stride), (0, 0, 1))

    def test_sampled(self) -> None:
        """Where there are many, those are seen whose slot is a multiple of the stride."""
        self.begin()
        self.walk(**{f"p{n}": float(n) for n in range(1, 101)})
        seen = self.players.seen(("x", "y"), 30, None)
        self.assertEqual(seen.stride, 4)
        self.assertEqual(seen.slots.tolist(), list(range(0, 100, 4)))
        self.assertEqual(seen.session_ids.tolist(), list(range(1, 101, 4)))
        self.assertEqual(self.players.seen((), 100, None).stride, 1)

    def test_same_players(self) -> None:
        """From picture to picture the same players are seen, also when others come."""
        self.begin()
        self.walk(**{f"p{n}": float(n) for n in range(1, 101)})
        before = set(self.players.seen((), 30, None).session_ids.tolist())
        self.walk(p200=1.0, p201=1.0)
        self.assertLessEqual(before, set(self.players.seen((), 30, None).session_ids.tolist()))

    def test_sparse(self) -> None:
        """Those left in multiples of the stride may be too many for it, which is doubled then."""
        self.begin()
        self.walk(**{f"p{n}": float(n) for n in range(1, 65)})
        for session_id in range(1, 65):
            if (session_id - 1) % 2:
                self.service.leave(session_id)
        self.stepped.reactor.advance(0.1)
        self.stepped.settle()
        seen = self.players.seen((), 16, None)
        self.assertEqual((len(seen.slots), seen.stride), (16, 4))

    def test_followed(self) -> None:
        """The one who is followed is seen in each picture, and once."""
        self.begin()
        self.walk(**{f"p{n}": float(n) for n in range(1, 101)})
        for follow in (2, 1, 555):
            seen = self.players.seen(("x", "y"), 30, follow)
            self.assertEqual(seen.session_ids.tolist().count(follow), follow != 555)
            self.assertEqual(len(seen.slots), 25 + (follow == 2))


class AxesTests(ServiceTestCase):
    """Which fields are the axes."""

    def test_axes(self) -> None:
        """The first two floats, unless the query names two; none where there are no two."""
        plain, scored = StateSchema.of(Everything), StateSchema.of(Scored)
        self.assertEqual(axes_of(plain, {}), ("x", "angle"))
        self.assertEqual(axes_of(plain, {"x": "angle", "y": "x"}), ("angle", "x"))
        self.assertEqual(axes_of(scored, {}), ())
        for query in ({"x": "angle"}, {"y": "angle"}):
            self.assertEqual(self.assertRaises(Refused, axes_of, plain, query).status, 400)

    def test_parsers(self) -> None:
        """Only floats can be named."""
        parse = axis_parsers(StateSchema.of(Everything))["x"]
        self.assertEqual(parse("angle"), "angle")
        self.assertRaises(ValueError, parse, "hp")
