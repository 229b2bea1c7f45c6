"""What pytest does for every test."""

from pathlib import Path

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Hand tests to the workers one at a time, where there are workers and no number is given.

    In long runs of neighbours a worker would get all of the tests that wait for processes.
    """
    if config.getoption("maxschedchunk", None) is None:
        config.option.maxschedchunk = 1


@pytest.fixture(autouse=True)
def _in_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trial's `mktemp` makes its directories where the test runs."""
    monkeypatch.chdir(tmp_path)
