"""The files of the page: its empty shell, which shows nothing of a player and so needs no token."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable

import attrs

FOLDER = "page"
"""The folder of the files, beside this module and in their paths."""
_INDEX = "index.html"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_TEXT = "text/plain; charset=utf-8"


@attrs.frozen
class PageFile:
    """One file of the page.

    Attributes:
        path: the segments of its path below the endpoint's root.
        content_type: its media type.
        body: its bytes.
    """

    path: tuple[str, ...]
    content_type: str
    body: bytes


def page_files() -> Iterator[PageFile]:
    """Every file of the page, read from the package; what refers to another does so relatively."""
    for path, file in _below(files("playerstate.web") / FOLDER, (FOLDER,)):
        content_type = _TYPES.get(file.name[file.name.rfind(".") :], _TEXT)
        is_index = path == (FOLDER, _INDEX)
        yield PageFile(("",) if is_index else path, content_type, file.read_bytes())


def _below(
    folder: Traversable, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Traversable]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _below(entry, (*path, entry.name))
        else:
            yield (*path, entry.name), entry
