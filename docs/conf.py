"""Sphinx's settings; `tox -e docs` builds with warnings as errors."""

from __future__ import annotations

import re
from importlib import import_module
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

project = "playerstate"
author = "the playerstate authors"
copyright = f"2026, {author}"
release = installed_version("playerstate")
version = ".".join(release.split(".")[:2])

extensions = [
    "myst_parser",
    "repoze.sphinx.autointerface",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"playerstate {release}"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# Names in a docstring's single backticks become links where this documentation has them.
default_role = "py:obj"
# A name of our own must resolve. Without a network there is no inventory to hold others against.
# Another package's names, and type variables, have no page here.
nitpick_ignore_regex = [
    (r"py:.*", r"(?!playerstate\.).*"),
    (r"py:class", r"playerstate\..*\.T"),
    # What a service holds of ours; programs go by its own methods.
    (r"py:class", r"playerstate\.(players\.run\.Run|live\.table\.LiveTable)"),
]

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
# Only the class-based autodoc asks the interface extension about a module's members.
autodoc_use_legacy_class_based = True
napoleon_numpy_docstring = False

DOORS = re.findall(
    r"^\.\. automodule:: (\S+)$", Path(__file__).with_name("api.md").read_text("utf-8"), re.M
)
"""The public modules: those that the page of the API documents."""


def setup(app: Any) -> None:
    """See `resolve`."""
    app.connect("missing-reference", resolve)


def resolve(app: Any, env: Any, node: Any, shown: Any) -> Any:
    """Have a name of our own lead to the door that it is imported from.

    Docstrings and signatures name what is defined in a module of ours.  What is of no door is shown
    without a link, and what there is not is a warning.
    """
    target = node.get("reftarget", "")
    if not target.startswith("playerstate.") or (public := _public_name(target)) is None:
        return None
    python = env.get_domain("py")
    found = public and python.resolve_xref(
        env, node["refdoc"], app.builder, node["reftype"], public, node, shown
    )
    return found or shown


def _public_name(name: str) -> str | None:
    """The name by a door; empty where it is of none, None where there is no such thing."""
    module, rest = name, []
    while True:
        try:
            found = import_module(module)
            break
        except ModuleNotFoundError:
            module, _, last = module.rpartition(".")
            rest.insert(0, last)
    public = ""
    for at, part in enumerate(rest):
        try:
            found = getattr(found, part)
        except AttributeError:
            return None
        if at == 0:
            public = next(
                (f"{d}.{n}" for d in DOORS for n, each in _of_door(d) if each is found), ""
            )
        elif public:
            public += f".{part}"
    return public


def _of_door(door: str) -> list[tuple[str, Any]]:
    module = import_module(door)
    return [(name, getattr(module, name)) for name in module.__all__]
