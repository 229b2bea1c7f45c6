"""The README and the pages of the documentation, and the blocks in them."""

from __future__ import annotations

import re
from pathlib import Path

import attrs

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")))


@attrs.frozen
class Block:
    """A fenced block of a page."""

    page: str
    kind: str
    text: str


def read(page: str) -> str:
    """The text of a page."""
    return (ROOT / page).read_text("utf-8")


def blocks(page: str) -> list[Block]:
    """The blocks of a page, in order."""
    found = re.findall(r"^( *)```([^\n]+)\n(.*?)^\1```$", read(page), re.S | re.M)
    return [Block(page, kind, text) for _, kind, text in found]
