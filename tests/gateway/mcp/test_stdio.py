"""Servers that are programs: restarted, bounded, and heard of inertly."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.bench import OPERATOR
from support.mcp_stand import TOOLS, Client, McpStand, error_of, finish, messages

from agentvault_tui.broker.usecases.revoke import revoke_agent
from agentvault_tui.gateway.mcp import stdio
from agentvault_tui.gateway.mcp.stdio import McpProcess


def runs(pid: str) -> bool:
    return (Path("/proc") / pid).exists()


def result_of(answer: httpx.Response) -> dict[str, Any]:
    return dict(messages(answer)[-1]["result"])


async def test_a_process_that_ends_is_started_again(
    mcp: McpStand, client: Client
) -> None:
    """The call it ended in may have been done; it is not repeated, the next one is
    served."""
    result = await client.call("crash")
    assert error_of(result) == "upstream_reset"
    assert (await mcp.stand.records())[-1] == ("result", "unknown")
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
    """One process serves many clients, and cannot say which one it means.

    A request with a long id is not answered: its answer could wait in memory.
    """
    assert "isError" not in await client.call("ask")
    asked = [one for one in mcp.received(None) if "s" in str(one.get("id"))]
    refused = [one for one in asked if one["id"] == "s1"]
    assert len(asked) == 1
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


async def test_a_changed_file_ends_the_process_of_the_one_before(mcp: McpStand) -> None:
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
                "upstream_unreachable",
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


SLOW_READER = """
import json, os, sys, threading, time
go, done, log = sys.argv[1:]
TOOLS = [{"name": "read_" + name} for name in ("wait", "large", "small")]
def say(id_, result):
    print(json.dumps({"jsonrpc": "2.0", "id": id_, "result": result}), flush=True)
def wait(path):
    while not os.path.exists(path):
        time.sleep(0.005)
def later(id_):
    wait(done)
    say(id_, {"content": []})
for line in sys.stdin:
    message = json.loads(line)
    name = message.get("params", {}).get("name", message["method"])
    with open(log, "a") as notes:
        notes.write(name + "\\n")
    if name == "server/discover":
        say(message["id"], {"supportedVersions": ["2026-07-28"], "capabilities": {}})
    elif name == "tools/list":
        say(message["id"], {"tools": TOOLS})
    elif name == "read_wait":
        threading.Thread(target=later, args=(message["id"],)).start()
        wait(go)
    elif "id" in message:
        say(message["id"], {"content": []})
"""
"""Reads nothing after a call of ``read_wait`` until one file is there, and answers it
when another is."""
LARGE = {"name": "read_large", "arguments": {"path": "/a", "x": "x" * 3_000_000}}
"""More than a pipe holds."""
MIDDLE = {"name": "read_large", "arguments": {"path": "/a", "x": "x" * 900_000}}
"""The capacity of an empty pipe."""
SMALL = {"name": "read_small", "arguments": {"path": "/b"}}


class SlowServer:
    """A server whose input is not read, with a call of one agent in flight."""

    def __init__(self, mcp: McpStand, folder: Path) -> None:
        self.mcp = mcp
        self.go, self.done, self.log = (folder / name for name in ("go", "done", "log"))

    async def begin(self) -> None:
        paths = map(str, (self.go, self.done, self.log))
        command = [sys.executable, "-c", SLOW_READER, *paths]
        await self.mcp.write(
            head=f"command = {json.dumps(command)}\nmax_body = 4_000_000\n"
        )
        self.one = await self.mcp.client("modern", name="one")
        self.two = await self.mcp.client("modern", name="two")
        self.asked = self.ask(
            self.two, {"name": "read_wait", "arguments": {"path": "/w"}}
        )
        await self.until(lambda: "read_wait" in self.names())

    def ask(self, client: Client, params: Any) -> asyncio.Future[Any]:
        return asyncio.ensure_future(client.send("tools/call", params))

    async def until(self, condition: Any) -> None:
        await self.mcp.stand.bench.until(condition)

    def names(self) -> list[str]:
        """Return the calls that the server has read."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in lines if line.startswith("read_")]

    @property
    def process(self) -> McpProcess:
        (process,) = self.mcp.stand.gateway._mcp_processes._running.values()
        return process

    @property
    def has_half(self) -> bool:
        """Whether the server was given a part of a line."""
        pipe = self.process._pipe
        return pipe is not None and pipe.half is not None


@pytest.fixture
async def slow(mcp: McpStand, tmp_path: Path) -> AsyncIterator[SlowServer]:
    server = SlowServer(mcp, tmp_path)
    await server.begin()
    yield server
    server.go.touch()
    server.done.touch()
    await asyncio.gather(server.asked, return_exceptions=True)


