"""Where a database is: a URL as libpq has it, and how it is connected to.

URL: ``postgresql://[USER@][HOST[:PORT][,…]]/[DATABASE][?NAME=VALUE&…]``, with the parameters of
libpq.  What the URL does not say, libpq takes from a service (``?service=NAME``) and the
environment, and the password from ``PGPASSFILE`` or a service alone: a URL stands in the list of
processes and in logs, so one with a password is refused.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Iterator, Mapping
from urllib.parse import quote, urlencode

import attrs
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from playerstate.interfaces import StoreUnusable
from playerstate.stores.postgresql.session import Session

CONNECT_SECONDS = 5
"""The longest wait for one host to let us in."""

DEFAULTS: Mapping[str, str] = {
    "target_session_attrs": "read-write",  # of several hosts, the one that takes writes
    "connect_timeout": str(CONNECT_SECONDS),
    # A host that is cut off is noticed within some 10 s, by a COMMIT too, which has no other limit.
    "keepalives_idle": "4",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}
"""Parameters of ours, unless the URL gives others."""

_SECRETS = ("password", "sslpassword")
_PLACED = ("user", "host", "port", "dbname")
_REMEDY = (
    "check that it runs, that it lets this user in (pg_hba.conf), and that the password, if there"
    " is one, is in the file that PGPASSFILE names"
)


@attrs.frozen
class Place:
    """Where a database is.

    Attributes:
        parameters: of libpq, by name, as the URL has them; none is a secret.
    """

    parameters: Mapping[str, str]

    def __str__(self) -> str:
        """The URL again, in a form of its own."""
        given = dict(self.parameters)
        user, host, port, name = (given.pop(each, "") for each in _PLACED)
        at = f"{quote(user, safe='')}@" if user else ""
        if "/" in host:  # the directory of a socket
            given |= {"host": host} | ({"port": port} if port else {})
            hosts = ""
        else:
            names, ports = host.split(","), port.split(",")
            ports = ports * len(names) if len(ports) == 1 else ports
            hosts = ",".join(
                (f"[{each}]" if ":" in each else each) + (f":{number}" if number else "")
                for each, number in zip(names, ports, strict=False)
            )
        more = f"?{urlencode(given, safe='/,', quote_via=quote)}" if given else ""
        return f"postgresql://{at}{hosts}/{quote(name, safe='')}{more}"

    def connect(self, **others: str) -> Session:
        """Connect.  Blocks, for `CONNECT_SECONDS` a host unless the URL says otherwise.

        Args:
            others: parameters in place of the defaults.

        Raises:
            psycopg.OperationalError: no host let us in.
        """
        name = f"playerstate {os.getpid()}@{socket.gethostname()}"
        own = {"application_name": name[:63], **DEFAULTS, **others, **self.parameters}
        conninfo = make_conninfo("", **own, client_encoding="UTF8")
        return Session.connect(conninfo, autocommit=True)

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Translate errors of PostgreSQL into `StoreUnusable`, whose one line says what to do."""
        try:
            yield
        except psycopg.Error as error:
            raise StoreUnusable(self.explain(error)) from None

    def explain(self, error: psycopg.Error) -> str:
        """What an error means for an operator, on one line."""
        what = one_line(error)
        if error.diag.sqlstate is None and isinstance(error, psycopg.OperationalError):
            return f"{self} cannot be reached: {what}; {_REMEDY}"
        if isinstance(error, psycopg.errors.InsufficientPrivilege):
            return f"{self}: {what}; give this user the right to it"
        return f"{self} cannot be used: {what}"


def one_line(error: psycopg.Error) -> str:
    """The message of an error, which may have several lines."""
    return "; ".join(line.strip() for line in str(error).splitlines() if line.strip())


def parse_url(url: str) -> Place:
    """The place that a URL names.

    Raises:
        StoreUnusable: libpq does not understand it, or it has a password.  The message never has
            the URL, since a password may be anywhere in it.
    """
    if not url.startswith("postgresql://"):
        raise StoreUnusable(
            "a URL of a PostgreSQL database begins with postgresql:// and goes on as"
            " postgresql://USER@HOST/DATABASE"
        )
    if re.match(r"postgresql://[^/?@]*:[^/?]*@", url):
        raise _has_password()
    try:
        found = conninfo_to_dict(url)
    except psycopg.Error:
        raise StoreUnusable(
            "libpq does not understand this URL of a PostgreSQL database; it is"
            " postgresql://USER@HOST:PORT/DATABASE?NAME=VALUE, with parameters of libpq, and what"
            " is not a letter or digit written as %XX"
        ) from None
    given = {name: str(value) for name, value in found.items() if value not in (None, "")}
    if any(secret in given for secret in _SECRETS):
        raise _has_password()
    return Place(given)


def _has_password() -> StoreUnusable:
    return StoreUnusable(
        "the URL of the PostgreSQL database has a password in it, which the list of processes and"
        " the log would show; put it into the file that PGPASSFILE names (~/.pgpass), or into a"
        " service, and leave it out of the URL"
    )
