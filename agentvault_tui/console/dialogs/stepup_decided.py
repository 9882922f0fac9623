"""Step-up, decided: who or what ended it, when, and what follows."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from agentvault_tui.console.dialogs.stepup_asked import Asked, subject
from agentvault_tui.console.dialogs.stepup_factor import stage
from agentvault_tui.console.draw.lines import EMPTY, Pen, Row, clock_time, countdown
from agentvault_tui.console.state.records import StepUpRow

_COLUMN: Final = 36
_ELSEWHERE: Final = "This was decided elsewhere while it was open here."
_CAUSES: Final = {
    "agent_revoked": "the agent was revoked",
    "panic": "the panic switch was pressed",
    "scope_not_granted": "the scope was taken away from the agent",
}


def decided(asked: Asked, pen: Pen, width: int, *, elsewhere: bool) -> list[Row]:
    """Write how the request ended; *elsewhere* when not by a key in this dialog."""
    row, palette = asked.row, pen.palette
    what, _ = pen.facts("For", subject(row), width, 2, palette.text)
    name = pen.clip(row.agent_name, max(width - 40, 8))
    agent = pen.fact(
        "Agent", (name, palette.strong), (f"  {row.agent_id}", palette.muted)
    )
    rows = [agent, *what, EMPTY, *_ending(asked, pen, width)]
    if elsewhere:
        rows += [EMPTY, *pen.paragraph(_ELSEWHERE, width, palette.waiting)]
    return rows


def summary(row: StepUpRow) -> str:
    """Say in a few words who or what ended it, for a list."""
    who = f" by {row.decided_by.name}" if row.decided_by else ""
    match row.status:
        case "approved" | "redeemed":
            return f"approved{who}"
        case "denied":
            return f"denied{who}"
        case "expired":
            return "expired, nobody decided"
        case "cancelled":
            return f"cancelled: {cause(row)}"
    return str(row.status)


def cause(row: StepUpRow) -> str:
    """Say why a request was cancelled."""
    return _CAUSES.get(row.problem, str(row.problem) or "the broker did not say why")


def handed_out(row: StepUpRow) -> str:
    """Say what became of the token once it was used, or given away."""
    if row.connection:
        return (
            f"The agent has a token of the account at {row.connection}, which works "
            "until the provider ends it. Revoking the agent stops the next one at once."
        )
    return "The token is spent."


def takes_back(row: StepUpRow) -> str:
    """Say what takes an approval back that was not used yet."""
    if row.connection:
        return (
            "The agent may fetch a token of the account. Revoke the agent before it "
            "does: then only the provider can end that token."
        )
    return "The agent has a token for exactly this. Revoke the agent to take it back."


def _ending(asked: Asked, pen: Pen, width: int) -> list[Row]:
    row = asked.row
    when = clock_time(row.decided_at) if row.decided_at else ""
    match row.status:
        case "approved" | "redeemed":
            return _approved(asked, pen, width)
        case "denied":
            who = row.decided_by.name if row.decided_by else "an operator"
            told = f"It was told: {row.denial}" if row.denial else "It was told no."
            return [
                _stage(pen, "ended", pen.clip(f"denied by {who}", width - 14), when),
                *pen.paragraph(f"Nothing was issued. {told}", width),
            ]
        case "expired":
            waited = countdown((row.expires_at - row.requested_at).total_seconds())
            return [
                _stage(pen, "ended", "expired", clock_time(row.expires_at)),
                *pen.paragraph(
                    f"Nobody decided within {waited}, which counts as no. "
                    "Nothing was issued; the agent may ask again.",
                    width,
                ),
            ]
    return [
        _stage(pen, "ended", "cancelled", when),
        *pen.paragraph(f"Because {cause(row)}. Nothing was issued.", width),
    ]


def _approved(asked: Asked, pen: Pen, width: int) -> list[Row]:
    """Write each stage with the time the broker gives for it."""
    row, by = asked.row, asked.row.decided_by
    when = clock_time(row.decided_at) if row.decided_at else ""
    proof = ", ".join(by.amr) if by else ""
    verified = clock_time(by.auth_time) if by and by.auth_time else when
    name = pen.clip(by.name if by else "an approver", max(width - 30, 8))
    begun = clock_time(row.begun_at) if row.begun_at else ""
    rows = [
        _stage(pen, "done", "code shown", begun),
        _stage(pen, "done", pen.clip(f"factor verified ({proof})", 40), verified),
        _stage(pen, "done", f"approved by {name}", when),
        _stage(pen, "done", "token minted", when),
    ]
    if row.status == "redeemed":
        at = clock_time(row.redeemed_at) if row.redeemed_at else ""
        rows.append(_stage(pen, "done", "redeemed", at))
        return [*rows, EMPTY, *pen.paragraph(handed_out(row), width)]
    minted = row.decided_at or asked.now
    left = (minted + timedelta(seconds=row.ttl) - asked.now).total_seconds()
    if left <= 0:
        rows.append(_stage(pen, "ended", "not redeemed", "token expired"))
        return rows
    rows.append(_stage(pen, "current", "not redeemed yet", f"{countdown(left)} left"))
    return [*rows, EMPTY, *pen.paragraph(takes_back(row), width)]


def _stage(pen: Pen, state: str, words: str, when: str) -> Row:
    return stage(pen, state, words, when, _COLUMN)
