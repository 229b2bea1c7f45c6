"""A PostgreSQL server of the tests' own, on loopback, in a directory that goes with it."""

from __future__ import annotations

import atexit
import contextlib
import glob
import itertools
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from functools import cache
from typing import Any

import psycopg
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from playerstate.state.schema import StateSchema
from playerstate.stores.postgresql.store import PostgreSQLStore
from playerstate.stores.postgresql.url import parse_url
from playerstate.testing import MemoryReactor
from tests.kit.support import PATIENCE

PLACES = "/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin"
USER = "postgres"
"""The server refuses to run as root; this user comes with Debian's package."""

_numbers = itertools.count()


@cache
def programs() -> str | None:
    """The directory of the newest server's programs; None if there is none here."""
    wanted = os.environ.get("PLAYERSTATE_POSTGRESQL")
    if wanted:
        return wanted
    found = [name for place in PLACES for name in glob.glob(place)]
    found = [name for name in found if os.path.exists(f"{name}/initdb")]
    return max(found, key=_version, default=None)


def _version(name: str) -> list[int]:
    return [int(part) for part in "".join(c if c.isdigit() else " " for c in name).split()]


def _as_user() -> dict[str, Any]:
    return {"user": USER, "group": USER, "extra_groups": []} if os.geteuid() == 0 else {}


def free_port() -> int:
    """A TCP port of loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class PostgreSQL:
    """A server, which ends with the process that made it.

    Args:
        settings: of postgresql.conf, by name.

    Raises:
        SkipTest: PostgreSQL is not installed.
    """

    def __init__(self, **settings: str) -> None:
        found = programs()
        if found is None:
            raise SkipTest("PostgreSQL's server is not installed")
        self._programs = found
        self.directory = tempfile.mkdtemp(prefix="playerstate-pg-")
        self.port = free_port()
        self._settings = {"fsync": "off", "max_connections": "60", **settings}
        self._process: subprocess.Popen[bytes] | None = None
        if os.geteuid() == 0:
            user = pwd.getpwnam(USER)
            os.chown(self.directory, user.pw_uid, user.pw_gid)
        self.data = f"{self.directory}/data"
        self._run("initdb", "-D", self.data, "-A", "trust", "-U", USER, "-E", "UTF8", "--no-sync")
        self.start()

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [f"{self._programs}/{program}", *arguments],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            timeout=60,
            **_as_user(),
        )
        if done.returncode:
            raise AssertionError(f"{program}: {done.stdout.decode(errors='replace')}")

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": self.directory,
            **self._settings,
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with open(f"{self.directory}/log", "ab") as log:
            self._process = subprocess.Popen(
                # It is stopped when this process dies, however it dies.
                [
                    *("setpriv", "--pdeathsig", "QUIT"),
                    *(f"{self._programs}/postgres", "-D", self.data),
                    *options,
                ],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **_as_user(),
            )
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                psycopg.connect(self.conninfo("postgres")).close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    with open(f"{self.directory}/log") as log:
                        raise AssertionError(log.read()) from None
                time.sleep(0.02)

    def stop(self, mode: str = "immediate") -> None:
        """Stop it, as ``pg_ctl stop -m MODE``; harmless if it does not run."""
        process, self._process = self._process, None
        if process is not None:
            if process.poll() is None:
                self._run("pg_ctl", "stop", "-D", self.data, "-m", mode)
            process.wait(PATIENCE)

    def remove(self) -> None:
        """Stop it, and remove its directory."""
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def pid(self) -> int:
        """The process id of the server."""
        assert self._process is not None
        return self._process.pid

    def conninfo(self, database: str) -> str:
        """How libpq connects to a database."""
        return f"host=127.0.0.1 port={self.port} user={USER} dbname={database} connect_timeout=5"

    def url(self, database: str, port: int | None = None, **parameters: str) -> str:
        """The URL of a database, through another port if one is given."""
        more = "&".join(f"{name}={value}" for name, value in parameters.items())
        return f"postgresql://{USER}@127.0.0.1:{port or self.port}/{database}" + (
            f"?{more}" if more else ""
        )

    def make_database(self, options: str = "") -> str:
        """A new empty database; its name."""
        name = f"test{next(_numbers)}"
        self.sql("postgres", f"CREATE DATABASE {name} {options}")
        return name

    def drop_database(self, name: str) -> None:
        """Remove a database, and end the connections to it."""
        self.sql("postgres", f"DROP DATABASE {name} WITH (FORCE)")

    def sql(self, database: str, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run a statement by hand."""
        with psycopg.connect(self.conninfo(database), autocommit=True) as connection:
            cursor = connection.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []


@cache
def shared() -> PostgreSQL:
    """The server that the tests of this process share."""
    server = PostgreSQL()
    atexit.register(server.remove)
    return server


class PostgreSQLTestCase(SynchronousTestCase):
    """A test with an empty database of its own.

    Attributes:
        server: the server.
        database: the name of the database.
        reactor: that the stores of `make_store` answer to.
    """

    def setUp(self) -> None:
        """Make the database."""
        self.server = shared()
        self.database = self.server.make_database()
        self.addCleanup(self.server.drop_database, self.database)
        self.reactor = MemoryReactor()

    @property
    def url(self) -> str:
        """Of the database."""
        return self.server.url(self.database)

    def make_store(self, schema: StateSchema, url: str | None = None) -> PostgreSQLStore:
        """A store on the database, or the one that a URL names."""
        return PostgreSQLStore(parse_url(url or self.url), schema, self.reactor)

    def turn(self) -> None:
        """Let the reactor have its turn."""
        self.reactor.deliver()
        time.sleep(0.001)

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run a statement on the database by hand."""
        return self.server.sql(self.database, statement, *values)

    def refuse(self, session_id: int) -> None:
        """Have the database refuse each further row of a player, by a trigger."""
        self.sql(
            f"""
            CREATE FUNCTION refuse_{session_id}() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN RAISE EXCEPTION 'not that one'; END$$;
            CREATE TRIGGER refuse_{session_id} BEFORE INSERT OR UPDATE ON player_state FOR EACH ROW
            WHEN (NEW.session_id = {session_id}) EXECUTE FUNCTION refuse_{session_id}()
            """
        )

    def cut(self) -> None:
        """End every connection to the database."""
        self.server.sql(
            "postgres",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
            self.database,
        )
