"""Agent hosts, unmodified, behind hooks and MCP servers that `connect` configured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.command_line import PROGRAM
from support.patience import PATIENT
from support.peers import INTEROP, NODE
from support.scripted_model import Call, scripted_model
from support.vault import Vault, serving
from support.vault_stepups import start, stepup_until

SHARED = INTEROP / "hosts/node_modules"
SERVER = """
command = [%s, %s, %s]
[tools.read_file]
scope = "read:files"
resource = "fs:{path}"
"""


class Host(NamedTuple):
    """How one host is started, and what it calls its tools."""

    program: Path
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    """``{model}`` stands for the URL of the model."""
    read: Callable[[Path], tuple[str, dict[str, Any]]]
    ungranted: Callable[[Path], tuple[str, dict[str, Any]]]
    """A call under a scope that the agent has not; it makes the file it is given."""
    shell: tuple[str, str]
    """The tool, and the argument that is its command."""
    server_tool: tuple[str, str]
    """Of the MCP server ``files``, and its namespace."""
    settings: tuple[str, str] = ("", "")
    """A file of its own that it has before `connect`, and what that says."""


CODEX_MODEL = 'model_providers.m={name="m",base_url="{model}/v1",env_key="MODEL_KEY"}'
HOSTS = {
    "claude-code": Host(
        SHARED / "@anthropic-ai/claude-code/cli-wrapper.cjs",
        ("-p", "go", "--allowedTools", "Read,Write,Bash,mcp__files__read_file"),
        {
            "ANTHROPIC_BASE_URL": "{model}",
            "ANTHROPIC_API_KEY": "none",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "ENABLE_TOOL_SEARCH": "false",
        },
        lambda path: ("Read", {"file_path": str(path)}),
        lambda path: ("Write", {"file_path": str(path), "content": "x"}),
        ("Bash", "command"),
        ("mcp__files__read_file", ""),
    ),
    "codex": Host(
        SHARED / "@openai/codex/bin/codex.js",
        (
            *("exec", "--skip-git-repo-check", "--dangerously-bypass-hook-trust"),
            *("-s", "danger-full-access", "-c", 'model_provider="m"'),
            *("-c", CODEX_MODEL, "-c", 'model="m"', "go"),
        ),
        {"MODEL_KEY": "none"},
        lambda path: ("view_image", {"path": str(path)}),
        lambda path: ("create_goal", {"objective": str(path)}),
        ("exec_command", "cmd"),
        ("read_file", "mcp__files"),
    ),
    "copilot": Host(
        SHARED / "@github/copilot/npm-loader.js",
        ("-p", "go", "--allow-all", "--no-auto-update"),
        {
            "COPILOT_OFFLINE": "true",
            "COPILOT_MODEL": "m",
            "COPILOT_PROVIDER_TYPE": "anthropic",
            "COPILOT_PROVIDER_BASE_URL": "{model}",
            "COPILOT_PROVIDER_API_KEY": "none",
        },
        lambda path: ("view", {"path": str(path)}),
        lambda path: ("create", {"path": str(path), "file_text": "x"}),
        ("bash", "command"),
        ("files-read_file", ""),
    ),
    "gemini": Host(
        INTEROP / "node_modules/@google/gemini-cli/bundle/gemini.js",
        ("-p", "go", "--approval-mode", "yolo", "-m", "gemini-2.5-pro"),
        {
            "GOOGLE_GEMINI_BASE_URL": "{model}",
            "GEMINI_API_KEY": "none",
            "GEMINI_CLI_TRUST_WORKSPACE": "true",
        },
        lambda path: ("read_file", {"file_path": str(path)}),
        lambda path: ("write_file", {"file_path": str(path), "content": "x"}),
        ("run_shell_command", "command"),
        ("mcp_files_read_file", ""),
        (
            ".gemini/settings.json",
            '{"security": {"auth": {"selectedType": "gemini-api-key"}}}',
        ),
    ),
}
INSTALLED = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            NODE is None or not host.program.exists(),
            reason="agent hosts are not all installed: make hosts",
        ),
    )
    for name, host in HOSTS.items()
]
IMAGE = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b550000000a4944"
    "4154789c636000000002000148afa4710000000049454e44ae426082"
)
"""A PNG of one pixel: the one file that each of them reads."""


@pytest.fixture
def vault(short: Path) -> Iterator[Vault]:
    """A vault whose hooks do not wait, so that no test goes by the clock."""
    home = short / "vault"
    (home / "mcp").mkdir(parents=True, mode=0o700)
    home.chmod(0o700)
    peer = Path(__file__).parent.parent / "support/mcp_peer.py"
    words = (json.dumps(str(word)) for word in (sys.executable, peer, short / "log"))
    (home / "mcp/files.toml").write_text(SERVER % tuple(words))
    with serving(home, AGENTVAULT_GATEWAY_HOOK_WAIT="0") as vault:
        yield vault


def pending(vault: Vault) -> str:
    told = vault.operator.get("/api/agents/stepup?status=pending").json()
    (stepup,) = told["stepups"]
    return str(stepup["id"])


def approve(vault: Vault, user: dict[str, str]) -> None:
    stepup = pending(vault)
    vault.activate(start(vault, stepup)["device"], user)
    stepup_until(vault, stepup, "approved")


def deny(vault: Vault) -> None:
    body = {"id": pending(vault), "decision": "deny", "reason": "Not today."}
    assert vault.operator.post("/api/agents/stepup", json=body).status_code == 200


def connected(log: Path) -> None:
    """Wait until the host has asked the MCP server for its tools."""
    end = time.monotonic() + PATIENT
    while not log.exists() or "tools/list" not in log.read_text():
        assert time.monotonic() < end, "the host does not know the MCP server"
        time.sleep(0.02)


class Desk:
    """A person's folder, where one host is connected to a vault as the agent coder."""

    def __init__(self, folder: Path, vault: Vault, name: str) -> None:
        self.host, self.vault = HOSTS[name], vault
        self.person, self.project = folder, folder / "project"
        self.project.mkdir(parents=True)
        mine, text = self.host.settings
        if mine:
            (folder / mine).parent.mkdir()
            (folder / mine).write_text(text)
        self.image = self.project / "a.png"
        self.image.write_bytes(IMAGE)
        self.env = {"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8"}
        home = ("--home", str(vault.home))
        connect = (*PROGRAM, *home, "connect", name, "--agent", "coder", "--write")
        subprocess.run(connect, env=self.env, cwd=self.project, check=True)

    def run(self, *calls: Call) -> list[str]:
        """Let the model make *calls*; return what it was told of each."""
        with scripted_model(*calls) as model:
            filled = {
                name: value.replace("{model}", model.url)
                for name, value in self.host.environment.items()
            }
            words = [word.replace("{model}", model.url) for word in self.host.argv]
            ended = subprocess.run(
                [str(NODE), str(self.host.program), *words],
                env=self.env | filled,
                cwd=self.project,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=1.5 * PATIENT,
                check=False,
            )
        told = model.results
        assert len(told) == len(calls), (told, ended.stdout, ended.stderr)
        return told


