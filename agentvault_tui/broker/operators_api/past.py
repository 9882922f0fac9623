"""``/api/past``: what the broker knew at a moment, in the shapes of now.

``/api/past/activity`` is what one agent had done by then.
"""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agentvault_tui import __version__
from agentvault_tui.broker.activity import activity_then
from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.operators_api.wire import answer, integer_of, moment_of
from agentvault_tui.broker.shapes import (
    counts_shape,
    panic_shape,
    stepup_shape,
    told_of,
)
from agentvault_tui.clock import iso
from agentvault_tui.errors import UsageError
from agentvault_tui.ledger import Holding, Past, Place
from agentvault_tui.model import Agent, AgentCounts, AgentId


def routes(broker: Broker) -> list[Route]:
    """Return the routes that look back; they read the ledger and nothing else."""

    async def past(request: Request) -> Response:
        seq, moment = _when(request)
        found = await broker.ledger.past(seq=seq, moment=moment)
        # Beside the loop: with thousands of agents this takes as long as some requests.
        body = await asyncio.to_thread(_written, found, broker)
        return Response(body, media_type="application/json")

    async def activity(request: Request) -> Response:
        seq, moment = _when(request)
        agent = AgentId(request.query_params.get("agent", ""))
        return answer(await activity_then(broker, agent, seq, moment))

    return [
        Route("/api/past", past, methods=["GET"]),
        Route("/api/past/activity", activity, methods=["GET"]),
    ]


def _when(request: Request) -> tuple[int | None, datetime | None]:
    """Return the event or the moment that is asked for.

    Raises:
        UsageError: neither or both are given.
    """
    seq, moment = integer_of(request, "seq"), moment_of(request, "at")
    if (seq is None) == (moment is None):
        raise UsageError("give 'at', a time, or 'seq', an event's number")
    return seq, moment


def past_shape(past: Past, broker: Broker) -> dict[str, Any]:
    """Return the Past shape of the operators' HTTP, without its lists."""
    around = past.around
    return {
        "seq": past.place.seq,
        "time": iso(past.place.time),
        "at": iso(past.moment),
        "status": _status(past, broker),
        "minute": {
            agent: counts_shape(counts)
            for agent, counts in past.minute.items()
            if counts != AgentCounts()
        },
        "around": {
            "first": _place(around.first),
            "last": _place(around.last),
            "before": _place(around.before),
            "after": _place(around.after),
            "turn_before": _place(around.turn_before),
            "turn_after": _place(around.turn_after),
        },
    }


def _written(past: Past, broker: Broker) -> str:
    """Write the Past shape as JSON, each agent and step-up by itself.

    In a thread beside the event loop: one call that wrote all of them would keep the
    interpreter's lock to its end.
    """
    shape = past_shape(past, broker)
    agents = [json.dumps(_agent(agent, past)) for agent in past.agents]
    stepups = [json.dumps(stepup_shape(stepup)) for stepup in past.stepups]
    lists = f'"agents": [{", ".join(agents)}], "stepups": [{", ".join(stepups)}]'
    return f"{json.dumps(shape)[:-1]}, {lists}}}"


def _status(past: Past, broker: Broker) -> dict[str, Any]:
    """Return the status as the events tell it; what they do not tell is as of now."""
    return {
        "version": __version__,
        "tenant": {"issuer": broker.tenant.issuer, "kind": broker.tenant_kind},
        "ledger": {"head": past.place.seq, "hash": past.hash},
        "panic": panic_shape(past.panic),
        "agents": len(past.agents),
        "stepups_pending": sum(stepup.status.open for stepup in past.stepups),
        "warnings": list(past.unsure),
    }


def _agent(agent: Agent, past: Past) -> dict[str, Any]:
    held = past.holdings.get(agent.id, Holding())
    return told_of(
        agent,
        past.counts.get(agent.id, AgentCounts()),
        past.last_asked.get(agent.id),
        held.soonest,
        held.live,
    )


def _place(place: Place | None) -> dict[str, Any] | None:
    return None if place is None else {"seq": place.seq, "time": iso(place.time)}
