"""The options of ``twistd playerstate``, and how its services are put together."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from twisted.application.service import IServiceMaker, MultiService
from twisted.plugin import getPlugins
from twisted.trial.unittest import SynchronousTestCase

from playerstate import PlayerStateService
from playerstate.listening import Listen
from playerstate.printable import one_line
from playerstate.state.default import PlayerState
from playerstate.tap import Options, makeService
from playerstate.tokens import create_key, read_key
from playerstate.transports.netcode.addresses import Address
from playerstate.transports.netcode.service import NetcodeService
from playerstate.transports.plain import PlainService
from playerstate.web.access import read_tokens
from playerstate.web.service import WebService
from tests.kit.support import Everything

GAME = """
import attrs

@attrs.frozen
class Avatar:
    hp: int = 100

@attrs.frozen
class Unpackable:
    inventory: list = ()

plain = object()
"""


class OptionsTestCase(SynchronousTestCase):
    """Tests of options as given."""

    def parse(self, *arguments: str) -> Options:
        """The options as parsed."""
        options = Options()
        options.parseOptions(arguments)
        return options

    def line(self, *arguments: str) -> str:
        """The one line with which bad options end the process."""
        with self.assertRaises(SystemExit) as caught:
            self.parse(*arguments)
        line = caught.exception.code
        self.assertIsInstance(line, str)
        self.assertEqual(len(line.splitlines()), 1)
        self.assertTrue(line.startswith("playerstate: "), line)
        return line


class OptionsTests(OptionsTestCase):
    """What each option takes, and the one line that a bad value gets."""

    def test_defaults(self) -> None:
        """Without options the server listens on loopback and saves to players.db within 5 s."""
        options = self.parse()
        self.assertEqual(options["listen"], [Listen("udp", 7777, "127.0.0.1")])
        self.assertEqual(options["store"].path, os.path.abspath("players.db"))
        self.assertEqual(options["store"].synchronous, "full")
        self.assertIs(options["state"].state_class, PlayerState)
        self.assertEqual(options["save-within"], 5.0)
        self.assertEqual(options["queue-size"], 8192)
        self.assertEqual(options["max-players"], 10_000)
        self.assertEqual(options["idle-timeout"], 30.0)
        self.assertEqual(options["live-file"], os.path.abspath("players.db.live"))
        self.assertFalse(options["insecure"])

    def test_given_values(self) -> None:
        """Every option can be given."""
        options = self.parse(
            *("--listen", "udp:1:interface=127.0.0.2", "--store", "memory:"),
            *("--save-within", "0.5", "--queue-size", "256", "--max-players", "7"),
            *("--idle-timeout", "2.5", "--live-file", "/games/moves"),
        )
        self.assertEqual(options["listen"], [Listen("udp", 1, "127.0.0.2")])
        self.assertEqual(options["store"].describe(), "memory")
        self.assertEqual(options["save-within"], 0.5)
        self.assertEqual(options["queue-size"], 256)
        self.assertEqual(options["max-players"], 7)
        self.assertEqual(options["idle-timeout"], 2.5)
        self.assertEqual(options["live-file"], "/games/moves")

    def test_live_file_beside_the_database(self) -> None:
        """Without the option the live file lies beside the database, whatever the URL's options."""
        options = self.parse("--store", "sqlite:/games/a.db?synchronous=normal")
        self.assertEqual(options["live-file"], "/games/a.db.live")

    def test_live_file_of_a_store_without_a_file(self) -> None:
        """A store without a file has its live file in the working directory."""
        options = self.parse("--store", "memory:")
        self.assertEqual(options["live-file"], os.path.abspath("playerstate.live"))

    def test_live_file_path(self) -> None:
        """A relative path is made absolute at once: twistd changes its directory later."""
        options = self.parse("-j", "moves.live")
        self.assertEqual(options["live-file"], os.path.abspath("moves.live"))

    def test_live_file_in_the_place_of_the_database(self) -> None:
        """The database and the files beside it are not to become the live file."""
        for name in ("a.db", "a.db-wal", "./a.db.lock", "a.db.refused.jsonl"):
            with self.subTest(name=name):
                line = self.line("--store", "sqlite:a.db", "--live-file", name)
                self.assertIn(f"--live-file {name}: {os.path.abspath(name)} is the store's", line)
                self.assertIn("name another file, or none", line)
        self.parse("--store", "memory:", "--live-file", "a.db")

    def test_no_live_file(self) -> None:
        """``none`` is no file of that name."""
        self.assertIsNone(self.parse("--live-file", "none")["live-file"])

    def test_bad_values(self) -> None:
        """A bad value ends the process with a line naming the option, the value and the allowed."""
        cases = [
            ("listen", "tcp:7777", "udp:PORT:interface=ADDRESS"),
            ("listen", "udp", "from 0 to 65535"),
            ("listen", "udp:70000", "from 0 to 65535"),
            ("listen", "udp:7777:backlog=3", "unknown part 'backlog=3'"),
            ("listen", "udp:7777:interface=example.org", "IP address"),
            ("store", "players.db", "memory:, postgresql:, sqlite:"),
            ("store", "mysql:players", "memory:, postgresql:, sqlite:"),
            ("listen", "udp:7777:interface=::1", r"write udp:7777:interface=\:\:1"),
            ("listen", "netcode:7:interface=[::1]", r"write netcode:7:interface=\:\:1"),
            ("store", "sqlite:", "sqlite:PATH"),
            ("store", "sqlite://a.db", "write sqlite:a.db"),
            ("store", "sqlite:///a/b.db", "or sqlite:/a/b.db"),
            ("store", "sqlite:a.db?synchronous=off", "full or normal"),
            ("save-within", "0", "seconds from 0.1 to 86400"),
            ("save-within", "soon", "seconds from 0.1 to 86400"),
            ("save-within", "nan", "seconds from 0.1 to 86400"),
            ("queue-size", "1000", "power of two"),
            ("queue-size", "many", "power of two"),
            ("max-players", "0", "whole number from 1"),
            ("max-players", "1e3", "whole number from 1"),
            ("idle-timeout", "-1", "seconds from 0.1"),
            ("state", "nonsense", "MODULE:CLASS"),
            ("state", "no_such_module:Avatar", "cannot import no_such_module"),
            ("state", "os:Avatar", "os has no Avatar"),
            ("state", "os:path", "not an attrs class"),
        ]
        for name, value, allowed in cases:
            with self.subTest(name=name, value=value):
                line = self.line(f"--{name}", value)
                self.assertIn(f"--{name} {value}: ", line)
                self.assertIn(allowed, line)

    def test_unknown_option_and_argument(self) -> None:
        """What is no option at all ends the process with one line as well, without the help."""
        self.assertIn("--speed", self.line("--speed", "9"))
        self.assertIn("--help", self.line("extra"))

    def test_other_interface_needs_insecure(self) -> None:
        """The plain transport listens beyond loopback only when told so; the line says why."""
        for interface in ("0.0.0.0", r"\:\:", "192.0.2.1"):
            line = self.line("--listen", f"udp:7777:interface={interface}")
            self.assertIn("--insecure", line)
            self.assertIn("checks no sender", line)
        options = self.parse("--insecure", "--listen", r"udp:7777:interface=\:\:")
        self.assertEqual(options["listen"], [Listen("udp", 7777, "::")])

    def test_ipv6_loopback(self) -> None:
        """The IPv6 loopback needs no leave."""
        options = self.parse("--listen", r"udp:7777:interface=\:\:1")
        self.assertEqual(options["listen"], [Listen("udp", 7777, "::1")])

    def test_state_class_of_the_working_directory(self) -> None:
        """A state class is found beside where the server is started, and the store is its own."""
        directory = self.mktemp()
        os.mkdir(directory)
        with open(os.path.join(directory, "a_game_here.py"), "w") as file:
            file.write(GAME)
        before, path = os.getcwd(), list(sys.path)
        os.chdir(directory)

        def restore() -> None:
            os.chdir(before)
            sys.path[:] = path
            sys.modules.pop("a_game_here", None)

        self.addCleanup(restore)
        options = self.parse("--state", "a_game_here:Avatar")
        self.assertEqual(options["state"].canonical, "hp:int")
        self.assertIs(options["store"].schema, options["state"])
        self.assertIn("Unpackable.inventory", self.line("--state", "a_game_here:Unpackable"))
        self.assertIn("not an attrs class", self.line("--state", "a_game_here:plain"))


