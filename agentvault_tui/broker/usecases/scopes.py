"""Change an agent: give and take scopes, what it serves, and its client secret."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

from agentvault_tui.broker.core import Broker, CallsCut
from agentvault_tui.broker.cuts import Kept
from agentvault_tui.broker.usecases.register import (
    Registered,
    check_resources,
    check_scopes,
    ending_detail,
)
from agentvault_tui.broker.usecases.revoke import (
    FAILED,
    InForce,
    agent_draft,
    still_cut,
    unless_overtaken,
    unused,
)
from agentvault_tui.broker.usecases.stepup import cancelled, cancelled_draft
from agentvault_tui.errors import ConflictError, LedgerUnwritableError
from agentvault_tui.ledger import DropScopeTokens
from agentvault_tui.model import (
    Actor,
    Agent,
    Credential,
    Draft,
    EventType,
    StepUp,
    Token,
    new_secret,
    sha256_hex,
)
from agentvault_tui.text import visible


async def change_scopes(
    broker: Broker,
    agent_id: str,
    grant: frozenset[str],
    ungrant: frozenset[str],
    operator: Actor,
) -> tuple[Agent, CallsCut, int]:
    """Give and take scopes; taking one away ends live tokens and calls under it.

    What is taken away has its own record: a grant beside it may fail, and then the
    cut is kept for later all the same.

    Args:
        broker: the broker.
        agent_id: whose.
        grant: scopes to give.
        ungrant: scopes to take away.
        operator: who decided.

    Returns:
        the agent as it is now, how many of its calls were cut, and how many tokens
        ended that were exchanged for its own.

    Raises:
        NotFoundError: no such agent.
        ConflictError: it was revoked while the grant was being recorded.
        LedgerUnwritableError: a grant could not be recorded; what was taken away
            is cut all the same.
    """
    agent = await broker.known(lambda: broker.registry.agent(agent_id))
    recorded, below = True, 0
    async with ungranting(broker, agent, ungrant, operator) as (calls, in_force):
        if in_force is not None:
            below = len(in_force.below)
            recorded = await in_force.record(broker, operator) is Kept.LEDGER
    narrowed = broker.registry.agent(agent_id)
    if not grant - set(narrowed.scopes):
        return narrowed, calls, below
    if not recorded:
        # A grant written before it would be undone by the cut's own record.
        raise LedgerUnwritableError(
            "what was taken away is not on disk yet, so nothing was granted",
            "grant again when the ledger can write",
        )
    return await _grant(broker, narrowed, grant, operator), calls, below


@asynccontextmanager
async def ungranting(
    broker: Broker, agent: Agent, ungrant: frozenset[str], operator: Actor
) -> AsyncIterator[tuple[CallsCut, InForce | None]]:
    """Take scopes away in memory; in the block no token with one of them lives.

    Yields:
        the calls that were cut, and what is to be recorded in the block; None where
        nothing ended.
    """
    if not ungrant:
        yield CallsCut(), None
        return
    registry = broker.registry
    calls = broker.cut_calls(agent.id, ungrant)
    registry.put_agent(_with_scopes(agent, frozenset(agent.scopes) - ungrant))
    stepups = _cut_scopes(broker, agent, ungrant)
    repeats = broker.stepups.end_repeats(
        stepup
        for stepup in broker.stepups.repeating(agent.id)
        if ungrant & set(stepup.scope.split())
    )
    ended, carried, below = 0, set[str](), list[Token]()
    with registry.ending_scopes(agent.id, ungrant) as slices:
        for number, tokens in enumerate(slices):
            ended += len(tokens)
            below += broker.end_below(tokens)
            carried.update(scope for token in tokens for scope in token.scope.split())
            if number:
                await asyncio.sleep(0)
        gone = ungrant & set(agent.scopes)
        if not (gone or ended or stepups):
            yield calls, None
            return
        # Anew: it may have been revoked between two slices.
        current = registry.agent(agent.id)
        narrowed = _with_scopes(current, frozenset(current.scopes) - ungrant)
        draft = scopes_draft(operator, narrowed, ungranted=sorted(gone), tokens=ended)
        cancels = (cancelled_draft(stepup, operator) for stepup in stepups)
        drops = [DropScopeTokens(agent.id, one) for one in sorted(carried & ungrant)]
        yield (
            calls,
            InForce(
                (draft, *cancels),
                (narrowed, *drops, *repeats, *stepups),
                tuple(below),
                "scope_not_granted",
            ),
        )


async def _grant(
    broker: Broker, agent: Agent, grant: frozenset[str], operator: Actor
) -> Agent:
    """Give scopes, once that is on disk; a cut meanwhile wins."""
    if broker.registry.is_ending_scopes(agent.id):
        raise ConflictError(
            "scopes of this agent are being taken away right now",
            "grant again in a moment",
        )
    broker.ledger.check_writable()  # urgent for its place in the line alone
    # A cut recorded after it would end what is issued under it.
    await broker.cuts.record_missed()
    async with broker.registry.changing[agent.id]:
        agent = broker.registry.agent(agent.id)
        given = grant - set(agent.scopes)
        after = _with_scopes(agent, given.union(agent.scopes))
        draft = scopes_draft(operator, after, granted=sorted(given))
        stays = partial(scopes_draft, operator, ungranted=sorted(given), reason=FAILED)
        await record_change(broker, agent, after, draft, stays, urgent=True)
        current = broker.registry.agent(agent.id)
        wider = _with_scopes(current, grant.union(current.scopes))
        broker.registry.put_agent(wider)
        return wider


async def change_served(
    broker: Broker,
    agent_id: str,
    serves: Iterable[str] | None,
    resources: Iterable[str] | None,
    operator: Actor,
) -> Agent:
    """Change what a resource server serves.

    Args:
        broker: what serves it.
        agent_id: the resource server.
        serves: scopes in place of those it served; empty for all, None for the same.
        resources: likewise.
        operator: who decided.

    Returns:
        the changed agent.

    Raises:
        NotFoundError: no such agent.
        UsageError: a scope is unknown, or a resource is no URI.
        ConflictError: it is no resource server, or was cut off meanwhile.
        LedgerUnwritableError: it could not be recorded, and stays as it was.
    """
    scopes = None if serves is None else tuple(sorted(set(serves)))
    uris = None if resources is None else check_resources(resources)
    check_scopes(broker, scopes or ())

    def served(agent: Agent) -> Agent:
        return replace(
            agent,
            serves=agent.serves if scopes is None else scopes,
            resources=agent.resources if uris is None else uris,
        )

    async with broker.registry.changing[broker.registry.agent(agent_id).id]:
        await broker.cuts.record_missed()
        agent = broker.registry.agent(agent_id)
        if not agent.resource_server:
            raise ConflictError(
                f"{visible(agent.name, 60)} is no resource server",
                "register one: agentvault agents add NAME --resource-server",
            )
        after = served(agent)
        draft = scopes_draft(operator, after, served=True)
        stays = partial(scopes_draft, operator, served=True, reason=FAILED)
        await record_change(broker, agent, after, draft, stays)
        after = served(broker.registry.agent(agent_id))
        broker.registry.put_agent(after)
        return after


async def renew_secret(broker: Broker, agent_id: str, operator: Actor) -> Registered:
    """Make a client secret for an agent that has one, or no credential at all.

    The one before authenticates until the new one is on disk. Tokens live on: what
    ends those is a revocation.

    Args:
        broker: the broker.
        agent_id: whose.
        operator: who decided.

    Returns:
        the agent, and its secret, which is stored as a hash alone.

    Raises:
        NotFoundError: no such agent.
        ConflictError: it authenticates in another way, or was cut off meanwhile.
        LedgerUnwritableError: it could not be recorded, and nothing changed.
    """
    async with broker.registry.changing[broker.registry.agent(agent_id).id]:
        await broker.cuts.record_missed()
        agent = broker.registry.agent(agent_id)
        if agent.template or agent.credential.kind not in {"secret", "none"}:
            raise ConflictError(
                f"{visible(agent.name, 60)} authenticates without a secret",
                "register another agent for a client that has one",
            )
        secret = new_secret("av_s")
        credential = Credential(secret_sha256=sha256_hex(secret))
        after = replace(agent, credential=credential)
        draft = changed_draft(operator, after, ["credential"])
        stays = partial(changed_draft, operator, changed=[], reason=FAILED)
        await record_change(broker, agent, after, draft, stays)
        current = replace(broker.registry.agent(agent.id), credential=credential)
        broker.registry.put_agent(current)
        return Registered(current, secret)


async def record_change(
    broker: Broker,
    agent: Agent,
    after: Agent,
    draft: Draft,
    stays: Callable[[Agent], Draft],
    *,
    urgent: bool = False,
) -> None:
    """Record that *agent* becomes *after*; a cut meanwhile, or a failure, undoes it.

    Args:
        broker: the broker.
        agent: as it is.
        after: as it will be; the caller puts it into the registry.
        draft: the event.
        stays: returns the event that says that it stays as it is.
        urgent: whether it goes ahead of requests that wait to be recorded.

    Raises:
        LedgerUnwritableError: it could not be recorded.
        ConflictError: the agent was cut off meanwhile.
    """
    epoch = broker.registry.epoch(agent.id)
    async with still_cut(broker, agent, stays(agent)):
        await broker.record(draft, changes=[after], urgent=urgent)
    await unless_overtaken(broker, agent, epoch, draft.actor, stays)


def scopes_draft(
    operator: Actor,
    agent: Agent,
    *,
    granted: Sequence[str] = (),
    ungranted: Sequence[str] = (),
    tokens: int = 0,
    served: bool = False,
    reason: str | None = None,
) -> Draft:
    """Return the event of a change of what *agent* may do, as it is then."""
    draft = agent_draft(EventType.AGENT_SCOPES_CHANGED, operator, agent, reason)
    draft.detail.update(
        granted=list(granted), ungranted=list(ungranted), tokens_revoked=tokens
    )
    if served:
        draft.detail.update(serves=list(agent.serves), resources=list(agent.resources))
    return draft


def _with_scopes(agent: Agent, scopes: frozenset[str]) -> Agent:
    return replace(agent, scopes=tuple(sorted(scopes)))


def _cut_scopes(broker: Broker, agent: Agent, ungrant: frozenset[str]) -> list[StepUp]:
    """End decisions under way and step-ups for the scopes, in memory."""
    registry = broker.registry
    approved = unused(broker, agent.id)
    registry.void_decisions(agent.id)
    return [
        cancelled(broker, stepup, "scope_not_granted")
        for stepup in (*registry.stepups.open(agent.id), *approved)
        if ungrant & set(stepup.scope.split())
    ]


def changed_draft(
    operator: Actor, agent: Agent, changed: list[str], reason: str | None = None
) -> Draft:
    """Return the event that fields of *agent* changed, as it is then."""
    draft = agent_draft(EventType.AGENT_CHANGED, operator, agent, reason)
    draft.detail.update(
        purpose=agent.purpose,
        resource_server=agent.resource_server,
        credential=agent.credential.kind,
        changed=changed,
        **ending_detail(agent),
    )
    return draft
