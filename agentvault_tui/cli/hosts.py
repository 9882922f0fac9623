"""``agentvault token``, ``hook`` and ``connect``: for the hosts that agents run in."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import click

from agentvault_tui.cli.framework import command, pass_session
from agentvault_tui.cli.hook_hosts import HOSTS, PROGRAM
from agentvault_tui.cli.host_files import (
    CANNOT_KEEP,
    EDITABLE,
    FILES_OF,
    HostCommands,
    lacking,
    merged,
    print_lacking,
    print_planned,
    print_written,
    record_written,
    write_file,
)
from agentvault_tui.cli.lookup import agent_names, agent_option, find_agent, scope_names
from agentvault_tui.cli.session import CliSession
from agentvault_tui.errors import UnreachableError
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.access import IssueRequest


@command("token", example="agentvault token --agent coder")
@agent_option
@click.option(
    "--scope",
    default="",
    help="What for; else all that is allowed at once.",
    shell_complete=scope_names,
)
@click.option("--resource", default="", help="What it is good on alone (RFC 8707).")
@click.option(
    "--header", is_flag=True, help="Print JSON of an Authorization header instead."
)
@pass_session
def token(
    session: CliSession, ref: str, scope: str, resource: str, *, header: bool
) -> None:
    """Print a live token of an agent; you are recorded as who asked.

    For headersHelper and apiKeyHelper. What needs a person is not given this way.
    """
    client, out = session.client, session.out
    agent = find_agent(client, ref)
    body = IssueRequest(agent_id=agent.id, scope=scope, resource=resource)
    answer = client.call(calls.TOKEN, body)
    if header:
        out.json({"Authorization": f"Bearer {answer.access_token}"})
    elif not out.print_json(answer):
        out.raw(answer.access_token)


@command(
    "hook",
    on_home=True,
    always_answers=True,
    example="agentvault hook claude-code --agent coder < call.json",
    prints_data=False,
)
@click.argument("host", type=click.Choice(sorted(HOSTS)))
@click.option(
    "--agent",
    metavar="ID",
    required=True,
    help="Whose call: id or name.",
    shell_complete=agent_names,
)
@click.option(
    "--confined",
    is_flag=True,
    help="Inside `agentvault run --confine`: ask as the run.",
)
@pass_session
def hook(session: CliSession, host: str, agent: str, *, confined: bool) -> int:
    """Decide one tool call of an agent host, read from standard input.

    Answers in the host's own words; waits for a person for [gateway] hook_wait seconds.
    `agentvault connect` writes the configuration that calls this.
    """
    from agentvault_tui.cli.hook import answer

    return answer(host, agent, session.home_option, confined=confined)


@command(
    "connect",
    on_home=True,
    example="agentvault connect claude-code --agent coder --write",
)
@click.argument("host", type=click.Choice(list(FILES_OF)))
@agent_option
@click.option(
    "--write", is_flag=True, help="Write it, and keep a copy of what was there."
)
@click.option(
    "--managed",
    is_flag=True,
    help="Where an administrator locks it, which the agent cannot edit.",
)
@click.option(
    "--confined",
    is_flag=True,
    help="For `agentvault run --confine`: in the agent's own home directory.",
)
@click.option(
    "--map",
    "tools",
    is_flag=True,
    help="Print the shipped hosts/NAME.toml instead, to be changed in the home.",
)
@pass_session
def connect(
    session: CliSession,
    host: str,
    ref: str,
    *,
    write: bool,
    managed: bool,
    confined: bool,
    tools: bool,
) -> None:
    """Print or write the configuration that puts an agent host behind AgentVault.

    Says which guarantees the host cannot keep.
    """
    out = session.out
    if tools:
        from agentvault_tui.gateway.tools import shipped_tools

        out.raw(shipped_tools("copilot" if host == "vscode" else host).rstrip())
        return
    if confined:
        from agentvault_tui.cli.hosts_confined import connect_confined

        connect_confined(session, host, ref, write=write)
        return
    lacks: list[str] = []
    try:
        agent = find_agent(session.client, ref)
        name, lacks = agent.name, lacking(session, host, agent)
    except UnreachableError:
        name = ref
        out.note("no broker runs, so nobody knows whether there is such an agent")
    files = FILES_OF[host](_commands(session, name), Path.home(), managed=managed)
    texts = [(file, merged(file)) for file in files]
    weak = [*CANNOT_KEEP[host], *(() if managed else (EDITABLE,))]
    backups = [write_file(file.path, text) for file, text in texts] if write else []
    if write:
        record_written(session.home, files)
        with suppress(UnreachableError):  # else its first hook tells the broker
            session.client.call(calls.CONNECTED, host=host)
    if session.json:
        facts = [
            {"path": str(file.path), "format": file.format, "content": text}
            for file, text in texts
        ]
        out.json({"files": facts, "cannot_keep": weak, "missing_scopes": lacks})
        return
    if write:
        print_written(out, files, backups)
    else:
        print_planned(out, texts)
    out.line(out.cell(f"{host} cannot keep:", "strong"))
    for line in weak:
        out.line(f"- {line}")
    print_lacking(session, host, name, lacks)
    if not write:
        out.note("nothing was written: give --write")


def _commands(session: CliSession, agent: str) -> HostCommands:
    chosen = session.home_option or os.environ.get("AGENTVAULT_HOME")
    home = ("--home", str(session.home.data)) if chosen else ()
    files = sorted((session.home.config / "mcp").glob("*.toml"))
    return HostCommands(PROGRAM, agent, home, tuple(file.stem for file in files))
