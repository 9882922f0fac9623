"""Map the tools of an agent host to the actions that policy decides about."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final, NamedTuple

import msgspec
import rfc8785

from agentvault_tui.errors import NotFoundError, ServiceError
from agentvault_tui.gateway.amounts import (
    NO_MONEY,
    UNKNOWN,
    AmountRule,
    MoneyTable,
    amount_parameters,
    amount_rule,
    exact_value,
)
from agentvault_tui.gateway.commands import (
    CommandEntry,
    CommandTable,
    match_line,
    parse_entry,
    paths_reached,
)
from agentvault_tui.gateway.config_folder import DENY, ConfigFolder, check_scope
from agentvault_tui.gateway.counting import (
    COUNTED,
    ArgumentPlace,
    how_many,
    stated_twice,
)
from agentvault_tui.gateway.named_urls import find_urls
from agentvault_tui.gateway.sources import (
    ABSENT,
    DESTINATIONS,
    PLACES,
    find_member,
    find_number,
    read_pointer,
    tokens_of,
)
from agentvault_tui.home import Home
from agentvault_tui.json_document import is_larger, plain_name
from agentvault_tui.model import Action
from agentvault_tui.operator_api.access import IN_PROJECT, HookCommand, HookPlace
from agentvault_tui.policy.catalogue import Catalogue, Effect
from agentvault_tui.policy.destinations import read_domains, read_hosts
from agentvault_tui.policy.resources import LONGEST as LONGEST_RESOURCE
from agentvault_tui.policy.resources import canonical, canonical_resource
from agentvault_tui.text import visible
from agentvault_tui.toml_table import read_table

SHELLS: Final[Mapping[str, tuple[str, ...]]] = {
    "claude-code": ("Bash",),
    "codex": ("Bash", "exec_command"),
    "copilot": ("bash", "Bash"),
    "cursor": ("Shell",),
    "gemini": ("run_shell_command",),
}
"""By host, the tools that are handed a command line of a POSIX shell."""
SHIPPED: Final = tuple(SHELLS)
LONGEST: Final = 16_384
"""Characters of a parameter: an approver would not read more."""
_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")
_OF_FILE: Final = re.compile(r"file:\{([^{}]*)\}")
"""A resource that is the file an argument names: that argument is a path."""
MOST_RESOURCES: Final = 256
"""Resources of one call; its one record has all of them."""
CONFIGURE: Final = "configure:host"
DELETE: Final = "delete:files"
_OUTSIDE: Final = "It uses files outside the project's folder, or it is unclear which."
_TOO_LONG: Final = f"The resource of the call has over {LONGEST_RESOURCE} characters."
_PATHLIKE: Final = re.compile("path|file|dir|folder|uri|root", re.IGNORECASE)
"""Names of arguments that some version of a host may take for a path."""


class ToolTable(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """``[tools.NAME]``, as a file has it."""

    scope: str
    resource: str = ""
    parameters: dict[str, str | int] = {}
    paths: list[str] = []
    patterns: list[str] = []
    deletes: list[str] = []
    urls_in: list[str] = []
    commands: list[CommandTable] = []
    recursive: bool = False
    money: MoneyTable = NO_MONEY


class ToolMapFile(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """``hosts/NAME.toml``, as it is written."""

    unmatched: str = DENY
    tools: dict[str, ToolTable] = {}
    money: MoneyTable = NO_MONEY


TOOL_TABLES: Final = {
    "tools[]": ToolTable,
    "tools[].commands[]": CommandTable,
    "tools[].money": MoneyTable,
    "money": MoneyTable,
}
"""The tables of a map, for `read_table`."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool, as its host is about to make it."""

    tool: str
    arguments: Mapping[str, Any]
    omitted: frozenset[str] = frozenset()
    """Top-level arguments that are too long to be shown whole, and so are unclear."""
    places: Sequence[HookPlace] = ()
    """Where its arguments lead on the machine of its host."""
    commands: Sequence[HookCommand] | None = None
    """The commands of its line, if it consists of simple commands only."""
    unclear: frozenset[str] | None = None
    """The result of `stated_twice`; None if it was not called."""
    exact: bytes = b""
    """The arguments as they are sent, in JSON with the digits of numbers, if these are
    known."""
    answered: frozenset[tuple[str, ...]] = frozenset()
    """Places of arguments that an answer to a question of the server states as well:
    the tool may act on that value."""
    path: str | None = None
    """The value of ``{path}`` in a resource, if it is no argument's."""


