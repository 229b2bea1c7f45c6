"""What the installed distribution says of itself, as PyPI will show it."""

from __future__ import annotations

import re
from importlib.metadata import metadata

from twisted.trial.unittest import SynchronousTestCase

LINK = re.compile(r"\]\(([^)]+)\)")


class MetadataTests(SynchronousTestCase):
    """The metadata that pip installed."""

    def setUp(self) -> None:
        """Read it."""
        self.metadata = metadata("playerstate")

    def test_links_hold_elsewhere(self) -> None:
        """README's links lead somewhere without a checkout around them."""
        links = LINK.findall(str(self.metadata.get_payload()))
        self.assertGreater(len(links), 10)
        urls = dict(url.split(", ") for url in self.metadata.get_all("Project-URL", []))
        here = f"{urls['Source']}/blob/main/"
        self.assertEqual([link for link in links if not link.startswith(here)], [])

    def test_linux(self) -> None:
        """The system it needs is named."""
        systems = [name for name in self.metadata.get_all("Classifier", []) if "System ::" in name]
        self.assertEqual(systems, ["Operating System :: POSIX :: Linux"])
