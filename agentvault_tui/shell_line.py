"""Reads the small part of the shell's language that all POSIX shells read alike.

A host hands a command line to bash, zsh or sh. A line is read here only if it is simple
commands of plain words, joined by ``|``, ``&&``, ``||`` or ``;``; these shells then run
exactly the words that `parse_line` returns (POSIX.1-2024, Shell Command Language,
sections 2.2 to 2.9). Everything else of the language is refused, not interpreted:
expansion, substitution, globs, braces, tildes, assignments, here-documents, background
jobs, compound commands, functions, history, comments and line breaks.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

LONGEST_LINE: Final = 4_096
"""Characters of a line; a longer one is not read."""
MOST_COMMANDS: Final = 32
MOST_WORDS: Final = 256
"""Words of one command."""
_BLANKS: Final = re.compile(r"[ \t]*")
_OPERATOR: Final = re.compile(r"\|\||&&|\||;")
_REDIRECTION: Final = re.compile(r"(?:2>&1|[12]?>[ \t]*/dev/null)(?=[ \t;|&]|$)")
"""Only where a word could begin: ``a2>&1`` has the word ``a2``, and is refused."""
_BARE: Final = re.compile(r"[A-Za-z0-9_./:,+@%-]")
"""Characters without a meaning of their own anywhere in a word."""
_INNER: Final = re.compile(r"=|(?<=[A-Za-z0-9])~(?=[0-9])")
"""Plain only after others: zsh expands ``=ls``, bash ``~ann`` and ``a=~1``."""
_SINGLE: Final = re.compile(r"'((?:[^'\\]|\\(?!'))*)'")
"""Without a backslash before the closing quote, which fish takes for an escape."""
_DOUBLE: Final = re.compile(r'"((?:[^"\\$`!]|\\[^"\\$`!])*)"')
"""Without an expansion; any other backslash stays a character (POSIX section 2.2.3)."""
_RESERVED: Final = (
    "case coproc do done elif else end esac fi for foreach function if in nocorrect "
    "repeat select then time until while"
)
"""Words that begin something other than a simple command in bash, zsh or ksh."""


class SimpleCommand(NamedTuple):
    """One program with its arguments, without redirections."""

    words: tuple[str, ...]
    """As the program gets them; never empty."""
    joined: str
    """The operator before it; empty for the first."""


def parse_line(line: str) -> tuple[SimpleCommand, ...] | None:
    """Return the commands that any POSIX shell runs for a line.

    Args:
        line: as the host hands it to its shell.

    Returns:
        the commands in their order; None if any part of the line is something else.
    """
    if len(line) > LONGEST_LINE or not line.replace("\t", " ").isprintable():
        return None
    commands: list[SimpleCommand] = []
    at, joined = 0, ""
    while len(commands) < MOST_COMMANDS:
        read = _command(line, at)
        if read is None:
            return None
        words, at = read
        commands.append(SimpleCommand(words, joined))
        if at == len(line):
            return tuple(commands)
        operator = _OPERATOR.match(line, at)
        if operator is None:
            return None
        joined, at = operator.group(), operator.end()
    return None


def _command(line: str, at: int) -> tuple[tuple[str, ...], int] | None:
    """Read one simple command; return its words and where it ends."""
    words: list[str] = []
    while True:
        at = _BLANKS.match(line, at).end()  # type: ignore[union-attr]
        if redirected := _REDIRECTION.match(line, at):
            at = redirected.end()
            continue
        if at == len(line) or line[at] in ";|&":
            break
        word, end = _word(line, at)
        if word is None or len(words) == MOST_WORDS:
            return None
        if not words and ("=" in line[at:end] or line[at:end] in _RESERVED.split()):
            return None  # an assignment, or a word of the shell's grammar
        words.append(word)
        at = end
    return (tuple(words), at) if words and words[0] else None


def _word(line: str, at: int) -> tuple[str | None, int]:
    """Read one word, its quotes removed; None where it is not plain."""
    parts: list[str] = []
    start = at
    while at < len(line) and line[at] not in " \t;|&":
        if quoted := _SINGLE.match(line, at) or _DOUBLE.match(line, at):
            parts.append(quoted[1])
            at = quoted.end()
        elif _BARE.match(line, at) or (at > start and _INNER.match(line, at)):
            parts.append(line[at])
            at += 1
        else:
            return None, at
    return "".join(parts), at
