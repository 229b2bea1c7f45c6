"""``twistd playerstate``: its options, and the composition of its services."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

from twisted.application.service import IService
from twisted.python import usage

from playerstate.conversations.gateway import Gateway
from playerstate.filenames import check_name
from playerstate.interfaces import StoreUnusable, file_store
from playerstate.listening import WEB_SCHEMES, Listen, parse_protocol_id
from playerstate.live.names import check_apart
from playerstate.players.service import PlayerStateService
from playerstate.server import Server, end
from playerstate.state.default import DEFAULT_STATE, load_schema
from playerstate.state.schema import SchemaError
from playerstate.stores import open_store, without_password
from playerstate.tokens import EXPIRES, KeyUnusable, read_key
from playerstate.transports.netcode.addresses import Address
from playerstate.transports.netcode.service import NetcodeService
from playerstate.transports.netcode.settings import NetcodeSettings
from playerstate.transports.plain import PlainService
from playerstate.web.access import Access, TokensUnusable, parse_host, read_tokens
from playerstate.web.audit import AuditFile, LoggedAudit
from playerstate.web.metrics import Source
from playerstate.web.resource import WebResource
from playerstate.web.service import WebService


def _seconds(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise ValueError(f"must be a number of seconds from {low:g} to {high:g}")
        return value

    return parse


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(text)

    return parse


def _power_of_two(text: str) -> int:
    try:
        value = _whole(2, 2**24)(text)
    except ValueError:
        value = 0
    if not value or value & (value - 1):
        raise ValueError("must be a power of two from 2 to 16777216")
    return value


def _file_path(text: str) -> str:
    check_name(text)
    return os.path.abspath(text)


_NETCODE_NEEDS = {
    "key-file": "a key shared with the login service; `playerstate key PATH` creates one",
    "protocol-id": "the game's number, the same for its clients and its login service",
}


class Options(usage.Options):
    """The options of ``twistd playerstate``; a bad value ends it with one line."""

    synopsis = "[options]"
    longdesc = (
        "Receives players' moves over UDP, keeps each player's newest state, and saves it in"
        " batches from a thread of its own. Returning players continue where they left."
    )

    optParameters = [
        [
            "store",
            "s",
            "sqlite:players.db",
            "Where to save: sqlite:PATH[?synchronous=normal], postgresql://USER@HOST/DATABASE, or"
            " memory:, which is lost at a stop.",
        ],
        ["state", None, DEFAULT_STATE, "The state class, as MODULE:CLASS."],
        [
            *("live-file", "j", None),
            "File in which moves outlive the process, or none [default: beside the"
            " database, ending in .live; playerstate.live for stores without a file].",
        ],
        ["save-within", None, "5", "Seconds within which a move is to be saved."],
        ["queue-size", None, "8192", "Rows that may wait for the persist thread, a power of two."],
        ["max-players", None, "10000", "The most players at a time."],
        ["idle-timeout", None, "30", "Seconds of silence after which a player has left."],
        ["key-file", None, None, "netcode: file of the key shared with the login service."],
        ["protocol-id", None, None, "netcode: the game's number, up to 64 bits, such as 0x1122."],
        [
            *("web", None, None),
            "Where to answer HTTP, as tcp:PORT or tcp:PORT:interface=ADDRESS [default: nowhere].",
        ],
        [
            "web-token-file",
            None,
            None,
            "web: file of the tokens, one a line: NAME read|write TOKEN.",
        ],
        ["audit-log", None, None, "web: file to which each change adds a line of JSON."],
        [
            *("max-token-lifetime", None, None),
            "netcode: the longest lifetime of the login service's tokens, in seconds"
            f" [default: {EXPIRES}].",
        ],
    ]

    optFlags = [
        ["insecure", None, "Let the plain transport listen beyond this machine."],
    ]

    _parsers: dict[str, Callable[[str], Any]] = {
        "state": load_schema,
        "save-within": _seconds(0.1, 86_400),
        "queue-size": _power_of_two,
        "max-players": _whole(1, 2**24),
        "idle-timeout": _seconds(0.1, 86_400),
    }

    _netcode_parsers: dict[str, Callable[[str], Any]] = {
        "key-file": read_key,
        "protocol-id": parse_protocol_id,
        "max-token-lifetime": _seconds(1, 3600),
    }

    def __init__(self) -> None:
        super().__init__()
        self["listen"] = []
        self["web-host"] = []
        self["public"] = []

    def opt_listen(self, text: str) -> None:
        """udp:PORT or netcode:PORT, or with :interface=ADDRESS; repeatable [default: udp:7777]."""
        self["listen"].append(self._parse("listen", text, Listen.parse))

    opt_l = opt_listen

    def opt_public(self, text: str) -> None:
        """netcode: ADDRESS:PORT by which tokens name this server; repeatable."""
        self["public"].append(self._parse("public", text, Address.parse))

    def opt_web_host(self, text: str) -> None:
        """web: NAME by which the endpoint may be called, besides its address; repeatable."""
        self["web-host"].append(self._parse("web-host", text, parse_host))

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse; on an error, end with one line, where Twisted would print its whole help."""
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            end(f"{str(error).rstrip('.')}; --help lists the options")

    def postOptions(self) -> None:
        """Convert the texts to values, and check how they fit together."""
        for name, parse in self._parsers.items():
            self._convert(name, parse)
        self._convert("store", lambda url: open_store(url, self["state"]))
        if self["live-file"] is None:
            files = file_store(self["store"])
            self["live-file"] = "playerstate.live" if files is None else files.live_path
        self._convert("live-file", self._live_file_path)
        self["listen"] = self["listen"] or [Listen("udp", 7777)]
        self._check_listen()
        self._check_web()
        self._check_netcode([listen for listen in self["listen"] if listen.scheme == "netcode"])

    def _live_file_path(self, text: str) -> str | None:
        if text == "none":
            return None
        path = os.path.abspath(text) if text else ""
        files = file_store(self["store"])
        check_apart(path, () if files is None else files.files)
        return path

    def _check_listen(self) -> None:
        places = set()
        for listen in self["listen"]:
            place = listen.port, listen.interface
            if listen.port and place in places:
                end(f"--listen {listen}: an earlier --listen has this place; name another port")
            places.add(place)
            if listen.scheme == "udp" and not (listen.is_loopback or self["insecure"]):
                end(
                    f"--listen interface={listen.interface}: the plain transport checks no sender"
                    " and encrypts nothing, so it listens on loopback only; listen with netcode, or"
                    " allow this interface by --insecure, on a network you trust"
                )

    def _check_web(self) -> None:
        if self["web"] is None:
            for name in ("web-host", "web-token-file", "audit-log"):
                if self[name]:
                    end(f"--{name} is for the web endpoint, and there is none; add --web tcp:PORT")
            return
        self._convert("web", lambda text: Listen.parse(text, WEB_SCHEMES))
        if self["audit-log"] is not None:
            self._convert("audit-log", _file_path)
        if self["web-token-file"] is not None:
            self._convert("web-token-file", read_tokens)
        elif not self["web"].is_loopback:
            end(
                f"--web {self['web']}: beyond loopback each request needs a token; name a file of"
                " them by --web-token-file"
            )

    def _check_netcode(self, listens: Sequence[Listen]) -> None:
        if not listens:
            for name in ("public", *self._netcode_parsers):
                if self[name]:
                    end(
                        f"--{name} is for netcode, and no --listen uses it; add --listen"
                        " netcode:PORT"
                    )
            return
        for name, why in _NETCODE_NEEDS.items():
            if self[name] is None:
                end(f"--listen {listens[0]}: netcode needs --{name}, {why}")
        if self["max-token-lifetime"] is None:
            self["max-token-lifetime"] = str(EXPIRES)
        for name, parse in self._netcode_parsers.items():
            self._convert(name, parse)
        for listen in listens:
            if listen.is_wildcard and not self["public"]:
                end(
                    f"--listen {listen}: a token names its servers by address, and"
                    f" {listen.interface} names none; give the address by which clients reach this"
                    " server with --public ADDRESS:PORT"
                )

    def _convert(self, name: str, parse: Callable[[str], Any]) -> None:
        self[name] = self._parse(name, self[name], parse)

    def _parse(self, name: str, text: str, parse: Callable[[str], Any]) -> Any:
        try:
            return parse(text)
        except (ValueError, SchemaError, StoreUnusable, KeyUnusable, TokensUnusable) as error:
            end(f"--{name} {without_password(text)}: {error}")


