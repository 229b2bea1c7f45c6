"""Tokens, what each may do, and the names of the server."""

from __future__ import annotations

import hmac
import os

from twisted.trial.unittest import SynchronousTestCase

from playerstate.web.access import (
    MOST_BYTES,
    Access,
    Right,
    Token,
    TokensUnusable,
    parse_host,
    read_tokens,
)
from playerstate.web.refused import Refused
from tests.kit.web import READ, TOKENS, WRITE


class TokenFileTests(SynchronousTestCase):
    """The file of tokens."""

    def write(self, text: str, mode: int = 0o600) -> str:
        """A file with this text."""
        path = os.path.abspath(self.mktemp())
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, mode), "w") as file:
            file.write(text)
        os.chmod(path, mode)
        return path

    def test_tokens(self) -> None:
        """One a line, with a name and what it allows; comments and empty lines are skipped."""
        path = self.write(f"# who\n\n prometheus  read\t{READ}\nops write {WRITE}\r\n")
        self.assertEqual(read_tokens(path), TOKENS)

    def test_secret(self) -> None:
        """No token is shown, nor kept as it is."""
        self.assertNotIn(WRITE, repr(TOKENS))
        self.assertNotIn(WRITE.encode(), TOKENS[1].digest)

    def test_bad_lines(self) -> None:
        """A bad line is named by its number, without the token that it may hold."""
        secret = "s" * 20
        for line in (
            "ops",
            f"ops {secret}",
            f"ops admin {secret}",
            "ops write short",
            f"ops write {secret} more",
            f"ops write {secret}\N{LATIN SMALL LETTER U WITH DIAERESIS}",
            f"o/ps write {secret}",
            f"ops write {'x' * 257}",
        ):
            with self.subTest(line=line):
                path = self.write(f"a read {READ}\n{line}\n")
                error = str(self.assertRaises(TokensUnusable, read_tokens, path))
                self.assertIn("line 2 must be NAME read TOKEN or NAME write TOKEN", error)
                self.assertNotIn(secret, error)

    def test_bad_files(self) -> None:
        """A file that is no good is refused, with what to do."""
        fifo = os.path.abspath(self.mktemp())
        os.mkfifo(fifo, 0o600)
        for path, why in (
            (self.write("# none\n"), "holds no token"),
            (self.write(f"a read {READ}\na write {WRITE}\n"), "line 2: a has a token already"),
            (self.write(f"a read {READ}\n", 0o640), "chmod 600"),
            (self.write(f"a read {READ}\n", 0o604), "chmod 600"),
            (self.write("#" * (MOST_BYTES + 1)), "more than 65536 bytes"),
            (fifo, "not a regular file"),
            (os.path.abspath(self.mktemp()), "cannot be read"),
        ):
            with self.subTest(why=why):
                self.assertIn(why, str(self.assertRaises(TokensUnusable, read_tokens, path)))


