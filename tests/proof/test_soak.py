"""A real server under load with faults, for a while; `tests.proof.soak` runs for longer."""

from __future__ import annotations

import os

from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase

from tests.proof.soak import LOG_BYTES, MEMORY_SLACK, WARM_UP, Look, growth, soak

MINUTES = float(os.environ.get("PROOF_SOAK_MINUTES", "0.1"))
"""How long it runs; CI asks for more."""

_log = Logger()


class SoakTests(SynchronousTestCase):
    """What a server holds does not grow with time, and what it was told is not lost."""

    def test_soak(self) -> None:
        """Through locks, full disks, replaced files and noise, all is flat, and all is saved."""
        directory = os.path.abspath(self.mktemp())
        os.mkdir(directory)
        wrong = soak(directory, MINUTES * 60.0, lambda line: _log.info("{line}", line=line))
        self.assertEqual(wrong, [])


class GrowthTests(SynchronousTestCase):
    """What is called growth."""

    START = Look(memory=50 * 2**20, descriptors=17, threads=3, log_bytes=0)

    def grown(self, **more: int) -> list[str]:
        """What is found to have grown by so much, after a while of nothing."""
        last = Look(
            *(getattr(self.START, name) + more.get(name, 0) for name in Look.__annotations__)
        )
        return growth([self.START] * (WARM_UP + 2) + [last])

    def test_nothing(self) -> None:
        """A server that holds what it held has not grown, nor one that was looked at but once."""
        self.assertEqual(self.grown(), [])
        self.assertEqual(growth([self.START]), [])

    def test_each(self) -> None:
        """Memory, descriptors, threads and the log may each be what grows."""
        for name, by in (
            ("memory", MEMORY_SLACK + 1),
            ("descriptors", 2),
            ("threads", 1),
            ("log_bytes", LOG_BYTES + 1),
        ):
            [line] = self.grown(**{name: by})
            self.assertIn(f"{name} grew", line)
