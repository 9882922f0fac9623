"""`agentvault token` and `connect`: tokens for helpers, configuration for hosts."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import tomllib
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.command_line import Agent, Answer, Broker

from agentvault_tui.cli.host_files import CANNOT_KEEP
from agentvault_tui.gateway.tools import shipped_tools

Run = Callable[..., Answer]
_NUMBERS = count(1)


@pytest.fixture
def reader(av: Run, broker: Broker) -> Agent:
    """An agent that may read files and the calendar, and run commands."""
    name = f"coder-{next(_NUMBERS)}"
    scopes = ("read:files", "read:calendar", "execute:command", "send:email")
    given = [word for scope in scopes for word in ("--scope", scope)]
    added = av("agents", "add", name, "--owner", "o", *given, "--json").json
    return Agent(broker, name, added["id"], added["client_secret"])


def introspected(agent: Agent, token: str) -> dict[str, Any]:
    answer = httpx.post(
        f"{agent.broker.url}/oauth/introspect",
        data={"token": token},
        auth=(agent.id, agent.secret),
        trust_env=False,
    )
    return dict(answer.json())


def test_a_token_is_printed_alone(av: Run, reader: Agent) -> None:
    """A helper reads it: one line, live, with all that is allowed at once."""
    told = av("token", "--agent", reader.name)
    assert (told.code, told.err) == (0, "")
    (token,) = told.out.splitlines()
    found = introspected(reader, token)
    assert found["active"] is True
    assert found["scope"].split() == ["read:calendar", "read:files"]


def test_who_asked_is_recorded(av: Run, reader: Agent) -> None:
    """The event of the decision names the local user as who acted."""
    told = av("token", "--agent", reader.id, "--scope", "read:files", "--json").json
    assert told["scope"] == "read:files"
    event = av("audit", "search", "--agent", reader.id, "--json").lines[-1]
    assert (event["type"], event["decision_id"]) == (
        "token.decision",
        told["decision_id"],
    )
    assert event["actor"]["kind"] == "operator"
    assert event["actor"]["id"].startswith("uid:")
    assert event["agent_id"] == reader.id


def test_a_token_may_be_for_one_resource(av: Run, reader: Agent) -> None:
    """It is what the header helper of an MCP server prints."""
    url = "http://127.0.0.1:7717/mcp/files"
    told = av("token", "--agent", reader.name, "--resource", url, "--header").json
    scheme, _, token = told["Authorization"].partition(" ")
    assert scheme == "Bearer"
    assert introspected(reader, token)["aud"] == url


def test_an_mcp_server_is_audience_alone(av: Run, reader: Agent) -> None:
    """The URL of a server of this broker is nothing that policy reads."""
    url = f"{reader.broker.url}/mcp/files"
    told = av("token", "--agent", reader.name, "--resource", url, "--json").json
    assert told["scope"].split() == ["read:calendar", "read:files"]
    event = av("audit", "search", "--agent", reader.id, "--json").lines[-1]
    assert event["detail"]["resource_indicator"] == url


@pytest.mark.parametrize(
    ("scope", "said"),
    [("execute:command", "stepup_required"), ("delete:records", "scope_not_granted")],
)
def test_what_needs_a_person_is_not_given(
    av: Run, reader: Agent, scope: str, said: str
) -> None:
    """Exit code 1, one line, recorded as denied; no step-up is opened."""
    told = av("token", "--agent", reader.name, "--scope", scope)
    assert (told.code, told.out) == (1, "")
    assert said in told.err
    event = av("audit", "search", "--agent", reader.id, "--json").lines[-1]
    assert (event["outcome"], event["reason"]) == ("denied", said)
    listed = av("stepup", "list", "--agent", reader.id, "--json").json
    assert listed["stepups"] == []


def test_a_revoked_agent_gets_no_token(av: Run, reader: Agent) -> None:
    """Nor one that does not exist, or for a scope nobody knows."""
    assert av("token", "--agent", "nobody-here").code == 4
    assert av("token", "--agent", reader.name, "--scope", "raed:x").code == 2
    av("agents", "revoke", reader.name)
    told = av("token", "--agent", reader.name)
    assert (told.code, told.out) == (1, "")
    assert "agent_revoked" in told.err


# connect


@pytest.fixture
def connect(run: Run) -> Run:
    return partial(run, "connect")


@pytest.mark.parametrize("host", CANNOT_KEEP)
def test_what_is_printed_is_what_is_written(
    connect: Run, place: Path, host: str
) -> None:
    """JSON names each file with its content; written, it says exactly that."""
    told = connect(host, "--agent", "coder", "--json").json
    assert told["cannot_keep"][:-1] == list(CANNOT_KEEP[host])
    assert not any(Path(file["path"]).exists() for file in told["files"])
    shown = connect(host, "--agent", "coder").out.splitlines()
    written = connect(host, "--agent", "coder", "--write").out.splitlines()
    for number, file in enumerate(told["files"]):
        path = Path(file["path"])
        here = path.is_relative_to(place / "project")
        reach = "this folder" if here else "every project of your user"
        assert shown[number] == f"would write {path} (for {reach})"
        assert written[number] == f"wrote {path} (for {reach})"
        assert place in path.parents
        assert path.read_text().rstrip() == file["content"].rstrip()
        read = tomllib.loads if file["format"] == "toml" else json.loads
        read(file["content"])
    text = json.dumps(told)
    assert f"hook {'copilot' if host == 'vscode' else host} --agent coder" in text
    assert "files" in text
    assert "av_" not in text
    again = connect(host, "--agent", "coder", "--json").json
    assert again["files"] == told["files"], "a second time adds nothing"


@pytest.mark.parametrize("host", CANNOT_KEEP)
def test_writing_a_second_time_leaves_the_files_alone(
    connect: Run, place: Path, host: str
) -> None:
    """No file is replaced, and no copy of one is made."""
    assert connect(host, "--agent", "coder", "--write").code == 0
    before = {path: path.stat().st_ino for path in place.rglob("*")}
    again = connect(host, "--agent", "coder", "--write")
    assert {path: path.stat().st_ino for path in place.rglob("*")} == before
    assert "unchanged" in again.out
    assert "wrote" not in again.out


@pytest.mark.parametrize("host", sorted({*CANNOT_KEEP} - {"codex"}))
def test_another_agent_takes_the_place_of_the_first(
    connect: Run, place: Path, host: str
) -> None:
    """What was connected before is replaced, hooks of others' stay."""
    own = json.dumps({"command": "mine", "bash": "mine"})
    assert connect(host, "--agent", "coder", "--write").code == 0
    paths = [path for path in place.rglob("*.json") if "vault" not in path.parts]
    for path in paths:
        handlers = re.sub(
            r"(\"(?:hooks|preToolUse)\": \[)", rf"\1{own},", path.read_text()
        )
        path.write_text(handlers)
    assert connect(host, "--agent", "other", "--write").code == 0
    for path in paths:
        text = path.read_text()
        assert "coder" not in text
        assert "other" in text
    assert any('"mine"' in path.read_text() for path in paths)
    first = json.loads(connect(host, "--agent", "other", "--json").out)["files"]
    assert [file["content"] for file in first] == [
        Path(file["path"]).read_text().rstrip() for file in first
    ]


