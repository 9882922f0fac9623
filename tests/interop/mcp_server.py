"""An MCP server of the official SDK, 2.x or 1.x: on standard input, or by URL.

With the argument ``http`` it prints its port, and serves until its input ends.
"""

from __future__ import annotations

import asyncio
import socket
import sys

try:
    from mcp.server.mcpserver import Context, MCPServer
except ImportError:
    from mcp.server.fastmcp import Context
    from mcp.server.fastmcp import FastMCP as MCPServer

app = MCPServer("files")


@app.tool()
def read_file(path: str) -> str:
    return f"content of {path}"


@app.tool()
async def slow_read(path: str, ctx: Context) -> str:
    for step in range(2):
        await ctx.report_progress(step, 2)
    return f"slowly {path}"


@app.tool()
def delete_file(path: str) -> str:
    return f"deleted {path}"


@app.tool()
def format_disk() -> str:
    raise AssertionError("nothing maps this tool")


async def by_url() -> None:
    import uvicorn  # noqa: PLC0415 - of its own environment

    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    config = uvicorn.Config(app.streamable_http_app(), log_level="error")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[bound]))
    while not server.started:  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0.01)
    print(f'{{"port": {bound.getsockname()[1]}}}', flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.should_exit = True
    await serving


if __name__ == "__main__":
    if sys.argv[1:] == ["http"]:
        asyncio.run(by_url())
    else:
        app.run("stdio")