class NetcodeOptionsTests(OptionsTestCase):
    """What is asked of a server that listens with netcode."""

    def setUp(self) -> None:
        """A key file."""
        self.key = os.path.abspath(self.mktemp())
        create_key(self.key)
        self.needs = ("--key-file", self.key, "--protocol-id", "0x1122")

    def test_given_values(self) -> None:
        """Ports of both kinds, several addresses, a key, a protocol id, a lifetime."""
        options = self.parse(
            *("--listen", "udp:7777", "-l", "netcode:40000:interface=0.0.0.0"),
            *("--listen", r"netcode:40000:interface=\:\:1", "--public", "203.0.113.7:40000"),
            *("--public", "[2001:db8::1]:40000", "--max-token-lifetime", "60", *self.needs),
        )
        self.assertEqual(
            options["listen"],
            [
                Listen("udp", 7777),
                Listen("netcode", 40000, "0.0.0.0"),
                Listen("netcode", 40000, "::1"),
            ],
        )
        public = list(map(Address.parse, ("203.0.113.7:40000", "[2001:db8::1]:40000")))
        self.assertEqual(options["public"], public)
        self.assertEqual(options["key-file"], read_key(self.key))
        self.assertEqual(options["protocol-id"], 0x1122)
        self.assertEqual(options["max-token-lifetime"], 60.0)

    def test_defaults(self) -> None:
        """Where it listens is what it is called, if that is one address; tokens live 30 s."""
        options = self.parse("--listen", "netcode:40000:interface=192.0.2.1", *self.needs)
        self.assertEqual(options["public"], [])
        self.assertEqual(options["max-token-lifetime"], 30.0)

    def test_missing(self) -> None:
        """A key and a protocol id must be given; the line says what they are and where from."""
        line = self.line("--listen", "netcode:40000", "--protocol-id", "1")
        self.assertIn("--listen netcode:40000:interface=127.0.0.1: ", line)
        self.assertIn("needs --key-file", line)
        self.assertIn("playerstate key PATH", line)
        line = self.line("--listen", "netcode:40000", "--key-file", self.key)
        self.assertIn("needs --protocol-id", line)

    def test_wildcard_needs_public(self) -> None:
        """All interfaces name no address that a token could, and the line says so."""
        for interface in ("0.0.0.0", r"\:\:"):
            listen = f"netcode:40000:interface={interface}"
            line = self.line("--listen", listen, *self.needs)
            self.assertIn(f"--listen {listen}: a token names its servers by address", line)
            self.assertIn("--public ADDRESS:PORT", line)

    def test_for_netcode_alone(self) -> None:
        """What only netcode uses is refused where nothing listens with it."""
        for option, value in (
            ("--public", "203.0.113.7:40000"),
            ("--key-file", self.key),
            ("--protocol-id", "1"),
            ("--max-token-lifetime", "30"),
        ):
            line = self.line(option, value)
            self.assertIn(f"{option} is for netcode, and no --listen uses it", line)

    def test_bad_values(self) -> None:
        """A bad value ends the process with a line naming the option, the value and the allowed."""
        for name, value, allowed in (
            ("public", "example.org:40000", "203.0.113.7:40000"),
            ("public", "203.0.113.7", "203.0.113.7:40000"),
            ("public", "2001:db8::1:40000", "[2001:db8::1]:40000"),
            ("key-file", "nowhere", "playerstate key nowhere"),
            ("protocol-id", "game", "0x1122334455667788"),
            ("protocol-id", "-1", "64 bits"),
            ("protocol-id", "0x10000000000000000", "64 bits"),
            ("max-token-lifetime", "0", "seconds from 1 to 3600"),
            ("listen", "netcode:x", "whole number from 0 to 65535"),
            ("listen", "netcode:1:interface=eth0", "IP address"),
        ):
            with self.subTest(name=name, value=value):
                line = self.line("--listen", "netcode:40000", *self.needs, f"--{name}", value)
                self.assertIn(f"--{name} {value}: ", line)
                self.assertIn(allowed, line)

    def test_key_that_others_can_read(self) -> None:
        """A key file that others can read is refused."""
        os.chmod(self.key, 0o644)
        line = self.line("--listen", "netcode:40000", *self.needs)
        self.assertIn(f"--key-file {self.key}: users other than its owner", line)

    def test_same_place_twice(self) -> None:
        """Two transports cannot listen at one place; on any free port they can."""
        line = self.line("--listen", "netcode:40000", "--listen", "udp:40000", *self.needs)
        self.assertIn("--listen udp:40000:interface=127.0.0.1: an earlier --listen", line)
        self.parse("--listen", "netcode:0", "--listen", "udp:0", *self.needs)

    def test_made(self) -> None:
        """All netcode ports are one service, each plain one is its own; they share a gateway."""
        options = self.parse(
            *("--listen", "netcode:1", "--listen", "udp:2", "--listen", "netcode:3"),
            *("--store", "memory:", "--max-players", "9", *self.needs),
        )
        _, plain, netcode = list(makeService(options))
        self.assertIsInstance(plain, PlainService)
        self.assertIsInstance(netcode, NetcodeService)
        self.assertIs(plain._gateway, netcode._gateway)
        self.assertEqual(netcode._listen, [(1, "127.0.0.1"), (3, "127.0.0.1")])
        self.assertEqual(netcode._settings.slots, 9)
        self.assertEqual(netcode._settings.protocol_id, 0x1122)


