"""``agentvault advise``: authority that agents do not need, with evidence."""

from __future__ import annotations

import click

from agentvault_tui.cli.framework import (
    Group,
    RenamedOption,
    TimeSpan,
    pass_session,
)
from agentvault_tui.cli.lookup import agent_names, find_agent
from agentvault_tui.cli.output import Output
from agentvault_tui.cli.session import CliSession
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.advice import (
    AdviceInfo,
    AdviceQuery,
    ApplyAdviceRequest,
)
from agentvault_tui.presenters.advice import change_texts, evidence_facts


@click.group(
    "advise",
    cls=Group,
    example="agentvault advise --for 30d",
    invoke_without_command=True,
    prints_data=True,
)
@click.option("--agent", help="Id or unique name.", shell_complete=agent_names)
@click.option(
    "--for",
    "--window",
    "window",
    cls=RenamedOption,
    type=TimeSpan(),
    default=0,
    help="How far back to look; default: [policy] advice_window, 30d.",
)
@click.option("--all", "every", is_flag=True, help="Also past advice.")
@click.pass_context
def advise(ctx: click.Context, agent: str | None, window: int, *, every: bool) -> None:
    """List permissions that agents do not need, with evidence from the history.

    This changes nothing. `advise apply ID` removes the permission on trial, `give-back`
    restores it, and `dismiss` leaves it until it is used and then unused again.
    """
    if ctx.invoked_subcommand is not None:
        return
    session = ctx.ensure_object(CliSession)
    client, out = session.client, session.out
    wanted = find_agent(client, agent).id if agent else ""
    answer = client.call(
        calls.ADVICE, AdviceQuery(agent=wanted, window=window, all=every)
    )
    if out.print_json(answer):
        return
    names = {one.id: one.name for one in client.call(calls.AGENTS).agents}
    for one in answer.advice:
        _print(out, one, names.get(one.agent_id, one.agent_id))
    if not answer.advice:
        out.line(out.word("ok"), ": nothing to advise")
    rate = answer.hit_rate
    out.line(f"{rate.applied} applied so far, {rate.given_back} of them restored")


@advise.command("apply", example="agentvault advise apply adv_0123456789ab --for 7d")
@click.argument("advice_id", metavar="ID")
@click.option(
    "--for", "span", type=TimeSpan(), default="7d", help="Length of the trial."
)
@pass_session
def apply(session: CliSession, advice_id: str, span: int) -> None:
    """Remove the permission on trial: live tokens with it end."""
    body = ApplyAdviceRequest(seconds=span)
    _changed(session, session.client.call(calls.APPLY_ADVICE, body, id=advice_id))


@advise.command("give-back", example="agentvault advise give-back adv_0123456789ab")
@click.argument("advice_id", metavar="ID")
@pass_session
def give_back(session: CliSession, advice_id: str) -> None:
    """Restore the permission."""
    _changed(session, session.client.call(calls.GIVE_BACK, id=advice_id))


@advise.command("dismiss", example="agentvault advise dismiss adv_0123456789ab")
@click.argument("advice_id", metavar="ID")
@pass_session
def dismiss(session: CliSession, advice_id: str) -> None:
    """Leave the permission, until it is used and then unused again."""
    _changed(session, session.client.call(calls.DISMISS_ADVICE, id=advice_id))


def _changed(session: CliSession, advice: AdviceInfo) -> None:
    if not session.out.print_json(advice):
        listed = session.client.call(calls.AGENTS).agents
        names = {one.id: one.name for one in listed}
        _print(session.out, advice, names.get(advice.agent_id, advice.agent_id))


def _print(out: Output, one: AdviceInfo, name: str) -> None:
    """Print one piece of advice: title, reason, and change."""
    seen = one.evidence
    out.line(
        out.cell(one.id, "strong"),
        f"  {one.kind.replace('_', ' ')}  ",
        out.cell(f"{name} {one.scope}".strip(), limit=120),
        "  ",
        out.word(one.status.replace("_", " ")),
    )
    for label, text in evidence_facts(seen):
        out.line(f"  {label.lower()}: ", out.cell(text, limit=300))
    if seen.refused:
        out.line(f"  events: {', '.join(map(str, seen.refused))}")
    for what, text in change_texts(one.change):
        for line in text.splitlines():
            out.line(f"  {what}: ", out.cell(line, limit=400))
    if one.trial_ends_at:
        out.line(f"  on trial until {one.trial_ends_at[:19]}Z")
