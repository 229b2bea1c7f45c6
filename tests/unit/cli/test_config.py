"""``playerstate config``: what would be in force, and from where."""

from __future__ import annotations

import json
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from playerstate.layered import LayeredOptions
from tests.kit.arguments import run


class ConfigTests(SynchronousTestCase):
    """What the command prints."""

    def setUp(self) -> None:
        """A file, and a variable."""
        Path("playerstate.toml").write_text('save-within = 2\nlisten = ["udp:1", "udp:2"]\n')
        self.patch(LayeredOptions, "environ", {"PLAYERSTATE_MAX_PLAYERS": "7"})

    def test_table(self) -> None:
        """One line an option: its value, and whether file, variable or command line gave it."""
        result = run("config", "--config", "playerstate.toml", "--insecure", "-s", "memory:")
        self.assertEqual(result.exit_code, 0, result.output)
        lines = [line.split(maxsplit=1) for line in result.stdout.splitlines()]
        found = {name: " ".join(rest.split()) for name, rest in lines}
        self.assertEqual(found["option"], "value from")
        self.assertEqual(found["save-within"], "2 playerstate.toml")
        self.assertEqual(found["listen"], "udp:1 udp:2 playerstate.toml")
        self.assertEqual(found["max-players"], "7 PLAYERSTATE_MAX_PLAYERS")
        self.assertEqual(found["insecure"], "on command line")
        self.assertEqual(found["store"], "memory: command line")
        self.assertEqual(found["queue-size"], "8192 default")
        self.assertEqual(found["public"], "- default")

    def test_json(self) -> None:
        """The same as one JSON object."""
        result = run("config", "--json", "--config=playerstate.toml")
        found = json.loads(result.stdout)
        self.assertEqual(found["listen"], {"value": ["udp:1", "udp:2"], "from": "playerstate.toml"})
        self.assertEqual(found["insecure"], {"value": False, "from": "default"})
        self.assertEqual(found["key-file"], {"value": None, "from": "default"})

    def test_error(self) -> None:
        """What would keep the server from starting is said in one line, as the server would."""
        Path("bad.toml").write_text("save-witin = 2\n")
        for arguments, line in (
            (("--config", "bad.toml"), "Error: bad.toml: save-witin: there is no such option; the"),
            (("--save-within", "0"), "Error: --save-within 0: must be a number of seconds from"),
        ):
            result = run("config", *arguments)
            self.assertEqual(result.exit_code, 1)
            [said] = result.stderr.splitlines()
            self.assertTrue(said.startswith(line), said)
