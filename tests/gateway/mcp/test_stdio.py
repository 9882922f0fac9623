"""Servers that are programs: restarted, bounded, and heard of inertly."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from support.bench import OPERATOR
from support.mcp_stand import TOOLS, Client, McpStand

from agentvault_tui.broker.usecases.revoke import revoke_agent


def runs(pid: str) -> bool:
    return (Path("/proc") / pid).exists()


def error_of(result: dict[str, Any]) -> str:
    assert result["isError"] is True
    return str(json.loads(result["content"][1]["text"])["error"])


async def test_a_process_that_ends_is_started_again(
    mcp: McpStand, client: Client
) -> None:
    """The call it ended in has failed and is not repeated; the next one is served."""
    result = await client.call("crash")
    assert error_of(result) == "upstream_reset"
    assert (await mcp.stand.records())[-1] == ("result", "failed")
    told = await client.call("read_file", path="/a")
    assert error_of(told) == "upstream_unreachable"  # not at once: it just ended
    mcp.stand.bench.clock.advance(2)
    assert "isError" not in await client.call("read_file", path="/a")
    names = [one["params"]["name"] for one in mcp.received()]
    assert names == ["crash", "read_file"]
    assert len(mcp.processes()) == 2


async def test_a_program_that_is_not_there_is_said_so(mcp: McpStand) -> None:
    """The call was recorded, and its result says that nothing came of it."""
    head = 'command = ["/nowhere/mcp-server"]\n'
    await mcp.write(head=head)
    client = await mcp.client("modern")
    assert error_of(await client.call("read_file", path="/a")) == "upstream_unreachable"
    assert (await mcp.stand.records())[-1] == ("result", "failed")


async def test_standard_error_is_logged_inert_and_bounded(
    mcp: McpStand, caplog: pytest.LogCaptureFixture
) -> None:
    """No control character, no endless line."""
    caplog.set_level(logging.INFO, "agentvault.mcp")
    client = await mcp.client("modern")
    await client.call("shout")
    await mcp.stand.bench.until(lambda: "red" in caplog.text)
    for record in caplog.records:
        text = record.getMessage()
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert len(text) < 700


async def test_what_a_server_asks_of_a_client_is_answered_with_no(
    mcp: McpStand, client: Client
) -> None:
    """One process serves many clients, and cannot say which one it means."""
    assert "isError" not in await client.call("ask")
    refused = [one for one in mcp.received(None) if one.get("id") == "s1"]
    assert [one["error"]["code"] for one in refused] == [-32601]


async def test_a_process_gets_nothing_of_our_environment(
    mcp: McpStand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No setting, token or proxy of the broker; it ends with its broker's pipe."""
    monkeypatch.setenv("AGENTVAULT_HOME", "/secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://secret@proxy")
    client = await mcp.client("modern")
    await client.call("read_file", path="/a")
    (pid,) = mcp.processes()
    environment = (Path("/proc") / pid / "environ").read_text()
    assert "secret" not in environment
    assert "PATH=" in environment
    assert os.getsid(int(pid)) == int(pid)


async def test_a_changed_file_ends_the_process_of_the_one_before(
    mcp: McpStand,
) -> None:
    """And one that is gone ends it too."""
    client = await mcp.client("modern")
    await client.call("read_file", path="/a")
    (pid,) = mcp.processes()
    assert runs(pid)
    (mcp.stand.bench.home.config / "mcp" / "files.toml").unlink()
    await mcp.stand.gateway.look()
    await mcp.stand.bench.until(lambda: not runs(pid))


async def test_rubbish_and_endless_lines_fail_the_call_alone(mcp: McpStand) -> None:
    """A server that writes no message, or one without end, is ended; we are not."""
    for text in ("print('no JSON', flush=True)", "w()"):
        program = (
            "import sys\n"
            "def w():\n"
            "    while True: sys.stdout.write('x' * 1000000)\n"
            f"sys.stdin.readline()\n{text}\n"
        )
        head = f"command = {json.dumps([sys.executable, '-c', program])}\n"
        await mcp.write(head=head)
        client = await mcp.client("modern", name=text[:5])
        async with asyncio.timeout(30):
            assert error_of(await client.call("read_file", path="/a")) in {
                "upstream_reset",
                "upstream_timeout",
            }


async def test_per_agent_processes_end_with_their_agent(mcp: McpStand) -> None:
    """A revoked agent's process is gone, another's stays."""
    await mcp.write("per_agent = true\n" + TOOLS)
    clients = [await mcp.client("modern", name=name) for name in ("a", "b")]
    pids = []
    for client in clients:
        before = mcp.processes() if mcp.log.exists() else set()
        await client.call("read_file", path="/a")
        (pid,) = mcp.processes() - before
        pids.append(pid)
    await revoke_agent(mcp.stand.bench.broker, clients[0].agent.id, "x", OPERATOR)
    await mcp.stand.bench.until(lambda: not runs(pids[0]))
    assert runs(pids[1])


def waiting(mcp: McpStand) -> int:
    """Count the requests of clients that processes are given, or have."""
    running = mcp.stand.gateway._mcp_processes._running.values()
    return sum(len(one._waiting) for one in running if one._process and one.greeting)


SLOW_READER = """
import json, os, sys, time
go, log = sys.argv[1:]
def say(id_, result):
    print(json.dumps({"jsonrpc": "2.0", "id": id_, "result": result}), flush=True)
begun = json.loads(sys.stdin.readline())
say(begun["id"], {"supportedVersions": ["2026-07-28"], "capabilities": {}})
while not os.path.exists(go):
    time.sleep(0.005)
for line in sys.stdin:
    message = json.loads(line)
    with open(log, "a") as notes:
        notes.write(message.get("params", {}).get("name", message["method"]) + "\\n")
    if "id" in message:
        say(message["id"], {"content": []})
"""


@pytest.mark.parametrize("which", [0, 1])
async def test_a_call_that_is_cut_before_it_was_written_never_is(
    mcp: McpStand, tmp_path: Path, which: int
) -> None:
    """Half a line ends the process; one that waits its turn ends alone."""
    go, log = tmp_path / "go", tmp_path / "log"
    command = [sys.executable, "-c", SLOW_READER, str(go), str(log)]
    await mcp.write(head=f"command = {json.dumps(command)}\n")
    clients = [await mcp.client("modern", name=name) for name in ("a", "b")]
    large = {"name": "read_large", "arguments": {"path": "/a", "x": "x" * 2_000_000}}
    small = {"name": "read_small", "arguments": {"path": "/b"}}
    asked = []
    for client, params in zip(clients, (large, small), strict=True):
        asked.append(asyncio.ensure_future(client.send("tools/call", params)))
        sending = len(asked)
        # The first is in the middle of its line, the other waits behind it.
        await mcp.stand.bench.until(lambda: waiting(mcp) == sending)  # noqa: B023
    broker, agent = mcp.stand.bench.broker, clients[which].agent
    cut = await revoke_agent(broker, agent.id, "stolen", OPERATOR)
    assert (cut.calls.cut, cut.calls.sent) == (1, 0)
    go.touch()
    answers = await asyncio.gather(*asked)
    assert answers[which].status_code == 401
    other = answers[1 - which].json()["result"]
    if which == 0:
        assert error_of(other) == "upstream_reset"
        assert not log.exists()
    else:
        assert "isError" not in other
        assert log.read_text() == "read_large\n"
