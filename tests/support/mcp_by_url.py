"""An MCP server that is reached by URL, for the stand of a gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from support.gateway_stand import Received, Stand
from support.mcp_stand import TOOLS, McpStand

Respond = Callable[[Received, asyncio.StreamWriter], Any]


def plain(body: object, status: str = "200 OK", **headers: str) -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {"Content-Type": "application/json", **headers}
    lines = "".join(f"{n.replace('_', '-')}: {v}\r\n" for n, v in named.items())
    head = f"HTTP/1.1 {status}\r\n{lines}Content-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


def result(request: Received, **members: Any) -> dict[str, Any]:
    said = {"content": [{"type": "text", "text": "done"}], "unknown": 1, **members}
    return {"jsonrpc": "2.0", "id": json.loads(request.body)["id"], "result": said}


class Server:
    """An MCP server by URL, in both eras, that answers calls as a test says."""

    def __init__(self) -> None:
        self.respond: Respond = lambda request, writer: writer.write(
            plain(result(request))
        )
        self.lists: Respond | None = None
        self.sessions = 0
        self.gone = False
        self.replies: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        """Answers to requests of its own."""

    async def __call__(self, request: Received, writer: asyncio.StreamWriter) -> None:
        message = json.loads(request.body)
        method = message.get("method")
        if method is None:
            self.replies.put_nowait(message)
        if "id" not in message or method is None:
            writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
        elif method == "initialize":
            self.sessions += 1
            said = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}}
            answer = {"jsonrpc": "2.0", "id": message["id"], "result": said}
            name = f"upstream-{self.sessions}"
            writer.write(plain(answer, Mcp_Session_Id=name))
        elif self.gone:
            writer.write(plain({}, "404 Not Found"))
        elif method == "tools/list" and self.lists is not None:
            await self.lists(request, writer)
        elif method == "tools/call":
            told = self.respond(request, writer)
            if told is not None:
                await told
        else:
            error = {"code": -32601, "message": "unknown"}
            answer = {"jsonrpc": "2.0", "id": message["id"], "error": error}
            writer.write(plain(answer, "404 Not Found"))


async def stand_of(stand: Stand, server: Server) -> McpStand:
    """Return a stand whose gateway sends its credential to *server*."""
    stand.upstream.answer = server
    await stand.secret()
    mcp = McpStand(stand, stand.bench.home.data / "none")
    credential = '[credential]\nkind = "bearer"\nsecret = "key"\n'
    await mcp.remote(TOOLS + credential, query="?team=1")
    return mcp
