"""``agentvault mcp``: the MCP servers agents reach, and one for hosts that start it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from agentvault_tui.cli.config_files import (
    check_config_file,
    config_files,
    notes_of,
    print_checks,
    waiting_edits,
    write_config_file,
)
from agentvault_tui.cli.framework import group, pass_session
from agentvault_tui.cli.lookup import agent_option, find_agent
from agentvault_tui.cli.session import CliSession
from agentvault_tui.errors import (
    SettingsError,
    UnreachableError,
    UsageError,
)
from agentvault_tui.trusted_files import check_named_file

if TYPE_CHECKING:
    from agentvault_tui.gateway.mcp import McpServer

_NONE = "no MCP servers: write mcp/NAME.toml, see docs/mcp-servers.md"


@group("mcp", on_home=True, example="agentvault mcp stdio files --agent coder")
def mcp() -> None:
    """Say which MCP servers agents reach, and be one for a host that starts it."""


@mcp.command("list", example="agentvault mcp list")
@pass_session
def list_servers(session: CliSession) -> None:
    """List the MCP servers of the home: how each is reached, and its tools."""
    out = session.out
    servers = [check_file(session, path) for path in config_files(session, "mcp")]
    if out.print_json({"servers": servers}):
        return
    if not servers:
        out.line(_NONE)
        return
    waits = waiting_edits(session, "mcp")
    rows = [
        [
            out.cell(one["name"], "strong"),
            out.cell(one["reached"]),
            out.cell(", ".join(one["tools"])),
            out.cell(one["unmatched"]),
            out.word(_state(one, waits)),
        ]
        for one in servers
    ]
    out.table(("NAME", "REACHED BY", "TOOLS", "OTHERS", ""), rows)
    for text in waits:
        out.note(text)


def _state(report: dict[str, Any], waits: list[str]) -> str:
    """Say whether a file can be in effect, or waits for an approver."""
    if not report["ok"]:
        return "fault"
    edit = f"/{report['name']}.toml "
    return "waiting" if any(edit in text for text in waits) else "ok"


@mcp.command("check", example="agentvault mcp check files")
@click.argument("what", metavar="[NAME|FILE]", required=False)
@pass_session
def check(session: CliSession, what: str | None) -> int:
    """Check files of MCP servers without putting any in effect; needs no broker.

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
    """Check one file; return its faults and notes."""
    from agentvault_tui.gateway.mcp.servers import find_program, parse_server

    shown: dict[str, Any] = {"reached": None, "tools": [], "unmatched": None}
    report, server = check_config_file(session, path, parse_server, shown)
    if server is None:
        return report
    report["reached"] = server.reached
    report["tools"] = [rule.pattern for rule in server.tools.rules]
    report["unmatched"] = server.tools.unmatched
    if server.service is not None:
        report["notes"] = notes_of(session, server.service)
    elif (program := find_program(server)) is None:
        report["notes"].append(f"there is no program {server.command[0]} here")
    else:
        try:
            check_named_file(Path(program))
        except SettingsError as error:
            report["notes"].append(error.diagnosis())
    if not report["tools"] and report["unmatched"] == "deny":
        report["notes"].append("no tool is mapped, so every call is refused")
    return report


