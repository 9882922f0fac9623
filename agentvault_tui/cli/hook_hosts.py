"""Read the hook calls of each agent host, and write the answers.

docs/hosts.md has the sources, and each host's reaction to a denial.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Final, NamedTuple

from agentvault_tui import strict_json

_FILE_HEADER: Final = re.compile(
    r"[*]{3}\s*(add|update|delete)\s+file\s*:(.*)|[*]{3}\s*(move)\s+to\s*:(.*)",
    re.IGNORECASE | re.DOTALL,
)
_ENVIRONMENT: Final = re.compile(
    r"[*]{3}\s*environment\s+id\s*:(.*)", re.IGNORECASE | re.DOTALL
)
"""The line by which a patch of Codex is for the files of another environment."""
PROGRAM: Final = (sys.executable, "-E", "-P", "-m", "agentvault_tui.cli")
"""The program that a host's configuration names.

It takes no module from ``PYTHONPATH`` or the working folder: both may be the project's,
and a file that an agent writes there would answer for the hook.
"""
_HOME: Final = re.compile("--h")
_OF_PATCH: Final = ("files", "written", "deleted")
"""Arguments that the hook adds to a patch; a call that has one is refused."""


class HookError(Exception):
    """Why a call cannot be decided."""


class HookCall(NamedTuple):
    """One call, as its host tells of it."""

    event: str
    tool: str
    arguments: dict[str, object]
    cwd: str
    server: str = ""
    """The MCP server of the tool, by its name in the host or its URL."""
    server_tool: str = ""
    """The tool by the name it has at that server."""
    roots: tuple[str, ...] = ()
    """The project's folders, where the host states them."""


class HookVerdict(NamedTuple):
    """The broker's answer, or the reason why there is none."""

    allowed: bool
    approved: bool
    """Whether a person did, for exactly this call."""
    message: str


class HookAnswer(NamedTuple):
    """The host's input: standard output, standard error, exit code."""

    out: object
    err: str = ""
    code: int = 0


class HostWire(NamedTuple):
    """How one host writes its hook calls, and reads their answers."""

    read: Callable[[dict[str, object]], HookCall]
    write: Callable[[HookCall, HookVerdict], HookAnswer]
    unread: Callable[[str], HookAnswer]
    """The no to a call that cannot be read."""
    events: frozenset[str]
    """Events before a tool call, or that ask for a permission."""
    shells: Mapping[str, str]
    """By tool, the argument with a command line for a POSIX shell."""
    plain: frozenset[str]
    """Arguments without influence on the commands that such a tool runs."""
    folder: str = ""
    """The argument with the folder that a glob starts from."""
    project: str = ""
    """The environment variable with the project's folder."""
    elsewhere: bool = False
    """Whether a command may run in another folder than the stated one: the shell
    persists (Copilot CLI), or the hook does not get `workdir` (Codex)."""
    searching: frozenset[str] = frozenset()
    """Tools that edit another file of the project with the same name if the one that
    a relative path names is missing."""
    splitting: frozenset[str] = frozenset()
    """Tools that read a path with blanks as several paths if no file has that name, or
    of which it is not known that they do not."""
    settled: tuple[int, int, int] | None = None
    """The first version in which a call runs in the folder that its hook was given; in
    earlier ones, a ``cd`` of another call moves it. None if none does."""
    prose: Mapping[str, str] = {}
    """By tool, the argument that holds the model's own words about the call, which
    nothing acts on."""

    def moves(self, environ: Mapping[str, str]) -> bool:
        """Check whether a ``cd`` of one call may move another that is being decided.

        Args:
            environ: the host's environment. Claude Code states its version there, as in
                ``AI_AGENT=claude-code_2-1-332_harness``.
        """
        version = _VERSION.match(environ.get("AI_AGENT", ""))
        return self.settled is not None and (
            version is None or tuple(map(int, version.groups())) < self.settled
        )


_VERSION: Final = re.compile(
    r"claude-code[_/]([0-9]{1,9})[-.]([0-9]{1,9})[-.]([0-9]{1,9})(?![0-9])", re.ASCII
)


