"""``/api/connections``: accounts at providers, connected for agents and taken away."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agentvault_tui.broker.authority import Authority, Need
from agentvault_tui.broker.connecting import Consent, Flow, Wanted
from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.operators_api.wire import (
    answer,
    body_of,
    listing,
    operator_of,
    strings_of,
    text_of,
)
from agentvault_tui.broker.shapes import account_shape
from agentvault_tui.broker.usecases.connect import begin, proceed
from agentvault_tui.broker.usecases.disconnect import Removed, disconnect
from agentvault_tui.clock import iso
from agentvault_tui.errors import UsageError
from agentvault_tui.model import Account


def routes(broker: Broker, authority: Authority) -> list[Route]:
    """Return the routes about connected accounts."""
    return [*_known(broker, authority), *_connecting(broker, authority)]


def _known(broker: Broker, authority: Authority) -> list[Route]:
    """Return the routes that list accounts and take them away."""

    async def index(request: Request) -> Response:
        accounts, wanted = broker.registry.accounts, request.query_params.get("agent")
        listed = (
            accounts.all()
            if wanted is None
            else accounts.of(broker.registry.agent(wanted).id)
        )
        shapes = (_account(broker, one) for one in listed)
        return await listing("connections", shapes)

    async def remove(request: Request) -> Response:
        """Take an account away; a shared one only when that is asked for."""
        body = await body_of(request, ("agent_id", "connection", "shared"))
        agent_id = text_of(body, "agent_id")
        connection = text_of(body, "connection", cap=128)
        about = f"{agent_id} connection:{connection}"
        operator = await authority.actor(operator_of(request), Need.CUT, about)
        shared = body.get("shared", False)
        if not isinstance(shared, bool):
            raise UsageError("'shared' must be true or false")
        removed = await disconnect(
            broker, agent_id, connection, operator, shared=shared
        )
        return answer(_removed(removed))

    return [
        Route("/api/connections", index, methods=["GET"]),
        Route("/api/connections/remove", remove, methods=["POST"]),
    ]


def _connecting(broker: Broker, authority: Authority) -> list[Route]:
    """Return the routes of a connection that is being made."""

    async def start(request: Request) -> Response:
        """Begin to connect an account: a page for a browser comes back."""
        known = ("agent_id", "connection", "scopes", "redirect_uri")
        body = await body_of(request, known)
        agent_id = text_of(body, "agent_id")
        await authority.actor(operator_of(request), Need.GIVE, agent_id)
        wanted = Wanted(
            agent_id=broker.registry.agent(agent_id).id,
            connection=text_of(body, "connection", cap=128),
            scopes=strings_of(body, "scopes"),
            redirect_uri=text_of(body, "redirect_uri", cap=200),
        )
        return answer(_flow(await begin(broker, wanted)), 201)

    async def go_on(request: Request) -> Response:
        """Take where the browser ended: another page, or the connected account."""
        body = await body_of(request, ("id", "address"))
        flow_id, address = text_of(body, "id", cap=64), text_of(body, "address")
        operator = await authority.actor(operator_of(request), Need.GIVE, flow_id)
        reached = await proceed(broker, flow_id, address, operator)
        if isinstance(reached, Flow):
            return answer(_flow(reached))
        account = _account(broker, reached)
        return answer({"step": "done", "connection": account}, 201)

    return [
        Route("/api/connections", start, methods=["POST"]),
        Route("/api/connections/continue", go_on, methods=["POST"]),
    ]


def _account(broker: Broker, account: Account) -> dict[str, Any]:
    """Return an account, with its agent and what it stands for."""
    agent = broker.registry.agent(account.agent_id)
    named = broker.settings.connections.get(account.connection)
    return {
        "agent_id": agent.id,
        "agent_name": agent.name,
        "scopes": list(named.scopes) if named else [],
        **account_shape(account, broker.registry),
    }


def _flow(flow: Flow) -> dict[str, Any]:
    return {
        "id": flow.id,
        "step": "consent" if isinstance(flow.at, Consent) else "sign_in",
        "page": flow.at.page,
        "redirect_uri": flow.wanted.redirect_uri,
        "expires_at": iso(flow.at.expires.wall),
    }


def _removed(removed: Removed) -> dict[str, Any]:
    ends = removed.outside_until
    return {
        "connection": removed.account.connection,
        "account": removed.account.id,
        "at_tenant": removed.at_tenant,
        "also": [{"id": agent.id, "name": agent.name} for agent in removed.also],
        "outside_until": iso(ends) if ends else None,
    }
