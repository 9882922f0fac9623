"""The facts of one agent, as rows: its details at home, and its own screen."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from agentvault_tui.console.draw import upstream, words
from agentvault_tui.console.draw.lines import EMPTY, LABEL, Pen, Row, cells, wrap
from agentvault_tui.console.state.activity import ActivityRow, ScopeUse
from agentvault_tui.console.state.agents import SOON
from agentvault_tui.console.state.folds import fold as fold_events
from agentvault_tui.console.state.mirror import Mirror
from agentvault_tui.console.state.moments import ago, countdown, lasting, plural
from agentvault_tui.console.state.records import (
    AgentRow,
    LiveToken,
    ScopeRow,
    StepUpRow,
)
from agentvault_tui.console.state.revocations import consequences
from agentvault_tui.presenters.outcomes import reason_words

_LATELY: Final = 6
_DELEGATES: Final = 4
_EVENTS_A_ROW: Final = 6
"""As many as an approval has."""
_TOKENS_AT_HOME: Final = 8


def details(
    pen: Pen, mirror: Mirror, agent: AgentRow, size: tuple[int, int], restores: str
) -> list[Row]:
    """Write everything worth knowing about an agent, and fill *size* with its events.

    *restores* is the note about a revoked one.
    """
    width, height = size
    seen = AgentContext(mirror, agent, restores=restores)
    rows = [
        *_grants(pen, mirror, agent, width),
        *_holds(pen, seen, width, _TOKENS_AT_HOME, "more"),
        *upstream.accounts(pen, agent, width),
        *_delegations(pen, agent, width),
        *_repeats(pen, seen, width),
    ]
    revoking = _revoking(pen, seen, width)
    # Once it is revoked, how far that is comes first: nothing else is urgent.
    rows = [*revoking, *rows] if agent.revoked else [*rows, *revoking]
    rows = [*_identity(pen, mirror, agent, width), *rows]
    most = max(_LATELY, height - len(rows))
    return [*rows, *_lately(pen, mirror, agent, width, most)]


def _identity(pen: Pen, mirror: Mirror, agent: AgentRow, width: int) -> list[Row]:
    p, last = pen.palette, mirror.last_seen(agent.id)
    seen = f"seen {ago(last, mirror.clock.now())}" if last else "never seen"
    if agent.resource_server:  # it introspects, which is nobody's request
        seen = "resource server"
    owner = pen.clip(agent.owner, max(width - LABEL - len(seen) - 3, 6))
    rows = [
        pen.fact(
            "Owner",
            (owner, p.text),
            (f" {pen.glyphs.separator} {seen}", p.muted),
        )
    ]
    if agent.purpose:
        rows += pen.facts("Purpose", agent.purpose, width, 2, p.muted)[0]
    return rows + _standing(pen, mirror, agent, width)


def _standing(pen: Pen, mirror: Mirror, agent: AgentRow, width: int) -> list[Row]:
    """Word its identity by tokens, its end, and its template."""
    p, now = pen.palette, mirror.clock.now()
    soon = agent.until and 0 < (agent.until - now).total_seconds() < SOON
    rows = list[Row]()
    if agent.subject:
        rows += pen.facts("Known by", agent.subject, width, 2, p.text)[0]
    origin = mirror.agents.get(agent.from_template or "")
    made = [one.name for one in mirror.derived(agent.id)] if agent.template else None
    parts = ending(
        *(agent.until, now, origin.name if origin else agent.from_template, made)
    )
    for label, text in parts:
        style = p.waiting if label == "Ends" and soon else p.text
        rows += pen.facts(label, text, width, 3, style)[0]
    return rows


def ending(
    until: datetime | None,
    now: datetime,
    template: str | None,
    made: Sequence[str] | None,
    more: int = 0,
) -> list[tuple[str, str]]:
    """Word an agent's end, and the things that end with it.

    Args:
        until: when it is revoked by itself.
        now: the time.
        template: the name of its template, if it has one.
        made: names of agents made from it, where it is a template.
        more: how many others there are.

    Returns:
        labels, and texts.
    """
    parts = []
    if until is not None:
        parts.append(("Ends", f"{ends_in(until, now)}, at {until:%Y-%m-%d %H:%M:%S}Z"))
    if made is not None:
        names = _first(made, more) or "none"
        parts.append(("Template", f"never served itself; made from it: {names}"))
    if template:
        parts.append(("Made from", f"the template {template}, and ends with it"))
    return parts


def _first(names: Sequence[str], more: int = 0) -> str:
    """Write the first of *names*, and how many others there are, with *more*."""
    more += max(len(names) - _DERIVED, 0)
    return ", ".join(names[:_DERIVED]) + (f" and {more} more" if more else "")


def ends_in(until: datetime, now: datetime) -> str:
    """Say in how long an agent ends by itself."""
    left = (until - now).total_seconds()
    return f"in {lasting(left)}" if left > 0 else "its time is over"


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


def _delegations(pen: Pen, agent: AgentRow, width: int) -> list[Row]:
    """Say from whom it holds tokens, and to whom it may pass its own on, or did."""
    facts = [
        ("Holds of", f"{one.name}: {plural(one.live, 'token')} delegated to it")
        for one in agent.delegated_by
    ]
    for one in agent.delegates:
        may = " ".join(one.scopes) or "nothing any more"
        live = f", {plural(one.live, 'token')} live" if one.live else ""
        facts.append(("Delegates", f"to {one.name}: {may}{live}"))
    shown = facts[:_DELEGATES]
    rows = [pen.facts(*each, width, 2, pen.palette.text)[0] for each in shown]
    if more := len(facts) - len(shown):
        text = f"{more} more: agentvault agents tree"
        rows.append([pen.fact("", (text, pen.palette.muted))])
    return [row for each in rows for row in each]


def _repeats(pen: Pen, seen: AgentContext, width: int) -> list[Row]:
    """Count down the approvals that still stand in for a person."""
    rows: list[Row] = []
    for stepup in seen.mirror.stepups.values():
        if stepup.agent_id != seen.agent.id or not stepup.repeat:
            continue
        if not (ends := stepup.repeats(seen.now)):
            continue
        left = f"{countdown(ends)} "
        text = f"{stepup.repeat.left} more {stepup.action} without a person"
        rows.append(
            pen.fact(
                "" if rows else "Repeats",
                (left, pen.palette.waiting),
                (pen.clip(text, max(width - LABEL - len(left), 8)), pen.palette.text),
            )
        )
    return rows


def _lately(
    pen: Pen, mirror: Mirror, agent: AgentRow, width: int, most: int
) -> list[Row]:
    p = pen.palette
    recent = []
    for event in reversed(mirror.events):
        if event.agent_id == agent.id:
            recent.append(event)
            if len(recent) == most * _EVENTS_A_ROW:
                break
    rows: list[Row] = []
    for fold in fold_events(reversed(recent))[: -most - 1 : -1]:
        event, state = fold.head, fold.state
        style = words.style(p, state)
        parts = (words.deed(event), words.target(event))
        what = " ".join(part for part in parts if part)
        text = pen.clip(pen.own(what), max(width - LABEL - 18, 6))
        rows.append(
            pen.fact(
                "" if rows else "Lately",
                (f"{event.time:%H:%M:%S} ", p.muted),
                (f"{state.word:<8} ", style),
                (text, p.text),
            )
        )
    return rows


_TOKENS: Final = 12
_DERIVED: Final = 5
"""Agents made from a template that are named."""
_WAITING: Final = 3
_HOUR: Final = 3600.0
_BAR: Final = 8
_INDENT: Final = "   "


class AgentContext(NamedTuple):
    """The state an agent's rows are drawn from."""

    mirror: Mirror
    agent: AgentRow
    activity: ActivityRow | None = None
    expired: tuple[LiveToken, ...] = ()
    """Tokens that ended a moment ago."""
    restores: str = ""
    """The note about a revoked agent, if it can be restored here."""

    @property
    def now(self) -> datetime:
        return self.mirror.clock.now()


