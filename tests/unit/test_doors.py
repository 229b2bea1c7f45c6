"""What is public: the five doors, all that they list, and nothing that is not listed."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import playerstate
from tests.kit.pages import PAGES, blocks, read

DOORS = (
    "playerstate",
    "playerstate.interfaces",
    "playerstate.client",
    "playerstate.tokens",
    "playerstate.testing",
)
API = "docs/api.md"


def imports_of_ours(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """The modules of ours that a program imports from, with each name; none of a whole module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "playerstate":
            yield from ((str(node.module), alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "playerstate":
                    yield alias.name, ""


class ListTests(SynchronousTestCase):
    """What the doors list."""

    def test_listed(self) -> None:
        """Each name is there, once, and none begins with an underscore."""
        for door in DOORS:
            module = import_module(door)
            names = module.__all__
            self.assertEqual(len(set(names)), len(names), door)
            for name in names:
                self.assertTrue(hasattr(module, name), f"{door}.{name}")
                self.assertFalse(name.startswith("_"), f"{door}.{name}")

    def test_documented(self) -> None:
        """Each says what it is, and the door what it is for."""
        for door in DOORS:
            module = import_module(door)
            self.assertTrue(module.__doc__, door)
            for name in module.__all__:
                found: Any = getattr(module, name)
                if callable(found) or inspect.isclass(found):
                    self.assertTrue(found.__doc__, f"{door}.{name}")

    def test_lazy_names(self) -> None:
        """The package's names are those that a type checker is told of, each from its module."""
        tree = ast.parse(inspect.getsource(playerstate))
        told = {name: module for module, name in imports_of_ours(tree)}
        self.assertEqual(sorted(told), sorted(playerstate.__all__))
        self.assertEqual(
            told, {name: f"playerstate.{home}" for name, home in playerstate._MODULES.items()}
        )

    def test_no_such_name(self) -> None:
        """What there is not is an AttributeError that names it."""
        error = self.assertRaises(AttributeError, getattr, playerstate, "Gatewy")
        self.assertEqual(str(error), "module 'playerstate' has no attribute 'Gatewy'")
        self.assertLessEqual(set(playerstate.__all__), set(dir(playerstate)))


class PageTests(SynchronousTestCase):
    """What the pages show and say."""

    def test_programs(self) -> None:
        """The programs of all pages import from the doors, and what these list."""
        seen = 0
        for page in PAGES:
            for block in blocks(page):
                if block.kind != "python":
                    continue
                for module, name in imports_of_ours(ast.parse(block.text)):
                    self.assertIn(module, DOORS, f"{page}: {block.text}")
                    self.assertIn(name, import_module(module).__all__, f"{page}: {block.text}")
                    seen += 1
        self.assertGreater(seen, 40)

    def test_api(self) -> None:
        """The page of the API shows what the doors list, all of it, once, and nothing else."""
        shown = re.findall(r"^\.\. auto(\w+):: (\S+)$", read(API), re.M)
        self.assertEqual([name for kind, name in shown if kind == "module"], list(DOORS))
        self.assertEqual(
            sorted(name for kind, name in shown if kind != "module"),
            sorted(f"{door}.{name}" for door in DOORS for name in import_module(door).__all__),
        )

    def test_links(self) -> None:
        """The pages link to names of the doors."""
        public = {f"{door}.{name}" for door in DOORS for name in import_module(door).__all__}
        for page in PAGES:
            for name in re.findall(r"\{py:\w+\}`~?(playerstate[\w.]*)`", read(page)):
                self.assertIn(name, public, page)
