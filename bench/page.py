"""What the page costs: ``python -m bench.page [PLAYERS [SECONDS]]``, with the extra ``browser``.

A server is fed by walkers at 20 moves a second each; the share of a core that its reactor thread
takes is measured without a page, with one in Chromium, and without one again.  While the page is
open, its frames are counted: those that Chromium gives it, and those that it draws.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.request import urlopen

from playwright.sync_api import Page, sync_playwright

from bench.children import child

T = TypeVar("T")
CHROMIUM = "/usr/bin/chromium"
SIZE = {"width": 1440, "height": 900}
SETTLE = 3.0
"""Seconds before something is measured."""
WITHIN = 20.0
COUNT = """
async (seconds) => {
    const began = performance.now();
    const drawn = playerstate.drawn;
    let frames = 0;
    await new Promise((resolve) => {
        const frame = () => {
            frames++;
            if (performance.now() - began < 1000 * seconds) requestAnimationFrame(frame);
            else resolve();
        };
        requestAnimationFrame(frame);
    });
    const took = (performance.now() - began) / 1000;
    return [frames / took, (playerstate.drawn - drawn) / took];
}
"""


def main() -> None:
    """Measure, and print what was found."""
    players = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 10.0
    print(
        f"{players:,} players, 20 moves a second each; {os.cpu_count()} cores; load before "
        f"{os.getloadavg()[0]:.1f}"
    )
    with tempfile.TemporaryDirectory() as directory, _server(directory) as server:
        pid, udp, web = server
        with child("walkers", players, udp) as walkers:
            walkers.hear()
            reactor = Reactor(pid, web)
            reactor.watch("no page", lambda: time.sleep(seconds))
            with _page(f"http://127.0.0.1:{web}/") as page:
                frames, drawn = reactor.watch("one page", lambda: page.evaluate(COUNT, seconds))
            print(f"page: {frames:.1f} frames a second, {drawn:.1f} of them drawn")
            reactor.watch("no page", lambda: time.sleep(seconds))


class Reactor:
    """The reactor thread of a server.

    Args:
        pid: of the server.
        web: the port of its endpoint.
    """

    def __init__(self, pid: int, web: int) -> None:
        self._stat = Path(f"/proc/{pid}/task/{pid}/stat")
        self._metrics = f"http://127.0.0.1:{web}/metrics"

    def watch(self, what: str, work: Callable[[], T]) -> T:
        """Print what it took of a core, and the moves that it applied, while something was done."""
        time.sleep(SETTLE)
        applied, taken, began = self._applied(), self._seconds(), time.monotonic()
        result = work()
        seconds = time.monotonic() - began
        share = (self._seconds() - taken) / seconds
        moves = (self._applied() - applied) / seconds
        print(f"reactor, {what}: {share:.1%} of a core, {moves:,.0f} moves a second")
        return result

    def _seconds(self) -> float:
        user, system = self._stat.read_text(encoding="ascii").rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def _applied(self) -> float:
        with urlopen(self._metrics) as answer:
            text = answer.read().decode()
        found = re.search(r"^playerstate_updates_applied_total (\S+)$", text, re.MULTILINE)
        assert found, text
        return float(found[1])


@contextmanager
def _server(directory: str) -> Iterator[tuple[int, int, int]]:
    """A server process: its pid, its UDP port and its TCP port."""
    log = Path(directory, "log")
    run = "from twisted.scripts.twistd import run; run()"
    options = ["-n", "playerstate", "--listen", "udp:0", "--web", "tcp:0"]
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", run, *options], cwd=directory, stdout=out, stderr=out
        )
    try:
        yield process.pid, _port(log, r"listening on udp"), _port(log, r"answering http on")
    finally:
        process.terminate()
        process.wait(WITHIN)


def _port(log: Path, what: str) -> int:
    deadline = time.monotonic() + WITHIN
    while time.monotonic() < deadline:
        found = re.search(rf"{what} [\d.]+:(\d+)", log.read_text())
        if found:
            return int(found[1])
        time.sleep(0.1)
    raise RuntimeError(f"the server did not start: {log.read_text()}")


@contextmanager
def _page(url: str) -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE)
        page.goto(url)
        page.wait_for_selector('body[data-state="live"]', state="attached")
        yield page
        browser.close()


if __name__ == "__main__":
    main()
