"""``/api/agents``: list, register, cut off, let back in, change scopes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final

from msgspec import UNSET, structs
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agentvault_tui.broker.authority import Authority, Need
from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.operators_api import scopes as scoping
from agentvault_tui.broker.operators_api.changes import How, Loosening, with_taken
from agentvault_tui.broker.operators_api.idle import decides_nothing
from agentvault_tui.broker.operators_api.limits import near_the_end
from agentvault_tui.broker.operators_api.past import activity_of
from agentvault_tui.broker.operators_api.scopes import about_agent, scopes_answer
from agentvault_tui.broker.operators_api.wire import (
    body_of,
    listing,
    moment_of,
    operator_of,
    query_of,
    refuse_grant,
    route,
)
from agentvault_tui.broker.registry import Registry
from agentvault_tui.broker.shapes import (
    agent_info,
    delegation_tree,
    panic_info,
    recorded_at,
    step_info,
)
from agentvault_tui.broker.usecases.changes import Wanted
from agentvault_tui.broker.usecases.delegate import change_delegates
from agentvault_tui.broker.usecases.ending import Cut, revoke_token
from agentvault_tui.broker.usecases.issue_for import issue_for
from agentvault_tui.broker.usecases.naming import (
    check_rename,
    check_unclaimed,
    remove_agent,
    rename_agent,
)
from agentvault_tui.broker.usecases.own_restore import check_own
from agentvault_tui.broker.usecases.rate import change_rate, raises_rate
from agentvault_tui.broker.usecases.register import (
    check_scopes,
    ending_detail,
    new_agent,
    register,
)
from agentvault_tui.broker.usecases.revoke import (
    lift_panic,
    panic,
    restore_agent,
    revoke_agent,
)
from agentvault_tui.broker.usecases.scopes import (
    renew_secret,
)
from agentvault_tui.errors import ConflictError, RefusedError, UsageError
from agentvault_tui.model import Actor, Agent, AgentStatus, sha256_hex
from agentvault_tui.operator_api import access, calls, ending, history, shapes
from agentvault_tui.operator_api import requests as asks
from agentvault_tui.text import visible

_MOST: Final = 500
"""Agents a page has, at most."""


def routes(broker: Broker, authority: Authority) -> list[Route]:
    """Return the routes about agents."""
    return [
        *_reading(broker),
        *_cutting(broker, authority),
        *_restoring(broker, authority),
        *_keeping(broker, authority),
        *_bounding(broker, authority),
        *_naming(broker, authority),
        *_delegating(broker, authority),
        *_issuing(broker, authority),
    ]


def _reading(broker: Broker) -> list[Route]:
    async def index(request: Request) -> Response:
        """List a page of agents, or those named."""
        registry, query = broker.registry, query_of(request, asks.AgentQuery)
        limit = query.limit
        if query.ids is not None:
            agents = _agents_of_ids(registry, query.ids.split(","))
        elif query.name is not None:
            agents = registry.agents_named(query.name)
        else:
            agents = registry.agents_after(query.after, limit + 1)
        following = agents[limit - 1].id if len(agents) > limit else None
        page = _page(broker, agents[:limit], tokens=query.tokens)
        more: dict[str, object] = {
            "next": following,
            "total": registry.agent_count,
            "head": broker.ledger.head.seq,
        }
        return await listing(request, "agents", page, more)

    async def show(request: Request) -> shapes.AgentInfo:
        """Return one agent, with its live tokens."""
        agent = broker.registry.agent(request.path_params["id"])
        return agent_info(agent, broker.registry)

    async def activity(request: Request) -> history.ActivityInfo:
        """Return the actions of one agent, and the effect of revoking it."""
        agent = broker.registry.agent(request.path_params["id"])
        return await activity_of(broker, agent, await near_the_end(broker, agent))

    return [
        route(calls.AGENTS, index),
        route(calls.AGENT, show),
        route(calls.ACTIVITY, activity),
    ]


def _keeping(broker: Broker, authority: Authority) -> list[Route]:
    return [
        *_registering(broker, authority),
        *scoping.routes(broker, authority),
    ]


def _registering(broker: Broker, authority: Authority) -> list[Route]:
    async def do_add(
        wanted: asks.AgentRequest, operator: Actor, how: How
    ) -> shapes.NewAgentInfo:
        if not how.loosens:
            check_unclaimed(broker, wanted.name)
            if _gives(new_agent(broker, wanted)):
                raise ConflictError(
                    "its template was given something meanwhile", "register it again"
                )
        registered = await register(broker, wanted, operator, confirmed=how.loosens)
        return agent_info(
            registered.agent, broker.registry, client_secret=registered.client_secret
        )

    async def add(request: Request) -> Response:
        """Register an agent; its secret is in this answer alone."""
        body = await body_of(request, asks.AgentRequest)
        name = visible(body.name, 60)
        wanted = Wanted(("agents",), "", f"a new agent, {name}")
        if by_factor := await authority.by_factor(operator_of(request)):
            new = new_agent(broker, body)  # what cannot be is refused at once
            check_scopes(broker, (*new.scopes, *new.serves))
            wanted = Wanted(
                ("agents",) if _gives(new) else (),
                f"register the agent {name}",
                wanted.about,
                (f"name:{body.name}", *_template_of(body)),
                details=_described(new),
            )
        return await adding.settle(
            request, body, wanted, need=Need.OWN, by_factor=by_factor
        )

    async def do_renew(
        body: asks.NewSecretRequest, operator: Actor, _: object
    ) -> shapes.NewAgentInfo:
        made = await renew_secret(broker, body.agent_id, operator)
        return agent_info(made.agent, broker.registry, client_secret=made.client_secret)

    async def secret(request: Request) -> Response:
        """Make a new client secret for an agent; it is in this answer alone."""
        body = await body_of(request, asks.NewSecretRequest)
        agent = await broker.look_up(lambda: broker.registry.agent(body.agent_id))
        wanted = about_agent(agent, "give a new client secret to")
        return await renewing.settle(request, body, wanted)

    adding = Loosening(authority, calls.REGISTER, asks.AgentRequest, do_add)
    renewing = Loosening(authority, calls.NEW_SECRET, asks.NewSecretRequest, do_renew)
    return [route(calls.REGISTER, add), route(calls.NEW_SECRET, secret)]


def _gives(new: Agent) -> bool:
    """Check whether a new agent may do anything from its registration on."""
    return bool(new.scopes or new.delegates or new.resource_server)


def _described(new: Agent) -> dict[str, object]:
    """Return a new agent's description, for the person who approves it."""
    credential, key = new.credential, new.credential.public_key
    detail: dict[str, object] = {
        "scopes": list(new.scopes),
        "owner": visible(new.owner, 200),
        "subject": visible(credential.subject or "", 200),
        "public_key_sha256": sha256_hex(key) if key else "",
        "serves": list(new.serves),
        "resources": list(new.resources),
        **ending_detail(new),
    }
    return {name: value for name, value in detail.items() if value or name == "scopes"}


