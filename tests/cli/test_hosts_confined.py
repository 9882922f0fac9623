"""`agentvault connect HOST --confined`: a host, its hook and servers inside a run."""

from __future__ import annotations

import json
import os
import sys
import tomllib
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.command_line import Agent, Answer, Broker
from support.confining import need_confinement

from agentvault_tui.cli.host_files import CANNOT_KEEP, EDITABLE, SHELL, HostFile
from agentvault_tui.cli.hosts_confined import _write
from agentvault_tui.errors import SettingsError
from agentvault_tui.home import Home

pytestmark = pytest.mark.slow

Run = Callable[..., Answer]
_NUMBERS = count(1)
CALL = {
    "hook_event_name": "PreToolUse",
    "tool_name": "Read",
    "tool_input": {"file_path": "/srv/a"},
    "cwd": "/srv",
}
SERVER = """
command = [%s, %s, "/dev/null"]
[tools.read_file]
scope = "read:files"
resource = "fs:{path}"
"""


@pytest.fixture
def reader(av: Run, broker: Broker) -> Agent:
    """An agent that may read files."""
    name = f"inner-{next(_NUMBERS)}"
    line = ("agents", "add", name, "--owner", "o", "--json")
    added = av(*line, "--scope", "read:files").json
    return Agent(broker, name, added["id"], added["client_secret"])


@pytest.fixture
def server(broker: Broker) -> str:
    """An MCP server of the gateway."""
    peer = Path(__file__).parent.parent / "support/mcp_peer.py"
    folder = broker.home / "mcp"
    folder.mkdir(exist_ok=True)
    (folder / "files.toml").write_text(
        SERVER % tuple(json.dumps(str(one)) for one in (sys.executable, peer))
    )
    return "files"


def posted(broker: Broker, token: str, **more: Any) -> httpx.Response:
    places = [["", "", False, "/srv", "project", False, True]]
    places += [["file_path", "/srv/a", False, "/srv/a", "project", False, False]]
    arguments = {"file_path": "/srv/a"}
    body = {"tool": "Read", "arguments": arguments, "places": places} | more
    return httpx.post(
        f"{broker.url}/hooks/claude-code",
        json=body,
        headers={"Authorization": f"Bearer {token}"} if token else {},
        trust_env=False,
    )


def test_a_hook_asks_with_a_token_of_its_own(
    av: Run, broker: Broker, reader: Agent
) -> None:
    """The agents' listener decides as the socket does, and records who asked."""
    token = av("token", "--agent", reader.name).out.strip()
    told = posted(broker, token, agent=reader.name)
    assert (told.status_code, told.json()["outcome"]) == (200, "allowed")
    told = posted(broker, token, agent=reader.id, tool="Write")
    assert told.json()["outcome"] == "denied"
    event = av("audit", "search", "--agent", reader.id, "--json").lines[-1]
    assert event["type"] == "access.decision"
    assert event["detail"]["asked_by"] == reader.name


def test_a_hook_without_its_own_token_decides_nothing(
    av: Run, broker: Broker, reader: Agent, agent: Agent
) -> None:
    """No token, another agent's, a delegated agent's name, or no call at all."""
    token = av("token", "--agent", reader.name).out.strip()
    assert posted(broker, "", agent=reader.name).status_code == 401
    assert posted(broker, "av_t_wrong", agent=reader.name).status_code == 401
    assert posted(broker, token, agent=agent.name).status_code == 403
    assert posted(broker, token).status_code == 400
    assert posted(broker, token, agent=reader.name, other=1).status_code == 400
    assert posted(
        broker, token, agent=reader.name, reason="x" * 70_000
    ).status_code in {400, 413}
    headers = {"Authorization": f"Bearer {token}"}
    for method, path in (("GET", "claude-code"), ("POST", "../api/runs"), ("POST", "")):
        told = httpx.request(
            method, f"{broker.url}/hooks/{path}", headers=headers, trust_env=False
        )
        assert told.status_code in {404, 400}, (method, path)
    av("agents", "revoke", reader.name, "--reason", "test")
    assert posted(broker, token, agent=reader.name).status_code == 401


