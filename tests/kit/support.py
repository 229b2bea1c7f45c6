"""What several test modules share."""

from __future__ import annotations

from typing import Any

import attrs
from hypothesis import settings

from playerstate.stores.contract.states import Everything

__all__ = ["LAW", "PATIENCE", "UNMEASURED", "Everything", "field", "made"]

LAW = settings(deadline=None, derandomize=True, database=None)
"""Of each Hypothesis test: the same examples on every run, and no file left behind."""

PATIENCE = 20.0
"""Seconds after which a test gives up on what should have come long before."""


UNMEASURED = {"COVERAGE_PROCESS_START": "", "COVERAGE_PROCESS_CONFIG": ""}
"""Environment of a process in which coverage could not write what it measured."""


def made(**fields: Any) -> type:
    """An attrs class called Made with these fields."""
    return attrs.make_class("Made", fields, frozen=True)


def field(kind: Any, default: Any = attrs.NOTHING, metadata: Any = None, **options: Any) -> Any:
    """One field for `made`."""
    return attrs.field(type=kind, default=default, metadata=metadata, **options)
