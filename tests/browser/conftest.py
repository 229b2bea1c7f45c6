"""A browser for the tests of the page, where there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.kit.browser import CHROMIUM, Site

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, driven by Playwright."""
    if not Path(CHROMIUM).exists():
        pytest.skip(f"there is no {CHROMIUM}; apt-get install chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.skip("playwright is not installed; pip install '.[browser]'")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=CHROMIUM,
            # The sandbox refuses to run as root, which a container's user is; all pages are ours.
            args=["--no-sandbox"],
        )
        yield found
        found.close()


@pytest.fixture
def serve(browser: Browser, tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Starts servers with the endpoint, and ends them after the test."""
    sites: list[Site] = []

    def start(*options: str, **named: Any) -> Site:
        sites.append(Site(tmp_path, *options, **named))
        return sites[-1]

    yield start
    for site in sites:
        site.close()
