"""The programs in the README and the documentation run as they stand."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import types
import unittest
from contextlib import closing
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from playerstate.state import PlayerState
from playerstate.stores import open_store
from playerstate.tokens import create_key
from tests.processes import Server, run_to_end

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ("README.md", *(f"docs/{name}.md" for name in ("embedding", "netcode", "testing")))


def programs(document: str) -> list[str]:
    """The Python in a document."""
    return re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(encoding="utf-8"), re.S)


ALONE = [p for document in DOCUMENTS for p in programs(document) if "asyncioreactor" in p]
"""Programs that install a reactor of their own, and so need a process of their own."""
PARTS = {
    document: [p for p in programs(document) if "react(" not in p and p not in ALONE]
    for document in DOCUMENTS
}
WHOLE = [p for document in DOCUMENTS for p in programs(document) if "react(" in p]


class DocumentTests(SynchronousTestCase):
    """What a reader would copy."""

    def execute(self, program: str, name: str) -> dict[str, Any]:
        """What a module of this text holds."""
        module = sys.modules[name] = types.ModuleType(name)
        self.addCleanup(sys.modules.pop, name, None)
        exec(compile(program, name, "exec", dont_inherit=True), vars(module))
        return vars(module)

    def test_parts(self) -> None:
        """Each part works by itself, beside the files that it speaks of."""
        create_key("key")
        self.assertEqual({name: len(parts) for name, parts in PARTS.items() if not parts}, {})
        (mygame,) = (part for part in PARTS["docs/embedding.md"] if "class Avatar" in part)
        self.patch(sys, "stdout", sys.stderr)
        self.execute(mygame, "mygame")
        for document, parts in PARTS.items():
            for part in parts:
                with self.subTest(document=document, begins=part[:80]):
                    self.execute(part, "copied")

    def test_alone(self) -> None:
        """A program with a reactor of its own runs to its end."""
        self.assertEqual(len(ALONE), 1)
        for program in ALONE:
            status, printed = run_to_end(".", script=program)
            self.assertEqual(status, 0, printed)

    def test_tests(self) -> None:
        """The tests that a game is to begin with pass."""
        (part,) = (part for part in PARTS["docs/testing.md"] if "TestCase" in part)
        case = self.execute(part, "test_mygame")["LeaveTests"]
        result = unittest.TestResult()
        unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
        self.assertEqual((result.testsRun, result.errors, result.failures), (2, [], []))

    def test_programs(self) -> None:
        """Each whole program runs to its end, and says where the player is."""
        server = Server(".")
        self.addCleanup(server.kill)
        self.assertEqual(len(WHOLE), 3)
        for program in WHOLE:
            with self.subTest(begins=program[-200:]):
                here = program.replace("7777", str(server.address[1]))
                directory = Path(self.mktemp())  # no two programs share a database
                directory.mkdir()
                status, printed = run_to_end(str(directory), script=here)
                self.assertEqual(status, 0, printed)
                self.assertIn("PlayerState(x=", printed)

    def test_backups(self) -> None:
        """The commands under "Backups" work one after the other, and make whole copies."""
        if shutil.which("sqlite3") is None:
            self.skipTest("there is no sqlite3 shell")
        page = (ROOT / "docs/sqlite.md").read_text(encoding="utf-8")
        block = re.search(r"## Backups.*?```console\n(.*?)```", page, re.S)
        assert block is not None
        commands = [line.removeprefix("$ ") for line in block[1].splitlines()]
        directory = Path(self.mktemp())
        directory.mkdir()
        with closing(open_store(f"sqlite:{directory}/players.db", PlayerState)) as store:
            store.prepare()
            store.migrate(bytes(16))
            for command in commands:
                subprocess.run(command, shell=True, check=True, cwd=directory, timeout=30)
        names = re.findall(r"'(.+?\.db)'", block[1])
        self.assertEqual(len(names), len(commands))
        for name in names:
            with closing(open_store(f"sqlite:{directory}/{name}", PlayerState)) as copy:
                copy.prepare()
