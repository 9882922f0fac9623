"""Words agents, step-ups and events as whole sentences, for screen readers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Final

from agentvault_tui.console.draw.agent import context
from agentvault_tui.console.state.folds import Fold
from agentvault_tui.console.state.mirror import Mirror
from agentvault_tui.console.state.presence import OperatorRow
from agentvault_tui.presenters import agent as agent_words
from agentvault_tui.presenters import event_words, revocations, theme
from agentvault_tui.presenters.activity import ActivityRow
from agentvault_tui.presenters.glyphs import SPOKEN
from agentvault_tui.presenters.lines import Pen, Row
from agentvault_tui.presenters.moments import clock_time, countdown, plural, size
from agentvault_tui.presenters.records import (
    AgentRow,
    CallRow,
    EventRow,
    StepUpRow,
    TreeRow,
)
from agentvault_tui.presenters.stepup_rows import StepUpFacts, whole
from agentvault_tui.presenters.stepups import (
    answered,
    cause,
    handed_out,
    no_limits,
    stages_of,
    subject,
    takes_back,
)
from agentvault_tui.qr import on_loopback, tunnel

if TYPE_CHECKING:
    from agentvault_tui.console.desk import Desk  # it loads Textual

PEN: Final = Pen(theme.palette("mono"), SPOKEN)
WIDTH: Final = 78
"""Cells of lines for rows."""


def written(rows: Iterable[Row]) -> list[str]:
    """Write rows as lines of text."""
    lines = ("".join(text for text, _ in row).rstrip() for row in rows)
    return [f"  {line}" for line in lines if line]


def of_event(mirror: Mirror, event: EventRow) -> str:
    """Word an event: time, actor, its outcome word, its subject, and the reason."""
    who = mirror.agent_name(event.agent_id) if event.agent_id else event.actor.name
    on = event_words.place(event)
    what = f"{event_words.deed(event)} on {on}" if on else event_words.deed(event)
    by = f" by {event.actor.name}" if event.actor.name != who else ""
    because = event_words.why(mirror, event)
    tail = f": {because}." if because else "."
    return f"{clock_time(event.time)} {who} {event.word} {what}{by}{tail}"


def of_row(mirror: Mirror, fold: Fold) -> str:
    """Word a row of the audit: the decision, and its present state."""
    sentence, state = of_event(mirror, fold.head), fold.state
    if state is fold.head:
        return sentence
    because = event_words.why(mirror, state)
    came = f"{state.word} {clock_time(state.time)}"
    return f"{sentence} {came}: {because}." if because else f"{sentence} {came}."


def of_stepup(row: StepUpRow, now: datetime) -> str:
    """Word the state of a request, and the command that goes on from there."""
    mark, name = row.fingerprint, kind(row)
    match row.status:
        case "pending" if row.problem:
            return (
                f"{name} {mark}: {row.problem}. It is waiting again; "
                f"approve {mark} gives a new code."
            )
        case "pending":
            left = countdown(row.remaining(now))
            limits = f"{no_limits(row)} " if row.unlimited else ""
            return (
                f"{limits}{name.upper()} {mark} waiting: {_wants(row)}"
                f", risk {row.risk}. It ends in {left}. Type: show {mark}"
            )
        case "authorizing":
            return f"{name} {mark}: verifying the second factor at the tenant."
        case "applied":
            return f"{name} {mark}: applied{_by(row)}."
        case "approved":
            unused = f"{stages_of(row).unused.capitalize()}."
            text = takes_back(row) if row.connection else unused
            return f"{name} {mark}: approved{_by(row)}. {text}{_repeats(row, now)}"
        case "redeemed":
            text = f"{stages_of(row).used}. {handed_out(row)}{_repeats(row, now)}"
            return f"{name} {mark}: approved{_by(row)}, {text}"
        case "denied":
            text = f" {answered(row)}: {row.denial}" if row.denial else ""
            return f"{name} {mark}: denied{_by(row)}.{text}"
        case "expired":
            return f"{name} {mark}: expired. Nobody decided, which counts as no."
    return f"{name} {mark}: cancelled, because {cause(row)}."


def kind(row: StepUpRow) -> str:
    return "Change" if row.is_change else "Step-up"


def _wants(row: StepUpRow) -> str:
    what = f"asks for a {subject(row)}" if row.is_change else f"wants {subject(row)}"
    return f"{row.agent_name} {what}"


def _repeats(row: StepUpRow, now: datetime) -> str:
    """Word for how many more, and how long, it replaces a person."""
    if row.repeat is None or not (ends := row.repeats(now)):
        return ""
    return (
        f" For {countdown(ends)} up to {row.repeat.left} more like it need no person; "
        f"deny {row.fingerprint} ends that."
    )


def gist(row: StepUpRow) -> str:
    """Word a request in a line: its mark, its agent, and its wish."""
    return f"{kind(row)} {row.fingerprint}: {_wants(row)}, risk {row.risk}."


def waited(row: StepUpRow, then: datetime) -> str:
    """Word a request that waited at a moment of the past."""
    left = countdown(row.remaining(then))
    return f"{gist(row)} It was {row.state}, and would have ended in {left}."


def of_device(row: StepUpRow, now: datetime, desk: Desk) -> Iterator[str]:
    """Word the link and the code to enter there (RFC 8628 section 3.3)."""
    if row.device is None:
        return
    link, code = row.device.verification_uri, row.device.user_code
    left = countdown((row.device.expires_at - now).total_seconds())
    local = on_loopback(link)
    if local and (line := tunnel(link, desk.ssh)):
        yield f"Where your browser is, run {line}"
    yield f"On {'this machine' if local else 'another device'} open {link}"
    yield f"and enter {code}  (it ends in {left})."
    if local:
        yield f"Or in another terminal: {desk.activate} {code}{desk.user}"
    yield (
        f"The page must show {subject(row)}, fingerprint {row.fingerprint}. "
        "If it shows anything else, cancel there."
    )
    if row.repeat is not None:
        yield f"It must also say Not once: {row.repeat.words}."


def facts(stepup: StepUpFacts) -> Iterator[str]:
    """Word all of a request: trusted facts first, the agent's own words last."""
    row, now = stepup.row, stepup.now
    left = f", ends in {countdown(row.remaining(now))}" if row.open else ""
    yield f"{kind(row)} {row.fingerprint}, {row.state}{left}"
    rows, _ = whole(stepup, PEN, WIDTH)
    yield from written(rows)


