"""The operators' application: routes and how their errors look."""

from __future__ import annotations

from itertools import chain

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agentvault_tui.broker.authority import Authority, Sessions
from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.feed import Feed
from agentvault_tui.broker.operators_api import (
    agents,
    changes,
    connections,
    files,
    limits,
    past,
    presence,
    records,
    session,
    stepups,
)
from agentvault_tui.broker.operators_api.changes import Loosening
from agentvault_tui.broker.operators_api.idle import IdleRenewal
from agentvault_tui.broker.operators_api.long_work import AnswerTurns
from agentvault_tui.broker.operators_api.presence import Presence
from agentvault_tui.broker.operators_api.wire import (
    FaultHandler,
    StaleMarker,
    body_of,
    error_problem,
    guarded,
    http_refusal,
    route,
)
from agentvault_tui.broker.usecases.changes import Wanted
from agentvault_tui.errors import AgentVaultError, UsageError
from agentvault_tui.model import Actor
from agentvault_tui.operator_api import access, calls
from agentvault_tui.operator_api import requests as asks


def operators_app(broker: Broker, feed: Feed, sessions: Sessions) -> Starlette:
    """Return the application for the Unix socket, and for operators elsewhere.

    Args:
        broker: the broker.
        feed: the stream of events.
        sessions: who has signed in.

    Returns:
        an ASGI application.
    """
    authority = Authority(broker, sessions)
    seats = Presence(broker.clock, feed.tell, authority.standing)
    sessions.on_change = seats.changed
    turns = AnswerTurns(broker.admitting.answers)
    broker.extensions.chores.append(sessions.end_due)
    served = [
        *stepups.routes(broker, authority, sessions),
        *agents.routes(broker, authority),
        *connections.routes(broker, authority),
        *records.routes(broker, feed, seats, authority),
        *records.event_routes(broker),
        *past.routes(broker),
        *limits.routes(broker),
        *files.routes(broker, authority),
        *session.routes(sessions, authority),
        *session.people_routes(broker, authority, sessions),
        session.keys_route(authority),
        *presence.routes(broker, seats),
        _team_route(broker, authority),
        *changes.routes(broker, authority),
        *chain.from_iterable(
            one.operator_routes(authority) for one in broker.extensions.rooms
        ),
    ]
    return Starlette(
        routes=[guarded(one, authority, turns) for one in served],
        middleware=[
            Middleware(IdleRenewal, sessions.used),
            Middleware(FaultHandler, broker.ledger.decisions.expect),
            Middleware(StaleMarker, lambda: broker.ledger.store_problem is not None),
        ],
        exception_handlers={
            AgentVaultError: error_problem,
            HTTPException: http_refusal,
        },
    )


def _team_route(broker: Broker, authority: Authority) -> Route:
    async def do_make(
        body: asks.TeamKeyRequest, actor: Actor, _: object
    ) -> access.TeamKeyInfo:
        """Make a new team key, and name the brokers that lack it."""
        if broker.team.key is None:
            raise UsageError(
                "this broker has a store of its own",
                "stop it, and make the team's key then: docs/team.md",
            )
        made = await broker.team.key.make(actor, lost=body.lost, by=broker.record)
        team = broker.team.brokers
        members = (one for one in team.members if one.id != team.id)
        return access.TeamKeyInfo(
            key=made.key,
            before=made.before or None,
            missing=tuple(one.id for one in members if one.beat.key != made.key),
        )

    async def make(request: Request) -> Response:
        """Make the team's first key, or another.

        Raises:
            UsageError: this broker is of no team.
        """
        body = await body_of(request, asks.TeamKeyRequest)
        summary = "give the team another key"
        wanted = Wanted(("team",), summary, "the team's key", ("team key",))
        return await making.settle(request, body, wanted)

    making = Loosening(authority, calls.TEAM_KEY, asks.TeamKeyRequest, do_make)
    return route(calls.TEAM_KEY, make)