class RightTests(SynchronousTestCase):
    """Who may do what."""

    def test_rules(self) -> None:
        """What each token may do on either kind of interface: a status, or 0 where it may."""
        loopback, wide = (Access(each, TOKENS) for each in ("127.0.0.1", "192.0.2.1"))
        nothing, reader, writer = (), (f"Bearer {READ}",), (f"bearer {WRITE}",)
        cases = [
            (loopback, Right.NOTHING, nothing, 0),
            (loopback, Right.READ, nothing, 0),
            (loopback, Right.WRITE, nothing, 401),
            (loopback, Right.READ, reader, 0),
            (loopback, Right.WRITE, reader, 403),
            (loopback, Right.WRITE, writer, 0),
            (wide, Right.NOTHING, nothing, 0),
            (wide, Right.READ, nothing, 401),
            (wide, Right.WRITE, nothing, 401),
            (wide, Right.READ, reader, 0),
            (wide, Right.READ, writer, 0),
            (wide, Right.WRITE, reader, 403),
            (wide, Right.WRITE, writer, 0),
            (loopback, Right.READ, ("Bearer nonsense",), 401),
            (loopback, Right.READ, (f"Basic {WRITE}",), 401),
            (loopback, Right.READ, (WRITE,), 401),
            (loopback, Right.WRITE, writer * 2, 401),
            (loopback, Right.NOTHING, ("Bearer nonsense",), 0),
            (Access(), Right.READ, nothing, 0),
            (Access(), Right.WRITE, nothing, 401),
            (Access(), Right.WRITE, ("Bearer ",), 401),
        ]
        for access, needed, headers, status in cases:
            with self.subTest(interface=access.interface, needed=needed, headers=headers):
                given = [header.encode() for header in headers]
                try:
                    access.check(needed, given)
                    found = 0
                except Refused as error:
                    found = error.status
                    self.assertEqual(error.field, "Authorization")
                self.assertEqual(found, status)

    def test_name(self) -> None:
        """The token's name is found for the audit log."""
        access = Access(tokens=TOKENS)
        self.assertEqual(
            access.check(Right.WRITE, [f"Bearer {WRITE}".encode()]), ("ops", Right.WRITE)
        )
        self.assertEqual(access.check(Right.READ, []), ("", Right.READ))

    def test_constant_time(self) -> None:
        """Every token is compared, by a comparison whose time tells nothing, also after a match."""
        compared: list[bytes] = []
        compare_digest = hmac.compare_digest

        def compare(one: bytes, other: bytes) -> bool:
            compared.append(one)
            return compare_digest(one, other)

        self.patch(hmac, "compare_digest", compare)
        Access(tokens=TOKENS).check(Right.READ, [f"Bearer {READ}".encode()])
        self.assertEqual(compared, [token.digest for token in TOKENS])

    def test_challenge(self) -> None:
        """Without a token the answer says how to give one."""
        error = self.assertRaises(Refused, Access().check, Right.WRITE, [])
        self.assertIn("Bearer", error.headers["WWW-Authenticate"])
        self.assertIn("--web-token-file", error.error)


class HostTests(SynchronousTestCase):
    """The names by which the server may be called."""

    def test_names(self) -> None:
        """Which hosts are answered on which interface."""
        loopback, six = Access(), Access("::1")
        named = Access("192.0.2.1", hosts=("game.example",))
        wild = Access("0.0.0.0", hosts=("game.example",))
        cases = [
            (loopback, "127.0.0.1", True),
            (loopback, "127.0.0.1:7780", True),
            (loopback, "LocalHost:80", True),
            (loopback, "[::1]:7780", True),
            (loopback, "localhost.", True),
            (loopback, "evil.example", False),
            (loopback, "127.0.0.1.evil.example", False),
            (loopback, "192.0.2.1", False),
            (six, "[::1]", True),
            (six, "evil.example", False),
            (named, "192.0.2.1:7780", True),
            (named, "game.example", True),
            (named, "Game.Example.:7780", True),
            (named, "localhost", False),
            (named, "192.0.2.2", False),
            (wild, "192.0.2.2:7780", True),
            (wild, "[2001:db8::1]:7780", True),
            (wild, "game.example", True),
            (wild, "evil.example", False),
            (wild, "localhost", False),
            (Access("::"), "[::1]", True),
        ]
        for access, host, is_answered in cases:
            with self.subTest(interface=access.interface, host=host):
                if is_answered:
                    access.check_host([host.encode()])
                    continue
                error = self.assertRaises(Refused, access.check_host, [host.encode()])
                self.assertEqual((error.status, error.field), (421, "Host"))
                self.assertIn("one of ", error.allowed)

    def test_bad(self) -> None:
        """A host is given once, and is one."""
        for headers in (
            [],
            [b"localhost", b"localhost"],
            [b""],
            [b"a b"],
            [b"localhost:x"],
            [b"user@localhost"],
            [b"localhost/"],
            [b"a." * 100 + b"a"],
            [b"\xff"],
        ):
            with self.subTest(headers=headers):
                error = self.assertRaises(Refused, Access().check_host, headers)
                self.assertEqual((error.status, error.field), (400, "Host"))

    def test_parse_host(self) -> None:
        """A name on the command line is one without a port."""
        self.assertEqual(parse_host("Game.Example."), "game.example")
        self.assertEqual(parse_host("[2001:DB8::1]"), "[2001:db8::1]")
        for text in ("", "game.example:80", "a b", "http://a", "*.example"):
            self.assertRaises(ValueError, parse_host, text)

    def test_token_of(self) -> None:
        """Two tokens of one text are the same, by name and right."""
        self.assertEqual(Token.of("a", Right.READ, READ), Token.of("a", Right.READ, READ))
