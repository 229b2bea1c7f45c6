"""The machine of the run."""

from __future__ import annotations

import os
import platform
import sqlite3
import time
from importlib.metadata import PackageNotFoundError, version

import apsw

PACKAGES = (
    *("playerstate", "twisted", "numpy", "apsw"),
    *("aiosqlite", "carbon", "culsans", "sqlitedict"),
)


def machine() -> list[str]:
    """Processor, system and versions, in lines."""
    load = ", ".join(f"{average:.1f}" for average in os.getloadavg())
    return [
        f"{time.strftime('%Y-%m-%d')}, {_processor()}, {len(os.sched_getaffinity(0))} cores,"
        f" load {load} at the start",
        f"Linux {platform.release()}, {platform.python_implementation()}"
        f" {platform.python_version()}, SQLite {apsw.sqlite_lib_version()} in apsw and"
        f" {sqlite3.sqlite_version} in sqlite3",
        ", ".join(f"{name} {_version(name)}" for name in PACKAGES),
    ]


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    except OSError:
        names = []
    return names[0] if names else platform.machine()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"
