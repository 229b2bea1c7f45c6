"""The counters of a netcode server, and their line in the log."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from playerstate.transports import netcode
from playerstate.transports.netcode.tally import SUMMARY, Tally

PAGE = Path(__file__).parents[4] / "docs/netcode.md"
NAMED = re.compile(r"Ignored\((.*)\)|ignored\[(.*?)\]")
"""Where the code names reasons: of an `Ignored`, or of a counter."""


class TallyTests(SynchronousTestCase):
    """The line in the log."""

    def test_summary(self) -> None:
        """It has the differences, the commonest reason first; it is empty if there are none."""
        tally = Tally()
        self.assertEqual(tally.since(Tally()), {})
        before = tally.copy()
        tally.connected += 3
        tally.denied += 1
        tally.ignored["expired"] += 2
        tally.ignored["open_failed"] += 5
        self.assertEqual(
            SUMMARY.format(**tally.since(before)),
            "3 connected, 0 disconnected, 0 timed out, 0 ended by the server, 0 of them replaced,"
            " 0 moved to another port; 0 challenged, 1 denied without a free slot;"
            " 7 datagrams ignored (open_failed 5, expired 2)",
        )
        before = tally.copy()
        tally.timed_out += 1
        self.assertIn("1 timed out", SUMMARY.format(**tally.since(before)))
        self.assertTrue(SUMMARY.format(**tally.since(before)).endswith("; 0 datagrams ignored"))

    def test_reasons_are_documented(self) -> None:
        """The page on netcode explains every reason that a server counts, and no other."""
        modules = Path(netcode.__file__).parent.glob("*.py")
        code = "".join(module.read_text(encoding="utf-8") for module in modules)
        named = " ".join("".join(found) for found in NAMED.findall(code))
        counted = set(re.findall(r'"(\w+)"', named))
        _, _, table = PAGE.read_text(encoding="utf-8").partition("| reason | the datagram |\n")
        rows = table.partition("\n\n")[0].splitlines()
        explained = {reason for row in rows for reason in re.findall(r"`(\w+)`", row.split("|")[1])}
        self.assertEqual(counted, explained)
