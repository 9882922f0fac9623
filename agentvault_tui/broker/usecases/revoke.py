"""Revoke and restore: revoking is immediate and never waits for its record."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Final

from agentvault_tui.broker.core import SYSTEM, Broker, CallsCut
from agentvault_tui.broker.cuts import Kept
from agentvault_tui.broker.held_tokens import HeldTokens
from agentvault_tui.broker.registry import Registry
from agentvault_tui.broker.usecases.register import (
    check_end,
    check_subject_free,
    end_of,
    ending_detail,
)
from agentvault_tui.broker.usecases.stepup import (
    ENDED_A_TURN,
    cancelled,
    cancelled_draft,
)
from agentvault_tui.clock import iso
from agentvault_tui.errors import (
    ConflictError,
    LedgerError,
    LedgerUnwritableError,
    NotFoundError,
    UsageError,
)
from agentvault_tui.ledger import (
    Change,
    DropAgentTokens,
    DropAllTokens,
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
    TokenId,
)
from agentvault_tui.text import visible

ENDED: Final = "ended"
"""The reason of a revocation at the end of an agent's time."""
TEMPLATE_REVOKED: Final = "template_revoked"
FAILED: Final = "it stays so: that it ended could not be recorded"
"""The reason of the event about a grant whose record failed."""

_NONE: Final = CallsCut()


@dataclass(frozen=True, slots=True)
class InForce:
    """A cut that is in force in memory, and what is to be recorded of it."""

    drafts: tuple[Draft, ...]
    changes: tuple[Change, ...]
    below: tuple[Token, ...] = ()
    """Tokens of other agents that ended with it, each with an event of its own."""
    reason: str = ""
    """Why those ended."""

    async def record(self, broker: Broker, operator: Actor) -> Kept:
        """Persist it; return where it is now."""
        with broker.cutting():
            kept = await broker.record_cut(*self.drafts, changes=self.changes)
            await broker.record_ended(self.below, operator, self.reason)
        return kept

    async def record_once(self, broker: Broker) -> Kept:
        """Persist an agent's end, unless another broker of the team did; see `record`.

        What another changed of it meanwhile is in memory by then, and looked at again.
        """
        agent_id = self.drafts[0].agent_id or ""
        try:
            await broker.record(*self.drafts, changes=self.changes)
        except LedgerError:
            if broker.registry.agent(agent_id) is not self.changes[0]:
                return Kept.LEDGER
            return await self.record(broker, SYSTEM)
        # Also what others issued before it was recorded, and this one followed since.
        broker.registry.cut_tokens(AgentId(agent_id))
        await broker.record_ended(self.below, SYSTEM, self.reason)
        return Kept.LEDGER


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
    derived: int = 0
    """Agents that were made from it, and ended with it."""

    @property
    def recorded(self) -> bool:
        """Tell whether its event is durable."""
        return self.kept is Kept.LEDGER


async def revoke_agent(
    broker: Broker, agent_id: str, reason: str, operator: Actor
) -> Cut:
    """Revoke one agent: its tokens, step-ups, calls in flight, next requests.

    The agents that were made from a template are revoked with it.

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
        LedgerUnwritableError: it is not known here, and the store did not answer.
    """
    await broker.known(lambda: broker.registry.agent(agent_id))
    found, in_force = cut_agent(broker, agent_id, reason, operator)
    derived = broker.registry.lifetimes.derived(found.agents[0].id)
    if derived:
        in_force.drafts[0].detail["derived_revoked"] = len(derived)
    kept = await in_force.record(broker, operator)
    kept = await _revoke_all(broker, derived, TEMPLATE_REVOKED, operator) or kept
    return replace(found, kept=kept, derived=len(derived))


async def revoke_token(
    broker: Broker, token_id: str, reason: str, operator: Actor
) -> tuple[int, CallsCut, Kept]:
    """Revoke one live token, with the calls it authorized and tokens exchanged for it.

    Args:
        broker: the broker.
        token_id: identifies the token.
        reason: for the record.
        operator: who decided.

    Returns:
        the number of tokens that ended, the cancelled calls, and where it is durable.

    Raises:
        NotFoundError: no live token has this id.
        LedgerUnwritableError: it is not known here, and the store did not answer.
    """

    def find() -> Token:
        found = broker.registry.token_with_id(TokenId(token_id))
        if found is None:
            raise NotFoundError(
                f"there is no live token '{visible(token_id, 60)}'",
                "`agentvault tokens list` names them",
            )
        return found

    ended, calls = broker.end_tokens([await broker.known(find)])
    return len(ended), calls, await broker.record_ended(ended, operator, reason)


