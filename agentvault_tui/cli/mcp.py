"""``agentvault mcp``: the MCP servers agents reach, and one for hosts that start it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from agentvault_tui.cli.framework import group, pass_session
from agentvault_tui.cli.lookup import find_agent
from agentvault_tui.cli.session import CliSession
from agentvault_tui.errors import NotFoundError, ServiceError, UnreachableError


@group("mcp", example="agentvault mcp stdio files --agent coder")
def mcp() -> None:
    """Say which MCP servers agents reach, and be one for a host that starts it."""


@mcp.command("list", example="agentvault mcp list")
@pass_session
def list_servers(session: CliSession) -> None:
    """List the MCP servers of the home: how each is reached, and its tools."""
    out = session.out
    found = [check_file(session, path) for path in server_files(session)]
    if out.print_json({"servers": found}):
        return
    if not found:
        out.line("no MCP servers: write mcp/NAME.toml, docs/gateway.md says how")
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
    out = session.out
    found = [check_file(session, path) for path in server_files(session, what)]
    told = {"ok": all(one["ok"] for one in found), "servers": found}
    if out.print_json(told):
        return 0 if told["ok"] else 1
    if not found:
        out.line("no MCP servers: write mcp/NAME.toml, docs/gateway.md says how")
    for one in found:
        file = out.cell(one["file"], limit=1000)
        if one["ok"]:
            tools = f"{len(one['tools'])} tools, others {one['unmatched']}"
            out.line(out.word("ok"), " ", file, ": ", out.cell(tools))
        for problem in one["problems"]:
            out.line(out.word("fault"), " ", file, ": ", out.cell(problem, limit=600))
        for note in one["notes"]:
            out.line(out.word("warning"), " ", file, ": ", out.cell(note, limit=600))
    return 0 if told["ok"] else 1


def server_files(session: CliSession, what: str | None = None) -> list[Path]:
    """Return the files of the home, or the one that is named."""
    folder = session.home.config / "mcp"
    if what is None:
        return sorted(folder.glob("[!.]*.toml"))
    path = Path(what).expanduser()
    if path.suffix == ".toml" or len(path.parts) > 1:
        return [path]
    named = folder / f"{what}.toml"
    if not named.exists():
        known = ", ".join(one.stem for one in sorted(folder.glob("[!.]*.toml")))
        raise NotFoundError(
            f"there is no MCP server {what}", f"known: {known}" if known else ""
        )
    return [named]


def check_file(session: CliSession, path: Path) -> dict[str, Any]:
    """Check one file; say what is wrong, and what may be."""
    from agentvault_tui.broker.policy_files import load_policy, read_text
    from agentvault_tui.clock import SystemClock
    from agentvault_tui.gateway.config_folder import NAME
    from agentvault_tui.gateway.mcp.servers import find_program, parse_server
    from agentvault_tui.gateway.secrets import Secrets

    told: dict[str, Any] = {
        "name": path.stem,
        "file": str(path),
        "ok": False,
        "reached": None,
        "tools": [],
        "unmatched": None,
        "problems": [],
        "notes": [],
    }
    text = read_text(path)
    if text is None:
        raise NotFoundError(f"there is no file {path}")
    if not NAME.fullmatch(path.stem):
        told["problems"] = ["a name has lower-case letters, digits, - and _"]
        return told
    try:
        catalogue = load_policy(session.home).catalogue
        server = parse_server(path.stem, text, catalogue, session.home.config)
    except ServiceError as error:
        told["problems"] = [error.diagnosis()]
        return told
    told["reached"] = server.reached
    told["tools"] = [rule.pattern for rule in server.tools.rules]
    told["unmatched"] = server.tools.unmatched
    service = server.service
    if service is None:
        if find_program(server) is None:
            told["notes"].append(f"there is no program {server.command[0]} here")
    else:
        known = Secrets(session.home, SystemClock()).rows()
        told["notes"] += [
            f"the secret {name} is not set: agentvault secrets set {name}"
            for name in service.credential.secrets
            if name not in known
        ]
        if service.origin.is_private and not service.allow_private:
            note = "the URL is at no public address: calls are refused without"
            told["notes"].append(f"{note} allow_private = true")
    if not told["tools"] and told["unmatched"] == "deny":
        told["notes"].append("no tool is mapped, so every call is refused")
    told["ok"] = True
    return told


@mcp.command(
    "stdio", example="agentvault mcp stdio files --agent coder", prints_data=False
)
@click.argument("name")
@click.option("--agent", "ref", metavar="ID", required=True, help="Whose: id or name.")
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