async def test_half_a_line_of_a_revoked_agent_waits_for_others_calls(
    mcp: McpStand, slow: SlowServer
) -> None:
    """It is not completed; nothing is written any more; the process is restarted when
    the other agent's call has its result."""
    asked = slow.ask(slow.one, LARGE)
    await slow.until(lambda: slow.has_half)
    behind = slow.ask(slow.two, SMALL)
    await slow.until(lambda: len(slow.process._waiting) == 3)
    process = slow.process._process
    assert process is not None
    broker = mcp.stand.bench.broker
    cut = await revoke_agent(broker, slow.one.agent.id, "stolen", OPERATOR)
    assert (cut.calls.cut, cut.calls.sent) == (1, 0)
    assert (await asked).status_code == 401
    slow.go.touch()
    for refused in (await behind, await slow.two.send("tools/call", SMALL)):
        result = refused.json()["result"]
        assert error_of(result) == "temporarily_unavailable"
        assert result["_meta"]["agentvault.dev/refusal"]["retry_after"] == 5
    assert runs(str(process.pid))
    slow.done.touch()
    assert "isError" not in result_of(await slow.asked)
    await process.wait()
    mcp.stand.bench.clock.advance(2)
    assert "isError" not in result_of(await slow.two.send("tools/call", SMALL))
    assert slow.names() == ["read_wait", "read_small"]


