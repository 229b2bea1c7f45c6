"""Tokens and keys for a login service: the functions, and the commands around them."""

from __future__ import annotations

import os
import stat
from typing import Any

from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from playerstate.cli import main
from playerstate.tokens import KeyUnusable, connect_token, create_key, read_key
from playerstate.transports.netcode.addresses import Address
from playerstate.transports.netcode.tokens import ConnectToken, PrivateToken
from tests.kit.netcode import ADDRESS, KEY, PROTOCOL_ID, Table, source
from tests.kit.support import LAW


def make(session_id: int = 42, **given: Any) -> bytes:
    """A token, with what must be given given."""
    arguments: dict[str, Any] = {
        "key": KEY,
        "protocol_id": PROTOCOL_ID,
        "addresses": [str(ADDRESS)],
    }
    return connect_token(session_id, **arguments | given)


def private(token: ConnectToken) -> PrivateToken:
    """Its private part."""
    return PrivateToken.unseal(token.sealed, KEY, token.protocol_id, token.expires_at, token.nonce)


class ConnectTokenTests(SynchronousTestCase):
    """What a login service hands out."""

    def test_defaults(self) -> None:
        """It lives 30 s, times out after 5, and is the same for client and server."""
        token = ConnectToken.unpack(make(wall_clock=lambda: 1_700_000_000.9))
        self.assertEqual((token.created_at, token.expires_at), (1_700_000_000, 1_700_000_030))
        self.assertEqual((token.timeout_seconds, token.addresses), (5, (ADDRESS,)))
        part = private(token)
        self.assertEqual(
            (part.client_id, part.timeout_seconds, part.addresses), (42, 5, (ADDRESS,))
        )
        self.assertEqual(part.user_data, bytes(256))
        for name in ("client_to_server_key", "server_to_client_key"):
            self.assertEqual(getattr(part, name), getattr(token, name))

    def test_given(self) -> None:
        """All of it can be given."""
        token = ConnectToken.unpack(
            make(
                2**63 - 1,
                addresses=["203.0.113.7:1", "[2001:db8::1]:2"],
                own_addresses=["10.0.0.5:40000"],
                expires=7,
                timeout=60,
                user_data=b"x" * 256,
                wall_clock=lambda: 100.0,
            )
        )
        self.assertEqual(token.expires_at, 107)
        self.assertEqual(list(map(str, token.addresses)), ["203.0.113.7:1", "[2001:db8::1]:2"])
        part = private(token)
        self.assertEqual(part.addresses, (Address.parse("10.0.0.5:40000"),))
        self.assertEqual((part.client_id, part.timeout_seconds), (2**63 - 1, 60))
        self.assertEqual(part.user_data, b"x" * 256)

    def test_each_is_another(self) -> None:
        """No two have a key or a nonce in common, not even for one player in one second."""
        tokens = [ConnectToken.unpack(make(wall_clock=lambda: 100.0)) for _ in range(3)]
        secrets = [
            secret
            for token in tokens
            for secret in (token.nonce, token.client_to_server_key, token.server_to_client_key)
        ]
        self.assertEqual(len(set(secrets)), 9)

    @LAW
    @given(session_id=st.integers(1, 2**63 - 1), user_data=st.binary(max_size=256))
    def test_lets_in(self, session_id: int, user_data: bytes) -> None:
        """Whoever it is made for gets in with it, and the user data are what was given."""
        table = Table()
        table.now = 40.0
        data = make(session_id, user_data=user_data, wall_clock=table.wall_clock)
        player = table.player(ConnectToken.unpack(data), source())
        player.connect()
        self.assertEqual(player.connection.client_id, session_id)
        self.assertEqual(player.connection.user_data, user_data.ljust(256, b"\0"))

    def test_out_of_range(self) -> None:
        """What a server would refuse, or no token can hold, is refused by name."""
        for name, value in (
            ("protocol_id", -1),
            ("protocol_id", 2**64),
            ("expires", 0),
            ("timeout", 0),
            ("timeout", 61),
            ("key", b"short"),
            ("user_data", bytes(257)),
            ("addresses", []),
            ("addresses", ["203.0.113.7:1"] * 33),
            ("addresses", ["example.org:40000"]),
            ("own_addresses", []),
        ):
            with self.subTest(name, value=value):
                given = {"session_id": 42} | {name: value}
                error = self.assertRaises(ValueError, make, **given)
                self.assertIn(name, str(error))