def test_connect_keeps_existing_settings_of_the_host(connect: Run, place: Path) -> None:
    """Other settings and hooks stay, and a copy of the file as it was."""
    file = place / ".claude" / "settings.json"
    file.parent.mkdir()
    mine = {"matcher": "Bash", "hooks": [{"type": "command", "command": "mine"}]}
    before = json.dumps({"model": "x", "hooks": {"PreToolUse": [mine], "Stop": []}})
    file.write_text(before)
    file.chmod(0o600)
    told = connect("claude-code", "--agent", "coder", "--write")
    after = json.loads(file.read_text())
    assert after["model"] == "x"
    assert after["hooks"]["PreToolUse"][0] == mine
    assert len(after["hooks"]["PreToolUse"]) == 2
    assert file.stat().st_mode & 0o777 == 0o600
    (copy,) = file.parent.glob("settings.json.before-agentvault-*")
    assert copy.read_text() == before
    assert copy.name in told.out


def test_hooks_of_other_programs_that_are_called_alike_stay(
    connect: Run, place: Path
) -> None:
    """A guard of somebody else's may have a command `hook`, too."""
    file = place / ".claude" / "settings.json"
    file.parent.mkdir()
    other = {"type": "command", "command": "/opt/guard hook pre-tool --agent coder"}
    mine = {"matcher": "Bash", "hooks": [other]}
    file.write_text(json.dumps({"hooks": {"PreToolUse": [mine]}}))
    assert connect("claude-code", "--agent", "coder", "--write").code == 0
    first, ours = json.loads(file.read_text())["hooks"]["PreToolUse"]
    assert first == mine
    assert " hook claude-code --agent coder" in ours["hooks"][0]["command"]


