"""Which module may import which, and that none takes the reactor for granted."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import playerstate

PACKAGE = Path(playerstate.__file__).parent
PAGE = Path(__file__).parents[2] / "docs/architecture.md"

FOLDERS: dict[str, set[str]] = {
    "arguments": set(),
    "figures": set(),
    "filenames": set(),
    "ledger": {"figures"},
    "listening": set(),
    "printable": set(),
    "runtime": set(),
    "waiters": set(),
    "log": {"printable"},
    "clock": {"log"},
    "state": {"arguments"},
    "wire": {"arguments", "state"},
    "interfaces": {"state"},
    "stores": {"filenames", "interfaces", "log", "printable", "state"},
    "live": {"filenames", "interfaces", "log", "state"},
    "saving": {"clock", "interfaces", "ledger", "live", "log", "runtime", "state", "waiters"},
    "players": {
        "arguments",
        "clock",
        "figures",
        "interfaces",
        "ledger",
        "live",
        "log",
        "runtime",
        "saving",
        "state",
        "waiters",
    },
    "conversations": {
        "arguments",
        "interfaces",
        "ledger",
        "live",
        "log",
        "players",
        "saving",
        "state",
        "waiters",
        "wire",
    },
    "transports": {"arguments", "clock", "conversations", "figures", "log", "players", "wire"},
    "tokens": {"arguments", "transports"},
    "client": {"arguments", "log", "state", "transports", "wire"},
    "testing": {"interfaces", "players", "runtime", "saving", "state", "stores"},
    "web": {
        "arguments",
        "clock",
        "figures",
        "interfaces",
        "ledger",
        "live",
        "log",
        "players",
        "printable",
        "saving",
        "state",
    },
    "hangup": {"log"},
    "server": {"hangup", "interfaces", "listening", "log", "players", "printable", "web"},
    "tap": {
        "conversations",
        "filenames",
        "interfaces",
        "listening",
        "live",
        "players",
        "server",
        "state",
        "stores",
        "tokens",
        "transports",
        "web",
    },
    "": {
        "conversations",
        "interfaces",
        "ledger",
        "players",
        "runtime",
        "saving",
        "state",
        "stores",
        "transports",
    },
}
"""What each folder of the package may import, or a module that lies in none.  The empty name is the
package itself, whose names are imported when they are asked for."""

ANYTHING = {"cli"}
"""What may import anything: the command line."""


def modules() -> dict[str, Path]:
    """Every module of the package, by its dotted name below it; a package by its own."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def folder(module: str) -> str:
    """The folder a module lies in; its own name where it lies in none."""
    return module.partition(".")[0]


def parse(path: Path) -> ast.Module:
    """A module's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """The full names that these nodes import."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(path: Path, names: dict[str, Path]) -> set[str]:
    """The modules of the package that a file imports, anywhere in it."""
    found = set()
    for name in imported(ast.walk(parse(path))):
        top, _, below = name.partition(".")
        if top == "playerstate":
            # "playerstate.saving.ring.Ring" is of the module saving.ring, "playerstate.Joined" of
            # the package.
            while below and below not in names:
                below = below.rpartition(".")[0]
            found.add(below)
    return found


def at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when a module is imported: all but the bodies of functions."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield child
            yield from at_import(child)


def listed_on_page() -> Iterator[str]:
    """The modules in the table of the page on architecture, from above to below."""
    place = ""
    page = PAGE.read_text(encoding="utf-8")
    table = page.partition("| folder | module | is |\n|---|---|---|\n")[2].partition("\n\n")[0]
    for line in table.splitlines():
        cells = [cell.strip(" `") for cell in line.split("|")[1:-1]]
        first, module, _ = cells
        place = "" if first == "ground" else first.rstrip("/").replace("/", ".") or place
        if place not in ANYTHING:
            yield ".".join(part for part in (place, module) if part and part != "__init__")


class ImportTests(SynchronousTestCase):
    """The table of folders, held."""

    def setUp(self) -> None:
        """Read what is imported."""
        self.modules = modules()
        self.imports = {name: ours(path, self.modules) for name, path in self.modules.items()}

    def test_found(self) -> None:
        """The modules that these tests look at are the package's."""
        self.assertIn("state.schema", self.modules)
        self.assertIn("stores.sqlite.writer", self.modules)
        self.assertEqual(
            self.imports["saving.persister"],
            {"interfaces", "saving.in_hand", "saving.listener", "saving.ring"},
        )

    def test_every_module_has_a_folder(self) -> None:
        """Each folder of the package is in the table, and each in the table exists."""
        self.assertEqual({folder(name) for name in self.modules} - ANYTHING, set(FOLDERS))

    def test_imports_are_allowed(self) -> None:
        """A module imports only from its own folder and those the table allows it."""
        wrong = [
            f"{name or 'playerstate'} imports {other or 'playerstate'}"
            for name, others in sorted(self.imports.items())
            for other in sorted(others)
            if folder(name) not in ANYTHING
            and folder(other) != folder(name)
            and folder(other) not in FOLDERS[folder(name)]
        ]
        self.assertEqual(wrong, [])

    def test_table_points_down(self) -> None:
        """The table itself allows no folder to import what imports it."""
        order = list(TopologicalSorter(FOLDERS).static_order())
        self.assertEqual(set(order), set(FOLDERS))

    def test_modules_point_down(self) -> None:
        """No module imports, over whatever detour, itself; not even inside of its folder."""
        list(TopologicalSorter(self.imports).static_order())

    def test_page(self) -> None:
        """The table in the page on architecture has every module, after all that it imports."""
        listed = list(listed_on_page())
        packages = {name for name, path in self.modules.items() if path.stem == "__init__"}
        wanted = {name for name in self.modules if folder(name) not in ANYTHING}
        self.assertEqual(set(listed), wanted - packages | {"stores"})
        wrong = [
            f"{name} stands above {other}, which it imports"
            for at, name in enumerate(listed)
            for other in self.imports[name] & set(listed[at + 1 :])
        ]
        self.assertEqual(wrong, [])

    def test_no_reactor_at_import(self) -> None:
        """No module imports the global reactor when it is itself imported."""
        wrong = [
            name
            for name, path in self.modules.items()
            if "twisted.internet.reactor" in imported(at_import(parse(path)))
        ]
        self.assertEqual(wrong, [])

    def test_reactor_is_passed_in(self) -> None:
        """Only what a user starts without a reactor falls back to the global one, and what twistd
        runs, which has no other.
        """
        users = {
            name
            for name, path in self.modules.items()
            if "twisted.internet.reactor" in imported(ast.walk(parse(path)))
            and folder(name) not in ANYTHING
        }
        listening = {"transports.plain", "transports.netcode.service", "web.service"}
        started = {"players.service", "server", "hangup", "stores.postgresql.store"}
        self.assertEqual(users, started | listening)
