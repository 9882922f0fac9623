"""Map the tools of an agent host to the actions that policy decides about."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

import msgspec
import rfc8785

from agentvault_tui.errors import NotFoundError, ServiceError
from agentvault_tui.gateway.config_folder import ConfigFolder, check_scope
from agentvault_tui.home import Home
from agentvault_tui.model import Action
from agentvault_tui.policy.catalogue import Catalogue
from agentvault_tui.policy.resources import canonical
from agentvault_tui.text import visible
from agentvault_tui.toml_table import read_table

DENY: Final = "deny"
SHIPPED: Final = ("claude-code", "codex", "copilot", "cursor", "gemini")
LONGEST: Final = 16_384
"""Characters of a parameter: more, nobody reads before approving."""
_POINTER: Final = re.compile(r"(?:/(?:[^~/]|~[01])*)+")
_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")
_COUNT: Final = "count:"


class ToolTable(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """``[tools.NAME]``, as a file has it."""

    scope: str
    resource: str = ""
    parameters: dict[str, str | int] = {}


class ToolMapFile(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """``hosts/NAME.toml``, as it is written."""

    unmatched: str = DENY
    tools: dict[str, ToolTable] = {}


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool, as its host is about to make it."""

    tool: str
    arguments: Mapping[str, Any]
    omitted: frozenset[str] = frozenset()
    """Top-level arguments that are too long to be shown, and so are unclear."""


class UnmatchedToolError(Exception):
    """A call that is no action: nothing maps its tool, or an argument is missing."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True)
class ToolRule:
    """Which tools are one action, and where in their arguments it says on what."""

    pattern: str
    """A tool's name, in which ``*`` stands for letters, digits, ``_``, ``-``, ``.``."""
    matches: re.Pattern[str]
    scope: str
    resource: str
    """A template: ``{argument}`` is an argument; empty for ``NAME:TOOL``."""
    parameters: Mapping[str, str | int]
    """A JSON Pointer into the arguments (RFC 6901), ``count:`` and one, or a number."""


@dataclass(frozen=True, slots=True)
class ToolMap:
    """The tools of one host, or of one MCP server, as actions."""

    name: str
    rules: tuple[ToolRule, ...]
    unmatched: str
    """``deny``, or the scope of every tool that no rule matches."""
    sha256: str

    def action_of(self, call: ToolCall) -> Action:
        """Return the action that *call* is.

        Raises:
            UnmatchedToolError: it is none.
        """
        found = (rule for rule in self.rules if rule.matches.fullmatch(call.tool))
        rule = next(found, self.unmatched_rule)
        if rule is None:
            shown = visible(call.tool, 80)
            raise UnmatchedToolError(
                "unmatched_tool",
                f"No action is known for the tool {shown}: an operator maps it in "
                f"hosts/{self.name}.toml.",
            )
        return self.action_by(rule, call)

    @property
    def unmatched_rule(self) -> ToolRule | None:
        """Return the rule for what no other is for; nothing where that is denied."""
        if self.unmatched == DENY:
            return None
        return ToolRule("*", re.compile(""), self.unmatched, "", {})

    def action_by(self, rule: ToolRule, call: ToolCall) -> Action:
        """Return the action that *call* is by *rule*.

        Raises:
            UnmatchedToolError: an argument that its resource names is missing.
        """
        parameters = {
            name: value
            for name, place in rule.parameters.items()
            if (value := _parameter(name, place, call)) is not _ABSENT
        }
        resource = _resource(rule, call) or f"{self.name}:{call.tool}"
        resource = canonical(resource) or resource
        return Action((rule.scope,), rule.scope, resource, parameters)


def parse_tools(name: str, text: str, catalogue: Catalogue) -> ToolMap:
    """Read ``hosts/NAME.toml``.

    Args:
        name: of the host.
        text: what the file says.
        catalogue: the scopes there are.

    Returns:
        the map; exact names of tools come before patterns, which keep their order.

    Raises:
        ServiceError: it cannot be put in force.
    """
    file = read_table(text, ToolMapFile, {"tools[]": ToolTable})
    return make_map(name, text, file, catalogue)


def make_map(name: str, text: str, file: ToolMapFile, catalogue: Catalogue) -> ToolMap:
    """Check the tools of a *file* that says *text*.

    Raises:
        ServiceError: they cannot be put in force.
    """
    if file.unmatched != DENY:
        check_scope(file.unmatched, catalogue, "unmatched")
    named = sorted(file.tools.items(), key=lambda item: "*" in item[0])
    return ToolMap(
        name,
        tuple(_rule(pattern, tool, catalogue) for pattern, tool in named),
        file.unmatched,
        hashlib.sha256(text.encode()).hexdigest(),
    )


