"""How the page looks, and that it can be read, reached and heard; screenshots are kept."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.kit.browser import (
    DESKTOP,
    PHONE,
    SCREENSHOTS,
    WRITE,
    Site,
    Visit,
    visiting,
    wait_until,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser

Serve = Callable[..., Site]
TEXTS = ("ink", "muted", "saved", "unsaved", "bad")
GROUNDS = ("ground", "surface", "raised", "map")
PAIRS = (
    *itertools.product(TEXTS, GROUNDS),
    *[("bad", "bad-ground"), ("unsaved", "warn-ground"), ("on-accent", "saved")],
)
"""Which colour of text stands on which ground."""


def brightness(colour: tuple[int, int, int]) -> float:
    """The relative luminance of WCAG 2, from 0 to 1."""
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in (channel / 255 for channel in colour)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: tuple[int, int, int], other: tuple[int, int, int]) -> float:
    """The contrast ratio of WCAG 2, from 1 to 21."""
    low, high = sorted((brightness(one), brightness(other)))
    return (high + 0.05) / (low + 0.05)


def crowd(site: Site, number: int = 40) -> None:
    """Players in a spiral, of whom each third has been still for longer than the others."""
    players = [site.player(each) for each in range(1, number + 1)]
    for each, player in enumerate(players):
        player.move(350 + 9 * each * math.cos(each * 0.7), 200 + 6 * each * math.sin(each * 0.7))
    players[-1].wait_saved()
    for each, player in enumerate(players):
        if each % 3:
            x = 360 + 9 * each * math.cos(each * 0.7)
            player.move(x, 205 + 6 * each * math.sin(each * 0.7))


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_screenshots(browser: Browser, serve: Serve, scheme: str, size: tuple[int, int]) -> None:
    """Each part is in its place, at each size and in each theme; the pictures are kept."""
    site = serve("--save-within", "10")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    name = f"{scheme}-{'phone' if size == PHONE else 'desktop'}"
    with visiting(browser, site.url, size, scheme) as visit:
        visit.go()
        crowd(site)
        wait_until(lambda: visit.page.text_content('[data-tile="online"] .value') == "40")
        visit.wait_shown(40)
        visit.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)
        inside = "() => document.documentElement.scrollWidth <= innerWidth"
        assert visit.page.evaluate(inside)
        visit.page.fill("#find-id", "4")
        visit.page.keyboard.press("Enter")
        visit.page.locator("#field-x").wait_for()
        visit.page.screenshot(path=SCREENSHOTS / f"{name}-panel.png")
        assert visit.page.evaluate(inside)
        visit.page.click("#token")
        visit.page.screenshot(path=SCREENSHOTS / f"{name}-token.png")
        visit.page.keyboard.press("Escape")
        site.server.kill()
        visit.wait_state("gone")
        visit.page.screenshot(path=SCREENSHOTS / f"{name}-gone.png")
        box = visit.page.locator("#notice").bounding_box()
        assert box is not None
        assert 0 <= box["y"] < size[1] / 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(browser: Browser, serve: Serve, scheme: str) -> None:
    """Text stands out from its ground by 4.5 to 1 at least."""
    with visiting(browser, serve().url, scheme=scheme) as visit:
        visit.go()
        names = set(itertools.chain.from_iterable(PAIRS))
        colours = {name: visit.colour(name) for name in names}
        weak = {
            pair: ratio
            for pair in PAIRS
            if (ratio := contrast(colours[pair[0]], colours[pair[1]])) < 4.5
        }
        assert weak == {}
        assert (brightness(colours["ground"]) < 0.1) == (scheme == "dark")


def test_theme_is_toggled_and_kept(browser: Browser, serve: Serve) -> None:
    """The button goes from the system's theme to light and to dark, which outlasts the page."""
    with visiting(browser, serve().url) as visit:
        visit.go()
        light = visit.colour("ground")
        for label in ("Theme: as the system", "Theme: light"):
            visit.page.get_by_role("button", name=label).click()
        dark = visit.colour("ground")
        assert brightness(dark) < brightness(light)
        visit.page.reload()
        visit.wait_state("live")
        assert visit.colour("ground") == dark
        visit.page.get_by_role("button", name="Theme: dark").click()
        assert visit.colour("ground") == light
        visit.mind_manners()


def names_missing(visit: Visit) -> list[str]:
    """The controls in sight that have no name for who cannot see them."""
    tree = visit.page.locator("body").aria_snapshot()
    nameless = ("- button", "- textbox", "- combobox", "- checkbox", "- application", "- searchbox")
    lines = (line.strip().split(" [")[0].rstrip(":") for line in tree.splitlines())
    return [line for line in lines if line in nameless]


def test_can_be_heard_and_reached(browser: Browser, serve: Serve) -> None:
    """There are landmarks, each control has a name, and each is reached by the Tab key."""
    site = serve()
    site.player(7)
    with visiting(browser, site.url) as visit:
        visit.go()
        for region in ("Figures", "Players", "The last ten minutes"):
            assert visit.page.get_by_role("region", name=region, exact=True).count() == 1, region
        visit.page.click("#token")
        assert names_missing(visit) == []
        visit.page.fill("#token-input", WRITE)
        visit.page.keyboard.press("Enter")
        visit.page.get_by_role("button", name="May edit").wait_for()
        visit.page.fill("#find-id", "7")
        visit.page.keyboard.press("Enter")
        visit.page.locator("#field-x").wait_for()
        assert names_missing(visit) == []
        for role in ("banner", "main", "search", "complementary"):
            assert visit.page.get_by_role(role).count() == 1, role
        visit.page.evaluate("document.activeElement.blur()")
        reached = set()
        for _ in range(30):
            visit.page.keyboard.press("Tab")
            reached.add(visit.page.evaluate("document.activeElement.id"))
            seen = visit.page.evaluate(
                "document.activeElement === document.body"
                " || getComputedStyle(document.activeElement).outlineStyle !== 'none'"
            )
            assert seen, reached
        assert reached >= {"find-id", "token", "theme", "view-table", "map", "fit", "field-x"}
        visit.mind_manners()
