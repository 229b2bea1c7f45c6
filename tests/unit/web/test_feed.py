"""The feeds of pages."""

from __future__ import annotations

import json
import struct
from typing import Any

from playerstate.web.feed import EVERY, MOST_FEEDS, READ_WITHIN
from playerstate.web.frames import Flag
from tests.kit.players import at
from tests.kit.web import WRITE, Connection, WebTestCase, frames, request, unchunked


class FeedTestCase(WebTestCase):
    """A server with pages that are fed."""

    def setUp(self) -> None:
        """A server."""
        super().setUp()
        self.serve()

    def fed(self, query: str = "", **named: Any) -> Connection:
        """A page that asks for a feed."""
        connection = self.connect()
        connection.send(request("GET", f"/feed{query}", **named))
        return connection

    def first(self, connection: Connection) -> list[tuple[str, Any]]:
        """The frames after the head of the answer."""
        answer = connection.answer()
        self.assertEqual(answer.status, 200, answer.body)
        self.assertEqual(answer.headers["content-type"], "application/octet-stream")
        return self.read(answer.body)

    def later(self, connection: Connection) -> list[tuple[str, Any]]:
        """The frames since the last time."""
        return self.read(connection.take())

    def read(self, body: bytes) -> list[tuple[str, Any]]:
        """Frames by kind; those of JSON read."""
        return [
            (kind, data if kind == "P" else json.loads(data))
            for kind, data in frames(unchunked(body))
        ]

    def kinds(self, found: list[tuple[str, Any]]) -> str:
        """The kinds of these frames."""
        return "".join(kind for kind, _ in found)

    def seen(self, picture: bytes) -> dict[int, tuple[float, float, int]]:
        """The players of a frame: both axes and the flags, by session id."""
        number, _ = struct.unpack_from("<II", picture)
        columns = [
            struct.unpack_from(f"<{number}{kind}", picture, 8 + start * number)
            for kind, start in (("q", 0), ("f", 8), ("f", 12), ("B", 20))
        ]
        return {player: tuple(rest) for player, *rest in zip(*columns, strict=True)}


class FeedTests(FeedTestCase):
    """What a page is sent, and when."""

    def test_start(self) -> None:
        """The first frames come at once: what does not change, the gauges, the players."""
        self.joined(42)
        self.service.update(42, at(1.5, -2.0))
        found = self.first(self.fed())
        self.assertEqual(self.kinds(found), "SGP")
        start = found[0][1]
        self.assertEqual((start["format"], start["axes"]), (1, ["x", "y"]))
        self.assertEqual([field["name"] for field in start["fields"]], ["x", "y"])
        self.assertFalse(start["may_write"])
        self.assertTrue(found[1][1]["ready"])
        self.assertEqual(found[1][1]["players_online"], 1)
        self.assertEqual(self.seen(found[2][1]), {42: (1.5, -2.0, Flag.UNSAVED)})

    def test_may_write(self) -> None:
        """A page whose token may write is told so."""
        self.assertTrue(self.first(self.fed(token=WRITE))[0][1]["may_write"])

    def test_four_times_a_second(self) -> None:
        """Gauges and players come four times a second, and a saved player is told as saved."""
        self.joined(42)
        self.service.update(42, at(1.0))
        page = self.fed()
        self.first(page)
        self.service.flush()
        self.stepped.settle()
        self.stepped.reactor.advance(EVERY)
        found = self.later(page)
        self.assertEqual(self.kinds(found), "GP")
        self.assertEqual(self.seen(found[1][1]), {42: (1.0, 0.0, 0)})
        self.stepped.reactor.pump([EVERY] * 4)
        self.assertEqual(self.kinds(self.later(page)), "GP" * 4)

    def test_axes(self) -> None:
        """A page chooses its axes; a wrong choice is refused before the stream begins."""
        self.joined(42)
        self.service.update(42, at(1.0, 2.0))
        found = self.first(self.fed("?x=y&y=x"))
        self.assertEqual(found[0][1]["axes"], ["y", "x"])
        self.assertEqual(self.seen(found[2][1])[42][:2], (2.0, 1.0))
        for query, field in (
            ("?x=z&y=x", "x"),
            ("?x=x", "y"),
            ("?limit=0", "limit"),
            ("?a=1", "a"),
        ):
            self.refused(self.ask("GET", f"/feed{query}"), 400, field)

    def test_sample(self) -> None:
        """Where players are many a page gets a sample, with the one whom it follows."""
        for session_id in range(1, 101):
            self.stepped.join(session_id)
        found = self.first(self.fed("?limit=10&follow=2"))
        picture = self.seen(found[2][1])
        self.assertLessEqual(len(picture), 11)
        self.assertIn(2, picture)
        self.assertEqual(found[1][1]["players_online"], 100)

    def test_history(self) -> None:
        """A page gets the history at the start, and then each new row once."""
        self.resource.start()
        self.stepped.reactor.pump([1.0] * 3)
        page = self.fed()
        self.assertEqual(len(self.first(page)[0][1]["history"]["rows"]), 3)
        self.stepped.reactor.pump([EVERY] * 8)
        rows = [row for kind, body in self.later(page) if kind == "G" for row in body["history"]]
        self.assertEqual(len(rows), 2)

    def test_shared(self) -> None:
        """A picture is made once for all pages that want the same."""
        pages = [self.fed(), self.fed(), self.fed("?x=y&y=x")]
        made = []
        seen = self.resource._players.seen
        self.patch(
            self.resource._players, "seen", lambda *wanted: [made.append(wanted), seen(*wanted)][1]
        )
        self.stepped.reactor.advance(EVERY)
        self.assertEqual(len(made), 2)
        self.assertTrue(all(page.take() for page in pages))

    def test_most(self) -> None:
        """There are so many feeds and no more; one that ends leaves its place."""
        pages = [self.fed() for _ in range(MOST_FEEDS)]
        self.refused(self.ask("GET", "/feed"), 503)
        pages[3].lose()
        self.assertEqual(self.kinds(self.first(self.fed())), "SGP")