async def test_a_process_with_half_a_line_is_restarted_after_a_minute(
    mcp: McpStand, slow: SlowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call in flight may have run: its result is unknown."""
    assert stdio.GRACE_S == 60
    monkeypatch.setattr(stdio, "GRACE_S", 0.05)
    asked = slow.ask(slow.one, LARGE)
    await slow.until(lambda: slow.has_half)
    await revoke_agent(mcp.stand.bench.broker, slow.one.agent.id, "x", OPERATOR)
    await asked
    assert error_of(result_of(await slow.asked)) == "upstream_reset"
    ended = {e.agent_id: e for e in await mcp.stand.settled() if "ms" in e.detail}
    assert ended[slow.one.agent.id].detail["ended"] == "cut"
    assert ended[slow.two.agent.id].detail["ended"] == "unknown"


async def test_a_message_over_the_cap_is_refused_before_it_is_read_whole(
    mcp: McpStand,
) -> None:
    """A message of 9 MB stopped the event loop for 60 ms and more."""
    client = await mcp.client("modern")
    answer = await client.send("tools/call", LARGE)
    assert answer.status_code == 413
    assert mcp.received() == []


@pytest.mark.parametrize("params", [LARGE, MIDDLE])
async def test_a_call_that_is_not_read_fails_alone(
    mcp: McpStand,
    slow: SlowServer,
    monkeypatch: pytest.MonkeyPatch,
    params: dict[str, Any],
) -> None:
    """The other agent's call goes on, in the same process, which serves further ones;
    a line that the pipe takes whole was not begun, and never is."""
    assert stdio.WRITE_S == 30
    filled = slow.ask(slow.one, SMALL)  # so that the pipe is not empty
    await slow.until(lambda: slow.process._pipe.is_read is False)
    monkeypatch.setattr(stdio, "WRITE_S", 0.05)
    failed = await slow.one.send("tools/call", params)
    assert error_of(failed.json()["result"]) == "upstream_timeout"
    process = slow.process._process
    slow.go.touch()
    monkeypatch.setattr(stdio, "WRITE_S", 30)
    assert "isError" not in result_of(await filled)
    slow.done.touch()
    assert "isError" not in result_of(await slow.asked)
    assert "isError" not in result_of(await slow.two.send("tools/call", SMALL))
    assert slow.process._process is process
    assert slow.names() == ["read_wait", "read_small", "read_small"]
    ended = [e.detail["ended"] for e in await mcp.stand.settled() if "ms" in e.detail]
    assert sorted(ended) == ["done", "done", "done", "failed"]


async def test_half_a_line_whose_client_left_is_completed(
    mcp: McpStand, slow: SlowServer
) -> None:
    """Its agent may still send it, and others need the process; then it is
    cancelled."""
    asked = slow.ask(slow.one, LARGE)
    await slow.until(lambda: slow.has_half)
    asked.cancel()
    await slow.until(lambda: len(slow.process._waiting) == 1)
    slow.go.touch()
    await slow.until(lambda: "notifications/cancelled" in slow.log.read_text())
    assert slow.names() == ["read_wait", "read_large"]
    slow.done.touch()
    assert "isError" not in result_of(await slow.asked)
    events = await mcp.stand.settled()
    ended = {e.agent_id: e.detail["ended"] for e in events if "ms" in e.detail}
    assert ended[slow.one.agent.id] == "unknown"


async def leave(slow: SlowServer, params: Any) -> None:
    """Have agent one send a call, and go when the server's pipe has it."""
    before = len(slow.process._left)
    asked = slow.ask(slow.one, params)
    await slow.until(
        lambda: any(
            one.written and one.agent_id == slow.one.agent.id
            for one in slow.process._waiting.values()
        )
    )
    asked.cancel()
    await slow.until(lambda: len(slow.process._left) == before + 1)


async def test_a_call_that_its_client_left_has_its_place_until_it_is_done(
    slow: SlowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who leaves its calls gives a server that is busy no more than who waits."""
    monkeypatch.setattr(stdio, "PLACES", 8)  # of which one agent has two
    monkeypatch.setattr(stdio, "LEFT_S", 0.01)
    for _ in range(2):
        await leave(slow, SMALL)
    refused = await slow.one.send("tools/call", SMALL)
    assert error_of(refused.json()["result"]) == "temporarily_unavailable"
    behind = slow.ask(slow.two, SMALL)
    slow.go.touch()
    assert "isError" not in result_of(await behind)
    await slow.until(lambda: not slow.process._left)
    assert "isError" not in result_of(await slow.one.send("tools/call", SMALL))
    assert slow.names() == ["read_wait", *["read_small"] * 4]


async def test_a_call_that_was_left_and_is_never_answered_gives_its_place_back(
    slow: SlowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server does not answer what was cancelled: a minute after it has read it."""
    assert stdio.LEFT_S == 60
    monkeypatch.setattr(stdio, "PLACES", 8)
    monkeypatch.setattr(stdio, "LEFT_S", 0.01)
    slow.go.touch()
    for _ in range(3):
        asked = slow.ask(slow.one, {"name": "read_wait", "arguments": {"path": "/w"}})
        count = len(slow.names())
        await slow.until(lambda count=count: len(slow.names()) > count)
        asked.cancel()
        await slow.until(
            lambda: len(slow.process._waiting) == 1 and not slow.process._left
        )
    assert not slow.done.exists()


async def test_a_line_that_waits_is_taken_back_by_a_revocation(
    mcp: McpStand, slow: SlowServer
) -> None:
    """No byte of it is written, and other agents are not affected."""
    half = slow.ask(slow.two, LARGE)
    await slow.until(lambda: slow.has_half)
    asked = slow.ask(slow.one, SMALL)
    await slow.until(lambda: len(slow.process._waiting) == 3)
    broker = mcp.stand.bench.broker
    cut = await revoke_agent(broker, slow.one.agent.id, "stolen", OPERATOR)
    assert (cut.calls.cut, cut.calls.sent) == (1, 0)
    assert (await asked).status_code == 401
    slow.go.touch()
    assert "isError" not in result_of(await half)
    assert slow.names() == ["read_wait", "read_large"]


async def test_one_agent_has_a_quarter_of_the_places(mcp: McpStand) -> None:
    """Of 256 places 64; the next call is refused, another agent's call is served."""
    assert (stdio.PLACES, stdio.SHARE, stdio.LEAST) == (256, 4, 2)
    one, two = [await mcp.client("modern", name=name) for name in ("a", "b")]
    await one.call("read_file", path="/a")
    until = str(mcp.log) + ".done"
    params = {"name": "wait", "arguments": {"until": until}}
    asked = [asyncio.ensure_future(one.send("tools/call", params)) for _ in range(64)]
    await mcp.stand.bench.until(lambda: len(mcp.received()) == 65)
    refused = await one.call("read_file", path="/b")
    assert error_of(refused) == "temporarily_unavailable"
    assert refused["_meta"]["agentvault.dev/refusal"]["retry_after"] == 1
    listed = await one.send("tools/list")
    assert (listed.status_code, listed.headers["retry-after"]) == (503, "1")
    assert "isError" not in await two.call("read_file", path="/c")
    finish(until)
    for answer in await asyncio.gather(*asked):
        assert "isError" not in answer.json()["result"]
    assert "isError" not in await one.call("read_file", path="/b")


PRINTS = """
import json, sys
waiting = []
def say(id_, result):
    print(json.dumps({"jsonrpc": "2.0", "id": id_, "result": result}), flush=True)
for line in sys.stdin:
    message = json.loads(line)
    params = message.get("params", {})
    arguments = params.get("arguments", {})
    if message["method"] == "server/discover":
        say(message["id"], {"supportedVersions": ["2026-07-28"], "capabilities": {}})
    elif message["method"] == "tools/list":
        say(message["id"], {"tools": [{"name": "read_note"}]})
    elif arguments.get("path") == "/wait":
        waiting.append(message["id"])
        with open(sys.argv[1], "w") as notes:
            json.dump([message["id"], params["_meta"]["progressToken"]], notes)
    elif "id" in message:
        print("reading", arguments["note"], flush=True)  # as one left in
        for id_ in [*waiting, message["id"]]:
            say(id_, {"content": [], "from": "the server"})
"""
"""Answers a call of ``/wait`` only after the next call, whose note it prints first."""


async def test_no_agent_answers_anothers_call_by_what_a_server_prints(
    mcp: McpStand, tmp_path: Path
) -> None:
    """Ids and progress tokens cannot be guessed, nor counted on from one's own."""
    log = tmp_path / "ids"
    command = [sys.executable, "-c", PRINTS, str(log)]
    await mcp.write(head=f"command = {json.dumps(command)}\n")
    beta, alpha = [await mcp.client("modern", name=name) for name in ("beta", "alpha")]
    call = {"name": "read_note", "arguments": {"path": "/wait"}}
    asked = asyncio.ensure_future(beta.send("tools/call", call, progressToken="p"))
    await mcp.stand.bench.until(lambda: log.exists() and log.read_text().endswith("]"))
    forged = [
        json.dumps({"jsonrpc": "2.0", **members})
        for n in range(200)
        for members in (
            {"id": n, "result": {"content": [], "from": "alpha"}},
            {
                "method": "notifications/progress",
                "params": {"progressToken": n, "progress": 1, "message": "alpha"},
            },
        )
    ]
    result = await alpha.call("read_note", path="/a", note="\n".join(["", *forged, ""]))
    assert result["from"] == "the server"
    answer = await asked
    assert result_of(answer)["from"] == "the server"
    assert "alpha" not in answer.text
    assert all(200 < number < 2**53 for number in json.loads(log.read_text()))


ANSWERS_MUCH = """
import json, sys
waiting = []
def say(id_, result, last=False):
    answer = {"jsonrpc": "2.0", "id": id_, "result": result}
    if last:
        answer["id"] = answer.pop("id")
    print(json.dumps(answer), flush=True)
for line in sys.stdin:
    message = json.loads(line)
    arguments = message.get("params", {}).get("arguments", {})
    if message["method"] == "server/discover":
        say(message["id"], {"supportedVersions": ["2026-07-28"], "capabilities": {}})
    elif message["method"] == "tools/list":
        say(message["id"], {"tools": [{"name": "read_file"}]})
    elif arguments.get("path") == "/wait":
        waiting.append(message["id"])
        open(sys.argv[1], "w").close()
    elif "id" in message:
        much = {"content": [], "much": "x" * arguments["size"]}
        say(message["id"], much, arguments["last"])
        for id_ in waiting:
            say(id_, {"content": []})
"""
"""Answers a call of ``/wait`` after the next one, which says how much it answers."""


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("max_body", [1000, 4_000_000])
async def test_a_call_with_too_long_an_answer_fails_alone(
    mcp: McpStand, tmp_path: Path, max_body: int, *, last: bool
) -> None:
    """A line of megabytes blocked the event loop; the bound is 1 MiB or the file's,
    and the id is found at either end of the line."""
    log = tmp_path / "waits"
    command = [sys.executable, "-c", ANSWERS_MUCH, str(log)]
    await mcp.write(head=f"command = {json.dumps(command)}\nmax_body = {max_body}\n")
    one, two = [await mcp.client("modern", name=name) for name in ("one", "two")]
    call = {"name": "read_file", "arguments": {"path": "/wait"}}
    asked = asyncio.ensure_future(two.send("tools/call", call))
    await mcp.stand.bench.until(log.exists)
    most = max(2**20, max_body)
    result = await one.call("read_file", path="/a", size=most, last=last)
    assert error_of(result) == "upstream_reset"
    assert f"more than {most} bytes" in result["content"][0]["text"]
    assert "isError" not in result_of(await asked)
    assert (await mcp.stand.records())[-2:].count(("result", "unknown")) == 1
    (process,) = mcp.stand.gateway._mcp_processes._running.values()
    assert not process._left  # it has no place any more
    result = await one.call("read_file", path="/a", size=most - 200, last=last)
    assert len(result["much"]) == most - 200
