"""Revokes and restores from the command line, and prints the effect."""

from __future__ import annotations

from typing import Final

from agentvault_tui.cli.agent_scopes import name_and_id, say_cut
from agentvault_tui.cli.lookup import find_agent
from agentvault_tui.cli.output import Cell, Output
from agentvault_tui.cli.session import CliSession
from agentvault_tui.clock import SystemClock
from agentvault_tui.console.state.intake import Intake
from agentvault_tui.console.state.moments import plural
from agentvault_tui.console.state.revocations import elsewhere, unnotified
from agentvault_tui.operator_api import calls, requests
from agentvault_tui.operator_api.shapes import AgentInfo, RevokeAnswer

_KEPT: Final = {
    "journal": "the cut journal keeps it, also over a restart",
    "stop": "the next start of the broker stops everything",
    "memory": "a restart of the broker would lose it",
}
"""Where a cut is until the ledger can write."""


def print_revoked(session: CliSession, answer: RevokeAnswer) -> None:
    """Print the effect of revoking an agent, or all of them."""
    out = session.out
    if out.print_json(answer):
        return
    who = (
        name_and_id(out, answer.agent)
        if answer.agent
        else [f"every agent ({answer.agents})"]
    )
    out.line(Cell(out.shown("revoked "), "bad"), *who)
    out.line(
        f"closed here in {answer.effective_ms:.1f} ms: "
        f"{plural(answer.tokens_revoked, 'token')} and "
        f"{plural(answer.stepups_cancelled, 'step-up')} ended"
    )
    if answer.agent and answer.delegated_revoked:
        passed = plural(answer.delegated_revoked, "token")
        out.line(f"{passed} of other agents ended that were passed on from those")
    if answer.derived_revoked:
        out.line(f"{plural(answer.derived_revoked, 'agent')} made from it revoked too")
    say_cut(out, answer)
    _say_brokers(out, answer)
    if answer.agent:
        print_elsewhere(out, answer.agent, everywhere=not unnotified(answer))
    if not answer.recorded:
        kept = _KEPT.get(answer.kept, _KEPT["memory"])
        out.note(f"in force, and not in the ledger yet: {kept}")
    if not answer.agent:
        out.line("nothing is issued until `agentvault lift-panic`")


def _say_brokers(out: Output, answer: RevokeAnswer) -> None:
    """Print which other brokers of a team know of it, and which do not."""
    for text in unnotified(answer):
        out.note(out.shown(text))
    done = [one.ms for one in answer.brokers or () if one.confirmed]
    if answer.brokers and not answer.others:
        several = plural(len(answer.brokers), "other broker")
        within = f" within {max(done):.1f} ms" if done else ""
        out.line(f"confirmed by {len(done)} of {several}{within}")


def restore_agents(session: CliSession, ref: str | None, until: str | None) -> None:
    """Serve one agent again, or lift the panic where *ref* is None."""
    client, out = session.client, session.out
    found = None if ref is None else find_agent(client, ref)
    which = {"agent_id": found.id} if found else {"all": True}
    answer = client.call(calls.RESTORE, requests.RestoreRequest(**which, until=until))
    if session.json:
        out.json(answer)
    elif answer.agent:
        named = name_and_id(out, answer.agent)
        if found and found.status == "revoked":
            out.line(Cell(out.shown("restored "), "good"), *named)
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
