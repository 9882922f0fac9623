"""``agentvault disconnect``: remove our entries from a host's configuration."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any, Final

import click

from agentvault_tui.cli.framework import command, pass_session
from agentvault_tui.cli.hook_hosts import PROGRAM
from agentvault_tui.cli.host_files import (
    FILES_OF,
    MANAGED,
    HostCommands,
    foreign,
    is_ours,
    read_written,
    write_file,
)
from agentvault_tui.cli.session import CliSession
from agentvault_tui.errors import SettingsError
from agentvault_tui.home import Home
from agentvault_tui.text import visible

_LOCKS: Final = ("allowManagedHooksOnly", "allowManagedMcpServersOnly")
"""Members of managed settings that mean nothing without the hooks and servers."""
_TTY: Final = "unified_exec_tty"


@command(
    "disconnect", on_home=True, example="agentvault disconnect claude-code --write"
)
@click.argument("host", type=click.Choice(list(FILES_OF)))
@click.option(
    "--write", is_flag=True, help="Write it, and keep a copy of what was there."
)
@click.option("--managed", is_flag=True, help="From where an administrator locks it.")
@pass_session
def disconnect(session: CliSession, host: str, *, write: bool, managed: bool) -> int:
    """Print or write the configuration of an agent host without AgentVault.

    Hooks and MCP servers that `connect` wrote are taken out, for whichever agent;
    everything else stays. From then on no call of the host is decided.
    """
    # A server, so that the files of MCP servers are among them.
    run = HostCommands(PROGRAM, "any", (), ("any",))
    files = FILES_OF[host](run, Path.home(), managed=managed)
    texts = [(one.path, *without(one.path, one.format)) for one in files]
    changed = [(path, text) for path, before, text in texts if text != before]
    out = session.out
    for path, text in changed if write else ():
        empty, note = "" if path.suffix == ".toml" else "{}", ""
        if text is None and not path.is_symlink():
            path.unlink()  # it had nothing but what connect wrote
        else:
            copy = write_file(path, empty if text is None else text)
            note = f" (what was there: {copy})"
        if not session.json:
            verb = "removed" if text is None else "wrote"
            out.line(f"{verb} {visible(path, 400)}{visible(note, 400)}")
    changes = [{"path": str(path), "content": text} for path, text in changed]
    if out.print_json({"files": changes, "written": write}):
        return 0
    if not changed:
        out.line(f"nothing of AgentVault is in the configuration of {host}")
    elif write:
        out.note(f"calls of {host} are no longer decided: start it again")
    else:
        for path, text in changed:
            out.line(out.cell(f"# {path}", "strong"))
            out.raw("(the file is removed)" if text is None else text.rstrip())
        out.note("nothing was written: give --write")
    return 0


def connected_files(home: Home) -> list[tuple[Path, str]]:
    """List the files of hosts that `connect` may have written, with their formats.

    They are those of this user, of this machine, of the current directory, and those
    that were recorded in *home*.
    """
    run = HostCommands(PROGRAM, "any", (), ("any",))
    formats = {}
    for host, files_of in FILES_OF.items():
        for managed in (False, True):
            if managed and host not in MANAGED:
                continue
            for one in files_of(run, Path.home(), managed=managed):
                formats[one.path] = one.format
    return list((formats | read_written(home)).items())


def without(path: Path, form: str) -> tuple[str | None, str | None]:
    """Return a file's text, and its text without AgentVault; None for no file.

    Raises:
        SettingsError: it cannot be read, or not be changed safely.
    """
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return None, None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read ({error})") from error
    try:
        if form == "toml":
            return text, _toml_without(text)
        document = json.loads(text or "{}")
        left = _json_without(document)
    except (ValueError, AttributeError) as error:
        raise SettingsError(
            f"{path} cannot be changed ({error})",
            "take what names agentvault out of it by hand",
        ) from error
    if left == document:
        return text, text
    if not left or left == {"version": 1}:
        return text, None
    return text, json.dumps(left, indent=2, ensure_ascii=False) + "\n"


def _json_without(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document without hooks and servers of AgentVault."""
    left: dict[str, Any] = {}
    ours = False
    for name, value in document.items():
        rest = _rest_of(value)
        ours |= rest != value
        if rest == value or rest:
            left[name] = rest
    if ours and not {"hooks", "mcpServers", "servers"} & left.keys():
        for lock in _LOCKS:
            left.pop(lock, None)
    return left


def _rest_of(value: Any) -> Any:
    """Return the foreign part of hooks by event, servers by name, or a list."""
    if isinstance(value, list):
        filtered = [foreign(one) if isinstance(one, dict) else one for one in value]
        return [one for one in filtered if one is not None]
    if not isinstance(value, dict):
        return value
    left = {}
    for name, one in value.items():
        if isinstance(one, list):
            rest = _rest_of(one)
            if rest or not one:
                left[name] = rest
        elif not (isinstance(one, dict) and is_ours(one)):
            left[name] = one
    return left


def _toml_without(text: str) -> str | None:
    """Return Codex's configuration without AgentVault's servers and its setting.

    Raises:
        ValueError: it has a form that is not known.
    """
    document = tomllib.loads(text)
    wanted = {name: value for name, value in document.items() if name != "mcp_servers"}
    servers = document.get("mcp_servers", {})
    ours = [name for name, one in servers.items() if is_ours(one)]
    if rest := {name: one for name, one in servers.items() if name not in ours}:
        wanted["mcp_servers"] = rest
    features = document.get("features", {})
    # As connect wrote it; true would be somebody's own word.
    tty = features.get(_TTY) is False
    if tty:
        left = {name: one for name, one in features.items() if name != _TTY}
        wanted = {**wanted, "features": left} if left else _but(wanted, "features")
    patterns = [
        rf"^\[mcp_servers\.(?:{re.escape(json.dumps(name))}|{re.escape(name)})\]"
        r"[^\n]*\n(?:(?!\[)[^\n]*\n?)*"
        for name in ours
    ]
    if tty:
        patterns.append(rf"^\s*{_TTY}\s*=\s*false\s*\n?")
        if "features" not in wanted:
            patterns.append(r"^\s*\[\s*features\s*\][^\n]*\n?")
    for pattern in patterns:
        text = re.sub(pattern, "", text, flags=re.MULTILINE)
    if tomllib.loads(text) != wanted:
        raise ValueError("it has another form")
    text = text.strip()
    return f"{text}\n" if text else None


def _but(values: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != name}