class ToolActions(NamedTuple):
    """The actions of one call, decided one by one: the strictest answer counts."""

    actions: tuple[Action, ...]
    person: str = ""
    """Why a person has to decide, whatever policy permits; empty if none has to."""


class UnmatchedToolError(Exception):
    """A call that is no action: nothing maps its tool, or an argument is missing."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True)
class ToolRule:
    """The tools of one action, and the places of its facts in their arguments."""

    pattern: str
    """A tool's name; ``*`` matches letters, digits, ``_``, ``-`` and ``.``."""
    matches: re.Pattern[str]
    scope: str
    resource: str
    """A template: ``{argument}`` is an argument; empty for ``NAME:TOOL``."""
    parameters: Mapping[str, str | int]
    """A JSON Pointer into the arguments (RFC 6901), ``count:``, ``domains:`` or
    ``hosts:`` and one, or a number."""
    amounts: AmountRule = UNKNOWN
    """The unit of its ``amount``."""
    paths: tuple[str, ...] = ()
    """Arguments that are paths; ``{path}`` is each in turn."""
    needed: bool = False
    """Whether a call has to state one; if not, the default is the folder it runs in."""
    patterns: tuple[str, ...] = ()
    """Arguments that are globs."""
    deletes: tuple[str, ...] = ()
    """Arguments that are paths of files that the call deletes."""
    urls_in: tuple[str, ...] = ()
    """Arguments whose texts name URLs; each one is a resource."""
    changes: bool = False
    """Whether its scope does more than read."""
    commands: tuple[CommandEntry, ...] = ()
    recursive: bool = False
    """Whether a tool of an MCP server reaches everything below the folder it names."""


@dataclass(frozen=True, slots=True)
class ToolMap:
    """The tools of one host, or of one MCP server, as actions."""

    name: str
    rules: tuple[ToolRule, ...]
    unmatched: str
    """``deny``, or the scope of every tool that no rule matches."""
    sha256: str

    def rule_of(self, tool: str) -> ToolRule | None:
        """Return the first rule for a tool; None if the tool is denied."""
        matching = (rule for rule in self.rules if rule.matches.fullmatch(tool))
        return next(matching, self.unmatched_rule)

    def actions_of(self, call: ToolCall) -> ToolActions:
        """Return the actions of *call*.

        Raises:
            UnmatchedToolError: no rule matches it, or it is never allowed.
        """
        rule = self.rule_of(call.tool)
        if rule is None:
            shown, file = visible(call.tool, 80), f"hosts/{self.name}.toml"
            text = f"No action is known for the tool {shown}: an operator maps it in"
            raise UnmatchedToolError("unmatched_tool", f"{text} {file}.")
        pairs, person = _pairs(rule, call)
        if not pairs:
            return ToolActions((self.action_by(rule, call),), person)
        if len(pairs) > MOST_RESOURCES:
            text = f"The call names more than {MOST_RESOURCES} files. Make it smaller."
            raise UnmatchedToolError("unclear_call", text)
        parameters = _parameters(rule, call)
        if len(pairs) > 1:
            # Each approval page and the one row list all of them.
            parameters["resources"] = [" ".join(filter(None, one)) for one in pairs]
        own = f"{self.name}:{call.tool}"
        return ToolActions(
            tuple(
                Action(
                    *((scope,), scope, canonical_resource(on or own), dict(parameters)),
                    money=rule.amounts.money(parameters),
                )
                for scope, on in pairs
            ),
            person,
        )

    @property
    def scopes(self) -> frozenset[str]:
        """Return the scopes that calls of the tools of a host may need."""
        scopes = {CONFIGURE} if self.unmatched == DENY else {CONFIGURE, self.unmatched}
        for rule in self.rules:
            scopes |= {rule.scope, *(one.scope for one in rule.commands)}
            scopes |= {DELETE} if rule.deletes else set()
        return frozenset(scopes)

    @property
    def unmatched_rule(self) -> ToolRule | None:
        """Return the rule for all other tools; nothing if these are denied."""
        if self.unmatched == DENY:
            return None
        return ToolRule("*", re.compile(""), self.unmatched, "", {})

    def action_by(self, rule: ToolRule, call: ToolCall) -> Action:
        """Return the action that *call* is by *rule*.

        Raises:
            UnmatchedToolError: an argument that its resource names is missing.
        """
        resource = _resource(rule, call) or f"{self.name}:{call.tool}"
        if len(resource) > LONGEST_RESOURCE:  # every list of requests would have it
            raise UnmatchedToolError("unclear_call", _TOO_LONG)
        resource = canonical(resource) or resource
        parameters = _parameters(rule, call)
        money = rule.amounts.money(parameters)
        return Action((rule.scope,), rule.scope, resource, parameters, money=money)


