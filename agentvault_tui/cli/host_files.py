"""The files that put agent hosts behind AgentVault, and how they are written."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any, Final, NamedTuple

from agentvault_tui.cli.config_files import waiting_edits
from agentvault_tui.cli.output import Output
from agentvault_tui.cli.session import CliSession
from agentvault_tui.clock import SystemClock
from agentvault_tui.errors import AgentVaultError, SettingsError, UsageError
from agentvault_tui.home import Home, locked_folder, put_private
from agentvault_tui.operator_api.shapes import AgentInfo
from agentvault_tui.text import visible


class HostFile(NamedTuple):
    """A file that a host reads, and its wanted content."""

    path: Path
    wanted: dict[str, Any]
    format: str = "json"

    @property
    def reach(self) -> str:
        """Return where the host reads it."""
        folder, own = Path.cwd(), Path.home()
        if folder != own and self.path.is_relative_to(folder):
            return "for this folder"
        if self.path.is_relative_to(own):
            return "for every project of your user"
        return "for every user of this machine"


class HostCommands(NamedTuple):
    """The commands that configuration names."""

    program: tuple[str, ...]
    agent: str
    home: tuple[str, ...]
    servers: tuple[str, ...]
    """The names of the MCP servers."""

    def hook(self, host: str) -> str:
        """Return the command line of a hook of *host*."""
        return shlex.join(
            [*self.program, "hook", host, "--agent", self.agent, *self.home]
        )

    def stdio(self, kind: str = "") -> dict[str, Any]:
        """Return every MCP server as a command that speaks on standard input."""
        typed = {"type": kind} if kind else {}
        arguments = ["--agent", self.agent, *self.home]
        return {
            name: {
                **typed,
                "command": self.program[0],
                "args": [*self.program[1:], "mcp", "stdio", name, *arguments],
            }
            for name in self.servers
        }


TIMEOUT_S: Final = 60
"""Far above `hook.DEADLINE_S`: so the hook answers before the host gives it up, also on
a machine that is overloaded."""


def _matched(command: str, timeout: int, **more: object) -> list[dict[str, Any]]:
    """Return one hook for every tool, as Claude Code, Codex and Gemini write it.

    Without a matcher, which hosts read in several ways. A hook that crashes, is killed
    or is not there is a no by exit code 2; Codex also wants a reason with it.
    """
    command += " || { echo 'AgentVault did not decide' >&2; exit 2; }"
    handler = {"type": "command", "command": command, "timeout": timeout, **more}
    return [{"hooks": [handler]}]


def _claude_code(run: HostCommands, base: Path, *, managed: bool) -> list[HostFile]:
    hooks = _matched(run.hook("claude-code"), TIMEOUT_S, onFailure="block")
    settings: dict[str, Any] = {"hooks": {"PreToolUse": hooks}}
    servers = {"mcpServers": run.stdio()}
    if not managed:
        files = [HostFile(base / ".claude/settings.json", settings)]
        if run.servers:
            files.append(HostFile(Path.cwd() / ".mcp.json", servers))
        return files
    mac = Path("/Library/Application Support/ClaudeCode")
    folder = mac if sys.platform == "darwin" else Path("/etc/claude-code")
    locked = {
        "allowManagedHooksOnly": True,
        "allowManagedMcpServersOnly": True,
        "allowedMcpServers": [
            {"serverCommand": [one["command"], *one["args"]]}
            for one in run.stdio().values()
        ],
    }
    return [
        HostFile(folder / "managed-settings.json", settings | locked),
        HostFile(folder / "managed-mcp.json", servers),
    ]


def _codex(run: HostCommands, base: Path, *, managed: bool) -> list[HostFile]:
    _unmanaged("codex", managed=managed)
    hooks = _matched(run.hook("codex"), TIMEOUT_S)
    # No hook is asked before input is written to a program that is already running.
    config = {"features": {"unified_exec_tty": False}, "mcp_servers": run.stdio()}
    return [
        HostFile(base / ".codex/hooks.json", {"hooks": {"PreToolUse": hooks}}),
        HostFile(base / ".codex/config.toml", config, "toml"),
    ]


def _cursor(run: HostCommands, base: Path, *, managed: bool) -> list[HostFile]:
    _unmanaged("cursor", managed=managed)
    entry = {"command": run.hook("cursor"), "failClosed": True}
    events = ("beforeShellExecution", "beforeMCPExecution", "beforeReadFile")
    hooks: dict[str, Any] = {event: [entry] for event in events}
    hooks["preToolUse"] = [{**entry, "matcher": "Write|Delete"}]
    files = [HostFile(base / ".cursor/hooks.json", {"version": 1, "hooks": hooks})]
    if run.servers:
        servers = {"mcpServers": run.stdio()}
        files.append(HostFile(base / ".cursor/mcp.json", servers))
    return files


def _vscode(run: HostCommands, _: Path, *, managed: bool) -> list[HostFile]:
    _unmanaged("vscode", managed=managed)
    folder = Path.cwd()
    files = [HostFile(folder / ".github/hooks/agentvault.json", _copilot_hooks(run))]
    if run.servers:
        servers = {"servers": run.stdio("stdio")}
        files.append(HostFile(folder / ".vscode/mcp.json", servers))
    return files


def _gemini(run: HostCommands, base: Path, *, managed: bool) -> list[HostFile]:
    _unmanaged("gemini", managed=managed)
    hooks = _matched(run.hook("gemini"), TIMEOUT_S * 1000)
    settings: dict[str, Any] = {"hooks": {"BeforeTool": hooks}}
    if run.servers:
        settings["mcpServers"] = run.stdio()
    return [HostFile(base / ".gemini/settings.json", settings)]


def _copilot(run: HostCommands, base: Path, *, managed: bool) -> list[HostFile]:
    policy, own = Path("/etc/github-copilot/policy.d"), base / ".copilot/hooks"
    folder = policy if managed else own
    files = [HostFile(folder / "agentvault.json", _copilot_hooks(run))]
    if run.servers:
        servers = {
            name: server | {"tools": ["*"]}
            for name, server in run.stdio("local").items()
        }
        path = base / ".copilot/mcp-config.json"
        files.append(HostFile(path, {"mcpServers": servers}))
    return files


def _copilot_hooks(run: HostCommands) -> dict[str, Any]:
    entry = {"type": "command", "bash": run.hook("copilot"), "timeoutSec": TIMEOUT_S}
    return {"version": 1, "hooks": {"preToolUse": [entry]}}


def _unmanaged(host: str, *, managed: bool) -> None:
    if managed:
        raise UsageError(
            f"no managed configuration of {host} is known",
            "leave --managed away: docs/hosts.md says what then holds",
        )


_OF_OTHERS: Final = "call:tool"
SHELL: Final = (
    "A command line is decided as a whole. Its effect on the network is decided "
    "only where the host itself runs under `agentvault run`."
)
_CHANGED: Final = (
    "A link or file that changes between the decision and the call is not seen, nor "
    "are aliases and functions of your shell."
)
_TYPED: Final = "Commands that you start yourself in the host ask no hook."
EDITABLE: Final = (
    "Whoever may edit this configuration may take the hook away; edits by the host's "
    "own file tools are `configure:host`."
)
_SLOW: Final = f"A hook that takes more than {TIMEOUT_S} s lets the call through."
_PROMPTS: Final = "What policy allows is still subject to the host's own prompts."
_EVERY: Final = (SHELL, _CHANGED, _TYPED)
CANNOT_KEEP: Final[Mapping[str, tuple[str, ...]]] = {
    "claude-code": (
        f"Versions before 2.1.295 know no onFailure. {_SLOW}",
        "`claude --bare` runs no hooks, but for those of managed settings.",
        "Hooks and MCP servers of plugins and of subagents' files start unasked.",
        _PROMPTS,
        *_EVERY,
    ),
    "codex": (
        _SLOW,
        "Hooks are skipped until you have reviewed them once, with /hooks.",
        "With `unified_exec_tty = true` no hook is asked what programs are told later.",
        "`[features] hooks = false` switches all hooks off.",
        _PROMPTS,
        *_EVERY,
    ),
    "cursor": (
        "An event whose name this version of Cursor does not know is ignored.",
        "Edits are decided only by versions that know preToolUse.",
        "Cloud agents do not read this configuration.",
        *_EVERY,
    ),
    "vscode": (
        "Only Copilot's harness reads these hooks: other agents are not decided.",
        "A hook that takes more than 30 s may let the call through.",
        "Inline edits and other extensions are not decided.",
        *_EVERY,
    ),
    "gemini": (
        _SLOW,
        "A server with `trust = true` skips the host's own prompts, not the hook.",
        *_EVERY,
    ),
    "copilot": (
        _SLOW,
        "The cloud agent does not run on this machine and is not decided.",
        "A shell session lasts: functions and variables of an approved command do too.",
        *_EVERY,
    ),
}
"""By host: the guarantees that no configuration gives."""
FILES_OF: Final[Mapping[str, Callable[..., list[HostFile]]]] = {
    "claude-code": _claude_code,
    "codex": _codex,
    "cursor": _cursor,
    "vscode": _vscode,
    "gemini": _gemini,
    "copilot": _copilot,
}


def print_lacking(
    session: CliSession, host: str, name: str, lacks: Sequence[str]
) -> None:
    """Print which scopes an agent lacks, with the command, and edits that wait."""
    out = session.out
    for folder in ("mcp", "hosts"):
        for text in waiting_edits(session, folder):
            out.note(text)
    if lacks:
        out.line(f"{visible(name, 60)} lacks scopes that tools of {host} need:")
        out.line("  agentvault agents grant ", shlex.join([visible(name, 100), *lacks]))


def print_planned(out: Output, texts: Sequence[tuple[HostFile, str]]) -> None:
    """Print the files that would be written and where they count, then their texts."""
    for file, _ in texts:
        out.line(f"would write {visible(file.path, 400)} ({file.reach})")
    for file, text in texts:
        out.line(out.cell(f"# {file.path}", "strong"))
        out.raw(text)


def print_written(
    out: Output, files: Sequence[HostFile], copies: Sequence[str | None]
) -> None:
    """Print the written files, where they count, and the places of the copies."""
    for file, copy in zip(files, copies, strict=True):
        copied = f" (what was there: {copy})" if copy else ""
        verb = "unchanged" if copy is None else "wrote"
        where = f"{visible(file.path, 400)} ({file.reach})"
        out.line(f"{verb} {where}{visible(copied, 400)}")


def lacking(session: CliSession, host: str, agent: AgentInfo) -> list[str]:
    """Return the scopes that an agent was not granted, and the host's tools need.

    Tools of the gateway's MCP servers count; the scope of other servers' tools does
    not, because it is for every such tool that the host can reach.
    """
    from agentvault_tui.broker.policy_files import read_text, read_texts
    from agentvault_tui.gateway.mcp import parse_server
    from agentvault_tui.gateway.tools import parse_tools, shipped_tools

    home, name = session.home, "copilot" if host == "vscode" else host
    text = read_text(home.config / "hosts" / f"{name}.toml", home.config)
    catalogue = read_texts(home).catalogue()
    needed = parse_tools(name, text or shipped_tools(name), catalogue).scopes
    for path in sorted((home.config / "mcp").glob("[!.]*.toml")):
        with suppress(AgentVaultError):  # `mcp check` says what is wrong with it
            text = read_text(path, home.config) or ""
            server = parse_server(path.stem, text, catalogue, home.config)
            needed |= {one.scope for one in server.tools.rules}
    return sorted(needed - {*agent.scopes, _OF_OTHERS})


def fresh(file: HostFile) -> str:
    """Return the file's text with the wanted members alone."""
    if file.format == "toml":
        return _with_tables("", {}, file.wanted)
    return json.dumps(_joined({}, file.wanted), indent=2, ensure_ascii=False)


