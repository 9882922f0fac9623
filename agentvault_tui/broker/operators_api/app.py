"""The operators' application: routes and how their errors look."""

from __future__ import annotations

from itertools import chain

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from agentvault_tui.broker.authority import Authority, Sessions
from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.feed import Feed
from agentvault_tui.broker.operators_api import (
    agents,
    connections,
    files,
    limits,
    past,
    presence,
    records,
    session,
    stepups,
    team,
)
from agentvault_tui.broker.operators_api.presence import Presence, StandingInfo
from agentvault_tui.broker.operators_api.session import standing_info
from agentvault_tui.broker.operators_api.wire import (
    FaultHandler,
    error_problem,
    http_refusal,
)
from agentvault_tui.errors import AgentVaultError


def operators_app(broker: Broker, feed: Feed, sessions: Sessions) -> Starlette:
    """Return the application for the Unix socket, and for operators elsewhere.

    Args:
        broker: what answers.
        feed: the stream of events.
        sessions: who has signed in.

    Returns:
        an ASGI application.
    """
    authority = Authority(broker, sessions)

    def standing(uid: str) -> StandingInfo:
        return standing_info(authority.standing(uid))

    seats = Presence(broker.clock, feed.tell, sessions.name_of, standing)
    sessions.on_change = seats.changed
    broker.chores.append(sessions.end_due)
    return Starlette(
        routes=[
            *stepups.routes(broker, authority),
            *agents.routes(broker, authority),
            *connections.routes(broker, authority),
            *records.routes(broker, feed, seats, authority),
            *records.event_routes(broker),
            *past.routes(broker),
            *limits.routes(broker),
            *files.routes(broker, authority),
            *session.routes(sessions, authority),
            *session.people_routes(broker, authority, sessions),
            *presence.routes(broker, seats),
            *team.routes(broker, authority),
            *chain.from_iterable(
                one.operator_routes(authority) for one in broker.extensions
            ),
        ],
        middleware=[Middleware(FaultHandler, broker.ledger.expect)],
        exception_handlers={
            AgentVaultError: error_problem,
            HTTPException: http_refusal,
        },
    )