def facts(pen: Pen, seen: AgentContext, width: int) -> list[Row]:
    """Write everything worth knowing before a decision about an agent."""
    live = seen.mirror.link.live
    sections = [
        # There are some only where its next requests may be refused.
        [*_limits(pen, seen, width), *_on_trial(pen, seen, width)],
        _standing(pen, seen.mirror, seen.agent, width),
        _may(pen, seen, width),
        _refused_scopes(pen, seen, width),
        _holds(pen, seen, width, _TOKENS, "more, later", unsure=not live),
        upstream.accounts(pen, seen.agent, width),
        [*_delegations(pen, seen.agent, width), *_repeats(pen, seen, width)],
        _refused(pen, seen, width),
    ]
    # Once it is revoked, how far that is comes first: nothing else is urgent.
    place = 0 if seen.agent.revoked else len(sections)
    sections.insert(place, _revoking(pen, seen, width))
    rows: list[Row] = []
    for section in sections:
        if section:
            rows += [EMPTY, *section] if rows else section
    return rows


def _may(pen: Pen, seen: AgentContext, width: int) -> list[Row]:
    """Write each granted scope: its risk, its permission, its use."""
    p, agent = pen.palette, seen.agent
    rows: list[Row] = []
    if agent.resource_server:
        serves = ", ".join((*agent.serves, *agent.resources))
        serves = serves or "every token: agentvault agents set-serves"
        rows += pen.facts("Serves", serves, width, 3, p.text)[0]
    grants = seen.mirror.intake.grants(agent)
    if not grants:
        words = "check others' tokens" if agent.resource_server else "do nothing"
        rows.append(pen.fact("May", (f"{words}: no scope is granted", p.muted)))
        return rows
    for scope in grants:
        label = "May" if scope is grants[0] else ""
        rows += [
            _scope(pen, label, scope, width),
            *_indented(pen, scope.description, width),
        ]
        if seen.activity is not None:
            use = seen.activity.use(scope.name)
            rows.append(_use(pen, use, seen.now, width))
    return rows


