"""The names of files that get further files beside them, named by a suffix."""

from __future__ import annotations

import os

NAME_BYTES = 220
"""The longest name: the system's limit is 255, and the suffixes of the further files need room."""
PATH_BYTES = 4000
"""The longest path, below the system's 4096 for the same reason."""


def check_name(path: str) -> None:
    """Check that the files beside this one can be named, and that its name can be logged.

    Raises:
        ValueError: the name is unusable; the message ends with what to do.
    """
    if not path or "\0" in path:
        raise ValueError("it names no file; name one")
    try:
        whole = os.path.realpath(path).encode()
    except UnicodeEncodeError:
        raise ValueError("its name is not UTF-8; name another file") from None
    name = whole.rpartition(b"/")[2]
    for what, size, most in (("name", len(name), NAME_BYTES), ("path", len(whole), PATH_BYTES)):
        if size > most:
            raise ValueError(
                f"its {what} has {size} bytes, which is too long for the files beside it; name"
                f" another file, with at most {most}"
            )