def merged(file: HostFile) -> str:
    """Return the file's new text: its present members, and the wanted ones.

    Raises:
        SettingsError: its text cannot be read, or says otherwise.
    """
    try:
        text = file.path.read_text("utf-8")
    except FileNotFoundError:
        text = ""
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file.path} cannot be read ({error})") from error
    try:
        if file.format == "toml":
            return _with_tables(text, tomllib.loads(text), file.wanted)
        document = json.loads(text or "{}")
        joined = _joined(document, file.wanted)
        if text and joined == document:
            return text.rstrip()
        return json.dumps(joined, indent=2, ensure_ascii=False)
    except (ValueError, AttributeError) as error:
        raise SettingsError(
            f"{file.path} cannot be added to ({error})",
            "move it away, or add what `agentvault connect` prints without it by hand",
        ) from error


def _joined(present: Any, wanted: Any) -> Any:
    """Return *present* with *wanted* in it: members that differ are those of *wanted*.

    Entries of lists are added, in the place of those that `connect` wrote before.

    Raises:
        ValueError: one is an object, and the other is not.
    """
    if isinstance(present, dict) is not isinstance(wanted, dict):
        raise ValueError("it has another form")
    if isinstance(present, dict) and isinstance(wanted, dict):
        return present | {
            name: _joined(present[name], value) if name in present else value
            for name, value in wanted.items()
        }
    lists = isinstance(present, list) and isinstance(wanted, list)
    if lists and all(isinstance(one, dict) for one in wanted):
        there = (one if one in wanted else foreign(one) for one in present)
        rest = [one for one in there if one is not None]
        return rest + [one for one in wanted if one not in rest]
    return wanted