async def _revoke_all(
    broker: Broker, agents: Sequence[Agent], reason: str, operator: Actor
) -> Kept | None:
    """Revoke *agents*, a slice in a turn of the event loop.

    Returns:
        where what is not in the ledger is kept; None where all is.
    """
    places: set[Kept] = set()
    seen_by_all = operator is SYSTEM and broker.ledger.shared is not None
    for start in range(0, len(agents), ENDED_A_TURN):
        part = agents[start : start + ENDED_A_TURN]
        cut = [cut_agent(broker, one.id, reason, operator)[1] for one in part]
        records = (
            one.record_once(broker) if seen_by_all else one.record(broker, operator)
            for one in cut
        )
        places |= {*await asyncio.gather(*records)}
    return broker.cuts.kept if places - {Kept.LEDGER} else None


async def revoke_ended(broker: Broker, late: float = 0.0) -> None:
    """Revoke the agents whose time is over, and those made from a revoked template.

    Nothing was issued to them since, whenever this is called. It is *late* seconds
    after their time, for another broker to do it first.
    """
    agents: dict[str, list[Agent]] = {ENDED: [], TEMPLATE_REVOKED: []}
    for one in broker.registry.lifetimes.take_ended(late):
        over = one.until is not None and one.until.passed(broker.clock)
        agents[ENDED if over else TEMPLATE_REVOKED].append(one)
    for reason, ended in agents.items():
        await _revoke_all(broker, ended, reason, SYSTEM)


def cut_agent(
    broker: Broker, agent_id: str, reason: str, operator: Actor
) -> tuple[Cut, InForce]:
    """Revoke one agent in memory; see `revoke_agent`."""
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
    draft = agent_draft(EventType.AGENT_REVOKED, operator, revoked, reason)
    draft.detail.update(
        tokens=[token.id for token in islice(tokens, 100)],
        tokens_revoked=len(tokens),
        stepups_cancelled=len(stepups),
        calls_cut=calls.cut,
        calls_sent=calls.sent,
        **({"delegated_revoked": len(below)} if below else {}),
    )
    cancels = (cancelled_draft(stepup, operator) for stepup in stepups)
    ended: list[Change] = [*repeats, *stepups, *steps]
    in_force = InForce(
        (draft, *cancels),
        (revoked, DropAgentTokens(revoked.id), *ended),
        tuple(below),
        "agent_revoked",
    )
    counts = len(tokens), len(stepups), effective_ms
    return Cut((revoked,), *counts, Kept.MEMORY, steps, calls, len(below)), in_force


def _switch_on(broker: Broker, reason: str, operator: Actor) -> Panic:
    """Return the panic switch, on; equal to what it was where nothing is new.

    It is a new object each time: a lift that is being recorded sees that it was
    overtaken.
    """
    before = broker.registry.panic
    if before is None:
        return Panic(True, broker.clock.now(), operator.name, reason)
    if not reason or reason == before.reason:
        return replace(before)
    return replace(before, by=operator.name, reason=reason)


async def panic(broker: Broker, reason: str, operator: Actor) -> Cut:
    """Stop everything: nothing is issued, active or redeemed until it is lifted.

    Args:
        broker: the broker.
        reason: for the record, and every denial. Given while everything is stopped
            already, it is recorded as an event of its own and replaces the first one.
        operator: who decided.

    Returns:
        what ended, and in how many milliseconds.
    """
    started = broker.clock.boot()
    registry = broker.registry
    before = registry.panic
    switch = registry.panic = _switch_on(broker, reason, operator)
    calls = broker.cut_calls(None)
    approved = unused(broker)
    delegated = len(registry.delegations)
    count = registry.cut_all_tokens()
    waiting = [*registry.stepups.open(), *approved]
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
        **({"since": iso(before.since)} if before else {}),
    }
    head = Draft(EventType.PANIC_ON, operator, reason=reason, detail=detail)
    drafts: list[Draft] = [] if switch == before else [head]
    # Also where memory has none: one may be on its way out, taken for a delivery.
    changes: list[Change] = [switch, DropAllTokens()]
    changes += registry.stepups.end_repeats(registry.stepups.repeating(None))
    records: list[asyncio.Task[Kept]] = []
    with broker.cutting():
        for start in range(0, len(waiting) or 1, ENDED_A_TURN):
            if start:
                await asyncio.sleep(0)
            for stepup in waiting[start : start + ENDED_A_TURN]:
                now = registry.stepups.get(stepup.id)
                if now is stepup or now.status.open:
                    ended = cancelled(broker, now, "panic")
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