def _scope(pen: Pen, label: str, scope: ScopeRow, width: int) -> Row:
    style = pen.palette.risk(scope.risk)
    mark = (f"{pen.glyphs.risk(scope.risk)} ", style)
    name = pen.clip(scope.name, max(width - LABEL - 11, 6))
    risk = (f"{scope.risk.upper()} ", style)
    row = pen.fact(label, mark, (name, pen.palette.strong))
    return pen.spread(row, (risk,), width)


def _indented(pen: Pen, text: str, width: int) -> list[Row]:
    lines = wrap(pen.own(text), max(width - LABEL - len(_INDENT), 8))
    return [pen.fact("", (f"{_INDENT}{line}", pen.palette.text)) for line in lines]


def _use(pen: Pen, use: ScopeUse | None, now: datetime, width: int) -> Row:
    """Word the uses of a scope, the last one, and the other outcomes."""
    p = pen.palette
    text = "never used"
    if use is not None and use.uses:
        last = f", last {ago(use.last_used_at, now)}" if use.last_used_at else ""
        text = f"used {use.uses:,} {'time' if use.uses == 1 else 'times'}{last}"
    if use is not None and use.denied:
        text += f" {pen.glyphs.separator} denied {use.denied:,}"
    if use is not None and use.escalated:
        text += f" {pen.glyphs.separator} a person asked {use.escalated:,}"
    return pen.cut(pen.fact("", (f"{_INDENT}{text}", p.muted)), width)


def _refused_scopes(pen: Pen, seen: AgentContext, width: int) -> list[Row]:
    """Write scopes it requested and does not have, with their effect."""
    p = pen.palette
    rows: list[Row] = []
    granted = {scope.name for scope in seen.mirror.intake.grants(seen.agent)}
    for use in seen.activity.scopes if seen.activity else ():
        if use.granted or use.scope in granted:
            continue
        risk = seen.mirror.intake.scope(use.scope).risk
        mark = (f"{pen.glyphs.risk(risk)} ", p.risk(risk))
        last = f", last {ago(use.last_asked_at, seen.now)}" if use.last_asked_at else ""
        had = f" {pen.glyphs.separator} used {use.uses:,}" if use.uses else ""
        tail = f"  not granted {pen.glyphs.separator} denied {use.denied:,}{last}{had}"
        name = pen.clip(use.scope, max(width - LABEL - 24, 6))
        label = "" if rows else "Asked for"
        row = pen.fact(label, mark, (name, p.strong), (tail, p.muted))
        rows.append(pen.cut(row, width))
    return rows


