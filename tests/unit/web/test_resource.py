"""Which request is answered by what, and who may make it."""

from __future__ import annotations

import math
from typing import Any

from twisted.internet.defer import fail
from twisted.web.resource import Resource

from playerstate.web.access import Access
from playerstate.web.audit import AuditUnusable
from playerstate.web.metrics import CONTENT_TYPE
from playerstate.web.resource import HEADERS, WebResource
from playerstate.web.site import WebSite
from tests.kit.players import GONE, at
from tests.kit.web import READ, TOKENS, WRITE, Connection, WebTestCase, request

LOOKS = ("/ready", "/metrics", "/feed", "/players?online=1", "/players/42")
CHANGES = (
    ("PATCH", "/players/42", {"x": 1}),
    ("POST", "/players/42/kick", None),
    ("POST", "/players/42/erase", None),
    ("POST", "/flush", None),
)


class AccessTests(WebTestCase):
    """Who may do what, over every route."""

    def test_routes(self) -> None:
        """These are all the routes, so that none is left out below."""
        self.serve()
        routes = {(route.method, "/".join(route.path)) for route in self.resource._routes}
        listed = {("GET", look.lstrip("/").partition("?")[0]) for look in ("/health", *LOOKS)}
        listed |= {(method, path.lstrip("/")) for method, path, _ in CHANGES}
        self.assertEqual(routes, {(m, path.replace("42", "ID")) for m, path in listed})

    def test_loopback(self) -> None:
        """From this machine all may look, and none may change anything without a token."""
        self.serve()
        self.joined(42)
        for look in ("/health", *LOOKS):
            self.assertEqual(self.ask("GET", look).status, 200, look)
        for method, path, body in CHANGES:
            error = self.refused(self.ask(method, path, body), 401, "Authorization")
            self.assertEqual(error, "this needs a token")
        self.assertEqual(self.audit.entries, [])
        self.assertEqual(len(self.service.run.table), 1)

    def test_beyond(self) -> None:
        """From elsewhere nothing is told without a token but that the server is alive."""
        self.serve(access=Access("192.0.2.1", TOKENS))
        self.joined(42)
        asked: tuple[tuple[str, str, Any], ...] = (*(("GET", look, None) for look in LOOKS),)
        for method, path, body in (*asked, *CHANGES):
            answer = self.ask(method, path, body, host="192.0.2.1:7780")
            self.refused(answer, 401, "Authorization")
            self.assertEqual(answer.headers["www-authenticate"], 'Bearer realm="playerstate"')
        for look in LOOKS:
            self.assertEqual(self.ask("GET", look, host="192.0.2.1", token=READ).status, 200)
        self.assertEqual(self.ask("GET", "/health", host="192.0.2.1").status, 200)

    def test_read_token(self) -> None:
        """A token that may read changes nothing."""
        self.serve()
        self.joined(42)
        for method, path, body in CHANGES:
            error = self.refused(
                self.ask(method, path, body, token=READ), 403, "Authorization", "may write"
            )
            self.assertEqual(error, "the token of prometheus may only read")
        self.assertEqual(self.audit.entries, [])

    def test_unknown_player_is_not_told(self) -> None:
        """Whether a path names a player well is told to those only who may look."""
        self.serve(access=Access("192.0.2.1", TOKENS))
        self.refused(self.ask("GET", "/players/nobody", host="192.0.2.1"), 401, "Authorization")

    def test_rebound_name(self) -> None:
        """A name that was made to lead here gets nothing, not even that the server is alive."""
        self.serve()
        for host in ("evil.example", "127.0.0.1.evil.example", "127.0.0.2", "localhost:1:2"):
            answer = self.ask("GET", "/health", host=host)
            self.assertIn(answer.status, (400, 421), host)
            self.assertEqual(answer.json["field"], "Host")

    def test_other_site(self) -> None:
        """A page of another site may not even ask; one of our own may."""
        self.serve()
        error = self.refused(
            self.ask("GET", "/players/42", Sec_Fetch_Site="cross-site"), 403, "Sec-Fetch-Site"
        )
        self.assertIn("other sites", error)
        self.assertEqual(self.ask("GET", "/health", Sec_Fetch_Site="same-origin").status, 200)

    def test_form(self) -> None:
        """What a form of another page can send changes nothing, even with a token."""
        self.serve()
        self.joined(42)
        for content_type in ("text/plain", "application/x-www-form-urlencoded"):
            answer = self.ask(
                "PATCH", "/players/42", {"x": 1}, token=WRITE, Content_Type=content_type
            )
            self.refused(answer, 415, "Content-Type", "application/json")