def parse_tools(name: str, text: str, catalogue: Catalogue) -> ToolMap:
    """Read ``hosts/NAME.toml``.

    Args:
        name: of the host.
        text: the file's text.
        catalogue: the scopes there are.

    Returns:
        the map; exact names of tools come before patterns, which stay in their order.

    Raises:
        ServiceError: it cannot be put in effect.
    """
    file = read_table(text, ToolMapFile, TOOL_TABLES)
    return make_map(name, text, file, catalogue, of_host=True)


def make_map(
    name: str,
    text: str,
    file: ToolMapFile,
    catalogue: Catalogue,
    *,
    of_host: bool = False,
) -> ToolMap:
    """Check the tools of a *file* that says *text*.

    Only hosts may have globs and commands: the files of a server may be elsewhere.

    Raises:
        ServiceError: they cannot be put in effect.
    """
    if file.unmatched != DENY:
        check_scope(file.unmatched, catalogue, "unmatched")
    for pattern, tool in file.tools.items():
        where = f"tools.{visible(pattern, 60)}: only"
        if of_host and tool.recursive:
            raise ServiceError(f"{where} mcp/NAME.toml may have recursive")
        globs = tool.patterns or tool.deletes or tool.urls_in
        if not of_host and (globs or tool.commands):
            keys = "patterns, deletes, urls_in and commands"
            raise ServiceError(f"{where} hosts/NAME.toml may have {keys}")
    amount_rule(NO_MONEY, file.money)  # refused also without a tool
    named = sorted(file.tools.items(), key=lambda item: "*" in item[0])
    return ToolMap(
        name,
        tuple(_rule(pattern, tool, catalogue, file.money) for pattern, tool in named),
        file.unmatched,
        hashlib.sha256(text.encode()).hexdigest(),
    )


def _rule(
    pattern: str, tool: ToolTable, catalogue: Catalogue, money: MoneyTable
) -> ToolRule:
    where = f"tools.{visible(pattern, 60)}"
    if not pattern:
        raise ServiceError("a tool has an empty name")
    check_scope(tool.scope, catalogue, where)
    left = _PLACEHOLDER.sub("", tool.resource)
    if "{" in left or "}" in left or "{}" in tool.resource:
        raise ServiceError(f"{where}: resource names an argument as {{argument}}")
    try:
        parameters = amount_parameters(tool.parameters, tool.money, money)
        amounts = amount_rule(tool.money, money)
    except ServiceError as error:
        raise ServiceError(f"{where}: {error.what}", error.remedy) from None
    for name, place in parameters.items():
        form, pointer = place_of(place) if isinstance(place, str) else ("", "/")
        if read_pointer(pointer) is None:
            raise ServiceError(
                f"{where}: parameter '{visible(name, 60)}' is no JSON Pointer",
                "write /argument, count:/argument, or a whole number",
            )
        if (form in PLACES) is not (name == DESTINATIONS):
            raise ServiceError(
                f"{where}: parameter '{visible(name, 60)}' is read from"
                f" '{visible(place, 60)}'",
                f"{DESTINATIONS}, and nothing else, has domains:/argument for mail"
                " addresses or hosts:/argument for URLs",
            )
    first, *parts = map(re.escape, pattern.split("*"))
    last = f"[A-Za-z0-9_.-]*{parts.pop()}" if parts else ""
    middle = "".join(f"(?>[A-Za-z0-9_.-]*?{part})" for part in parts)
    matches = re.compile(first + middle + last)  # atomic: an agent chooses the name
    of_file = _OF_FILE.fullmatch(tool.resource)
    paths = tuple(tool.paths) or ((of_file[1],) if of_file else ())
    return ToolRule(
        *(pattern, matches, tool.scope, tool.resource),
        *(parameters, amounts, paths),
        needed=bool(of_file) and not tool.paths,
        patterns=tuple(tool.patterns),
        deletes=tuple(tool.deletes),
        urls_in=tuple(tool.urls_in),
        changes=catalogue.effect(tool.scope) is not Effect.READ,
        recursive=tool.recursive,
        commands=tuple(
            parse_entry(one, catalogue, f"{where}.commands[{number}]")
            for number, one in enumerate(tool.commands)
        ),
    )


