"""``/api/agents/stepup``: what waits for a person, and the person's decision."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agentvault_tui.broker.authority import Authority, Need
from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.operators_api.wire import (
    answer,
    body_of,
    limit_of,
    listing,
    operator_of,
    text_of,
)
from agentvault_tui.broker.shapes import stepup_shape
from agentvault_tui.broker.usecases.stepup import (
    begin_approval,
    deny,
    expire_due,
    known_stepup,
)
from agentvault_tui.errors import UsageError
from agentvault_tui.model import StepUpStatus

_LATEST: Final = 50
_MOST: Final = 1000
_BEFORE: Final = 5
_MOST_BEFORE: Final = 50


def routes(broker: Broker, authority: Authority) -> list[Route]:
    """Return the routes about step-ups."""
    return [*_reading(broker), *_deciding(broker, authority)]


def _reading(broker: Broker) -> list[Route]:
    """Return the routes that list and show."""

    async def index(request: Request) -> Response:
        """List what waits, then the latest that was decided."""
        await expire_due(broker)
        limit = limit_of(request, _LATEST, _MOST)
        agent = request.query_params.get("agent")
        status = request.query_params.get("status")
        if status is not None and status not in set(StepUpStatus):
            raise UsageError(
                "unknown status", f"one of {', '.join(s.value for s in StepUpStatus)}"
            )
        known = [*broker.registry.open_stepups(), *broker.registry.decided_stepups()]
        picked = [
            stepup
            for stepup in known
            if agent in {None, stepup.agent_id} and status in {None, stepup.status}
        ]
        ends = broker.registry.ends()
        shapes = (stepup_shape(stepup, ends) for stepup in picked[:limit])
        return await listing("stepups", shapes)

    async def show(request: Request) -> Response:
        stepup = await known_stepup(broker, _id(request))
        return answer(stepup_shape(stepup, broker.registry.ends()))

    async def before(request: Request) -> Response:
        stepup = await known_stepup(broker, _id(request))
        limit = limit_of(request, _BEFORE, _MOST_BEFORE)
        found = await broker.ledger.stepups_before(stepup, limit)
        return await listing("stepups", map(stepup_shape, found))

    return [
        Route("/api/agents/stepup", index, methods=["GET"]),
        Route("/api/agents/stepup/{id}", show, methods=["GET"]),
        Route("/api/agents/stepup/{id}/before", before, methods=["GET"]),
    ]


def _deciding(broker: Broker, authority: Authority) -> list[Route]:
    """Return the route that approves or denies."""

    async def decide(request: Request) -> Response:
        """Begin to approve (202, the second factor follows), or deny."""
        body = await body_of(request, ("id", "decision", "digest", "reason"))
        who, stepup_id = operator_of(request), text_of(body, "id")
        match body.get("decision"):
            case "approve":
                operator = await authority.actor(who, Need.APPROVE, stepup_id)
                stepup = await begin_approval(
                    broker, stepup_id, text_of(body, "digest"), operator
                )
                return answer(stepup_shape(stepup, broker.registry.ends()), 202)
            case "deny":
                operator = await authority.actor(who, Need.CUT, stepup_id)
                reason = text_of(body, "reason", required=False, cap=1000)
                stepup = await deny(broker, stepup_id, reason, operator)
                return answer(stepup_shape(stepup, broker.registry.ends()))
            case _:
                raise UsageError("'decision' must be approve or deny")

    return [Route("/api/agents/stepup", decide, methods=["POST"])]


def _id(request: Request) -> str:
    return str(request.path_params["id"])
