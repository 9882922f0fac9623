"""A gateway with an MCP server behind it, and clients that say raw messages."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from support import mcp_peer
from support.bench import OPERATOR
from support.gateway_stand import Stand

from agentvault_tui.broker.answers import Granted
from agentvault_tui.broker.usecases.delegate import change_delegates, pass_on
from agentvault_tui.broker.usecases.issue_for import issue_for
from agentvault_tui.model import Action, Agent

MODERN = "2026-07-28"
TOOLS = """
[tools."read_*"]
scope = "read:files"
resource = "fs:{path}"
[tools.write_file]
scope = "write:files"
resource = "fs:{path}"
parameters = { count = "/files" }
[tools.delete_file]
scope = "delete:files"
resource = "fs:{path}"
[tools.wait]
scope = "read:files"
[tools.crash]
scope = "read:files"
[tools.ask]
scope = "read:files"
[tools.shout]
scope = "read:files"
"""
SCOPES = ("read:files", "write:files", "delete:files")


@dataclass
class Client:
    """An agent's MCP client in one era, as its raw messages."""

    stand: Stand
    agent: Agent
    token: str
    modern: bool
    name: str = "files"
    session: str | None = None
    version: str = "2025-11-25"
    number: int = 0
    extra: dict[str, str] = field(default_factory=dict)

    def request(
        self, method: str, params: dict[str, Any] | None = None, **meta: Any
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """Return body and headers of a request."""
        self.number += 1
        params = dict(params or {})
        headers = {
            "authorization": f"Bearer {self.token}",
            "accept": "application/json, text/event-stream",
            "content-type": "application/json",
        }
        if self.modern:
            meta = {
                "io.modelcontextprotocol/protocolVersion": MODERN,
                "io.modelcontextprotocol/clientCapabilities": {},
                **meta,
            }
            headers |= {"mcp-protocol-version": MODERN, "mcp-method": method}
            if "name" in params:
                headers["mcp-name"] = params["name"]
        elif self.session:
            headers["mcp-session-id"] = self.session
            headers["mcp-protocol-version"] = self.version
        if meta:
            params["_meta"] = meta
        body = {"jsonrpc": "2.0", "id": self.number, "method": method, "params": params}
        return body, headers | self.extra

    async def send(
        self, method: str, params: dict[str, Any] | None = None, **meta: Any
    ) -> httpx.Response:
        """Post a request; return the answer of HTTP."""
        body, headers = self.request(method, params, **meta)
        return await self.post(body, headers)

    async def post(self, body: Any, headers: dict[str, str]) -> httpx.Response:
        path = f"/mcp/{self.name}"
        if isinstance(body, bytes):
            return await self.stand.client.post(path, content=body, headers=headers)
        return await self.stand.client.post(path, json=body, headers=headers)

    async def begin(self) -> None:
        """Do the handshake, in the era that has one."""
        if self.modern:
            return
        answer = await self.send(
            "initialize",
            {
                "protocolVersion": self.version,
                "capabilities": {"sampling": {}},
                "clientInfo": {"name": "test", "version": "1"},
            },
        )
        assert answer.status_code == 200, answer.text
        self.session = answer.headers["mcp-session-id"]
        self.version = answer.json()["result"]["protocolVersion"]
        body, headers = self.request("notifications/initialized")
        del body["id"]
        assert (await self.post(body, headers)).status_code == 202

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool; return its result."""
        params = {"name": tool, "arguments": arguments}
        answer = await self.send("tools/call", params)
        assert answer.status_code == 200, answer.text
        return dict(messages(answer)[-1]["result"])


def messages(answer: httpx.Response) -> list[dict[str, Any]]:
    """Return the messages of an answer, a stream or JSON."""
    if answer.headers["content-type"].startswith("text/event-stream"):
        lines = answer.text.splitlines()
        return [json.loads(x.removeprefix("data: ")) for x in lines if x[:5] == "data:"]
    return [answer.json()]


@dataclass
class McpStand:
    """The stand, and what reached its server."""

    stand: Stand
    log: Path

    async def write(
        self, text: str = TOOLS, eras: str = "", name: str = "files", **more: str
    ) -> None:
        """Put the file of a server in force."""
        command = [sys.executable, mcp_peer.__file__, str(self.log), *eras.split()]
        head = more.get("head", f"command = {json.dumps(command)}\n")
        folder = self.stand.bench.home.config / "mcp"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.toml").write_text(head + text)
        await self.stand.gateway.look()
        assert not self.stand.gateway.warnings, self.stand.gateway.warnings

    async def remote(
        self, text: str = TOOLS, name: str = "files", query: str = ""
    ) -> None:
        """Put the file of a server in force that the upstream is."""
        url = f"http://127.0.0.1:{self.stand.upstream.port}/mcp{query}"
        head = f'url = "{url}"\nallow_http = true\nallow_private = true\n'
        await self.write(text, head=head, name=name)

    async def client(
        self,
        era: str = "modern",
        *scopes: str,
        asked: str = "read:files",
        name: str = "",
    ) -> Client:
        """Return a client of a new agent, begun."""
        agent = await self.stand.agent(*(scopes or SCOPES), name=name or f"{era}-agent")
        token = await self.stand.token(agent, asked)
        client = Client(self.stand, agent, token, era == "modern")
        await client.begin()
        return client

    async def holder(self, *own: str) -> tuple[Agent, Client]:
        """Return an agent, and the client of one that it passed ``read:files`` on to.

        Args:
            own: the scopes that the holder itself was granted.
        """
        bench, scope = self.stand.bench, "read:files"
        first = await bench.agent("first", scope)
        second = await bench.agent("second", *own)
        may = frozenset({scope})
        await change_delegates(bench.broker, first.id, second.id, may, OPERATOR)
        mine = await issue_for(bench.broker, first, (scope,), None, OPERATOR)
        given = await pass_on(
            *(bench.broker, first, mine.token, second, Action((scope,), scope)),
            resource=None,
            details=None,
        )
        assert isinstance(given, Granted)
        return first, Client(self.stand, second, given.access_token, modern=True)

    def received(self, method: str | None = "tools/call") -> list[dict[str, Any]]:
        """Return the messages of a method that reached the server."""
        if not self.log.exists():
            return []
        lines = self.log.read_text().splitlines()
        found = [json.loads(line.partition(" ")[2]) for line in lines]
        return [one for one in found if method in {None, one.get("method")}]

    def processes(self) -> set[str]:
        """Return the processes that were given anything."""
        return {line.partition(" ")[0] for line in self.log.read_text().splitlines()}


HELD = {"name": "delete_file", "arguments": {"path": "/a"}}


def text_of(result: dict[str, Any]) -> str:
    return str(result["content"][0]["text"])


def refusal_of(result: dict[str, Any]) -> dict[str, Any]:
    assert result["isError"] is True
    said = dict(json.loads(result["content"][1]["text"]))
    assert said == result["_meta"]["agentvault.dev/refusal"]
    return said


def error_of(result: dict[str, Any]) -> str:
    """Return the code that a failed call's result has."""
    assert result["isError"] is True
    return str(json.loads(result["content"][1]["text"])["error"])


def finish(until: str) -> None:
    """Let calls of the tool ``wait`` have their answer."""
    Path(until).touch()
