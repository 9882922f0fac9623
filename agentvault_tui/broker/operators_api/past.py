"""``/api/past``, the broker's state at a moment, and an agent's actions until now."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agentvault_tui import __version__
from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.operators_api.wire import moment_of, query_of, route
from agentvault_tui.broker.shapes import (
    panic_info,
    past_agent_info,
    shape_from,
    stepup_info,
)
from agentvault_tui.clock import iso
from agentvault_tui.errors import UsageError
from agentvault_tui.ledger import (
    REDEEMED,
    Activity,
    Count,
    EventQuery,
    Past,
    PastHolding,
    PastPlace,
)
from agentvault_tui.ledger.activity import read_activity
from agentvault_tui.model import (
    Agent,
    AgentCounts,
    AgentId,
    AgentStatus,
    Event,
    EventType,
    Outcome,
)
from agentvault_tui.operator_api import calls, history, shapes
from agentvault_tui.operator_api import requests as asks
from agentvault_tui.operator_api.codec import encode
from agentvault_tui.operator_api.limits import LimitList


def routes(broker: Broker) -> list[Route]:
    """Return the routes that look back; they read the ledger and nothing else."""
    writing = asyncio.Lock()

    async def past(request: Request) -> Response:
        """Return the broker's state at a moment or after an event."""
        seq, moment = _when(query_of(request, asks.PastQuery))
        state = await broker.ledger.past.at(seq=seq, moment=moment)
        # In one thread: with thousands of agents this takes as long as some requests,
        # and several threads would each hold the interpreter's lock for a while.
        async with writing:
            body = await asyncio.to_thread(_written, state, broker)
        return Response(body, media_type="application/json")

    async def activity(request: Request) -> history.PastActivityInfo:
        """Return the actions of one agent by then."""
        query = query_of(request, asks.PastActivityQuery)
        return await past_activity_of(broker, AgentId(query.agent), *_when(query))

    return [route(calls.PAST, past), route(calls.PAST_ACTIVITY, activity)]


def _when(query: asks.PastQuery) -> tuple[int | None, datetime | None]:
    """Return the event or the moment that is asked for; exactly one is given."""
    seq, moment = query.seq, moment_of(query.at, "at")
    if (seq is UNSET) == (moment is None):
        raise UsageError("give 'at', a time, or 'seq', an event's number")
    return None if seq is UNSET else seq, moment


def _past_info(past: Past, broker: Broker) -> history.PastInfo:
    around = past.around
    return history.PastInfo(
        seq=past.place.seq,
        time=iso(past.place.time),
        at=iso(past.moment),
        status=_status(past, broker),
        minute={
            agent: shape_from(shapes.CountsInfo, counts)
            for agent, counts in past.minute.items()
            if counts != AgentCounts()
        },
        around=history.AroundInfo(
            **{
                name: _place(getattr(around, name))
                for name in history.AroundInfo.__struct_fields__
            }
        ),
    )


def _written(past: Past, broker: Broker) -> bytes:
    """Encode the past state as JSON, each agent and step-up by itself.

    It runs in a thread: one call for all would hold the interpreter's lock.
    """
    agents = b",".join([encode(_agent(agent, past)) for agent in past.agents])
    stepups = b",".join([encode(stepup_info(stepup)) for stepup in past.stepups])
    lists = b'"agents":[%b],"stepups":[%b]' % (agents, stepups)
    return b"%b,%b}" % (encode(_past_info(past, broker))[:-1], lists)


def _status(past: Past, broker: Broker) -> shapes.StatusInfo:
    """Return the status by the events."""
    return shapes.StatusInfo(
        version=__version__,
        tenant=shapes.TenantInfo(
            issuer=broker.reaching.tenant.issuer, kind=broker.reaching.kind
        ),
        ledger=shapes.LedgerInfo(head=past.place.seq, hash=past.hash),
        panic=panic_info(past.panic),
        agents=len(past.agents),
        stepups_pending=sum(stepup.status.open for stepup in past.stepups),
        warnings=tuple(past.unsure),
    )


def _agent(agent: Agent, past: Past) -> shapes.PastAgentInfo:
    held = past.holdings.get(agent.id, PastHolding())
    return past_agent_info(
        agent,
        past.counts.get(agent.id, AgentCounts()),
        past.last_asked.get(agent.id),
        held.soonest,
        held.live,
    )


def _place(place: PastPlace | None) -> history.PlaceInfo | None:
    return (
        None
        if place is None
        else history.PlaceInfo(seq=place.seq, time=iso(place.time))
    )


QUARTERS: Final = 96
"""A day and night in quarters of an hour; the last one is still going on."""
_QUARTER: Final = timedelta(minutes=15)
_AGAIN: Final = 20
"""Events read of repeated revocations of one agent."""


async def activity_of(
    broker: Broker, agent: Agent, near: LimitList
) -> history.ActivityInfo:
    """Read *agent*'s actions, and the effect of its revocation, possible or past.

    *near* are the limits that it nearly reached; see `near_the_end`.
    """
    start = _first_quarter(broker.clock.now())
    activity = await broker.ledger.read(read_activity, agent.id, start)
    return history.ActivityInfo(
        agent_id=agent.id,
        head=broker.ledger.head.seq,
        scopes=_scopes(agent, activity),
        denials=_denials(activity.reasons),
        quarters=_quarters(activity.quarters, start),
        revoke=_forecast(broker, agent),
        revoked=await _was_cut(broker, agent),
        limits=near,
        trials=tuple(broker.extensions.trials_of(agent.id)),
    )


async def past_activity_of(
    broker: Broker, agent_id: AgentId, seq: int | None, moment: datetime | None
) -> history.PastActivityInfo:
    """Read an agent's actions by a moment, from its events alone."""
    then = await broker.ledger.past.activity(
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


def _scopes(agent: Agent, activity: Activity) -> tuple[history.ScopeUseInfo, ...]:
    """Return granted scopes, then others that were asked for."""
    counts: dict[str, dict[str, Count]] = defaultdict(dict)
    for count in activity.scopes:
        counts[count.value][count.outcome] = count
    unlisted = sorted(set(counts) - set(agent.scopes))
    return tuple(
        _use(scope, scope in agent.scopes, counts[scope])
        for scope in (*agent.scopes, *unlisted)
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


def _quarters(counts: tuple[Count, ...], start: datetime) -> history.QuartersInfo:
    """Return one number a quarter for each outcome, the oldest first."""
    places = {iso(start + n * _QUARTER)[:16]: n for n in range(QUARTERS)}
    series = {outcome.value: [0] * QUARTERS for outcome in Outcome}
    for count in counts:
        # A clock that was set back leaves quarters that have yet to come.
        if count.value in places and count.outcome in series:
            series[count.outcome][places[count.value]] = count.events
    return history.QuartersInfo(
        start=iso(start),
        seconds=int(_QUARTER.total_seconds()),
        **{outcome: tuple(numbers) for outcome, numbers in series.items()},
    )


async def _was_cut(broker: Broker, agent: Agent) -> history.RevokedInfo | None:
    """Return the effect of the active revocation, its operator and reason."""
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


def _forecast(broker: Broker, agent: Agent) -> history.RevokeForecast:
    held = broker.registry.held(agent.id)
    waiting = broker.stepups.open(agent.id)
    return history.RevokeForecast(
        tokens=len(held), elevated=held.elevated, stepups=len(waiting)
    )