def _text(document: dict[str, object], *names: str) -> str:
    value = next((document[name] for name in names if name in document), "")
    if not isinstance(value, str):
        raise HookError(f"{names[0]} is no text")
    return value


def _table(value: object, name: str) -> dict[str, object]:
    """Return arguments, which some hosts write as JSON in a text."""
    if isinstance(value, str):
        try:
            value = strict_json.loads(value)
        except ValueError:
            raise HookError(f"{name} is no JSON") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise HookError(f"{name} is no object")
    return value


def _plain_call(document: dict[str, object]) -> HookCall:
    """Read a call as Claude Code, Codex and Gemini write it."""
    tool = _text(document, "tool_name")
    arguments = _table(document.get("tool_input"), "tool_input")
    if tool == "apply_patch":
        arguments = _with_files(arguments, "command", "input", "patch")
    event = _text(document, "hook_event_name")
    context = document.get("mcp_context")  # of Gemini
    if isinstance(context, dict) and "server_name" in context:
        server, inner = _text(context, "server_name"), _text(context, "tool_name")
    elif tool.startswith("mcp__"):
        server, _, inner = tool.removeprefix("mcp__").partition("__")
        if inner.startswith("_") or "__" in inner:
            server = inner = ""  # it could be split in two ways
    else:
        server = inner = ""
    return HookCall(event, tool, arguments, _text(document, "cwd"), server, inner)


def _with_files(arguments: dict[str, object], *names: str) -> dict[str, object]:
    """Add the files that a patch names, read as leniently as any host reads them.

    Codex trims the lines that name a file, and takes all that follows as its name. A
    move deletes the one file and writes the other. The files of another environment of
    Codex are named ``ENVIRONMENT://FILE``, which is no path of this machine.

    Raises:
        HookError: it names none, or an argument is called as one that is added.
    """
    if any(name in arguments for name in _OF_PATCH):
        raise HookError(f"a patch has no arguments {', '.join(_OF_PATCH)}")
    given = [arguments[name] for name in names if name in arguments]
    if not given:
        return arguments
    texts = [
        one for all_ in given for one in (all_ if isinstance(all_, list) else [all_])
    ]
    if not all(isinstance(one, str) for one in texts):
        raise HookError("the patch is no text")
    written, deleted, last = set[str](), set[str](), ""
    lines = [one.strip() for one in "\n".join(map(str, texts)).split("\n")]
    others = [one[1].strip() for one in map(_ENVIRONMENT.fullmatch, lines) if one]
    place = f"{others[0]}://" if others else ""
    for line in lines:
        if not (match := _FILE_HEADER.fullmatch(line)):
            continue
        kind, name = (match[1] or match[3]).lower(), match[2] or match[4] or ""
        name = name.removeprefix(" ")
        if not name:
            raise HookError("the patch names a file without a name")
        name = place + name
        (deleted if kind == "delete" else written).add(name)
        if kind == "move":
            deleted.add(last)
            written.discard(last)
        last = name
    if not (written or deleted - {""}):
        raise HookError("the patch names no file")
    files = {"written": sorted(written), "deleted": sorted(deleted - {""})}
    return arguments | {"files": sorted(written | deleted - {""}), **files}


def _claude(call: HookCall, verdict: HookVerdict) -> HookAnswer:
    """Answer PreToolUse and PermissionRequest of Claude Code.

    A permission by policy does not skip the host's own rules and prompts; a person's
    fresh approval does.
    """
    if call.event == "PermissionRequest":
        return _permission(verdict)
    if verdict.allowed and not verdict.approved:
        return HookAnswer({})
    return _pre_tool_use("allow" if verdict.allowed else "deny", verdict.message)


def _codex(call: HookCall, verdict: HookVerdict) -> HookAnswer:
    """Answer Codex: it takes a no or silence, and runs on after any other answer."""
    if call.event == "PermissionRequest":
        return _permission(verdict)
    return (
        HookAnswer(None) if verdict.allowed else _pre_tool_use("deny", verdict.message)
    )


