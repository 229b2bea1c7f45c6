"""The commands' options, and what is said of bad ones."""

from __future__ import annotations

import os
import unittest
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click
from twisted.trial.unittest import SynchronousTestCase

from playerstate.cli.parameters import LAST_ID
from playerstate.tokens import create_key
from tests.kit.arguments import commands, given, prepare, refusal, run

NETCODE = ("--key-file", "key", "--protocol-id", "7")


class OptionTests(SynchronousTestCase):
    """Options, and what is said of bad ones."""

    def test_help(self) -> None:
        """Every command has its help."""
        self.assertIn("simulate", run("--help").stdout)
        for command in ("simulate", "replay", "show"):
            self.assertIn(f"playerstate {command} [OPTIONS]", run(command, "--help").stdout)

    def test_version(self) -> None:
        """The version is that of the package."""
        try:
            installed = version("playerstate")
        except PackageNotFoundError:
            raise unittest.SkipTest("the package is not installed") from None
        self.assertEqual(run("--version").stdout, f"playerstate, version {installed}\n")

    def test_every_parameter(self) -> None:
        """A value that makes no sense is refused in one line that names it, and makes no file."""
        prepare()
        os.mkdir("dir")
        before = sorted(os.listdir())
        deep = "/".join(["y" * 200] * 25)
        files = ("dir", "/dev/null", "/dev/full", "x" * 300, deep, "")
        numbers = ("nan", "inf", "-1", "1e400", "9" * 30, "a\udcff")
        for command, parameters in commands():
            for tried in parameters:
                is_new_file = tried.name in ("path", "out")
                for value in (*files, *(() if is_new_file else numbers)):
                    with self.subTest(command=command, parameter=tried.name, value=value):
                        result = run(*command, *given(tried, parameters, value))
                        self.assertIsInstance(result.exception, SystemExit)
                        self.assertNotEqual(result.exit_code, 0, result.output)
                        [line] = result.stderr.splitlines()
                        self.assertTrue(line.startswith("Error: "), line)
                        if isinstance(tried.type, (click.IntRange, click.FloatRange)):
                            name = tried.opts[0] if isinstance(tried, click.Option) else "SESSION"
                            self.assertIn(name, line)
                            self.assertIn(f": {value!r} is not a ", line)
                            self.assertIn(f" {tried.type.max}.", line)
        self.assertEqual(sorted(os.listdir()), before)
        for device in ("/dev/null", "/dev/full"):
            self.assertEqual(os.stat(device).st_mode & 0o777, 0o666)

    def test_refused(self) -> None:
        """What a command cannot use is refused in one line that says why."""
        create_key("key")
        Path("other-tracks").write_text("t,session_id,z\n0,1,2\n")
        cases = [
            (("simulate", "--first-id", str(LAST_ID), "--players", "2"), "only 1 ids follow"),
            (("simulate", "--teleport", "11", "--players", "10"), "there are only 10 bots"),
            (("simulate", "--teleport", "1", "--to", "127.0.0.1:7777"), "--to is of no use with"),
            (("simulate", "--teleport", "1", "--netcode", *NETCODE), "--netcode is of no use with"),
            (("simulate", "--teleport", "1", *NETCODE), "are of no use without --netcode"),
            (("replay", "other-tracks"), "PlayerState has no 'z'"),
            (("dance",), "Error: No such command 'dance'."),
            (("simulate", "--dance"), "No such option"),
        ]
        for arguments, why in cases:
            with self.subTest(arguments=arguments):
                self.assertIn(why, refusal(*arguments))
