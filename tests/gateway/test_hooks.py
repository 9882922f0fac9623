"""Hooks of agent hosts, each a real process that asks a broker over its socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from support.bench import OPERATOR, Bench
from support.command_line import PROGRAM, plain_environment
from support.manual_clock import ManualClock

from agentvault_tui.broker.authority import Sessions
from agentvault_tui.broker.operators_api import operators_app
from agentvault_tui.broker.usecases.revoke import revoke_agent
from agentvault_tui.broker.usecases.stepup import begin_approval, deny
from agentvault_tui.gateway import Gateway
from agentvault_tui.home import Home
from agentvault_tui.model import Agent, Outcome, StepUp
from agentvault_tui.web import RequestGuard, Server
from agentvault_tui.web.reply import problem
from agentvault_tui.web.shares import SharedPlaces
from agentvault_tui.web.sockets import unix_socket

pytestmark = pytest.mark.slow

READ = {"tool_name": "Read", "tool_input": {"file_path": "/srv/a.txt"}}
SHELL = {"tool_name": "Bash", "tool_input": {"command": "rm -rf build"}, "cwd": "/srv"}


@pytest.fixture
async def bench(short: Path) -> AsyncIterator[Bench]:
    """A broker whose operators' socket listens in its home."""
    home = Home.locate(short / "home")
    opened = await Bench.open(home, ManualClock(datetime(2026, 11, 24, tzinfo=UTC)))
    gateway = opened.broker.gateway = Gateway(opened.broker)
    await gateway.start()
    async with Server(opened.clock) as server:
        guard = RequestGuard(
            operators_app(opened.broker, opened.feed, Sessions(opened.broker)),
            hosts=None,
            shape=problem,
        )
        await server.listen(guard, unix_socket(home.socket), shape=problem)
        yield opened
    await opened.close()


@pytest.fixture
async def agent(bench: Bench) -> Agent:
    return await bench.agent("coder", "read:files", "execute:command", "write:files")


async def run(
    bench: Bench, call: object, host: str = "claude-code", agent: str = "coder"
) -> tuple[int, str, str]:
    """Run the hook as its host does: exit code, standard output and error."""
    argv = (*PROGRAM, "hook", host, "--agent", agent, "--home", str(bench.home.data))
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=plain_environment(),
    )
    raw = call if isinstance(call, bytes) else json.dumps(call).encode()
    out, err = await process.communicate(raw)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def asked(bench: Bench, call: dict[str, Any], **more: str) -> dict[str, Any]:
    """Return what Claude Code reads of a call before a tool is used."""
    code, out, err = await run(bench, {"hook_event_name": "PreToolUse", **call}, **more)
    assert (code, err) == (0, "")
    told: dict[str, Any] = json.loads(out)
    return dict(told.get("hookSpecificOutput", {}))


FILES_SERVER = """
command = ["true"]
[tools.read]
scope = "read:files"
resource = "fs:{path}"
[tools.run]
scope = "execute:command"
[tools.web]
scope = "read:web"
"""


def mcp_call(tool: str) -> dict[str, Any]:
    return {"tool_name": tool, "tool_input": {"path": "/a"}}


async def write_file(bench: Bench, name: str, text: str) -> None:
    """Put a file of the home in force."""
    file = bench.home.config / name
    file.write_text(text)
    assert isinstance(bench.broker.gateway, Gateway)
    await bench.broker.gateway.look()
    assert not bench.broker.gateway.warnings


async def held_body(bench: Bench, stepup: StepUp) -> bytes:
    """Return what its person decides about; kept once the step-up is recorded."""
    assert isinstance(bench.broker.gateway, Gateway)
    calls = bench.broker.gateway.calls
    await bench.until(lambda: calls.bodies.of(stepup.id) is not None)
    return calls.bodies.of(stepup.id) or b""


async def waiting(bench: Bench) -> StepUp:
    await bench.until(lambda: bool(bench.broker.stepups.open()))
    return bench.broker.stepups.open()[0]