class RouteTests(WebTestCase):
    """Paths, methods, and what every answer has."""

    def setUp(self) -> None:
        """A server."""
        super().setUp()
        self.serve()

    def test_nothing_there(self) -> None:
        """Other paths have nothing, whatever they look like."""
        for path in ("/players/42/x", "/Health", "/health/", "//health", "/%2e%2e/health"):
            self.refused(self.ask("GET", path), 404)

    def test_method(self) -> None:
        """A path says which methods it has."""
        for method, path, allowed in (
            ("POST", "/players/42", "GET, PATCH"),
            ("GET", "/flush", "POST"),
            ("DELETE", "/health", "GET"),
        ):
            answer = self.change(method, path)
            self.refused(answer, 405, "method", allowed)
            self.assertEqual(answer.headers["allow"], allowed)

    def test_head(self) -> None:
        """HEAD is answered as GET, without the body."""
        answer = self.ask("HEAD", "/health")
        self.assertEqual((answer.status, answer.body), (200, b""))
        self.assertEqual(answer.headers["content-length"], "16")

    def test_headers(self) -> None:
        """Each answer forbids a browser whatever it does not need, errors as well."""
        for path in ("/health", "/metrics", "/nothing", "/players/0"):
            headers = self.ask("GET", path).headers
            for name, value in HEADERS.items():
                self.assertEqual(headers[name.lower()], value)
        self.assertNotIn("unsafe", HEADERS["Content-Security-Policy"])

    def test_session_id(self) -> None:
        """A player is named by a whole number that can be one."""
        for name in ("0", "-1", "abc", "9223372036854775808", "1.5", "%31x", "%D9%A3"):
            self.refused(self.ask("GET", f"/players/{name}"), 400, "session id", "1 to 9223")
        self.refused(self.ask("GET", "/players/9223372036854775807"), 404)

    def test_metrics(self) -> None:
        """The figures are as Prometheus reads them."""
        answer = self.ask("GET", "/metrics")
        self.assertEqual(answer.headers["content-type"], CONTENT_TYPE)
        self.assertIn(b"playerstate_players_online 0.0\n", answer.body)

    def test_ready(self) -> None:
        """A server that is not fit for players says why, by its status as well."""
        self.assertEqual(self.ask("GET", "/ready").json, {"ready": True, "why": ""})
        self.successResultOf(self.stepped.stop())
        answer = self.ask("GET", "/ready")
        self.assertEqual(answer.status, 503)
        self.assertEqual(answer.json, {"ready": False, "why": "the service is not running"})
        self.assertEqual(self.ask("GET", "/health").json, {"alive": True})

    def test_bug(self) -> None:
        """A request that fails of a bug is answered; the log has it, not for each of many."""
        self.patch(self.resource._players, "find", lambda _: fail(KeyError("oops")))
        for _ in range(5):
            answer = self.ask("GET", "/players/42")
            self.assertEqual(answer.status, 500)
            self.assertNotIn("oops", self.refused(answer, 500))
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_gone(self) -> None:
        """A client that goes before its answer is there harms nothing."""
        self.joined(42)
        connection = self.connect()
        connection.send(request("PATCH", "/players/42", {"x": 3}, token=WRITE))
        connection.lose()
        self.advance(0.2)
        self.assertEqual(self.stored(self.stepped)[42][0], 3.0)
        self.assertTrue(self.audit.entries[0]["done"])

    def test_mounted(self) -> None:
        """A program may mount it anywhere in a site of its own."""
        root = Resource()
        root.putChild(b"game", WebResource(self.service))
        site = WebSite(root, self.stepped.reactor, self.stepped.reactor.seconds)
        connection = Connection(site)
        connection.send(request("GET", "/game/health"))
        self.assertEqual(connection.answer().json, {"alive": True})