COPIES: Final = re.compile(r"\.before-agentvault-\d{8}T\d{6}Z\Z", re.ASCII)
"""The ending of the copies that `write_file` makes."""
MANAGED: Final = frozenset({"claude-code", "copilot"})
"""Hosts with configuration that an administrator locks."""
_OURS: Final = re.compile(
    r"""agentvault(?:_tui\.cli)?(?:'? hook [a-z-]+ --agent |", "mcp", "stdio", ")"""
)
"""Command lines of `HostCommands` in JSON; their program may be quoted."""


def is_ours(entry: object) -> bool:
    """Check whether `connect` wrote a handler of hooks or an MCP server."""
    return _OURS.search(json.dumps(entry)) is not None


def foreign(entry: Any) -> Any:
    """Return the part of a list's entry that `connect` did not write, or None."""
    if isinstance(entry, dict) and isinstance(handlers := entry.get("hooks"), list):
        left = [one for one in map(foreign, handlers) if one is not None]
        return entry | {"hooks": left} if left or not handlers else None
    return None if is_ours(entry) else entry


def _with_tables(text: str, present: dict[str, Any], wanted: dict[str, Any]) -> str:
    """Add keys to the tables of TOML, and tables; those there have to be the same.

    Raises:
        ValueError: one says something else, or has a form that is not known.
    """
    whole = deepcopy(present)
    for group, members in wanted.items():
        if not isinstance(members, dict):  # a key before all tables
            if present.get(group, members) != members:
                raise ValueError(f"{group} says something else")
            if group not in present:
                text = f"{group} = {json.dumps(members)}\n{text}"
                whole[group] = members
            continue
        for name, value in members.items():
            there = present.get(group, {}).get(name)
            if there is not None and there != value:
                raise ValueError(f"{group}.{name} says something else")
            if there is not None:
                continue
            whole.setdefault(group, {})[name] = value
            if group in present and not isinstance(value, dict):
                head = rf"^(\s*\[\s*{group}\s*\].*)$"
                row = rf"\1\n{name} = {json.dumps(value)}"
                text = re.sub(head, row, text, count=1, flags=re.MULTILINE)
                continue
            rows = value if isinstance(value, dict) else {name: value}
            path = f"{group}.{json.dumps(name)}" if rows is value else group
            lines = [f"{key} = {json.dumps(one)}" for key, one in rows.items()]
            added = "\n".join([f"[{path}]", *lines])
            text = "\n\n".join(filter(None, (text.rstrip(), added))) + "\n"
    if tomllib.loads(text) != whole:
        raise ValueError("it has another form")
    return text


