"""Which step-ups waited at a moment, and how the latest others had ended."""

# ruff: noqa: S608 - statements are put together from constants; values are bound

from __future__ import annotations

import sqlite3
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from agentvault_tui.clock import Deadline, parse_iso
from agentvault_tui.encoder import to_json
from agentvault_tui.ledger.activity import DECISIONS
from agentvault_tui.ledger.canonical import text_or_start
from agentvault_tui.ledger.past_agents import (
    Roster,
    ends_everything,
    events_of,
    is_void,
)
from agentvault_tui.ledger.past_spans import REQUESTS, seq_at, spans
from agentvault_tui.ledger.places import time_at
from agentvault_tui.model import (
    AgentId,
    DecisionId,
    Event,
    EventType,
    Evidence,
    Money,
    Risk,
    StepUp,
    StepUpId,
    StepUpStatus,
)

_LATEST: Final = 50
"""Decided step-ups that are listed, as in `GET /api/agents/stepup`."""
_LOOK_BACK: Final = 32
"""Requests of its agent among which a decided one is looked for."""
_LATE: Final = timedelta(minutes=1)
"""How late a busy broker may record an expiry."""
_ASSUMED: Final = timedelta(minutes=5)
"""How long a request waits where its event does not say: the usual setting."""
_RESTARTED: Final = "the broker restarted; approve again"
_STEPS: Final = (
    EventType.STEPUP_REQUESTED,
    EventType.STEPUP_AUTHORIZING,
    EventType.STEPUP_NOT_APPROVED,
    EventType.STEPUP_CONFIRMED,
    EventType.STEPUP_APPROVED,
    EventType.STEPUP_DENIED,
    EventType.STEPUP_EXPIRED,
    EventType.STEPUP_CANCELLED,
    EventType.TOKEN_DELIVERED,
    EventType.TOKEN_REDEEMED,
    EventType.BROKER_STARTED,
    EventType.CLOCK_JUMP,
)
_ENDS: Final = (
    EventType.STEPUP_APPROVED,
    EventType.STEPUP_DENIED,
    EventType.STEPUP_EXPIRED,
    EventType.STEPUP_CANCELLED,
)


def stepups(
    db: sqlite3.Connection, seq: int, moment: datetime, roster: Roster
) -> tuple[tuple[StepUp, ...], list[str]]:
    """Return the open step-ups and the latest decided ones, and the gaps."""
    waiting = spans(db, seq, moment, REQUESTS, roster)
    low = min((span.low for span in waiting), default=seq)
    before = seq_at(db, parse_iso(time_at(db, low)) - _LATE, upto=low) or 1
    low = min(low, before, _decided_from(db, seq))
    story = _Story(roster)
    for event in events_of(db, _STEPS, low, seq):
        story.take(event)
    cases = list(story.cases.values())
    opened = sorted((s for s in cases if s.status.open), key=lambda s: s.requested_at)
    decided = [s for s in cases if not s.status.open]
    decided.sort(key=lambda s: s.decided_at or s.requested_at, reverse=True)
    listed = (*opened, *decided[:_LATEST])
    counted = tuple(_counted(db, step, story.first[step.id], seq) for step in listed)
    silent = sum(step.id in story.silent for step in listed)
    doubt = f"{silent} step-ups do not say when they end: five minutes are assumed."
    return counted, [doubt] if silent else []