def _limits(pen: Pen, seen: AgentContext, width: int) -> list[Row]:
    """Write the limits it has nearly reached: the rest, and when some frees."""
    p = pen.palette
    rows: list[Row] = []
    for one in seen.activity.limits if seen.activity else ():
        frees = ""
        if one.frees_at is not None:
            seconds = (one.frees_at - seen.now).total_seconds()
            frees = f", some frees in {countdown(seconds)}"
        left = f"{one.rest} of {one.allows} left"
        row = pen.fact(
            "" if rows else "Limits",
            (left, p.waiting if one.left else p.danger),
            (frees, p.muted),
            (f"  {one.limit} {one.whose}", p.text),
        )
        rows.append(pen.cut(row, width))
    return rows


def _on_trial(pen: Pen, seen: AgentContext, width: int) -> list[Row]:
    """Write its permissions that advice removed on trial, and the trials' ends."""
    shown = seen.mirror.intake.shown
    rows: list[Row] = []
    for one in seen.activity.trials if seen.activity else ():
        ends = f"until {(one.trial_ends_at or '')[:10]}"
        row = pen.fact(
            "" if rows else "Trial",
            (shown(one.scope or "everything", 60), pen.palette.waiting),
            (f"  {shown(one.kind.replace('_', ' '), 40)}, {ends}", pen.palette.muted),
        )
        rows.append(pen.cut(row, width))
    return rows


def _holds(
    pen: Pen,
    seen: AgentContext,
    width: int,
    most: int,
    more: str,
    *,
    unsure: bool = False,
) -> list[Row]:
    """Write live tokens with their countdowns, and those that ended just now."""
    p, mirror, agent = pen.palette, seen.mirror, seen.agent
    live, tokens = mirror.live_tokens(agent.id), mirror.tokens(agent.id)
    ended = [_ended(pen, token, width) for token in seen.expired[:_WAITING]]
    if not live:
        return [pen.fact("Holds", ("no live token", p.muted)), *ended]
    elevated = mirror.elevated(agent.id)
    extra = f"{elevated} elevated" if elevated else "none elevated"
    row = pen.fact(
        "Holds",
        (plural(live, "token"), p.text),
        (f" {pen.glyphs.separator} {extra}", p.escalated if elevated else p.muted),
    )
    if unsure:
        row = (*row, (" unconfirmed", p.stale))
    rows = [row, *(_token(pen, token, seen.now, width) for token in tokens[:most])]
    if live > most:
        rows.append(pen.fact("", (f"and {live - most:,} {more}", p.muted)))
    return [*rows, *ended]


def _token(pen: Pen, token: LiveToken, now: datetime, width: int) -> Row:
    p, g, left = pen.palette, pen.glyphs, token.remaining(now)
    if left <= 0:
        return _ended(pen, token, width)
    soon = left < SOON
    row = pen.fact(
        "",
        (g.bar(left / _HOUR, _BAR), p.waiting if soon else p.accent),
        (f" {countdown(left):>7}", p.text),
        (" SOON" if soon else "", p.waiting),
        ("  elevated, once" if token.elevated else "", p.escalated),
    )
    room = max(width - cells(row) - 2, 4)
    return (*row, (f"  {pen.clip(token.scope or 'no scope', room)}", p.muted))


def _ended(pen: Pen, token: LiveToken, width: int) -> Row:
    p = pen.palette
    row = pen.fact("", (pen.glyphs.bar(0, _BAR), p.muted), (" EXPIRED", p.danger))
    room = max(width - cells(row) - 2, 4)
    return (*row, (f"  {pen.clip(token.scope or 'no scope', room)}", p.muted))