class KeyTests(SynchronousTestCase):
    """Key files."""

    def setUp(self) -> None:
        """A path where nothing is."""
        self.path = os.path.abspath(self.mktemp())

    def write(self, text: str, mode: int = 0o600) -> None:
        """A file that somebody wrote."""
        with open(self.path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(self.path, mode)

    def reason(self) -> str:
        """Why the file is not taken."""
        return str(self.assertRaises(KeyUnusable, read_key, self.path))

    def test_created(self) -> None:
        """A new key is 64 hex digits that its owner alone can read, whatever the umask."""
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        create_key(self.path, lambda size: bytes(range(size)))
        with open(self.path, encoding="ascii") as file:
            self.assertEqual(file.read(), bytes(range(32)).hex() + "\n")
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
        self.assertEqual(read_key(self.path), bytes(range(32)))

    def test_never_over_another(self) -> None:
        """A file that is there is left alone."""
        self.write("precious")
        error = self.assertRaises(KeyUnusable, create_key, self.path)
        self.assertIn("already", str(error))
        with open(self.path, encoding="ascii") as file:
            self.assertEqual(file.read(), "precious")

    def test_cannot_be_made(self) -> None:
        """A directory that is not there is told."""
        error = self.assertRaises(KeyUnusable, create_key, f"{self.path}/key")
        self.assertIn("No such file or directory", str(error))

    def test_others_can_read(self) -> None:
        """A key that its group or all can read or write is refused, with the remedy."""
        for mode in (0o640, 0o604, 0o620, 0o602, 0o666):
            self.write(KEY.hex(), mode)
            self.assertIn(f"chmod 600 {self.path}", self.reason())
        for mode in (0o600, 0o400):
            os.chmod(self.path, mode)
            self.assertEqual(read_key(self.path), KEY)

    def test_content(self) -> None:
        """64 hex digits of either case, with space around them or none; nothing else."""
        for text in (KEY.hex().upper(), f"  {KEY.hex()}\n\n"):
            self.write(text)
            self.assertEqual(read_key(self.path), KEY)
        for text in ("", KEY.hex()[:-1], KEY.hex() + "0", "g" * 64, "\N{SNOWMAN}" * 64):
            self.write(text)
            self.assertIn("64 hex digits", self.reason())

    def test_not_there(self) -> None:
        """A file that is not there is told, with the command that makes it; so is a directory."""
        self.assertIn(f"playerstate key {self.path}", self.reason())
        os.mkdir(self.path)
        self.assertIn("cannot be read", self.reason())


class CommandTests(SynchronousTestCase):
    """``playerstate key`` and ``playerstate token``."""

    def setUp(self) -> None:
        """An empty directory."""
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)
        self.key = f"{self.directory}/key"
        self.out = f"{self.directory}/token"

    def run_command(self, *arguments: str) -> Result:
        """Run a command in this process."""
        return CliRunner().invoke(main, arguments, prog_name="playerstate")

    def token(self, *arguments: str, public: str = str(ADDRESS)) -> Result:
        """``playerstate token``."""
        return self.run_command(
            *("token", "42", "--key-file", self.key, "--protocol-id", "0x1122334455667788"),
            *("--public", public, "--out", self.out),
            *arguments,
        )

    def test_key(self) -> None:
        """It makes a key, once."""
        result = self.run_command("key", self.key)
        self.assertEqual(result.exit_code, 0, result.output)
        self.assertEqual(len(read_key(self.key)), 32)
        result = self.run_command("key", self.key)
        self.assertEqual(result.exit_code, 1)
        self.assertEqual(len(result.output.splitlines()), 1)
        self.assertIn("already", result.output)

    def test_token(self) -> None:
        """It writes a token of 2,048 bytes that its owner alone can read, over an older one."""
        self.run_command("key", self.key)
        with open(self.out, "w", encoding="ascii") as file:
            file.write("x" * 5000)
        os.chmod(self.out, 0o644)
        result = self.token("--expires", "20", "--timeout", "7", "--public", "[2001:db8::1]:40000")
        self.assertEqual(result.exit_code, 0, result.output)
        self.assertIn("player 42 may connect once within 20 s", result.output)
        with open(self.out, "rb") as file:
            token = ConnectToken.unpack(file.read())
        self.assertEqual(token.protocol_id, PROTOCOL_ID)
        self.assertEqual(token.expires_at - token.created_at, 20)
        self.assertEqual(token.timeout_seconds, 7)
        self.assertEqual(token.addresses, (ADDRESS, Address.parse("[2001:db8::1]:40000")))
        self.assertEqual(stat.S_IMODE(os.stat(self.out).st_mode), 0o600)
        part = PrivateToken.unseal(
            token.sealed, read_key(self.key), PROTOCOL_ID, token.expires_at, token.nonce
        )
        self.assertEqual(part.client_id, 42)

    def test_bad_options(self) -> None:
        """What is wrong is told in one line that names the option."""
        result = self.token()
        self.assertIn("--key-file", result.output)
        self.run_command("key", self.key)
        for arguments, named in (
            (("--protocol-id", "game"), "--protocol-id"),
            (("--public", "example.org"), "--public"),
            (("--public", str(ADDRESS)) * 32, "--public"),
            (("--out", f"{self.key}/token"), "--out"),
            (("--timeout", "0"), "--timeout"),
        ):
            with self.subTest(named):
                result = self.token(*arguments)
                self.assertNotEqual(result.exit_code, 0)
                self.assertEqual(len(result.output.splitlines()), 1, result.output)
                self.assertIn(named, result.output)
