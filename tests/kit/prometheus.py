"""A real Prometheus that scrapes real servers by the rules in ``deploy/``."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

from twisted.trial.unittest import SkipTest

from tests.kit.deploy import DEPLOY
from tests.kit.processes import PATIENCE

SCRAPE_EVERY = 3
"""Seconds between two scrapes and two looks at the rules, and those that a scrape may take."""
RANGE = "15s"
"""What stands for ``$__rate_interval``, which Grafana sets to some scrapes."""

_CONFIG = """
global:
  scrape_interval: {every}s
  scrape_timeout: {every}s
  evaluation_interval: {every}s
rule_files:
  - {rules}
scrape_configs:
  - job_name: playerstate
    static_configs:
      - targets: {targets}
"""


def found() -> str:
    """The path of the program, or the test is skipped."""
    path = shutil.which("prometheus")
    if path is None:
        raise SkipTest("prometheus is not installed; it is of Debian's package prometheus")
    return path


class Prometheus:
    """A Prometheus in a process of its own.

    Args:
        directory: where it keeps its data.
        targets: the addresses of the servers, as ``host:port``.
    """

    def __init__(self, directory: str, targets: Sequence[str]) -> None:
        os.makedirs(directory)
        config = os.path.join(directory, "prometheus.yml")
        with open(config, "w", encoding="utf-8") as file:
            rules = DEPLOY / "prometheus/playerstate.rules.yml"
            file.write(
                _CONFIG.format(every=SCRAPE_EVERY, rules=rules, targets=json.dumps(list(targets)))
            )
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._address = f"127.0.0.1:{free.getsockname()[1]}"
        with open(os.path.join(directory, "log"), "wb") as log:
            self._process = subprocess.Popen(
                [
                    *(found(), f"--config.file={config}", f"--storage.tsdb.path={directory}/data"),
                    f"--web.listen-address={self._address}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(PATIENCE)

    def _ask(self, path: str, **query: str) -> Any:
        url = f"http://{self._address}/api/v1/{path}?{urlencode(query)}"
        with urlopen(url, timeout=PATIENCE) as answer:
            return json.load(answer)["data"]

    def query(self, query: str) -> dict[str, float]:
        """The values of a query now, by instance; the highest where an instance has several.

        Raises:
            HTTPError: the query is wrong.
        """
        values: dict[str, float] = {}
        for series in self._ask("query", query=query)["result"]:
            instance = series["metric"].get("instance", "")
            value = float(series["value"][1])
            values[instance] = max(value, values.get(instance, value))
        return values

    def alerts(self) -> set[tuple[str, str]]:
        """The alerts that fire now: the name and the instance of each."""
        return {
            (alert["labels"]["alertname"], alert["labels"]["instance"])
            for alert in self._ask("alerts")["alerts"]
            if alert["state"] == "firing"
        }

    def wait_until(self, holds: Callable[[], object], within: float, what: object) -> None:
        """Wait until something holds of what it answers."""
        deadline = time.monotonic() + within
        while True:
            try:
                if holds():
                    return
            except URLError as error:
                if getattr(error, "code", None) == 400:
                    raise
            assert time.monotonic() < deadline, what() if callable(what) else what
            time.sleep(0.2)


def plain(query: str) -> str:
    """A query of the dashboard, with values for what Grafana fills in."""
    return query.replace("$__rate_interval", RANGE).replace("$instance", ".*")