def _template_of(body: asks.AgentRequest) -> tuple[str, ...]:
    return (f"agent:{body.from_template}",) if body.from_template else ()


def _bounding(broker: Broker, authority: Authority) -> list[Route]:
    """Return the route that bounds an agent's permits a second."""

    async def do_change(
        body: asks.RateRequest, operator: Actor, how: How
    ) -> shapes.AgentInfo:
        """Set the rate, unless that became a loosening meanwhile."""
        change = broker, body.agent_id, body.decisions_a_second, operator
        changed = await change_rate(*change, may_raise=how.loosens)
        return agent_info(changed, broker.registry)

    async def rate(request: Request) -> Response:
        """Say how many permitted decisions an agent may have a second."""
        body = await body_of(request, asks.RateRequest)
        agent = await broker.look_up(lambda: broker.registry.agent(body.agent_id))
        number = body.decisions_a_second
        wanted = about_agent(
            agent, f"permit {number} decisions a second of", rate=number
        )
        if not raises_rate(broker, agent, number):
            wanted = replace(wanted, kinds=())
        return await changing.settle(request, body, wanted)

    changing = Loosening(authority, calls.RATE, asks.RateRequest, do_change)
    return [route(calls.RATE, rate)]


def _naming(broker: Broker, authority: Authority) -> list[Route]:
    """Return the routes that rename an agent, and remove a revoked one."""

    async def do_rename(
        body: asks.RenameRequest, operator: Actor, _: object
    ) -> shapes.AgentInfo:
        renamed = await rename_agent(broker, body.agent_id, body.name, operator)
        return agent_info(renamed, broker.registry)

    async def rename(request: Request) -> Response:
        """Give an agent another name: a loosening, because rules may name agents."""
        body = await body_of(request, asks.RenameRequest)
        agent = await broker.look_up(lambda: broker.registry.agent(body.agent_id))
        check_rename(broker, agent, body.name)
        wanted = about_agent(agent, f"give the name {visible(body.name, 60)} to")
        subjects = (*wanted.subjects, f"name:{body.name}")
        return await renaming.settle(request, body, replace(wanted, subjects=subjects))

    async def do_remove(
        body: asks.AgentRemoveRequest, operator: Actor, _: object
    ) -> shapes.AgentInfo:
        removed = await remove_agent(broker, body.agent_id, operator)
        return agent_info(removed, broker.registry)

    async def remove(request: Request) -> Response:
        """Take a revoked agent out of all lists; its history stays."""
        body = await body_of(request, asks.AgentRemoveRequest)
        agent = await broker.look_up(lambda: broker.registry.agent(body.agent_id))
        return await removing.settle(request, body, Wanted((), "", agent.id))

    renaming = Loosening(authority, calls.RENAME_AGENT, asks.RenameRequest, do_rename)
    removing = Loosening(
        authority, calls.REMOVE_AGENT, asks.AgentRemoveRequest, do_remove
    )
    return [route(calls.RENAME_AGENT, rename), route(calls.REMOVE_AGENT, remove)]


