"""Sphinx's settings; `tox -e docs` builds with warnings as errors."""

from importlib.metadata import version as installed_version

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
