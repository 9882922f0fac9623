"""The operators' application: routes and how their errors look."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException

from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.feed import Feed
from agentvault_tui.broker.operators_api import (
    agents,
    evidence,
    past,
    records,
    session,
    stepups,
)
from agentvault_tui.broker.operators_api.wire import foreseen, http_refusal
from agentvault_tui.errors import AgentVaultError


def operators_app(broker: Broker, feed: Feed) -> Starlette:
    """Return the application for the Unix socket."""
    return Starlette(
        routes=[
            *stepups.routes(broker),
            *agents.routes(broker),
            *records.routes(broker, feed),
            *evidence.routes(broker),
            *past.routes(broker),
            *session.routes(broker),
        ],
        exception_handlers={
            AgentVaultError: foreseen,
            HTTPException: http_refusal,
        },
    )
