"""Change, kick or erase a player by the web endpoint of the server that runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from playerstate.cli.done import tell_done
from playerstate.cli.web import Web


def set_fields(web: Web, session_id: int, fields: Sequence[tuple[str, str]], as_json: bool) -> None:
    """Change fields of a player, in the game or not.

    Args:
        web: the server's.
        session_id: the player's.
        fields: names and texts of the new values.  A text that is JSON stands for that value, any
            other for itself.
        as_json: whether to print the server's answer.

    Raises:
        WebError: the server refused it, or cannot be reached.
    """
    named = {name: _value(text) for name, text in fields}
    answer = web.change("PATCH", f"/players/{session_id}", named)
    changes = ", ".join(f"{name} = {value!r}" for name, value in named.items())
    tell_done(f"player {session_id} at {web.url}: {changes}", answer, as_json)


def _value(text: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, (bool, int, float, str)) else text


def kick(web: Web, session_id: int, as_json: bool) -> None:
    """Kick a player out of the game.

    Raises:
        WebError: the server refused it, or cannot be reached.
    """
    answer = web.change("POST", f"/players/{session_id}/kick")
    tell_done(f"player {session_id} kicked from {web.url}", answer, as_json)


def erase(web: Web, session_id: int, as_json: bool) -> None:
    """Kick a player, and erase all that the server has of them.

    Raises:
        WebError: the server refused it, or cannot be reached.
    """
    answer = web.change("POST", f"/players/{session_id}/erase")
    tell_done(f"player {session_id} erased by {web.url}", answer, as_json)


def flush(web: Web, as_json: bool) -> None:
    """Have all that is unsaved saved now.

    Raises:
        WebError: the server refused it, or cannot be reached.
    """
    answer = web.change("POST", "/flush")
    tell_done(f"{web.url}: everything is saved", answer, as_json)
