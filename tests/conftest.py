"""What pytest does for every test."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _in_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trial's `mktemp` makes its directories where the test runs."""
    monkeypatch.chdir(tmp_path)