@pytest.mark.parametrize("host", sorted({*CANNOT_KEEP} - {"vscode"}))
def test_what_is_printed_is_what_is_written_into_its_home(
    av: Run, broker: Broker, reader: Agent, server: str, host: str
) -> None:
    """All files are below the agent's home directory; the run line starts the host; the
    confinement keeps what a configuration alone cannot."""
    line = ("connect", host, "--agent", reader.name, "--confined")
    told = av(*line, "--json").json
    home = broker.home / "homes" / reader.id
    assert not home.exists()
    assert av(*line, "--write").code == 0
    for file in told["files"]:
        path = Path(file["path"])
        assert path.is_relative_to(home)
        assert path.read_text().rstrip() == file["content"].rstrip()
        read = tomllib.loads if file["format"] == "toml" else json.loads
        read(file["content"])
    text = json.dumps(told["files"])
    assert "--confined" in text
    assert f"hook {host} --agent {reader.name}" in text
    assert server in text
    assert told["run"][:6] == [
        *("agentvault", "run", "--agent", reader.name, "--confine", "--")
    ]
    assert not {SHELL, EDITABLE} & {*told["cannot_keep"]}
    assert "without its hook" in told["cannot_keep"][-1]
    record = json.loads((home.parent / f"{reader.id}.json").read_text())
    assert {one["path"] for one in told["files"]} == {*record}


def test_a_hosts_own_sandbox_is_off(av: Run, reader: Agent) -> None:
    """It makes namespaces, which fails inside."""
    line = ("--agent", reader.name, "--confined", "--json")
    claude = json.loads(av("connect", "claude-code", *line).json["files"][0]["content"])
    assert claude["sandbox"] == {"enabled": False}
    files = av("connect", "codex", *line).json["files"]
    (config,) = (one for one in files if one["format"] == "toml")
    assert tomllib.loads(config["content"])["sandbox_mode"] == "danger-full-access"


def test_a_host_with_windows_of_its_own_is_refused(av: Run, reader: Agent) -> None:
    """It is not started from a command line."""
    told = av("connect", "vscode", "--agent", reader.name, "--confined")
    assert told.code == 2
    assert "cannot be confined" in told.err


def test_hook_and_server_work_inside(
    av: Run, behind: Run, coder: str, server: str, tmp_path: Path
) -> None:
    """The hook that `connect` wrote decides, the server answers, and neither can be
    changed."""
    need_confinement()
    assert server
    av("agents", "grant", coder, "read:files")
    connect = ("connect", "claude-code", "--agent", coder, "--confined")
    told = av(*connect, "--write", "--json").json
    servers = Path(told["run"][told["run"].index("--mcp-config") + 1])
    started = json.loads(servers.read_text())["mcpServers"]["files"]
    settings = json.loads(Path(told["files"][0]["path"]).read_text())
    hook = settings["hooks"]["PreToolUse"][0]["hooks"][0]["command"]
    asked = [
        {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "initialize",
            "params": {
                "protocolVersion": "2025-06-18",
                "capabilities": {},
                "clientInfo": {"name": "t", "version": "1"},
            },
        },
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {
            "jsonrpc": "2.0",
            "id": 2,
            "method": "tools/call",
            "params": {"name": "read_file", "arguments": {"path": "/shared"}},
        },
    ]
    work = tmp_path / "work"
    call = CALL | {"cwd": str(work), "tool_input": {"file_path": str(work / "a")}}
    (work / "call.json").write_text(json.dumps(call))
    (work / "asked").write_text("".join(json.dumps(one) + "\n" for one in asked))
    (work / "stdio.json").write_text(json.dumps(started))
    script = (
        "import json, os, subprocess, sys\n"
        "run = subprocess.run\n"
        "os.environ['CLAUDE_PROJECT_DIR'] = os.getcwd()\n"
        f"print(run({hook!r}, shell=True, stdin=open('call.json'), "
        "capture_output=True).stdout.decode())\n"
        "told = json.load(open('stdio.json'))\n"
        "print(run([told['command'], *told['args']], stdin=open('asked'), "
        "capture_output=True).stdout.decode())\n"
        "for path in ('.claude/settings.json', 'agentvault-mcp.json'):\n"
        "    try: open(os.path.expanduser('~/' + path), 'a')\n"
        "    except OSError as error: print(error.strerror)\n"
        "try: os.rename(os.path.expanduser('~/.claude'), os.path.expanduser('~/x'))\n"
        "except OSError as error: print(error.strerror)\n"
    )
    packages = {one for one in sys.path if one.endswith("site-packages")}
    reads = [word for one in packages for word in ("--read", one)]
    answer = behind(*("/usr/bin/python3", "-c", script), options=("--confine", *reads))
    assert answer.code == 0, answer
    first, second, *rest = [one for one in answer.out.splitlines() if one]
    assert json.loads(first) == {}, answer  # policy allows it
    assert json.loads(second)["id"] == 1
    assert "/shared" in rest[0]
    assert rest[1:] == [
        *("Read-only file system", "Read-only file system"),
        "Device or resource busy",
    ]


