"""Draft the file of an MCP server from its list of tools, for a person to finish."""

from __future__ import annotations

import json
import re
from collections.abc import (
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from typing import Any, Final

import httpx
import msgspec

from agentvault_tui.clock import Clock
from agentvault_tui.errors import UsageError
from agentvault_tui.gateway.mcp.errors import McpError
from agentvault_tui.gateway.mcp.members import CALLED
from agentvault_tui.gateway.mcp.messages import CLIENT, LEGACY, own_message
from agentvault_tui.gateway.mcp.servers import McpServer
from agentvault_tui.gateway.mcp.stdio import McpProcess, ProcessEvents
from agentvault_tui.gateway.openapi import ACTS, guess_scope
from agentvault_tui.text import visible
from agentvault_tui.toml_table import write_key, write_value
from agentvault_tui.web.service_connection import UpstreamError

Tool = dict[str, Any]
_Ask = Callable[[dict[str, Any]], Awaitable[Mapping[str, Any]]]
_MOST_PAGES: Final = 50
_MOST_TOOLS: Final = 1_000
_MOST_BYTES: Final = 4 * 2**20
_TIMEOUT_S: Final = 15.0
_READS: Final = re.compile(
    r"(?:get|list|read|search|find|show|view|describe|fetch|query|count|check|stat)"
    r"(?![a-z])"
)
_JOINS: Final = frozenset({"and", "or", "then"})
"""Words behind which a name has a second verb (get_and_delete)."""
_FILE: Final = re.compile(
    r"(?:(?:file|dir|directory|folder|source|src|target|destination|dest|dst|old|new"
    r"|root|base)_?)?paths?|file_?names?|files?"
)
_MOVED: Final = frozenset({"source", "src", "destination", "dest", "dst"})
"""Arguments that are paths if a word of the tool's name says so."""
_MOVES: Final = frozenset({"move", "rename", "copy", "link", "symlink"})
"""Words of tools of a file server whose ``from`` and ``to`` are paths, too."""
_FILE_WORDS: Final = frozenset(
    {"file", "files", "dir", "directory", "directories", "folder", "folders"}
)
_BELOW: Final = frozenset(
    {
        *("search", "find", "grep", "glob", "tree", "walk", "scan", "index", "list"),
        *("ls", "dir", "directory", "folder", "delete", "remove", "move", "rename"),
        "copy",
    }
)
"""Words of tools that may act on everything below a folder."""
_OBJECT: Final = re.compile(r"uri|url|id|.*_id|name|repo|table|channel|key")
_ROLE: Final = re.compile(
    r"(?:from|to|source|src|target|destination|dest|dst|old|new|other|parent|base)_"
)
_PATH: Final = "path"
_MANY: Final = frozenset(
    {"item", "target", "document", "resource", "object", "record", "entry", "node"}
)
"""Lists with such a name may name objects of any kind."""
_DEPTH: Final = 3
_OF_FILES: Final = {
    "read:records": "read:files",
    "write:records": "write:files",
    "delete:records": "delete:files",
}
_STATED: Final = ("amount", "currency", "count")


async def tools_of_program(server: McpServer, clock: Clock) -> list[Tool]:
    """Start a server's program once, and read its tools.

    Raises:
        UpstreamError: it does not start, or does not answer.
        McpError: it speaks no revision of MCP that is known.
    """
    events = ProcessEvents(lambda *_: None, lambda _: None)
    for modern in (False, True):
        process = McpProcess(server, clock, events, modern=modern)
        try:
            await process.start()

            async def ask(
                params: dict[str, Any],
                process: McpProcess = process,
                modern: bool = modern,
            ) -> Mapping[str, Any]:
                message = own_message("tools/list", modern=modern, **params)
                envelope = await process.ask(message, None)
                return {name: json.loads(bytes(one)) for name, one in envelope.items()}

            return await _read_all(ask)
        except (McpError, UpstreamError):
            if modern:
                raise
        finally:
            await process.aclose()
    raise AssertionError  # each turn returns or raises


async def tools_of_url(url: str, token: str | None) -> list[Tool]:
    """Ask a server at a URL for its tools (MCP 2025-06-18, Streamable HTTP).

    Args:
        url: of its endpoint.
        token: its bearer token, if it wants one.

    Raises:
        UpstreamError: it does not answer, or refuses.
    """
    headers = {"Accept": "application/json, text/event-stream"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    async with httpx.AsyncClient(
        headers=headers, timeout=_TIMEOUT_S, trust_env=False, follow_redirects=False
    ) as http:
        begin = {"protocolVersion": LEGACY[0], "capabilities": {}, "clientInfo": CLIENT}
        reply, session = await _post(http, url, "initialize", begin, 1)
        if "result" not in reply:
            raise _refused("it refuses initialize")
        http.headers["MCP-Protocol-Version"] = LEGACY[0]
        if session is not None:
            http.headers["Mcp-Session-Id"] = session
        await _post(http, url, "notifications/initialized", {}, None)

        async def ask(params: dict[str, Any]) -> Mapping[str, Any]:
            answer, _ = await _post(http, url, "tools/list", params, 2)
            return answer

        return await _read_all(ask)


async def _post(
    http: httpx.AsyncClient,
    url: str,
    method: str,
    params: dict[str, Any],
    id_: int | None,
) -> tuple[Mapping[str, Any], str | None]:
    """Send a message; return the answer to it, and the session that it names."""
    body: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
    if id_ is not None:
        body["id"] = id_
    try:
        async with http.stream("POST", url, json=body) as reply:
            if reply.status_code in {401, 403}:
                raise _refused("it wants a credential: give --secret NAME")
            if not reply.is_success:
                raise _refused(f"it answers {reply.status_code}")
            session = reply.headers.get("mcp-session-id")
            text = bytearray()
            async for piece in reply.aiter_bytes():
                text += piece
                if len(text) > _MOST_BYTES:
                    raise _refused("its answer is too large")
                if id_ is not None and (answer := _answer(bytes(text), id_)):
                    return answer, session
            return {}, session
    except httpx.HTTPError as error:
        raise _refused(f"it cannot be reached ({type(error).__name__})") from None


def _answer(text: bytes, id_: int) -> Mapping[str, Any] | None:
    """Find the answer to a request in JSON, or in server-sent events so far."""
    parts = [line[5:] for line in text.splitlines() if line.startswith(b"data:")]
    for part in parts or [text]:
        try:
            value = msgspec.json.decode(part)
        except msgspec.DecodeError:
            continue
        if isinstance(value, dict) and value.get("id") == id_:
            return value
    return None


def _refused(why: str) -> UpstreamError:
    return UpstreamError(502, "upstream_unreachable", why)


async def _read_all(ask: _Ask) -> list[Tool]:
    """Read all pages of a list of tools."""
    tools_read: list[Tool] = []
    cursor: object = None
    for _ in range(_MOST_PAGES):
        answer = await ask({} if cursor is None else {"cursor": cursor})
        result = answer.get("result")
        tools = result.get("tools") if isinstance(result, dict) else None
        if not isinstance(tools, list):
            raise _refused("it has no list of tools")
        tools_read += [one for one in tools if isinstance(one, dict)]
        cursor = result.get("nextCursor") if isinstance(result, dict) else None
        if cursor is None or len(tools_read) >= _MOST_TOOLS:
            break
    return tools_read[:_MOST_TOOLS]


def draft_file(name: str, head: Iterable[str], tools: Iterable[Tool]) -> str:
    """Write ``mcp/NAME.toml`` with an entry for each tool.

    A scope is guessed by the words of the tool's name, and by its annotations where
    these are stricter, or the name says nothing. Each guess is for a person to check:
    both are the server's own words.

    Args:
        name: of the server.
        head: the lines that say how it is reached.
        tools: as the server lists them.

    Returns:
        TOML.

    Raises:
        UsageError: the server has no tool that an entry could name.
    """
    lines = [
        "# Drafted from the server's own list of tools, which may say anything: check",
        "# each scope, and remove the tools that agents do not need.",
        *head,
        'unmatched = "deny"',
    ]
    tools = [*tools]
    files = any(_paths(one, files=False) for one in tools)
    reads = [_read(one, files=files) for one in tools]
    kinds = frozenset(_kind(one) for some in reads for one in some)
    drafted: list[str] = []
    for tool, read in zip(tools, reads, strict=True):
        entry = _entry(name, tool, read, files=files)
        if entry[1:] and (unread := _unread(_arguments(tool), read, kinds)):
            why = f"Left out, for its resource would not name: {', '.join(unread)}"
            entry = [visible(why, 200), *"\n".join(entry).split("\n")]
            entry = [f"# {one}" for one in entry]
        drafted += ["", *entry]
    if not any("[tools." in line for line in drafted):
        raise UsageError("the server has no tools", "write mcp/NAME.toml by hand")
    if any("paths = " in line for line in drafted):
        lines += ['# root = "/srv/shared"   # where its relative paths start, if known']
    if any("amount" in _arguments(tool) for tool in tools):
        lines += ["", "# [money]", '# unit = "minor"   # 4200 is 42.00; or "major"']
    return "\n".join(lines + drafted) + "\n"


def _entry(server: str, tool: Tool, read: Sequence[str], *, files: bool) -> list[str]:
    """Return the lines of a tool's entry; one comment if no entry can name it.

    Args:
        server: its name.
        tool: as the server lists it.
        read: the result of `_read`.
        files: whether the server has tools with paths.
    """
    tool_name = str(tool.get("name", ""))
    shown = visible(" ".join(tool_name.split()), 100)
    if not re.fullmatch(r"[\x21-\x7e]{1,128}", tool_name) or "*" in tool_name:
        return [f"# Left out, for no entry can name it: {shown}"]
    if tool_name in CALLED:
        return [f"# Left out, for an entry would permit MCP's method: {shown}"]
    names, words = _arguments(tool), _words(tool_name)
    scope, why = _scope(words, tool.get("annotations"))
    paths = _paths(tool, files=files)
    if paths or (files and not _FILE_WORDS.isdisjoint(words)):
        scope = _OF_FILES.get(scope, scope)
    lines = [f"[tools.{write_key(tool_name)}]", f'scope = "{scope}"']
    if paths:
        lines.append(f"paths = {write_value(paths)}")
        lines += [] if _BELOW.isdisjoint(words) else ["recursive = true"]
    else:
        lines += [f"resource = {write_value(f'{server}:{{{one}}}')}" for one in read]
    stated: dict[str, str] = {one: f"/{one}" for one in _STATED if one in names}
    for one in ("recipients", "to"):
        if one in names:
            stated["recipients"] = f"count:/{one}"
            break
    if stated:
        pairs = ", ".join(f"{key} = {write_value(at)}" for key, at in stated.items())
        lines.append(f"parameters = {{ {pairs} }}")
    description = visible(" ".join(str(tool.get("description", "")).split()), 100)
    comments = [f"# {text}" for text in (description, why) if text]
    return [*comments, *lines]


def _arguments(tool: Tool) -> dict[str, object]:
    """Return the arguments that a tool declares: the schema of each, by its name."""
    schema = tool.get("inputSchema")
    declared = schema.get("properties") if isinstance(schema, dict) else None
    return declared if isinstance(declared, dict) else {}


def _read(tool: Tool, *, files: bool) -> list[str]:
    """Return the arguments that a tool's resource names: its paths, or one object."""
    if paths := _paths(tool, files=files):
        return paths
    schema = tool.get("inputSchema")
    needed = schema.get("required") if isinstance(schema, dict) else None
    required = [str(one) for one in needed] if isinstance(needed, list) else []
    plain = (one for one in required if re.fullmatch(r"[A-Za-z0-9_.-]+", one))
    return [one for one in plain if _OBJECT.fullmatch(one.lower())][:1]


def _paths(tool: Tool, *, files: bool) -> list[str]:
    """Return the arguments that are paths, or lists of paths, by their names."""
    words = _words(str(tool.get("name", "")))
    own = not _FILE_WORDS.isdisjoint(words)
    moves = (own or files) and not _MOVES.isdisjoint(words)
    moved = {*(_MOVED if own or moves else ()), *(("from", "to") if moves else ())}
    return [
        name
        for name, schema in _arguments(tool).items()
        if (_FILE.fullmatch(name.lower()) or name.lower() in moved) and _is_text(schema)
    ]


def _unread(
    arguments: Mapping[str, object], read: Sequence[str], kinds: frozenset[str]
) -> list[str]:
    """Return arguments that name objects which the resource leaves out.

    A rule on the resource of another tool would not count for these calls.

    Args:
        arguments: the schema of each, by its name.
        read: those that the resource names.
        kinds: of the arguments that the resources of the server's tools name.
    """
    own = {_kind(one) for one in read}
    # Next to an id, a name is a value and not another object.
    single = kinds - {"name"} if own and "name" not in own else kinds
    unread: list[str] = []
    for name, schema in arguments.items():
        if name in read:
            continue
        inner = {*_inner_names(schema, _DEPTH), *([name] if _is_list(schema) else ())}
        others = {_kind(one) for one in inner}
        if _kind(name) in single or any(
            one in _MANY or _is_same_kind(one, kind) for one in others for kind in kinds
        ):
            unread.append(name)
    return unread


def _kind(name: str) -> str:
    """Return the kind of object that an argument names: of ``to_note_ids`` note_id."""
    text = "_".join(_words(name))
    if _FILE.fullmatch(text):
        return _PATH
    text = _ROLE.sub("", text)
    return re.sub("ie$", "y", text[:-1]) if re.search("[^s]s$", text) else text


def _is_same_kind(one: str, other: str) -> bool:
    """Check whether both may name one object, as ``id`` and ``note_id`` do."""
    short, long = sorted((f"_{one}", f"_{other}"), key=len)
    return long.endswith(short)


def _is_list(schema: object) -> bool:
    kinds = schema.get("type") if isinstance(schema, dict) else None
    return isinstance(schema, dict) and ("items" in schema or "array" in str(kinds))


def _inner_names(schema: object, depth: int) -> Iterator[str]:
    """List the names of members inside a value, down to some depth."""
    if not isinstance(schema, dict) or not depth:
        return
    members = schema.get("properties")
    for name, inner in members.items() if isinstance(members, dict) else ():
        yield name
        yield from _inner_names(inner, depth - 1)
    yield from _inner_names(schema.get("items"), depth - 1)


def _is_text(schema: object) -> bool:
    """Check whether a value is a text or a list of texts, if its schema says it."""
    kinds = schema.get("type") if isinstance(schema, dict) else None
    if kinds == "array" and isinstance(schema, dict):
        schema = schema.get("items")
        kinds = schema.get("type") if isinstance(schema, dict) else None
    if isinstance(schema, dict) and "properties" in schema:
        return False
    return kinds is None or "string" in (kinds if isinstance(kinds, list) else [kinds])


def _words(name: str) -> list[str]:
    """Split the name of a tool into words, in lower case."""
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+", "_", name).lower()
    return [one for one in text.split("_") if one]


def _scope(words: Sequence[str], annotations: object) -> tuple[str, str]:
    """Guess the scope of a tool; the stricter one if name and annotations differ.

    Returns:
        the scope; and the reason, if neither name nor annotations say that it writes.
    """
    name = "_".join(words)
    by_name = guess_scope("post", name)
    notes = annotations if isinstance(annotations, dict) else {}
    first, *rest = words or [""]
    acts = ACTS.match(first) is not None or not _JOINS.isdisjoint(rest)
    reads = _READS.match(name) is not None and not acts
    hint = notes.get("readOnlyHint")
    if by_name == "delete:records":
        return by_name, ""
    if by_name != "write:records":  # get_invoice: the word may be a noun
        return "read:records" if reads and hint is True else by_name, ""
    if notes.get("destructiveHint") is True and hint is not True:
        return "delete:records", ""
    reads = reads or (hint is True and not acts)
    if reads and hint is not False:
        return "read:records", ""
    unknown = hint is None and not acts
    return by_name, "no readOnlyHint: taken as writing" if unknown else ""
