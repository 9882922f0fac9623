"""``agentvault hook``: one hook call of an agent host, answered in the host's words.

A host starts it before every call of a tool, so it imports little: the standard
library, the home, and no command line library. Whatever goes wrong is a no, wherever
the host takes one: docs/hosts.md says where it does not.
"""

from __future__ import annotations

import json
import re
import shlex
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from agentvault_tui import strict_json
from agentvault_tui.errors import AgentVaultError

if TYPE_CHECKING:
    from types import FrameType

LARGEST: Final = 8 * 1024 * 1024
"""Bytes of a hook call."""
DEADLINE: Final = 28.0
"""Seconds until it answers whatever happens: VS Code waits 30 by default."""
_MOST: Final = 48_000
"""Bytes of arguments that are sent to the broker, whose bodies have 64 KiB."""
_SAID: Final = 500
"""Characters of the model's own words; longer ones stay an argument."""
_PATCHED: Final = re.compile(
    r"^\*\*\* (?:Add|Update|Delete) File: (.+)|^\*\*\* Move to: (.+)", re.MULTILINE
)


class HookError(Exception):
    """Why a call cannot be decided."""


class HookCall(NamedTuple):
    """One call, as its host tells of it."""

    event: str
    tool: str
    arguments: dict[str, object]
    cwd: str
    server: str = ""
    """The MCP server whose tool it is, by its name in the host or its URL."""
    server_tool: str = ""
    """The tool by the name it has at that server."""


class HookVerdict(NamedTuple):
    """What the broker said, or why it could not be asked."""

    allowed: bool
    approved: bool
    """Whether a person did, for exactly this call."""
    message: str


class HookAnswer(NamedTuple):
    """What the host reads: standard output, standard error, exit code."""

    out: object
    err: str = ""
    code: int = 0


class HostWire(NamedTuple):
    """How one host writes its hook calls, and reads their answers."""

    read: Callable[[dict[str, object]], HookCall]
    write: Callable[[HookCall, HookVerdict], HookAnswer]
    unread: Callable[[str], HookAnswer]
    """The no to a call that cannot be read."""
    prose: Mapping[str, str] = {}
    """By tool, the argument that holds the model's own words about the call, which
    nothing acts on."""


def main(arguments: Sequence[str]) -> int | None:
    """Answer the hook call on standard input.

    Args:
        arguments: after ``agentvault hook``.

    Returns:
        the exit code; None when the command line is not of the plain form, such as
        with ``--help``.
    """
    words, options = [], {"--agent": "", "--home": ""}
    left = list(arguments)
    while left:
        name, mark, value = left.pop(0).partition("=")
        if name in options and (mark or left):
            options[name] = value if mark else left.pop(0)
        elif name.startswith("-"):
            return None
        else:
            words.append(name)
    if len(words) != 1 or words[0] not in HOSTS or not options["--agent"]:
        return None
    return answer(words[0], options["--agent"], options["--home"] or None)


def answer(host: str, agent: str, home: str | None) -> int:
    """Read one hook call, ask the broker of *home*, and write what *host* reads.

    Returns:
        the exit code.
    """
    signal.signal(signal.SIGALRM, _too_long)
    signal.setitimer(signal.ITIMER_REAL, DEADLINE)
    known = HOSTS[host]
    call = None
    try:
        call = _read(known)
        written = known.write(call, _decided(host, agent, home, call))
    except Exception as error:  # noqa: BLE001 - whatever it is, the answer is a no
        why = f"AgentVault did not decide: {_told(error)}"
        no = HookVerdict(False, False, why)
        written = known.write(call, no) if call else known.unread(why)
    signal.setitimer(signal.ITIMER_REAL, 0)
    if written.out is not None:
        sys.stdout.write(json.dumps(written.out) + "\n")
    if written.err:
        sys.stderr.write(written.err + "\n")
    sys.stdout.flush()
    return written.code


def _too_long(_: int, __: FrameType | None) -> None:
    raise HookError(f"there was no answer within {DEADLINE:.0f} s")


def _told(error: Exception) -> str:
    if isinstance(error, AgentVaultError):
        return error.diagnosis()
    return str(error) if isinstance(error, HookError) else type(error).__name__


def _read(host: HostWire) -> HookCall:
    raw = sys.stdin.buffer.read(LARGEST + 1)
    if len(raw) > LARGEST:
        raise HookError(f"the call has more than {LARGEST // 1024 // 1024} MiB")
    try:
        told = strict_json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise HookError(f"the call on standard input is no JSON ({error})") from None
    if not isinstance(told, dict):
        raise HookError("the call on standard input is no JSON object")
    call = host.read(told)
    if not call.tool:
        raise HookError("the call names no tool")
    return call


