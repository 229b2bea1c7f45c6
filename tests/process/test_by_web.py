"""The commands that ask a server's web endpoint, on real sockets."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from click.testing import Result
from twisted.internet.defer import maybeDeferred
from twisted.internet.threads import deferToThread

from playerstate.cli import web
from tests.kit.arguments import run
from tests.kit.metrics import METRICS
from tests.kit.webstub import TOKEN, Stub

STATE = {"x": 1.5, "hp": 9, "alive": True, "zone": "cellar"}


@pytest_twisted.async_yield_fixture
async def stub() -> AsyncIterator[Stub]:
    """An endpoint that knows player 42."""
    stub = Stub()
    stub.answers["GET", "/players/42"] = 200, {"session_id": "42", "state": STATE}
    yield stub
    await maybeDeferred(stub.port.stopListening)


@pytest.fixture
def token(tmp_path: Path) -> str:
    """A file with the token."""
    path = tmp_path / "token"
    path.write_text(f"alice write {TOKEN}\n")
    path.chmod(0o600)
    return str(path)


async def command(stub: Stub, *arguments: str) -> Result:
    """What comes of a command with ``--web``."""
    result = await deferToThread(run, *arguments, "--web", stub.url)
    assert isinstance(result.exception, (SystemExit, type(None))), result.exception
    return result


def last(stub: Stub) -> tuple[str, str, Any]:
    """The last request."""
    return stub.requests[-1]


@pytest_twisted.ensureDeferred
async def test_set(stub: Stub, token: str) -> None:
    """A text is sent as a value of the field's type, and the change is told."""
    after = {"x": 7.0, "hp": 5, "alive": False, "zone": "123"}
    stub.answers["PATCH", "/players/42"] = 200, {"session_id": "42", "state": after}
    words = ("42", "x=7", "hp=5", "alive=0", "zone=123")
    result = await command(stub, "set", *words, "--token-file", token)
    assert (result.exit_code, result.stderr) == (0, "")
    assert last(stub) == ("PATCH", "/players/42", {"x": 7, "hp": 5, "alive": False, "zone": "123"})
    changes = "x 1.5 -> 7.0, hp 9 -> 5, alive True -> False, zone 'cellar' -> '123'"
    assert result.stdout == f"player 42 at {stub.url}: {changes}\n"
    result = await command(stub, "set", *words, "--token-file", token, "--json")
    assert json.loads(result.stdout)["state"] == after


@pytest_twisted.ensureDeferred
async def test_set_refused(stub: Stub, token: str) -> None:
    """An error of the server is the command's, in one line that names the field."""
    for error in ("hp must be 0 to 100", "must be 0 to 100"):
        stub.answers["PATCH", "/players/42"] = 400, {"error": error, "field": "hp"}
        result = await command(stub, "set", "42", "hp=many", "q=null", "--token-file", token)
        assert last(stub)[2] == {"hp": "many", "q": "null"}
        assert result.exit_code == 1
        named = error if "hp" in error else f"hp: {error}"
        assert result.stderr == f"Error: {stub.url}: {named}\n"


@pytest_twisted.ensureDeferred
async def test_kick_erase_flush(stub: Stub, token: str) -> None:
    """Each is asked for, and what was done is told."""
    for arguments, path, told in (
        (("kick", "42"), "/players/42/kick", f"player 42 kicked from {stub.url}\n"),
        (("erase", "42"), "/players/42/erase", f"player 42 erased by {stub.url}\n"),
        (("flush",), "/flush", f"{stub.url}: everything is saved\n"),
    ):
        stub.answers["POST", path] = 200, {"done": True}
        result = await command(stub, *arguments, "--token-file", token)
        assert (result.exit_code, result.stdout, result.stderr) == (0, told, "")
        assert last(stub) == ("POST", path, None)
        result = await command(stub, *arguments, "--token-file", token, "--json")
        assert json.loads(result.stdout) == {"done": True}


@pytest_twisted.ensureDeferred
async def test_no_token(stub: Stub) -> None:
    """Without a token the command says how to give one."""
    result = await command(stub, "kick", "42")
    assert result.exit_code == 1
    assert result.stderr == (f"Error: {stub.url}: this needs a token; give one by --token-file\n")
    assert not stub.requests


