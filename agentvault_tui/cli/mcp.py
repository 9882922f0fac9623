"""``agentvault mcp``: the MCP servers agents reach, and one for hosts that start it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from agentvault_tui.cli.config_files import (
    check_config_file,
    config_files,
    notes_of,
    print_checks,
)
from agentvault_tui.cli.framework import group, pass_session
from agentvault_tui.cli.lookup import agent_names, find_agent
from agentvault_tui.cli.session import CliSession
from agentvault_tui.errors import UnreachableError

_NONE = "no MCP servers: write mcp/NAME.toml, docs/gateway.md says how"


@group("mcp", on_home=True, example="agentvault mcp stdio files --agent coder")
def mcp() -> None:
    """Say which MCP servers agents reach, and be one for a host that starts it."""


@mcp.command("list", example="agentvault mcp list")
@pass_session
def list_servers(session: CliSession) -> None:
    """List the MCP servers of the home: how each is reached, and its tools."""
    out = session.out
    found = [check_file(session, path) for path in config_files(session, "mcp")]
    if out.print_json({"servers": found}):
        return
    if not found:
        out.line(_NONE)
        return
    rows = [
        [
            out.cell(one["name"], "strong"),
            out.cell(one["reached"]),
            out.cell(", ".join(one["tools"])),
            out.cell(one["unmatched"]),
            out.word("ok" if one["ok"] else "fault"),
        ]
        for one in found
    ]
    out.table(("NAME", "REACHED BY", "TOOLS", "OTHERS", ""), rows, keep=("NAME",))


@mcp.command("check", example="agentvault mcp check files")
@click.argument("what", metavar="[NAME|FILE]", required=False)
@pass_session
def check(session: CliSession, what: str | None) -> int:
    """Check files of MCP servers without putting any in force; needs no broker.

    Without an argument: all files of the home. Exits 1 when one could not be put in
    force.
    """
    return print_checks(
        session,
        "servers",
        [check_file(session, path) for path in config_files(session, "mcp", what)],
        summary=lambda one: f"{len(one['tools'])} tools, others {one['unmatched']}",
        none=_NONE,
    )


def check_file(session: CliSession, path: Path) -> dict[str, Any]:
    """Check one file; say what is wrong, and what may be."""
    from agentvault_tui.gateway.mcp.servers import find_program, parse_server

    shown: dict[str, Any] = {"reached": None, "tools": [], "unmatched": None}
    told, server = check_config_file(session, path, parse_server, shown)
    if server is None:
        return told
    told["reached"] = server.reached
    told["tools"] = [rule.pattern for rule in server.tools.rules]
    told["unmatched"] = server.tools.unmatched
    if server.service is not None:
        told["notes"] = notes_of(session, server.service)
    elif find_program(server) is None:
        told["notes"].append(f"there is no program {server.command[0]} here")
    if not told["tools"] and told["unmatched"] == "deny":
        told["notes"].append("no tool is mapped, so every call is refused")
    return told


@mcp.command(
    "stdio", example="agentvault mcp stdio files --agent coder", prints_data=False
)
@click.argument("name")
@click.option(
    "--agent",
    "ref",
    metavar="ID",
    required=True,
    help="Whose: id or name.",
    shell_complete=agent_names,
)
@pass_session
def stdio(session: CliSession, name: str, ref: str) -> int:
    """Be an MCP server on standard input and output, for a host that starts it.

    Each call is decided and recorded as at /mcp/NAME, whose clients need no token here:
    the broker's socket is the credential.
    """
    from agentvault_tui.cli.mcp_bridge import McpBridge
    from agentvault_tui.operator_api import calls

    agent = find_agent(session.client, ref)
    url = session.client.call(calls.STATUS).agents_url
    if not isinstance(url, str):
        raise UnreachableError("the broker does not listen to agents yet")
    return McpBridge(session.home, session.client, agent.id, url, name).run()