def test_a_link_in_the_agents_home_is_not_written_through(
    av: Run, broker: Broker, reader: Agent, tmp_path: Path
) -> None:
    """The agent may have made it in an earlier run, to a file of the operator's."""
    home = broker.home / "homes" / reader.id
    home.mkdir(parents=True)
    mine = tmp_path / "mine"
    mine.mkdir()
    (home / ".claude").symlink_to(mine)
    told = av("connect", "claude-code", "--agent", reader.name, "--confined", "--write")
    assert told.code == 2
    assert "a link that the agent has made" in told.err
    assert [*mine.iterdir()] == []


@pytest.mark.parametrize("host", ["claude-code", "codex"])
def test_settings_that_the_agent_left_do_not_stay(
    av: Run, broker: Broker, reader: Agent, host: str
) -> None:
    """They may turn the hook off; the files are read-only from then on."""
    name, text = {
        "claude-code": (".claude/settings.json", '{"disableAllHooks": true}'),
        "codex": (".codex/config.toml", "[features]\nhooks = false\n"),
    }[host]
    left = broker.home / "homes" / reader.id / name
    left.parent.mkdir(parents=True)
    left.write_text(text)
    told = av("connect", host, "--agent", reader.name, "--confined", "--write")
    assert told.code == 0, told.err
    assert "disableAllHooks" not in left.read_text()
    assert "hooks = false" not in left.read_text()


def test_a_pipe_that_the_agent_left_is_not_opened(
    av: Run, broker: Broker, reader: Agent
) -> None:
    """To read it would wait for ever."""
    left = broker.home / "homes" / reader.id / ".codex/config.toml"
    left.parent.mkdir(parents=True)
    os.mkfifo(left)
    told = av("connect", "codex", "--agent", reader.name, "--confined", "--write")
    assert told.code == 2
    assert "is no file" in told.err


@pytest.mark.parametrize("name", [".codex", ".codex/config.toml"])
def test_a_link_that_comes_after_the_check_is_not_followed(
    broker: Broker, reader: Agent, tmp_path: Path, name: str
) -> None:
    """A command of the agent that runs meanwhile exchanges the folder for it."""
    vault = Home(broker.home, broker.home)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "config.toml").write_text("sandbox_mode = 'read-only'")
    place = vault.homes / reader.id / name
    place.parent.mkdir(parents=True)
    place.symlink_to(mine if name == ".codex" else mine / "config.toml")
    path = vault.homes / reader.id / ".codex/config.toml"
    file = HostFile(path, {}, "toml")
    with pytest.raises(SettingsError, match="cannot be written"):
        _write(vault, reader.id, [(file, "sandbox_mode = 'danger-full-access'")])
    assert [one.name for one in mine.iterdir()] == ["config.toml"]
    assert "read-only" in (mine / "config.toml").read_text()
