"""Entries for command lines with a scope of their own: ``[[tools.Bash.commands]]``.

An entry lists the options and arguments with which a program does one thing. If each
command of a line matches an entry whole, the line has the scopes of these entries;
otherwise it has the scope of the tool. The hook has parsed the line and resolved its
paths (`HookRequest.commands`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from agentvault_tui.errors import ServiceError
from agentvault_tui.gateway.config_folder import check_scope
from agentvault_tui.model import Risk
from agentvault_tui.operator_api.access import (
    IN_PROJECT,
    HookCommand,
    HookPlace,
    HookWord,
)
from agentvault_tui.policy.catalogue import Catalogue
from agentvault_tui.text import visible

_PROGRAM: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_OPTION: Final = re.compile(r"-#|--|-[A-Za-z0-9-][^\s*]*(?: ?\*)?")
_VALUE_IN_BUNDLE: Final = re.compile(r"[0-9][0-9,.]*|[,:;]")
"""Values that may follow their option in the same word. Programs with a parser of
their own (`tree`) read letters there as further options."""
_LONG_OF_ONE_DASH: Final = re.compile(r"-[A-Za-z0-9][A-Za-z0-9-]+")
_GLOB: Final = re.compile(r"[*?\[\]{}()!]")
_PATHSPEC: Final = re.compile(r"[*?\[\]\\:]")
_KINDS: Final = frozenset({"path", "file", "any"})
_RUNNING: Final = frozenset(
    {
        *("builtin", "cd", "command", "coproc", "env", "eval", "exec", "nice", "nohup"),
        *("noglob", "source", "sudo", "time", "timeout", "xargs"),
    }
)
"""Programs that run another program: no entry can bound the effect of their
arguments."""


class CommandTable(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """``[[tools.NAME.commands]]``, as a file has it."""

    program: str | list[str]
    scope: str
    subcommand: str = ""
    options: list[str] = []
    arguments: str | list[str] = "none"
    bundles: bool = False
    resource: str = ""
    recursive: bool | list[str] | Literal["repository"] = True


@dataclass(frozen=True, slots=True)
class CommandEntry:
    """A program, with the options and arguments that need one scope."""

    programs: frozenset[str]
    subcommand: tuple[str, ...]
    flags: frozenset[str]
    valued: frozenset[str]
    """Options whose value is the next word; see `_VALUE_IN_BUNDLE` and ``=``."""
    attached: tuple[str, ...]
    """Beginnings of options whose value is always the rest of the same word."""
    bundles: bool
    """Whether the program parses a word of several short options as getopt(3) does."""
    kinds: tuple[str, ...]
    """The kinds of the first arguments; see `_KINDS`."""
    rest: str
    """The kind of all other arguments; empty if there may be no others."""
    scope: str
    resource: str
    """A template: ``{path}`` is each path in turn."""
    risky: bool
    """Whether its scope has high risk: then the program may be one of the project's."""
    recursive: bool | frozenset[str]
    """Whether it reads everything below a folder, or the options with which it does."""
    of_repository: bool
    """Whether it reads the whole repository, unless all its words are plain paths."""

    def resources(self, command: HookCommand) -> tuple[str, ...] | None:
        """Return the resources of *command*; None if the entry does not match it."""
        words, start = command.words, 1 + len(self.subcommand)
        if words[0] not in self.programs or words[1:start] != self.subcommand:
            return None
        if command.configured or (command.local and not self.risky):
            return None
        arguments = self._arguments(words, start)
        paths = self._paths(command, arguments)
        if paths is None or arguments is None:
            return None
        if "{path}" not in self.resource:
            return (self.resource,)
        # Without a path such a program reads its input, or the folder it runs in.
        # In git's history, any path may be a folder.
        folders = [
            (one.resolved, one.folder or self.of_repository) for one in paths
        ] or [(command.cwd, True)]
        if self.of_repository and not _are_plain_paths(words, arguments):
            folders.append((command.repository or "/", True))
        deep = self._reads_below(words)
        named = (
            _with_all_below(path) if deep and is_folder else path
            for path, is_folder in folders
        )
        return tuple(self.resource.replace("{path}", path) for path in named)

    def _reads_below(self, words: Sequence[str]) -> bool:
        """Check whether the command reads everything below a folder that it names."""
        if isinstance(self.recursive, bool):
            return self.recursive
        letters = {one[1] for one in self.recursive if len(one) == 2}
        return any(
            word in self.recursive
            or (word[:1] == "-" and word[:2] != "--" and letters & {*word})
            for word in words
        )

    def _paths(
        self, command: HookCommand, arguments: list[int] | None
    ) -> list[HookWord] | None:
        """Return the paths among the arguments; None if one is not allowed."""
        if arguments is None:
            return None
        kinds = self.kinds + (self.rest,) * (len(arguments) - len(self.kinds))
        places = {one.word: one for one in command.places}
        paths: list[HookWord] = []
        for number, kind in zip(arguments, kinds, strict=False):
            if kind == "any":
                continue
            place = places.get(number)
            if not kind or place is None or place.where != IN_PROJECT:
                return None
            if kind == "file" and place.folder:
                return None
            paths.append(place)
        return paths

    def _arguments(self, words: Sequence[str], at: int) -> list[int] | None:
        """Return the indexes of words that are no options; None if one is unknown."""
        arguments, options_ended = list[int](), False
        while at < len(words):
            word = words[at]
            if not word.startswith("-"):
                arguments.append(at)
                at += 1
            elif options_ended:
                return None  # a file name that other programs take for an option
            elif word == "--" and "--" in self.flags:
                options_ended, at = True, at + 1
            elif taken := self._option(words, at):
                at += taken
            else:
                return None
        return arguments

    def _option(self, words: Sequence[str], at: int) -> int:
        """Return how many words the option at *at* takes; 0 if it is not listed."""
        word = words[at]
        value = at + 1 < len(words) and not words[at + 1].startswith("-")
        if word in self.flags and word != "--":
            return 1
        if word in self.valued:
            return 2 if value else 0
        if any(word.startswith(one) and word != one for one in self.attached):
            return 1
        if word.startswith("--"):
            name, mark, _ = word.partition("=")
            return 1 if mark and name in self.valued else 0
        if "-#" in self.flags and word[1:].isascii() and word[1:].isdigit():
            return 1
        if not self.bundles:
            return 0  # how such a program reads the letters is its own affair
        return self._bundle(word, value=value)

    def _bundle(self, word: str, *, value: bool) -> int:
        """Return how many words a bundle of short options takes; 0 if one is unknown.

        Args:
            word: the bundle.
            value: whether the next word may be the value of its last option.
        """
        for number, letter in enumerate(word[1:], 2):
            if f"-{letter}" in self.flags:
                continue
            if f"-{letter}" not in self.valued:
                return 0
            if rest := word[number:]:
                return 1 if _VALUE_IN_BUNDLE.fullmatch(rest) else 0
            return 2 if value else 0
        return 1 if word[1:] else 0