async def restore_agent(
    broker: Broker, agent_id: str, operator: Actor, until: datetime | None = None
) -> Agent:
    """Serve the agent again; tokens revoked before stay revoked.

    Args:
        broker: the broker.
        agent_id: which.
        operator: who decided.
        until: when it ends by itself now, if not when it did before.

    Returns:
        the agent, active, or the template.

    Raises:
        NotFoundError: no such agent.
        UsageError: its time is over, and no new one was given; or it is served.
        ConflictError: it was revoked again while this was being recorded, or its
            subject is another agent's by now.
        LedgerUnwritableError: granting needs its record first.
    """
    registry = broker.registry
    async with registry.changing[registry.agent(agent_id).id], AsyncExitStack() as more:
        agent = registry.agent(agent_id)
        if agent.status is not AgentStatus.REVOKED:
            if until is not None:
                raise UsageError("it is not revoked", "a new end is given to restore")
            return agent
        await broker.cuts.record_missed()
        if subject := agent.credential.subject:
            await more.enter_async_context(registry.giving_subject)
            check_subject_free(broker, subject, agent.id)
        active = agent.restored()
        if until is not None:
            template = active.from_template and broker.registry.agent(
                active.from_template
            )
            active = replace(active, until=end_of(broker, until, template or None))
        check_end(broker, active)
        epoch = broker.registry.epoch(agent.id)
        steps = broker.outbox.restore(agent.id)
        stays = partial(agent_draft, EventType.AGENT_REVOKED, operator, reason=FAILED)
        async with still_cut(broker, agent, stays(agent)):
            await broker.record(
                agent_draft(EventType.AGENT_RESTORED, operator, active, None),
                changes=[active, *steps],
            )
        await unless_overtaken(broker, agent, epoch, operator, stays)
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
        failed = Draft(EventType.PANIC_ON, operator, reason=FAILED)
        async with still_cut(broker, lifted, failed):
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


def _cut(broker: Broker, agent: Agent, reason: str) -> tuple[HeldTokens, list[StepUp]]:
    """End everything the agent holds or waits for, in memory, at once."""
    approved = unused(broker, agent.id)
    tokens = broker.registry.cut_tokens(agent.id)
    stepups = [
        cancelled(broker, stepup, reason)
        for stepup in (*broker.stepups.open(agent.id), *approved)
    ]
    return tokens, stepups


def unused(broker: Broker, agent_id: AgentId | None = None) -> list[StepUp]:
    """Return approved step-ups whose token lives: a revocation ends the approval too.

    What is being recorded as used up is not among them.
    """
    return [
        stepup
        for stepup in broker.stepups.approved(agent_id)
        if broker.registry.elevated(stepup.id)
    ]


@asynccontextmanager
async def still_cut(
    broker: Broker, cut: Agent | Panic, failed: Draft
) -> AsyncIterator[None]:
    """Keep a cut whose end is recorded in a block that fails; *failed* is its event.

    The record may have reached the disk all the same, and then a restart would serve
    what the operator was told is still cut.
    """
    broker.ledger.check_writable()
    try:
        yield
    except LedgerUnwritableError:
        await broker.record_cut(failed, changes=[cut])
        raise


async def unless_overtaken(
    broker: Broker,
    agent: Agent,
    epoch: tuple[int, bool],
    operator: Actor,
    stays: Callable[[Agent], Draft],
) -> None:
    """Let a cut win over a grant whose record was still being written.

    The cut's record went ahead of the grant's, and a panic's has no row of the agent:
    what is in force is said once more, so that it is the ledger's last word.

    Args:
        broker: the broker.
        agent: as it was before the grant.
        epoch: of then.
        operator: who granted.
        stays: returns the event that says that an agent stays as it is.

    Raises:
        ConflictError: there was a cut.
    """
    if broker.registry.epoch(agent.id) == epoch:
        return
    current = broker.registry.agent(agent.id)
    draft, what = stays(current), "what the agent may do was cut meanwhile"
    if current.status is AgentStatus.REVOKED:
        reason = "a grant that was being recorded was overtaken"
        draft = agent_draft(EventType.AGENT_REVOKED, operator, current, reason)
        what = "the agent was revoked meanwhile"
    elif broker.registry.panic is not None:
        what = "all agents were stopped meanwhile"
    await broker.record_cut(draft, changes=[current])
    raise ConflictError(what, "look at it before granting again")


def agent_draft(
    kind: EventType, actor: Actor, agent: Agent, reason: str | None
) -> Draft:
    """Return an event about *agent*, as it is then."""
    detail: dict[str, object] = {
        "agent": agent.name,
        "owner": agent.owner,
        "scopes": list(agent.scopes),
        **(ending_detail(agent) if kind is EventType.AGENT_RESTORED else {}),
    }
    return Draft(kind, actor, agent_id=agent.id, reason=reason, detail=detail)