def _pre_tool_use(decision: str, why: str) -> HookAnswer:
    return HookAnswer(
        {
            "hookSpecificOutput": {
                "hookEventName": "PreToolUse",
                "permissionDecision": decision,
                "permissionDecisionReason": why,
            }
        }
    )


def _permission(verdict: HookVerdict) -> HookAnswer:
    decision: dict[str, object] = {"behavior": "allow"}
    if not verdict.allowed:
        decision = {"behavior": "deny", "message": verdict.message}
    output = {"hookEventName": "PermissionRequest", "decision": decision}
    return HookAnswer({"hookSpecificOutput": output})


def blocked(why: str) -> HookAnswer:
    """Block by exit code 2, with the reason on standard error."""
    return HookAnswer(None, why, 2)


def _cursor_call(document: dict[str, object]) -> HookCall:
    event, cwd = _text(document, "hook_event_name"), _text(document, "cwd")
    match event:
        case "beforeShellExecution":
            return HookCall(
                event, "Shell", {"command": _text(document, "command")}, cwd
            )
        case "beforeMCPExecution":
            arguments = _table(document.get("tool_input"), "tool_input")
            names = ("url", "command")
            server: dict[str, object] = {n: document[n] for n in names if n in document}
            # Which server it is counts for what a person approves.
            arguments |= {"mcp_server": server} if server else {}
            name, tool = _cursor_server(server), _text(document, "tool_name")
            return HookCall(event, f"MCP:{tool}", arguments, cwd, name, tool)
        case "beforeReadFile":
            return HookCall(
                event, "Read", {"file_path": _text(document, "file_path")}, cwd
            )
    return _plain_call(document)


def _with_roots(document: dict[str, object]) -> HookCall:
    """Read a call of Cursor, and the folders that its window has open."""
    call, roots = _cursor_call(document), document.get("workspace_roots")
    given = roots if isinstance(roots, list) else []
    return call._replace(roots=tuple(one for one in given if isinstance(one, str)))


def _cursor_server(document: dict[str, object]) -> str:
    """Return the URL of an MCP server, or the name that our own command gives it."""
    if isinstance(url := document.get("url"), str) and url:
        return url
    try:
        words = shlex.split(_text(document, "command"))
    except ValueError:
        return ""
    script = str(PurePath(sys.executable).with_name("agentvault"))
    for own in ([*PROGRAM], [sys.argv[0]], [script]):
        if words[: len(own) + 2] == [*own, "mcp", "stdio"]:
            # With another home another broker decides about its calls, or none.
            ours = _home_of(words) == _home_of(sys.argv)
            return words[len(own) + 2] if ours and len(words) > len(own) + 2 else ""
    return ""


def _home_of(words: Sequence[str]) -> list[str]:
    """Return the home in a command line of ours, in any spelling."""
    pairs = zip(words, [*words[1:], ""], strict=True)
    homes = ((one.partition("=")[2] or then) for one, then in pairs if _HOME.match(one))
    return list(homes)


def _cursor(_: HookCall, verdict: HookVerdict) -> HookAnswer:
    if verdict.allowed:
        return HookAnswer({"permission": "allow"})
    return _cursor_no(verdict.message)


def _cursor_no(why: str, code: int = 0) -> HookAnswer:
    output = {"permission": "deny", "user_message": why, "agent_message": why}
    return HookAnswer(output, "", code)


def _gemini(_: HookCall, verdict: HookVerdict) -> HookAnswer:
    if verdict.allowed:
        return HookAnswer({"decision": "allow"})
    return HookAnswer({"decision": "deny", "reason": verdict.message})


def _files_of(arguments: dict[str, object], name: str) -> list[object]:
    files = arguments.get(name, [])
    return files if isinstance(files, list) else []


