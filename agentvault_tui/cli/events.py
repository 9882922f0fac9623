"""One event of the ledger as a line: JSON for programs, columns for people."""

from __future__ import annotations

from agentvault_tui.cli.output import Output
from agentvault_tui.operator_api.history import EventInfo


def print_event(out: Output, event: EventInfo) -> None:
    """Print *event*; columns have fixed widths, because the next one is not known."""
    if out.json_mode:
        out.json(event)
        return
    actor, action = event.actor, event.action
    about = [event.resource or event.detail.get("agent")]
    if event.type != "token.decision":
        action, about = event.type, [action, *about]
    reason = out.cell(event.reason or " ")
    if actor.kind == "agent":
        reason = out.own_words(event.reason or " ", 120)
    elif event.agent_id and "agent" not in event.detail:
        # Whose it is stands nowhere else in what others did about an agent.
        why = (event.reason or "").strip()
        reason = out.cell(f"{why} ({event.agent_id})" if why else event.agent_id)
    out.row(
        (7, out.cell(event.seq, "quiet")),
        (20, out.cell(event.time[:19] + "Z", "quiet")),
        (9, out.word(event.outcome or " ")),
        (18, out.cell(actor.name, "strong")),
        (20, out.cell(action)),
        (30, out.cell(" ".join(str(word) for word in about if word) or " ")),
        (0, reason),
    )
