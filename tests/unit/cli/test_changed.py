"""One bot that a program changes."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from playerstate.cli.changed import Changed


class ChangedTests(SynchronousTestCase):
    """Where a bot may be, and what its client knows."""

    def setUp(self) -> None:
        """A bot that has walked from a to b."""
        self.bot = Changed()
        self.assertEqual(self.bot.stands(b"a"), "")
        self.bot.moved(b"b")

    def may_be_at(self, *places: bytes) -> list[bool]:
        """Whether it may be at each of these places."""
        return [self.bot.may_be_at(place) for place in places]

    def test_before_any_teleport(self) -> None:
        """It may be anywhere."""
        self.assertTrue(self.bot.may_be_at(b"z"))
        self.assertTrue(self.bot.is_up_to_date)

    def test_teleported(self) -> None:
        """It must be where it was set, and moves count again once its client went on from there."""
        self.bot.teleported(b"t")
        self.bot.moved(b"c")
        self.assertFalse(self.bot.is_up_to_date)
        self.assertEqual(self.may_be_at(b"t", b"b", b"c"), [True, False, False])
        self.assertEqual(self.bot.stands(b"t"), "")
        self.assertTrue(self.bot.is_up_to_date)
        self.bot.moved(b"u")
        self.assertEqual(self.may_be_at(b"t", b"u", b"c"), [True, True, False])

    def test_several_teleports(self) -> None:
        """The client may pass over one for a newer one, but never go back."""
        for place in (b"t", b"u", b"v"):
            self.bot.teleported(place)
        self.assertEqual(self.bot.stands(b"u"), "")
        self.assertFalse(self.bot.is_up_to_date)
        self.bot.moved(b"w")
        self.assertFalse(self.bot.may_be_at(b"w"))
        self.assertIn("teleported before", self.bot.stands(b"t"))
        self.assertEqual(self.bot.stands(b"v"), "")
        self.assertTrue(self.bot.is_up_to_date)

    def test_told_twice(self) -> None:
        """The client may be set to the last target again, as long as it does not know a newer."""
        self.bot.teleported(b"t")
        for _ in range(2):
            self.assertEqual((self.bot.stands(b"t"), self.bot.is_up_to_date), ("", True))
            self.bot.moved(b"u")

    def test_teleported_before_its_first_move(self) -> None:
        """The first look may find it where it was set already."""
        bot = Changed()
        bot.teleported(b"t")
        self.assertEqual((bot.stands(b"t"), bot.is_up_to_date), ("", True))

    def test_elsewhere(self) -> None:
        """A client that is where nothing has set it is wrong."""
        self.assertEqual(self.bot.stands(b"b"), "")
        self.assertEqual(self.bot.stands(b"z"), "where it was never teleported")
