"""Options of a command, by its command line, the environment and a TOML file.

The command line is above the environment, and the environment above the file.  An option is taken
as a whole from the highest that gives it, so that a list replaces the list below.  All have the
names that a subclass of `LayeredOptions` declares in Twisted's way: ``save-within`` is
``--save-within``, ``PLAYERSTATE_SAVE_WITHIN``, and ``save-within = 5`` in the file.
"""

from __future__ import annotations

import getopt
import os
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from enum import Enum
from typing import Any, ClassVar

import attrs
from twisted.python import reflect, usage

PREFIX = "PLAYERSTATE_"
"""With this begins the name of each variable that is an option."""

MOST_BYTES = 2**20
"""The most bytes of a file of options: what is larger is none, such as a device without an end."""

COMMAND_LINE, DEFAULT = "command line", "default"

_APART = {"help", "version"}
"""Options that ask for something else than a run."""

_KUBERNETES = re.compile(
    rf"{PREFIX}(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_[A-Z]+(_PROTO|_PORT|_ADDR)?)?)"
)
"""The variables that Kubernetes sets in every pod, of a service that is called playerstate."""

_ON, _OFF = ("true", "1", "yes", "on"), ("false", "0", "no", "off")


class _Takes(Enum):
    """What an option takes; the value says it in errors."""

    NOTHING = "true or false"
    ONE = "one text or number"
    MANY = "a text, or an array of texts"


@attrs.frozen
class Given:
    """An option as one layer gives it.

    Attributes:
        texts: as on a command line; of an option that takes no value, one empty text, or none where
            it is switched off.
        source: where it is from: ``command line``, a variable's name, or a file's.
    """

    texts: tuple[str, ...]
    source: str


@attrs.frozen
class Setting:
    """An option that is in force.

    Attributes:
        name: without the dashes.
        value: a text; a bool, if the option takes no value; a list, if it may be repeated; None
            where it is not set.
        source: as `Given.source`, or ``default``.
    """

    name: str
    value: str | bool | list[str] | None
    source: str


