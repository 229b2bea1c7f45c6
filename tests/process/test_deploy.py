"""What lies in ``deploy/`` is what it says: checked by the tools that it is for.

`tests.proof.test_alerts` has a real Prometheus watch real servers by it.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from playerstate.figures import figures
from playerstate.ledger import Counters, Gauges, Histograms
from playerstate.tap import Options
from playerstate.transports.netcode.tally import Tally
from tests.kit.crash_load import Process
from tests.kit.deploy import DEPLOY, OTHER_METRICS, queries
from tests.kit.pages import read
from tests.kit.processes import Player

MOST_EXPOSED = 15
"""Tenths of the exposure that systemd-analyze may find; 100 is a service that may do anything."""
STOP_WITHIN = 30 + 5
"""Seconds that a stop may take: for the store, and for its writer to close."""

NO_NEW_CODE = """
import ctypes
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0):
    raise SystemExit("no such control")
"""
"""Forbids the process memory that is writable and executable, as ``MemoryDenyWriteExecute``."""


def tool(name: str, package: str) -> str:
    """The path of a program that may be missing."""
    found = shutil.which(name)
    if found is None:
        raise SkipTest(f"{name} is not installed; it is of Debian's package {package}")
    return found


def run(*command: str) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise AssertionError(f"{shlex.join(command)}: {done.returncode}\n{done.stdout}")
    return done.stdout


class UnitTests(SynchronousTestCase):
    """The unit of systemd."""

    def setUp(self) -> None:
        """A copy that names the twistd that is installed here."""
        self.text = (DEPLOY / "playerstate.service").read_text("utf-8")
        here = f"{sys.prefix}/bin/twistd"
        text = self.text.replace("/opt/playerstate/.venv/bin/twistd", here)
        self.assertIn(here, text)
        os.makedirs("units", exist_ok=True)
        self.path = os.path.abspath("units/playerstate.service")
        Path(self.path).write_text(text, "utf-8")

    def setting(self, name: str) -> str:
        """The one value of a setting."""
        [value] = re.findall(rf"^{name}=(.*)$", self.text, re.M)
        return str(value)

    def test_verify(self) -> None:
        """systemd finds nothing wrong with it."""
        analyze = tool("systemd-analyze", "systemd")
        self.assertEqual(run(analyze, "verify", "--man=no", self.path), "")

    def test_security(self) -> None:
        """systemd finds little that an intruder could do."""
        analyze = tool("systemd-analyze", "systemd")
        run(
            *(analyze, "security", "--offline=true", "--no-pager"),
            *(f"--threshold={MOST_EXPOSED}", self.path),
        )

    def test_stop(self) -> None:
        """systemd waits for longer than a stop of ours takes."""
        self.assertGreater(int(self.setting("TimeoutStopSec")), STOP_WITHIN)

    def test_command(self) -> None:
        """What it starts is an option line that the plugin takes."""
        words = shlex.split(self.setting("ExecStart"))
        arguments = words[words.index("playerstate") + 1 :]
        Path("playerstate.toml").write_text("save-within = 3", "utf-8")
        options = Options()
        options.parseOptions(
            [os.path.basename(word) if word.endswith(".toml") else word for word in arguments]
        )
        self.assertEqual(options["save-within"], 3.0)

    def test_no_new_code(self) -> None:
        """The server plays and saves where no memory can be both written and run."""
        directory = os.path.abspath(self.mktemp())
        os.mkdir(directory)
        server = Process(directory, "--save-within", "0.2", preexec=NO_NEW_CODE)
        self.addCleanup(server.kill)
        try:
            address = server.listening()
        except AssertionError as error:
            if "no such control" in str(error):
                raise SkipTest("this kernel cannot forbid it by itself") from None
            raise
        player = Player(address, 42)
        self.addCleanup(player.close)
        player.join()
        player.move(1.0, 2.0)
        player.wait_saved()


class DockerfileTests(SynchronousTestCase):
    """The container's recipe, which no test here can build."""

    def setUp(self) -> None:
        """Its instructions, each on one line."""
        text = (DEPLOY / "Dockerfile").read_text("utf-8").replace("\\\n", "")
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        self.instructions = [line.split(maxsplit=1) for line in lines]

    def of(self, name: str) -> list[str]:
        """The arguments of each instruction of this name."""
        return [rest for instruction, rest in self.instructions if instruction == name]

    def test_user(self) -> None:
        """It runs as a user of its own, to whom nothing but the data belongs."""
        [user] = self.of("USER")
        self.assertIn(f"--no-create-home --shell /usr/sbin/nologin {user}", self.of("RUN")[-1])
        self.assertIn(f"install -d -o {user} -g {user} -m 700 /data", self.of("RUN")[-1])
        self.assertEqual(self.of("VOLUME"), ["/data"])

    def test_command(self) -> None:
        """What it starts is the server, in the foreground and without a pid file."""
        [command] = self.of("ENTRYPOINT")
        self.assertEqual(json.loads(command), ["twistd", "-n", "--pidfile=", "playerstate"])

    def test_options(self) -> None:
        """The options that it sets are options, with values that the server takes."""
        os.makedirs("data", exist_ok=True)
        options = Options()
        options.environ = {
            name: value.replace("/data/", "data/") for name, value in self.environment().items()
        }
        options.parseOptions([])
        self.assertEqual(
            {setting.source for setting in options.in_force()} - {"default"}, set(options.environ)
        )
        self.assertIn(f"127.0.0.1:{options['web'].port}/health", self.of("HEALTHCHECK")[0])

    def environment(self) -> dict[str, str]:
        """The options that it sets."""
        pairs = (word.split("=", 1) for line in self.of("ENV") for word in line.split())
        return {name: value for name, value in pairs if name.startswith("PLAYERSTATE_")}


