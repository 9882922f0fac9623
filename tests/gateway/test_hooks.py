"""Hooks of agent hosts, each a real process that asks a broker over its socket."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from support import forked
from support.bench import OPERATOR, Bench
from support.command_line import PROGRAM, plain_environment
from support.gateway_stand import served_at_home
from support.stepups import approve

from agentvault_tui.broker.usecases.rate import change_rate
from agentvault_tui.broker.usecases.revoke import revoke_agent
from agentvault_tui.broker.usecases.stepup_end import deny
from agentvault_tui.gateway import Gateway
from agentvault_tui.model import Agent, Event, Outcome, Repeat, StepUp
from agentvault_tui.policy import Policy
from agentvault_tui.policy.limits import LimitSet
from agentvault_tui.settings import GatewaySettings
from agentvault_tui.web.shares import SharedPlaces

pytestmark = pytest.mark.slow

READ = {"tool_name": "Read", "tool_input": {"file_path": "/srv/a.txt"}, "cwd": "/srv"}
SHELL = {"tool_name": "Bash", "tool_input": {"command": "rm -rf build"}, "cwd": "/srv"}


@pytest.fixture
async def bench(bench: Bench) -> AsyncIterator[Bench]:
    """A broker whose operators' socket listens in its home."""
    async with served_at_home(bench):
        yield bench