def makeService(options: Options) -> IService:
    """The whole server; it opens nothing before it is started."""
    service = PlayerStateService(
        options["store"],
        save_within=options["save-within"],
        queue_size=options["queue-size"],
        max_players=options["max-players"],
        live_file=options["live-file"],
    )
    listens = [("--listen", listen) for listen in options["listen"]]
    web = options["web"]
    if web is not None:
        listens.append(("--web", web))
    root = Server(service, listens, options.parent or {})
    gateway = Gateway(service, idle_timeout=options["idle-timeout"])
    sources: list[Source] = []
    if web is not None:
        # The first child is the last to be stopped: a stop can be watched.
        _web_service(options, service, gateway, sources).setServiceParent(root)
    service.setServiceParent(root)
    places: dict[str, list[tuple[int, str]]] = {"udp": [], "netcode": []}
    for listen in options["listen"]:
        places[listen.scheme].append((listen.port, listen.interface))
    for port, interface in places["udp"]:
        PlainService(gateway, port, interface).setServiceParent(root)
    if places["netcode"]:
        settings = NetcodeSettings(
            options["key-file"],
            options["protocol-id"],
            frozenset(options["public"]),
            slots=options["max-players"],
            max_token_lifetime=options["max-token-lifetime"],
        )
        netcode = NetcodeService(gateway, settings, places["netcode"])
        netcode.setServiceParent(root)
        sources.append(lambda: netcode.tally)
    return root


def _web_service(
    options: Options, service: PlayerStateService, gateway: Gateway, sources: Sequence[Source]
) -> WebService:
    """The web endpoint, with figures of these sources, to which others may be added."""
    listen, path = options["web"], options["audit-log"]
    resource = WebResource(
        service,
        gateway,
        sources=sources,
        access=Access(listen.interface, options["web-token-file"] or (), options["web-host"]),
        audit=AuditFile(path) if path else LoggedAudit(),
    )
    return WebService(service, resource, listen.port, listen.interface)
