"""Text from players, as it is shown."""

from __future__ import annotations

import ast
import io
import json
import os
import sys
import unicodedata
from contextlib import closing
from importlib import import_module
from pathlib import Path

import apsw
import attrs
import hypothesis
from click.testing import CliRunner
from hypothesis import settings
from hypothesis import strategies as st
from twisted.logger import formatEventAsClassicLogText
from twisted.trial.unittest import SynchronousTestCase

from playerstate import open_store
from playerstate import text as text_of
from playerstate.cli import main
from playerstate.cli.outcome import Outcome, tell
from playerstate.interfaces import RowRefused, StoreBusy
from playerstate.log import PrintableLogger
from playerstate.printable import one_line, printable, printable_json
from playerstate.state.schema import StateSchema
from playerstate.tap import Options
from tests.kit.arguments import commands, given, prepare
from tests.kit.databases import records
from tests.kit.players import ServiceTestCase
from tests.kit.support import LAW

EVIL = "a\x1b[2J\x07\r\n\x7f\x9b31m\u202e\u2066\u2028\u200b[bold]z"
"""Sequences for a terminal, line ends, C1, DEL, marks of direction, and a tag of rich's."""


@attrs.frozen
class Named:
    """A player whose name can be anything."""

    name: str = attrs.field(default="", metadata=text_of(64))


class Own:
    """A value that shows itself in its own way."""

    def __str__(self) -> str:
        return EVIL


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

    def test_whole_lines(self) -> None:
        """A line in which some was escaped before stays as it is."""
        shown = one_line("a\\:b\x1b")
        self.assertEqual(shown, "a\\:b\\x1b")
        self.assertEqual(one_line(shown), shown)

    def test_json(self) -> None:
        """JSON is printable, and reads back as it was."""
        every = "".join(map(chr, [*range(0x300), *range(0x2000, 0x2100), 0xD800, 0x10FFFF]))
        shown = printable_json({"name": every})
        self.assertTrue(shown.isprintable() and shown.isascii())
        self.assertEqual(json.loads(shown), {"name": every})

    @settings(LAW)
    @hypothesis.given(st.text(st.characters(exclude_characters="'")))
    def test_law(self, text: str) -> None:
        """Nothing shown is a control or a format, and the text can be read back from it."""
        shown = printable(text)
        for char in shown:
            self.assertNotIn(unicodedata.category(char), ("Cc", "Cf", "Cs", "Zl", "Zp"))
        self.assertEqual(ast.literal_eval(f"'{shown}'"), text)


