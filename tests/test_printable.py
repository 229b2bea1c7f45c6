"""Text from players, as it is shown."""

from __future__ import annotations

import ast
import unicodedata

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from playerstate.printable import printable
from tests.support import LAW


class PrintableTests(SynchronousTestCase):
    """`printable`."""

    def test_plain(self) -> None:
        """Letters of any script, and marks such as brackets, stay."""
        for text in ("", "spawn", "größe 龍 🐉", "[bold]", 'it\'s "so"'):
            self.assertEqual(printable(text), text)

    def test_escaped(self) -> None:
        """What a terminal might act upon is shown by its number."""
        for text, shown in (
            ("a\nb\r\t", r"a\nb\r\t"),
            ("\x1b[2J\x07", r"\x1b[2J\x07"),
            ("\x7f\x9b", r"\x7f\x9b"),
            ("\u202eevil\u2066", r"\u202eevil\u2066"),
            ("\u2028\u2029\u200b\ufeff", r"\u2028\u2029\u200b\ufeff"),
            ("\ud800", r"\ud800"),
            ("\\n", r"\\n"),
        ):
            self.assertEqual(printable(text), shown)

    @settings(LAW)
    @given(st.text(st.characters(exclude_characters="'")))
    def test_law(self, text: str) -> None:
        """Nothing shown is a control or a format, and the text can be read back from it."""
        shown = printable(text)
        for char in shown:
            self.assertNotIn(unicodedata.category(char), ("Cc", "Cf", "Cs", "Zl", "Zp"))
        self.assertEqual(ast.literal_eval(f"'{shown}'"), text)
