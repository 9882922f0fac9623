"""The details of an agent at home, as rows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Final

from agentvault_tui.console.state.folds import Fold
from agentvault_tui.console.state.folds import fold as fold_events
from agentvault_tui.console.state.mirror import Mirror
from agentvault_tui.presenters import event_words, upstream
from agentvault_tui.presenters.activity import ActivityRow
from agentvault_tui.presenters.agent import (
    AgentContext,
    delegations,
    holds,
    repeats,
    revoking,
    standing,
)
from agentvault_tui.presenters.lines import LABEL, Pen, Row, wrap
from agentvault_tui.presenters.moments import ago
from agentvault_tui.presenters.records import AgentRow, LiveToken
from agentvault_tui.text import cell_width

_LATELY: Final = 6
_EVENTS_A_ROW: Final = 6
"""As many as an approval has."""
_TOKENS: Final = 8


def context(
    mirror: Mirror,
    agent: AgentRow,
    activity: ActivityRow | None = None,
    *,
    expired: Sequence[LiveToken] = (),
    restores: str = "",
) -> AgentContext:
    """Return the state of an agent as this console has it.

    Args:
        mirror: the read state.
        agent: the agent.
        activity: its uses of scopes, once they were read.
        expired: its tokens that ended a moment ago.
        restores: the note about a revoked agent, if it can be restored here.
    """
    stepups = [one for one in mirror.stepups.values() if one.agent_id == agent.id]
    calls = (one for one in mirror.calls.values() if one.agent_id == agent.id)
    return AgentContext(
        directory=mirror,
        agent=agent,
        tokens=mirror.tokens(agent.id),
        live=mirror.live_tokens(agent.id),
        elevated=mirror.elevated(agent.id),
        stepups=sorted(stepups, key=lambda one: (one.requested_at, one.id)),
        calls=sum(not one.held for one in calls),
        activity=activity,
        expired=expired,
        restores=restores,
        is_current=mirror.link.live,
    )


def details(
    pen: Pen, mirror: Mirror, agent: AgentRow, size: tuple[int, int], restores: str
) -> list[Row]:
    """Write everything worth knowing about an agent, and fill *size* with its events.

    *restores* is the note about a revoked one.
    """
    width, height = size
    seen = context(mirror, agent, restores=restores)
    rows = [
        *_grants(pen, mirror, agent, width),
        *holds(pen, seen, width, _TOKENS, "more"),
        *upstream.accounts(pen, agent, width),
        *delegations(pen, agent, width),
        *repeats(pen, seen, width),
    ]
    effects = revoking(pen, seen, width)
    # Once it is revoked, how far that is comes first: nothing else is urgent.
    rows = [*effects, *rows] if agent.revoked else [*rows, *effects]
    rows = [*_identity(pen, mirror, seen, width), *rows]
    most = max(_LATELY, height - len(rows))
    return [*rows, *_lately(pen, mirror, agent, width, most)]


def _identity(pen: Pen, mirror: Mirror, seen: AgentContext, width: int) -> list[Row]:
    p, agent = pen.palette, seen.agent
    last = mirror.last_seen(agent.id)
    when = f"seen {ago(last, seen.now)}" if last else "never seen"
    if agent.resource_server:  # it introspects, which is nobody's request
        when = "resource server"
    owner = pen.clip(agent.owner, max(width - LABEL - len(when) - 3, 6))
    rows = [
        pen.fact(
            "Owner",
            (owner, p.text),
            (f" {pen.glyphs.separator} {when}", p.muted),
        )
    ]
    if agent.purpose:
        rows += pen.facts("Purpose", agent.purpose, width, 2, p.muted)[0]
    return rows + standing(pen, seen, width)


def _grants(pen: Pen, mirror: Mirror, agent: AgentRow, width: int) -> list[Row]:
    p, g = pen.palette, pen.glyphs
    if not agent.scopes:
        return [pen.fact("May", ("do nothing: no scope is granted", p.muted))]
    rows: list[Row] = []
    for scope in mirror.intake.grants(agent):
        text = f"{scope.description} ({scope.risk})"
        for number, line in enumerate(wrap(text, max(width - LABEL - 3, 8))):
            mark = f"{g.risk(scope.risk)} " if number == 0 else "   "
            label = "" if rows else "May"
            rows.append(
                pen.fact(label, (mark, p.risk(scope.risk)), (pen.own(line), p.text))
            )
    return rows


def _lately(
    pen: Pen, mirror: Mirror, agent: AgentRow, width: int, most: int
) -> list[Row]:
    """Write the last actions, those that are alike as one row with their number."""
    p = pen.palette
    recent = []
    for event in reversed(mirror.events):
        if event.agent_id == agent.id:
            recent.append(event)
            if len(recent) == most * _EVENTS_A_ROW:
                break
    alike: dict[tuple[str, str], list[Fold]] = {}
    for one in reversed(fold_events(reversed(recent))):
        parts = (event_words.deed(one.head), event_words.target(one.head))
        what = " ".join(part for part in parts if part)
        alike.setdefault((one.state.word, what), []).append(one)
    rows: list[Row] = []
    for (word, what), folds in islice(alike.items(), most):
        times = f" {pen.own('×')}{len(folds)}" if len(folds) > 1 else ""
        room = max(width - LABEL - 18 - cell_width(times), 6)
        rows.append(
            pen.fact(
                "" if rows else "Lately",
                (f"{folds[0].head.time:%H:%M:%S} ", p.muted),
                (f"{word:<8} ", event_words.style(p, folds[0].state)),
                (pen.clip(pen.own(what), room), p.text),
                (times, p.muted),
            )
        )
    return rows