class OutputTests(ServiceTestCase):
    """Whatever shows a text from outside: no control reaches a terminal or a log."""

    def check(self, output: str) -> None:
        """The output has nothing but printable characters and line ends, and was not empty."""
        self.assertTrue(output.strip())
        raw = {char for char in output if not (char.isprintable() or char == "\n")}
        self.assertEqual(raw, set(), ascii(output))

    def run_command(self, *arguments: str) -> str:
        """All that a command prints; it ends without a trace."""
        result = CliRunner().invoke(main, arguments)
        self.assertIsInstance(result.exception or SystemExit(), SystemExit)
        self.check(result.output)
        return result.output

    def database(self, name: str) -> str:
        """The URL of a database with two players who are called so."""
        directory = f"{os.path.abspath(self.mktemp())}{EVIL}"
        os.mkdir(directory)
        schema = StateSchema.of(Named)
        store = open_store(f"sqlite:{directory}/players.db", schema)
        store.prepare()
        store.migrate(bytes(range(16)))
        writer = store.open_writer()
        writer.write(records(schema, (1, name, 7), (2, name, 8)))
        writer.close()
        store.close()
        return f"sqlite:{directory}/players.db"

    def test_store(self) -> None:
        """A look into a store, in each of its forms, for a terminal or a program."""
        url = self.database(EVIL)
        for arguments in ((), ("1",), ("--json",), ("--all",), ("--limit", "1"), ("3",)):
            with self.subTest(arguments=arguments):
                shown = self.run_command("show", url, *arguments)
                if arguments != ("3",):
                    self.assertIn("\\u202e", shown)
        rows = json.loads(self.run_command("show", url, "--json"))["rows"]
        self.assertEqual([row["name"] for row in rows], [EVIL, EVIL])

    def test_terminal(self) -> None:
        """The same on a terminal that columns are left out for."""
        module = import_module("playerstate.cli.show")
        for width in (20, 80):
            self.patch(module, "screen", lambda width=width: (width, 24))
            self.run_command("show", self.database(EVIL))

    def test_names_in_a_database(self) -> None:
        """A column that somebody gave such a name."""
        url = self.database("spawn")
        with closing(apsw.Connection(url.partition(":")[2])) as connection:
            connection.execute(f'ALTER TABLE player_state ADD COLUMN "{EVIL}" TEXT DEFAULT 1')
        for arguments in ((), ("1",), ("--json",)):
            self.run_command("show", url, *arguments)

    def test_live_file(self) -> None:
        """A look into a live file."""
        path = f"{os.path.abspath(self.mktemp())}{EVIL}"
        stepped = self.start(state=Named, live_file=path)
        stepped.join(1)
        stepped.service.update(1, Named(EVIL))
        stepped.stop()
        for arguments in ((), ("--json",)):
            self.assertIn("\\u202e", self.run_command("live", "show", path, *arguments))
        self.run_command("live", "apply", path, self.database(EVIL))

    def test_wrong_arguments(self) -> None:
        """Errors name what was given, for every parameter of every command."""
        prepare()
        for command, parameters in commands():
            for parameter in parameters:
                with self.subTest(command=command, parameter=parameter.name):
                    self.run_command(*command, *given(parameter, parameters, EVIL))
        for arguments in ((EVIL,), (f"--{EVIL}",), ("live", EVIL), ("show", f"--{EVIL}")):
            self.run_command(*arguments)

    def test_tracks(self) -> None:
        """What is wrong in a file of tracks."""
        for text in (f"t,session_id,{EVIL}\n", f't,session_id,x\n0,1,"{EVIL}"', f"{EVIL},t\n"):
            path = f"{self.mktemp()}{EVIL}"
            Path(path).write_text(text, encoding="utf-8")
            self.run_command("replay", path)

    def test_outcome(self) -> None:
        """What players met, however it is worded."""
        stdout, stderr = io.StringIO(), io.StringIO()
        self.patch(sys, "stdout", stdout)
        self.patch(sys, "stderr", stderr)
        for as_json in (False, True):
            tell(Outcome({f"a_{EVIL}": 1}, {1: EVIL}, interrupted=True, behind=EVIL), as_json)
        self.check(stdout.getvalue())
        self.check(stderr.getvalue())

    def test_files_made(self) -> None:
        """Keys and tokens, whose files are named."""
        key, token = (f"{os.path.abspath(self.mktemp())}{EVIL}" for _ in range(2))
        self.run_command("key", key)
        known = ("--key-file", key, "--protocol-id", "1", "--public", "192.0.2.1:1")
        self.run_command("token", "1", *known, "--out", token)
        self.run_command("key", key)

    def test_server_options(self) -> None:
        """The one line of ``twistd playerstate``."""
        names = [parameter[0] for parameter in Options.optParameters]
        for name in (*names, "listen", "public"):
            with self.subTest(option=name), self.assertRaises(SystemExit) as caught:
                Options().parseOptions([f"--{name}", EVIL * 10])
            self.check(str(caught.exception.code))

    def logged(self) -> str:
        """What was logged, as the server's log has it."""
        return "".join(map(formatEventAsClassicLogText, self.events))

    def test_log(self) -> None:
        """A store whose errors quote a row, in one line and with a trace."""
        stepped = self.start(state=Named)
        stepped.join(1)
        stepped.service.update(1, Named(EVIL))
        for error in (StoreBusy(EVIL), RowRefused(EVIL), OSError(28, EVIL)):
            stepped.store.failures.append(error)
            for _ in range(700):
                stepped.reactor.advance(0.01)
                stepped.settle()
            self.assertEqual(len(stepped.store.failures), 0)
            stepped.service.update(1, Named(EVIL))
        log = self.logged().replace("\n\t", "\n")
        self.assertIn("\\u202e", log)
        self.check(log)
        self.flushLoggedErrors()

    def test_log_values(self) -> None:
        """Values of any kind; numbers keep their form, and a trace its lines."""
        log = PrintableLogger()
        log.info("{state}, {size:.1f}, {name}", state=Own(), size=1.25, name=EVIL)
        try:
            raise ValueError(EVIL)
        except ValueError:
            log.failure("no {what}", what=EVIL)
        with log.failuresHandled("closing {what} failed", what=EVIL):
            raise OSError(EVIL)
        lines = self.logged()
        self.check(lines.replace("\n\t", "\n"))
        self.assertIn(", 1.2, ", lines)
        self.assertIn("\n\tbuiltins.ValueError: ", lines)
        self.assertEqual(len(self.flushLoggedErrors(ValueError, OSError)), 2)
