"""What tests in a real browser share: a server with its page, and a browser that keeps count."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tests.kit.processes import PATIENCE, Player, Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = "/usr/bin/chromium"
"""Debian's Chromium; the one that Playwright would download is not used."""
SCREENSHOTS = Path(
    os.environ.get("PROOF_SCREENSHOTS") or Path(__file__).parents[2] / "build" / "screenshots"
)
"""Where screenshots are kept after the tests."""
DESKTOP, PHONE = (1440, 900), (390, 844)
READ, WRITE = "r" * 24, "w" * 24
"""The tokens of the servers."""
LOADED = "Failed to load resource"
"""How Chromium's console reports each answer that is an error, however the page takes it."""


class Site:
    """A server process with the web endpoint.

    Args:
        directory: where it runs.
        options: of the plugin.
        interface: that the endpoint listens on.
        port: its port; 0 for any.
    """

    def __init__(
        self, directory: Path, *options: str, interface: str = "127.0.0.1", port: int = 0
    ) -> None:
        tokens = directory / "tokens"
        tokens.write_text(f"look read {READ}\nops write {WRITE}\n")
        tokens.chmod(0o600)
        self.server = Server(
            str(directory),
            *("--web", f"tcp:{port}:interface={interface}", "--web-token-file", "tokens"),
            *options,
        )
        lines = "\n".join(self.server.lines)
        found = re.search(r"answering http on [\d.]+:(\d+)", lines)
        assert found, lines
        self.port = int(found[1])
        self.url = f"http://127.0.0.1:{self.port}/"
        self._players: list[Player] = []

    def player(self, session_id: int, **named: Any) -> Player:
        """A player who has joined over UDP."""
        player = Player(self.server.address, session_id, **named)
        self._players.append(player)
        player.join()
        return player

    def close(self) -> None:
        """End the server, and close the players' sockets."""
        for player in self._players:
            player.close()
        self.server.kill()


class Visit:
    """One page in a browser, and all that it asked for and complained of.

    Args:
        page: Playwright's page.
        url: where it goes.
    """

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.errors: list[str] = []
        self.requests: list[str] = []
        page.set_default_timeout(PATIENCE * 1000)
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def _said(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(message.text)

    def go(self) -> None:
        """Load the page, and wait until it is fed."""
        self.page.goto(self.url)
        self.wait_state("live")

    def wait_state(self, name: str) -> None:
        """Wait until the page is in this state."""
        self.page.wait_for_selector(f'body[data-state="{name}"]', state="attached")

    def where_is(self, session_id: int) -> dict[str, Any] | None:
        """Where the map shows a player, and by what mark; see `globalThis.playerstate`."""
        found: dict[str, Any] | None = self.page.evaluate(
            "id => playerstate.whereIs(id)", str(session_id)
        )
        return found

    def wait_shown(self, session_id: int, **wanted: Any) -> dict[str, Any]:
        """Wait until the map shows a player so; where it does."""
        return wait_until(lambda: self._shown(session_id, wanted))

    def _shown(self, session_id: int, wanted: dict[str, Any]) -> dict[str, Any] | None:
        found = self.where_is(session_id)
        if found is None or any(found[name] != value for name, value in wanted.items()):
            return None
        return found

    def colours_at(self, left: float, top: float) -> set[tuple[int, int, int]]:
        """The colours of the map's canvas around a point of it."""
        found = self.page.evaluate(
            """([left, top]) => {
                const canvas = document.getElementById("map");
                const ratio = canvas.width / canvas.clientWidth;
                const size = Math.round(24 * ratio);
                const at = [left, top].map((place) => Math.round(place * ratio) - size / 2);
                const copy = new OffscreenCanvas(size, size).getContext("2d");
                copy.drawImage(canvas, -at[0], -at[1]);
                return [...copy.getImageData(0, 0, size, size).data];
            }""",
            [left, top],
        )
        return {tuple(found[at : at + 3]) for at in range(0, len(found), 4)}

    def colour(self, name: str) -> tuple[int, int, int]:
        """A colour of the page's palette, in the theme of the moment."""
        text = self.page.evaluate(
            "async name => (await import('./page/theme.js')).colours(name)[name]", name
        )
        red, green, blue = (int(part) for part in re.findall(r"\d+", text)[:3])
        return red, green, blue

    def mind_manners(self, *expected: str) -> None:
        """See that nothing was asked of another host, and no error said but those expected."""
        hosts = {urlsplit(url).netloc for url in self.requests}
        assert hosts <= {urlsplit(self.url).netloc}, hosts
        unexpected = [text for text in self.errors if not text.startswith(expected or ("\0",))]
        assert unexpected == [], unexpected


def wait_until(find: Callable[[], Any]) -> Any:
    """Wait until this finds something, and return it."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found = find()
        if found:
            return found
        assert time.monotonic() < deadline, f"never: {find}"
        time.sleep(0.05)


@contextmanager
def visiting(
    browser: Browser, url: str, size: tuple[int, int] = DESKTOP, scheme: Any = "light"
) -> Iterator[Visit]:
    """A page of its own, with no memory of others."""
    is_phone = size == PHONE
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme=scheme,
        device_scale_factor=2 if is_phone else 1,
        has_touch=is_phone,
        is_mobile=is_phone,
    )
    try:
        yield Visit(context.new_page(), url)
    finally:
        context.close()