async def test_what_policy_allows_is_left_to_the_host(
    bench: Bench, agent: Agent
) -> None:
    """Nothing is said, so the host's own rules go on; the decision is recorded."""
    assert await asked(bench, READ) == {}
    (event,) = await bench.events("access.decision")
    assert (event.agent_id, event.outcome) == (agent.id, Outcome.ALLOWED)
    assert (event.action, event.resource) == ("read:files", "file:/srv/a.txt")
    assert event.detail["host"] == "claude-code"
    assert event.detail["tool"] == "Read"
    assert not await bench.events("token.decision")


async def test_what_is_not_granted_or_known_is_denied(
    bench: Bench, agent: Agent
) -> None:
    """In the host's words, with the reason for the model."""
    fetch = {"tool_name": "WebFetch", "tool_input": {"url": "https://a.test/"}}
    told = await asked(bench, fetch)
    assert told["permissionDecision"] == "deny"
    assert "read:web" in told["permissionDecisionReason"]
    told = await asked(bench, {"tool_name": "Teleport", "tool_input": {}})
    assert told["permissionDecision"] == "deny"
    assert "hosts/claude-code.toml" in told["permissionDecisionReason"]
    told = await asked(bench, {"tool_name": "Read", "tool_input": {}})
    assert "file_path" in told["permissionDecisionReason"]
    reasons = [event.reason for event in await bench.events("access.decision")]
    assert reasons == ["scope_not_granted", "unmatched_tool", "unclear_call"]


async def test_a_held_call_waits_for_the_person(bench: Bench, agent: Agent) -> None:
    """Approved while it waits it is allowed, without a second prompt of the host."""
    running = asyncio.create_task(asked(bench, SHELL))
    stepup = await waiting(bench)
    assert stepup.parameters["command"] == "rm -rf build"
    assert stepup.parameters["cwd"] == "/srv"
    await begin_approval(bench.broker, stepup.id, stepup.digest, OPERATOR)
    bench.tenant.approve()
    assert (await running)["permissionDecision"] == "allow"
    running = asyncio.create_task(asked(bench, SHELL))
    await deny(bench.broker, (await waiting(bench)).id, "too broad", OPERATOR)
    told = await running
    assert told["permissionDecision"] == "deny"
    assert "too broad" in told["permissionDecisionReason"]