class _Story:
    def __init__(self, roster: Roster) -> None:
        self.cases: dict[StepUpId, StepUp] = {}
        self.first: dict[StepUpId, int] = {}
        """The event that requested it."""
        self.silent: set[StepUpId] = set()
        """Step-ups whose events have no ``expires_at``."""
        self._roster = roster

    def take(self, event: Event) -> None:
        """Follow one event."""
        match event.type:
            case EventType.BROKER_STARTED:
                self._restarted()
            case EventType.CLOCK_JUMP:
                self._set_back(event)
            case EventType.STEPUP_REQUESTED:
                self._requested(event)
            case _:
                if "repeat_of" in event.detail and (
                    event.type is EventType.STEPUP_APPROVED
                ):
                    self._requested(event)  # it never waited
                step = self.cases.get(StepUpId(str(event.detail.get("stepup_id"))))
                failed = is_void(self._roster.void, event.seq)
                # What a cut ended stays so, whatever was still on its way to the disk.
                if step and step.status is not StepUpStatus.CANCELLED and not failed:
                    self.cases[step.id] = _after(step, event)

    def _requested(self, event: Event) -> None:
        step_id = StepUpId(str(event.detail.get("stepup_id")))
        if case := self.cases.get(step_id):
            self.cases[step_id] = _asked_again(case, event)
            return
        step = _begun(event, step_id)
        if is_void(self._roster.void, event.seq):
            step = _cancelled(step, "never_answered", event)
        self.cases[step_id], self.first[step_id] = step, event.seq
        if not isinstance(event.detail.get("expires_at"), str):
            self.silent.add(step_id)

    def _restarted(self) -> None:
        """Let authorizing step-ups wait again: no device flow outlives its process."""
        for step in list(self.cases.values()):
            if step.status is StepUpStatus.AUTHORIZING:
                self.cases[step.id] = replace(
                    step, status=StepUpStatus.PENDING, problem=_RESTARTED
                )

    def _set_back(self, event: Event) -> None:
        if not ends_everything(event):
            return
        for step in list(self.cases.values()):
            if step.status.open or step.status is StepUpStatus.APPROVED:
                self.cases[step.id] = _cancelled(step, "clock_set_back", event)


def _cancelled(step: StepUp, problem: str | None, event: Event) -> StepUp:
    status = StepUpStatus.CANCELLED
    return replace(step, status=status, problem=problem, decided_at=event.time)


def _begun(event: Event, step_id: StepUpId) -> StepUp:
    detail = event.detail
    parameters = detail.get("parameters")
    others, held = detail.get("other_details"), detail.get("request")
    ends = detail.get("expires_at")
    end = parse_iso(ends) if isinstance(ends, str) else event.time + _ASSUMED
    return StepUp(
        id=step_id,
        agent_id=event.agent_id or AgentId(""),
        agent_name=text_or_start(detail.get("agent")) or event.actor.name,
        scope=str(detail.get("scope") or event.action or ""),
        action=event.action or "",
        resource=event.resource,
        parameters_json=to_json(parameters if isinstance(parameters, dict) else {}),
        reason=event.reason,
        rule=event.rule or "",
        why=text_or_start(detail.get("why")),
        risk=_risk(detail),
        policy_version=text_or_start(detail.get("policy_version")),
        nonce=text_or_start(detail.get("nonce")),
        digest=text_or_start(detail.get("digest")),
        decision_id=event.decision_id or DecisionId(""),
        ttl=detail["ttl"] if isinstance(detail.get("ttl"), int) else 300,
        requested_at=event.time,
        expires=Deadline(end, 0.0, ""),
        connection=text_or_start(detail.get("connection")) or None,
        resource_indicator=text_or_start(detail.get("resource_indicator")) or None,
        authorization_details=to_json(others) if isinstance(others, list) else None,
        request_json=to_json(held) if isinstance(held, dict) else None,
        evaluation=detail.get("evaluation") is True,
        need=detail["need"] if isinstance(detail.get("need"), int) else 1,
        money=Money.read(detail.get("money")),
    )


def _asked_again(step: StepUp, event: Event) -> StepUp:
    """Return a step-up that was put before a policy that had changed."""
    detail = event.detail
    return replace(
        step,
        rule=event.rule or "",
        why=text_or_start(detail.get("why")) or step.why,
        risk=_risk(detail) if "risk" in detail else step.risk,
        policy_version=text_or_start(detail.get("policy_version")),
        nonce=text_or_start(detail.get("nonce")),
        digest=text_or_start(detail.get("digest")),
        status=StepUpStatus.PENDING,
        problem="the policy changed; look again",
    )