@pytest.mark.parametrize(
    ("host", "name", "text"),
    [
        ("claude-code", ".claude/settings.json", "{ // a comment\n}"),
        ("claude-code", ".claude/settings.json", "[]"),
        ("claude-code", ".claude/settings.json", '{"hooks": "off"}'),
        ("codex", ".codex/config.toml", "mcp_servers = 3"),
        ("codex", ".codex/config.toml", '[mcp_servers.files]\nurl = "http://x"'),
        ("codex", ".codex/config.toml", "[features]\nunified_exec_tty = true"),
        ("codex", ".codex/config.toml", "features = { hooks = true }"),
        ("codex", ".codex/config.toml", "x = ["),
    ],
)
def test_a_file_that_cannot_be_added_to_stays(
    connect: Run, place: Path, host: str, name: str, text: str
) -> None:
    """Nothing is written where what is there cannot be read, or says otherwise."""
    file = place / name
    file.parent.mkdir()
    file.write_text(text)
    told = connect(host, "--agent", "coder", "--write")
    assert told.code != 0
    assert str(file) in told.err
    assert file.read_text() == text
    assert len(list(place.rglob("*.json"))) == (host == "claude-code")


def test_a_toml_file_keeps_its_comments(connect: Run, place: Path) -> None:
    """Tables are added at its end, a key to a table that is there, and that is all."""
    file = place / ".codex" / "config.toml"
    file.parent.mkdir()
    before = '# mine\nmodel = "x"\n\n [ features ] # what I try\ngoals = false\n'
    file.write_text(before)
    assert connect("codex", "--agent", "coder", "--write").code == 0
    text = file.read_text()
    added = "unified_exec_tty = false\n"
    assert text.replace(added, "").startswith(before)
    config = tomllib.loads(text)
    assert config["features"] == {"goals": False, "unified_exec_tty": False}
    server = config["mcp_servers"]["files"]
    arguments = "-m agentvault_tui.cli mcp stdio files --agent coder --home"
    assert f" {arguments} " in shlex.join(server["args"])


def test_managed_settings_lock_hooks_and_servers(connect: Run) -> None:
    """Only managed hooks run then, and only the gateway's servers are reached."""
    told = connect("claude-code", "--agent", "coder", "--managed", "--json").json
    settings, servers = (json.loads(file["content"]) for file in told["files"])
    assert settings["allowManagedHooksOnly"] is True
    server = servers["mcpServers"]["files"]
    command = [server["command"], *server["args"]]
    assert command[5:-2] == ["mcp", "stdio", "files", "--agent", "coder"]
    assert settings["allowedMcpServers"] == [{"serverCommand": command}]
    assert not any("may edit" in line for line in told["cannot_keep"])
    hook = settings["hooks"]["PreToolUse"][0]["hooks"][0]
    assert (hook["onFailure"], hook["timeout"]) == ("block", 60)


@pytest.mark.parametrize("host", ["codex", "cursor", "vscode", "gemini"])
def test_no_managed_configuration_is_made_up(connect: Run, host: str) -> None:
    """A host that has none we know is wrong usage."""
    told = connect(host, "--agent", "coder", "--managed")
    assert told.code == 2
    assert "managed" in told.err


