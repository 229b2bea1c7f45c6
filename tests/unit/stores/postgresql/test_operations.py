"""What operators do with a PostgreSQL database, by the commands of playerstate."""

from __future__ import annotations

import json
import os
from contextlib import closing

from click.testing import CliRunner, Result
from zope.interface.verify import verifyObject

from playerstate.cli import main
from playerstate.interfaces import Erased, IHeldStore, IStoreBrowser, IStoreOperations, Stored
from playerstate.state.schema import StateSchema
from playerstate.stores import browse_store, operate_store
from playerstate.stores.contract.base import StoreTestCase
from playerstate.stores.contract.states import EVERYTHING
from playerstate.stores.postgresql.store import PostgreSQLStore
from tests.kit.postgresql import PostgreSQLTestCase

CLASS = "playerstate.stores.contract.states:Everything"
ADA = (7, 1.5, -3, False, "cäve", -0.25, 1_700_000_000_000_000)
BOB = (8, 2.5, 2**62, True, "", 1e-9, 1_600_000_000_000_000)


class CommandTests(PostgreSQLTestCase, StoreTestCase):
    """The commands, on a database with two players."""

    def open(self, schema: StateSchema) -> PostgreSQLStore:
        """A store on the database."""
        return self.make_store(schema)

    def setUp(self) -> None:
        """Save the players, and close the store again."""
        super().setUp()
        self.start(EVERYTHING)
        self.write(ADA, BOB)
        self.ends.close()

    def run_command(self, *arguments: str, status: int = 0) -> Result:
        """Run a command of playerstate, with this exit status."""
        result = CliRunner().invoke(main, arguments)
        self.assertEqual(result.exit_code, status, result.output)
        return result

    def players(self) -> list[tuple[object, ...]]:
        """All rows."""
        return self.sql(
            "SELECT session_id, x, hp, alive, zone, angle, updated_at FROM player_state"
            " ORDER BY session_id"
        )

    def test_interfaces(self) -> None:
        """What they are made of provides what it says."""
        verifyObject(IStoreOperations, operate_store(self.url))
        with closing(operate_store(self.url).hold()) as held:
            verifyObject(IHeldStore, held)
        with closing(browse_store(self.url)) as browser:
            verifyObject(IStoreBrowser, browser)

    def test_show(self) -> None:
        """Players are shown, the latest first, and one alone."""
        shown = json.loads(self.run_command("show", self.url, "--json").output)
        self.assertEqual(shown["players"], 2)
        names = ("session_id", "x", "hp", "alive", "zone", "angle", "updated_at")
        self.assertEqual([tuple(row[name] for name in names) for row in shown["rows"]], [ADA, BOB])
        self.assertIn("cäve", self.run_command("show", self.url, "7").output)
        self.assertIn("holds no player 9", self.run_command("show", self.url, "9", status=1).output)

    def test_export_and_import(self) -> None:
        """What is exported, imported into another database, is the same to the last bit."""
        for form in ("csv", "jsonl"):
            path = os.path.abspath(self.mktemp()) + f".{form}"
            self.run_command("export", self.url, path)
            before, self.database = self.database, self.server.make_database()
            self.addCleanup(self.server.drop_database, self.database)
            no_store = self.run_command("import", self.url, path, "--state", CLASS, status=1)
            self.assertIn("there is no store", no_store.output)
            self.run_command("import", self.url, path, "--state", CLASS, "--create")
            self.assertEqual(self.players(), [ADA, BOB])
            self.database = before

    def test_import_refused(self) -> None:
        """Where the database refuses one row nothing is imported, and the line is named."""
        self.refuse(9)
        path = os.path.abspath(self.mktemp()) + ".csv"
        with open(path, "w") as file:
            file.write("session_id,hp,updated_at\n7,1,1700000000000001\n9,1,1700000000000001\n")
        answer = self.run_command("import", self.url, path, "--state", CLASS, status=1)
        self.assertIn("line 3: the store refuses it: not that one", answer.output)
        self.assertEqual(self.players(), [ADA, BOB])

    def test_import_partial(self) -> None:
        """Fields that a file does not give keep what is stored; older rows are left out."""
        path = os.path.abspath(self.mktemp()) + ".csv"
        with open(path, "w") as file:
            file.write("session_id,hp,updated_at\n7,5,1700000000000001\n8,5,1\n")
        answer = self.run_command("import", self.url, path, "--state", CLASS)
        self.assertIn("1 outdated", answer.output)
        self.assertEqual(self.players(), [(7, 1.5, 5, *ADA[3:6], ADA[6] + 1), BOB])

    def test_check(self) -> None:
        """A whole store is well; a class that does not fit, and quarantined rows, are not."""
        answer = self.run_command("check", self.url, "--state", CLASS)
        self.assertIn("2 players, in use by no server", answer.output)
        self.assertIn("all is well", answer.output)
        self.assertIn("would: add columns y", self.run_command("check", self.url).output)
        self.sql("INSERT INTO player_refused VALUES (5, '{}', 1, 'no')")
        answer = self.run_command("check", self.url, "--state", CLASS, status=1)
        self.assertIn("quarantined rows: 1", answer.output)

    def test_damage(self) -> None:
        """An index that lacks a player is damage."""
        self.sql("ALTER TABLE player_state DROP CONSTRAINT player_state_pkey")
        self.sql("CREATE UNIQUE INDEX part ON player_state (session_id) WHERE session_id > 0")
        self.run_command("check", self.url, "--state", CLASS)
        self.sql("UPDATE pg_index SET indisready = false WHERE indexrelid = 'part'::regclass")
        self.sql("INSERT INTO player_state (session_id, updated_at) VALUES (9, 1)")
        answer = self.run_command("check", self.url, "--state", CLASS, status=1)
        self.assertIn("the table has 3 players, and its index 2", answer.output)

    def test_migrate(self) -> None:
        """A migration needs a backup by PostgreSQL's own tools, and then does its work."""
        dry = self.run_command("migrate", self.url, "--dry-run")
        self.assertIn("add columns y", dry.output)
        refused = self.run_command("migrate", self.url, status=1)
        self.assertIn("pg_dump", refused.output)
        self.assertEqual(len(self.sql("SELECT * FROM player_state")[0]), 7)
        done = self.run_command("migrate", self.url, "--no-backup")
        self.assertIn("add columns y: done", done.output)
        self.assertEqual(self.sql("SELECT y FROM player_state WHERE session_id = 7"), [(200.0,)])

    def test_prune(self) -> None:
        """Players who have not changed for long are deleted."""
        days = "1000"
        dry = self.run_command("prune", self.url, "--idle-days", days, "--dry-run")
        self.assertIn("2 players", dry.output)
        self.sql("UPDATE player_state SET updated_at = 2000000000000000 WHERE session_id = 7")
        self.run_command("prune", self.url, "--idle-days", days)
        self.assertEqual([row[0] for row in self.players()], [7])

    def test_erase(self) -> None:
        """Of a player who is erased nothing stays, the quarantined row included."""
        self.sql("INSERT INTO player_refused VALUES (7, '{}', 1, 'no')")
        with closing(operate_store(self.url).hold()) as held:
            self.assertEqual(held.erase(7), Erased(1, 1))
            self.assertEqual(held.load(EVERYTHING, [7, 8]), {8: Stored(BOB[1:-1], BOB[-1])})
        self.assertEqual(self.sql("SELECT * FROM player_refused"), [])

    def test_set(self) -> None:
        """A player's fields are set, and a player erased, by the commands."""
        self.run_command("set", self.url, "7", "hp=9", "zone=gate", "--state", CLASS)
        self.assertEqual(self.players()[0][:6], (7, 1.5, 9, False, "gate", -0.25))
        self.run_command("erase", self.url, "7")
        self.assertEqual(self.players(), [BOB])

    def test_no_backup(self) -> None:
        """Backups are left to PostgreSQL's own tools, and the commands say so."""
        for arguments, tool in (
            (("backup", self.url, "x.dump"), "pg_dump"),
            (("restore", self.url, "x.dump"), "pg_restore"),
        ):
            answer = self.run_command(*arguments, status=1)
            self.assertIn(tool, answer.output)
            self.assertFalse(os.path.exists("x.dump"))

    def test_no_store(self) -> None:
        """A database without players, or none at all, is named in one line."""
        self.sql("DROP TABLE player_state, player_store, player_refused")
        for url, why in (
            (self.url, "holds no players"),
            (self.server.url("missing"), "cannot be reached"),
        ):
            for command in (("show", url), ("check", url), ("prune", url, "--idle-days", "1")):
                answer = self.run_command(*command, status=1)
                self.assertEqual(len(answer.output.splitlines()), 1, answer.output)
                self.assertIn(why, answer.output)

    def test_in_use(self) -> None:
        """A command that changes the store needs its server stopped; others work beside it."""
        self.start(EVERYTHING)
        answer = self.run_command("prune", self.url, "--idle-days", "1", status=1)
        self.assertRegex(answer.output, rf"in use by playerstate {os.getpid()}@\S+; ")
        checked = self.run_command("check", self.url, "--state", CLASS)
        self.assertIn("in use by playerstate", checked.output)
        self.run_command("show", self.url)

    def test_beside_a_writer(self) -> None:
        """An export has the players as one moment saw them, while a server writes."""
        self.start(EVERYTHING)
        rows = operate_store(self.url).rows()
        first = next(rows)
        self.write((8, *BOB[1:-1], BOB[-1] + 1), (9, *BOB[1:]))
        self.assertEqual([first, *rows], [ADA, BOB])
