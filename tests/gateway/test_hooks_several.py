"""A tool call with several actions is shown and held under the riskiest of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from support import forked
from support.bench import Bench
from support.command_line import plain_environment
from support.gateway_stand import served_at_home

from agentvault_tui.approval_rules import StepUpRule
from agentvault_tui.model import Risk
from agentvault_tui.policy import Policy

pytestmark = pytest.mark.slow
WAITS = """
@id("changes") @why("changes wait") @obligation("step_up")
permit (principal, action, resource);
"""
UPDATE, DELETE = ("*** Update File: a", "@@", "-x", "+y"), ("*** Delete File: b",)


@pytest.fixture
async def bench(bench: Bench) -> AsyncIterator[Bench]:
    """A broker whose operators' socket listens in its home; hooks wait for nothing."""
    settings = bench.broker.settings
    bench.broker.settings = replace(
        settings, gateway=replace(settings.gateway, hook_wait=0)
    )
    catalogue = bench.broker.deciding.policy.catalogue
    bench.broker.deciding.policy = Policy(WAITS, catalogue)
    async with served_at_home(bench):
        yield bench


@pytest.fixture
def project(short: Path) -> Path:
    """A folder that an agent works in."""
    folder = short.resolve() / "project"
    folder.mkdir()
    return folder


def under(bench: Bench, *rules: StepUpRule) -> None:
    settings = bench.broker.settings
    stepup = replace(settings.stepup, rules=rules)
    bench.broker.settings = replace(settings, stepup=stepup)


async def patched(bench: Bench, folder: Path, *lines: str) -> str:
    """Ask about a patch as Codex does; return the standard output."""
    text = "\n".join(["*** Begin Patch", *lines, "*** End Patch"])
    call = {
        "hook_event_name": "PreToolUse",
        "tool_name": "apply_patch",
        "tool_input": {"command": text},
        "cwd": str(folder),
    }
    home = str(bench.home.data)
    argv = ("hook", "codex", "--agent", "coder", "--home", home)
    given, env = json.dumps(call).encode(), plain_environment()
    done = await asyncio.to_thread(forked.run, *argv, env=env, given=given)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("lines", [(*UPDATE, *DELETE), (*DELETE, *UPDATE)], ids=str)
@pytest.mark.parametrize(
    "rule",
    [
        StepUpRule(approvals=2, scopes=("delete:files",)),
        StepUpRule(approvals=2, risk=Risk.HIGH),
        StepUpRule(approvals=2, scopes=("write:files",)),
    ],
    ids=["scope", "risk", "milder"],
)
async def test_a_deletion_next_to_a_write_is_held_as_a_deletion(
    bench: Bench, project: Path, lines: tuple[str, ...], rule: StepUpRule
) -> None:
    """In either order in the patch, with the risk and approvals of the strictest."""
    under(bench, rule)
    agent = await bench.agent("coder", "write:files", "delete:files")
    assert '"deny"' in await patched(bench, project, *lines)
    (stepup,) = bench.broker.stepups.open(agent.id)
    assert (stepup.action, stepup.resource) == ("delete:files", f"file:{project}/b")
    assert stepup.scope == "delete:files write:files"
    assert (stepup.risk, stepup.need) == (Risk.HIGH, 2)


async def test_of_equal_risk_the_one_that_most_people_approve_is_first(
    bench: Bench, project: Path
) -> None:
    """The catalogue has both as of high risk."""
    under(bench, StepUpRule(approvals=2, scopes=("configure:host",)))
    agent = await bench.agent("coder", "configure:host", "delete:files")
    hooks = ("*** Add File: .git/hooks/pre-commit", "+x")
    assert '"deny"' in await patched(bench, project, *DELETE, *hooks)
    (stepup,) = bench.broker.stepups.open(agent.id)
    assert stepup.scope == "configure:host delete:files"
    assert (stepup.action, stepup.need) == ("configure:host", 2)