class ServiceTests(SynchronousTestCase):
    """What the plugin makes."""

    def test_plugin_is_found(self) -> None:
        """Twisted finds the plugin under its name."""
        makers = {maker.tapname: maker for maker in getPlugins(IServiceMaker)}
        self.assertIs(makers["playerstate"].options, Options)
        self.assertIs(makers["playerstate"].makeService, makeService)

    def test_nothing_is_touched_before_the_start(self) -> None:
        """Making the service opens no file and no port; that waits until twistd has forked."""
        directory = self.mktemp()
        os.mkdir(directory)
        options = Options()
        options.parseOptions(["--store", f"sqlite:{directory}/players.db"])
        service = makeService(options)
        self.assertIsInstance(service, MultiService)
        kinds = [type(child) for child in service]
        self.assertEqual(kinds, [PlayerStateService, PlainService])
        self.assertEqual(os.listdir(directory), [])


class WebOptionsTests(OptionsTestCase):
    """What is asked of a server with a web endpoint."""

    def test_none(self) -> None:
        """Without the option there is no endpoint, and no option for one."""
        options = self.parse("--store", "memory:")
        self.assertIsNone(options["web"])
        self.assertNotIn(WebService, [type(service) for service in makeService(options)])
        for name in ("web-host", "web-token-file", "audit-log"):
            self.assertIn(f"--{name} is for the web endpoint", self.line(f"--{name}", "x"))

    def test_where(self) -> None:
        """A port of loopback, unless an interface is named."""
        self.assertEqual(self.parse("--web", "tcp:7780")["web"], Listen("tcp", 7780, "127.0.0.1"))
        web = self.parse("--web", r"tcp:7780:interface=\:\:1")["web"]
        self.assertEqual(web, Listen("tcp", 7780, "::1"))
        for bad in ("udp:7780", "tcp:", "tcp:70000", "7780", "tcp:1:interface=localhost"):
            self.assertIn(f"--web {bad}: ", self.line("--web", bad))
        self.assertIn("must be tcp:PORT:interface=ADDRESS", self.line("--web", "udp:7780"))

    def test_beyond_loopback(self) -> None:
        """Another interface needs tokens: there, nothing is told without one."""
        line = self.line("--web", "tcp:7780:interface=0.0.0.0")
        self.assertIn("beyond loopback each request needs a token", line)

    def test_stopped_last(self) -> None:
        """The endpoint is the first child, which is stopped last, so that a stop can be watched."""
        made = list(makeService(self.parse("--store", "memory:", "--web", "tcp:0")))
        self.assertEqual(list(map(type, made)), [WebService, PlayerStateService, PlainService])


