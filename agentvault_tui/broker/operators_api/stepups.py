"""``/api/agents/stepup``: waiting requests, and the person's decision."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from msgspec import structs
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agentvault_tui.broker.authority import Authority, Need, Sessions
from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.cuts import Kept
from agentvault_tui.broker.operators_api.wire import (
    answer,
    body_of,
    listing,
    operator_of,
    query_of,
    refuse_grant,
    route,
    word_of,
)
from agentvault_tui.broker.shapes import recorded_at, shape_from, stepup_info
from agentvault_tui.broker.usecases.held import held_content, held_documents
from agentvault_tui.broker.usecases.stepup import (
    begin_approval,
    confirm_here,
    device_code,
    key_challenge,
    known_stepup,
)
from agentvault_tui.broker.usecases.stepup_end import deny, expire_due
from agentvault_tui.errors import LedgerError, SealedError
from agentvault_tui.ledger.state import stepups_before
from agentvault_tui.model import Actor, DeviceCode, StepUp, StepUpStatus
from agentvault_tui.operator_api import calls, ending
from agentvault_tui.operator_api import requests as asks
from agentvault_tui.operator_api.stepups import StepUpInfo


def routes(broker: Broker, authority: Authority, sessions: Sessions) -> list[Route]:
    """Return the routes about step-ups."""
    return [*_reading(broker), *_deciding(broker, authority, sessions)]


def own_device(broker: Broker, who: Actor) -> Callable[[StepUp], DeviceCode | None]:
    """Return a function that has the code which a seat has of a step-up, if any."""

    def of(stepup: StepUp) -> DeviceCode | None:
        flow = broker.stepups.flow_of(stepup.id, who.id) if stepup.status.open else None
        return device_code(flow) if flow else None

    return of


def _reading(broker: Broker) -> list[Route]:
    async def index(request: Request) -> Response:
        """List the waiting ones, then the latest decided."""
        await expire_due(broker)
        query = query_of(request, asks.StepUpQuery)
        status = word_of(StepUpStatus, query.status, "status")
        stepups = [*broker.stepups.open(), *broker.stepups.decided()]
        picked = [
            stepup
            for stepup in stepups
            if query.agent in {None, stepup.agent_id}
            and status in {None, stepup.status}
        ]
        ends = broker.registry.ends()
        own = own_device(broker, operator_of(request))
        infos = (stepup_info(one, ends, own(one)) for one in picked[: query.limit])
        return await listing(request, "stepups", infos)

    async def show(request: Request) -> StepUpInfo:
        """Return one step-up, of any age; for an open held call with its content."""
        query = query_of(request, asks.StepUpShowQuery)
        stepup = await known_stepup(broker, request.path_params["id"])
        own = own_device(broker, operator_of(request))
        info = stepup_info(stepup, broker.registry.ends(), own(stepup))
        if query.body and info.request is not None and stepup.status.open:
            with suppress(SealedError, LedgerError):  # another broker has it
                info.request.body = await held_content(broker, stepup)
                info.request.references = tuple(
                    structs.replace(document, content=content)
                    for document, content in await held_documents(broker, stepup)
                )
        return info

    async def before(request: Request) -> Response:
        """Return the decisions before about the same agent and action."""
        stepup = await known_stepup(broker, request.path_params["id"])
        limit = query_of(request, asks.BeforeQuery).limit
        earlier = await broker.ledger.read(stepups_before, stepup, limit)
        return await listing(request, "stepups", map(stepup_info, earlier))

    return [
        route(calls.STEPUPS, index),
        route(calls.STEPUP, show),
        route(calls.BEFORE, before),
    ]


def _deciding(broker: Broker, authority: Authority, sessions: Sessions) -> list[Route]:
    async def begin(who: Actor, body: asks.DecisionRequest | asks.KeyRequest) -> StepUp:
        operator = await authority.actor(who, Need.APPROVE, body.id)
        repeat = None if body.repeat is None else body.repeat.repeat
        stepup = await begin_approval(
            broker, body.id, body.digest, operator, repeat, seat=who.id
        )
        authority.renew_once_approved(who.id, stepup)
        return stepup

    async def challenge(request: Request) -> Response:
        """Begin to approve, and return the challenge for a security key."""
        body, who = await body_of(request, asks.KeyRequest), operator_of(request)
        if (refusal := refuse_grant(request)) is not None:
            return refusal
        await begin(who, body)
        return answer(await key_challenge(broker, body.id, sessions.desk(who.id)))

    async def decide(request: Request) -> Response:
        """Begin to approve (202, the second factor follows), or deny."""
        body = await body_of(request, asks.DecisionRequest)
        who, ends = operator_of(request), broker.registry.ends
        if body.decision == "approve":
            if (refusal := refuse_grant(request)) is not None:
                return refusal
            stepup = await begin(who, body)
            if body.factor is not None:
                signed_in = sessions.desk(who.id)
                await confirm_here(broker, body.id, signed_in, body.factor)
            device = own_device(broker, who)(stepup)
            return answer(_decision(stepup_info(stepup, ends(), device), broker), 202)
        operator = await authority.actor(who, Need.REVOKE, body.id)
        stepup, durability = await deny(broker, body.id, body.reason, operator)
        return answer(_decision(stepup_info(stepup, ends()), broker, durability))

    return [route(calls.DECIDE, decide), route(calls.KEY_CHALLENGE, challenge)]


def _decision(
    info: StepUpInfo, broker: Broker, durability: Kept = Kept.LEDGER
) -> ending.DecisionAnswer:
    recorded = recorded_at(durability, broker.team.brokers)
    return shape_from(ending.DecisionAnswer, info, **recorded)
