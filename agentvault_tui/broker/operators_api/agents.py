"""``/api/agents``: list, register, cut off, let back in, change scopes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final

from msgspec import UNSET, structs
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from agentvault_tui.broker.authority import Authority, Need
from agentvault_tui.broker.core import Broker, CallsCut
from agentvault_tui.broker.cuts import Kept
from agentvault_tui.broker.operators_api.limits import near_the_end
from agentvault_tui.broker.operators_api.past import activity_of
from agentvault_tui.broker.operators_api.wire import (
    body_of,
    moment_of,
    operator_of,
    parts,
    query_of,
    route,
)
from agentvault_tui.broker.registry import Registry
from agentvault_tui.broker.shapes import (
    agent_info,
    delegation_tree,
    shape_from,
    step_info,
)
from agentvault_tui.broker.usecases.delegate import change_delegates
from agentvault_tui.broker.usecases.ending import revoke_token
from agentvault_tui.broker.usecases.issue_for import issue_for
from agentvault_tui.broker.usecases.rate import change_rate, raises_rate
from agentvault_tui.broker.usecases.register import (
    check_scopes,
    register,
)
from agentvault_tui.broker.usecases.revoke import (
    Cut,
    lift_panic,
    panic,
    restore_agent,
    revoke_agent,
)
from agentvault_tui.broker.usecases.scopes import (
    change_scopes,
    change_served,
    renew_secret,
)
from agentvault_tui.errors import UsageError
from agentvault_tui.model import Actor, Agent, AgentId
from agentvault_tui.operator_api import access, calls, history, shapes
from agentvault_tui.operator_api import requests as asks

_MOST: Final = 500
"""Agents a page has, at most."""


def routes(broker: Broker, authority: Authority) -> list[Route]:
    """Return the routes about agents."""
    return [
        *_reading(broker),
        *_cutting(broker, authority),
        *_keeping(broker, authority),
        *_bounding(broker, authority),
        *_delegating(broker, authority),
        *_issuing(broker, authority),
    ]


def _reading(broker: Broker) -> list[Route]:
    async def index(request: Request) -> Response:
        """List all agents with their tokens, or a page of them, or those named."""
        registry, query = broker.registry, query_of(request, asks.AgentQuery)
        if not request.query_params:
            every = _listing(broker, registry.agents(), tokens=True)
            return StreamingResponse(every, media_type="application/json")
        limit = query.limit
        if query.ids is not None:
            agents = _agents_of_ids(registry, query.ids.split(","))
        elif query.name is not None:
            agents = registry.agents_named(query.name)
        else:
            agents = registry.agents_after(query.after, limit + 1)
        following = agents[limit - 1].id if len(agents) > limit else None
        page = _listing(
            broker, agents[:limit], tokens=query.tokens, following=following
        )
        body = b"".join([part async for part in page])
        return Response(body, media_type="application/json")

    async def show(request: Request) -> shapes.AgentInfo:
        """Return one agent, with its live tokens."""
        agent = broker.registry.agent(request.path_params["id"])
        return agent_info(agent, broker.registry)

    async def activity(request: Request) -> history.ActivityInfo:
        """Return what one agent did, and what revoking it would end."""
        agent = broker.registry.agent(request.path_params["id"])
        return await activity_of(broker, agent, near_the_end(broker, agent))

    return [
        route(calls.AGENTS, index),
        route(calls.AGENT, show),
        route(calls.ACTIVITY, activity),
    ]


def _keeping(broker: Broker, authority: Authority) -> list[Route]:
    async def add(request: Request) -> shapes.NewAgentInfo:
        """Register an agent; its secret is in this answer alone."""
        wanted = await body_of(request, asks.AgentRequest)
        operator = await authority.actor(
            operator_of(request), Need.GIVE, f"a new agent, {wanted.name}"
        )
        registered = await register(broker, wanted, operator)
        return agent_info(
            registered.agent, broker.registry, client_secret=registered.client_secret
        )

    async def secret(request: Request) -> shapes.NewAgentInfo:
        """Make a new client secret for an agent; it is in this answer alone."""
        body = await body_of(request, asks.NewSecretRequest)
        agent = await broker.known(lambda: broker.registry.agent(body.agent_id))
        operator = await authority.actor(operator_of(request), Need.GIVE, agent.id)
        made = await renew_secret(broker, agent.id, operator)
        return agent_info(made.agent, broker.registry, client_secret=made.client_secret)

    async def served(local: Actor, body: asks.ScopesRequest) -> shapes.ScopesAnswer:
        """Change what a resource server serves."""
        if body.grant or body.ungrant:
            raise UsageError("change what it may ask for and what it serves singly")
        operator = await authority.actor(local, Need.GIVE, body.agent_id)
        serves = None if body.serves is UNSET else body.serves
        resources = None if body.resources is UNSET else body.resources
        agent = await change_served(broker, body.agent_id, serves, resources, operator)
        return _scopes_answer(broker, agent, CallsCut(), 0)

    async def scopes(request: Request) -> shapes.ScopesAnswer:
        """Give and take scopes of one agent, or change what it serves.

        Raises:
            UsageError: nothing is to be changed, or a scope both given and taken.
        """
        body = await body_of(request, asks.ScopesRequest)
        if body.serves is not UNSET or body.resources is not UNSET:
            return await served(operator_of(request), body)
        check_scopes(broker, body.grant)
        if not body.grant and not body.ungrant:
            raise UsageError("nothing to change", "give 'grant' or 'ungrant'")
        grant, ungrant = frozenset(body.grant), frozenset(body.ungrant)
        if grant & ungrant:
            raise UsageError("a scope cannot be granted and taken away at once")
        need = Need.GIVE if grant else Need.CUT
        operator = await authority.actor(operator_of(request), need, body.agent_id)
        changed = await change_scopes(broker, body.agent_id, grant, ungrant, operator)
        return _scopes_answer(broker, *changed)

    return [
        route(calls.REGISTER, add),
        route(calls.NEW_SECRET, secret),
        route(calls.SCOPES, scopes),
    ]


def _scopes_answer(
    broker: Broker, agent: Agent, cut: CallsCut, delegated: int
) -> shapes.ScopesAnswer:
    return shape_from(
        shapes.ScopesAnswer,
        agent_info(agent, broker.registry),
        calls_cut=cut.cut,
        calls_sent=cut.sent,
        delegated_revoked=delegated,
    )


def _bounding(broker: Broker, authority: Authority) -> list[Route]:
    """Return the route that bounds what an agent is permitted a second."""

    async def rate(request: Request) -> shapes.AgentInfo:
        """Say how many permitted decisions an agent may have a second."""
        body = await body_of(request, asks.RateRequest)
        agent = await broker.known(lambda: broker.registry.agent(body.agent_id))
        wanted = body.decisions_a_second
        need = Need.GIVE if raises_rate(broker, agent, wanted) else Need.CUT
        operator = await authority.actor(operator_of(request), need, agent.id)
        changed = await change_rate(broker, agent.id, wanted, operator)
        return agent_info(changed, broker.registry)

    return [route(calls.RATE, rate)]


def _delegating(broker: Broker, authority: Authority) -> list[Route]:
    async def delegates(request: Request) -> shapes.ScopesAnswer:
        """Say which scopes an agent may pass on to another; what is taken away ends."""
        body = await body_of(request, asks.DelegatesRequest)
        find = broker.registry.agent
        agent = await broker.known(lambda: find(body.agent_id))
        to = await broker.known(lambda: find(body.to))
        scopes = frozenset(body.scopes)
        wider = scopes - agent.may_pass_on(to.id)
        check_scopes(broker, tuple(wider))
        need = Need.GIVE if wider else Need.CUT
        operator = await authority.actor(operator_of(request), need, agent.id)
        changed = await change_delegates(broker, agent.id, to.id, scopes, operator)
        return _scopes_answer(broker, *changed)

    async def tree(request: Request) -> access.DelegationTree:
        """Return the live tokens that were passed on, as trees."""
        query = query_of(request, asks.TreeQuery)
        if query.agent is not None:
            broker.registry.agent(query.agent)
        return delegation_tree(broker.registry, query.agent)

    return [route(calls.DELEGATES, delegates), route(calls.TREE, tree)]


def _issuing(broker: Broker, authority: Authority) -> list[Route]:
    """Return the route that issues a token to the local user."""

    async def token(request: Request) -> access.IssuedTokenInfo:
        """Issue a token to the local user, who is recorded as who asked."""
        body = await body_of(request, access.IssueRequest)
        operator = await authority.actor(operator_of(request), Need.GIVE, body.agent_id)
        agent = broker.registry.agent(body.agent_id)
        wanted = tuple(body.scope.split())
        check_scopes(broker, wanted)
        resource = body.resource or None
        granted = await issue_for(broker, agent, wanted, resource, operator)
        return access.IssuedTokenInfo(
            access_token=granted.access_token,
            token_type="Bearer",  # noqa: S106 - a word of RFC 6750
            expires_in=granted.expires_in,
            scope=granted.token.scope,
            decision_id=granted.decision_id,
        )

    return [route(calls.TOKEN, token)]


def _cutting(broker: Broker, authority: Authority) -> list[Route]:
    async def revoke(request: Request) -> shapes.RevokeAnswer:
        """Revoke one agent, or stop all (panic)."""
        body = await body_of(request, asks.RevokeRequest)
        agent_id = _one(body)
        about = agent_id or "all agents"
        operator = await authority.actor(operator_of(request), Need.CUT, about)
        if agent_id is None:
            cut = await panic(broker, body.reason, operator)
        else:
            cut = await revoke_agent(broker, agent_id, body.reason, operator)
        ended = _ended(cut, broker, one=agent_id is not None)
        if broker.team is not None and not cut.recorded:
            brokers = broker.team.unnotified()
            return structs.replace(ended, others="not_told", brokers=brokers)
        if broker.team is not None:
            brokers = await broker.team.confirmed(broker.ledger.head.seq)
            return structs.replace(ended, brokers=brokers)
        return ended

    async def restore(request: Request) -> shapes.RestoreAnswer:
        """Restore one agent, or lift the panic.

        Raises:
            UsageError: an end was given for all.
        """
        body = await body_of(request, asks.RestoreRequest)
        agent_id, until = _one(body), moment_of(body.until, "until")
        about = agent_id or "all agents"
        operator = await authority.actor(operator_of(request), Need.GIVE, about)
        if agent_id is None:
            if until is not None:
                raise UsageError("'until' is for one agent")
            return shapes.RestoreAnswer(agents=await lift_panic(broker, operator))
        agent = await restore_agent(broker, agent_id, operator, until)
        return shapes.RestoreAnswer(agent=agent_info(agent, broker.registry))

    async def end_token(request: Request) -> access.TokenRevokeAnswer:
        """Revoke one live token."""
        body = await body_of(request, asks.TokenRevokeRequest)
        operator = await authority.actor(operator_of(request), Need.CUT, body.id)
        ended, cut, kept = await revoke_token(broker, body.id, body.reason, operator)
        return access.TokenRevokeAnswer(
            id=body.id,
            tokens_revoked=ended,
            calls_cut=cut.cut,
            calls_sent=cut.sent,
            recorded=kept is Kept.LEDGER,
            kept=kept,
        )

    return [
        route(calls.REVOKE, revoke),
        route(calls.RESTORE, restore),
        route(calls.REVOKE_TOKEN, end_token),
    ]


def _listing(
    broker: Broker,
    agents: Sequence[Agent],
    *,
    tokens: bool,
    following: AgentId | None = None,
) -> AsyncIterator[bytes]:
    """Write *agents* as JSON in parts, each of one turn of the event loop.

    All counts are of the moment of ``head``: a console adds later events to them.
    """
    registry = broker.registry
    counted = [(agent, registry.counts(agent.id)) for agent in agents]
    ends, foreseen = registry.ends(), registry.foresee()
    told = (
        agent_info(
            agent,
            registry,
            counts=counts,
            tokens=tokens,
            ends=ends,
            foreseen=foreseen,
        )
        for agent, counts in counted
    )
    more: dict[str, object] = {
        "next": following,
        "total": registry.agent_count,
        "head": broker.ledger.head.seq,
    }
    return parts("agents", told, more)


def _agents_of_ids(registry: Registry, ids: Sequence[str]) -> list[Agent]:
    """Return the agents with these ids; those there are not are left out."""
    if len(ids) > _MOST:
        raise UsageError(f"'ids' may name {_MOST} agents at once")
    return [*filter(None, map(registry.find_agent, dict.fromkeys(ids)))]


def _one(body: asks.OneOrAllRequest) -> str | None:
    """Return the agent that is meant; None for all, and only if that alone is said."""
    if body.all is UNSET and body.agent_id is not UNSET:
        return body.agent_id
    if body.all is not True or body.agent_id is not UNSET:
        raise UsageError('give either an agent_id or "all": true')
    return None


def _ended(cut: Cut, broker: Broker, *, one: bool) -> shapes.RevokeAnswer:
    return shapes.RevokeAnswer(
        agent=agent_info(cut.agents[0], broker.registry) if one else UNSET,
        agents=UNSET if one else len(cut.agents),
        tokens_revoked=cut.tokens,
        stepups_cancelled=cut.stepups,
        calls_cut=cut.calls.cut,
        calls_sent=cut.calls.sent,
        delegated_revoked=cut.delegated,
        derived_revoked=cut.derived,
        effective_ms=round(cut.effective_ms, 3),
        recorded=cut.recorded,
        kept=cut.kept.value,
        upstream=tuple(step_info(s) for s in cut.steps if s.status != "withdrawn"),
    )