@mcp.command(
    "import", example="agentvault mcp import files -- mcp-server-filesystem /srv/shared"
)
@click.argument("name")
@click.argument("words", metavar="[COMMAND...]", nargs=-1)
@click.option("--url", help="Where the server is, instead of a command.")
@click.option("--secret", help="The sealed secret that its URL takes as bearer token.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@pass_session
def import_server(
    session: CliSession,
    name: str,
    words: tuple[str, ...],
    *,
    url: str | None,
    secret: str | None,
    force: bool,
) -> None:
    """Write mcp/NAME.toml with the tools of a server, each with a guessed scope.

    The program is started once, as your user, and asked for its tools; or --url is. A
    running broker uses the file at once: check each scope.
    """
    from agentvault_tui.broker.policy_files import NAME, NAME_FORM, load_policy
    from agentvault_tui.gateway.mcp import parse_server
    from agentvault_tui.gateway.mcp.drafting import draft_file

    if not NAME.fullmatch(name):
        raise UsageError("that is no name for a server", NAME_FORM)
    if bool(words) == bool(url):
        raise UsageError(
            "a server is reached by a command or by a URL",
            "give -- COMMAND, or --url URL",
        )
    if secret and not url:
        raise UsageError("--secret is for a URL", "a program has what its user has")
    home, out = session.home, session.out
    catalogue = load_policy(home).catalogue
    head = _head(words, url, secret)
    probed = parse_server(name, "\n".join(head), catalogue, home.config)
    tools = asyncio.run(_tools_of(session, probed, url, secret))
    text = draft_file(name, head, tools)
    server = parse_server(name, text, catalogue, home.config)
    path = write_config_file(home, "mcp", name, text, replace=force)
    rules = [{"tool": one.pattern, "scope": one.scope} for one in server.tools.rules]
    if out.print_json({"written": str(path), "tools": rules}):
        return
    out.line("wrote ", out.cell(str(path), limit=1000), f": {len(rules)} tools")
    rows = [[out.cell(one["tool"], "strong"), out.cell(one["scope"])] for one in rules]
    out.table(("TOOL", "SCOPE"), rows)
    out.note("scopes are guesses: check each, and remove tools that agents do not need")
    for text in waiting_edits(session, "mcp"):
        out.note(text)


def _head(words: tuple[str, ...], url: str | None, secret: str | None) -> list[str]:
    """Return the lines of a file that say how a server is reached."""
    from agentvault_tui.gateway.services import origin_lines
    from agentvault_tui.toml_table import write_value

    if url is None:
        return [f"command = {write_value(words)}"]
    parts = urlsplit(url)
    lines = [f"url = {write_value(url)}"]
    lines += origin_lines(f"{parts.scheme}://{parts.netloc}")[1:]
    if secret:
        # One line, because a table would take in the lines that follow.
        lines.append(
            f'credential = {{ kind = "bearer", secret = {write_value(secret)} }}'
        )
    return lines


async def _tools_of(
    session: CliSession, server: McpServer, url: str | None, secret: str | None
) -> list[dict[str, Any]]:
    """Ask a server for its tools."""
    from agentvault_tui.cli.secrets import home_secrets
    from agentvault_tui.clock import SystemClock
    from agentvault_tui.gateway.mcp.drafting import tools_of_program, tools_of_url
    from agentvault_tui.gateway.mcp.errors import McpError
    from agentvault_tui.web.service_connection import UpstreamError

    try:
        if url is None:
            return await tools_of_program(server, SystemClock())
        token = None
        if secret and server.service is not None:
            secrets = home_secrets(session)
            token = secrets.open(secret, server.service.destinations).reveal()
        return await tools_of_url(url, token)
    except UpstreamError as error:
        raise UnreachableError(f"the server {server.name}: {error.text}") from None
    except McpError as error:
        raise UnreachableError(f"the server {server.name}: {error}") from None


@mcp.command(
    "stdio", example="agentvault mcp stdio files --agent coder", prints_data=False
)
@click.argument("name")
@agent_option
@click.option(
    "--confined",
    is_flag=True,
    help="Inside `agentvault run --confine`: use the token of the run.",
)
@pass_session
def stdio(session: CliSession, name: str, ref: str, *, confined: bool) -> int:
    """Be an MCP server on standard input and output, for a host that starts it.

    Each call is decided and recorded as at /mcp/NAME, without a token: the broker's
    socket is the credential.
    """
    from agentvault_tui.cli.mcp_bridge import McpBridge
    from agentvault_tui.operator_api import calls
    from agentvault_tui.operator_api.access import IssueRequest
    from agentvault_tui.web.local_ca import CaFiles

    if confined:
        try:
            base = os.environ["AGENTVAULT_URL"]
            path = Path(os.environ["AGENTVAULT_TOKEN_FILE"])
            bundle = Path(os.environ["SSL_CERT_FILE"])
        except KeyError as error:
            raise UsageError(
                f"{error.args[0]} is not set", "--confined is for `agentvault run`"
            ) from None
        url = f"{base}/mcp/{name}"
        return McpBridge(url, lambda: path.read_text("ascii"), bundle).run()
    agent, client = find_agent(session.client, ref), session.client
    agents_url = client.call(calls.STATUS).agents_url
    if not isinstance(agents_url, str):
        raise UnreachableError("the broker does not listen to agents yet")
    url, ca = f"{agents_url}/mcp/{name}", CaFiles.of(session.home).ca
    body = IssueRequest(agent_id=agent.id, resource=url)

    def issue() -> str:
        return client.call(calls.TOKEN, body).access_token

    return McpBridge(url, issue, ca if ca.exists() else None).run()
