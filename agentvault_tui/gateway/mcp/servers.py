"""``mcp/NAME.toml``: which MCP servers are reached, how, and their tools as actions."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from agentvault_tui.authorities import source_of, split_source
from agentvault_tui.errors import ServiceError, UnreadableRequestError
from agentvault_tui.gateway.body import DEFAULT_BODY
from agentvault_tui.gateway.conditions import has_form
from agentvault_tui.gateway.config_folder import DENY, ConfigFolder
from agentvault_tui.gateway.counting import (
    ArgumentPlace,
    inner_document,
    stated_twice,
)
from agentvault_tui.gateway.mcp.messages import CALL
from agentvault_tui.gateway.mcp.tool_names import ToolNames
from agentvault_tui.gateway.names import field_names, fold_name
from agentvault_tui.gateway.route_index import RouteIndex
from agentvault_tui.gateway.services import (
    Service,
    UpstreamCredential,
    parse_origin,
)
from agentvault_tui.gateway.sources import find_member, tokens_of
from agentvault_tui.gateway.target import parse_target
from agentvault_tui.gateway.templates import check_cap
from agentvault_tui.gateway.tool_paths import (
    MOST_CHARACTERS,
    MOST_PATHS,
    check_root,
    reached_path,
    resolve_path,
)
from agentvault_tui.gateway.tools import (
    TOOL_TABLES,
    ToolCall,
    ToolMap,
    ToolMapFile,
    ToolRule,
    UnmatchedToolError,
    make_map,
    place_of,
)
from agentvault_tui.home import Home
from agentvault_tui.model import Action
from agentvault_tui.policy.catalogue import Catalogue
from agentvault_tui.policy.facts import plain_name
from agentvault_tui.text import visible
from agentvault_tui.toml_table import read_table

FOLDER: Final = "mcp"
_ARGUMENT: Final = re.compile(r"\{([^{}]*)\}")
_MOST_ARGUMENTS: Final = 1_000
_MOST_UNSAID: Final = 5
_Path = tuple[str, ...]


class McpServerFile(ToolMapFile, forbid_unknown_fields=True, kw_only=True):
    """``mcp/NAME.toml``, as it is written."""

    command: tuple[str, ...] = ()
    per_agent: bool = False
    max_body: int = DEFAULT_BODY
    url: str = ""
    allow_private: bool = False
    allow_http: bool = False
    ca_file: str = ""
    drains_bodies: bool = False
    root: str = ""
    credential: UpstreamCredential = UpstreamCredential()


@dataclass(frozen=True, slots=True)
class McpServer:
    """One MCP server, as its file describes it."""

    name: str
    command: tuple[str, ...]
    """The program that speaks MCP on its standard input and output, if it is one."""
    per_agent: bool
    """Whether each agent has a process of its own."""
    max_body: int
    """Bytes that a client's message may have."""
    service: Service | None
    """Where it is reached, if by URL."""
    target: str
    """The URL's path and query."""
    tools: ToolMap
    names: ToolNames
    root: str
    """The folder that relative paths start from; empty if it is unknown."""

    @property
    def max_answer(self) -> int:
        """Return how many bytes one message of the server may have."""
        return max(self.max_body, DEFAULT_BODY)

    @property
    def sha256(self) -> str:
        """Return the digest of the file."""
        return self.tools.sha256

    @property
    def reached(self) -> str:
        """Name its address: the URL without a query, or its program."""
        if self.service is not None:
            return f"{self.service.origin}{self.target.partition('?')[0]}"
        return self.command[0]

    @property
    def scopes(self) -> tuple[str, ...]:
        """Return the scopes that its calls are made under."""
        unmatched = () if self.tools.unmatched == DENY else (self.tools.unmatched,)
        named = (rule.scope for rule in self.tools.rules)
        return tuple(dict.fromkeys((*named, *unmatched)))

    def rule_of(self, name: str, method: str = CALL) -> ToolRule | None:
        """Return the rule for a call of the tool *name*; nothing where it is denied.

        Requests of other methods, such as ``resources/read``, have rules by the name
        of their method, which no pattern for tools matches.
        """
        if method != CALL:
            family = method.partition("/")[0] + "/"
            for rule in self.tools.rules:
                if rule.pattern.startswith(family) and rule.matches.fullmatch(method):
                    return rule
            return self.tools.unmatched_rule
        at = self.names.find(name)
        if at is None or at == self.names.unmatched:
            return None if at is None else self.tools.unmatched_rule
        return self.tools.rules[at]

    def action_of(
        self,
        rule: ToolRule | None,
        tool: str,
        arguments: dict[str, Any],
        *,
        other: tuple[str, str] | None,
        unclear: frozenset[str] | None = None,
        exact: bytes = b"",
        answered: frozenset[tuple[str, ...]] = frozenset(),
    ) -> Action:
        """Return the action that a call is, read from its own arguments.

        Args:
            rule: the rule of the call.
            tool: its name.
            arguments: its arguments.
            other: the result of `spelt_otherwise` for the rule's `paths_of`, which
                takes long where there are many arguments.
            unclear: the result of `stated_twice`, which takes as long.
            exact: see `ToolCall.exact`.
            answered: see `ToolCall.answered`.

        Raises:
            UnmatchedToolError: it is none, or does not state its resource clearly.
        """
        if rule is None:
            text = f"No action is known for this tool: mcp/{self.name}.toml maps none."
            raise UnmatchedToolError("no_route", text)
        if len(arguments) > _MOST_ARGUMENTS:
            text = "The call has too many arguments."
            raise UnmatchedToolError("unclear_call", text)
        if other is not None:
            shown = f"{visible(other[0], 60)}, which is read as {visible(other[1], 60)}"
            text = f"The call has an argument {shown}: leave it out."
            raise UnmatchedToolError("unclear_call", text)
        path = _path_of(rule, arguments, answered, self.root) if rule.paths else None
        call = ToolCall(
            *(tool, arguments),
            unclear=unclear,
            exact=exact,
            answered=answered,
            path=path,
        )
        return self.tools.action_by(rule, call)