def _decided(host: str, agent: str, home: str | None, call: HookCall) -> HookVerdict:
    from agentvault_tui.home import Home

    said = call.arguments.get(prose := HOSTS[host].prose.get(call.tool, ""))
    if isinstance(said, str) and len(said) <= _SAID:
        rest = {name: one for name, one in call.arguments.items() if name != prose}
        call = call._replace(arguments=rest)
    else:
        said = ""
    arguments, omitted = _shortened(call.arguments)
    told = _ask(
        str(Home.locate(home).operator_socket),
        f"/api/hooks/{host}",
        {
            "agent": agent,
            "tool": call.tool,
            "arguments": arguments,
            "omitted": omitted,
            **({"arguments_sha256": _digest(call.arguments)} if omitted else {}),
            "cwd": call.cwd[:4000],
            "reason": said,
            "mcp_server": call.server[:400],
            "mcp_tool": call.server_tool[:400],
            "wait": True,
        },
    )
    message, stepup = str(told.get("message")), told.get("auth_req_id")
    if stepup:
        message = (
            f"{message.rstrip('.')}. A person has to approve this in AgentVault "
            f"({stepup}). When they have, make exactly the same call again."
        )
    approved = told.get("reason") == "stepup_approved"
    return HookVerdict(told.get("outcome") == "allowed", approved, message)


