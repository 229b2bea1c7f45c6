"""The whole service on a simulated clock, network and store, seed after seed."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from tests.proof.simulation.simulation import run_seed

FEW = 60
MORE = int(os.environ.get("PROOF_SEEDS", "0"))
"""How many seeds to run beside the few; CI asks for thousands."""
FIRST_OF_MORE = 1_000_000


class SimulationTests(SynchronousTestCase):
    """What always holds does, after every step of every seed."""

    def run_seeds(self, first: int, count: int) -> None:
        """Run them; what fails says how to run that seed again alone."""
        # The stores here fail on purpose, which is logged; other errors fail their seed.
        self.addCleanup(self.flushLoggedErrors)
        for seed in range(first, first + count):
            run_seed(seed)

    def test_few_seeds(self) -> None:
        """A few seeds, in every run of the tests."""
        self.run_seeds(0, FEW)

    def test_more_seeds(self) -> None:
        """As many as PROOF_SEEDS says."""
        self.run_seeds(FIRST_OF_MORE, MORE)

    def test_same_seed_same_story(self) -> None:
        """A seed does the same each time, so that one that fails can be looked at."""
        scenarios = []
        for _ in range(2):
            scenario: list[str] = []
            run_seed(5, scenario.append)
            scenarios.append(scenario)
        self.flushLoggedErrors()
        self.assertGreater(len(scenarios[0]), 20)
        self.assertEqual(scenarios[0], scenarios[1])