def _path_of(
    rule: ToolRule,
    arguments: Mapping[str, Any],
    answered: Collection[_Path],
    root: str,
) -> str:
    """Return the path with everything that a call reaches; see `reached_path`.

    Raises:
        UnmatchedToolError: a path is no text, an answer to a question of the server
            states it too, there are too many, or a tool that changes files has none.
    """
    values = [arguments[name] for name in rule.paths if arguments.get(name) is not None]
    stated = [t for one in values for t in (one if isinstance(one, list) else [one])]
    texts = [one for one in stated if isinstance(one, str)]
    unclear = len(texts) < len(stated) or (rule.changes and not texts)
    if unclear or any((name,) in answered for name in rule.paths):
        shown = " or ".join(visible(one, 60) for one in rule.paths)
        text = f"The call does not say its {shown}."
        raise UnmatchedToolError("unclear_call", text)
    if len(texts) > MOST_PATHS or sum(map(len, texts)) > MOST_CHARACTERS:
        text = "The call names too many paths. Make it smaller."
        raise UnmatchedToolError("unclear_call", text)
    return reached_path(texts, root, recursive=rule.recursive)


def _stated(rule: ToolRule) -> list[_Path]:
    """Return the paths of arguments that the action states by value."""
    names = _ARGUMENT.findall(rule.resource)
    if rule.paths:  # of several, the resource is a folder
        names = [*names[:-1], *(rule.paths if len(rule.paths) == 1 else ())]
    places = (place_of(p) for p in rule.parameters.values() if isinstance(p, str))
    stated = [tokens_of(pointer) for form, pointer in places if not form]
    return [(name,) for name in names] + stated


def _counted(rule: ToolRule) -> list[_Path]:
    """Return the paths of arguments that the action only counts, or names in part."""
    places = (place_of(p) for p in rule.parameters.values() if isinstance(p, str))
    named = [(name,) for name in rule.paths]
    return named + [tokens_of(pointer) for form, pointer in places if form]


def unsaid(rule: ToolRule, arguments: Mapping[str, Any]) -> list[str]:
    """Return the first few arguments that the action of a call does not state.

    A count says how many members there are, not which, and a path is stated if it is
    the one that is sent. An elevated token opens a call only if its action states
    everything that is sent.
    """
    stated, count = set(_stated(rule)), rule.parameters.get("count")
    # Where it is a list.
    counted = tokens_of(place_of(count)[1]) if isinstance(count, str) else None
    for name in rule.paths:
        path = arguments.get(name)
        if not isinstance(path, str) or resolve_path(path, "") != path:
            stated.discard((name,))
    problems: list[str] = []
    waiting: list[tuple[_Path, Any]] = [((name,), v) for name, v in arguments.items()]
    while waiting and len(problems) < _MOST_UNSAID:
        path, value = waiting.pop()
        if path in stated and not (path == counted and isinstance(value, list)):
            continue
        below = any(one[: len(path)] == path for one in stated)
        if below and isinstance(value, dict) and value:
            waiting += [((*path, name), one) for name, one in value.items()]
        else:
            problems.append("arguments/" + "/".join(path))
    return problems


