"""How a step-up or a change ended, as rows."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from agentvault_tui.presenters.lines import EMPTY, Pen, Row
from agentvault_tui.presenters.moments import clock_time, countdown
from agentvault_tui.presenters.records import StepUpRow
from agentvault_tui.presenters.stepup_rows import StepUpFacts
from agentvault_tui.presenters.stepups import (
    answered,
    cause,
    handed_out,
    stages_of,
    subject,
    takes_back,
)

_COLUMN: Final = 36
_ROOMY: Final = 60
"""From this width on a dialog has rows to spare."""
_REPEAT: Final = "How many more, within SECONDS, differing up to: 5 600 amount=5000"
_REPEAT_OF_CALL: Final = "How many more of exactly these bytes, within SECONDS: 5 600"
_ELSEWHERE: Final = "This was decided elsewhere while it was open here."


def decided(facts: StepUpFacts, pen: Pen, width: int, *, elsewhere: bool) -> list[Row]:
    """Write how the request ended; *elsewhere* when not by a key in this dialog."""
    row, palette = facts.row, pen.palette
    most = 2 if width >= _ROOMY else 1
    what, _ = pen.facts("For", subject(row), width, most, palette.text)
    name = pen.clip(row.agent_name, max(width - 40, 8))
    agent = pen.fact(
        "Agent", (name, palette.strong), (f"  {row.agent_id}", palette.muted)
    )
    if row.is_change:
        agent = pen.fact("Operator", (name, palette.strong))
    rows = [agent, *what, EMPTY, *_ending(facts, pen, width)]
    if elsewhere:
        rows += [EMPTY, *pen.paragraph(_ELSEWHERE, width, palette.waiting)]
    return rows


def _ending(facts: StepUpFacts, pen: Pen, width: int) -> list[Row]:
    row, nothing = facts.row, stages_of(facts.row).nothing
    when = clock_time(row.decided_at) if row.decided_at else ""
    match row.status:
        case "approved" | "redeemed" | "applied":
            return _approved(facts, pen, width)
        case "denied":
            who = row.decided_name or "an operator"
            text = "" if row.is_change else "The agent reads that it was denied."
            text = f"{answered(row)}: {row.denial}" if row.denial else text
            return [
                _stage(pen, "ended", pen.clip(f"denied by {who}", width - 14), when),
                *pen.paragraph(f"{nothing}. {text}", width),
            ]
        case "expired":
            waited = countdown((row.expires_at - row.requested_at).total_seconds())
            return [
                _stage(pen, "ended", "expired", clock_time(row.expires_at)),
                *pen.paragraph(
                    f"Nobody decided within {waited}, which counts as no. "
                    f"{nothing}; {'it' if row.is_change else 'the agent'} may "
                    f"{'be asked for' if row.is_change else 'ask'} again.",
                    width,
                ),
            ]
    return [
        _stage(pen, "ended", "cancelled", when),
        *pen.paragraph(f"Because {cause(row)}. {nothing}.", width),
    ]


def _approved(facts: StepUpFacts, pen: Pen, width: int) -> list[Row]:
    """Write each stage with the time the broker gives for it."""
    row, stages = facts.row, stages_of(facts.row)
    when = clock_time(row.decided_at) if row.decided_at else ""
    by = row.deciders[-1] if row.deciders else None
    verified = clock_time(by.auth_time) if by and by.auth_time else when
    name = pen.clip(row.decided_name or "an approver", max(width - 30, 8))
    begun = clock_time(row.begun_at) if row.begun_at else ""
    rows = [
        _stage(pen, "done", "code shown", begun),
        _stage(pen, "done", pen.clip(f"factor verified ({row.factors})", 40), verified),
        _stage(pen, "done", f"approved by {name}", when),
        _stage(pen, "done", stages.ready, when),
    ]
    if row.is_change:
        return rows
    if row.status == "redeemed":
        at = clock_time(row.redeemed_at) if row.redeemed_at else ""
        rows.append(_stage(pen, "done", stages.used, at))
        return [*rows, EMPTY, *pen.paragraph(handed_out(row), width)]
    minted = row.decided_at or facts.now
    left = (minted + timedelta(seconds=row.ttl) - facts.now).total_seconds()
    if left <= 0:
        rows.append(_stage(pen, "ended", *stages.lapsed))
        return rows
    rows.append(_stage(pen, "current", stages.unused, f"{countdown(left)} left"))
    return [*rows, EMPTY, *pen.paragraph(takes_back(row), width)]


def _stage(pen: Pen, state: str, words: str, when: str) -> Row:
    return pen.stage(state, words, when, _COLUMN)


def accepted(pen: Pen) -> list[Row]:
    """Write the stages of an approval whose code the tenant has accepted."""
    return [
        EMPTY,
        pen.stage("done", "code accepted by the tenant", ""),
        pen.stage("current", "the broker verifies it", ""),
    ]


def typing(row: StepUpRow, pen: Pen, *, repeating: bool) -> list[Row]:
    """Write the purpose of the typed line, above that line."""
    who = "The requester" if row.is_change else "The agent"
    label, text = "Reason: ", f"{who} will read this. Enter denies, Esc goes back."
    if repeating:
        label, text = "Repeat: ", _REPEAT if row.request is None else _REPEAT_OF_CALL
    return [EMPTY, ((text, pen.palette.muted),), ((label, pen.palette.text),)]
