"""The facts of one agent, as rows: of its screen, its details and the command line."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from agentvault_tui.presenters import upstream
from agentvault_tui.presenters.activity import ActivityRow, ScopeUse, scope_use
from agentvault_tui.presenters.directory import Directory
from agentvault_tui.presenters.limits import windows
from agentvault_tui.presenters.lines import EMPTY, LABEL, Pen, Row, cells, wrap
from agentvault_tui.presenters.moments import SOON, ago, countdown, lasting, plural
from agentvault_tui.presenters.outcomes import reason_words
from agentvault_tui.presenters.records import (
    AgentRow,
    LiveToken,
    ScopeRow,
    StepUpRow,
)
from agentvault_tui.presenters.revocations import consequences

_DELEGATES: Final = 4
_TOKENS: Final = 12
_DERIVED: Final = 5
"""Agents made from a template that are named."""
_WAITING: Final = 3
_HOUR: Final = 3600.0
_BAR: Final = 8
_INDENT: Final = "   "


class AgentContext(NamedTuple):
    """The state an agent's rows are drawn from."""

    directory: Directory
    agent: AgentRow
    tokens: Sequence[LiveToken]
    """Live ones, the soonest to expire first; of many the first."""
    live: int
    """How many live tokens there are."""
    elevated: int
    stepups: Sequence[StepUpRow]
    """Its step-ups, the longest wait first."""
    calls: int = 0
    """Its calls in flight."""
    activity: ActivityRow | None = None
    expired: Sequence[LiveToken] = ()
    """Tokens that ended a moment ago."""
    restores: str = ""
    """The note about a revoked agent, if it can be restored here."""
    is_current: bool = True
    """Whether the broker is connected, so that its tokens are known."""

    @property
    def now(self) -> datetime:
        """The time."""
        return self.directory.clock.now()

    @property
    def waiting(self) -> list[StepUpRow]:
        """Its undecided step-ups."""
        return [one for one in self.stepups if one.open]


def standing(pen: Pen, seen: AgentContext, width: int) -> list[Row]:
    """Word its identity by tokens, its end, and its template."""
    p, now, agent, directory = pen.palette, seen.now, seen.agent, seen.directory
    soon = agent.until and 0 < (agent.until - now).total_seconds() < SOON
    rows = list[Row]()
    if agent.subject:
        rows += pen.facts("Known by", agent.subject, width, 2, p.text)[0]
    origin = directory.agents.get(agent.from_template or "")
    made = [one.name for one in directory.derived(agent.id)] if agent.template else None
    parts = ending(
        *(agent.until, now, origin.name if origin else agent.from_template, made)
    )
    for label, text in parts:
        style = p.waiting if label == "Ends" and soon else p.text
        rows += pen.facts(label, text, width, 3, style)[0]
    return rows


def state_word(agent: AgentRow, *, waiting: bool, stopped: bool) -> str:
    """Name the state of an agent.

    Args:
        agent: the agent.
        waiting: whether a step-up of it waits.
        stopped: whether everything is.

    Returns:
        ``revoked``, ``resource server``, ``template``, ``stopped``, ``waiting`` or
        ``active``.
    """
    if agent.revoked:
        return "revoked"
    if agent.resource_server or agent.template:
        return "resource server" if agent.resource_server else "template"
    if stopped:
        return "stopped"
    return "waiting" if waiting else "active"


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


def delegations(pen: Pen, agent: AgentRow, width: int) -> list[Row]:
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


def repeats(pen: Pen, seen: AgentContext, width: int) -> list[Row]:
    """List the approvals that still cover repeats, with the time left."""
    rows: list[Row] = []
    for stepup in seen.stepups:
        if not stepup.repeat or not (ends := stepup.repeats(seen.now)):
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


