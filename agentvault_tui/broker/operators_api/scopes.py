"""``/api/agents/scopes``: grant and remove scopes, for a time or without an end."""

from __future__ import annotations

from msgspec import UNSET, structs
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agentvault_tui.broker.authority import Authority, Need
from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.cuts import Kept
from agentvault_tui.broker.extensions import CallsCut
from agentvault_tui.broker.operators_api.changes import Loosening, with_taken
from agentvault_tui.broker.operators_api.idle import decides_nothing
from agentvault_tui.broker.operators_api.wire import (
    body_of,
    operator_of,
    refuse_grant,
    route,
)
from agentvault_tui.broker.shapes import agent_info, recorded_at, shape_from
from agentvault_tui.broker.usecases import timed_grants
from agentvault_tui.broker.usecases.changes import Wanted
from agentvault_tui.broker.usecases.register import check_scopes
from agentvault_tui.broker.usecases.scopes import ChangedRights, change_served
from agentvault_tui.errors import UsageError
from agentvault_tui.model import Actor, Agent
from agentvault_tui.operator_api import calls, ending
from agentvault_tui.operator_api import requests as asks
from agentvault_tui.text import visible


def routes(broker: Broker, authority: Authority) -> list[Route]:
    """Return the route that changes the scopes of an agent."""

    async def do_change(
        body: asks.ScopesRequest, operator: Actor, _: object
    ) -> ending.ScopesAnswer:
        """Carry out the change of scopes."""
        if body.serves is UNSET and body.resources is UNSET:
            grant, ungrant = frozenset(body.grant), frozenset(body.ungrant)
            wanted = body.agent_id, grant, ungrant, operator
            changed = await timed_grants.grant(broker, *wanted, seconds=body.seconds)
            return scopes_answer(broker, changed)
        serves = None if body.serves is UNSET else body.serves
        resources = None if body.resources is UNSET else body.resources
        agent = await change_served(broker, body.agent_id, serves, resources, operator)
        nothing = ChangedRights(agent, CallsCut(), 0, Kept.LEDGER)
        return scopes_answer(broker, nothing)

    async def scopes(request: Request) -> Response:
        """Grant and remove scopes of one agent, or change its served ones.

        If granting waits for a person, removed rights end at once.

        Raises:
            UsageError: nothing is to be changed, or a scope both given and taken.
        """
        body = await body_of(request, asks.ScopesRequest)
        _check(broker, body)
        agent = await broker.look_up(lambda: broker.registry.agent(body.agent_id))
        before = agent, timed_grants.ends_of(broker, agent)
        answered = await change(request, body, agent)
        agent = broker.registry.agent(agent.id)
        if before == (agent, timed_grants.ends_of(broker, agent)):
            decides_nothing(request)
        return answered

    async def change(
        request: Request, body: asks.ScopesRequest, agent: Agent
    ) -> Response:
        """Carry out or hold a request that was read; removed rights end first."""
        if body.serves is UNSET and body.resources is UNSET and not body.grant:
            less = Wanted((), "", agent.id)
            return await changing.settle(request, body, less)
        if (refusal := refuse_grant(request)) is not None:
            return refusal
        seat, taken = operator_of(request), None
        by_factor = await authority.by_factor(seat)
        if body.ungrant and by_factor:
            # Removed rights end at once; the proof is for what is granted.
            actor = await authority.actor(seat, Need.REVOKE, agent.id)
            ends = agent.id, frozenset[str](), frozenset(body.ungrant), actor
            changed = await timed_grants.grant(broker, *ends, seconds=None)
            taken = scopes_answer(broker, changed)
            agent = broker.registry.agent(agent.id)
            body = structs.replace(body, ungrant=())
        wanted = _granting(agent, body)
        settled = changing.settle(request, body, wanted, by_factor=by_factor)
        return await with_taken(request, settled, taken)

    changing = Loosening(authority, calls.SCOPES, asks.ScopesRequest, do_change)
    return [route(calls.SCOPES, scopes)]


def _granting(agent: Agent, body: asks.ScopesRequest) -> Wanted:
    """Return the loosening of a request for more scopes, or other served ones."""
    if body.grant:
        given = " ".join(sorted(body.grant))
        if body.seconds is not None:
            verb = f"for {body.seconds} s grant {given} to"
            details = {"scopes": sorted(body.grant), "seconds": body.seconds}
            return about_agent(agent, verb, **details)
        return about_agent(agent, f"grant {given} to", scopes=sorted(body.grant))
    details = {
        name: list(value)
        for name, value in (("serves", body.serves), ("resources", body.resources))
        if value is not UNSET
    }
    return about_agent(agent, "change what is served by", **details)


def _check(broker: Broker, body: asks.ScopesRequest) -> None:
    """Refuse a request that says nothing, or contradicts itself."""
    if body.serves is not UNSET or body.resources is not UNSET:
        if body.grant or body.ungrant or body.seconds is not None:
            raise UsageError("change what it may ask for and what it serves singly")
        check_scopes(broker, body.serves or ())
        return
    check_scopes(broker, body.grant)
    if not body.grant and not body.ungrant:
        raise UsageError("nothing to change", "give 'grant' or 'ungrant'")
    if body.seconds is not None and not body.grant:
        raise UsageError("seconds is how long granted scopes last", "give 'grant'")
    if {*body.grant} & {*body.ungrant}:
        raise UsageError("a scope cannot be granted and taken away at once")


def scopes_answer(broker: Broker, changed: ChangedRights) -> ending.ScopesAnswer:
    """Return the answer about an agent whose scopes or delegates changed."""
    return shape_from(
        ending.ScopesAnswer,
        agent_info(changed.agent, broker.registry),
        calls_cut=changed.calls.cut,
        calls_sent=changed.calls.sent,
        delegated_revoked=changed.delegated,
        **recorded_at(changed.durability, broker.team.brokers),
    )


def about_agent(agent: Agent, verb: str, **details: object) -> Wanted:
    """Return a loosening of one agent."""
    summary = f"{verb} {visible(agent.name, 60)}"
    subjects = (f"agent:{agent.id}",)
    return Wanted(("agents",), summary, agent.id, subjects, details=details)
