"""Change, kick or erase a player by the web endpoint of the server that runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from playerstate.cli.done import tell_done
from playerstate.cli.web import Web

_BOOLS = {"0": False, "false": False, "1": True, "true": True}


def set_fields(web: Web, session_id: int, fields: Sequence[tuple[str, str]], as_json: bool) -> None:
    """Change fields of a player, in the game or not.

    Args:
        web: the server's.
        session_id: the player's.
        fields: names and texts of the new values.
        as_json: whether to print the server's answer, the player as changed.

    Raises:
        WebError: the server refused it, or cannot be reached.
    """
    path = f"/players/{session_id}"
    before = _state(web.ask("GET", path))
    named = {name: value_like(before.get(name), text) for name, text in fields}
    answer = web.ask("PATCH", path, named)
    after = _state(answer)
    changes = ", ".join(f"{name} {before.get(name)!r} -> {after.get(name)!r}" for name in named)
    tell_done(f"player {session_id} at {web.url}: {changes}", answer, as_json)


def _state(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    state = answer.get("state")
    return state if isinstance(state, dict) else {}


def value_like(present: Any, text: str) -> Any:
    """The value that a text stands for, by the type of the field's present value.

    The server checks it: a text that is no such value is sent as it is.
    """
    if isinstance(present, str):
        return text
    if isinstance(present, bool):
        return _BOOLS.get(text.strip().lower(), text)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, (bool, int, float)) else text


def kick(web: Web, session_id: int, as_json: bool) -> None:
    """Kick a player out of the game.

    Raises:
        WebError: the server refused it, or cannot be reached.
    """
    answer = web.ask("POST", f"/players/{session_id}/kick")
    tell_done(f"player {session_id} kicked from {web.url}", answer, as_json)


def erase(web: Web, session_id: int, as_json: bool) -> None:
    """Kick a player, and erase all that the server has of them.

    Raises:
        WebError: the server refused it, or cannot be reached.
    """
    answer = web.ask("POST", f"/players/{session_id}/erase")
    tell_done(f"player {session_id} erased by {web.url}", answer, as_json)


def flush(web: Web, as_json: bool) -> None:
    """Have all that is unsaved saved now.

    Raises:
        WebError: the server refused it, or cannot be reached.
    """
    answer = web.ask("POST", "/flush")
    tell_done(f"{web.url}: everything is saved", answer, as_json)
