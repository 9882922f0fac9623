"""``/api/agents``: list, register, cut off, let back in, change scopes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from agentvault_tui.broker.activity import activity_of
from agentvault_tui.broker.authority import Authority, Need
from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.operators_api.wire import (
    answer,
    body_of,
    limit_of,
    operator_of,
    parts,
    strings_of,
    text_of,
)
from agentvault_tui.broker.registry import Registry
from agentvault_tui.broker.shapes import agent_shape, step_shape
from agentvault_tui.broker.usecases.register import (
    Registration,
    check_scopes,
    register,
)
from agentvault_tui.broker.usecases.revoke import (
    Cut,
    change_scopes,
    lift_panic,
    panic,
    restore_agent,
    revoke_agent,
)
from agentvault_tui.errors import NotFoundError, UsageError
from agentvault_tui.model import Agent, AgentId

_MOST: Final = 500
"""Agents a page has, at most."""
_QUERY: Final = {"after", "ids", "limit", "name", "tokens"}
_NEW = (
    "name",
    "owner",
    "purpose",
    "scopes",
    "public_key",
    "resource_server",
    "serves",
    "resources",
)


def routes(broker: Broker, authority: Authority) -> list[Route]:
    """Return the routes about agents."""
    return [
        *_reading(broker),
        *_cutting(broker, authority),
        *_keeping(broker, authority),
    ]


def _reading(broker: Broker) -> list[Route]:
    """Return the routes that list and show."""

    async def index(request: Request) -> Response:
        """List all agents with their tokens, or a page of them, or those named."""
        registry, query = broker.registry, request.query_params
        if unknown := sorted(set(query) - _QUERY):
            raise UsageError(
                f"unknown parameter {unknown[0]!r:.60}",
                f"known: {', '.join(sorted(_QUERY))}",
            )
        if not query:
            every = _listing(broker, registry.agents(), tokens=True)
            return StreamingResponse(every, media_type="application/json")
        limit = limit_of(request, _MOST, _MOST)
        if "ids" in query:
            agents = _those(registry, query["ids"].split(","))
        elif "name" in query:
            agents = registry.agents_named(query["name"])
        else:
            agents = registry.agents_after(query.get("after"), limit + 1)
        following = agents[limit - 1].id if len(agents) > limit else None
        page = _listing(
            broker, agents[:limit], tokens=_tokens(query), following=following
        )
        body = "".join([part async for part in page])
        return Response(body, media_type="application/json")

    async def show(request: Request) -> Response:
        agent = broker.registry.agent(request.path_params["id"])
        return answer(agent_shape(agent, broker.registry))

    async def activity(request: Request) -> Response:
        agent = broker.registry.agent(request.path_params["id"])
        return answer(await activity_of(broker, agent))

    return [
        Route("/api/agents", index, methods=["GET"]),
        Route("/api/agents/{id}", show, methods=["GET"]),
        Route("/api/agents/{id}/activity", activity, methods=["GET"]),
    ]


def _keeping(broker: Broker, authority: Authority) -> list[Route]:
    """Return the routes that register and grant."""

    async def add(request: Request) -> Response:
        wanted = _registration(await body_of(request, _NEW))
        operator = await authority.actor(
            operator_of(request), Need.GIVE, f"a new agent, {wanted.name}"
        )
        registered = await register(broker, wanted, operator)
        shape = agent_shape(registered.agent, broker.registry)
        if registered.client_secret is not None:
            shape["client_secret"] = registered.client_secret
        return answer(shape, 201)

    async def scopes(request: Request) -> Response:
        """Give and take scopes of one agent."""
        body = await body_of(request, ("agent_id", "grant", "ungrant"))
        grant = strings_of(body, "grant")
        ungrant = strings_of(body, "ungrant")
        check_scopes(broker, grant)
        if not grant and not ungrant:
            raise UsageError("nothing to change", "give 'grant' or 'ungrant'")
        if set(grant) & set(ungrant):
            raise UsageError("a scope cannot be granted and taken away at once")
        need, agent_id = Need.GIVE if grant else Need.CUT, text_of(body, "agent_id")
        operator = await authority.actor(operator_of(request), need, agent_id)
        agent = await change_scopes(
            broker, agent_id, frozenset(grant), frozenset(ungrant), operator
        )
        return answer(agent_shape(agent, broker.registry))

    return [
        Route("/api/agents", add, methods=["POST"]),
        Route("/api/agents/scopes", scopes, methods=["POST"]),
    ]


def _cutting(broker: Broker, authority: Authority) -> list[Route]:
    """Return the routes that cut off and let back in."""

    async def revoke(request: Request) -> Response:
        body = await body_of(request, ("agent_id", "all", "reason"))
        reason = text_of(body, "reason", required=False, cap=1000)
        agent_id = None if _all(body) else text_of(body, "agent_id")
        about = agent_id or "all agents"
        operator = await authority.actor(operator_of(request), Need.CUT, about)
        if agent_id is None:
            cut = await panic(broker, reason, operator)
            return answer({"agents": len(cut.agents), **_cut(cut)})
        cut = await revoke_agent(broker, agent_id, reason, operator)
        return answer(
            {"agent": agent_shape(cut.agents[0], broker.registry), **_cut(cut)}
        )

    async def restore(request: Request) -> Response:
        body = await body_of(request, ("agent_id", "all"))
        agent_id = None if _all(body) else text_of(body, "agent_id")
        about = agent_id or "all agents"
        operator = await authority.actor(operator_of(request), Need.GIVE, about)
        if agent_id is None:
            return answer({"agents": await lift_panic(broker, operator)})
        agent = await restore_agent(broker, agent_id, operator)
        return answer({"agent": agent_shape(agent, broker.registry)})

    return [
        Route("/api/agents/revoke", revoke, methods=["POST"]),
        Route("/api/agents/restore", restore, methods=["POST"]),
    ]


def _listing(
    broker: Broker,
    agents: Sequence[Agent],
    *,
    tokens: bool,
    following: AgentId | None = None,
) -> AsyncIterator[str]:
    """Write *agents* as JSON in parts, each of one turn of the event loop.

    All counts are of one moment, that of ``head``: a console adds later events to them.
    """
    registry = broker.registry
    counted = [(agent, registry.counts(agent.id)) for agent in agents]
    ends = registry.ends()
    shapes = (
        agent_shape(agent, registry, counts=counts, tokens=tokens, ends=ends)
        for agent, counts in counted
    )
    more = {
        "next": following,
        "total": registry.agent_count,
        "head": broker.ledger.head.seq,
    }
    return parts("agents", shapes, more)


def _those(registry: Registry, ids: Sequence[str]) -> list[Agent]:
    """Return the agents with these ids; those there are not are left out.

    Raises:
        UsageError: too many are asked for at once.
    """
    if len(ids) > _MOST:
        raise UsageError(f"'ids' may name {_MOST} agents at once")
    found = []
    for agent_id in dict.fromkeys(ids):
        with contextlib.suppress(NotFoundError):
            found.append(registry.agent(agent_id))
    return found


def _tokens(query: QueryParams) -> bool:
    """Tell whether live tokens are asked for.

    Raises:
        UsageError: it is said in other words.
    """
    word = query.get("tokens", "false")
    if word not in {"true", "false"}:
        raise UsageError("'tokens' must be true or false")
    return word == "true"


def _registration(body: dict[str, Any]) -> Registration:
    """Read a new agent; a JWK may come as an object or as text."""
    if isinstance(body.get("public_key"), dict):
        body["public_key"] = json.dumps(body["public_key"])
    resource_server = body.get("resource_server", False)
    if not isinstance(resource_server, bool):
        raise UsageError("'resource_server' must be true or false")
    return Registration(
        name=text_of(body, "name"),
        owner=text_of(body, "owner"),
        purpose=text_of(body, "purpose", required=False),
        scopes=strings_of(body, "scopes"),
        public_key=(
            text_of(body, "public_key", cap=8192) if "public_key" in body else None
        ),
        resource_server=resource_server,
        serves=strings_of(body, "serves"),
        resources=strings_of(body, "resources"),
    )


def _all(body: dict[str, Any]) -> bool:
    """Tell whether everything is meant, and only when it is said alone."""
    if "all" not in body:
        return False
    if body["all"] is not True or "agent_id" in body:
        raise UsageError('give either an agent_id or "all": true')
    return True


def _cut(cut: Cut) -> dict[str, Any]:
    return {
        "tokens_revoked": cut.tokens,
        "stepups_cancelled": cut.stepups,
        "effective_ms": round(cut.effective_ms, 3),
        "recorded": cut.recorded,
        "kept": cut.kept.value,
        "upstream": [step_shape(s) for s in cut.steps if s.status != "withdrawn"],
    }
