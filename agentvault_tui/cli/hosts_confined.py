"""``agentvault connect HOST --confined``: for a host inside `agentvault run --confine`.

All is written into the agent's own home directory, and none of your own files changes.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from agentvault_tui.cli.hook import CONFINED
from agentvault_tui.cli.hook_hosts import PROGRAM
from agentvault_tui.cli.host_files import (
    CANNOT_KEEP,
    EDITABLE,
    FILES_OF,
    SHELL,
    HostCommands,
    HostFile,
    fresh,
    lacking,
    print_lacking,
    print_planned,
    print_written,
)
from agentvault_tui.cli.lookup import find_agent
from agentvault_tui.cli.run_confined import connected_files, connected_record
from agentvault_tui.cli.session import CliSession
from agentvault_tui.confine import check_unlinked, write_unlinked
from agentvault_tui.errors import SettingsError, UsageError
from agentvault_tui.home import Home, private_folder, put_private

_PROGRAMS: Final[Mapping[str, tuple[str, ...]]] = {
    "claude-code": ("claude",),
    "codex": ("codex",),
    "cursor": ("cursor-agent",),
    "gemini": ("gemini",),
    "copilot": ("copilot",),
}
"""The command line that starts each host; others have windows of their own."""
_SANDBOX_OFF: Final[Mapping[str, Mapping[str, Any]]] = {
    ".claude/settings.json": {"sandbox": {"enabled": False}},
    ".codex/config.toml": {"sandbox_mode": "danger-full-access"},
    ".gemini/settings.json": {"tools": {"sandbox": False}},
}
"""Settings by file: a host's own sandbox makes namespaces, which fails inside."""
_VARIABLES: Final = ("AGENTVAULT_URL", "AGENTVAULT_TOKEN_FILE", "SSL_CERT_FILE")
"""The input of `agentvault mcp stdio --confined`."""
_CLAUDE_SERVERS: Final = "agentvault-mcp.json"
_CANNOT: Final = (
    "A program inside may start the host without its hook, such as with another home "
    "directory: then its tools are not decided, and AgentVault is still all that it "
    "reaches."
)


def connect_confined(session: CliSession, host: str, ref: str, *, write: bool) -> None:
    """Print or write the configuration of a host that runs confined.

    Args:
        session: of the command line.
        host: the agent host.
        ref: the agent's id or name.
        write: whether to write the files.

    Raises:
        UsageError: the host is not started from a command line.
    """
    if host not in _PROGRAMS:
        raise UsageError(
            f"{host} is not started from a command line, so it cannot be confined",
            "agentvault connect " + host + " without --confined",
        )
    agent = find_agent(session.client, ref)
    lacks = lacking(session, host, agent)
    out, home = session.out, session.home.homes / agent.id
    names = [file.stem for file in sorted((session.home.config / "mcp").glob("*.toml"))]
    run = HostCommands(PROGRAM, agent.name, (CONFINED,), tuple(names))
    files = [_inside(file, home) for file in FILES_OF[host](run, home, managed=False)]
    for file in files:
        check_unlinked(file.path, home)
    # Not merged: the agent may have left a setting there that turns hooks off.
    texts = [(file, fresh(file)) for file in files]
    line = ["agentvault", "run", "--agent", agent.name, "--confine", "--"]
    line += _PROGRAMS[host]
    if any(file.path.name == _CLAUDE_SERVERS for file in files):
        line += ["--mcp-config", str(home / _CLAUDE_SERVERS)]
    weak = [one for one in CANNOT_KEEP[host] if one not in {SHELL, EDITABLE}]
    weak.append(_CANNOT)
    copies = _write(session.home, agent.id, texts) if write else []
    if session.json:
        facts = [
            {"path": str(file.path), "format": file.format, "content": text}
            for file, text in texts
        ]
        out.json(
            {
                "files": facts,
                "cannot_keep": weak,
                "missing_scopes": [*lacks],
                "run": line,
            }
        )
        return
    if write:
        print_written(out, files, copies)
    else:
        print_planned(out, texts)
    out.line(out.cell(f"{host} cannot keep:", "strong"))
    for one in weak:
        out.line(f"- {one}")
    print_lacking(session, host, agent.name, lacks)
    out.line("start it with:")
    out.raw(f"  {shlex.join(line)}")
    if not write:
        out.note("nothing was written: give --write")


def _write(
    vault: Home, agent_id: str, texts: Sequence[tuple[HostFile, str]]
) -> list[str | None]:
    """Write files into an agent's home directory.

    Returns:
        an empty text for each, because the agent's file is not copied; None for a file
        that is unchanged.

    Raises:
        SettingsError: the agent has put a link or something else there.
    """
    home = (vault.homes / agent_id).resolve()
    private_folder(home)
    copies = list[str | None]()
    for file, text in texts:
        name = file.path.relative_to(vault.homes / agent_id)
        content = text if text.endswith("\n") else text + "\n"
        try:
            written = write_unlinked(home, name, content.encode())
        except OSError as error:
            raise SettingsError(
                f"{file.path} cannot be written ({error.strerror})",
                "look at it: the agent may have made a link there, or a pipe",
            ) from None
        copies.append("" if written else None)
    paths = {*connected_files(vault, agent_id), *(file.path for file, _ in texts)}
    record = json.dumps(sorted(map(str, paths))).encode()
    put_private(connected_record(vault, agent_id), record, replace=True)
    return copies


def _inside(file: HostFile, home: Path) -> HostFile:
    """Return a file in the agent's home directory, with the host's own sandbox off."""
    if not file.path.is_relative_to(home):
        # Claude Code reads servers from the project, which the agent writes.
        return file._replace(path=home / _CLAUDE_SERVERS)
    name = str(file.path.relative_to(home))
    wanted = {**_SANDBOX_OFF.get(name, {}), **file.wanted}
    for members, more in (
        # Codex and Gemini CLI start servers without most variables.
        ("mcp_servers", {"env_vars": [*_VARIABLES]}),
        ("mcpServers", {"env": {one: f"${one}" for one in _VARIABLES}}),
    ):
        if members in wanted and name.startswith((".codex/", ".gemini/")):
            servers = wanted[members].items()
            wanted[members] = {key: {**value, **more} for key, value in servers}
    return file._replace(wanted=wanted)