def _ask(path: str, target: str, body: dict[str, object]) -> dict[str, object]:
    """Send one request over the broker's socket; a whole HTTP client takes 90 ms."""
    content = json.dumps(body).encode()
    head = (
        f"POST {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    received = bytearray()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(path)
            connection.sendall(head.encode() + content)
            while piece := connection.recv(65_536):
                received += piece
    except OSError as error:
        raise HookError(
            f"no broker answers ({error.strerror}): start `agentvault serve`"
        ) from None
    top, _, text = bytes(received).partition(b"\r\n\r\n")
    status = top[9:12]
    try:
        told = json.loads(text)
    except ValueError:
        raise HookError("the broker broke off") from None
    if status != b"200" or not isinstance(told, dict):
        what = told.get("detail", "") if isinstance(told, dict) else ""
        raise HookError(f"{what or 'the broker refused'} ({status.decode('latin-1')})")
    return told


def _shortened(arguments: dict[str, object]) -> tuple[dict[str, object], list[str]]:
    """Leave out arguments that no body has room for, the longest first."""
    sizes = {name: len(json.dumps(value)) for name, value in arguments.items()}
    left = sum(sizes.values()) + sum(map(len, sizes))
    omitted = []
    for name in sorted(sizes, key=lambda one: sizes[one], reverse=True):
        if left <= _MOST:
            break
        omitted.append(name)
        left -= sizes[name] + len(name)
    kept = {name: value for name, value in arguments.items() if name not in omitted}
    return kept, [name for name in omitted if len(name) <= 200]


def _digest(arguments: dict[str, object]) -> str:
    """Return what the broker makes of arguments itself where it is sent all of them."""
    import hashlib

    text = json.dumps(arguments, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _text(told: dict[str, object], *names: str) -> str:
    found = next((told[name] for name in names if name in told), "")
    if not isinstance(found, str):
        raise HookError(f"{names[0]} is no text")
    return found


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


def _plain_call(told: dict[str, object]) -> HookCall:
    """Read a call as Claude Code, Codex and Gemini write it."""
    tool = _text(told, "tool_name")
    arguments = _table(told.get("tool_input"), "tool_input")
    if tool == "apply_patch":
        arguments = _with_files(arguments, "command", "input", "patch")
    event = _text(told, "hook_event_name")
    context = told.get("mcp_context")  # of Gemini
    if isinstance(context, dict) and "server_name" in context:
        server, inner = _text(context, "server_name"), _text(context, "tool_name")
    elif tool.startswith("mcp__"):
        server, _, inner = tool.removeprefix("mcp__").partition("__")
        if inner.startswith("_") or "__" in inner:
            server = inner = ""  # it could be split in two ways
    else:
        server = inner = ""
    return HookCall(event, tool, arguments, _text(told, "cwd"), server, inner)


def _with_files(arguments: dict[str, object], *names: str) -> dict[str, object]:
    """Add the files that a patch names, so that policy can count them."""
    told = (arguments.get(name) for name in names)
    patch = next((text for text in told if isinstance(text, str)), "")
    files = sorted({one or other for one, other in _PATCHED.findall(patch)})
    return arguments | ({"files": files} if files else {})


def _claude(call: HookCall, verdict: HookVerdict) -> HookAnswer:
    """Answer PreToolUse and PermissionRequest of Claude Code.

    What policy allows is no reason to skip the host's own rules and prompts; what a
    person approved a moment ago is.
    """
    if call.event == "PermissionRequest":
        return _permission(verdict)
    if call.event != "PreToolUse":
        return _stderr(f"AgentVault decides no {call.event or 'such'} event")
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
    told = {"hookEventName": "PermissionRequest", "decision": decision}
    return HookAnswer({"hookSpecificOutput": told})


def _stderr(why: str) -> HookAnswer:
    """Block by exit code 2, with the reason on standard error."""
    return HookAnswer(None, why, 2)


def _cursor_call(told: dict[str, object]) -> HookCall:
    event, cwd = _text(told, "hook_event_name"), _text(told, "cwd")
    match event:
        case "beforeShellExecution":
            return HookCall(event, "Shell", {"command": _text(told, "command")}, cwd)
        case "beforeMCPExecution":
            arguments = _table(told.get("tool_input"), "tool_input")
            names = ("url", "command")
            server: dict[str, object] = {n: told[n] for n in names if n in told}
            # Which server it is counts for what a person approves.
            arguments |= {"mcp_server": server} if server else {}
            name, tool = _cursor_server(server), _text(told, "tool_name")
            return HookCall(event, f"MCP:{tool}", arguments, cwd, name, tool)
        case "beforeReadFile":
            return HookCall(event, "Read", {"file_path": _text(told, "file_path")}, cwd)
    return _plain_call(told)


def _cursor_server(told: dict[str, object]) -> str:
    """Return the URL of an MCP server, or the name that our own command gives it."""
    if isinstance(url := told.get("url"), str) and url:
        return url
    try:
        words = shlex.split(_text(told, "command"))
    except ValueError:
        return ""
    for own in ([sys.argv[0]], [sys.executable, "-P", "-m", "agentvault_tui.cli"]):
        if words[: len(own) + 2] == [*own, "mcp", "stdio"]:
            return words[len(own) + 2] if len(words) > len(own) + 2 else ""
    return ""


def _cursor(_: HookCall, verdict: HookVerdict) -> HookAnswer:
    if verdict.allowed:
        return HookAnswer({"permission": "allow"})
    return _cursor_no(verdict.message)


def _cursor_no(why: str, code: int = 0) -> HookAnswer:
    told = {"permission": "deny", "user_message": why, "agent_message": why}
    return HookAnswer(told, "", code)


def _gemini(_: HookCall, verdict: HookVerdict) -> HookAnswer:
    if verdict.allowed:
        return HookAnswer({"decision": "allow"})
    return HookAnswer({"decision": "deny", "reason": verdict.message})


def _copilot_call(told: dict[str, object]) -> HookCall:
    """Read a call by the names of either of Copilot's formats."""
    tool = _text(told, "toolName", "tool_name")
    given = told.get("toolArgs", told.get("tool_input"))
    if tool in {"apply_patch", "Edit"}:
        if isinstance(given, str) and not given.lstrip().startswith("{"):
            given = {"patch": given}
        arguments = _with_files(_table(given, "toolArgs"), "patch", "input", "command")
        if path := arguments.get("path") or arguments.get("file_path"):
            arguments.setdefault("files", [path])
    else:
        arguments = _table(given, "toolArgs")
    event = _text(told, "hook_event_name", "hookEventName", "hookName")
    server, _, inner = tool.rpartition("-")  # wrong, and so unknown, for a-b-c
    inner = inner if server else ""
    return HookCall(event, tool, arguments, _text(told, "cwd"), server, inner)


def _copilot(call: HookCall, verdict: HookVerdict) -> HookAnswer:
    if call.event.lower() == "permissionrequest":
        told = {"behavior": "allow" if verdict.allowed else "deny"}
        more = {} if verdict.allowed else {"message": verdict.message}
        return HookAnswer(told | more)
    if verdict.allowed and not verdict.approved:
        return HookAnswer({})
    return HookAnswer(
        {
            "permissionDecision": "allow" if verdict.allowed else "deny",
            "permissionDecisionReason": verdict.message,
        }
    )


HOSTS: Final = {
    "claude-code": HostWire(
        _plain_call,
        _claude,
        _stderr,
        dict.fromkeys(("Bash", "Task", "Agent"), "description"),
    ),
    # Exit code 2 alone was seen to be ignored, so the answer says it.
    "codex": HostWire(
        _plain_call,
        _codex,
        lambda why: _pre_tool_use("deny", why),
        dict.fromkeys(("Bash", "shell", "exec_command"), "justification"),
    ),
    "cursor": HostWire(_cursor_call, _cursor, lambda why: _cursor_no(why, 2)),
    "gemini": HostWire(
        _plain_call, _gemini, _stderr, {"run_shell_command": "description"}
    ),
    "copilot": HostWire(
        _copilot_call,
        _copilot,
        _stderr,
        dict.fromkeys(("bash", "powershell", "Bash"), "description"),
    ),
}
"""By the name of the host; the shipped maps are of the same ones."""