class ReachTests(OptionsTestCase):
    """Every option reaches what it is for."""

    def setUp(self) -> None:
        """Two keys."""
        self.keys = [os.path.abspath(self.mktemp()) for _ in range(2)]
        for key in self.keys:
            create_key(key)
        self.netcode = {"listen": "netcode:1", "key-file": self.keys[0], "protocol-id": "1"}
        self.tokens = os.path.abspath(self.mktemp())
        with open(os.open(self.tokens, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(f"ops write {'w' * 20}\n")

    def made(self, given: dict[str, str | None]) -> list[Any]:
        """The services made of options; a flag has None."""
        typed = [
            f"--{name}" if value is None else f"--{name}={value}" for name, value in given.items()
        ]
        return list(makeService(self.parse(*typed)))

    def test_each(self) -> None:
        """What is given is what the service that it is for goes by, and is not the default."""
        plain: dict[str, str | None] = {"store": "memory:"}
        wide = {"listen": "udp:5:interface=0.0.0.0", "insecure": None}
        cases: dict[str, tuple[dict[str, str | None], Any, Callable[[list[Any]], Any]]] = {
            "store": ({"store": "memory:"}, "memory", lambda made: made[0].store.describe()),
            "state": (
                {"state": "tests.kit.support:Everything"},
                Everything,
                lambda made: made[0].schema.state_class,
            ),
            "live-file": (
                {"live-file": "moves"},
                os.path.abspath("moves"),
                lambda made: made[0]._memory.path,
            ),
            "save-within": ({"save-within": "7.5"}, 7.5, lambda made: made[0].options.save_within),
            "queue-size": ({"queue-size": "64"}, 64, lambda made: made[0].options.queue_size),
            "max-players": ({"max-players": "77"}, 77, lambda made: made[0].options.max_players),
            "idle-timeout": (
                {"idle-timeout": "2.5"},
                2.5,
                lambda made: made[1]._gateway.idle_timeout,
            ),
            "listen": ({"listen": "udp:5"}, (5, "127.0.0.1"), _place),
            "insecure": (wide, (5, "0.0.0.0"), _place),
            "key-file": (
                {**self.netcode, "key-file": self.keys[1]},
                read_key(self.keys[1]),
                lambda made: _settings(made).private_key,
            ),
            "protocol-id": (
                {**self.netcode, "protocol-id": "0x22"},
                0x22,
                lambda made: _settings(made).protocol_id,
            ),
            "max-token-lifetime": (
                {**self.netcode, "max-token-lifetime": "60"},
                60.0,
                lambda made: _settings(made).max_token_lifetime,
            ),
            "public": (
                {**self.netcode, "public": "203.0.113.7:9"},
                {Address.parse("203.0.113.7:9")},
                lambda made: _settings(made).addresses,
            ),
        }
        web = {"web": "tcp:6"}
        cases |= {
            "web": (web, (6, "127.0.0.1"), lambda made: (made[0]._number, made[0]._interface)),
            "web-host": (
                {**web, "web-host": "Game.Example."},
                ["game.example"],
                lambda made: made[0]._resource._access.hosts,
            ),
            "web-token-file": (
                {**web, "web-token-file": self.tokens},
                read_tokens(self.tokens),
                lambda made: made[0]._resource._access.tokens,
            ),
            "audit-log": (
                {**web, "audit-log": "changes"},
                os.path.abspath("changes"),
                lambda made: getattr(made[0]._resource._audit, "_path", None),
            ),
        }
        self.assertEqual(set(cases), set(option_names()))
        for name, (given, expected, found) in cases.items():
            with self.subTest(option=name):
                before = self.netcode if given.keys() & {"key-file"} else {}
                before = {"web": "tcp:5"} if given.keys() & {"web"} else before
                self.assertEqual(found(self.made(given)), expected)
                if name != "insecure":
                    self.assertNotEqual(found(self.made(dict(before))), expected)
        self.assertEqual(len(self.made(plain)), 2)

    def test_bad_values(self) -> None:
        """Every option that takes a value refuses such that nobody means, and makes no file."""
        long, deep = "x" * 240, "/".join(["y" * 200] * 25)
        files = ("dir", "/dev/null", "/dev/full", long, deep, "a\udcff", "")
        numbers = ("nan", "inf", "-1", "1e400", "9" * 30)
        # What is a file's name, or is found to be no live file when the server starts.
        names = {
            "live-file": {*numbers, "dir", "/dev/null", "/dev/full"},
            "audit-log": {*numbers, "dir", "/dev/null", "/dev/full"},
            "web-host": {*numbers, "dir"},
        }
        os.makedirs("dir", exist_ok=True)
        before = os.listdir()
        for name in option_names():
            if name == "insecure":
                continue
            for value in (*files, *numbers):
                if value in names.get(name, ()):
                    continue
                with self.subTest(option=name, value=value):
                    typed = {**self.netcode, "web": "tcp:1", name: value}
                    line = self.line(*(f"--{each}={text}" for each, text in typed.items()))
                    self.assertTrue(line.isprintable())
                    self.assertIn(f"--{name}", line)
                    self.assertIn(one_line(value), line)
        self.assertEqual(os.listdir(), before)
        self.assertEqual(os.stat("/dev/null").st_mode & 0o777, 0o666)

    def test_names_of_files(self) -> None:
        """Where a database cannot be called so, the line speaks of it and not of its live file."""
        for name, why in (("x" * 240, "too long"), ("a\udcff", "not UTF-8"), ("a\0b", "no file")):
            line = self.line(f"--store=sqlite:{name}")
            self.assertIn("--store sqlite:", line)
            self.assertIn(why, line)


def option_names() -> list[str]:
    """The long names of all options but Twisted's own."""
    shorthand = {"version", "help", "help-reactors", "reactor"}
    return [
        name for name in (each.rstrip("=") for each in Options().longOpt) if name not in shorthand
    ]


def _place(made: list[Any]) -> tuple[int, str]:
    return made[1]._number, made[1]._interface


def _settings(made: list[Any]) -> Any:
    return made[-1]._settings
