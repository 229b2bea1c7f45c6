"""The log of a real server: as JSON, and with SQLite's own messages in it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.kit.processes import TWIST, run_to_end
from tests.process.test_server import ProcessTestCase


class LogTests(ProcessTestCase):
    """What a server logs, and how."""

    def test_json(self) -> None:
        """Every line of the process is JSON, with the values as fields."""
        server = self.serve("--log-json", "--save-within", "0.2")
        player = self.player(server, 42)
        player.join()
        player.move(1.0, 2.0)
        player.wait_saved()
        server.stop()
        lines = [json.loads(line) for line in server.lines]
        [saving] = [line for line in lines if line["text"].startswith("saving to ")]
        self.assertEqual(saving["fields"]["seconds"], 0.2)
        self.assertEqual(saving["module"], "playerstate.players.run")
        [stopped] = [line for line in lines if line["text"].startswith("stopped: ")]
        self.assertEqual((stopped["fields"]["applied"], stopped["fields"]["committed"]), (1, 1))

    def test_configured(self) -> None:
        """A file of options turns it on as well."""
        Path(self.directory, "playerstate.toml").write_text("log-json = true\n")
        server = self.serve("--config", "playerstate.toml")
        server.stop()
        for line in server.lines:
            json.loads(line)

    def test_twist(self) -> None:
        """twist has an option of its own, of which the error speaks."""
        status, said = run_to_end(
            self.directory, "--log-format=text", "playerstate", "--log-json", script=TWIST
        )
        self.assertEqual(status, 1)
        self.assertIn("playerstate: --log-json: is for twistd; twist has --log-format=json", said)

    def test_other_logs_of_twistd(self) -> None:
        """What twistd is told of its log must not say otherwise."""
        for option in ("--syslog", "--logger=playerstate.jsonlog.observer"):
            status, said = run_to_end(
                self.directory, "-n", "--pidfile=", option, "playerstate", "--log-json"
            )
            self.assertEqual(status, 1)
            name = option.partition("=")[0]
            self.assertIn(f"--log-json: twistd's {name} says what the log is", said)

    def test_sqlite(self) -> None:
        """What SQLite has to say is in the log: here, that a killed server left it a log."""
        server = self.serve("--save-within", "0.2")
        player = self.player(server, 42)
        player.join()
        player.move(1.0, 2.0)
        player.wait_saved()
        server.kill()
        again = self.serve()
        self.player(again, 42).join()
        again.stop()
        said = "\n".join(again.lines)
        self.assertTrue(
            re.search(r"SQLite: recovered \d+ frames from WAL file .*SQLITE_NOTICE", said), said
        )