def _are_plain_paths(words: Sequence[str], arguments: Sequence[int]) -> bool:
    """Check whether git takes all arguments for paths, and for nothing else.

    Before ``--`` a word may be a revision, which names everything in it, or an object
    (gitrevisions(7)); a pathspec may have wildcards and magic (gitglossary(7)), and
    ``--follow`` goes on to a file's earlier names.
    """
    end = words.index("--") if "--" in words else len(words)
    return (
        bool(arguments)
        and "--follow" not in words
        and all(one > end and not _PATHSPEC.search(words[one]) for one in arguments)
    )


def parse_entry(table: CommandTable, catalogue: Catalogue, where: str) -> CommandEntry:
    """Check one entry.

    Args:
        table: the entry of the file.
        catalogue: the known scopes.
        where: names its place in errors.

    Raises:
        ServiceError: a program, option, argument, scope or resource is not allowed.
    """
    given = [table.program] if isinstance(table.program, str) else table.program
    for program in given:
        if not _PROGRAM.fullmatch(program) or program in _RUNNING:
            raise ServiceError(
                f"{where}: no entry can be for the program '{visible(program, 60)}'",
                "write its name as PATH finds it; a program that runs others needs a"
                " person",
            )
    check_scope(table.scope, catalogue, where)
    _check_options(table, where)
    positions, rest = _kinds_of(table, where)
    scope = catalogue.get(table.scope)
    reads_paths = not {"path", "file"}.isdisjoint({*positions, rest})
    if "{" in table.resource.replace("{path}", ""):
        raise ServiceError(f"{where}: the only placeholder of resource is {{path}}")
    return CommandEntry(
        programs=frozenset(given),
        subcommand=tuple(table.subcommand.split()),
        flags=frozenset(one for one in table.options if "*" not in one),
        valued=frozenset(
            one.removesuffix(" *") for one in table.options if one.endswith(" *")
        ),
        attached=tuple(
            one.removesuffix("*")
            for one in table.options
            if one.endswith("*") and not one.endswith(" *")
        ),
        bundles=table.bundles,
        kinds=positions,
        rest=rest,
        scope=table.scope,
        resource=table.resource or ("file:{path}" if reads_paths else ""),
        risky=scope is not None and scope.risk is Risk.HIGH,
        recursive=frozenset(table.recursive)
        if isinstance(table.recursive, list)
        else table.recursive is not False,
        of_repository=table.recursive == "repository",
    )