def other_tool(servers: Iterable[McpServer], action: Action, own: object) -> str | None:
    """Return another tool that has calls of the same action.

    If a rule for several tools has a resource, that does not determine the tool.

    Args:
        servers: all servers.
        action: the action of a call.
        own: the rule of the call, if it is a call of a tool; it is skipped.

    Returns:
        a part of a sentence; None if no other tool has this action.
    """
    for server in servers:
        name = server.name
        place, _, tool = (action.resource or "").partition(":")
        unmatched = server.tools.unmatched == action.action and place == name
        if unmatched and own is not None and server.rule_of(tool, CALL) is None:
            return f"whether it is the tool {visible(tool, 60)} of {name}"
        for rule in server.tools.rules:
            several = "*" in rule.pattern and bool(rule.resource)
            if (rule is not own or several) and _may_be(rule, name, action):
                return f"whether it is the tool {rule.pattern} of {name}"
    return None


def _may_be(rule: ToolRule, server: str, action: Action) -> bool:
    """Check whether some call of a rule's tools is an action."""
    if rule.scope != action.action:
        return False
    stated = action.parameters
    fixed = {n: v for n, v in rule.parameters.items() if isinstance(v, int)}
    if not fixed.keys() <= stated.keys() <= rule.parameters.keys():
        return False
    if any(stated[name] != value for name, value in fixed.items()):
        return False
    template = rule.resource or f"{server}:{rule.pattern.replace('*', '{}')}"
    return has_form(action.resource or "", re.split(r"\{[^{}]*\}", template))


def paths_of(rule: ToolRule | None) -> list[_Path]:
    """Return where the arguments are that an action is read from."""
    return [] if rule is None else _stated(rule) + _counted(rule)


def spelt_otherwise(
    paths: Sequence[_Path], arguments: object
) -> tuple[str, str] | None:
    """Return a name that is read as one on *paths* in another way, and that one.

    A lenient server may go by the other spelling.
    """
    wanted: dict[int, tuple[object, set[str]]] = {}
    for path in paths:
        value = arguments
        for name in path:
            if isinstance(value, list) and name.isascii() and name.isdigit():
                value = value[int(name[:9])] if int(name[:9]) < len(value) else None
                continue
            if not isinstance(value, dict):
                break
            wanted.setdefault(id(value), (value, set()))[1].add(name)
            value = value.get(name)
    for value, names in wanted.values():
        folds = {fold_name(name): name for name in names}
        plains = {plain_name(name): name for name in names}
        for other in value if isinstance(value, dict) else ():
            meant = folds.get(fold_name(other)) or plains.get(plain_name(other))
            if meant is not None and other not in names:
                return other, meant
    return None


def doubts(
    paths: Sequence[_Path],
    places: Mapping[str, ArgumentPlace],
    arguments: dict[str, Any],
    answers: object = None,
) -> tuple[tuple[str, str] | None, frozenset[str], frozenset[_Path]]:
    """Find the causes of an unclear action, in a worker process.

    Args:
        paths: where the action is read.
        places: the parameters that are stated once.
        arguments: of the call.
        answers: those to a server's questions, which its tool reads as well.

    Returns:
        the results of `spelt_otherwise` and `stated_twice`, and those of *paths* that
        the answers state too, or that lead to or through a text that is JSON.
    """
    twice = stated_twice(places, arguments) | stated_twice(places, {"": answers})
    names = frozenset().union(*map(field_names, _names_in(answers)))
    answered = (
        path
        for path in paths
        if not names.isdisjoint(field_names(path[-1])) or _is_inner(arguments, path)
    )
    return spelt_otherwise(paths, arguments), twice, frozenset(answered)


def _is_inner(arguments: object, path: _Path) -> bool:
    """Check whether a path leads to or through a text that is JSON."""
    values = (find_member(arguments, path[: at + 1]) for at in range(len(path)))
    try:
        return any(isinstance(v, str) and inner_document(v) is not None for v in values)
    except ValueError:
        return True


