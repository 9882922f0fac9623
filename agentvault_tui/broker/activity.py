"""One agent's activity as an operator reads it: uses, refusals, quarters, the cut."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from agentvault_tui.broker.core import Broker
from agentvault_tui.clock import iso
from agentvault_tui.ledger import REDEEMED, Activity, Count, EventQuery
from agentvault_tui.model import (
    Agent,
    AgentId,
    AgentStatus,
    Event,
    EventType,
    Outcome,
)
from agentvault_tui.operator_api import history
from agentvault_tui.operator_api.limits import LimitList

QUARTERS: Final = 96
"""A day and night in quarters of an hour; the last one is still going on."""
_QUARTER: Final = timedelta(minutes=15)
_AGAIN: Final = 20
"""Events read of repeated revocations of one agent."""


async def activity_of(
    broker: Broker, agent: Agent, near: LimitList
) -> history.ActivityInfo:
    """Read what *agent* did, and what revoking it would cut now or did cut.

    *near* are the limits that it nearly reached; see `near_the_end`.
    """
    start = _first_quarter(broker.clock.now())
    found = await broker.ledger.activity(agent.id, start)
    return history.ActivityInfo(
        agent_id=agent.id,
        head=broker.ledger.head.seq,
        scopes=_scopes(agent, found),
        denials=_denials(found.reasons),
        quarters=_quarters(found.quarters, start),
        revoke=_cut(broker, agent),
        revoked=await _was_cut(broker, agent),
        limits=near,
        trials=tuple(broker.trials(agent.id)),
    )


async def past_activity_of(
    broker: Broker, agent_id: AgentId, seq: int | None, moment: datetime | None
) -> history.PastActivityInfo:
    """Read what an agent had done by a moment, from its events alone."""
    then = await broker.ledger.past_activity(
        agent_id, _first_quarter, seq=seq, moment=moment
    )
    return history.PastActivityInfo(
        agent_id=agent_id,
        head=then.seq,
        whole=then.whole,
        scopes=_scopes(then.agent, then.activity),
        denials=_denials(then.activity.reasons),
        quarters=_quarters(then.activity.quarters, _first_quarter(then.moment)),
    )


def _first_quarter(now: datetime) -> datetime:
    started = now.replace(minute=now.minute // 15 * 15, second=0, microsecond=0)
    return started - (QUARTERS - 1) * _QUARTER


def _scopes(agent: Agent, found: Activity) -> tuple[history.ScopeUseInfo, ...]:
    """Return granted scopes, then others that were asked for."""
    counts: dict[str, dict[str, Count]] = defaultdict(dict)
    for count in found.scopes:
        counts[count.value][count.outcome] = count
    asked = sorted(set(counts) - set(agent.scopes))
    return tuple(
        _use(scope, scope in agent.scopes, counts[scope])
        for scope in (*agent.scopes, *asked)
    )


def _use(scope: str, granted: bool, counts: dict[str, Count]) -> history.ScopeUseInfo:
    """Return how a scope was asked for, and used: by policy's yes, or when redeemed."""
    used = [counts[word] for word in (Outcome.ALLOWED, REDEEMED) if word in counts]
    words = (*(outcome.value for outcome in Outcome), REDEEMED)
    return history.ScopeUseInfo(
        scope=scope,
        granted=granted,
        **{word: counts[word].events if word in counts else 0 for word in words},
        uses=sum(count.events for count in used),
        last_used_at=_latest(used),
        last_asked_at=_latest(counts.values()),
    )


def _latest(counts: Iterable[Count]) -> str | None:
    last = max((count.last for count in counts), default=None)
    return iso(last) if last else None


def _denials(reasons: tuple[Count, ...]) -> tuple[history.DenialsInfo, ...]:
    ordered = sorted(reasons, key=lambda count: (-count.events, count.value))
    return tuple(
        history.DenialsInfo(reason=one.value, count=one.events, last_at=iso(one.last))
        for one in ordered
    )


def _quarters(found: tuple[Count, ...], start: datetime) -> history.QuartersInfo:
    """Return one number a quarter for each outcome, the oldest first."""
    places = {iso(start + n * _QUARTER)[:16]: n for n in range(QUARTERS)}
    series = {outcome.value: [0] * QUARTERS for outcome in Outcome}
    for count in found:
        # A clock that was set back leaves quarters that have yet to come.
        if count.value in places and count.outcome in series:
            series[count.outcome][places[count.value]] = count.events
    return history.QuartersInfo(
        start=iso(start),
        seconds=int(_QUARTER.total_seconds()),
        **{outcome: tuple(numbers) for outcome, numbers in series.items()},
    )


async def _was_cut(broker: Broker, agent: Agent) -> history.RevokedInfo | None:
    """Return what the revocation in force ended, by whom and why."""
    if agent.status is not AgentStatus.REVOKED:
        return None
    query = EventQuery(agent=agent.id, type=EventType.AGENT_REVOKED, limit=_AGAIN)
    events = (await broker.ledger.events(query)).events
    since = agent.revoked_at
    counted = [one for one in events if since is None or one.time >= since]
    if not (counted := counted or list(events[:1])):
        return None
    first = counted[-1]
    return history.RevokedInfo(
        at=iso(first.time),
        by=first.actor.name,
        reason=first.reason,
        tokens=sum(_detail(one, "tokens_revoked") for one in counted),
        stepups=sum(_detail(one, "stepups_cancelled") for one in counted),
    )


def _detail(event: Event, name: str) -> int:
    value = event.detail.get(name)
    return value if isinstance(value, int) else 0


def _cut(broker: Broker, agent: Agent) -> history.RevokeForecast:
    held = broker.registry.held(agent.id)
    waiting = broker.stepups.open(agent.id)
    return history.RevokeForecast(
        tokens=len(held), elevated=held.elevated, stepups=len(waiting)
    )