def _check_options(table: CommandTable, where: str) -> None:
    """Check the options of an entry, and those that make it recursive.

    Raises:
        ServiceError: one is not allowed.
    """
    for option in table.options:
        if not _OPTION.fullmatch(option):
            raise ServiceError(
                f"{where}: '{visible(option, 60)}' is not an option",
                'write "-l", "--all", "-n *" with a value, "--color=*", "-#" or "--"',
            )
    if isinstance(table.recursive, list) and not {*table.recursive} <= {*table.options}:
        raise ServiceError(
            f"{where}: recursive names an option that is not listed",
            'write options of this entry, true, false or "repository"',
        )
    names = (one.partition(" ")[0] for one in table.options)
    if table.bundles and any(map(_LONG_OF_ONE_DASH.fullmatch, names)):
        raise ServiceError(
            f"{where}: a program with options like -name takes no bundles",
            "leave bundles out",
        )


def _kinds_of(table: CommandTable, where: str) -> tuple[tuple[str, ...], str]:
    """Return the kinds of the first arguments, and that of all others."""
    kinds = [table.arguments] if isinstance(table.arguments, str) else table.arguments
    positions = [one.removesuffix("*") for one in kinds]
    if isinstance(table.arguments, str):
        rest = "" if positions == ["none"] else positions[0]
        positions = []
    else:
        rest = positions.pop() if kinds and kinds[-1].endswith("*") else ""
    starred = any(one.endswith("*") for one in kinds[:-1])
    if starred or not {*positions, rest} <= _KINDS | {""} or "" in positions:
        raise ServiceError(
            f"{where}: arguments has an unknown kind",
            'write "none", "any", "path", "file", or one each: ["any", "path*"]',
        )
    return tuple(positions), rest


def match_line(
    entries: Sequence[CommandEntry], commands: Sequence[HookCommand]
) -> list[tuple[str, str]] | None:
    """Return the scopes and resources of a line; None if a command has no entry.

    Args:
        entries: the first one that matches a command counts.
        commands: of the line.

    Returns:
        pairs of a scope and a resource; an empty resource is the tool's own.
    """
    pairs: list[tuple[str, str]] = []
    for command in commands:
        for entry in entries:
            if (resources := entry.resources(command)) is not None:
                pairs += [(entry.scope, one) for one in resources]
                break
        else:
            return None
    return pairs or None


def paths_reached(place: HookPlace) -> list[str]:
    """Return the paths of a place; a folder with all below it ends with a slash."""
    if not place.pattern:
        return [_with_all_below(place.resolved) if place.folder else place.resolved]
    parts = place.resolved.split("/")
    at = next((n for n, part in enumerate(parts) if _GLOB.search(part)), 0)
    return [place.resolved, "/".join([*parts[:at], ""])] if at else [place.resolved]


def _with_all_below(folder: str) -> str:
    return f"{folder.rstrip('/')}/"