@pytest.fixture
async def agent(bench: Bench) -> Agent:
    return await bench.agent("coder", "read:files", "execute:command", "write:files")


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have hooks wait for no person."""
    monkeypatch.setattr(GatewaySettings, "hook_wait", 0)


async def run(
    bench: Bench, call: object, host: str = "claude-code", agent: str = "coder"
) -> tuple[int, str, str]:
    """Run the hook as its host does: exit code, standard output and error."""
    argv = ("hook", host, "--agent", agent, "--home", str(bench.home.data))
    folder = str(call.get("cwd", "") if isinstance(call, dict) else "")
    env = plain_environment(CLAUDE_PROJECT_DIR=folder, GEMINI_PROJECT_DIR=folder)
    given = call if isinstance(call, bytes) else json.dumps(call).encode()
    done = await asyncio.to_thread(forked.run, *argv, env=env, given=given)
    return done.returncode, done.stdout, done.stderr


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
    assert isinstance(bench.broker.extensions.gateway, Gateway)
    await bench.broker.extensions.gateway.look()
    assert not bench.broker.extensions.gateway.warnings


async def held_body(bench: Bench, stepup: StepUp) -> bytes:
    """Return what its person decides about; kept once the step-up is recorded."""
    assert isinstance(bench.broker.extensions.gateway, Gateway)
    calls = bench.broker.extensions.gateway.calls
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
    await approve(bench, stepup)
    assert (await running)["permissionDecision"] == "allow"
    running = asyncio.create_task(asked(bench, SHELL))
    await deny(bench.broker, (await waiting(bench)).id, "too broad", OPERATOR)
    told = await running
    assert told["permissionDecision"] == "deny"
    assert "too broad" in told["permissionDecisionReason"]


@pytest.mark.parametrize(
    "more", [{"timeout": 9}, {"n" * 300: "rm -rf /"}], ids=["timeout", "long name"]
)
async def test_nobody_there_is_a_no_that_names_the_step_up(
    bench: Bench, agent: Agent, at_once: None, more: dict[str, Any]
) -> None:
    """After hook_wait it is denied; approved later, the same call is allowed once.

    Each argument is under the digest: a call that has one more is another call.
    """
    told = await asked(bench, SHELL)
    (stepup,) = bench.broker.stepups.open()
    assert told["permissionDecision"] == "deny"
    assert stepup.id in told["permissionDecisionReason"]
    await approve(bench, stepup)
    other = {**SHELL, "tool_input": {"command": "rm -rf build", **more}}
    assert (await asked(bench, other))["permissionDecision"] == "deny"
    assert (await asked(bench, SHELL))["permissionDecision"] == "allow"
    assert (await asked(bench, SHELL))["permissionDecision"] == "deny"


async def test_a_hook_without_a_place_to_wait_is_answered_at_once(
    bench: Bench, agent: Agent
) -> None:
    """Where its agent has its share of them, it is denied and names the step-up."""
    bench.broker.admitting.waiting = SharedPlaces(0, bench.clock.boot)
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
    await approve(bench, stepup)
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
    write = {"file_path": "/srv/b", "content": "x" * 200_000}
    call = {"tool_name": "Write", "tool_input": write, "cwd": "/srv"}
    assert await asked(bench, call) == {}
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
        "body_kind": "json",
        "body_type": "application/json",
    }
    assert "arguments_sha256" not in stepup.parameters
    await deny(bench.broker, stepup.id, "", OPERATOR)
    await running


async def test_what_cannot_be_shown_whole_is_cut_and_under_the_digest(
    bench: Bench, agent: Agent, at_once: None
) -> None:
    """The person sees the beginning; one other character further on asks again."""
    call = {"tool_name": "Bash", "tool_input": {"command": "echo " + "x" * 60_000}}
    assert (await asked(bench, call))["permissionDecision"] == "deny"
    (stepup,) = bench.broker.stepups.open()
    shown = json.loads(await held_body(bench, stepup))["command"]
    assert shown["cut"].startswith("echo xxx")
    assert shown["characters"] == 60_005
    assert stepup.parameters["cut"] == ["command"]
    await approve(bench, stepup)
    other = {**call, "tool_input": {"command": "echo " + "x" * 59_999 + "y"}}
    assert (await asked(bench, other))["permissionDecision"] == "deny"
    assert (await asked(bench, call))["permissionDecision"] == "allow"


async def test_another_description_is_the_same_call(
    bench: Bench, agent: Agent, at_once: None
) -> None:
    """The model's own words are shown as such, and are not what is approved."""
    for words in ("Clean", "Tidy up"):
        given = {"command": "rm -rf build", "description": words}
        call = {**SHELL, "tool_input": given}
        assert (await asked(bench, call))["permissionDecision"] == "deny"
    (stepup,) = bench.broker.stepups.open()
    assert (stepup.reason, stepup.count) == ("Clean", 2)
    await approve(bench, stepup)
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
    bench.broker.admitting.url = "http://127.0.0.1:7717"
    call = {"hook_event_name": "beforeMCPExecution", **mcp_call("read")}
    for base, permission in (
        (bench.broker.admitting.url, "allow"),
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
    monkeypatch.setattr(bench.broker.admitting.floods, "limited", lambda _: True)
    told = await asked(bench, READ)
    assert told["permissionDecision"] == "deny"
    assert not await bench.events("access.decision")


async def test_changed_files_count_at_once(bench: Bench, agent: Agent) -> None:
    """hosts/NAME.toml of the home replaces the shipped map, and is recorded."""
    await write_file(bench, "hosts/claude-code.toml", 'unmatched = "read:files"\n')
    assert await asked(bench, {"tool_name": "Teleport", "tool_input": {}}) == {}
    (event,) = await bench.events("service.changed")
    assert event.resource == "hosts/claude-code.toml"


@pytest.fixture
def project(short: Path) -> Path:
    """A project that is a repository of git's, and a folder that is not in it."""
    folder = short / "project"
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "a.py").touch()
    (short / "elsewhere").mkdir()
    subprocess.run(["git", "init", "-q", str(folder)], check=True)  # noqa: S607
    return folder.resolve()


def call_in(folder: Path, tool: str, **arguments: object) -> dict[str, Any]:
    return {"tool_name": tool, "tool_input": arguments, "cwd": str(folder)}


def shell(folder: Path, command: str, **more: object) -> dict[str, Any]:
    return call_in(folder, "Bash", command=command, **more)


async def last(bench: Bench) -> Event:
    return (await bench.events("access.decision"))[-1]


