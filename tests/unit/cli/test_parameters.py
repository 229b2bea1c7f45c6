"""Values of the commands' options: what is said of those that cannot be used."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from playerstate.tokens import create_key
from tests.kit.arguments import refusal


class RefusedTests(SynchronousTestCase):
    """Values that are refused in one line."""

    def test_texts(self) -> None:
        """An address, a state class, a key or a protocol id that cannot be used says why."""
        form = "is not HOST:PORT"
        netcode = ("--netcode", "--protocol-id", "1")
        cases = [
            *((("--to", to), form) for to in ("here", ":1", "127.0.0.1:", "[::1]")),
            *((("--to", f"127.0.0.1:{port}"), form) for port in (0, 65_536)),
            (("--to", "..:1"), "no address found for '..'"),
            (("--state", "nowhere:Avatar"), "nowhere:Avatar"),
            (
                (*netcode, "--key-file", "none"),
                "none: there is no such file; `playerstate key none` creates one",
            ),
            (
                ("--netcode", "--protocol-id", "0x10000000000000000"),
                "must be a number of up to 64 bits",
            ),
        ]
        for options, why in cases:
            with self.subTest(options=options):
                self.assertIn(why, refusal("simulate", *options))

    def test_numbers(self) -> None:
        """A number that is none, or is out of bounds, is told with its option and in one line."""
        for command in (
            ("simulate", "--rate"),
            ("simulate", "--seconds"),
            ("replay", __file__, "--speed"),
        ):
            for value in ("nan", "inf", "-inf", "-1", "0", "", "soon", "1e400"):
                with self.subTest(command=command, value=value):
                    line = refusal(*command, value)
                    self.assertIn(f"Invalid value for '{command[-1]}': {value!r} is not a nu", line)
                    self.assertIn("above 0, and at most ", line)

    def test_netcode(self) -> None:
        """netcode needs a key and a protocol id, and plain UDP has no use for them."""
        key = self.mktemp()
        create_key(key)
        for command in (["simulate"], ["replay", __file__]):
            for extra in ([], ["--key-file", key], ["--protocol-id", "1"]):
                self.assertIn(
                    "--netcode needs --key-file and --protocol-id",
                    refusal(*command, "--netcode", *extra),
                )
                if extra:
                    self.assertIn("are of no use without --netcode", refusal(*command, *extra))
