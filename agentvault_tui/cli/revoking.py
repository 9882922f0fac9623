"""Revokes and restores from the command line, and prints the effect."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from agentvault_tui.cli.agent_scopes import name_and_id, say_recorded
from agentvault_tui.cli.lookup import agent_pages, find_agent
from agentvault_tui.cli.output import Cell, Output, confirm, short_time
from agentvault_tui.cli.session import CliSession
from agentvault_tui.clock import SystemClock
from agentvault_tui.errors import (
    AgentVaultError,
    NotFoundError,
    RefusedError,
    UnreachableError,
)
from agentvault_tui.operator_api import calls, requests
from agentvault_tui.operator_api.client import OperatorClient
from agentvault_tui.operator_api.ending import RevokeAnswer
from agentvault_tui.operator_api.shapes import AgentInfo
from agentvault_tui.presenters.intake import Intake
from agentvault_tui.presenters.moments import plural
from agentvault_tui.presenters.revocations import elsewhere, ended, unnotified
from agentvault_tui.text import visible


def chosen_agents(
    client: OperatorClient, owner: str | None, scope: str | None
) -> list[AgentInfo]:
    """Return the agents of an owner, or with a scope, that are not revoked yet.

    Raises:
        NotFoundError: there is none.
    """
    agents = [
        agent
        for page in agent_pages(client, tokens=True)
        for agent in page.agents
        if agent.status != "revoked"
        and (owner is None or owner.casefold() == agent.owner.casefold())
        and (scope is None or scope in agent.scopes)
    ]
    if not agents:
        of = f" of {visible(owner, 80)}" if owner is not None else ""
        with_ = f" with {visible(scope, 80)}" if scope is not None else ""
        raise NotFoundError(
            f"there is no agent{of}{with_} to revoke",
            "`agentvault agents list` shows owners and scopes",
        )
    return agents


def revoke_chosen(
    session: CliSession, chosen: list[AgentInfo], reason: str, *, plan: bool, yes: bool
) -> int:
    """Show agents with their tokens, ask once, and revoke all of them.

    One that cannot be revoked keeps no other from it.

    Returns:
        the exit code: 1 if one could not be revoked.

    Raises:
        RefusedError: the answer was not yes; nothing was changed.
    """
    out = session.out
    held = sum(agent.live_tokens for agent in chosen)
    size = f"{plural(len(chosen), 'agent')}, {plural(held, 'token')}"
    if not out.json_mode:
        _print_chosen(out, chosen)
        out.line(size)
    if plan:
        out.print_json({"agents": chosen})
        return 0
    if not yes:
        _ask(out, size)
    failed, answers = dict[str, str](), list[RevokeAnswer]()
    for agent in chosen:
        body = requests.RevokeRequest(agent_id=agent.id, reason=reason)
        try:
            answers.append(session.client.call(calls.REVOKE, body))
        except AgentVaultError as error:
            failed[agent.id] = error.diagnosis()
            continue
        if not out.json_mode:
            print_revoked(session, answers[-1])
    if not out.print_json({"revoked": answers, "failed": failed}):
        for agent_id, why in failed.items():
            out.line(out.word("fault"), f": {agent_id}: ", out.cell(why, limit=300))
    return 1 if failed else 0


def _ask(out: Output, size: str) -> None:
    if out.json_mode or not sys.stdin.isatty():
        raise RefusedError(f"{size}: revoking these needs a yes", "give --yes")
    if not confirm(f"Revoke all of them ({size})?"):
        raise RefusedError("nothing was revoked")


def _print_chosen(out: Output, chosen: list[AgentInfo]) -> None:
    rows = [
        [
            out.cell(agent.name, "strong"),
            agent.id,
            out.cell(agent.owner),
            out.cell(" ".join(agent.scopes), limit=300),
            out.cell(agent.live_tokens),
        ]
        for agent in chosen
    ]
    out.table(("AGENT", "ID", "OWNER", "SCOPES", "TOKENS"), rows)


@contextmanager
def nothing_revoked(session: CliSession) -> Iterator[None]:
    """Say that nothing is revoked, if no broker answers in the body.

    Raises:
        UnreachableError: with that, and what works without a broker.
    """
    try:
        yield
    except UnreachableError as error:
        remedy = error.remedy
        if not session.remote:
            remedy += "; `agentvault panic` works without a broker"
        raise type(error)(f"NOT revoked: {error.what}", remedy) from None


def print_revoked(
    session: CliSession, answer: RevokeAnswer, since: str | None = None
) -> None:
    """Print the effect of revoking an agent, which was revoked *since*, or all."""
    out = session.out
    if out.print_json(answer):
        return
    out.line(*_ended(out, answer, since))
    out.line(f"closed here in {answer.effective_ms:.1f} ms; ended: {ended(answer)}")
    say_recorded(out, answer)
    if answer.agent:
        print_elsewhere(out, answer.agent, everywhere=not unnotified(answer))
    if not answer.agent:
        out.line("nothing is issued until `agentvault lift-panic`")


def _ended(out: Output, answer: RevokeAnswer, since: str | None) -> list[Cell | str]:
    """Word which agents are revoked or stopped now, or were before."""
    if answer.agent:
        named = name_and_id(out, answer.agent)
        if since is None:
            return [Cell(out.shown("revoked "), "bad"), *named]
        again = "; its tenant and providers are asked again" if answer.upstream else ""
        return [*named, f" was revoked already, at {short_time(since)}{again}"]
    if before := answer.panic_before:
        since, by = short_time(before.since), out.cell(before.by)
        return ["everything was stopped already, since ", since, " by ", by]
    count, revoked = answer.agents or 0, answer.agents_revoked_before
    some = f"{count - revoked} of {count} ({revoked} revoked already)"
    stopped = Cell(out.shown("stopped every agent"), "bad")
    return [stopped, f": {some if revoked else count}"]


def restore_agents(session: CliSession, ref: str | None, until: str | None) -> None:
    """Serve one agent again, or lift the panic where *ref* is None."""
    client, out = session.client, session.out
    agent = None if ref is None else find_agent(client, ref)
    which = {"agent_id": agent.id} if agent else {"all": True}
    answer = client.call(calls.RESTORE, requests.RestoreRequest(**which, until=until))
    if session.json:
        out.json(answer)
    elif answer.agent:
        named = name_and_id(out, answer.agent)
        if agent and agent.status == "revoked":
            out.line(Cell(out.shown("restored "), "good"), *named)
        elif client.call(calls.STATUS).panic.on:
            out.line(*named, " is stopped by the panic, not revoked one by one:")
            out.line("`agentvault lift-panic` ends that")
        else:
            out.line(*named, " was not revoked, as far as this broker knows")
    else:
        out.line(
            f"the panic is over: {plural(answer.agents or 0, 'agent')} served; "
            "agents revoked singly stay revoked"
        )


def print_elsewhere(out: Output, agent: AgentInfo, *, everywhere: bool = True) -> None:
    """Print how far the tenant and providers are with an agent that was revoked."""
    row = Intake(ascii_only=out.ascii_only).agent(agent)
    for line in elsewhere(row, SystemClock().now(), everywhere=everywhere):
        out.line(line.strip())