class ListTests(WebTestCase):
    """Players, many at a time."""

    def setUp(self) -> None:
        """Five players on a line."""
        super().setUp()
        self.serve()
        for session_id in range(1, 6):
            self.stepped.join(session_id)
            self.service.update(session_id, at(session_id * 10))

    def ids(self, answer: Any) -> list[int]:
        """Who is in an answer, in order."""
        return [int(player["session_id"]) for player in answer.json["players"]]

    def test_near(self) -> None:
        """The nearest come first, with how far they are."""
        answer = self.ask("GET", "/players?near=29,0&limit=2")
        self.assertEqual(self.ids(answer), [3, 2])
        self.assertEqual([player["distance"] for player in answer.json["players"]], [1.0, 9.0])
        self.assertEqual(answer.json["axes"], ["x", "y"])
        answer = self.ask("GET", "/players?near=0,0&limit=1&x=y&y=x")
        self.assertEqual((self.ids(answer), answer.json["axes"]), ([1], ["y", "x"]))

    def test_online(self) -> None:
        """All are listed by page, each once, and the last page says that it is."""
        found, after = [], "0"
        while after is not None:
            answer = self.ask("GET", f"/players?online=1&limit=2&after={after}")
            found += self.ids(answer)
            after = answer.json["after"]
        self.assertEqual(found, [1, 2, 3, 4, 5])

    def test_refused(self) -> None:
        """A query that contradicts itself, or is beyond its bounds, names the part."""
        for query, field in (
            ("", "online"),
            ("online=0", "online"),
            ("online=1&x=x&y=y", "x"),
            ("near=1,2&online=1", "online"),
            ("near=1,2&after=1", "after"),
            ("near=1", "near"),
            ("near=nan,1", "near"),
            ("near=1,2&x=x", "y"),
            ("near=1,2&x=z&y=x", "x"),
            ("online=1&limit=201", "limit"),
            ("online=1&limit=0", "limit"),
            ("online=1&after=-1", "after"),
            ("online=1&sort=x", "sort"),
            ("online=1&online=1", "online"),
            ("online=1&after=" + "1" * 1100, "query"),
        ):
            with self.subTest(query=query):
                answer = self.ask("GET", f"/players?{query}")
                self.assertIn(answer.status, (400, 414))
                self.assertEqual(answer.json["field"], field)
                self.assertTrue(answer.json["allowed"])


