"""MCP messages through the gateway to a server that reads them as Go's programs do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support.gateway_stand import standing
from support.mcp_stand import MODERN, Client, McpStand
from support.needs import need

from agentvault_tui.home import Home
from differential.driving import POLICY
from differential.mcp_messages import McpCase, mcp_corpus
from differential.servers import MCP_SERVER

CASES = 150
TOOLS = """
[tools."read_*"]
scope = "read:files"
resource = "fs:{path}"
[tools.delete_file]
scope = "read:files"
resource = "fs:{path}"
"""


async def test_a_server_that_ignores_case_runs_the_tool_in_the_ledger(
    tmp_path: Path,
) -> None:
    """A message reaches Go's ``encoding/json`` with one reading, or not at all.

    The server stands in for those of mark3labs/mcp-go, which no package of Debian has:
    it decodes into structs, whose names match members in any case.
    """
    reason = MCP_SERVER.missing()
    need(reason is None, str(reason))
    home = Home.locate(tmp_path / "home")
    home.prepare()
    home.policy_file.write_text(POLICY)
    async with MCP_SERVER.running() as running, standing(tmp_path) as stand:
        mcp = McpStand(stand, tmp_path / "none")
        url = f'url = "http://127.0.0.1:{running.port}/mcp"\n'
        await mcp.write(TOOLS, head=f"{url}allow_http = true\nallow_private = true\n")
        client = await mcp.client("modern", "read:files")
        sent = []
        for case in mcp_corpus(CASES, 21):
            before = len(await _calls(stand.bench))
            await _post(client, case)
            rows = (await _calls(stand.bench))[before:]
            sent.append((case, rows))
        await stand.settled()
    read = [one for one in running.reports if _is_call(one)]
    forwarded = [(case, rows) for case, rows in sent if rows]
    assert len(read) == len(forwarded)
    assert len(forwarded) * 6 > len(sent), "hardly any message was forwarded"
    for report, (case, rows) in zip(read, forwarded, strict=True):
        (row,) = rows
        params = report["mcp"]["params"]
        assert report["mcp"]["method"] == case.method, case
        assert params["name"] == row["tool"] == case.name, case
        assert params["arguments"] == json.loads(case.arguments), case


def _is_call(report: dict[str, Any]) -> bool:
    message = report["mcp"] or {}
    return "tools/call" in {message.get("method"), message.get("Method")}


async def _post(client: Client, case: McpCase) -> None:
    headers = {
        "authorization": f"Bearer {client.token}",
        "accept": "application/json, text/event-stream",
        "content-type": "application/json",
        "mcp-protocol-version": MODERN,
        "mcp-method": case.method,
        "mcp-name": case.name,
    }
    await client.post(case.text.encode(), headers)


async def _calls(bench: Any) -> list[dict[str, Any]]:
    return [event.detail for event in await bench.events("gateway.attempt")]
