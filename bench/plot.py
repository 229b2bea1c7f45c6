"""Charts of the results, as SVG: one a case, a panel a setting, ours in its own colour."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from bench.cases import CASES
from bench.figures import OURS, Figure, Outcome
from bench.report import Results

COLOUR, RIVALS, LINE = "#2b6cb0", "#a0aec0", "#c05621"
PANEL_INCHES, BAR_INCHES = 7.0, 0.26
MOST_PANELS = 4


def draw(results: Results, directory: Path) -> list[Path]:
    """Draw every case into this directory; the files."""
    import matplotlib

    matplotlib.use("svg")
    # Text stays text, and the same results give the same file.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "bench", "font.size": 9})
    directory.mkdir(parents=True, exist_ok=True)
    files = []
    for name, outcome in results.outcomes.items():
        figure = _lines(outcome) if name == "growth" else _bars(outcome)
        figure.suptitle(CASES[name].title)
        files.append(directory / f"{name}.svg")
        figure.savefig(files[-1], metadata={"Date": None}, bbox_inches="tight")
    return files


def _bars(outcome: Outcome) -> Any:
    """Medians with their quartiles as bars, on a scale of powers of ten."""
    from matplotlib.figure import Figure as Canvas

    shown = [figure for figure in outcome.figures if figure.median > 0]
    settings = list(dict.fromkeys(figure.setting for figure in shown))[:MOST_PANELS]
    panels = [[figure for figure in shown if figure.setting == setting] for setting in settings]
    heights = [len(panel) + 2.5 for panel in panels]
    canvas = Canvas(figsize=(PANEL_INCHES, BAR_INCHES * sum(heights)), layout="constrained")
    axes = canvas.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, setting, panel in zip(axes, settings, panels, strict=True):
        _bar_panel(axis, setting, panel)
    return canvas


def _bar_panel(axis: Any, setting: str, panel: list[Figure]) -> None:
    panel = panel[::-1]
    medians = [figure.median for figure in panel]
    errors = [
        [figure.median - figure.spread[0] for figure in panel],
        [figure.spread[1] - figure.median for figure in panel],
    ]
    colours = [COLOUR if figure.contender.startswith(OURS) else RIVALS for figure in panel]
    names = [figure.contender for figure in panel]
    axis.barh(names, medians, xerr=errors, color=colours, error_kw={"lw": 0.8})
    if max(medians) > 20 * min(medians):
        axis.set_xscale("log")
        axis.set_xlim(10 ** math.floor(math.log10(min(medians))))
    better = "more is better" if panel[0].is_rate else "less is better"
    axis.set_title(f"{setting}: {panel[0].unit}, {better}", loc="left", fontsize=9)


def _lines(outcome: Outcome) -> Any:
    """Costs against rows that changed, with the straight line through them."""
    import numpy as np
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(PANEL_INCHES, 3.2), layout="constrained")
    for axis, what in zip(canvas.subplots(1, 2), ("sweep", "flush"), strict=True):
        rows, took = [], []
        for figure in outcome.figures:
            kind, _, share = figure.setting.partition(", ")
            if kind == what:
                players = int(figure.contender.split()[0].replace(",", ""))
                rows.append(players * int(share.split()[0]) // 100)
                took.append(figure.median)
        slope, rest = np.polyfit(rows, took, 1)
        across = np.geomspace(min(rows), max(rows))
        axis.loglog(rows, took, "o", color=COLOUR)
        axis.loglog(across, np.maximum(slope * across + rest, min(took) / 2), color=LINE, lw=0.9)
        axis.set(title=what, xlabel="players who changed", ylabel="ms")
    return canvas
