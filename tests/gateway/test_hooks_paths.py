"""A path or glob that a host may read as a list is decided by a person."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support import forked
from support.bench import Bench
from support.command_line import plain_environment
from support.gateway_stand import served_at_home

from agentvault_tui.settings import GatewaySettings

pytestmark = pytest.mark.slow
EVENTS = {"gemini": "BeforeTool", "cursor": "preToolUse"}


@pytest.fixture
async def bench(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    """A broker whose operators' socket listens in its home, and hooks do not wait."""
    monkeypatch.setattr(GatewaySettings, "hook_wait", 0)
    async with served_at_home(bench):
        yield bench


async def ask(
    bench: Bench, folder: Path, host: str, tool: str, given: dict[str, object]
) -> str:
    """Return how the broker answers the hook of a host, from the record."""
    names = "CLAUDE_PROJECT_DIR", "GEMINI_PROJECT_DIR", "CURSOR_PROJECT_DIR"
    env = plain_environment(**dict.fromkeys(names, str(folder)))
    call = {
        "hook_event_name": EVENTS.get(host, "PreToolUse"),
        "tool_name": tool,
        "tool_input": given,
        "cwd": str(folder),
    }
    argv = ("hook", host, "--agent", "coder", "--home", str(bench.home.data))
    given_json = json.dumps(call).encode()
    await asyncio.to_thread(forked.run, *argv, env=env, given=given_json)
    event = (await bench.events("access.decision"))[-1]
    return str(event.outcome)


@pytest.mark.parametrize(
    ("host", "tool", "given"),
    [
        ("copilot", "grep", {"pattern": "x", "path": "src {}"}),
        ("copilot", "grep", {"pattern": "x", "paths": ["src {}"]}),
        ("cursor", "Grep", {"pattern": "x", "path": "src {}"}),
        ("claude-code", "Grep", {"pattern": "x", "glob": "src/*.py {}/*"}),
        ("claude-code", "Grep", {"pattern": "x", "glob": "src/*.py,{}/*"}),
        ("claude-code", "Grep", {"pattern": "x", "glob": "{src/*.py, {}/*}"}),
        ("gemini", "grep_search", {"pattern": "x", "include_pattern": "a/*,{}/*"}),
    ],
)
async def test_a_list_in_one_text_is_decided_by_a_person(
    bench: Bench, short: Path, host: str, tool: str, given: dict[str, object]
) -> None:
    """Otherwise one of its parts is read without a decision; if a part is in
    AgentVault's home directory, the call is denied."""
    await bench.agent("coder", "read:files")
    project = short / "project"
    (project / "src").mkdir(parents=True)
    (project / "key").touch()

    for part, outcome in (("key", "escalated"), (bench.home.data, "denied")):
        named = json.loads(json.dumps(given).replace("{}", str(part)))
        assert await ask(bench, project, host, tool, named) == outcome, named


@pytest.mark.parametrize(
    ("host", "tool", "given"),
    [
        ("claude-code", "Read", {"file_path": "my file"}),
        ("claude-code", "Grep", {"pattern": "a b, c", "path": "my file"}),
        ("claude-code", "Grep", {"pattern": "a", "glob": "src/*.{py,md}"}),
        ("gemini", "read_file", {"file_path": "my file"}),
        ("copilot", "view", {"path": "my file"}),
        ("copilot", "grep", {"pattern": "a b, c", "path": "src"}),
        ("codex", "view_image", {"path": "my file"}),
    ],
)
async def test_a_name_with_a_blank_is_one_path_to_other_tools(
    bench: Bench, short: Path, host: str, tool: str, given: dict[str, object]
) -> None:
    """They hand it on as it is, so no person is asked."""
    await bench.agent("coder", "read:files")
    for name in ("my file", "src"):
        (short / name).mkdir()
    assert await ask(bench, short, host, tool, given) == "allowed"
