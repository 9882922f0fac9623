"""``/api/past``: what the broker knew at a moment, in the shapes of now."""

from __future__ import annotations

import asyncio
from datetime import datetime

from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agentvault_tui import __version__
from agentvault_tui.broker.activity import past_activity_of
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
from agentvault_tui.ledger import Past, PastHolding, PastPlace
from agentvault_tui.model import Agent, AgentCounts, AgentId
from agentvault_tui.operator_api import calls, history, shapes
from agentvault_tui.operator_api import requests as asks
from agentvault_tui.operator_api.codec import encode


def routes(broker: Broker) -> list[Route]:
    """Return the routes that look back; they read the ledger and nothing else."""

    async def past(request: Request) -> Response:
        """Return what the broker knew at a moment or after an event."""
        seq, moment = _when(query_of(request, asks.PastQuery))
        found = await broker.ledger.past(seq=seq, moment=moment)
        # Beside the loop: with thousands of agents this takes as long as some requests.
        body = await asyncio.to_thread(_written, found, broker)
        return Response(body, media_type="application/json")

    async def activity(request: Request) -> history.PastActivityInfo:
        """Return what one agent had done by then."""
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
    """Write what was known as JSON, each agent and step-up by itself.

    It runs in a thread: one call for all would hold the interpreter's lock.
    """
    agents = b",".join([encode(_agent(agent, past)) for agent in past.agents])
    stepups = b",".join([encode(stepup_info(stepup)) for stepup in past.stepups])
    lists = b'"agents":[%b],"stepups":[%b]' % (agents, stepups)
    return b"%b,%b}" % (encode(_past_info(past, broker))[:-1], lists)


def _status(past: Past, broker: Broker) -> shapes.StatusInfo:
    """Return the status as the events tell it."""
    return shapes.StatusInfo(
        version=__version__,
        tenant=shapes.TenantInfo(issuer=broker.tenant.issuer, kind=broker.tenant_kind),
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