class ToolMaps(ConfigFolder[ToolMap]):
    """The maps in effect: the home's, and for hosts it has none of the shipped ones."""

    def __init__(self, home: Home, catalogue: Callable[[], Catalogue]) -> None:
        """Read nothing yet; *catalogue* returns the one in effect."""
        super().__init__(
            home, "hosts", lambda name, text: parse_tools(name, text, catalogue())
        )
        self._catalogue = catalogue
        self._shipped: dict[tuple[str, str], ToolMap] = {}

    def of(self, host: str) -> ToolMap:
        """Return the map of *host*.

        Raises:
            NotFoundError: the host is unknown.
            ServiceError: its file never was in effect, or the catalogue lacks a scope
                that the shipped map names.
        """
        if tool_map := self.get(host):
            return tool_map
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
    """Return the ``hosts/NAME.toml`` that ships for *host*, one of `SHIPPED`.

    The entries for command lines are the same for the shell tools of every host.
    """
    folder = resources.files(__package__) / "hosts"
    lines = (folder / "commands.toml").read_text("utf-8")
    text = (folder / f"{host}.toml").read_text("utf-8")
    for tool in SHELLS[host]:
        text += "\n" + lines.replace("\n[[commands]]", f"\n[[tools.{tool}.commands]]")
    return text


def _pairs(rule: ToolRule, call: ToolCall) -> tuple[list[tuple[str, str]], str]:
    """Return the scopes and resources of a call, and why a person has to decide.

    Raises:
        UnmatchedToolError: it reaches into AgentVault's home directory, or is unclear.
    """
    if rule.commands and call.commands:
        return match_line(rule.commands, call.commands) or [], ""
    if rule.urls_in:
        return [(rule.scope, one) for one in _urls(rule, call)], ""
    places = {one[:3]: one for one in call.places}
    globs = [*_stated(call, rule.patterns, rule.scope, pattern=True)]
    stated = [
        *_stated(call, rule.paths, rule.scope, pattern=False, needed=rule.needed),
        *globs,
        *_stated(call, rule.deletes, DELETE, pattern=False),
    ]
    # Without a slash, a glob of ripgrep matches names in every folder below.
    narrow = stated and all("/" in text for _, (_, text, _) in globs)
    starts = [] if narrow else [(rule.scope, ("", "", False))]
    placed = [
        (scope, places.get(key) or HookPlace(*key, key[1], "unknown", False, False))
        for scope, key in [*stated, *starts]
    ]
    if not (rule.paths or rule.patterns or rule.deletes):
        return [], ""
    if not stated and (rule.needed or rule.changes):
        named = " or ".join(visible(one, 60) for one in (*rule.paths, *rule.deletes))
        text = f"The call of {visible(call.tool, 80)} does not say its {named}."
        raise UnmatchedToolError("unclear_call", text)
    if any(place.where == "vault" for _, place in placed):
        raise UnmatchedToolError("agentvault_home", IN_VAULT)
    pairs = {
        (
            CONFIGURE
            if place.configures and (rule.changes or scope == DELETE)
            else scope,
            _of_path(rule, call, path),
        ): None
        for scope, place in placed
        for path in paths_reached(place)
    }
    # Another version of the host may use an argument that this map does not name.
    read = (one for one in call.places if _PATHLIKE.search(one.argument))
    paths = [place for _, place in placed]
    paths += [one for one in read if not one.pattern]
    return list(pairs), _OUTSIDE if any(p.where != IN_PROJECT for p in paths) else ""


IN_VAULT: Final = "The call reaches into AgentVault's home directory: no agent may."


def _urls(rule: ToolRule, call: ToolCall) -> list[str]:
    """Return the URLs that a call names in texts, and in its resource if stated.

    Raises:
        UnmatchedToolError: it names none, or a text is not whole.
    """
    stated = _stated(call, rule.urls_in, rule.scope, pattern=False)
    urls = find_urls(text for _, (_, text, _) in stated)
    named = _PLACEHOLDER.findall(rule.resource)
    if any(call.arguments.get(one) not in (None, "") for one in named):
        urls.append(_resource(rule, call))
    if not urls or not call.omitted.isdisjoint(rule.urls_in):
        text = f"The call of {visible(call.tool, 80)} does not say its URLs."
        raise UnmatchedToolError("unclear_call", text)
    return list(dict.fromkeys(urls))