def of_operator(row: OperatorRow, stepups: Mapping[str, StepUpRow]) -> str:
    """Word the other operators here, and their open screens."""
    if not row.looking_at:
        face = {"console": "at a console", "plain": "at a plain console"}
        return f"{row.title} is here, {face.get(row.face, 'listening to the events')}."
    stepup = stepups.get(row.looking_at)
    return (
        f"{row.title} looks at step-up {stepup.fingerprint if stepup else 'unknown'}."
    )


def of_call(row: CallRow, now: datetime) -> str:
    """Word a call through the gateway, and its progress."""
    state = f"held for step-up {row.stepup_id}" if row.held else row.state
    status = f", status {row.status}" if row.status else ""
    age = max((now - row.started_at).total_seconds(), 0.0)
    return (
        f"{row.id} of {row.agent_name}: {row.service} {row.request}, {state}{status}, "
        f"{countdown(age)}, {size(row.bytes_in)} in, {size(row.bytes_out)} out."
    )


def of_delegated(row: TreeRow, now: datetime) -> str:
    """Word a token of a delegation tree: holder, scopes, tokens below it."""
    held = plural(row.tokens, "token")
    what = " ".join(part for part in (row.scope, row.resource) if part)
    left = countdown((row.expires_at - now).total_seconds())
    below = f", {plural(row.below, 'token')} below" if row.below else ""
    place = f"delegated, level {row.depth}: " if row.depth else ""
    return f"{place}{row.agent.name} holds {held} for {what}{below}, ends in {left}."


def agent_line(mirror: Mirror, agent: AgentRow) -> str:
    """Word state, owner, tokens and counts of an agent in one sentence."""
    counts = mirror.counts(agent.id)
    stopped = mirror.status.panic.on
    state = agent_words.state_word(agent, waiting=False, stopped=stopped)
    state = state.upper() if state in {"revoked", "stopped"} else state
    soonest = mirror.soonest(agent.id)
    now = mirror.clock.now()
    ends = f", the next ends in {countdown(soonest.remaining(now))}" if soonest else ""
    return (
        f"{agent.name}, {state}, {agent.id}, owner {agent.owner}: "
        f"{plural(mirror.live_tokens(agent.id), 'live token')}{ends}; "
        f"{counts.allowed:,} allowed, {counts.denied:,} denied, "
        f"{len(mirror.open_stepups(agent.id)):,} waiting."
    )


def agent_facts(
    mirror: Mirror, agent: AgentRow, did: ActivityRow | None
) -> Iterator[str]:
    """Word an agent's permissions and actions, and the effect of a revocation."""
    yield agent_line(mirror, agent)
    if agent.purpose:
        yield f"  Purpose: {agent.purpose}"
    yield from written(agent_words.facts(PEN, context(mirror, agent, did), WIDTH))


def cuts(mirror: Mirror, agent: AgentRow) -> str:
    """Word the effect of revoking an agent now, the rest, and its end."""
    here = agent_words.ends(context(mirror, agent))
    now, separated = mirror.clock.now(), mirror.status.stale is True
    effects = revocations.consequences(
        agent, mirror.intake.grants(agent), here, now, separated=separated
    )
    return " ".join(revocations.forecast(effects))


def status(mirror: Mirror) -> Iterator[str]:
    """Word the state of link, tenant, ledger, agents and panic."""
    info, link = mirror.status, mirror.link
    yield f"The link is {link.state}{f': {link.reason}' if link.reason else ''}."
    if not mirror.loaded:
        yield "Nothing was read yet."
        return
    answers = "answers" if info.tenant.is_reachable else "DOES NOT ANSWER"
    yield f"The tenant {info.tenant.host or 'is not known'} {answers}."
    cannot = "DOES NOT HOLD" if info.ledger.fault else "CANNOT BE WRITTEN"
    can = (
        "can be written" if info.ledger.is_writable else f"{cannot}: nothing is granted"
    )
    yield f"The ledger ends at event {mirror.last_seq:,} and {can}."
    revoked = len(mirror.revoked)
    waiting = plural(len(mirror.open_stepups()), "step-up")
    pace = mirror.decisions()
    yield (
        f"{mirror.population()}, {revoked:,} revoked; {waiting} "
        f"waiting; {plural(pace, 'decision')} in the last minute."
    )
    if info.panic.on:
        yield f"PANIC: everything is stopped,{info.panic.cause}"
    else:
        yield "The panic switch is off."
    yield from (*mirror.warnings.values(), *info.warnings)


def _by(row: StepUpRow) -> str:
    if not row.deciders:
        return ""
    proof = f" ({row.factors})" if row.factors else ""
    when = f" at {clock_time(row.decided_at)}" if row.decided_at else ""
    return f" by {row.decided_name}{proof}{when}"
