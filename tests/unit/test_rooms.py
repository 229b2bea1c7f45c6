"""Which module may import which, and that none takes the reactor for granted."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import playerstate

PACKAGE = Path(playerstate.__file__).parent

ROOMS: dict[str, set[str]] = {
    "building": set(),
    "checks": set(),
    "schema": {"building", "checks"},
    "ring": set(),
    "printable": set(),
    "log": {"printable"},
    "filenames": set(),
    "waiters": set(),
    "pace": set(),
    "steady": set(),
    "ledger": set(),
    "interfaces": {"schema"},
    "messages": {"schema"},
    "state": {"schema"},
    "layout": {"schema"},
    "table": {"layout", "schema"},
    "journal": {"filenames", "interfaces", "layout", "schema", "table"},
    "loads": {"interfaces"},
    "deltas": {"messages", "schema"},
    "conversation": {"messages"},
    "receipts": {"conversation", "ledger", "messages", "schema", "table"},
    "client": {"deltas", "messages", "schema", "transports"},
    "stores": {"filenames", "interfaces", "printable", "schema"},
    "persister": {"interfaces", "ring"},
    "trouble": {"interfaces", "persister", "steady"},
    "outbox": {
        "interfaces",
        "layout",
        "ledger",
        "pace",
        "persister",
        "ring",
        "steady",
        "table",
        "trouble",
        "waiters",
    },
    "leaves": {"ledger", "outbox", "persister", "table", "waiters"},
    "salvage": {"interfaces", "journal", "outbox", "schema", "steady", "table", "trouble"},
    "recovery": {"interfaces", "journal", "layout", "schema"},
    "service": {
        "interfaces",
        "journal",
        "layout",
        "leaves",
        "ledger",
        "loads",
        "outbox",
        "persister",
        "recovery",
        "salvage",
        "schema",
        "steady",
        "table",
        "trouble",
        "waiters",
    },
    "gateway": {
        "conversation",
        "deltas",
        "interfaces",
        "leaves",
        "ledger",
        "messages",
        "outbox",
        "receipts",
        "service",
        "waiters",
    },
    "transports": {"gateway", "messages", "service"},
    "tokens": {"transports"},
    "listening": set(),
    "testing": {"interfaces", "outbox", "persister", "schema", "service", "state", "stores"},
    "tap": {
        "printable",
        "gateway",
        "interfaces",
        "journal",
        "listening",
        "schema",
        "service",
        "state",
        "stores",
        "tokens",
        "transports",
    },
    "": {"interfaces", "leaves", "outbox", "schema", "service", "state", "stores"},
}
"""What each room may import: a module of the package, or a package in it with all its modules.  The
empty name is the package itself, its public face."""

ANYTHING = {"cli"}
"""Rooms that may import anything: the command line."""
ANYWHERE = {"log"}
"""Rooms that may be imported anywhere: all that log do it in one way."""


def modules() -> dict[str, Path]:
    """Every module of the package, by its dotted name below it; a package by its own."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def room(module: str) -> str:
    """The room a module lies in."""
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
            # "playerstate.saving.ring.Ring" is of the module ring, "playerstate.Joined" of the package.
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


class RoomTests(SynchronousTestCase):
    """The table of rooms, held."""

    def setUp(self) -> None:
        """Read what is imported."""
        self.modules = modules()
        self.imports = {name: ours(path, self.modules) for name, path in self.modules.items()}

    def test_found(self) -> None:
        """The modules that these tests look at are the package's."""
        self.assertIn("schema", self.modules)
        self.assertIn("stores.sqlite", self.modules)
        self.assertEqual(self.imports["persister"], {"interfaces", "ring"})

    def test_every_module_has_a_room(self) -> None:
        """Each module lies in a room of the table, and each room has a module."""
        self.assertEqual({room(name) for name in self.modules} - ANYTHING, set(ROOMS))

    def test_imports_are_allowed(self) -> None:
        """A module imports only from its own room and those the table allows it."""
        wrong = [
            f"{name or 'playerstate'} imports {other or 'playerstate'}"
            for name, others in sorted(self.imports.items())
            for other in sorted(others)
            if room(name) not in ANYTHING
            and room(other) != room(name)
            and room(other) not in ROOMS[room(name)] | ANYWHERE
        ]
        self.assertEqual(wrong, [])

    def test_table_points_down(self) -> None:
        """The table itself allows no room to import what imports it."""
        order = list(TopologicalSorter(ROOMS).static_order())
        self.assertEqual(set(order), set(ROOMS))

    def test_modules_point_down(self) -> None:
        """No module imports, over whatever detour, itself; not even inside of its room."""
        list(TopologicalSorter(self.imports).static_order())

    def test_no_reactor_at_import(self) -> None:
        """No module imports the global reactor when it is itself imported."""
        wrong = [
            name
            for name, path in self.modules.items()
            if "twisted.internet.reactor" in imported(at_import(parse(path)))
        ]
        self.assertEqual(wrong, [])

    def test_reactor_is_passed_in(self) -> None:
        """Only what a user starts without a reactor falls back to the global one, and the plugin,
        which twistd runs on no other.
        """
        users = {
            name
            for name, path in self.modules.items()
            if "twisted.internet.reactor" in imported(ast.walk(parse(path)))
            and room(name) not in ANYTHING
        }
        transports = {"transports.plain", "transports.netcode.service"}
        self.assertEqual(users, {"service", "tap"} | transports)
