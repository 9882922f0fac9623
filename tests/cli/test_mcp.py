"""`agentvault mcp`: servers of the home, and one on standard input and output."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import forked, mcp_peer
from support.command_line import Answer, Broker
from support.patience import PATIENT

from agentvault_tui.cli import mcp
from agentvault_tui.cli.config_files import waiting_edits
from agentvault_tui.operator_api import calls

Run = Callable[..., Answer]
_NUMBERS = count(1)
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}


@pytest.fixture
def server(av: Run, broker: Broker, tmp_path: Path) -> str:
    """The name of an MCP server that the broker has in force."""
    name = f"peer{next(_NUMBERS)}"
    command = [sys.executable, mcp_peer.__file__, str(tmp_path / "log")]
    folder = broker.home / "mcp"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.toml").write_text(
        f"command = {json.dumps(command)}\n"
        '[tools."read_*"]\nscope = "read:files"\nresource = "fs:{path}"\n'
        '[tools.delete_file]\nscope = "delete:files"\nresource = "fs:{path}"\n'
    )
    ends = time.monotonic() + PATIENT
    while time.monotonic() < ends:
        changed = av("audit", "search", "--type", "service.changed", "--json").lines
        if f"mcp/{name}.toml" in {event["resource"] for event in changed}:
            return name
    raise AssertionError("the file was not put in force")


@pytest.fixture
def reader(av: Run) -> str:
    """The name of an agent that may read and delete files."""
    name = f"mcp-agent-{next(_NUMBERS)}"
    scopes = ("--scope", "read:files", "--scope", "delete:files")
    assert av("agents", "add", name, "--owner", "o", *scopes).code == 0
    return name


def request(id_: object, method: str, params: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id_, "method": method, "params": params}


def speak(broker: Broker, server: str, agent: str, *messages: Any) -> dict[Any, Any]:
    """Give `mcp stdio` messages, and return its answers by their ids."""
    lines = "".join(
        (one if isinstance(one, str) else json.dumps(one)) + "\n" for one in messages
    )
    line = ("mcp", "stdio", server, "--agent", agent)
    done = forked.run(*line, env=broker.env, given=lines.encode())
    assert (done.returncode, done.stderr) == (0, "")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    return {one.get("id"): one for one in answers}


@pytest.mark.slow
def test_both_eras_are_spoken_on_standard_input(
    broker: Broker, server: str, reader: str
) -> None:
    """The handshake and calls after it, and requests that stand alone."""
    begin = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {}}
    call = {"name": "read_file", "arguments": {"path": "/ä"}}
    told = speak(
        broker,
        server,
        reader,
        request(1, "initialize", begin),
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        request("two", "tools/call", call),
        request(3, "tools/call", {"name": "nothing", "arguments": {}}),
        "no message",
    )
    assert told[1]["result"]["protocolVersion"] == "2025-11-25"
    assert json.loads(told["two"]["result"]["content"][0]["text"]) == {"path": "/ä"}
    assert told[3]["result"]["isError"] is True
    assert told[None]["error"]["code"] == -32700
    told = speak(
        broker,
        server,
        reader,
        request(1, "server/discover", {"_meta": META}),
        request(2, "tools/list", {"_meta": META}),
        request(3, "tools/call", {**call, "_meta": META}),
    )
    assert told[1]["result"]["supportedVersions"] == ["2026-07-28"]
    names = [tool["name"] for tool in told[2]["result"]["tools"]]
    assert names == ["read_file", "delete_file", "agentvault_check"]
    assert told[3]["result"]["resultType"] == "complete"


@pytest.mark.slow
def test_its_calls_are_the_agents_and_recorded(
    av: Run, broker: Broker, server: str, reader: str
) -> None:
    """By a token for this server alone, which the local user asked for."""
    call = {"name": "read_file", "arguments": {"path": "/a"}, "_meta": META}
    speak(broker, server, reader, request(1, "tools/call", call))
    found = av("audit", "search", "--agent", reader, "--json").lines
    kinds = {event["type"]: event for event in found}
    assert kinds["gateway.attempt"]["detail"]["server"] == server
    issued = kinds["token.decision"]
    assert issued["actor"]["kind"] == "operator"
    assert issued["detail"]["resource_indicator"] == f"{broker.url}/mcp/{server}"


def test_a_revoked_agent_is_told_so_in_the_result(
    av: Run, broker: Broker, server: str, reader: str
) -> None:
    """The model reads why; a host sees no broken server."""
    assert av("agents", "revoke", reader, "--reason", "stolen").code == 0
    call = {"name": "read_file", "arguments": {"path": "/a"}, "_meta": META}
    told = speak(broker, server, reader, request(1, "tools/call", call))
    assert told[1]["result"]["isError"] is True
    assert "revoked" in told[1]["result"]["content"][0]["text"]


def test_servers_are_listed_and_checked_without_a_broker(
    cli: Run, tmp_path: Path
) -> None:
    """Each with how it is reached, what is wrong, and what may be."""
    tmp_path.joinpath("home").mkdir(mode=0o700)
    folder = tmp_path / "home" / "mcp"
    folder.mkdir()
    (folder / "files.toml").write_text(
        'command = ["/nowhere/server"]\n[tools."read_*"]\nscope = "read:files"\n'
    )
    (folder / "web.toml").write_text(
        'url = "https://127.0.0.1/mcp?x=1"\n'
        '[credential]\nkind = "bearer"\nsecret = "key"\n'
    )
    (folder / "bad.toml").write_text('comand = "x"\n')
    home = ("--home", str(tmp_path / "home"))
    listed = cli(*home, "mcp", "list", "--json").json["servers"]
    reached = {one["name"]: one["reached"] for one in listed}
    assert reached == {
        "bad": None,
        "files": "/nowhere/server",
        "web": "https://127.0.0.1/mcp",
    }
    assert "read_*" in cli(*home, "mcp", "list").out
    checked = cli(*home, "mcp", "check")
    assert checked.code == 1
    assert "did you mean command" in checked.out
    assert "there is no program /nowhere/server here" in checked.out
    assert "agentvault secrets set key" in checked.out
    assert "no public address" in checked.out
    assert "no tool is mapped" in checked.out
    assert cli(*home, "mcp", "check", "files").code == 0
    assert "mcp/bad.toml: unknown key" in cli(*home, "doctor").out
    program = tmp_path / "server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o777)
    folder = tmp_path / "home" / "mcp"
    (folder / "files.toml").write_text(f'command = ["{program}"]\n')
    assert f"others can write to {program}" in cli(*home, "mcp", "check", "files").out
    missing = cli(*home, "mcp", "check", "none")
    assert (missing.code, "known: bad, files, web" in missing.err) == (4, True)


def test_an_edit_that_waits_is_said_where_its_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Run
) -> None:
    """A new file counts only once an approver has proven a factor for it."""
    waits = "An edit of mcp/notes.toml counts only once"
    warnings = (waits, "An edit of services/a.toml counts only once", "other")
    answers = {calls.SECRETS: None, calls.STATUS: SimpleNamespace(warnings=warnings)}
    client = SimpleNamespace(reachable=lambda: True, call=answers.__getitem__)
    session: Any = SimpleNamespace(client=client)
    assert waiting_edits(session, "mcp") == [waits]
    (tmp_path / "home" / "mcp").mkdir(parents=True, mode=0o700)
    (tmp_path / "home").chmod(0o700)
    for name in ("notes", "other"):
        (tmp_path / f"home/mcp/{name}.toml").write_text('command = ["x"]\n')
    monkeypatch.setattr(mcp, "waiting_edits", lambda *_: [waits])
    rows = cli("--home", str(tmp_path / "home"), "mcp", "list").out.splitlines()
    states = {row.split()[0]: row.split()[-1] for row in rows[1:]}
    assert states == {"notes": "waiting", "other": "ok"}
    client.reachable = lambda: False
    assert waiting_edits(session, "mcp") == []


def test_a_host_is_told_the_scopes_of_its_servers(
    av: Run, reader: str, server: str, broker: Broker
) -> None:
    """Its agent needs them too: the hook would refuse each call of a tool."""
    file = broker.home / f"mcp/{server}.toml"
    file.write_text(file.read_text().replace("delete:files", "delete:records"))
    told = av("connect", "claude-code", "--agent", reader, "--json").json
    assert "delete:records" in told["missing_scopes"]


def test_stdio_needs_a_broker(cli: Run, tmp_path: Path) -> None:
    """Without one: exit 3, and a line that says how to start one."""
    told = cli("--home", str(tmp_path), "mcp", "stdio", "files", "--agent", "a")
    assert told.code == 3


def test_a_server_is_imported(cli: Run, tmp_path: Path) -> None:
    """Its program is started once, in the era that it speaks, and ends again."""
    home = ("--home", str(tmp_path / "home"))
    log = tmp_path / "log"
    for name, era in (("old", "legacy"), ("new", "modern")):
        program = (sys.executable, mcp_peer.__file__, str(log), era)
        line = ("mcp", "import", name, "--", *program)
        told = cli(*home, *line)
        assert (told.code, f"{name}.toml: 7 tools" in told.out) == (0, True), told.err
        again = cli(*home, *line)
        assert (again.code, "--force replaces it" in again.err) == (1, True)
    assert cli(*home, "mcp", "check", "old").code == 0
    text = (tmp_path / "home" / "mcp" / "old.toml").read_text()
    assert '[tools.delete_file]\nscope = "delete:records"' in text
    pids = {line.split()[0] for line in log.read_text().splitlines()}
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        (("../x", "--", "true"), 2, "no name"),
        (("x",), 2, "by a command or by a URL"),
        (("x", "--url", "https://a.test/", "--", "true"), 2, "by a command or by"),
        (("x", "--secret", "s", "--", "true"), 2, "--secret is for a URL"),
        (("x", "--", "/no/such/program"), 3, "cannot be started"),
        (("x", "--", "false"), 3, "process ended"),
        (("x", "--url", "http://127.0.0.1:9/mcp"), 3, "cannot be reached"),
        (("x", "--url", "nonsense"), 1, "is no URL"),
    ],
)
def test_an_import_that_fails_writes_nothing(
    cli: Run, tmp_path: Path, line: tuple[str, ...], code: int, says: str
) -> None:
    """Each fault is one sentence."""
    told = cli("--home", str(tmp_path / "home"), "mcp", "import", *line)
    assert (told.code, says in told.err) == (code, True), told.err
    assert not list(tmp_path.rglob("*.toml"))
