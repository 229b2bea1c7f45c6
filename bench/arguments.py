"""The arguments of ``python -m bench``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import attrs

from bench.cases import CASES


@attrs.frozen
class Arguments:
    """What is to be run, and where the results go.

    Attributes:
        cases: names, in the order they are run in.
        quick: whether it is to take half a minute only.
        json: a file for the results, ``-`` for the standard output; None for none.
        markdown: a file whose generated part is replaced; None for none.
        plot: a directory for the charts; None for none.
        list: whether only to list the cases.
    """

    cases: tuple[str, ...]
    quick: bool
    json: str | None
    markdown: str | None
    plot: str | None
    list: bool


def parse(arguments: Sequence[str]) -> Arguments:
    """Read the command line.

    Raises:
        SystemExit: it cannot be read, or asks for help.
    """
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure playerstate beside what would be used in its place.",
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help="run these; all by default")
    parser.add_argument("--list", action="store_true", help="list the cases and end")
    parser.add_argument("--quick", action="store_true", help="take half a minute; a rough look")
    parser.add_argument("--json", metavar="FILE", help="write the results, - for standard output")
    parser.add_argument("--markdown", metavar="FILE", help="put the tables between its markers")
    parser.add_argument("--plot", metavar="DIR", help="draw charts as SVG (needs matplotlib)")
    found = parser.parse_args(arguments)
    unknown = [name for name in found.cases if name not in CASES]
    if unknown:
        parser.error(f"there is no case {', '.join(unknown)}; there are {', '.join(CASES)}")
    chosen = tuple(name for name in CASES if not found.cases or name in found.cases)
    return Arguments(chosen, found.quick, found.json, found.markdown, found.plot, found.list)
