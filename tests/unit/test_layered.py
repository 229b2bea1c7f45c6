"""Options by the command line, over the environment, over a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

from playerstate.layered import MOST_BYTES, LayeredOptions, Setting


class Pizza(LayeredOptions):
    """Options of each kind, as another command may declare them."""

    optParameters: ClassVar = [
        ["size", "s", "30", "Centimetres."],
        ["sauce-kind", None, None, "Which sauce."],
    ]
    optFlags: ClassVar = [["hot", None, "With chillies."]]

    def __init__(self) -> None:
        super().__init__()
        self["top"] = []

    def opt_top(self, text: str) -> None:
        """A topping."""
        self["top"].append(text)

    opt_t = opt_top


class LayersTestCase(SynchronousTestCase):
    """Parses options of all three kinds."""

    def parse(
        self, *arguments: str, file: str | None = None, environ: Mapping[str, str] | None = None
    ) -> Pizza:
        """The options as parsed; the file has the name ``pizza.toml``."""
        options = Pizza()
        options.environ = environ or {}
        if file is not None:
            Path("pizza.toml").write_text(file)
            arguments = ("--config", "pizza.toml", *arguments)
        options.parseOptions(arguments)
        return options

    def error(
        self, *arguments: str, file: str | None = None, environ: Mapping[str, str] | None = None
    ) -> str:
        """What is said of bad options."""
        with self.assertRaises(usage.UsageError) as caught:
            self.parse(*arguments, file=file, environ=environ)
        return str(caught.exception)


class LayersTests(LayersTestCase):
    """Which layer an option is taken from, and what is in force."""

    def test_file(self) -> None:
        """Every option can stand in the file: texts, numbers, arrays, true and false."""
        options = self.parse(file='size = 26\nsauce-kind = "red"\nhot = true\ntop = ["a", "b c"]')
        self.assertEqual(options["size"], "26")
        self.assertEqual(options["sauce-kind"], "red")
        self.assertTrue(options["hot"])
        self.assertEqual(options["top"], ["a", "b c"])

    def test_file_of_other_values(self) -> None:
        """A fraction is one as typed, a list of one needs no array, and false is not given."""
        options = self.parse(file='size = 0.5\nhot = false\ntop = "a"\nsauce-kind = 0x10')
        self.assertEqual(options["size"], "0.5")
        self.assertEqual(options["sauce-kind"], "16")
        self.assertFalse(options["hot"])
        self.assertEqual(options["top"], ["a"])

    def test_environment(self) -> None:
        """Every option has a variable; blanks separate what may be repeated."""
        options = self.parse(
            environ={
                "PLAYERSTATE_SIZE": "26",
                "PLAYERSTATE_SAUCE_KIND": "red wine",
                "PLAYERSTATE_HOT": "Yes",
                "PLAYERSTATE_TOP": "a b",
                "HOME": "/",
            }
        )
        self.assertEqual(options["size"], "26")
        self.assertEqual(options["sauce-kind"], "red wine")
        self.assertTrue(options["hot"])
        self.assertEqual(options["top"], ["a", "b"])

    def test_order(self) -> None:
        """The command line is above the environment, and that above the file; lists as a whole."""
        file = 'size = 1\nsauce-kind = "file"\nhot = true\ntop = ["file", "file"]'
        environ = {"PLAYERSTATE_SIZE": "2", "PLAYERSTATE_TOP": "env", "PLAYERSTATE_HOT": "0"}
        options = self.parse("-s", "3", "-t", "x", "--top=y", file=file, environ=environ)
        self.assertEqual(options["size"], "3")
        self.assertEqual(options["top"], ["x", "y"])
        self.assertEqual(options["sauce-kind"], "file")
        self.assertFalse(options["hot"])
        options = self.parse(file=file, environ=environ)
        self.assertEqual(options["size"], "2")
        self.assertEqual(options["top"], ["env"])

    def test_in_force(self) -> None:
        """What is in force is said of every option, with the layer that it is from."""
        options = self.parse("--to", "x", file="size = 1", environ={"PLAYERSTATE_HOT": "on"})
        self.assertEqual(
            options.in_force(),
            [
                Setting("hot", True, "PLAYERSTATE_HOT"),
                Setting("sauce-kind", None, "default"),
                Setting("size", "1", "pizza.toml"),
                Setting("top", ["x"], "command line"),
            ],
        )

    def test_in_force_by_default(self) -> None:
        """A default is shown as declared; one that is only known once parsed, as it is then."""
        options = self.parse()
        options["sauce-kind"] = Path("red")
        options["top"] = [1, 2]
        self.assertEqual(
            options.in_force(),
            [
                Setting("hot", False, "default"),
                Setting("sauce-kind", "red", "default"),
                Setting("size", "30", "default"),
                Setting("top", ["1", "2"], "default"),
            ],
        )

    def test_file_named_by_a_variable(self) -> None:
        """The file's own name may be a variable; the one on the command line is above it."""
        Path("one.toml").write_text("size = 1")
        environ = {"PLAYERSTATE_CONFIG": "one.toml"}
        self.assertEqual(self.parse(environ=environ)["size"], "1")
        self.assertEqual(self.parse(file="size = 2", environ=environ)["size"], "2")

    def test_empty(self) -> None:
        """An empty variable and an empty array give nothing."""
        options = self.parse(file="top = []", environ={"PLAYERSTATE_SIZE": ""})
        self.assertEqual([setting.source for setting in options.in_force()], ["default"] * 4)

    def test_kubernetes(self) -> None:
        """What Kubernetes tells each pod of a service called playerstate is no option."""
        names = (
            *("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_GAME", "PORT", "PORT_7777_UDP"),
            *("PORT_7777_UDP_PROTO", "PORT_7777_UDP_PORT", "PORT_7777_UDP_ADDR"),
        )
        self.parse(environ={f"PLAYERSTATE_{name}": "x" for name in names})

    def test_help(self) -> None:
        """Help is given whatever the other layers hold."""
        self.patch(Pizza, "opt_help", lambda self: self["top"].append("helped"))
        self.parse("--help", environ={"PLAYERSTATE_CONFIG": "missing.toml"})

    def test_said(self) -> None:
        """An error says where its option is from."""
        options = self.parse("--top=x", file="size = 1", environ={"PLAYERSTATE_HOT": "on"})
        self.assertEqual(options.said("top", "x"), "--top x")
        self.assertEqual(options.said("size", "1"), "pizza.toml: size 1")
        self.assertEqual(options.said("hot"), "PLAYERSTATE_HOT")
        self.assertEqual(options.said("sauce-kind", "red"), "--sauce-kind red")
        options = self.parse(environ={"PLAYERSTATE_SIZE": "1"})
        self.assertEqual(options.said("size", "1"), "PLAYERSTATE_SIZE=1")