def _delegating(broker: Broker, authority: Authority) -> list[Route]:
    async def do_change(
        body: asks.DelegatesRequest, operator: Actor, how: How
    ) -> ending.ScopesAnswer:
        scopes = frozenset(body.scopes)
        change = broker, body.agent_id, body.to, scopes, operator
        changed = await change_delegates(*change, gives=how.loosens)
        return scopes_answer(broker, changed)

    async def delegates(request: Request) -> Response:
        """Set the scopes that an agent may delegate to another; removed rights end.

        If granting waits for a person, removed rights end at once.
        """
        body = await body_of(request, asks.DelegatesRequest)
        find = broker.registry.agent
        agent = await broker.look_up(lambda: find(body.agent_id))
        to = await broker.look_up(lambda: find(body.to))
        scopes = frozenset(body.scopes)
        now = agent.may_pass_on(to.id)
        wider = scopes - now
        check_scopes(broker, tuple(wider))
        if not wider:
            return await changing.settle(request, body, Wanted((), "", agent.id))
        if (refusal := refuse_grant(request)) is not None:
            return refusal
        seat, taken = operator_of(request), None
        by_factor = await authority.by_factor(seat)
        if now - scopes and by_factor:
            actor = await authority.actor(seat, Need.REVOKE, agent.id)
            left = broker, agent.id, to.id, now & scopes, actor
            less = await change_delegates(*left, gives=False)
            taken = scopes_answer(broker, less)
            agent = find(agent.id)
        given = " ".join(sorted(scopes - agent.may_pass_on(to.id)))
        verb = f"let {visible(to.name, 60)} act with {given} of"
        wanted = about_agent(agent, verb, to=to.id, scopes=sorted(scopes))
        wanted = replace(wanted, subjects=(*wanted.subjects, f"agent:{to.id}"))
        settled = changing.settle(request, body, wanted, by_factor=by_factor)
        return await with_taken(request, settled, taken)

    async def tree(request: Request) -> access.DelegationTree:
        """Return the live tokens that were passed on, as trees."""
        query = query_of(request, asks.TreeQuery)
        if query.agent is not None:
            broker.registry.agent(query.agent)
        return delegation_tree(broker.registry, query.agent)

    changing = Loosening(authority, calls.DELEGATES, asks.DelegatesRequest, do_change)
    return [route(calls.DELEGATES, delegates), route(calls.TREE, tree)]


def _issuing(broker: Broker, authority: Authority) -> list[Route]:
    """Return the route that issues a token to the local user."""

    async def do_issue(
        body: access.IssueRequest, operator: Actor, _: object
    ) -> access.IssuedTokenInfo:
        """Issue a token for exactly the scopes and resource of the request."""
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

    async def token(request: Request) -> Response:
        """Issue a token to the local user, who is recorded as who asked."""
        body = await body_of(request, access.IssueRequest)
        summary = f"issue a token of {visible(body.agent_id, 60)}"
        wanted = Wanted(("tokens",), summary, body.agent_id)
        if authority.is_elsewhere(operator_of(request)):
            agent = broker.registry.agent(body.agent_id)
            scopes = body.scope.split()
            check_scopes(broker, tuple(scopes))
            wanted = Wanted(
                ("tokens",),
                f"issue a token of {visible(agent.name, 60)} to who asks for this",
                agent.id,
                (f"agent:{agent.id}",),
                details={"scopes": scopes, "resource": body.resource or None},
            )
        # An agent's token for its own user's command is no change of what it may do.
        return await issuing.settle(request, body, wanted, exempt=True)

    issuing = Loosening(authority, calls.TOKEN, access.IssueRequest, do_issue)
    return [route(calls.TOKEN, token)]