def _after(step: StepUp, event: Event) -> StepUp:
    match event.type:
        case EventType.STEPUP_AUTHORIZING:
            status = StepUpStatus.AUTHORIZING
            digest = text_or_start(event.detail.get("digest")) or step.digest
            step = replace(step, digest=digest)
            return replace(step, status=status, begun_at=event.time, problem=None)
        case EventType.STEPUP_NOT_APPROVED:
            step = replace(step, status=StepUpStatus.PENDING, problem=event.reason)
            ended = event.detail.get("have") == 0
            return replace(step, confirmed=()) if ended else step
        case EventType.STEPUP_CONFIRMED:
            gathered = (*step.confirmed, _evidence(event))
            step = replace(step, status=StepUpStatus.PENDING, problem=None)
            return replace(step, confirmed=gathered)
        case EventType.STEPUP_APPROVED:
            step = replace(step, status=StepUpStatus.APPROVED, problem=None)
            if "decided_by" in event.detail:
                gathered = (*step.confirmed, _evidence(event))
                step = replace(step, confirmed=gathered)
        case EventType.STEPUP_DENIED:
            step = replace(step, status=StepUpStatus.DENIED, denial=event.reason)
        case EventType.STEPUP_EXPIRED:
            return replace(step, status=StepUpStatus.EXPIRED, decided_at=event.time)
        case EventType.STEPUP_CANCELLED:
            return _cancelled(step, event.reason, event)
        case EventType.TOKEN_DELIVERED:
            return replace(step, fetched_at=event.time)
        case _:
            return replace(step, status=StepUpStatus.REDEEMED, redeemed_at=event.time)
    return replace(step, decided_by=_evidence(event), decided_at=event.time)


def _evidence(event: Event) -> Evidence:
    amr, when = event.detail.get("amr"), event.detail.get("auth_time")
    return Evidence(
        event.actor.id,
        event.actor.name,
        tuple(str(method) for method in amr) if isinstance(amr, list) else (),
        parse_iso(when) if isinstance(when, str) else None,
    )


def _counted(db: sqlite3.Connection, step: StepUp, first: int, seq: int) -> StepUp:
    """Say how often the same was asked: each repetition is a decision of its own."""
    high = seq_at(db, step.decided_at, upto=seq) if step.decided_at else seq
    (count,) = db.execute(
        "SELECT max(json_extract(body, '$.detail.count')) FROM events"
        f" WHERE agent_id = ? AND type IN {DECISIONS} AND outcome = 'escalated'"
        " AND seq BETWEEN ? AND ? AND json_extract(body, '$.detail.stepup_id') = ?",
        (step.agent_id, first, high or seq, step.id),
    ).fetchone()
    return replace(step, count=count) if isinstance(count, int) else step


def _decided_from(db: sqlite3.Connection, seq: int) -> int:
    """Return the place from which the latest decided ones are complete."""
    ends = sorted(
        row[0]
        for kind in _ENDS
        for row in db.execute(
            "SELECT seq FROM events WHERE type = ? AND outcome IS NULL AND seq <= ?"
            " ORDER BY seq DESC LIMIT ?",
            (kind.value, seq, _LATEST),
        )
    )[-_LATEST:]
    return min((_first_asked(db, end) for end in ends), default=seq)


def _first_asked(db: sqlite3.Connection, end: int) -> int:
    """Return the event that began the step-up which event *end* ended."""
    agent, step_id = db.execute(
        "SELECT agent_id, json_extract(body, '$.detail.stepup_id') FROM events"
        " WHERE seq = ?",
        (end,),
    ).fetchone()
    rows = db.execute(
        "SELECT seq, json_extract(body, '$.detail.stepup_id') FROM events"
        " WHERE agent_id IS ? AND type = 'stepup.requested' AND outcome IS NULL"
        " AND seq < ? ORDER BY seq DESC LIMIT ?",
        (agent, end, _LOOK_BACK),
    )
    return min((place for place, asking in rows if asking == step_id), default=end)


def _risk(detail: dict[str, Any]) -> Risk:
    """Return the risk; a missing one counts as high."""
    try:
        return Risk(detail.get("risk", ""))
    except ValueError:
        return Risk.HIGH