def _rule(pattern: str, tool: ToolTable, catalogue: Catalogue) -> ToolRule:
    where = f"tools.{visible(pattern, 60)}"
    if not pattern:
        raise ServiceError("a tool has an empty name")
    check_scope(tool.scope, catalogue, where)
    left = _PLACEHOLDER.sub("", tool.resource)
    if "{" in left or "}" in left or "{}" in tool.resource:
        raise ServiceError(f"{where}: resource names an argument as {{argument}}")
    for name, place in tool.parameters.items():
        pointer = place.removeprefix(_COUNT) if isinstance(place, str) else "/"
        if not _POINTER.fullmatch(pointer):
            raise ServiceError(
                f"{where}: parameter '{visible(name, 60)}' is no JSON Pointer",
                "write /argument, count:/argument, or a whole number",
            )
    parts = (re.escape(part) for part in pattern.split("*"))
    matches = re.compile("[A-Za-z0-9_.-]*".join(parts))
    return ToolRule(pattern, matches, tool.scope, tool.resource, tool.parameters)


class ToolMaps(ConfigFolder[ToolMap]):
    """The maps in force: the home's, and for hosts it has none of the shipped ones."""

    def __init__(self, home: Home, catalogue: Callable[[], Catalogue]) -> None:
        """Read nothing yet; *catalogue* returns the one in force."""
        super().__init__(
            home, "hosts", lambda name, text: parse_tools(name, text, catalogue())
        )
        self._catalogue = catalogue
        self._shipped: dict[tuple[str, str], ToolMap] = {}

    def of(self, host: str) -> ToolMap:
        """Return the map of *host*.

        Raises:
            NotFoundError: nobody knows such a host.
            ServiceError: its file never was in force, or the catalogue lacks a scope
                that the shipped map names.
        """
        if found := self.get(host):
            return found
        if problem := self.problems.get(f"{host}.toml"):
            raise ServiceError(f"hosts/{host}.toml cannot be put in force: {problem}")
        if host not in SHIPPED:
            raise NotFoundError(
                f"there is no host '{visible(host, 60)}'",
                f"write hosts/NAME.toml, or use one of {', '.join(SHIPPED)}",
            )
        catalogue = self._catalogue()
        key = host, catalogue.version
        if key not in self._shipped:
            self._shipped = {key: parse_tools(host, shipped_tools(host), catalogue)}
        return self._shipped[key]


def shipped_tools(host: str) -> str:
    """Return the ``hosts/NAME.toml`` that ships for *host*, one of `SHIPPED`."""
    return (resources.files(__package__) / "hosts" / f"{host}.toml").read_text("utf-8")


_ABSENT: Final = object()
"""Stands for a parameter that a call does not have."""


def _resource(rule: ToolRule, call: ToolCall) -> str:
    def argument(found: re.Match[str]) -> str:
        value = call.arguments.get(found[1])
        if not isinstance(value, str | int) or isinstance(value, bool) or value == "":
            raise UnmatchedToolError(
                "unclear_call",
                f"The call of {visible(call.tool, 80)} does not say its "
                f"{visible(found[1], 60)}.",
            )
        return str(value)

    return _PLACEHOLDER.sub(argument, rule.resource)


def _parameter(name: str, place: str | int, call: ToolCall) -> Any:
    """Return a parameter's value, None where it is unclear, or `_ABSENT`."""
    if isinstance(place, int):
        return place
    counted = place.startswith(_COUNT)
    tokens = [
        token.replace("~1", "/").replace("~0", "~")
        for token in place.removeprefix(_COUNT).split("/")[1:]
    ]
    if tokens[0] in call.omitted:
        return None
    value = _at(call.arguments, tokens)
    counted = counted or (name == "count" and isinstance(value, list))
    if counted and value is not _ABSENT:
        return len(value) if isinstance(value, list | dict) else None
    if value is _ABSENT or value is None:
        return value
    try:  # what has no canonical form can be under no digest
        size = len(value) if isinstance(value, str) else len(rfc8785.dumps(value))
    except rfc8785.CanonicalizationError:
        return None
    return value if size <= LONGEST else None


def _at(value: Any, tokens: Iterable[str]) -> Any:
    for token in tokens:
        if isinstance(value, Mapping) and token in value:
            value = value[token]
        elif isinstance(value, list) and token.isascii() and token.isdigit():
            if len(token) > 9 or int(token) >= len(value):
                return _ABSENT
            value = value[int(token)]
        else:
            return _ABSENT
    return value
