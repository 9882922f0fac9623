"""``/api/connections``: accounts at providers, connected for agents and taken away."""

from __future__ import annotations

from msgspec.structs import asdict
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agentvault_tui.broker.authority import Authority, Need
from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.operators_api.changes import Loosening
from agentvault_tui.broker.operators_api.wire import (
    answer,
    body_of,
    listing,
    operator_of,
    query_of,
    route,
)
from agentvault_tui.broker.shapes import account_info
from agentvault_tui.broker.usecases.changes import Wanted
from agentvault_tui.broker.usecases.connect import begin, proceed
from agentvault_tui.broker.usecases.disconnect import disconnect
from agentvault_tui.broker.vault_access import Flow
from agentvault_tui.clock import iso
from agentvault_tui.model import Account, Actor
from agentvault_tui.operator_api import calls, shapes
from agentvault_tui.operator_api import requests as asks
from agentvault_tui.text import visible


def routes(broker: Broker, authority: Authority) -> list[Route]:
    """Return the routes about connected accounts."""
    return [*_listing(broker, authority), *_connecting(broker, authority)]


def _listing(broker: Broker, authority: Authority) -> list[Route]:
    async def index(request: Request) -> Response:
        """List connected accounts, of one agent or of all."""
        accounts, wanted = (
            broker.registry.accounts,
            query_of(request, asks.ConnectionQuery),
        )
        listed = (
            accounts.all()
            if wanted.agent is None
            else accounts.of(broker.registry.agent(wanted.agent).id)
        )
        infos = (_connection(broker, one) for one in listed)
        return await listing(request, "connections", infos)

    async def remove(request: Request) -> shapes.RemovedInfo:
        """Take an account away; a shared one only when that is asked for."""
        body = await body_of(request, asks.RemoveRequest)
        about = f"{body.agent_id} connection:{body.connection}"
        operator = await authority.actor(operator_of(request), Need.REVOKE, about)
        removed = await disconnect(
            broker, body.agent_id, body.connection, operator, shared=body.shared
        )
        ends = removed.outside_until
        return shapes.RemovedInfo(
            connection=removed.account.connection,
            account=removed.account.id,
            at_tenant=removed.at_tenant,
            also=tuple(
                shapes.AgentRef(id=one.id, name=one.name) for one in removed.also
            ),
            outside_until=iso(ends) if ends else None,
        )

    return [route(calls.CONNECTIONS, index), route(calls.REMOVE, remove)]


def _connecting(broker: Broker, authority: Authority) -> list[Route]:
    async def do_start(
        body: asks.ConnectRequest, _: Actor, __: object
    ) -> shapes.ConnectStepInfo:
        return _flow(await begin(broker, body))

    async def start(request: Request) -> Response:
        """Begin to connect an account: a page for a browser comes back.

        Elsewhere that page, and with it the flow, is the answer of an approved change.
        """
        body = await body_of(request, asks.ConnectRequest)
        agent = broker.registry.find_agent(body.agent_id)
        name = agent.name if agent else body.agent_id
        summary = (
            f"connect an account at {visible(body.connection, 60)} for"
            f" {visible(name, 60)}"
        )
        details = {"connection": body.connection, "scopes": list(body.scopes)}
        subjects = (f"agent:{body.agent_id}",)
        wanted = Wanted(
            ("connections",), summary, body.agent_id, subjects, details=details
        )
        return await starting.settle(request, body, wanted)

    async def go_on(request: Request) -> Response:
        """Take where the browser ended: another page, or the connected account."""
        body = await body_of(request, asks.ContinueRequest)
        operator = await authority.actor(operator_of(request), Need.GIVE, body.id)
        reached = await proceed(broker, body.id, body.address, operator)
        if isinstance(reached, Flow):
            return answer(_flow(reached))
        connection = _connection(broker, reached)
        return answer(shapes.ConnectStepInfo(step="done", connection=connection), 201)

    starting = Loosening(authority, calls.CONNECT, asks.ConnectRequest, do_start)
    return [route(calls.CONNECT, start), route(calls.CONTINUE, go_on)]


def _connection(broker: Broker, account: Account) -> shapes.ConnectionInfo:
    agent = broker.registry.agent(account.agent_id)
    named = broker.settings.connections.get(account.connection)
    return shapes.ConnectionInfo(
        agent_id=agent.id,
        agent_name=agent.name,
        scopes=tuple(named.scopes) if named else (),
        **asdict(account_info(account, broker.registry)),
    )


def _flow(flow: Flow) -> shapes.ConnectStepInfo:
    return shapes.ConnectStepInfo(
        id=flow.id,
        step="consent" if flow.consent else "sign_in",
        page=flow.at.page,
        redirect_uri=flow.wanted.redirect_uri,
        expires_at=iso(flow.at.expires.wall),
    )
