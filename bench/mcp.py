"""Calls of MCP tools through the gateway, against fastmcp's proxy.

    python bench/mcp.py [--no-peers] [--quick]

One fastmcp server by URL, 16 callers with other arguments in each call, in one run:
direct, through fastmcp's proxy, and through a real ``agentvault serve`` that decides
about each call and records it twice; then the same server as a program of ours.
Target: five times the calls a second of fastmcp's proxy.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import ExitStack

import uvloop
from support.load import Result, ask_many, request
from support.peers import McpPair, UnavailableError, fastmcp, workplace
from support.service import in_force, token_of
from support.vault import Vault, vault

CALLERS = 16
TARGET = 5.0
VERSION = "2026-07-28"
TOOLS = '[tools.echo]\nscope = "read:files"\nresource = "fs:{path}"\n'
BY_URL = (
    'url = "http://127.0.0.1:{port}/mcp"\nallow_http = true\nallow_private = true\n'
)


def calls(host: str, path: str, count: int, **headers: str) -> list[bytes]:
    """Build that many calls of the tool, each with another argument."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": VERSION,
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    found = []
    for number in range(count):
        params = {"name": "echo", "arguments": {"path": f"/srv/{number}"}}
        body = {
            "jsonrpc": "2.0",
            "id": number,
            "method": "tools/call",
            "params": {**params, "_meta": meta},
        }
        found.append(
            request(
                "POST",
                path,
                json.dumps(body).encode(),
                kind="application/json",
                host=host,
                Accept="application/json, text/event-stream",
                MCP_Protocol_Version=VERSION,
                Mcp_Method="tools/call",
                Mcp_Name="echo",
                **headers,
            )
        )
    return found


async def measure(
    name: str, address: tuple[str, int], path: str, count: int, **headers: str
) -> Result:
    """Call *count* times after a few that warm up; print what it took."""
    host = "{}:{}".format(*address)
    made = calls(host, path, count + CALLERS, **headers)
    await ask_many(address, made[:CALLERS], connections=CALLERS, count=CALLERS)
    result = await ask_many(address, made[CALLERS:], connections=CALLERS, count=count)
    if set(result.statuses) != {200}:
        raise SystemExit(f"{name}: answered {dict(result.statuses)}")
    print(
        f"{name:28} {result.rate:7.0f}/s   p50 {result.p50:6.1f} ms"
        f"   p99 {result.p99:6.1f} ms",
        flush=True,
    )
    return result


async def through(running: Vault, pair: McpPair, count: int) -> Result:
    """Measure the gateway, by URL and by command; return the former."""
    folder = running.home / "mcp"
    folder.mkdir(exist_ok=True)
    (folder / "url.toml").write_text(BY_URL.format(port=pair.server[1]) + TOOLS)
    command = f"command = {json.dumps(pair.command)}\n"
    (folder / "program.toml").write_text(command + TOOLS)
    client = await running.register("bench", "read:files")
    token = await token_of(running, client, "read:files")
    await in_force(running, 2)
    bearer = f"Bearer {token}"
    by_url = await measure(
        "AgentVault, by URL", running.agents, "/mcp/url", count, Authorization=bearer
    )
    await measure(
        "AgentVault, by command",
        running.agents,
        "/mcp/program",
        count,
        Authorization=bearer,
    )
    return by_url


def main() -> int:
    """Run all of it; 0 when the target was met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    count = 500 if options.quick else 3_000
    if options.no_peers:
        print("nothing to compare: the server is fastmcp's too")
        return 0
    with ExitStack() as stack:
        try:
            pair = stack.enter_context(fastmcp(stack.enter_context(workplace())))
        except UnavailableError as error:
            print(f"fastmcp cannot run here: {error}")
            return 0
        running = stack.enter_context(vault())

        async def run() -> tuple[Result, Result]:
            await measure("direct", pair.server, "/mcp", count)
            theirs = await measure(
                "fastmcp's proxy", pair.proxy, "/mcp", min(count, 500)
            )
            return theirs, await through(running, pair, count)

        theirs, ours = uvloop.run(run())
    ratio = ours.rate / theirs.rate
    met = ratio >= TARGET
    print(f"{ratio:.1f} times fastmcp's proxy (target {TARGET:.0f}): {met}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