def _copilot_call(document: dict[str, object]) -> HookCall:
    """Read a call by the names of either of Copilot's formats."""
    tool = _text(document, "toolName", "tool_name")
    given = document.get("toolArgs", document.get("tool_input"))
    if tool in {"apply_patch", "Edit"}:
        if isinstance(given, str) and not given.lstrip().startswith("{"):
            given = {"patch": given}
        arguments = _with_files(_table(given, "toolArgs"), "patch", "input", "command")
        for name in ("path", "file_path"):
            if isinstance(path := arguments.get(name), str) and path:
                more = dict.fromkeys((*_files_of(arguments, "files"), path))
                wrote = dict.fromkeys((*_files_of(arguments, "written"), path))
                arguments |= {"files": list(more), "written": list(wrote)}
                arguments.setdefault("deleted", [])
    else:
        arguments = _table(given, "toolArgs")
    event = _text(document, "hook_event_name", "hookEventName", "hookName")
    if not event and ("toolResult" in document or "tool_response" in document):
        event = "postToolUse"  # which its own format does not name
    server, _, inner = tool.rpartition("-")  # wrong, and so unknown, for a-b-c
    inner = inner if server else ""
    return HookCall(event, tool, arguments, _text(document, "cwd"), server, inner)


def _copilot(call: HookCall, verdict: HookVerdict) -> HookAnswer:
    if call.event.lower() == "permissionrequest":
        output = {"behavior": "allow" if verdict.allowed else "deny"}
        more = {} if verdict.allowed else {"message": verdict.message}
        return HookAnswer(output | more)
    if verdict.allowed and not verdict.approved:
        return HookAnswer({})
    return HookAnswer(
        {
            "permissionDecision": "allow" if verdict.allowed else "deny",
            "permissionDecisionReason": verdict.message,
        }
    )


_TOOL_EVENTS: Final = frozenset({"PreToolUse", "PermissionRequest"})
HOSTS: Final = {
    "claude-code": HostWire(
        _plain_call,
        _claude,
        blocked,
        _TOOL_EVENTS,
        {"Bash": "command"},
        frozenset({"command", "timeout", "run_in_background", "description"}),
        "path",
        "CLAUDE_PROJECT_DIR",
        settled=(2, 1, 332),
        prose=dict.fromkeys(("Bash", "Task", "Agent"), "description"),
    ),
    # Exit code 2 alone was seen to be ignored, so the answer says it.
    "codex": HostWire(
        _plain_call,
        _codex,
        lambda why: _pre_tool_use("deny", why),
        _TOOL_EVENTS,
        {"Bash": "command", "exec_command": "cmd"},
        frozenset(
            {
                *("cmd", "command", "justification", "max_output_tokens", "timeout_ms"),
                "yield_time_ms",
            }
        ),
        elsewhere=True,
        prose=dict.fromkeys(("Bash", "shell", "exec_command"), "justification"),
    ),
    "cursor": HostWire(
        _with_roots,
        _cursor,
        lambda why: _cursor_no(why, 2),
        frozenset(
            {
                *("beforeShellExecution", "beforeMCPExecution", "beforeReadFile"),
                "preToolUse",
            }
        ),
        {"Shell": "command"},
        frozenset({"command"}),
        "path",
        "CURSOR_PROJECT_DIR",
        splitting=frozenset({"Grep"}),
    ),
    "gemini": HostWire(
        _plain_call,
        _gemini,
        blocked,
        frozenset({"BeforeTool"}),
        {"run_shell_command": "command"},
        frozenset({"command", "description", "is_background"}),
        "dir_path",
        "GEMINI_PROJECT_DIR",
        searching=frozenset({"replace"}),
        prose={"run_shell_command": "description"},
    ),
    "copilot": HostWire(
        _copilot_call,
        _copilot,
        blocked,
        # By its own names an event is not named: each hook is for one.
        frozenset({"", "preToolUse", "permissionRequest"}) | _TOOL_EVENTS,
        {"bash": "command", "Bash": "command"},
        frozenset({"command", "description"}),
        "path",
        elsewhere=True,
        splitting=frozenset({"grep", "rg", "Grep", "glob", "Glob"}),
        prose=dict.fromkeys(("bash", "powershell", "Bash"), "description"),
    ),
}
"""By the name of the host; the shipped maps are of the same ones."""