async def test_nobody_there_is_a_no_that_names_the_step_up(
    bench: Bench, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After hook_wait it is denied; approved later, the same call is allowed once."""
    settings = bench.broker.settings.gateway
    monkeypatch.setattr(type(settings), "hook_wait", 0)
    told = await asked(bench, SHELL)
    (stepup,) = bench.broker.stepups.open()
    assert told["permissionDecision"] == "deny"
    assert stepup.id in told["permissionDecisionReason"]
    await begin_approval(bench.broker, stepup.id, stepup.digest, OPERATOR)
    bench.tenant.approve()
    await bench.until(lambda: not bench.broker.stepups.open())
    other = {**SHELL, "tool_input": {"command": "rm -rf build", "timeout": 9}}
    assert (await asked(bench, other))["permissionDecision"] == "deny"
    assert (await asked(bench, SHELL))["permissionDecision"] == "allow"
    assert (await asked(bench, SHELL))["permissionDecision"] == "deny"


async def test_a_hook_without_a_place_to_wait_is_answered_at_once(
    bench: Bench, agent: Agent
) -> None:
    """Where its agent has its share of them, it is denied and names the step-up."""
    bench.broker.waiting = SharedPlaces(0, bench.clock.boot)
    told = await asked(bench, SHELL)
    (stepup,) = bench.broker.stepups.open()
    assert told["permissionDecision"] == "deny"
    assert stepup.id in told["permissionDecisionReason"]


async def test_who_is_killed_while_waiting_spends_nothing(
    bench: Bench, agent: Agent
) -> None:
    """A host that gives the hook up leaves the approval for the next one."""
    argv = (*PROGRAM, "hook", "claude-code", "--agent", "coder")
    process = await asyncio.create_subprocess_exec(
        *argv,
        *("--home", str(bench.home.data)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=plain_environment(),
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps({"hook_event_name": "PreToolUse", **SHELL}).encode())
    process.stdin.close()
    stepup, awaited = await waiting(bench), bench.broker.stepups.awaited
    await bench.until(lambda: stepup.id in awaited)
    process.kill()
    await process.wait()
    await bench.until(lambda: stepup.id not in awaited)
    await begin_approval(bench.broker, stepup.id, stepup.digest, OPERATOR)
    bench.tenant.approve()
    await bench.until(lambda: not bench.broker.stepups.open())
    assert (await asked(bench, SHELL))["permissionDecision"] == "allow"


async def test_a_revoked_agent_does_nothing(bench: Bench, agent: Agent) -> None:
    """By its id or its name."""
    await revoke_agent(bench.broker, agent.id, "test", OPERATOR)
    for word in (agent.id, agent.name):
        told = await asked(bench, READ, agent=word)
        assert told["permissionDecision"] == "deny"
        assert "revoked" in told["permissionDecisionReason"]


async def test_an_unknown_agent_is_denied(bench: Bench, agent: Agent) -> None:
    """A misspelt name lets nothing through."""
    told = await asked(bench, READ, agent="codre")
    assert told["permissionDecision"] == "deny"
    assert "codre" in told["permissionDecisionReason"]


async def test_a_long_call_is_decided(bench: Bench, agent: Agent) -> None:
    """A call may be larger than a body; what is too long to read is unclear."""
    write = {"file_path": "/srv/b", "content": "x" * 2_000_000}
    assert await asked(bench, {"tool_name": "Write", "tool_input": write}) == {}
    command = {"command": "echo " + "x" * 20_000}
    running = asyncio.create_task(
        asked(bench, {"tool_name": "Bash", "tool_input": command})
    )
    stepup = await waiting(bench)
    assert stepup.parameters["command"] is None
    assert json.loads(await held_body(bench, stepup)) == command
    await revoke_agent(bench.broker, agent.id, "test", OPERATOR)
    assert (await running)["permissionDecision"] == "deny"


async def test_a_person_sees_every_argument(bench: Bench, agent: Agent) -> None:
    """All of them are the body of what is held, in one spelling, under the digest."""
    given = {"timeout": 9, "command": "ls", "run_in_background": True}
    running = asyncio.create_task(
        asked(bench, {"tool_name": "Bash", "tool_input": given})
    )
    stepup = await waiting(bench)
    body = await held_body(bench, stepup)
    assert body == b'{"command":"ls","run_in_background":true,"timeout":9}'
    assert stepup.request == {
        "method": "call",
        "url": "hook://claude-code/Bash",
        "headers": {},
        "body_sha256": sha256(body).hexdigest(),
        "body_bytes": len(body),
    }
    assert "arguments_sha256" not in stepup.parameters
    await deny(bench.broker, stepup.id, "", OPERATOR)
    await running


async def test_nobody_approves_what_cannot_be_shown(bench: Bench, agent: Agent) -> None:
    """A call that needs a person and is too long to be shown whole is denied."""
    command = {"command": "echo " + "x" * 60_000}
    told = await asked(bench, {"tool_name": "Bash", "tool_input": command})
    assert told["permissionDecision"] == "deny"
    assert "too long" in told["permissionDecisionReason"]
    assert not bench.broker.stepups.open()


async def test_another_description_is_the_same_call(
    bench: Bench, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model's own words are shown as such, and are not what is approved."""
    settings = bench.broker.settings.gateway
    monkeypatch.setattr(type(settings), "hook_wait", 0)
    for words in ("Clean", "Tidy up"):
        given = {"command": "rm -rf build", "description": words}
        call = {**SHELL, "tool_input": given}
        assert (await asked(bench, call))["permissionDecision"] == "deny"
    (stepup,) = bench.broker.stepups.open()
    assert (stepup.reason, stepup.count) == ("Clean", 2)
    await begin_approval(bench.broker, stepup.id, stepup.digest, OPERATOR)
    bench.tenant.approve()
    await bench.until(lambda: not bench.broker.stepups.open())
    given["description"] = "Once more"
    assert (await asked(bench, call))["permissionDecision"] == "allow"


async def test_tools_of_mcp_servers_of_the_gateway_are_decided_by_their_rules(
    bench: Bench, agent: Agent
) -> None:
    """What its file denies is denied; the rest the gateway decides when it is called.

    The agent has no `call:tool`, which opens the tools of other servers.
    """
    await write_file(bench, "mcp/files.toml", FILES_SERVER)
    for tool in ("read", "run"):  # allowed, and needs a person
        assert await asked(bench, mcp_call(f"mcp__files__{tool}")) == {}
    assert not bench.broker.stepups.open()
    assert not await bench.events("access.decision")
    told = await asked(bench, mcp_call("mcp__files__web"))
    assert "read:web" in told["permissionDecisionReason"]
    told = await asked(bench, mcp_call("mcp__files__other"))
    assert "mcp/files.toml" in told["permissionDecisionReason"]
    for foreign in ("mcp__other__read", "mcp__files__read__x"):
        told = await asked(bench, mcp_call(foreign))
        assert "call:tool" in told["permissionDecisionReason"]
    await revoke_agent(bench.broker, agent.id, "test", OPERATOR)
    told = await asked(bench, mcp_call("mcp__files__read"))
    assert "revoked" in told["permissionDecisionReason"]


async def test_a_rule_of_the_hosts_map_for_the_tool_goes_first(
    bench: Bench, agent: Agent
) -> None:
    """It names the tool; a pattern does not."""
    await write_file(bench, "mcp/files.toml", FILES_SERVER)
    rules = '[tools.mcp__files__read]\nscope = "read:web"\n'
    rules += '[tools."mcp__files__*"]\nscope = "read:web"\n'
    await write_file(bench, "hosts/claude-code.toml", rules)
    told = await asked(bench, mcp_call("mcp__files__read"))
    assert "read:web" in told["permissionDecisionReason"]
    assert await asked(bench, mcp_call("mcp__files__run")) == {}


async def test_a_url_of_another_broker_is_not_the_gateways(
    bench: Bench, agent: Agent
) -> None:
    """Cursor tells the URL: one elsewhere that ends alike is not judged as ours."""
    await write_file(bench, "mcp/files.toml", FILES_SERVER)
    bench.broker.issuer = "http://127.0.0.1:7717"
    call = {"hook_event_name": "beforeMCPExecution", **mcp_call("read")}
    for base, permission in (
        (bench.broker.issuer, "allow"),
        ("https://elsewhere.test", "deny"),
    ):
        url = f"{base}/mcp/files"
        _, out, _ = await run(bench, {**call, "url": url}, "cursor")
        assert json.loads(out)["permission"] == permission


async def test_a_refusal_has_no_command_of_operators(
    bench: Bench, agent: Agent
) -> None:
    """Models run what they read: it says what, why, and who has to decide."""
    fetch = {"tool_name": "WebFetch", "tool_input": {"url": "https://a.test/"}}
    said = (await asked(bench, fetch))["permissionDecisionReason"]
    assert "agentvault" not in said
    assert "Not granted to this agent: read:web." in said
    assert said.endswith("An operator has to decide whether to grant it.")


async def test_a_flood_is_stopped(
    bench: Bench, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that goes on asking for what it is refused is not decided any more."""
    monkeypatch.setattr(bench.broker.floods, "limited", lambda _: True)
    told = await asked(bench, READ)
    assert told["permissionDecision"] == "deny"
    assert not await bench.events("access.decision")


async def test_changed_files_count_at_once(bench: Bench, agent: Agent) -> None:
    """hosts/NAME.toml of the home replaces the shipped map, and is recorded."""
    await write_file(bench, "hosts/claude-code.toml", 'unmatched = "read:files"\n')
    assert await asked(bench, {"tool_name": "Teleport", "tool_input": {}}) == {}
    (event,) = await bench.events("service.changed")
    assert event.resource == "hosts/claude-code.toml"
