"""Which rivals are installed, and how to get those that are not."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

REMEDIES = {
    "aiosqlite": "pip install aiosqlite",
    "culsans": "pip install culsans",
    "sqlitedict": "pip install sqlitedict",
    "matplotlib": "pip install matplotlib",
    "carbon": (
        "pip install carbon"
        if sys.version_info < (3, 12)
        else "python -m bench.install_carbon (its own set-up does not know Python 3.12)"
    ),
}
HEADERS = ("/usr/include", "/usr/local/include", "/opt/homebrew/include")


def missing(*names: str) -> list[str]:
    """Of these packages, those that are not installed, each with the command that installs it."""
    return [
        f"{name} is not installed: {REMEDIES[name]}"
        for name in names
        if importlib.util.find_spec(name) is None
    ]


def has(name: str) -> bool:
    """Whether this package is installed."""
    return not missing(name)


def missing_for_c() -> list[str]:
    """What keeps the C program from being built, with the remedy; empty where nothing does."""
    if find_compiler() is None:
        return ["the C program cannot be built, there is no cc: apt-get install gcc"]
    if not any((Path(root) / "sqlite3.h").exists() for root in HEADERS):
        return [
            "the C program cannot be built, there is no sqlite3.h: apt-get install libsqlite3-dev"
        ]
    return []


def find_compiler() -> str | None:
    """The C compiler."""
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
