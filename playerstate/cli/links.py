"""The links of many players to one server: on one shared port, or on a connection each."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from playerstate.cli.parameters import Address, Login
from playerstate.client import Client, Link, Netcode, PlainLink, PlainPort
from playerstate.state.schema import StateSchema

TOKEN_TIMEOUT = 2
"""Seconds of silence after which a connection ends and a request is given up: a server that has
just started refuses tokens that may be older than itself, so another token is needed."""
FILES_BESIDE = 100
"""Open files besides the players' sockets, with some to spare."""


def plain_links(
    server: Address,
    session_ids: Iterable[int],
    schema: StateSchema,
    reactor: Any,
    seconds: Callable[[], float],
) -> dict[int, Link]:
    """Links that share one port, by session id."""
    port = PlainPort((server.ip, server.port), reactor, seconds)
    return {i: PlainLink(Client.of(schema), port, i) for i in session_ids}


def netcode_links(
    server: Address,
    login: Login,
    session_ids: Iterable[int],
    schema: StateSchema,
    reactor: Any,
    seconds: Callable[[], float],
) -> dict[int, Link]:
    """Links with a connection and a socket each, by session id."""
    from playerstate.tokens import connect_token
    from playerstate.transports.netcode.addresses import Address as PublicAddress

    make_token = partial(
        connect_token,
        key=login.key,
        protocol_id=login.protocol_id,
        addresses=[str(PublicAddress.of(server.ip, server.port))],
        timeout=TOKEN_TIMEOUT,
    )
    links: dict[int, Link] = {
        i: Netcode(partial(make_token, i)).link(Client.of(schema), reactor, seconds)
        for i in session_ids
    }
    _allow_files(len(links) + FILES_BESIDE)
    return links


def _allow_files(count: int) -> None:
    """Raise the limit of open files to so many, or as far as allowed."""
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if most == resource.RLIM_INFINITY else min(count, most)
    if allowed != resource.RLIM_INFINITY and allowed < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