def _refused(pen: Pen, seen: AgentContext, width: int) -> list[Row]:
    """Write refusals by reason: how often, why, and when last."""
    p = pen.palette
    rows: list[Row] = []
    for denial in seen.activity.denials if seen.activity else ():
        last = f"  last {ago(denial.last_at, seen.now)}"
        row = pen.fact(
            "" if rows else "Denied",
            (f"{denial.count:>6,}  ", p.denied),
            (reason_words(denial.reason), p.text),
            (last, p.muted),
        )
        rows.append(pen.cut(row, width))
    if not rows and seen.activity is not None:
        rows.append(pen.fact("Denied", ("never", p.muted)))
    return rows


def _revoking(pen: Pen, seen: AgentContext, width: int) -> list[Row]:
    """Word the present effect of `r`, and the rest; or the past effect."""
    p, mirror, agent = pen.palette, seen.mirror, seen.agent
    if agent.revoked:
        return _revoked(pen, seen, width)
    here = ends(mirror, agent, seen.activity)
    effects = consequences(agent, mirror.intake.grants(agent), here, seen.now)
    rows: list[Row] = []
    verbs = ("ends", "leaves", *(["works until"] if effects.lasts else []))
    for verb, texts in zip(verbs, effects, strict=False):
        for number, text in enumerate(texts):
            label = "" if rows else "Revoking"
            wording = text if number else f"{verb} {text}"
            rows += pen.facts(
                label, pen.own(wording), width, 4, p.muted if rows else p.strong
            )[0]
            if not number and verb == "ends":
                waiting = mirror.open_stepups(agent.id)
                rows += [waits(pen, one, seen.now, width) for one in waiting[:_WAITING]]
                if (more := len(waiting) - _WAITING) > 0:
                    rows.append(pen.fact("", (f"and {more} more", p.muted)))
    return rows


def _revoked(pen: Pen, seen: AgentContext, width: int) -> list[Row]:
    agent = seen.agent
    when = f" at {agent.revoked_at:%H:%M:%S}Z" if agent.revoked_at else ""
    text = f"closed here{when}{seen.restores}"
    return [
        pen.fact("Revoked", (text, pen.palette.muted)),
        *_was_cut(pen, seen.activity, width),
        *upstream.steps(pen, agent, seen.now, width),
    ]


def _was_cut(pen: Pen, activity: ActivityRow | None, width: int) -> list[Row]:
    if activity is None or activity.revoked is None:
        return []
    revoked = activity.revoked
    ended = f"{plural(revoked.tokens, 'token')}, {plural(revoked.stepups, 'step-up')}"
    why = f": {revoked.reason}" if revoked.reason else ""
    return pen.facts("", f"that cut {ended}; by {revoked.by}{why}", width, 3)[0]


def ends(mirror: Mirror, agent: AgentRow, activity: ActivityRow | None = None) -> str:
    """Word the effect of a revocation now, by the broker's numbers."""
    tokens = mirror.live_tokens(agent.id)
    elevated = mirror.elevated(agent.id)
    if activity is not None:
        elevated = min(max(elevated, activity.elevated), tokens)
    kind = f" ({elevated} elevated)" if elevated else ""
    waiting = plural(len(mirror.open_stepups(agent.id)), "step-up")
    calls = [c for c in mirror.calls.values() if c.agent_id == agent.id and not c.held]
    flying = f", {plural(len(calls), 'call')} in flight" if calls else ""
    made = [one.name for one in mirror.derived(agent.id)]
    below = f", {plural(len(made), 'agent')} made from it ({_first(made)})"
    ended = f"{plural(tokens, 'token')}{kind}, {waiting}{flying}"
    return ended + (below if made else "")


def waits(pen: Pen, stepup: StepUpRow, now: datetime, width: int) -> Row:
    p = pen.palette
    left = f"{countdown(stepup.remaining(now))} left  "
    row = pen.fact("", (left, p.waiting), (pen.clip(stepup.action, 24), p.text))
    room = width - cells(row) - 2
    what = " ".join(part for part in (stepup.gist, stepup.resource) if part)
    what = pen.clip(what, room) if room > 3 else ""
    return (*row, (f"  {what}", p.muted)) if what else row
