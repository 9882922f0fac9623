"""``agentvault tokens`` and ``scopes``: live tokens, and the scopes there are."""

from __future__ import annotations

import click

from agentvault_tui.cli.agent_scopes import say_cut, say_recorded
from agentvault_tui.cli.framework import group, pass_session
from agentvault_tui.cli.lookup import agent_names, agent_pages, find_agent, token_ids
from agentvault_tui.cli.output import short_time
from agentvault_tui.cli.session import CliSession
from agentvault_tui.operator_api import calls, requests
from agentvault_tui.presenters.moments import plural


@group("tokens", example="agentvault tokens list")
def tokens() -> None:
    """List live tokens, and revoke one."""


@tokens.command("list", example="agentvault tokens list --agent payments-agent")
@click.option(
    "--agent",
    help="Only this agent's: id or unique name.",
    shell_complete=agent_names,
)
@pass_session
def list_tokens(session: CliSession, agent: str | None) -> None:
    """List live tokens, without their secrets."""
    client, out = session.client, session.out
    agents = (
        [find_agent(client, agent)]
        if agent
        else [one for page in agent_pages(client, tokens=True) for one in page.agents]
    )
    live = [token for one in agents for token in one.listed_tokens]
    if out.print_json({"tokens": live}):
        return
    if not live:
        out.line("no token is live")
        return
    names = {one.id: one.name for one in agents}
    rows = [
        [
            token.id,
            out.cell(names[token.agent_id], "strong", 40),
            f"{token.kind}, once" if token.single_use else token.kind,
            short_time(token.expires_at),
            out.cell(token.scope, limit=2000),
        ]
        for token in live
    ]
    out.table(("TOKEN", "AGENT", "KIND", "EXPIRES", "SCOPE"), rows)


@tokens.command("revoke", example="agentvault tokens revoke tok_8m1c4tq9x2w7k3zn")
@click.argument("token_id", metavar="ID", shell_complete=token_ids)
@click.option("--reason", default="", help="Why; it is recorded.")
@pass_session
def revoke_token(session: CliSession, token_id: str, reason: str) -> None:
    """Revoke one live token, its calls in flight, and tokens exchanged for it.

    The agent may ask for another: `agentvault revoke NAME` ends an agent's rights.
    """
    body = requests.TokenRevokeRequest(id=token_id, reason=reason)
    out, answer = session.out, session.client.call(calls.REVOKE_TOKEN, body)
    if out.print_json(answer):
        return
    out.line(out.cell("revoked ", "bad"), answer.id)
    if below := answer.tokens_revoked - 1:
        out.line(f"{plural(below, 'token')} ended that were exchanged for it")
    say_cut(out, answer)
    say_recorded(out, answer)


@group("scopes", example="agentvault scopes list")
def scopes() -> None:
    """The scopes that agents may ask for."""


@scopes.command("list", example="agentvault scopes list --json")
@pass_session
def list_scopes(session: CliSession) -> None:
    """List the scopes (permissions) of the catalogue, with their risk."""
    out, catalogue = session.out, session.client.call(calls.POLICY).catalogue
    listed = sorted(catalogue.items())
    if out.print_json({"scopes": catalogue}):
        return
    rows = [
        [name, out.word(scope.risk), out.cell(scope.description, limit=200)]
        for name, scope in listed
    ]
    out.table(("SCOPE", "RISK", "DESCRIPTION"), rows, keep=("SCOPE",))