def test_a_misspelt_agent_is_noticed(av: Run, place: Path) -> None:
    """While a broker runs, the name is looked up."""
    assert av("connect", "codex", "--agent", "codre").code == 4


@pytest.mark.parametrize("host", CANNOT_KEEP)
def test_the_grant_line_has_the_scopes_that_an_agent_lacks(
    av: Run, reader: Agent, place: Path, host: str
) -> None:
    """What it prints can be typed, and afterwards nothing is missing."""
    told = av("connect", host, "--agent", reader.name)
    (line,) = (one for one in told.out.splitlines() if "agents grant" in one)
    words = shlex.split(line)
    assert {"run:tests", "configure:host", "write:files"} <= {*words}
    assert not {"read:files", "execute:command", "call:tool"} & {*words}
    assert av(*words[1:]).code == 0
    again = av("connect", host, "--agent", reader.name)
    assert "agents grant" not in again.out
    told = av("connect", host, "--agent", reader.name, "--json")
    assert told.json["missing_scopes"] == []


@pytest.mark.parametrize("host", ["claude-code", "codex", "gemini"])
def test_a_hook_that_is_killed_or_missing_blocks_the_call(
    connect: Run, host: str
) -> None:
    """These hosts take exit code 2 with a reason for a no, and others for nothing."""
    told = connect(host, "--agent", "coder", "--json").json["files"][0]
    (event,) = json.loads(told["content"])["hooks"].values()
    command = event[0]["hooks"][0]["command"]
    program = shlex.split(command)[0]
    for instead in ("/no/such/program", "sh -c 'kill -9 $$'", "false"):
        broken = command.replace(program, instead, 1)
        ended = subprocess.run(
            ["/bin/sh", "-c", broken], check=False, capture_output=True
        )
        assert ended.returncode == 2
        assert b"AgentVault did not decide" in ended.stderr


@pytest.mark.parametrize("where", ["{place}", ".", ":/nowhere"])
def test_no_file_of_the_project_answers_for_the_hook(
    connect: Run, place: Path, where: str
) -> None:
    """PYTHONPATH often has the project's folder, where an agent may write modules."""
    folder = place / "project"
    for name in ("sitecustomize", "json", "agentvault_tui"):
        answer = "import os\nprint('{}', flush=True)\nos._exit(0)\n"
        (folder / f"{name}.py").write_text(answer)
    told = connect("claude-code", "--agent", "coder", "--json").json["files"]
    hook = json.loads(told[0]["content"])["hooks"]["PreToolUse"][0]["hooks"][0]
    server = json.loads(told[1]["content"])["mcpServers"]["files"]
    words = [server["command"], *server["args"]]
    assert words[:5] == shlex.split(hook["command"])[:5]
    ended = subprocess.run(
        ["/bin/sh", "-c", hook["command"]],
        check=False,
        capture_output=True,
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": where.format(place=folder)},
        input=b"{",
    )
    assert (ended.returncode, ended.stdout) == (2, b"")


def test_the_shipped_map_can_be_printed(connect: Run) -> None:
    """Written to the home and changed, it takes the shipped one's place."""
    told = connect("vscode", "--agent", "coder", "--map").out
    assert told.rstrip() == shipped_tools("copilot").rstrip()


def test_doctor_names_a_broken_map(cli: Run, short: Path) -> None:
    """Each file of hosts/ is read as the broker would."""
    home = short / "vault"
    (home / "hosts").mkdir(parents=True, mode=0o700)
    (home / "config.toml").touch()
    (home / "hosts" / "codex.toml").write_text("unmatched = 'raed:web'")
    (home / "hosts" / "cursor.toml").write_text("unmatched = 'read:web'")
    found = cli("--home", str(home), "doctor", "--json").json["findings"]
    told = {one["level"]: one for one in found if one["area"] == "hosts"}
    assert "hosts/codex.toml" in told["fault"]["what"]
    assert "did you mean read:web" in told["fault"]["remedy"]
    assert "hosts/cursor.toml" in told["ok"]["what"]
