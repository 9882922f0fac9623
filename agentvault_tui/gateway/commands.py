"""Which command lines are known to read alone: ``[[tools.Bash.commands]]``.

An entry lists the options and arguments with which a program does one thing. A line
is of the entries' scopes only if each of its commands matches one of them whole;
otherwise it is what the tool itself is. The hook has read the line and found where its
paths lead (`HookRequest.commands`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from agentvault_tui.errors import ServiceError
from agentvault_tui.gateway.config_folder import check_scope
from agentvault_tui.model import Risk
from agentvault_tui.operator_api.access import IN_PROJECT, HookCommand
from agentvault_tui.policy.catalogue import Catalogue
from agentvault_tui.text import visible

_PROGRAM: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_OPTION: Final = re.compile(r"-#|--|-[A-Za-z0-9-][^\s*]*(?: ?\*)?")
_LONG_OF_ONE_DASH: Final = re.compile(r"-[A-Za-z0-9][A-Za-z0-9-]+")
_KINDS: Final = frozenset({"path", "file", "any"})
_RUNNING: Final = frozenset(
    {
        *("builtin", "cd", "command", "coproc", "env", "eval", "exec", "nice", "nohup"),
        *("noglob", "source", "sudo", "time", "timeout", "xargs"),
    }
)
"""Programs that run another: their arguments are no list of options."""


class CommandTable(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """``[[tools.NAME.commands]]``, as a file has it."""

    program: str | list[str]
    scope: str
    subcommand: str = ""
    options: list[str] = []
    arguments: str | list[str] = "none"
    resource: str = ""


@dataclass(frozen=True, slots=True)
class CommandEntry:
    """One program with the options and arguments that are of one scope."""

    programs: frozenset[str]
    subcommand: tuple[str, ...]
    flags: frozenset[str]
    valued: frozenset[str]
    """Options whose value is the next word, or the rest of theirs."""
    attached: tuple[str, ...]
    """What options begin with whose value can only be the rest of the word."""
    kinds: tuple[str, ...]
    """What the first arguments are: `_KINDS`."""
    rest: str
    """What all others are; empty where there may be no others."""
    scope: str
    resource: str
    """A template: ``{path}`` is each path in turn."""
    risky: bool
    """Whether its scope is of high risk, so that it may be the project's program."""

    def resources(self, command: HookCommand) -> tuple[str, ...] | None:
        """Return the resources of *command*; None where this is not for it."""
        words, start = command.words, 1 + len(self.subcommand)
        if words[0] not in self.programs or words[1:start] != self.subcommand:
            return None
        if command.configured or (command.local and not self.risky):
            return None
        paths = self._paths(command, self._arguments(words, start))
        if paths is None:
            return None
        if "{path}" not in self.resource:
            return (self.resource,)
        # Without a path such a program reads its input, or the folder it runs in.
        return tuple(
            self.resource.replace("{path}", path) for path in paths or [command.cwd]
        )

    def _paths(
        self, command: HookCommand, arguments: list[int] | None
    ) -> list[str] | None:
        """Return where the arguments lead that are paths; None if one may not be."""
        if arguments is None:
            return None
        kinds = self.kinds + (self.rest,) * (len(arguments) - len(self.kinds))
        places = {one.word: one for one in command.places}
        found: list[str] = []
        for number, kind in zip(arguments, kinds, strict=False):
            if kind == "any":
                continue
            place = places.get(number)
            if not kind or place is None or place.where != IN_PROJECT:
                return None
            if kind == "file" and place.folder:
                return None
            found.append(place.resolved)
        return found

    def _arguments(self, words: Sequence[str], at: int) -> list[int] | None:
        """Return the indexes of the words that are no options; None for a stranger."""
        arguments, only = list[int](), False
        while at < len(words):
            word = words[at]
            if not word.startswith("-"):
                arguments.append(at)
                at += 1
            elif only:
                return None  # a file so called, which other programs take for an option
            elif word == "--" and "--" in self.flags:
                only, at = True, at + 1
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
        known = self.flags | self.valued
        if any(_LONG_OF_ONE_DASH.fullmatch(one) for one in known):
            return 0  # such a program takes no bundles
        for number, letter in enumerate(word[1:], 2):
            if f"-{letter}" in self.flags:
                continue
            if f"-{letter}" in self.valued:
                return 1 if word[number:] else (2 if value else 0)
            return 0
        return 1 if word[1:] else 0


def parse_entry(table: CommandTable, catalogue: Catalogue, where: str) -> CommandEntry:
    """Check one entry.

    Args:
        table: as the file has it.
        catalogue: the scopes there are.
        where: what errors call its place.

    Raises:
        ServiceError: it says something that is not known, or too much.
    """
    given = [table.program] if isinstance(table.program, str) else table.program
    for program in given:
        if not _PROGRAM.fullmatch(program) or program in _RUNNING:
            raise ServiceError(
                f"{where}: '{visible(program, 60)}' is no program that an entry is for",
                "write its name as PATH finds it; what runs another program has none",
            )
    check_scope(table.scope, catalogue, where)
    for option in table.options:
        if not _OPTION.fullmatch(option):
            raise ServiceError(
                f"{where}: '{visible(option, 60)}' is no option",
                'write "-l", "--all", "-n *" with a value, "--color=*", "-#" or "--"',
            )
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
            f"{where}: arguments are not known",
            'write "none", "any", "path", "file", or one each: ["any", "path*"]',
        )
    scope = catalogue.get(table.scope)
    reads_paths = not {"path", "file"}.isdisjoint({*positions, rest})
    if "{" in table.resource.replace("{path}", ""):
        raise ServiceError(f"{where}: resource names a path as {{path}}")
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
        kinds=tuple(positions),
        rest=rest,
        scope=table.scope,
        resource=table.resource or ("file:{path}" if reads_paths else ""),
        risky=scope is not None and scope.risk is Risk.HIGH,
    )


def match_line(
    entries: Sequence[CommandEntry], commands: Sequence[HookCommand]
) -> list[tuple[str, str]] | None:
    """Return the scopes and resources of a line; None where any command has no entry.

    Args:
        entries: the first that is for a command counts.
        commands: the line's.

    Returns:
        pairs of a scope and a resource, an empty one for the tool's own.
    """
    found: list[tuple[str, str]] = []
    for command in commands:
        for entry in entries:
            if (resources := entry.resources(command)) is not None:
                found += [(entry.scope, one) for one in resources]
                break
        else:
            return None
    return found or None
