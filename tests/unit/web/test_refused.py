"""The error of a request, as its answer."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from playerstate.web.refused import Refused, bad, not_now


class RefusedTests(SynchronousTestCase):
    """What an answer says."""

    def test_body(self) -> None:
        """A field is named with what is allowed; without one neither is there."""
        self.assertEqual(Refused(404, "no").body, {"error": "no"})
        self.assertEqual(
            bad("limit", "1").body, {"error": "limit must be 1", "field": "limit", "allowed": "1"}
        )

    def test_text(self) -> None:
        """As a text it is its error alone, as the audit log gives the reason."""
        self.assertEqual(str(Refused(504, "not saved", "x", "1")), "not saved")

    def test_not_now(self) -> None:
        """What may be asked again says when."""
        refused = not_now("busy")
        self.assertEqual((refused.status, refused.headers), (503, {"Retry-After": "1"}))
