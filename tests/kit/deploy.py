"""What lies in ``deploy/``, for the tests."""

from __future__ import annotations

import json
import re
from pathlib import Path

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"

OTHER_METRICS = {
    "playerstate_save_within_seconds",
    "playerstate_live_file_bytes",
    "playerstate_wal_bytes",
}
"""The metrics that are asked for and that the ledger does not declare."""


def queries() -> list[str]:
    """Every query of the dashboard and of the rules, as it stands."""
    rules = (DEPLOY / "prometheus/playerstate.rules.yml").read_text("utf-8")
    return [*dashboard_queries(), *re.findall(r"^ +expr: (.+)$", rules, re.M)]


def dashboard_queries() -> list[str]:
    """Every query of the dashboard."""
    dashboard = json.loads((DEPLOY / "grafana/playerstate.json").read_text("utf-8"))
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
