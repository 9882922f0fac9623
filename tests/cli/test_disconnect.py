"""`agentvault disconnect`: what connect wrote is taken out, and nothing else."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.command_line import Answer

from agentvault_tui.cli.host_files import CANNOT_KEEP

Run = Callable[..., Answer]


def documents(place: Path) -> dict[str, Any]:
    """Read the configuration of hosts below a folder, without copies of it."""
    found = {}
    for path in place.rglob("*"):
        if "vault" in path.parts or not path.is_file():
            continue
        if path.suffix == ".json":
            found[str(path)] = json.loads(path.read_text())
        elif path.suffix == ".toml":
            found[str(path)] = tomllib.loads(path.read_text())
    return found


@pytest.mark.parametrize("host", CANNOT_KEEP)
def test_a_fresh_configuration_is_gone_again(run: Run, place: Path, host: str) -> None:
    """The files that connect made are removed, whichever server is there now."""
    run("connect", host, "--agent", "coder", "--write")
    (place / "vault" / "mcp" / "files.toml").unlink()
    assert documents(place)
    printed = run("disconnect", host)
    assert "nothing was written" in printed.err
    assert documents(place)
    told = run("disconnect", host, "--write")
    assert (told.code, "removed " in told.out) == (0, True)
    assert documents(place) == {}
    assert not [*place.rglob("*before-agentvault*")]
    assert "nothing of AgentVault" in run("disconnect", host, "--write").out


OWN: dict[str, dict[str, str]] = {
    "claude-code": {
        ".claude/settings.json": """{"model": "x", "hooks": {"PreToolUse": [
            {"matcher": "Bash", "hooks": [{"type": "command", "command": "mine"}]}],
            "Stop": []},
            "permissions": {"allow": ["Bash(agentvault hook x --agent y)"]}}""",
        "project/.mcp.json": """{"mcpServers": {"own": {"command": "own"}}}""",
    },
    "codex": {
        ".codex/hooks.json": """{"hooks": {"PreToolUse": [{"hooks": [
            {"type": "command", "command": "mine"}]}]}}""",
        ".codex/config.toml": """# mine
model = "x"

[features]
goals = false

[mcp_servers.own]
command = "own"
""",
    },
    "cursor": {
        ".cursor/hooks.json": """{"version": 1, "hooks": {"beforeReadFile":
            [{"command": "mine"}], "stop": [{"command": "mine"}]}}""",
        ".cursor/mcp.json": """{"mcpServers": {"own": {"url": "https://own.test"}}}""",
    },
    "vscode": {
        "project/.vscode/mcp.json": """{"servers": {"own": {"command": "own"}}}"""
    },
    "gemini": {
        ".gemini/settings.json": """{"mcpServers": {"own": {"command": "o"}},
            "hooks": {"BeforeTool": [{"hooks": [{"command": "mine"}]}]}}"""
    },
    "copilot": {
        ".copilot/mcp-config.json": """{"mcpServers": {"own": {"command": "own"}}}"""
    },
}


@pytest.mark.parametrize("host", CANNOT_KEEP)
def test_what_others_wrote_stays(run: Run, place: Path, host: str) -> None:
    """Before connect and after disconnect the files say the same."""
    for name, text in OWN[host].items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    before = documents(place)
    run("connect", host, "--agent", "coder", "--write")
    assert documents(place) != before
    told = run("disconnect", host, "--write", "--json").json
    assert told["written"] is True
    assert documents(place) == before
    if host == "codex":
        assert (place / ".codex/config.toml").read_text().startswith("# mine\n")


def test_a_file_that_cannot_be_read_stays(run: Run, place: Path) -> None:
    """It is named, and nothing is written."""
    file = place / ".claude" / "settings.json"
    file.parent.mkdir()
    file.write_text("{")
    told = run("disconnect", "claude-code", "--write")
    assert (told.code != 0, str(file) in told.err) == (True, True)
    assert file.read_text() == "{"


def test_a_setting_of_ones_own_stays(run: Run, place: Path) -> None:
    """Codex's switch that connect sets to false is somebody's own word if true."""
    file = place / ".codex" / "config.toml"
    file.parent.mkdir()
    file.write_text("[features]\nunified_exec_tty = true\n")
    assert run("disconnect", "codex", "--write").code == 0
    assert file.read_text() == "[features]\nunified_exec_tty = true\n"


def test_a_link_to_a_file_stays_a_link(run: Run, place: Path) -> None:
    """A folder under version control goes on having its file."""
    target = place / "dotfiles.json"
    target.write_text("{}")
    (place / ".claude").mkdir()
    (place / ".claude" / "settings.json").symlink_to(target)
    run("connect", "claude-code", "--agent", "coder", "--write")
    assert run("disconnect", "claude-code", "--write").code == 0
    assert (place / ".claude" / "settings.json").is_symlink()
    assert json.loads(target.read_text()) == {}