def write_file(path: Path, text: str, *, copies: bool = True) -> str | None:
    """Write a file of a host, whole or not at all, and copy the old one.

    Args:
        path: the file; if it is a link, its target.
        text: its new text.
        copies: whether to copy the former text.

    Returns:
        where a copy of what was there is, empty if nothing was; None where the file
        says *text* already, and is left alone.

    Raises:
        SettingsError: something else than a file is there, such as a named pipe.
    """
    path = path.resolve()  # a link stays one
    path.parent.mkdir(parents=True, exist_ok=True)
    text = text if text.endswith("\n") else text + "\n"
    copy = ""
    mode = 0o644
    if path.exists() and not path.is_file():
        raise SettingsError(f"{path} is no file", "look at it, and remove it")
    if path.exists():
        if path.read_bytes().rstrip() == text.encode().rstrip():
            return None
        if copies:
            stamp = SystemClock().now().strftime("%Y%m%dT%H%M%SZ")
            copy = f"{path}.before-agentvault-{stamp}"
            shutil.copy2(path, copy)
        mode = path.stat().st_mode & 0o777
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            os.fchmod(file.fileno(), mode)
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink()
        raise
    return copy


def read_written(home: Home) -> dict[Path, str]:
    """Return the files that `connect` wrote, with their formats.

    Raises:
        SettingsError: the record of them cannot be read.
    """
    try:
        written = json.loads(home.connected_file.read_text("utf-8"))
        return {Path(path): str(form) for path, form in written.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise SettingsError(
            f"{home.connected_file} cannot be read ({error})", "move it away"
        ) from error


def record_written(home: Home, files: Sequence[HostFile]) -> None:
    """Record where `connect` wrote, so that `uninstall` finds it."""
    written = {file.path.absolute(): file.format for file in files}
    with locked_folder(home.data):
        recorded = read_written(home)
        if recorded | written == recorded:
            return
        every = {str(path): form for path, form in (recorded | written).items()}
        content = json.dumps(every).encode()
        put_private(home.connected_file, content, replace=True)