class SlowPageTests(FeedTestCase):
    """A page that does not read."""

    def test_skipped(self) -> None:
        """It is sent nothing while it does not read, and the newest picture afterwards."""
        page = self.fed()
        self.first(page)
        page.transport.producer.pauseProducing()
        self.stepped.reactor.pump([EVERY] * 10)
        self.assertEqual(page.take(), b"")
        page.transport.producer.resumeProducing()
        self.stepped.reactor.advance(EVERY)
        self.assertEqual(self.kinds(self.later(page)), "GP")

    def test_cut_off(self) -> None:
        """After a while it is cut off; the others go on."""
        page, other = self.fed(), self.fed()
        page.transport.producer.pauseProducing()
        self.stepped.reactor.pump([EVERY] * int(READ_WITHIN / EVERY - 1))
        self.assertFalse(page.transport.aborted)
        self.stepped.reactor.pump([EVERY] * 2)
        self.assertTrue(page.transport.aborted)
        self.assertFalse(other.is_closed)


class EndTests(FeedTestCase):
    """The ends of a feed."""

    def test_page_goes(self) -> None:
        """Once the last page has gone nothing is made any more."""
        page = self.fed()
        before = len(self.service.clock.getDelayedCalls())
        page.lose()
        self.stepped.reactor.advance(EVERY)
        self.assertEqual(len(self.resource._feeds), 0)
        self.assertEqual(len(self.service.clock.getDelayedCalls()), before - 1)
        self.assertEqual(self.kinds(self.first(self.fed())), "SGP")

    def test_closed(self) -> None:
        """When the server has stopped a page is told why, and its answer ends."""
        page = self.fed()
        self.first(page)
        self.resource.close("the server has stopped")
        body = page.take()
        self.assertEqual(self.read(body), [("E", {"why": "the server has stopped"})])
        self.assertTrue(body.endswith(b"0\r\n\r\n"))
        self.assertTrue(self.audit.is_closed)

    def test_watches_a_stop(self) -> None:
        """While the service stops, a page still sees how much is to be saved."""
        self.joined(42)
        self.service.update(42, at(1.0))
        page = self.fed()
        self.first(page)
        self.service.stopService()
        self.stepped.reactor.advance(EVERY)
        gauges = self.later(page)[0][1]
        self.assertFalse(gauges["ready"])
        self.assertIn("1 updates are still to be saved", gauges["why"])
        self.stepped.stop()

    def test_not_running(self) -> None:
        """A service that has stopped feeds none."""
        self.successResultOf(self.stepped.stop())
        self.refused(self.ask("GET", "/feed"), 503)