@pytest_twisted.ensureDeferred
async def test_no_such_answer(stub: Stub, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no answer of a server of ours is an error of one line, of a bounded size."""
    monkeypatch.setattr(web, "MOST_BYTES", 1000)
    for answer, why in (
        ((200, b"<html>"), "does not answer in JSON; is it a playerstate server?"),
        ((200, b"[]"), "does not answer in JSON; is it a playerstate server?"),
        ((500, b"<html>"), "500 Internal Server Error"),
        ((302, b""), "302 Found"),
        ((500, b'{"error": null}'), "None"),
        ((200, b"x" * 2000), "the answer has more than 1000 bytes"),
    ):
        stub.answers["POST", "/flush"] = answer
        result = await command(stub, "flush", "--token-file", token)
        assert result.exit_code == 1
        assert why in result.stderr
        assert len(result.stderr.splitlines()) == 1


@pytest_twisted.ensureDeferred
async def test_silence(stub: Stub) -> None:
    """A server that does not answer is waited for within a limit."""
    stub.answers["POST", "/flush"] = None
    impatient = web.Web(stub.url, TOKEN, 0.2)
    with pytest.raises(web.WebError, match=r"has not answered within 0.2 s; what it was asked"):
        await deferToThread(impatient.ask, "POST", "/flush")


@pytest_twisted.ensureDeferred
async def test_nothing_there(stub: Stub, token: str) -> None:
    """Where no server listens that is said."""
    await stub.port.stopListening()
    result = await command(stub, "flush", "--token-file", token)
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: cannot reach {stub.url}: Connection refused; the server must run with --web\n"
    )


@pytest_twisted.ensureDeferred
async def test_top(stub: Stub) -> None:
    """Without a terminal the figures of one interval are printed once."""
    stub.answers["GET", "/metrics"] = 200, METRICS.encode()
    result = await command(stub, "top", "--interval", "0.01")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "  players: 100 online, 2 leaving" in result.stdout.splitlines()
    result = await command(stub, "top", "--interval", "0.01", "--json")
    found = json.loads(result.stdout)
    assert (found["players_online"], found["moves_applied_a_second"]) == (100, 0)
    stub.answers["GET", "/metrics"] = 200, b"# nothing\n"
    result = await command(stub, "top")
    assert "no figure of a playerstate server is in it" in result.stderr


def test_token_files(tmp_path: Path) -> None:
    """A file with one token is read, whichever of the two forms it has; others are refused."""
    path = tmp_path / "token"
    for text, mode, why in (
        ("a b", 0o600, "must hold one token"),
        ("one\ntwo\n", 0o600, "must hold one token"),
        ("", 0o600, "must hold one token"),
        ("x" * 5000, 0o600, "must hold one token"),
        ("tökèn", 0o600, "must hold one token"),
        ("token", 0o640, "users other than its owner"),
    ):
        path.write_text(text)
        path.chmod(mode)
        result = run("flush", "--web", "http://127.0.0.1:1", "--token-file", str(path))
        assert result.exit_code == 2
        assert why in result.stderr
    for text in ("# mine\n\ntoken\n", "alice read token"):
        path.write_text(text)
        path.chmod(0o600)
        result = run("flush", "--web", "http://127.0.0.1:1", "--token-file", str(path))
        assert result.exit_code == 1
        assert "cannot reach" in result.stderr
    os.unlink(path)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("set", "sqlite:x.db", "1", "x=1", "--token-file", "{}"), "is of no use without --web"),
        (("set", "", "1", "x=1"), "STORE is empty"),
        (("set", "--web", "http://h", "1", "x=1", "--create"), "--create is of no use"),
        (("set", "sqlite:x.db", "1", "x"), "'x' is not FIELD=VALUE"),
        (("set", "sqlite:x.db", "1", "x=1", "x=2"), "x is given twice"),
        (("kick", "--web", "ftp://h", "1"), "is not a URL such as"),
        (("kick", "--web=http://a:b@h", "1"), "is not a URL such as"),
        (("kick", "--web=http://h:99999", "1"), "is not a URL such as"),
    ],
)
def test_refused(arguments: tuple[str, ...], why: str, tmp_path: Path) -> None:
    """Arguments that do not go together are refused in one line."""
    token = tmp_path / "token"
    token.write_text("token")
    token.chmod(0o600)
    result = run(*(word.format(token) for word in arguments))
    assert result.exit_code == 2
    assert why in result.stderr
    assert len(result.stderr.splitlines()) == 1
