"""Revoke and restore: revoking is immediate and never waits for its record."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

from agentvault_tui.broker.core import Broker, CallsCut
from agentvault_tui.broker.cuts import Kept
from agentvault_tui.broker.registry import HeldTokens, Registry
from agentvault_tui.broker.usecases.register import check_resources, check_scopes
from agentvault_tui.broker.usecases.stepup import (
    ENDED_A_TURN,
    cancelled,
    cancelled_draft,
)
from agentvault_tui.clock import iso
from agentvault_tui.errors import ConflictError, LedgerUnwritableError
from agentvault_tui.ledger import (
    Change,
    DropAgentTokens,
    DropAllTokens,
    DropScopeTokens,
    OutboxStep,
    Panic,
)
from agentvault_tui.model import (
    Actor,
    Agent,
    AgentId,
    AgentStatus,
    Draft,
    EventType,
    StepUp,
    Token,
)
from agentvault_tui.text import visible

_FAILED: Final = "it stays so: that it ended could not be recorded"

_NONE: Final = CallsCut()


@dataclass(frozen=True, slots=True)
class Cut:
    """What a revocation cut, and how long that took."""

    agents: tuple[Agent, ...]
    tokens: int
    stepups: int
    effective_ms: float
    """From the call until nothing was served any more."""
    kept: Kept
    """Where it is durable; if not in the ledger, it is recorded when that works."""
    steps: tuple[OutboxStep, ...] = ()
    """What is still to be done at the tenant and at providers."""
    calls: CallsCut = _NONE
    delegated: int = 0
    """Tokens that were exchanged for those, directly or further."""

    @property
    def recorded(self) -> bool:
        """Tell whether its event is durable."""
        return self.kept is Kept.LEDGER


async def revoke_agent(
    broker: Broker, agent_id: str, reason: str, operator: Actor
) -> Cut:
    """Revoke one agent: its tokens, step-ups, calls in flight, next requests.

    In force in memory before the record, which it waits for at most about two seconds.

    Args:
        broker: the broker.
        agent_id: which.
        reason: for the record.
        operator: who decided.

    Returns:
        what ended, and in how many milliseconds.

    Raises:
        NotFoundError: no such agent.
    """
    started = broker.clock.boot()
    agent = broker.registry.agent(agent_id)
    held = broker.registry.provider_tokens.of(agent.id)
    revoked = agent.revoked(broker.clock.now())
    broker.registry.put_agent(revoked)
    calls = broker.cut_calls(revoked.id)
    tokens, stepups = _cut(broker, revoked, "agent_revoked")
    passed_on = broker.registry.delegations.passed_on_by(revoked.id)
    below, _ = broker.end_tokens(passed_on)
    repeats = broker.stepups.end_repeats(broker.stepups.repeating(revoked.id))
    effective_ms = (broker.clock.boot() - started) * 1000
    broker.revocation_seconds.observe(effective_ms / 1000)
    steps = broker.outbox.cut(revoked.id, held)
    broker.outbox.take(steps)
    ended: list[Change] = [*repeats, *stepups, *steps]
    draft = _draft(EventType.AGENT_REVOKED, operator, revoked, reason)
    draft.detail.update(
        tokens=[token.id for token in islice(tokens, 100)],
        tokens_revoked=len(tokens),
        stepups_cancelled=len(stepups),
        calls_cut=calls.cut,
        calls_sent=calls.sent,
        **({"delegated_revoked": len(below)} if below else {}),
    )
    with broker.cutting():
        kept = await broker.record_cut(
            draft,
            *(cancelled_draft(stepup, operator) for stepup in stepups),
            changes=[revoked, DropAgentTokens(revoked.id), *ended],
        )
        await broker.record_ended(below, operator, "agent_revoked")
    counts = len(tokens), len(stepups), effective_ms
    return Cut((revoked,), *counts, kept, steps, calls, len(below))


async def panic(broker: Broker, reason: str, operator: Actor) -> Cut:
    """Stop everything: nothing is issued, active or redeemed until it is lifted.

    Args:
        broker: the broker.
        reason: for the record, and every denial.
        operator: who decided.

    Returns:
        what ended, and in how many milliseconds.
    """
    started = broker.clock.boot()
    registry = broker.registry
    first = registry.panic is None
    # A new object each time: a lift that is being recorded sees that it was overtaken.
    registry.panic = (
        replace(registry.panic)
        if registry.panic
        else Panic(True, broker.clock.now(), operator.name, reason)
    )
    calls = broker.cut_calls(None)
    unused = _unused(broker)
    delegated = len(registry.delegations)
    count = registry.cut_all_tokens()
    waiting = [*registry.stepups.open(), *unused]
    effective_ms = (broker.clock.boot() - started) * 1000
    broker.revocation_seconds.observe(effective_ms / 1000)
    tokens = count()
    detail = {
        "agents": registry.agent_count,
        "tokens_revoked": tokens,
        "stepups_cancelled": len(waiting),
        "calls_cut": calls.cut,
        "calls_sent": calls.sent,
        **({"delegated_revoked": delegated} if delegated else {}),
    }
    head = Draft(EventType.PANIC_ON, operator, reason=reason, detail=detail)
    drafts: list[Draft] = [head] if first else []
    # Also where memory has none: one may be on its way out, taken for a delivery.
    changes: list[Change] = [registry.panic, DropAllTokens()]
    changes += registry.stepups.end_repeats(registry.stepups.repeating(None))
    records: list[asyncio.Task[Kept]] = []
    with broker.cutting():
        for start in range(0, len(waiting) or 1, ENDED_A_TURN):
            if start:
                await asyncio.sleep(0)
            for stepup in waiting[start : start + ENDED_A_TURN]:
                if registry.stepups.get(stepup.id) is stepup:
                    ended = cancelled(broker, stepup, "panic")
                    drafts.append(cancelled_draft(ended, operator))
                    changes.append(ended)
            record = broker.record_cut(*drafts, changes=changes)
            records.append(asyncio.create_task(record))
            drafts, changes = [], []
        recorded = set(await asyncio.gather(*records)) == {Kept.LEDGER}
    broker.on_status()
    agents = tuple(registry.agents())
    kept = Kept.LEDGER if recorded else broker.cuts.kept
    counts = tokens, len(waiting), effective_ms
    return Cut(agents, *counts, kept, calls=calls, delegated=delegated)


async def restore_agent(broker: Broker, agent_id: str, operator: Actor) -> Agent:
    """Serve the agent again; tokens revoked before stay revoked.

    Args:
        broker: the broker.
        agent_id: which.
        operator: who decided.

    Returns:
        the agent, active.

    Raises:
        NotFoundError: no such agent.
        ConflictError: it was revoked again while this was being recorded.
        LedgerUnwritableError: granting needs its record first.
    """
    async with broker.registry.changing[broker.registry.agent(agent_id).id]:
        agent = broker.registry.agent(agent_id)
        if agent.status is AgentStatus.ACTIVE:
            return agent
        await broker.cuts.record_missed()
        active = replace(agent, status=AgentStatus.ACTIVE, revoked_at=None)
        epoch = broker.registry.epoch(agent.id)
        steps = broker.outbox.restore(agent.id)
        async with _still_cut(
            broker, agent, _draft(EventType.AGENT_REVOKED, operator, agent, _FAILED)
        ):
            await broker.record(
                _draft(EventType.AGENT_RESTORED, operator, active, None),
                changes=[active, *steps],
            )
        await _unless_overtaken(broker, agent, epoch, operator)
        broker.registry.put_agent(active)
        broker.outbox.take(steps)
        return active


async def lift_panic(broker: Broker, operator: Actor) -> int:
    """Serve again; agents revoked singly stay revoked.

    Args:
        broker: the broker.
        operator: who decided.

    Returns:
        how many agents are served now.

    Raises:
        ConflictError: someone stopped everything again while this was being recorded,
            or the ledger has to be verified first.
        LedgerUnwritableError: granting needs its record first.
    """
    registry = broker.registry
    if registry.panic is not None:
        if broker.verify_first:
            raise ConflictError(
                "the ledger did not hold when it was verified last, and was not "
                "verified since",
                "wait until agentvault doctor says that it is, then restore",
            )
        await broker.cuts.record_missed()
        lifted = registry.panic
        since = lifted.since
        failed = Draft(EventType.PANIC_ON, operator, reason=_FAILED)
        async with _still_cut(broker, lifted, failed):
            await broker.record(
                Draft(EventType.PANIC_OFF, operator, detail={"since": iso(since)}),
                changes=[replace(lifted, on=False)],
            )
        again = _panic(registry)
        if again is None:
            return _served(registry)
        if again is not lifted:
            await broker.record_cut(
                Draft(
                    EventType.PANIC_ON,
                    operator,
                    reason=again.reason,
                    detail={"since": iso(again.since)},
                ),
                changes=[again],
            )
            raise ConflictError("everything was stopped again meanwhile")
        registry.panic = None
        broker.on_status()
    return _served(registry)


def _panic(registry: Registry) -> Panic | None:
    """Return the panic anew: others ran while the record was written."""
    return registry.panic


def _served(registry: Registry) -> int:
    return sum(agent.status is AgentStatus.ACTIVE for agent in registry.agents())


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
    agent = broker.registry.agent(agent_id)
    calls = broker.cut_calls(agent.id, ungrant) if ungrant else _NONE
    recorded, below = await _ungrant(broker, agent, ungrant, operator)
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


async def _ungrant(
    broker: Broker, agent: Agent, ungrant: frozenset[str], operator: Actor
) -> tuple[bool, int]:
    """Take scopes away, in memory first.

    Returns:
        whether that is durable now, and how many tokens ended that were exchanged for
        those with the scopes.
    """
    if not ungrant:
        return True, 0
    registry = broker.registry
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
            return True, 0
        # Anew: it may have been revoked between two slices.
        current = registry.agent(agent.id)
        narrowed = _with_scopes(current, frozenset(current.scopes) - ungrant)
        draft = scopes_draft(operator, narrowed, ungranted=sorted(gone), tokens=ended)
        drops = [DropScopeTokens(agent.id, one) for one in sorted(carried & ungrant)]
        with broker.cutting():
            kept = await broker.record_cut(
                draft,
                *(cancelled_draft(stepup, operator) for stepup in stepups),
                changes=[narrowed, *drops, *repeats, *stepups],
            )
            await broker.record_ended(below, operator, "scope_not_granted")
    return kept is Kept.LEDGER, len(below)


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
        failed = scopes_draft(operator, agent, ungranted=sorted(given), reason=_FAILED)
        await record_change(broker, agent, after, draft, failed, urgent=True)
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
        failed = scopes_draft(operator, agent, served=True, reason=_FAILED)
        await record_change(broker, agent, after, draft, failed)
        after = served(broker.registry.agent(agent_id))
        broker.registry.put_agent(after)
        return after


async def record_change(
    broker: Broker,
    agent: Agent,
    after: Agent,
    draft: Draft,
    failed: Draft,
    *,
    urgent: bool = False,
) -> None:
    """Record that *agent* becomes *after*; a cut meanwhile, or a failure, undoes it.

    Args:
        broker: the broker.
        agent: as it is.
        after: as it will be; the caller puts it into the registry.
        draft: the event.
        failed: the event that says it stays as it is.
        urgent: whether it goes ahead of requests that wait to be recorded.

    Raises:
        LedgerUnwritableError: it could not be recorded.
        ConflictError: the agent was cut off meanwhile.
    """
    epoch = broker.registry.epoch(agent.id)
    async with _still_cut(broker, agent, failed):
        await broker.record(draft, changes=[after], urgent=urgent)
    await _unless_overtaken(broker, agent, epoch, draft.actor)


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
    draft = _draft(EventType.AGENT_SCOPES_CHANGED, operator, agent, reason)
    draft.detail.update(
        granted=list(granted), ungranted=list(ungranted), tokens_revoked=tokens
    )
    if served:
        draft.detail.update(serves=list(agent.serves), resources=list(agent.resources))
    return draft


def _with_scopes(agent: Agent, scopes: frozenset[str]) -> Agent:
    return replace(agent, scopes=tuple(sorted(scopes)))


def _cut(broker: Broker, agent: Agent, reason: str) -> tuple[HeldTokens, list[StepUp]]:
    """End everything the agent holds or waits for, in memory, at once."""
    unused = _unused(broker, agent.id)
    tokens = broker.registry.cut_tokens(agent.id)
    stepups = [
        cancelled(broker, stepup, reason)
        for stepup in (*broker.stepups.open(agent.id), *unused)
    ]
    return tokens, stepups


def _unused(broker: Broker, agent_id: AgentId | None = None) -> list[StepUp]:
    """Return approved step-ups whose token lives: a revocation ends the approval too.

    What is being recorded as used up is not among them.
    """
    return [
        stepup
        for stepup in broker.stepups.approved(agent_id)
        if broker.registry.elevated(stepup.id)
    ]


@asynccontextmanager
async def _still_cut(
    broker: Broker, cut: Agent | Panic, failed: Draft
) -> AsyncIterator[None]:
    """Keep a cut whose end is recorded in a block that fails.

    The record may have reached the disk all the same, and then a restart would serve
    what the operator was told is still cut.

    Args:
        broker: the broker.
        cut: what stays as it is.
        failed: the event that says so.
    """
    broker.ledger.check_writable()
    try:
        yield
    except LedgerUnwritableError:
        await broker.record_cut(failed, changes=[cut])
        raise


async def _unless_overtaken(
    broker: Broker, agent: Agent, epoch: tuple[int, bool], operator: Actor
) -> None:
    """Let a revocation win over a grant whose record was still being written.

    The revocation's record went ahead of the grant's, so it is said once more: the
    ledger's last word is what is in force.
    """
    if broker.registry.epoch(agent.id) == epoch:
        return
    current = broker.registry.agent(agent.id)
    if current.status is AgentStatus.REVOKED:
        reason = "a grant that was being recorded was overtaken"
        await broker.record_cut(
            _draft(EventType.AGENT_REVOKED, operator, current, reason),
            changes=[current],
        )
    raise ConflictError(
        "the agent was revoked meanwhile", "look at it before granting again"
    )


def _cut_scopes(broker: Broker, agent: Agent, ungrant: frozenset[str]) -> list[StepUp]:
    """End decisions under way and step-ups for the scopes, in memory."""
    registry = broker.registry
    unused = _unused(broker, agent.id)
    registry.void_decisions(agent.id)
    return [
        cancelled(broker, stepup, "scope_not_granted")
        for stepup in (*registry.stepups.open(agent.id), *unused)
        if ungrant & set(stepup.scope.split())
    ]


def _draft(kind: EventType, actor: Actor, agent: Agent, reason: str | None) -> Draft:
    detail: dict[str, object] = {
        "agent": agent.name,
        "owner": agent.owner,
        "scopes": list(agent.scopes),
    }
    return Draft(kind, actor, agent_id=agent.id, reason=reason, detail=detail)