def _cutting(broker: Broker, authority: Authority) -> list[Route]:
    async def revoke(request: Request) -> ending.RevokeAnswer:
        """Revoke one agent, or stop all (panic)."""
        body = await body_of(request, asks.RevokeRequest)
        agent_id = _one(body)
        about = agent_id or "all agents"
        operator = await authority.actor(operator_of(request), Need.REVOKE, about)
        again = _is_stopped(broker, agent_id)
        if agent_id is None:
            cancelled = await panic(broker, body.reason, operator)
        else:
            cancelled = await revoke_agent(broker, agent_id, body.reason, operator)
        if again and not cancelled.ended_any:
            decides_nothing(request)
        ended = _ended(cancelled, broker, one=agent_id is not None)
        if cancelled.recorded:
            brokers = await broker.team.brokers.confirmed(broker.ledger.head.seq)
            return structs.replace(ended, brokers=brokers)
        return ended

    async def end_token(request: Request) -> ending.TokenRevokeAnswer:
        """Revoke one live token."""
        body = await body_of(request, asks.TokenRevokeRequest)
        operator = await authority.actor(operator_of(request), Need.REVOKE, body.id)
        ended, cancelled, durability = await revoke_token(
            broker, body.id, body.reason, operator
        )
        return ending.TokenRevokeAnswer(
            id=body.id,
            tokens_revoked=ended,
            calls_cut=cancelled.cut,
            calls_sent=cancelled.sent,
            **recorded_at(durability, broker.team.brokers),
        )

    return [route(calls.REVOKE, revoke), route(calls.REVOKE_TOKEN, end_token)]


def _is_stopped(broker: Broker, agent_id: str | None) -> bool:
    """Check whether an agent is revoked, or without an id whether all are stopped."""
    if agent_id is None:
        return broker.registry.revocations.panic is not None
    agent = broker.registry.find_agent(agent_id)
    return agent is not None and agent.status is AgentStatus.REVOKED


def _restoring(broker: Broker, authority: Authority) -> list[Route]:
    async def do_restore(
        body: asks.RestoreRequest, operator: Actor, how: How
    ) -> shapes.RestoreAnswer:
        agent_id, until = _one(body), moment_of(body.until, "until")
        if agent_id is None:
            return shapes.RestoreAnswer(agents=await lift_panic(broker, operator))
        own = None if how.loosens else partial(check_own, broker, operator)
        agent = await restore_agent(broker, agent_id, operator, until, own)
        return shapes.RestoreAnswer(agent=agent_info(agent, broker.registry))

    async def restore(request: Request) -> Response:
        """Restore one agent, or lift the panic.

        Raises:
            UsageError: an end was given for all.
        """
        body = await body_of(request, asks.RestoreRequest)
        agent_id, until = _one(body), moment_of(body.until, "until")
        if not _is_stopped(broker, agent_id):
            decides_nothing(request)
        if agent_id is None:
            if until is not None:
                raise UsageError("'until' is for one agent")
            lifting = Wanted(("panic",), "lift the panic", "all agents", ("panic",))
            return await restoring.settle(request, body, lifting)
        seat = operator_of(request)
        if not await authority.by_factor(seat):
            wanted = Wanted(("agents",), f"restore {visible(agent_id, 60)}", agent_id)
            return await restoring.settle(request, body, wanted, by_factor=False)
        agent = await broker.look_up(lambda: broker.registry.agent(agent_id))
        wanted = about_agent(agent, "restore", until=body.until)
        if until is None and authority.is_elsewhere(seat):
            with suppress(RefusedError):
                await check_own(broker, authority.named(seat), agent)
                wanted = replace(wanted, kinds=())
        return await restoring.settle(
            request, body, wanted, need=Need.OWN, by_factor=True
        )

    restoring = Loosening(authority, calls.RESTORE, asks.RestoreRequest, do_restore)
    return [route(calls.RESTORE, restore)]


def _page(
    broker: Broker, agents: Sequence[Agent], *, tokens: bool
) -> Iterator[shapes.AgentInfo]:
    """Return *agents* with counts of this moment, to which a console adds later events.

    Each is described when it is encoded.
    """
    registry = broker.registry
    counted = [(agent, registry.counts(agent.id)) for agent in agents]
    ends, foreseen = registry.ends(), registry.foresee()
    return (
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


def _ended(ended: Cut, broker: Broker, *, one: bool) -> ending.RevokeAnswer:
    revoked = [agent.status is AgentStatus.REVOKED for agent in ended.agents]
    return ending.RevokeAnswer(
        agent=agent_info(ended.agents[0], broker.registry) if one else UNSET,
        agents=UNSET if one else len(ended.agents),
        agents_revoked_before=0 if one else sum(revoked),
        panic_before=panic_info(ended.panic) if ended.panic else UNSET,
        tokens_revoked=ended.tokens,
        stepups_cancelled=ended.stepups,
        calls_cut=ended.calls.cut,
        calls_sent=ended.calls.sent,
        delegated_revoked=ended.delegated,
        derived_revoked=ended.derived,
        effective_ms=round(ended.effective_ms, 3),
        **recorded_at(ended.durability, broker.team.brokers),
        upstream=tuple(step_info(s) for s in ended.steps if s.status != "withdrawn"),
    )
