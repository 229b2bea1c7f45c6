"""Copies off site, made by Litestream as ``docs/operations.md`` says, bring back what was saved."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from twisted.logger import Logger
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.kit.litestream import missing
from tests.proof.offsite import SAVE_WITHIN, OffSite

SECONDS = float(os.environ.get("PROOF_OFFSITE_SECONDS", "1"))
"""How long the players play before the disk is lost first; CI asks for more."""
PLAYERS = 20_000 if SECONDS >= 60 else 2_000

_log = Logger()


class OffSiteTests(SynchronousTestCase):
    """Real servers, Litestream beside each, and their disks lost twice."""

    def test_replicas(self) -> None:
        """Whatever the replica is, all that was saved before it was due off site comes back.

        The two runs go on beside each other, since both wait most of the time.
        """
        reasons = {kind: missing(kind) for kind in ("file", "s3")}
        runs = {kind: self.run_of(kind) for kind, reason in reasons.items() if reason is None}
        with ThreadPoolExecutor() as threads:
            ends = {kind: threads.submit(run.run, SECONDS) for kind, run in runs.items()}
        for kind, end in ends.items():
            self.assertEqual(end.result(), [], kind)
        if untried := [reason for reason in reasons.values() if reason is not None]:
            raise SkipTest("; ".join(untried))

    def run_of(self, kind: str) -> OffSite:
        """A run in a directory of its own."""
        directory = os.path.abspath(self.mktemp())
        os.mkdir(directory)

        def say(line: str) -> None:
            _log.info("{kind}: {line}", kind=kind, line=line)

        run = OffSite(kind, directory, PLAYERS, 0, SAVE_WITHIN, say)
        self.addCleanup(run.close)
        return run