def _of_path(rule: ToolRule, call: ToolCall, path: str) -> str:
    """Return the resource of one path of a call."""
    if not rule.resource or _OF_FILE.fullmatch(rule.resource):
        return f"file:{path}"
    if "{path}" in rule.resource and "path" not in call.arguments:
        return rule.resource.replace("{path}", path)
    return _resource(rule, call)


def _stated(
    call: ToolCall,
    names: Iterable[str],
    scope: str,
    *,
    pattern: bool,
    needed: bool = False,
) -> Iterator[tuple[str, tuple[str, str, bool]]]:
    """Yield *scope* and the first three members of `HookPlace` for each stated path.

    An argument that is *needed* has one path; any other may have a list of them.

    Raises:
        UnmatchedToolError: a path is no text.
    """
    for name in names:
        long = name in call.omitted
        value = f"{name} (too long)" if long else call.arguments.get(name)
        for text in value if isinstance(value, list) and not needed else [value]:
            if text is not None and not isinstance(text, str):
                shown = f"{visible(name, 60)} of {visible(call.tool, 80)}"
                raise UnmatchedToolError("unclear_call", f"The {shown} is no text.")
            if text:
                yield scope, (name, text, pattern)


def _parameters(rule: ToolRule, call: ToolCall) -> dict[str, Any]:
    unclear, unit = call.unclear, rule.amounts.unit
    if unclear is None:
        unclear = stated_twice(counted_places(rule), call.arguments)
    return {
        name: None if name in unclear else value
        for name, place in rule.parameters.items()
        if name in unclear
        or (value := _parameter(name, place, call, unit)) is not ABSENT
    }


def counted_places(rule: ToolRule | None) -> dict[str, ArgumentPlace]:
    """Return where the arguments are that policy reads by value, by parameter."""
    places = {} if rule is None else rule.parameters
    return {
        name: ArgumentPlace(
            tokens_of(place_of(place)[1]),
            name == "recipients" or place.startswith("domains:"),
        )
        for name, place in places.items()
        if name in COUNTED and isinstance(place, str)
    }


def place_of(place: str) -> tuple[str, str]:
    """Return the form of a parameter's place, such as ``count``, and the pointer."""
    form, colon, pointer = place.partition(":")
    is_form = colon and (form == "count" or form in PLACES)
    return (form, pointer) if is_form else ("", place)


def _resource(rule: ToolRule, call: ToolCall) -> str:
    def argument(match: re.Match[str]) -> str:
        if call.path is not None and match[1] == "path":
            return call.path
        name = plain_name(call.arguments.get(match[1]))
        respelled = find_number(call.exact, (match[1],)) is not None
        if not name or respelled or (match[1],) in call.answered:
            raise UnmatchedToolError(
                "unclear_call",
                f"The call of {visible(call.tool, 80)} does not say its "
                f"{visible(match[1], 60)}.",
            )
        return name

    return _PLACEHOLDER.sub(argument, rule.resource)


def _parameter(name: str, place: str | int, call: ToolCall, unit: str | None) -> Any:
    """Return a parameter's value, None where it is unclear, or `ABSENT`."""
    if isinstance(place, int):
        return place
    form, tokens = place_of(place)[0], tokens_of(place_of(place)[1])
    if tokens[0] in call.omitted or tokens in call.answered:
        return None
    value = find_member(call.arguments, tokens)
    if unit is not None:
        value = exact_value(name, value, find_number(call.exact, tokens))
    if form in PLACES and value is not ABSENT:
        read = read_domains if form == "domains" else read_hosts
        names = read(value if isinstance(value, list) else [value])
        value = names and list(names)
    counted = form == "count" or (name == "count" and isinstance(value, list))
    if counted and value is not ABSENT:
        return how_many(name, value) if isinstance(value, list | dict) else None
    if value is ABSENT or value is None:
        return value
    if is_larger(value, LONGEST):
        return None
    try:  # what has no canonical form can be under no digest
        size = len(value) if isinstance(value, str) else len(rfc8785.dumps(value))
    except rfc8785.CanonicalizationError:
        return None
    return value if size <= LONGEST else None