def _names_in(document: object) -> set[str]:
    """Return the names of all members of a document, at any depth."""
    names, waiting = set[str](), [document]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            names.update(one)
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)
    return names


def parse_server(name: str, text: str, catalogue: Catalogue, base: Path) -> McpServer:
    """Read and validate one file.

    Args:
        name: the server's: the file's without ``.toml``.
        text: the file's text, also joined with its ``ca_file`` (`read_source`).
        catalogue: the scopes there are.
        base: the folder that a relative ``ca_file`` starts from.

    Returns:
        the server.

    Raises:
        ServiceError: with the fault and its remedy.
    """
    inner = TOOL_TABLES | {"credential": UpstreamCredential}
    source = source_of(text, base)
    text, files = split_source(source)
    table = read_table(text, McpServerFile, inner)
    if bool(table.command) == bool(table.url):
        raise ServiceError(
            "it is reached in no way, or in two",
            'write command = ["PROGRAM", "ARGUMENT"], or url = "https://HOST/mcp"',
        )
    check_cap(table.max_body)
    check_root(table.root)
    tools = make_map(name, source, table, catalogue)
    rules = (
        _with_path(name, one, table.tools[one.pattern].paths) for one in tools.rules
    )
    tools = replace(tools, rules=tuple(rules))
    if table.command:
        _check_command(table)
        service, target = None, ""
    else:
        if table.per_agent:
            raise ServiceError(
                "per_agent is of a command", "by URL each agent has its own sessions"
            )
        authorities = files.get(table.ca_file, "")
        service = _service(name, table, authorities, tools.sha256)
        target = _target(table.url)
    return McpServer(
        name,
        table.command,
        table.per_agent,
        table.max_body,
        service,
        target,
        tools,
        ToolNames.of(tools),
        table.root,
    )


def _with_path(name: str, rule: ToolRule, paths: Sequence[str]) -> ToolRule:
    """Return a rule of a server whose resource has ``{path}`` for all of its *paths*.

    Raises:
        ServiceError: its resource does not end with a path.
    """
    if not paths:
        return replace(rule, paths=())
    lead, _, last = (rule.resource or f"{name}:{{path}}").rpartition("{")
    names = {"path", *paths}
    if last.removesuffix("}") not in names or names & {*_ARGUMENT.findall(lead)}:
        raise ServiceError(
            f"tools.{visible(rule.pattern, 60)}: resource does not end with its path",
            'write resource = "NAME:{path}", or leave it out',
        )
    return replace(rule, resource=f"{lead}{{path}}")


def _check_command(table: McpServerFile) -> None:
    of_urls = (
        *(table.allow_private, table.allow_http, table.ca_file, table.drains_bodies),
    )
    if any(of_urls) or table.credential != UpstreamCredential():
        raise ServiceError(
            "a credential, a ca_file and the rules for addresses are of a url",
            "a command is a program of this machine, and has what its user has",
        )
    if any(not part or "\0" in part for part in table.command):
        raise ServiceError("command has an empty part")


def find_program(server: McpServer) -> str | None:
    """Return where the program of *server* is; nothing where there is none."""
    return shutil.which(Path(server.command[0]).expanduser())


def _service(name: str, table: McpServerFile, authorities: str, sha256: str) -> Service:
    origin = parse_origin(table.url, allow_http=table.allow_http, whole=False)
    table.credential.check(allow_http=table.allow_http)
    return Service(
        name=f"{FOLDER}/{name}",
        origin=origin,
        unmatched=DENY,
        allow_private=table.allow_private,
        allow_http=table.allow_http,
        authorities=authorities,
        credential=table.credential,
        routes=(),
        sha256=sha256,
        index=RouteIndex(()),
        drains_bodies=table.drains_bodies,
    )


def _target(url: str) -> str:
    """Return path and query of a URL, whose origin is checked."""
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        return parse_target(target.encode()).encoded
    except UnreadableRequestError as error:
        raise ServiceError(f"url: {error.what}", error.remedy) from None


class McpServers(ConfigFolder[McpServer]):
    """The MCP servers in effect."""

    def __init__(self, home: Home, catalogue: Callable[[], Catalogue]) -> None:
        """Read nothing yet; *catalogue* returns the one in effect."""
        super().__init__(
            home,
            FOLDER,
            lambda name, text: parse_server(name, text, catalogue(), home.config),
        )