class ChangeTests(WebTestCase):
    """What changes something, and what is recorded of it."""

    def setUp(self) -> None:
        """A server with a player who has a client."""
        super().setUp()
        self.serve()
        self.player = self.joined(42)

    def entry(self) -> dict[str, Any]:
        """The only entry of the audit log."""
        (entry,) = self.audit.entries
        return dict(entry)

    def test_edit(self) -> None:
        """An edit is answered once saved, and recorded with who, what, before and after."""
        answer = self.change("PATCH", "/players/42", {"x": 3})
        self.assertEqual(answer.json["state"], {"x": 3.0, "y": 200.0})
        self.assertTrue(answer.json["saved"])
        self.assertEqual(self.stored(self.stepped)[42], (3.0, 200.0))
        self.assertEqual(self.service.state(42), at(3, 200))
        entry = self.entry()
        self.assertRegex(entry.pop("at"), r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
        self.assertEqual(
            entry,
            {
                "token": "ops",
                "address": "192.0.2.7",
                "what": "edit",
                "player": "42",
                "before": {"x": 350.0},
                "after": {"x": 3},
                "done": True,
            },
        )

    def test_recorded_before_answered(self) -> None:
        """While an edit waits for the store, it is neither answered nor recorded."""
        connection = self.connect()
        connection.send(request("PATCH", "/players/42", {"x": 3}, token=WRITE))
        self.idle(0.2)
        self.assertEqual((connection.take(), self.audit.entries), (b"", []))
        seen: list[bytes] = []
        self.patch(self.audit, "record", lambda entry: seen.append(connection.take()))
        self.advance(0.2)
        self.assertEqual(seen, [b""])
        self.assertEqual(connection.answer().status, 200)

    def test_offline(self) -> None:
        """A player not in the game is changed in the store, and has that at the next join."""
        self.service.update(42, at(350, 200))
        self.assertEqual(self.change("POST", "/players/42/kick").status, 200)
        answer = self.change("PATCH", "/players/42", {"y": -4.5})
        self.assertEqual((answer.status, answer.json.get("online")), (200, False), answer.body)
        self.assertEqual(self.stored(self.stepped)[42], (350.0, -4.5))
        self.stepped.join(42)
        self.assertEqual(self.service.state(42), at(350, -4.5))

    def test_unknown_player(self) -> None:
        """An edit makes no player."""
        self.refused(self.change("PATCH", "/players/43", {"x": 3}), 404)
        self.refused(self.change("POST", "/players/43/kick"), 404)
        self.assertNotIn(43, self.stored(self.stepped))

    def test_wrong_values(self) -> None:
        """A value that its field does not take names the field and what it takes."""
        for body, field, allowed in (
            ({"x": "a"}, "x", "a finite number"),
            ({"z": 1}, "z", "x, y"),
            ({"y": None}, "y", "a text, a finite number"),
            ({}, "body", "at least one field"),
            ([], "body", "a JSON object"),
            (b'{"x": 1e999}', "x", "finite"),
        ):
            with self.subTest(body=body):
                self.refused(self.change("PATCH", "/players/42", body), 400, field, allowed)
        self.assertEqual(self.service.state(42), at(350, 200))
        for entry in self.audit.entries:
            self.assertFalse(entry["done"])
            values = [*entry["before"].values(), *entry["after"].values()]
            self.assertFalse([v for v in values if isinstance(v, float) and not math.isfinite(v)])

    def test_kick(self) -> None:
        """A kick takes the player offline, saved, and tells the client."""
        self.service.update(42, at(9))
        answer = self.change("POST", "/players/42/kick")
        self.assertEqual(answer.json, {"session_id": "42", "kicked": True})
        self.assertIn(GONE, [message[0] for message in self.player.heard()])
        self.assertEqual(self.stored(self.stepped)[42], (9.0, 0.0))
        self.assertEqual((self.entry()["what"], self.entry()["player"]), ("kick", "42"))

    def test_kick_without_gateway(self) -> None:
        """A program without conversations of ours has its service take the player offline."""
        resource = WebResource(self.service, access=Access(tokens=TOKENS), audit=self.audit)
        self.site = WebSite(resource, self.stepped.reactor, self.stepped.reactor.seconds)
        self.assertEqual(self.change("POST", "/players/42/kick").status, 200)
        self.assertNotIn(42, self.service.run.table.slots)

    def test_erase(self) -> None:
        """An erasure leaves nothing, and says how much there was; the log has no value of it."""
        self.change("PATCH", "/players/42", {"x": 3})
        answer = self.change("POST", "/players/42/erase")
        self.assertEqual(
            answer.json, {"session_id": "42", "erased": {"stored": 1, "quarantined": 0}}
        )
        self.assertNotIn(42, self.stored(self.stepped))
        self.refused(self.ask("GET", "/players/42"), 404)
        entry = self.audit.entries[-1]
        self.assertEqual((entry["what"], entry["done"]), ("erase", True))
        self.assertFalse({"before", "after"} & set(entry))

    def test_flush(self) -> None:
        """A flush is answered once all is saved."""
        self.service.update(42, at(9))
        self.assertEqual(self.change("POST", "/flush").json, {"flushed": True})
        self.assertEqual(self.stored(self.stepped)[42], (9.0, 0.0))
        self.assertEqual(self.entry()["what"], "flush")

    def test_no_audit(self) -> None:
        """Where a change cannot be recorded, none is made."""
        self.audit.error = AuditUnusable("no room")
        for method, path, body in CHANGES:
            answer = self.change(method, path, body)
            self.assertIn("without an audit log: no room", self.refused(answer, 503))
        self.assertEqual(self.service.state(42), at(350, 200))

    def test_not_recorded(self) -> None:
        """A change that was made and could not be recorded is not answered as done."""

        def record(entry: object) -> None:
            raise AuditUnusable("no room")

        self.patch(self.audit, "record", record)
        error = self.refused(self.change("PATCH", "/players/42", {"x": 3}), 500)
        self.assertIn("was made, but is not in the audit log yet: no room", error)

    def test_not_saved_in_time(self) -> None:
        """A store that takes nothing is waited for a while; the answer says that it goes on."""
        connection = self.connect()
        connection.send(request("PATCH", "/players/42", {"x": 3}, token=WRITE))
        self.idle(31.0)
        error = self.refused(connection.answer(), 504)
        self.assertIn("not saved within 30 s", error)
        self.assertEqual((self.entry()["done"], self.entry()["why"]), (False, error))
        self.advance(0.2)
        self.assertEqual(self.stored(self.stepped)[42][0], 3.0)

    def test_too_many(self) -> None:
        """Changes that wait for the store have a bound."""
        for session_id in range(100, 165):
            self.stepped.join(session_id)
        connections = []
        for session_id in range(100, 164):
            connections.append(self.connect())
            connections[-1].send(request("PATCH", f"/players/{session_id}", {"x": 1}, token=WRITE))
        self.assertEqual([c.take() for c in connections], [b""] * 64)
        self.site.channels.clear()  # 64 connections are the most, and all of them wait
        answer = self.ask("PATCH", "/players/164", {"x": 1}, token=WRITE)
        self.assertIn("64 changes wait", self.refused(answer, 503))
        self.assertEqual(answer.headers["retry-after"], "1")
        self.advance(0.2)
        self.assertEqual(self.change("PATCH", "/players/164", {"x": 1}).status, 200)

    def test_stopped(self) -> None:
        """A server that has stopped changes nothing, and says that the request is not at fault."""
        self.successResultOf(self.stepped.stop())
        for method, path, body in CHANGES:
            self.refused(self.change(method, path, body), 503)