@pytest.mark.parametrize(
    "command",
    ["ls", "cat src/a.py | wc -l", "git status && git log", "cd src && ls -la"],
)
async def test_a_line_that_only_reads_is_reading(
    bench: Bench,
    agent: Agent,
    project: Path,
    command: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It needs no person, as `read:files` needs none."""
    monkeypatch.setenv("AI_AGENT", "claude-code_2-1-332_harness")
    assert await asked(bench, shell(project, command)) == {}
    assert (await last(bench)).action == "read:files"


async def test_every_path_of_a_line_is_in_its_one_row(
    bench: Bench, agent: Agent, project: Path
) -> None:
    """Each is decided as a resource of its own."""
    assert await asked(bench, shell(project, "cat src/a.py new.py")) == {}
    (event,) = await bench.events("access.decision")
    wanted = [f"file:{project}/src/a.py", f"file:{project}/new.py"]
    assert event.resource == wanted[0]
    assert event.detail["parameters"]["resources"] == [
        f"read:files {one}" for one in wanted
    ]


FORBIDDEN = """
@id("not-secret")
@why("Nobody reads it.")
forbid (principal, action, resource)
when { context has resource && context.resource like "*/secret*" };
@id("rest")
@why("The rest.")
@obligation("allow")
permit (principal, action, resource);
"""


async def test_the_strictest_answer_of_a_lines_paths_counts(
    bench: Bench, agent: Agent, project: Path
) -> None:
    """In any position on the line; the row names that path."""
    bench.broker.deciding.policy = Policy(
        FORBIDDEN, bench.broker.deciding.policy.catalogue
    )
    for command in ("cat a secret b", "cat a; cat secret", "ls && cat ./secret"):
        told = await asked(bench, shell(project, command))
        assert told["permissionDecision"] == "deny"
        assert "not-secret" in told["permissionDecisionReason"]
        assert (await last(bench)).resource == f"file:{project}/secret"
    assert await asked(bench, shell(project, "cat a b")) == {}


LIMITED = """
[[limits]]
id = "each"
scopes = ["read:files"]
per = "resource"
within = "1h"
count = 2
over = "deny"
[[limits]]
id = "all"
scopes = ["read:files"]
within = "1h"
count = 4
over = "deny"
"""


async def test_a_line_counts_for_each_of_its_paths(
    bench: Bench, agent: Agent, project: Path
) -> None:
    """A limit by resource counts every path; any other counts the line once."""
    catalogue = bench.broker.deciding.policy.catalogue
    limits = LimitSet.parse(LIMITED, "limits.toml", catalogue)
    text = bench.broker.deciding.policy.text
    bench.broker.deciding.policy = Policy(text, catalogue, limits=limits)
    bench.broker.deciding.limits.define(limits)
    assert await asked(bench, shell(project, "cat a b c")) == {}
    assert await asked(bench, shell(project, "cat c b d")) == {}
    for command in ("cat b", "cat e c"):
        told = await asked(bench, shell(project, command))
        assert "limit each" in told["permissionDecisionReason"]
    assert await asked(bench, shell(project, "cat d")) == {}
    assert await asked(bench, shell(project, "cat e")) == {}
    told = await asked(bench, shell(project, "cat f"))
    assert "limit all" in told["permissionDecisionReason"]
    found = await bench.broker.deciding.limits.all()
    used = {(one.limit.id, one.key): one.used for one in found}
    assert sum(used.values()) == 8 + 4
    async with bench.restarted() as again:  # and it is in the record
        again.broker.deciding.limits.define(limits)
        kept = await again.broker.deciding.limits.all()
        assert {(one.limit.id, one.key): one.used for one in kept} == used


@pytest.mark.parametrize(
    "command",
    [
        *("ls; rm -rf /", "ls | sh", "rm -rf build", "cat /etc/passwd", "ls $HOME"),
        *("cat ../elsewhere/x", "git -c core.pager=x log", "find . -delete", "./ls"),
        *("ls &", "ls > x", "cat `ls`"),
    ],
)
async def test_any_other_line_is_a_command(
    bench: Bench, agent: Agent, at_once: None, project: Path, command: str
) -> None:
    """A person decides it, as a whole."""
    told = await asked(bench, shell(project, command))
    assert told["permissionDecision"] == "deny"
    (stepup,) = bench.broker.stepups.open()
    assert stepup.action == "execute:command"
    assert stepup.parameters["command"] == command


async def test_a_line_without_its_hosts_sandbox_is_a_command(
    bench: Bench, agent: Agent, at_once: None, project: Path
) -> None:
    """Another argument may change what runs."""
    await asked(bench, shell(project, "ls", dangerouslyDisableSandbox=True))
    assert bench.broker.stepups.open()[0].action == "execute:command"


async def test_git_in_a_repository_that_names_a_program_is_a_command(
    bench: Bench, agent: Agent, at_once: None, project: Path
) -> None:
    """The same line reads where it names none."""
    assert await asked(bench, shell(project, "git status")) == {}
    with (project / ".git" / "config").open("a") as file:
        file.write("[core]\n\tfsmonitor = ./evil\n")
    told = await asked(bench, shell(project, "git status"))
    assert told["permissionDecision"] == "deny"
    assert bench.broker.stepups.open()[0].action == "execute:command"
    assert await asked(bench, shell(project, "ls")) == {}


@pytest.mark.parametrize(
    ("tool", "given", "resources"),
    [
        ("Read", {"file_path": "src/a.py"}, ["src/a.py"]),
        ("Grep", {"pattern": "x"}, ["/"]),
        ("Grep", {"pattern": "x", "path": "src"}, ["src/"]),
        ("Grep", {"pattern": "x", "path": "src", "glob": "*.py"}, ["src/", "src/*.py"]),
        ("Glob", {"pattern": "**/*.py"}, ["**/*.py", "/"]),
        ("Glob", {"pattern": "*.py", "path": "src"}, ["src/", "src/*.py"]),
    ],
)
@pytest.mark.usefixtures("agent")
async def test_every_path_and_pattern_of_a_file_tool_is_in_the_row(
    bench: Bench,
    project: Path,
    tool: str,
    given: dict[str, object],
    resources: list[str],
) -> None:
    """As it leads from the call's folder; without one, that folder."""
    assert await asked(bench, call_in(project, tool, **given)) == {}
    event = await last(bench)
    wanted = [f"file:{project}/{one.removeprefix('/')}" for one in resources]
    told = event.detail.get("parameters", {}).get("resources")
    assert event.resource == wanted[0]
    assert told == ([f"read:files {o}" for o in wanted] if len(wanted) > 1 else None)


async def test_several_files_of_gemini_are_each_a_resource(
    bench: Bench, agent: Agent, project: Path
) -> None:
    """`read_many_files` names as many as it likes."""
    call = call_in(project, "read_many_files", include=["src/*.py", "README.md"])
    call["hook_event_name"] = "BeforeTool"
    _, out, _ = await run(bench, call, "gemini")
    assert json.loads(out) == {"decision": "allow"}
    told = (await last(bench)).detail["parameters"]["resources"]
    assert [one.rpartition("project")[2] for one in told] == [
        *("/src/*.py", "/src/", "/README.md", "/")
    ]


async def test_each_url_that_gemini_fetches_counts(
    bench: Bench, agent: Agent, project: Path
) -> None:
    """A rule that forbids a URL counts wherever `web_fetch` names it."""
    forbidden = FORBIDDEN.replace("*/secret*", "https://evil.test/*")
    web = await bench.agent("web", "read:web")
    catalogue = bench.broker.deciding.policy.catalogue
    bench.broker.deciding.policy = Policy(forbidden, catalogue)
    for given, decision in (
        ({"prompt": "x", "url": "https://evil.test/"}, "deny"),
        ({"prompt": "read https://a.test/, (http://evil.test/x)"}, "deny"),
        ({"prompt": "read evil.test"}, "deny"),
        ({"prompt": "read https://a.test/ and http://b.test/y"}, "allow"),
    ):
        call = call_in(project, "web_fetch", **given) | {
            "hook_event_name": "BeforeTool"
        }
        _, out, _ = await run(bench, call, "gemini", agent=web.name)
        assert json.loads(out)["decision"] == decision, given
    assert (await last(bench)).detail["parameters"]["resources"] == [
        "read:web https://a.test/",
        "read:web http://b.test/y",
    ]


async def test_a_file_that_gemini_searches_for_may_be_its_configuration(
    bench: Bench, agent: Agent, project: Path
) -> None:
    """Its `replace` edits `.gemini/settings.json` if there is no `settings.json`."""
    given = {"file_path": "settings.json", "old_string": "a", "new_string": "b"}
    for absent in (True, False):
        call = call_in(project, "replace", **given) | {"hook_event_name": "BeforeTool"}
        _, out, _ = await run(bench, call, "gemini")
        assert (json.loads(out)["decision"] == "deny") is absent
        assert ("configure:host" in out) is absent
        (project / "settings.json").touch()


@pytest.mark.parametrize(
    ("tool", "given"),
    [
        ("Read", {"file_path": "/etc/passwd"}),
        ("Read", {"file_path": "link"}),
        ("Read", {"file_path": " src/a.py"}),
        ("Glob", {"pattern": "../**"}),
        ("Grep", {"pattern": "x", "path": ".."}),
        ("Write", {"file_path": "../elsewhere/x", "content": "y"}),
        ("Edit", {"file_path": "link", "old_string": "", "new_string": ""}),
        ("Read", {"file_path": "src/a.py", "absolute_path": "/etc/passwd"}),
        ("Read", {"file_path": "@src/a.py"}),
        ("Write", {"file_path": "src/%61.py", "content": "y"}),
    ],
)
async def test_a_path_outside_the_project_asks_a_person(
    bench: Bench, agent: Agent, project: Path, tool: str, given: dict[str, object]
) -> None:
    """Whatever policy permits; approved, exactly that call goes through, once."""
    (project / "link").symlink_to("/etc/hosts")
    call = call_in(project, tool, **given)
    running = asyncio.create_task(asked(bench, call))
    stepup = await waiting(bench)
    assert "outside the project" in stepup.why
    await approve(bench, stepup)
    assert (await running)["permissionDecision"] == "allow"
    running = asyncio.create_task(asked(bench, call))
    await deny(bench.broker, (await waiting(bench)).id, "", OPERATOR)
    assert (await running)["permissionDecision"] == "deny"


@pytest.mark.parametrize(
    "path",
    [
        ".claude/settings.json",
        ".mcp.json",
        ".git/hooks/pre-commit",
        ".envrc",
        "x/.GIT/y",
        "@.claude/settings.json",
        "%2evscode/tasks.json",
    ],
)
async def test_an_edit_of_what_runs_later_configures_the_host(
    bench: Bench, agent: Agent, at_once: None, project: Path, path: str
) -> None:
    """Not granted it is denied; granted, a person decides each."""
    call = call_in(project, "Write", file_path=path, content="x")
    told = await asked(bench, call)
    assert "configure:host" in told["permissionDecisionReason"]
    assert not bench.broker.stepups.open()
    other = await bench.agent("host", "configure:host", "write:files", "read:files")
    told = await asked(bench, call, agent=other.name)
    assert told["permissionDecision"] == "deny"
    assert bench.broker.stepups.open()[0].action == "configure:host"
    if path[0] not in "@%":
        read = call_in(project, "Read", file_path=path)
        assert await asked(bench, read) == {}


async def test_nothing_reaches_into_agentvaults_home(
    bench: Bench, agent: Agent, at_once: None, project: Path
) -> None:
    """By a path, link, glob or word of a command: it is denied without a person."""
    home = bench.home.data
    (project / "link").symlink_to(home)
    for call in (
        call_in(project, "Read", file_path=str(home / "config.toml")),
        call_in(project, "Read", file_path="link/keys/team.key"),
        call_in(project, "Write", file_path=str(home / "hosts/x.toml"), content="x"),
        call_in(project, "Glob", pattern=f"{home}/**"),
        call_in(project, "Grep", pattern="x", path="link"),
        call_in(project, "Read", file_path=f"@{home}/config.toml"),
        call_in(project, "Read", file_path="%6cink/keys/team.key"),
        shell(project, f"cat {home}/agentvault.db"),
        shell(project, "ls link"),
        shell(project, f"rm -rf {home}/*"),
        shell(project, f"echo x > {home}/policy.cedar"),
    ):
        told = await asked(bench, call)
        assert "AgentVault's home directory" in told["permissionDecisionReason"]
        assert (await last(bench)).reason == "agentvault_home"
    assert not bench.broker.stepups.open()


@pytest.mark.parametrize("tool", ["Skill", "SlashCommand"])
async def test_what_runs_the_text_of_a_file_is_a_command(
    bench: Bench, agent: Agent, at_once: None, project: Path, tool: str
) -> None:
    """Skills and slash commands hold shell commands."""
    given = {"skill": "deploy", "command": "/deploy"}
    await asked(bench, call_in(project, tool, **given))
    assert bench.broker.stepups.open()[0].action == "execute:command"


async def patched(bench: Bench, project: Path, *lines: str) -> tuple[int, str, str]:
    text = "\n".join(["*** Begin Patch", *lines, "*** End Patch"])
    call = call_in(project, "apply_patch", command=text)
    return await run(bench, {"hook_event_name": "PreToolUse", **call}, "codex")


async def test_a_deletion_in_a_patch_is_deleting(
    bench: Bench, at_once: None, project: Path
) -> None:
    """Padded or not, however many; a move deletes what it moves."""
    agent = await bench.agent("coder", "write:files", "delete:files")
    added = "*** Add File: src/b.py"
    assert (await patched(bench, project, added, "+x"))[:2] == (0, "")
    assert (await last(bench)).action == "write:files"
    many = [f"  *** Delete File: f{number}  " for number in range(150)]
    moved = ("*** Update File: src/a.py", "*** Move to: src/c.py", "@@", "-x", "+y")
    for lines in (many, [added, "+x", " *** Delete File: src/a.py"], moved):
        _, out, _ = await patched(bench, project, *lines)
        assert '"deny"' in out
        (stepup,) = bench.broker.stepups.open(agent.id)
        assert stepup.action == "delete:files"
        await deny(bench.broker, stepup.id, "", OPERATOR)
        bench.clock.advance(3_600)
    assert stepup.parameters["count"] == 2
    assert stepup.parameters["resources"] == [
        f"write:files file:{project}/src/c.py",
        f"delete:files file:{project}/src/a.py",
    ]


async def test_one_approval_of_tests_may_be_for_the_next_ones(
    bench: Bench, at_once: None, project: Path
) -> None:
    """For half an hour, as its person chose: the same line goes through."""
    await bench.agent("coder", "run:tests", "execute:command")
    call = shell(project, "pytest -q src")
    assert (await asked(bench, call))["permissionDecision"] == "deny"
    (stepup,) = bench.broker.stepups.open()
    assert (stepup.action, stepup.resource) == ("run:tests", f"file:{project}/src/")
    repeat = Repeat(20, 1_800)
    await approve(bench, stepup, repeat)
    for _ in range(3):
        assert (await asked(bench, call))["permissionDecision"] == "allow"
    other = shell(project, "pytest -q -x src")
    assert (await asked(bench, other))["permissionDecision"] == "deny"


async def test_beyond_its_rate_a_hook_is_denied_for_a_second(
    bench: Bench, agent: Agent
) -> None:
    """The host is answered that it is too fast, without a record; then it goes on."""
    await change_rate(bench.broker, agent.id, 1, OPERATOR)
    for _ in range(10):
        assert "permissionDecision" not in await asked(bench, READ)
    told = await asked(bench, READ)
    assert told["permissionDecision"] == "deny"
    assert "a second" in told["permissionDecisionReason"]
    assert len(await bench.events("access.decision")) == 10
    bench.clock.advance(1)
    assert "permissionDecision" not in await asked(bench, READ)