class BadTests(LayersTestCase):
    """What is refused, each with a line that names it."""

    def test_files(self) -> None:
        """A key that is no option is named with the nearest one; so is a value of another type."""
        cases = [
            ("sise = 1", "pizza.toml: sise: there is no such option; the nearest is size"),
            ("sauce_kind = 1", "the nearest is sauce-kind"),
            ("[oven]\nsize = 1", "pizza.toml: oven: there is no such option"),
            ("oven.size = 1", "pizza.toml: oven: there is no such option"),
            ('config = "x"', "pizza.toml: config: there is no such option"),
            ("help = true", "pizza.toml: help: there is no such option"),
            ("s = 1", "pizza.toml: s: there is no such option"),
            ("hot = 1", "pizza.toml: hot: must be true or false"),
            ('hot = "true"', "pizza.toml: hot: must be true or false"),
            ("size = true", "pizza.toml: size: must be one text or number"),
            ("size = [1, 2]", "pizza.toml: size: must be one text or number"),
            ("size = 2020-02-02", "pizza.toml: size: must be one text or number"),
            ("size.a = 1", "pizza.toml: size: must be one text or number"),
            ("top = [[1]]", "pizza.toml: top: must be a text, or an array of texts"),
            ("top = [true]", "pizza.toml: top: must be a text, or an array of texts"),
            ("size", "--config pizza.toml: is not TOML: Expected '='"),
            ("size = 1\nsize = 2", "--config pizza.toml: is not TOML: Cannot overwrite"),
            ("#" * (MOST_BYTES + 1), "--config pizza.toml: is larger than 1024 KiB"),
        ]
        for file, why in cases:
            with self.subTest(file=file[:40]):
                self.assertIn(why, self.error(file=file))

    def test_unreadable_files(self) -> None:
        """A file that cannot be read is named, with the reason."""
        Path("latin.toml").write_bytes(b'sauce-kind = "\xe9"')
        for name, why in (
            ("missing.toml", "No such file"),
            (".", "Is a directory"),
            ("a\0b", "null"),
            ("latin.toml", "is not TOML: 'utf-8'"),
        ):
            with self.subTest(name=name):
                self.assertIn(why, self.error("--config", name))

    def test_variables(self) -> None:
        """A variable that is no option is named with the nearest one, and so is a bad switch."""
        cases = [
            ("SISE", "1", "PLAYERSTATE_SISE: there is no such option; the nearest is PLAYERSTATE_"),
            ("HELP", "1", "PLAYERSTATE_HELP: there is no such option"),
            ("HOT", "very", "PLAYERSTATE_HOT=very: must be true or false"),
        ]
        for name, value, why in cases:
            with self.subTest(name=name):
                self.assertIn(why, self.error(environ={f"PLAYERSTATE_{name}": value}))

    def test_command_line(self) -> None:
        """The command line's own errors are Twisted's."""
        self.assertIn("--sise", self.error("--sise", "1"))