class LayeredOptions(usage.Options):
    """Options that the environment and a file may give as well.

    Attributes:
        given: the options that were given, by name, each by the highest layer that gives it.
    """

    optParameters: ClassVar[list[list[Any]]] = [
        ["config", None, None, "TOML file of options; the command line is above it."],
    ]

    environ: Mapping[str, str] = os.environ
    given: Mapping[str, Given] = {}

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse the command line, over the environment, over the file.

        Raises:
            usage.UsageError: as of Twisted's; likewise a file that cannot be read, a key or a
                variable that is no option, or that has a value of the wrong type.
        """
        arguments = list(sys.argv[1:] if options is None else options)
        self._takes = dict(self._find_takes())
        on_command_line = self._on_command_line(arguments)
        below: list[str] = []
        if not _APART & set(on_command_line):
            self.given = self._layers(on_command_line)
            below = [
                f"--{name}={text}" if text else f"--{name}"
                for name, given in self.given.items()
                if given.source != COMMAND_LINE
                for text in given.texts
            ]
        super().parseOptions([*below, *arguments])

    def said(self, name: str, text: object = "") -> str:
        """An option, with its value if there is one, as the user wrote it; for an error."""
        given = self.given.get(name)
        if given is None or given.source == COMMAND_LINE:
            return f"--{name} {text}".rstrip()
        if given.source.startswith(PREFIX):
            return f"{given.source}={text}".rstrip("=")
        return f"{given.source}: {name} {text}".rstrip()

    def in_force(self) -> list[Setting]:
        """Every option that is in force once all are parsed, in the order of their names."""
        return [self._setting(name) for name in sorted(self._takes) if name != "config"]

    def _setting(self, name: str) -> Setting:
        given = self.given.get(name)
        takes = self._takes[name]
        if takes is _Takes.NOTHING:
            return Setting(name, bool(self[name]), given.source if given else DEFAULT)
        if given is not None:
            many = takes is _Takes.MANY
            return Setting(name, list(given.texts) if many else given.texts[-1], given.source)
        value = self[name] if self.defaults.get(name) is None else self.defaults[name]
        if takes is _Takes.MANY:
            return Setting(name, [str(each) for each in value], DEFAULT)
        return Setting(name, None if value is None else str(value), DEFAULT)

    def _find_takes(self) -> Iterator[tuple[str, _Takes]]:
        parameters: list[list[Any]] = []
        reflect.accumulateClassList(type(self), "optParameters", parameters)
        single = {parameter[0] for parameter in parameters}
        for written in self.longOpt:
            name = written.rstrip("=")
            if name in _APART or self.synonyms[name] != name:
                continue
            if name == written:
                yield name, _Takes.NOTHING
            else:
                yield name, _Takes.ONE if name in single else _Takes.MANY

    def _on_command_line(self, arguments: Sequence[str]) -> dict[str, Given]:
        try:
            pairs, _ = getopt.getopt(arguments, self.shortOpt, self.longOpt)
        except getopt.error as error:
            raise usage.UsageError(str(error)) from error
        found: dict[str, list[str]] = {}
        for option, text in pairs:
            found.setdefault(self.synonyms[option.lstrip("-")], []).append(text)
        return {name: Given(tuple(texts), COMMAND_LINE) for name, texts in found.items()}

    def _layers(self, on_command_line: dict[str, Given]) -> dict[str, Given]:
        above = {**self._in_environment(), **on_command_line}
        if "config" not in above:
            return above
        return {**self._in_file(above["config"].texts[-1]), **above}

    def _in_environment(self) -> dict[str, Given]:
        names = {PREFIX + name.upper().replace("-", "_"): name for name in self._takes}
        found = {}
        for variable, text in sorted(self.environ.items()):
            if not variable.startswith(PREFIX) or _KUBERNETES.fullmatch(variable) or not text:
                continue
            if variable not in names:
                raise usage.UsageError(
                    f"{variable}: there is no such option; the nearest is"
                    f" {_nearest(variable, names)}"
                )
            name = names[variable]
            takes = self._takes[name]
            texts: tuple[str, ...] = (text,)
            if takes is _Takes.MANY:
                texts = tuple(text.split())
            elif takes is _Takes.NOTHING:
                if text.lower() not in _ON + _OFF:
                    raise usage.UsageError(f"{variable}={text}: must be {takes.value}")
                texts = ("",) if text.lower() in _ON else ()
            found[name] = Given(texts, variable)
        return found

    def _in_file(self, path: str) -> dict[str, Given]:
        found = {}
        for name, value in _table(path).items():
            takes = self._takes.get(name)
            if takes is None or name == "config":
                keys = [key for key in self._takes if key != "config"]
                near = _nearest(name.replace("_", "-"), keys)
                raise usage.UsageError(
                    f"{path}: {name}: there is no such option; the nearest is {near}"
                )
            texts = _texts(takes, value)
            if texts is None:
                raise usage.UsageError(f"{path}: {name}: must be {takes.value}")
            if texts or takes is _Takes.NOTHING:
                found[name] = Given(texts, path)
        return found


def _table(path: str) -> dict[str, Any]:
    """The keys of a file and their values."""
    try:
        with open(path, "rb") as file:
            content = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise usage.UsageError(f"--config {path}: cannot be read: {why}") from error
    if len(content) > MOST_BYTES:
        raise usage.UsageError(f"--config {path}: is larger than {MOST_BYTES >> 10} KiB")
    try:
        return tomllib.loads(content.decode())
    except ValueError as error:  # of TOML, or of its characters
        raise usage.UsageError(f"--config {path}: is not TOML: {error}") from error


def _texts(takes: _Takes, value: object) -> tuple[str, ...] | None:
    """A value of TOML as the texts of a command line; None for one of the wrong type."""
    if takes is _Takes.NOTHING:
        if not isinstance(value, bool):
            return None
        return ("",) if value else ()
    values = value if takes is _Takes.MANY and isinstance(value, list) else [value]
    if not all(isinstance(each, str | int | float) for each in values):
        return None
    if any(isinstance(each, bool) for each in values):
        return None
    return tuple(map(str, values))


def _nearest(name: str, names: Sequence[str] | Mapping[str, str]) -> str:
    return get_close_matches(name, list(names), 1, cutoff=0.0)[0]