@pytest.mark.slow
@pytest.mark.parametrize("name", INSTALLED)
def test_a_host_does_what_the_vault_says(short: Path, vault: Vault, name: str) -> None:
    """It reads what is allowed and runs what a person approved, by its own tools and an
    MCP server's; what is denied, revoked or undecided does not happen, and the model
    reads why."""
    agent = vault.register("coder", "read:files", "execute:command")
    user = vault.approver("alice")
    desk = Desk(short / "person", vault, name)
    host, project, image = desk.host, desk.project, desk.image
    tool, argument = host.shell

    def shell(file: str, before: Callable[[], object] = lambda: None) -> Call:
        return Call(tool, {argument: f"echo did-{file} > {project / file}"}, before)

    def revoke() -> None:
        body = {"agent_id": agent.agent_id, "reason": "test"}
        assert vault.operator.post("/api/agents/revoke", json=body).status_code == 200

    server_tool, namespace = host.server_tool
    known = partial(connected, short / "log")
    told = desk.run(
        Call(*host.read(image)),
        Call(*host.ungranted(project / "ungranted")),
        shell("approved"),
        shell("approved", lambda: approve(vault, user)),
        shell("denied"),
        shell("denied", lambda: deny(vault)),
        Call(server_tool, {"path": "/shared"}, known, namespace),
        Call(*host.read(image), revoke),
        Call(*host.read(image), vault.kill),
    )
    for number, part in {
        1: "Not granted to this agent",
        2: "A person has to approve",
        4: "A person has to approve",
        5: "A person said no",
        6: "/shared",
        7: "revoked",
        8: "no broker answers",
    }.items():
        assert part in told[number], (number, told)
    assert not any("AgentVault" in told[number] for number in (0, 3, 6)), told
    files = {file.name for file in project.iterdir() if file.is_file()}
    assert files - {".mcp.json"} == {"a.png", "approved"}


@pytest.mark.slow
@pytest.mark.parametrize("name", [one for one in INSTALLED if one.values == ("codex",)])
def test_codex_lets_no_approved_program_be_told_more(
    short: Path, vault: Vault, name: str
) -> None:
    """No hook is asked before it writes to a program's input, so none has any."""
    vault.register("coder", "execute:command")
    user = vault.approver("alice")
    call = Call("exec_command", {"cmd": "bash", "tty": True})
    approved = call._replace(before=lambda: approve(vault, user))
    told = Desk(short / "person", vault, name).run(call, approved)
    assert "TTY execution is disabled" in told[1]