class PrometheusTests(SynchronousTestCase):
    """Prometheus' configuration and rules."""

    def test_rules(self) -> None:
        """promtool finds the rules right, and each does what its cases say."""
        promtool = tool("promtool", "prometheus")
        rules = DEPLOY / "prometheus"
        self.assertIn("SUCCESS", run(promtool, "check", "rules", f"{rules}/playerstate.rules.yml"))
        self.assertIn("SUCCESS", run(promtool, "check", "config", f"{rules}/prometheus.yml"))
        run(promtool, "test", "rules", f"{rules}/playerstate.rules.test.yml")

    def test_each_rule_has_cases(self) -> None:
        """For each rule there is a case in which it fires, and one in which it does not."""
        rules = (DEPLOY / "prometheus/playerstate.rules.yml").read_text("utf-8")
        cases = (DEPLOY / "prometheus/playerstate.rules.test.yml").read_text("utf-8")
        for name in re.findall(r"- alert: (\w+)", rules):
            self.assertRegex(cases, rf"alertname: {name}\n\s+exp_alerts:\n")
            self.assertRegex(cases, rf"alertname: {name}}}\n")

    def test_each_rule_is_documented(self) -> None:
        """The page on deployment has each rule."""
        rules = (DEPLOY / "prometheus/playerstate.rules.yml").read_text("utf-8")
        page = read("docs/deployment.md")
        for name in re.findall(r"- alert: (\w+)", rules):
            self.assertIn(f"`{name}`", page)


class MetricsTests(SynchronousTestCase):
    """Rules and dashboard ask for figures that there are."""

    def test_names(self) -> None:
        """Each name in a query is one that the server has."""
        known = {"up", *OTHER_METRICS}
        for of in (Gauges, Counters, Histograms, Tally):
            for _, figure in figures(of):
                ending = {"counter": "_total", "histogram": "_bucket"}.get(figure.kind, "")
                known.add(f"playerstate_{figure.metric}{ending}")
        asked = {name for query in queries() for name in re.findall(r"playerstate_\w+", query)}
        self.assertEqual(asked - known, set())


class DashboardTests(SynchronousTestCase):
    """Grafana's dashboard, which no test here can show."""

    def setUp(self) -> None:
        """The dashboard."""
        path = DEPLOY / "grafana/playerstate.json"
        self.dashboard: dict[str, Any] = json.loads(path.read_text("utf-8"))

    def test_panels(self) -> None:
        """Each panel has a title, a description, a place of its own, and queries."""
        places = set()
        for panel in self.dashboard["panels"]:
            place = panel["gridPos"]
            for x in range(place["x"], place["x"] + place["w"]):
                for y in range(place["y"], place["y"] + place["h"]):
                    self.assertLess(x, 24)
                    self.assertNotIn((x, y), places)
                    places.add((x, y))
            self.assertTrue(panel["title"])
            self.assertTrue(panel["description"])
            self.assertTrue(panel["targets"])
        ids = [panel["id"] for panel in self.dashboard["panels"]]
        self.assertEqual(len(ids), len(set(ids)))

    def test_variables(self) -> None:
        """Only variables that there are appear in it."""
        named = {variable["name"] for variable in self.dashboard["templating"]["list"]}
        used = set(re.findall(r"\$\{?(\w+)", json.dumps(self.dashboard)))
        self.assertEqual(used - named, {"__rate_interval", "__all"})
