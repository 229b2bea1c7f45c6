"""What a URL of a PostgreSQL database says, and that no password gets into what is shown."""

from __future__ import annotations

import contextlib
import os

from twisted.trial.unittest import SynchronousTestCase

from playerstate.interfaces import StoreUnusable
from playerstate.state.default import PlayerState
from playerstate.stores import browse_store, open_store, operate_store, without_password
from playerstate.stores.postgresql.url import parse_url
from playerstate.tap import Options
from tests.kit.postgresql import PostgreSQLTestCase
from tests.kit.support import field, made

SECRET = "s3cr3t"
WITH_PASSWORDS = (
    f"postgresql://ada:{SECRET}@db/game",
    f"postgresql://ada:{SECRET}@db:5432,db2/game?sslmode=require",
    f"postgresql://:{SECRET}@/game",
    f"postgresql://ada:{SECRET}%zz@db/game",
    f"postgresql://ada:{SECRET}:x@db/game",
    f"postgresql://db/game?password={SECRET}",
    f"postgresql://db/game?user=ada&password={SECRET}",
    f"postgresql://db/game?p%61ssword={SECRET}",
    f"postgresql://db/game?sslpassword={SECRET}",
)


class UrlTests(SynchronousTestCase):
    """URLs as libpq has them."""

    def test_shown(self) -> None:
        """A place is shown as its URL, whatever is in it."""
        for url in (
            "postgresql://ada@db:5433/game",
            "postgresql://ada@db1:1,db2:2/game?sslmode=verify-full",
            "postgresql://db1,db2/game?target_session_attrs=any",
            "postgresql:///game",
            "postgresql:///?service=game",
            "postgresql://ada@/game?host=/run/postgresql&port=5433",
            "postgresql://[::1]:5433/game",
            "postgresql://%C3%A4da@db/a%20b%2Fc",
        ):
            self.assertEqual(str(parse_url(url)), url)
            self.assertEqual(parse_url(str(parse_url(url))), parse_url(url))

    def test_describe(self) -> None:
        """A store is described by its URL, before it is connected to."""
        url = "postgresql://ada@db1:1,db2:2/game?sslmode=verify-full"
        self.assertEqual(open_store(url, PlayerState).describe(), url)

    def test_refused(self) -> None:
        """What libpq does not understand is refused in one line."""
        for url in ("postgresql:game", "postgresql://db/game?colour=red", "postgresql://[::1/x"):
            error = self.assertRaises(StoreUnusable, open_store, url, PlayerState)
            self.assertEqual(len(str(error).splitlines()), 1)
            self.assertIn("postgresql://USER@HOST", str(error))

    def test_password(self) -> None:
        """A URL with a password is refused, whoever asks, and no message has the password."""
        for url in WITH_PASSWORDS:
            for ask in (lambda url: open_store(url, PlayerState), browse_store, operate_store):
                error = self.assertRaises(StoreUnusable, ask, url)
                self.assertNotIn(SECRET, str(error))
                self.assertEqual(error.__cause__, None)

    def test_password_of_a_server(self) -> None:
        """Nor has the line with which a server ends that is given one, even by another scheme."""
        for url in (*WITH_PASSWORDS, f"postgres://ada:{SECRET}@db/game"):
            with self.assertRaises(SystemExit) as caught:
                Options().parseOptions(["--store", url])
            self.assertNotIn(SECRET, str(caught.exception), url)
            self.assertIn("--store", str(caught.exception))

    def test_without_password(self) -> None:
        """What remains of a URL in messages, and that others are left alone."""
        self.assertEqual(without_password("x://ada:a:b@c@db/e?f=g:h@i"), "x://ada:***@db/e?f=g:h@i")
        self.assertEqual(
            without_password("x://db/game?Password=a&b=c&sslpassword=d"),
            "x://db/game?Password=***&b=c&sslpassword=***",
        )
        for url in ("sqlite:/a:b@c/d.db", "memory:", "x://ada@db:5432/game", "x://db:5/a@b"):
            self.assertEqual(without_password(url), url)

    def test_names(self) -> None:
        """Fields that PostgreSQL can have no column for are refused by their names."""
        for name in ("xmin", "ctid", "n" * 64, "ö" * 32):
            state = made(**{name: field(int, 1)})
            error = self.assertRaises(StoreUnusable, open_store, "postgresql:///x", state)
            self.assertIn(f"field {name}: ", str(error))
        open_store("postgresql:///x", made(**{"n" * 63: field(int, 1), "user": field(int, 1)}))


class ConnectTests(PostgreSQLTestCase):
    """How the server is connected to."""

    def connected(self, url: str) -> list[str]:
        """The name of the database that a URL leads to."""
        with contextlib.closing(parse_url(url).connect()) as session:
            return [name for (name,) in session.execute("SELECT current_database()")]

    def test_hosts(self) -> None:
        """Of several hosts the one is used that is there."""
        dead = "127.0.0.1:1"
        live = f"127.0.0.1:{self.server.port}"
        for hosts in (f"{dead},{live}", f"{live},{dead}"):
            url = f"postgresql://postgres@{hosts}/{self.database}"
            self.assertEqual(self.connected(url), [self.database])

    def test_read_only(self) -> None:
        """A server that takes no writes is none for a server of players."""
        self.sql(f"ALTER DATABASE {self.database} SET default_transaction_read_only = on")
        place = parse_url(self.url)
        with self.assertRaisesRegex(StoreUnusable, "cannot be reached"), place.explained():
            place.connect()
        with contextlib.closing(place.connect(target_session_attrs="any")):
            pass

    def test_password_file(self) -> None:
        """The password comes from the file that PGPASSFILE names, and is not shown with errors."""
        path = self.mktemp()
        with open(path, "w") as file:
            file.write(f"*:*:*:*:{SECRET}\n")
        os.chmod(path, 0o600)
        self.patch(os, "environ", {**os.environ, "PGPASSFILE": path})
        place = parse_url(self.url)
        session = place.connect()
        self.addCleanup(session.close)
        self.assertNotIn(SECRET, f"{session!r} {session.info.dsn} {place!r} {place}")

    def test_name(self) -> None:
        """The server's list of activities names the process."""
        with contextlib.closing(parse_url(self.url).connect()) as session:
            (found,) = session.execute("SHOW application_name")
        self.assertRegex(found[0], rf"^playerstate {os.getpid()}@")

    def test_unreachable(self) -> None:
        """What cannot be reached is refused in one line, which says what to check."""
        for url in (
            f"postgresql://postgres@127.0.0.1:1,127.0.0.1:2/{self.database}",
            self.server.url("missing"),
        ):
            with self.assertRaises(StoreUnusable) as caught, parse_url(url).explained():
                parse_url(url).connect()
            line = str(caught.exception)
            self.assertEqual(len(line.splitlines()), 1)
            self.assertTrue(line.startswith(f"{url} cannot be reached: "), line)
            self.assertIn("PGPASSFILE", line)
