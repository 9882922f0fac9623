"""The tables of docs/hosts.md: ten tasks take two approvals, and no escape passes."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.bench import Bench
from support.gateway_stand import served_at_home
from support.manual_clock import ManualClock
from support.stepups import approve

from agentvault_tui.cli import hook
from agentvault_tui.cli.hook_hosts import HOSTS, HookVerdict
from agentvault_tui.home import Home
from agentvault_tui.model import Agent, Repeat
from agentvault_tui.policy import Policy
from agentvault_tui.settings import GatewaySettings, Settings

pytestmark = pytest.mark.slow
HOST = "claude-code"
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "hosts.md").read_text()
SCOPES = re.findall(r"--scope ([a-z:]+)", PAGE.split("2. Register the agent")[1])[:7]


def table(head: str) -> list[list[str]]:
    """Return the rows of the table that begins with *head*."""
    rows = PAGE.split(f"{head}\n")[1].split("\n\n")[0].splitlines()[1:]
    return [re.split(r" (?<!\\\\)\| ", row.strip("| ")) for row in rows]


def spans(cell: str) -> list[str]:
    return [one.replace("\\|", "|") for one in re.findall(r"`([^`]*)`", cell)]


TASKS = [
    (row[0], spans(row[1]), int(row[2]))
    for row in table("| task | calls | approvals |")
]
ESCAPES = [line for row in table("| attempt | lines |") for line in spans(row[1])]


def test_the_tables_have_ten_tasks_and_forty_escapes() -> None:
    """Together the tasks take at most two approvals."""
    assert (len(TASKS), len(ESCAPES), len({*ESCAPES})) == (10, 40, 40)
    assert sum(approvals for *_, approvals in TASKS) <= 2


@pytest.fixture
def project(short: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a few files, and a link that leads out of it."""
    folder = short / "project"
    for name in ("src/app.py", "src/old.py", "README.md", "ls"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("def total():\n    return 1\n\n")
    (folder / "ls").chmod(0o755)
    other = short / "other"
    other.mkdir()
    (other / "secret").write_text("secret")
    (folder / "out").symlink_to(other)
    git = shutil.which("git") or "git"
    subprocess.run([git, "init", "-q", str(folder)], check=True)
    monkeypatch.setenv("CLAUDE_PROJECT_DIR", str(folder))
    return folder


@pytest.fixture
async def bench(short: Path, clock: ManualClock) -> AsyncIterator[Bench]:
    """A broker whose operators' socket listens in its home, and hooks do not wait."""
    settings = Settings(gateway=GatewaySettings(hook_wait=0))
    opened = await Bench.open(Home.locate(short / "home"), clock, settings=settings)
    async with served_at_home(opened):
        yield opened
    await opened.close()


def tool_call(text: str, project: Path) -> dict[str, Any]:
    """Return the event that Claude Code hands to its hook for a call of the table."""
    tool, _, rest = text.partition(" ")
    given: dict[str, dict[str, Any]] = {
        "Read": {"file_path": str(project / rest)},
        "Write": {"file_path": str(project / rest), "content": "x"},
        "Edit": {
            "file_path": str(project / rest),
            "old_string": "return 1",
            "new_string": "return 2",
        },
        "Grep": dict(zip(("pattern", "path"), rest.split(), strict=False)),
        "Glob": {"pattern": rest},
        "WebFetch": {"url": rest, "prompt": "x"},
    }
    known = tool in given
    return {
        "hook_event_name": "PreToolUse",
        "tool_name": tool if known else "Bash",
        "tool_input": given[tool] if known else {"command": text},
        "cwd": str(project),
    }


async def decided(bench: Bench, agent: Agent, text: str, project: Path) -> HookVerdict:
    """Ask as the hook's process does, with the call as the host tells of it."""
    call = HOSTS[HOST].read(tool_call(text, project))
    broker = hook._asked_at_home(str(bench.home.data))
    return await asyncio.to_thread(hook._decided, HOST, agent.name, broker, call)


async def test_ten_tasks_need_at_most_two_approvals(
    bench: Bench, project: Path
) -> None:
    """Each call of the table passes, with the approvals that its row says."""
    agent = await bench.agent("coder", *SCOPES)
    for task, calls, expected in TASKS:
        approvals = 0
        for text in calls:
            told = await decided(bench, agent, text, project)
            if not told.allowed:
                approvals += 1
                (stepup,) = bench.broker.stepups.open()
                await approve(bench, stepup, Repeat(20, 1_800))
                told = await decided(bench, agent, text, project)
            assert told.allowed, (task, text, told.message)
        assert approvals == expected, task


async def allowed(
    bench: Bench, project: Path, texts: Sequence[str], *scopes: str
) -> list[str]:
    """Return the calls that are allowed, each of an agent that waits for nothing."""
    found = []
    for number, text in enumerate(texts):
        agent = await bench.agent(f"coder-{number}", *SCOPES, *scopes)
        if (await decided(bench, agent, text, project)).allowed:
            found.append(text)
    return found


async def test_no_escape_passes(bench: Bench, project: Path) -> None:
    """A person decides, or it is denied, and nothing is read or run meanwhile."""
    assert await allowed(bench, project, ESCAPES, "configure:host") == []


SECRETS = """
@id("no-secrets") @why("They are not for agents.")
forbid (principal, action, resource)
when { context has resource && context.resource like "*/secrets/*" };
@id("rest") @why("The rest.") @obligation("allow")
permit (principal, action, resource);
"""
BELOW = [
    *("grep KEY secrets", "grep -c '' .", "grep -e KEY secrets", "fgrep KEY src ."),
    *("grep -r KEY .", "grep -rn KEY", "grep -r KEY secrets", "grep --recursive KEY"),
    *("rg KEY", "rg -u KEY secrets", "rg --files", "find secrets -ls", "find ."),
    *("ls -R", "ls -lR secrets", "ls --recursive", "tree", "du -a"),
    *("git show HEAD:secrets/key", "git show HEAD", "git show 8ab686ea"),
    *("git cat-file -p HEAD:secrets/key", "git cat-file -p 8ab686ea", "git log -p"),
    *("git log -p -- '*key'", "git log -p --follow -- src/app.py", "git diff HEAD"),
    *("git diff HEAD:secrets/key src/app.py", "git diff -- ':(top)'", "git diff"),
    *(
        "git log -p -- secrets",
        "git log -p -- gone",
        "cd src && git log -p",
        "cd src && git show HEAD",
    ),
    *("git ls-files", "git ls-tree -r HEAD", "cat src/app.py; rg KEY"),
    *("Grep KEY", "Grep KEY .", "Grep KEY secrets", "Glob **/*", "Glob key"),
]


async def test_a_read_of_a_folder_obeys_rules_about_what_is_below(
    bench: Bench, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What can reach a forbidden file is denied, or a person decides."""
    monkeypatch.setenv("AI_AGENT", "claude-code_2-1-332_harness")
    (project / "secrets").mkdir()
    (project / "secrets" / "key").write_text("KEY")
    bench.broker.deciding.policy = Policy(
        SECRETS, bench.broker.deciding.policy.catalogue
    )
    assert await allowed(bench, project, BELOW) == []


NAMED = [
    *("cat src/app.py | grep def | head -5", "cat src/app.py | grep -e def"),
    *("ls -la", "grep def src/app.py"),
    *("git diff -- src/app.py", "git blame src/app.py", "Read src/app.py"),
]


async def test_a_read_of_named_files_needs_no_person(
    bench: Bench, project: Path
) -> None:
    """The same rule leaves reads alone that cannot reach below its folder."""
    rules = SECRETS.replace('"*/', f'"file:{project}/')
    bench.broker.deciding.policy = Policy(rules, bench.broker.deciding.policy.catalogue)
    assert await allowed(bench, project, NAMED) == NAMED
