"""The results as tables: for the terminal and for the documentation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import attrs

from bench.cases import CASES
from bench.figures import OURS, Figure, Outcome, Target, number, times_better

BEGIN = "<!-- results: begin, written by python -m bench --markdown -->"
END = "<!-- results: end -->"


@attrs.frozen
class Results:
    """What a run found.

    Attributes:
        machine: what it ran on, in lines.
        outcomes: by the name of the case.
        failures: cases that did not come to an end, with why.
        quick: whether it was a quick run.
    """

    machine: tuple[str, ...] = attrs.field(converter=tuple)
    outcomes: Mapping[str, Outcome]
    failures: Mapping[str, str]
    quick: bool


def rows(outcome: Outcome) -> Iterator[tuple[str, list[tuple[str, ...]]]]:
    """The settings of a case, each with its rows: who, median, spread, ratio to ours, note."""
    for setting in dict.fromkeys(figure.setting for figure in outcome.figures):
        figures = [figure for figure in outcome.figures if figure.setting == setting]
        ours = next((figure for figure in figures if figure.contender == OURS), None)
        yield setting, [_row(figure, ours) for figure in figures]


def _row(figure: Figure, ours: Figure | None) -> tuple[str, ...]:
    low, high = figure.spread
    return (
        figure.contender,
        f"{number(figure.median)} {figure.unit}",
        "" if len(figure.values) < 2 else f"{number(low)} to {number(high)}",
        _ratio(figure, ours),
        figure.note,
    )


def _ratio(figure: Figure, ours: Figure | None) -> str:
    if ours is None or figure is ours or ours.unit != figure.unit:
        return ""
    if not (ours.median > 0 and figure.median > 0):
        return ""
    return f"{number(times_better(ours, figure))} x"


def text(name: str, outcome: Outcome) -> str:
    """A case for the terminal."""
    lines = [f"{name}: {CASES[name].title}"]
    for setting, table in rows(outcome):
        lines.append(f"  {setting}")
        widths = [max(len(row[column]) for row in table) for column in range(4)]
        for who, median, spread, ratio, note in table:
            cells = (
                f"{who:<{widths[0]}}",
                f"{median:>{widths[1]}}",
                f"{spread:>{widths[2]}}",
                f"{ratio:>{widths[3]}}",
                note,
            )
            lines.append(("    " + "  ".join(cells)).rstrip())
    lines += [f"  target: {target}" for target in outcome.targets]
    lines += [f"  missing: {rival}" for rival in outcome.missing]
    lines += [f"  note: {note}" for note in outcome.notes]
    return "\n".join(lines)


def summary(results: Results) -> str:
    """All targets, and what was not reached."""
    targets = [target for outcome in results.outcomes.values() for target in outcome.targets]
    reached = sum(target.is_reached for target in targets)
    lines = [f"{reached} of {len(targets)} targets reached"]
    lines += [f"  not reached: {target}" for target in targets if not target.is_reached]
    lines += [f"  failed: {name}: {why}" for name, why in results.failures.items()]
    return "\n".join(lines)


def markdown(results: Results) -> str:
    """All of it for the documentation, between the markers."""
    lines = [BEGIN, "", *(f"- {line}" for line in results.machine), ""]
    if results.quick:
        lines += ["This was a quick run, good for a rough look only.", ""]
    for name, outcome in results.outcomes.items():
        lines += [f"### {CASES[name].title.capitalize()}", ""]
        for setting, table in rows(outcome):
            lines += [f"**{setting}**", "", *_table(table), ""]
        lines += _targets(outcome.targets)
        lines += [f"- Missing: {rival}." for rival in outcome.missing]
        lines += [f"- {note[0].upper()}{note[1:]}." for note in outcome.notes]
        lines.append("")
    lines += [f"- The case {name} failed." for name in results.failures]
    return "\n".join([*lines, END]).replace("\n\n\n", "\n\n")


def _table(table: list[tuple[str, ...]]) -> Iterator[str]:
    yield "| | median | quartiles | ours is better by |"
    yield "|---|---|---|---|"
    for who, median, spread, ratio, note in table:
        yield f"| {who}{f' ({note})' if note else ''} | {median} | {spread} | {ratio} |"


def _targets(targets: tuple[Target, ...]) -> Iterator[str]:
    for target in targets:
        yield f"- {target}."


def replaced(document: str, part: str) -> str:
    """The document with its generated part replaced; appended where it has none."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        return f"{document.rstrip()}\n\n{part}\n" if document.strip() else f"{part}\n"
    return before + part + after