def facts(pen: Pen, seen: AgentContext, width: int) -> list[Row]:
    """Write everything worth knowing before a decision about an agent."""
    sections = [
        # There are some only where its next requests may be refused.
        [*_limits(pen, seen, width), *_on_trial(pen, seen, width)],
        standing(pen, seen, width),
        _may(pen, seen, width),
        _refused_scopes(pen, seen, width),
        holds(pen, seen, width, _TOKENS, "more, later", unsure=not seen.is_current),
        upstream.accounts(pen, seen.agent, width),
        [*delegations(pen, seen.agent, width), *repeats(pen, seen, width)],
        _refused(pen, seen, width),
    ]
    # Once it is revoked, how far that is comes first: nothing else is urgent.
    place = 0 if seen.agent.revoked else len(sections)
    sections.insert(place, revoking(pen, seen, width))
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
    grants = seen.directory.intake.grants(agent)
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
            use = scope_use(seen.activity, scope.name)
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
    granted = {scope.name for scope in seen.directory.intake.grants(seen.agent)}
    for use in seen.activity.scopes if seen.activity else ():
        if use.granted or use.scope in granted:
            continue
        risk = seen.directory.intake.scope(use.scope).risk
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
    for one in windows(seen.activity.limits) if seen.activity else ():
        frees = ""
        if one.frees_at is not None:
            seconds = (one.frees_at - seen.now).total_seconds()
            frees = f", some frees in {countdown(seconds)}"
        left = f"{one.rest} of {one.allows} left"
        row = pen.fact(
            "" if rows else "Limits",
            (left, p.waiting if one.left else p.danger),
            (frees, p.muted),
            (f"  {one.id}", p.text),
        )
        rows.append(pen.cut(row, width))
    return rows


def _on_trial(pen: Pen, seen: AgentContext, width: int) -> list[Row]:
    """Write its permissions that advice removed on trial, and the trials' ends."""
    shown = seen.directory.intake.shown
    rows: list[Row] = []
    for one in seen.activity.trials if seen.activity else ():
        words = f"{one.kind.replace('_', ' ')}, until {(one.trial_ends_at or '')[:10]}"
        row = pen.fact(
            "" if rows else "Trial",
            (shown(one.scope or "everything", 60), pen.palette.waiting),
            (f"  {shown(words, 60)}", pen.palette.muted),
        )
        rows.append(pen.cut(row, width))
    return rows


def holds(
    pen: Pen,
    seen: AgentContext,
    width: int,
    most: int,
    more: str,
    *,
    unsure: bool = False,
) -> list[Row]:
    """Write live tokens with their countdowns, and those that ended just now."""
    p, live, elevated = pen.palette, seen.live, seen.elevated
    ended = [_ended(pen, token, width) for token in seen.expired[:_WAITING]]
    if not live:
        return [pen.fact("Holds", ("no live token", p.muted)), *ended]
    extra = f"{elevated} elevated" if elevated else "none elevated"
    row = pen.fact(
        "Holds",
        (plural(live, "token"), p.text),
        (f" {pen.glyphs.separator} {extra}", p.escalated if elevated else p.muted),
    )
    if unsure:
        row = (*row, (" unconfirmed", p.stale))
    rows = [row, *(_token(pen, token, seen.now, width) for token in seen.tokens[:most])]
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


def revoking(pen: Pen, seen: AgentContext, width: int) -> list[Row]:
    """Word the present effect of `r`, and the rest; or the past effect."""
    p, agent = pen.palette, seen.agent
    if agent.revoked:
        return _revoked(pen, seen, width)
    grants = seen.directory.intake.grants(agent)
    effects = consequences(agent, grants, ends(seen), seen.now)
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
                for one in seen.waiting[:_WAITING]:
                    rows.append(waits(pen, one, seen.now, width))
                if (more := len(seen.waiting) - _WAITING) > 0:
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


def ends(seen: AgentContext) -> str:
    """Word the effect of a revocation now, by the broker's numbers."""
    elevated = seen.elevated
    if seen.activity is not None:
        elevated = min(max(elevated, seen.activity.revoke.elevated), seen.live)
    kind = f" ({elevated} elevated)" if elevated else ""
    waiting = plural(len(seen.waiting), "step-up")
    flying = f", {plural(seen.calls, 'call')} in flight" if seen.calls else ""
    made = [one.name for one in seen.directory.derived(seen.agent.id)]
    below = f", {plural(len(made), 'agent')} made from it ({_first(made)})"
    ended = f"{plural(seen.live, 'token')}{kind}, {waiting}{flying}"
    return ended + (below if made else "")


def waits(pen: Pen, stepup: StepUpRow, now: datetime, width: int) -> Row:
    p = pen.palette
    left = f"{countdown(stepup.remaining(now))} left  "
    row = pen.fact("", (left, p.waiting), (pen.clip(stepup.action, 24), p.text))
    room = width - cells(row) - 2
    what = " ".join(part for part in (stepup.gist, stepup.resource) if part)
    what = pen.clip(what, room) if room > 3 else ""
    return (*row, (f"  {what}", p.muted)) if what else row
