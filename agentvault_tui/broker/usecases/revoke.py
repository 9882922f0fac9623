"""Revoke and restore: revoking is immediate and never waits for its record."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import datetime
from functools import partial
from itertools import chain, islice
from typing import Final

from agentvault_tui.broker.core import SYSTEM, Broker, decide_anew
from agentvault_tui.broker.cuts import Kept
from agentvault_tui.broker.extensions import CallsCut
from agentvault_tui.broker.held_tokens import HeldTokens
from agentvault_tui.broker.pending_cuts import Decided
from agentvault_tui.broker.revocations import Grant
from agentvault_tui.broker.team_copies import put
from agentvault_tui.broker.usecases.change_basis import changes_about
from agentvault_tui.broker.usecases.ending import Cancelling, Cut, InForce, unused
from agentvault_tui.broker.usecases.panic_end import PanicEnd
from agentvault_tui.broker.usecases.register import (
    check_end,
    check_subject_free,
    end_of,
    ending_detail,
)
from agentvault_tui.broker.usecases.stepup_end import ENDED_A_TURN
from agentvault_tui.clock import iso
from agentvault_tui.errors import ConflictError, LedgerUnwritableError, UsageError
from agentvault_tui.ledger import (
    Change,
    DropAgentTokens,
    Meta,
    OutboxStep,
    Panic,
)
from agentvault_tui.model import (
    Actor,
    Agent,
    AgentStatus,
    Draft,
    EventType,
    Token,
)

ENDED: Final = "ended"
"""The reason of a revocation at the end of an agent's time."""
TEMPLATE_REVOKED: Final = "template_revoked"
FAILED: Final = "it stays so: that it ended could not be recorded"
"""The reason of the event about a grant whose record failed."""

_NAMED: Final = 100
"""Tokens that an event names."""


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
        the ended rights, and the duration in milliseconds.

    Raises:
        NotFoundError: no such agent.
        LedgerUnwritableError: it is not known here, and the store did not answer.
    """
    await broker.look_up(lambda: broker.registry.agent(agent_id))
    end = AgentEnd(broker, agent_id, reason, operator)
    derived = broker.registry.lifetimes.derived(end.agent.id)
    end.derived = len(derived)
    in_force = end.begin()
    durability = await in_force.record(broker, operator)
    # What another broker had made from it is known now.
    derived = broker.registry.lifetimes.derived(end.agent.id)
    durability = (
        await _revoke_all(broker, derived, TEMPLATE_REVOKED, operator) or durability
    )
    return end.result(durability)


async def _revoke_all(
    broker: Broker, agents: Sequence[Agent], reason: str, operator: Actor
) -> Kept | None:
    """Revoke *agents*, a slice in a turn of the event loop.

    Returns:
        the place of the record until it is in the ledger; None if all is.
    """
    places: set[Kept] = set()
    for start in range(0, len(agents), ENDED_A_TURN):
        part = agents[start : start + ENDED_A_TURN]
        ends = [AgentEnd(broker, one.id, reason, operator).begin() for one in part]
        places |= {
            *await asyncio.gather(*(one.record(broker, operator) for one in ends))
        }
    return broker.recording.cuts.durability if places - {Kept.LEDGER} else None


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


class AgentEnd:
    """The revocation of one agent, and all that ends with it."""

    def __init__(
        self, broker: Broker, agent_id: str, reason: str, operator: Actor
    ) -> None:
        """Revoke nothing yet; see `begin`."""
        self.agent = broker.registry.agent(agent_id)
        """The agent, revoked once it has begun."""
        self.derived = 0
        """Agents that were made from it, and end with it."""
        self._broker, self._reason, self._operator = broker, reason, operator
        self._at = broker.clock.now()
        self._held: list[HeldTokens] = []
        """The tokens that it ended, without those that others ended before."""
        self._calls = CallsCut()
        self._steps: tuple[OutboxStep, ...] = ()
        self._effective_ms = 0.0
        self._below: list[Token] = []
        self._stepups = Cancelling(
            broker,
            "agent_revoked",
            lambda: [
                *broker.stepups.open(self.agent.id),
                *unused(broker, self.agent.id),
                *changes_about(broker, self.agent.id),
            ],
            lambda: broker.stepups.repeating(self.agent.id),
        )

    def begin(self) -> InForce:
        """Revoke it in memory, with all that it holds or waits for, at once."""
        broker, started = self._broker, self._broker.clock.boot()
        held = broker.registry.provider_tokens.of(self.agent.id)
        self._end()
        self._effective_ms = (broker.clock.boot() - started) * 1000
        broker.health.revocation_seconds.observe(self._effective_ms / 1000)
        self._steps = broker.reaching.outbox.cut(self.agent.id, held)
        broker.reaching.outbox.take(self._steps)
        return InForce(self._decide, self._record(), self._below, "agent_revoked")

    def _decide(self) -> Decided | None:
        """End the rights that others gave it meanwhile.

        Where every broker of a team revokes it, at its end, one of them records that.
        """
        current = self._broker.registry.agent(self.agent.id)
        revoked = current.status is AgentStatus.REVOKED and current is not self.agent
        if revoked and self._operator is SYSTEM:
            return None
        if revoked:  # the other ended these
            self._held = []
        self._end()
        return self._record()

    def _end(self) -> None:
        broker, registry = self._broker, self._broker.registry
        current_agent = registry.agent(self.agent.id)
        if (
            current_agent is not self.agent
            or current_agent.status is not AgentStatus.REVOKED
        ):
            self.agent = current_agent.revoked(self._at)
            registry.put_agent(self.agent)
        cancelled = broker.extensions.cut_calls(self.agent.id, by=self._operator)
        self._calls = self._calls.plus(cancelled)
        self._stepups.end()
        self._held.append(registry.cut_tokens(self.agent.id))
        passed_on = registry.delegations.passed_on_by(self.agent.id)
        self._below += broker.end_tokens(passed_on)[0]

    def _record(self) -> Decided:
        draft = agent_draft(
            EventType.AGENT_REVOKED, self._operator, self.agent, self._reason
        )
        below, derived = len(self._below), self.derived
        named = islice(chain.from_iterable(self._held), _NAMED)
        draft.detail.update(
            tokens=[token.id for token in named],
            tokens_revoked=sum(map(len, self._held)),
            stepups_cancelled=len(self._stepups),
            calls_cut=self._calls.cut,
            calls_sent=self._calls.sent,
            **({"delegated_revoked": below} if below else {}),
            **({"derived_revoked": derived} if derived else {}),
        )
        drop = DropAgentTokens(self.agent.id)
        drafts = draft, *self._stepups.drafts(self._operator)
        return Decided(drafts, (self.agent, drop, *self._stepups.changes, *self._steps))

    def result(self, durability: Kept) -> Cut:
        """Return the result."""
        count = sum(map(len, self._held))
        counts = count, len(self._stepups), self._effective_ms
        below = len(self._below)
        return Cut(
            (self.agent,),
            *counts,
            durability,
            self._steps,
            self._calls,
            below,
            self.derived,
        )


async def panic(broker: Broker, reason: str, operator: Actor) -> Cut:
    """Stop everything: nothing is issued, active or redeemed until it is lifted.

    Args:
        broker: the broker.
        reason: for the record, and every denial. Given while everything is stopped
            already, it is recorded as an event of its own and replaces the first one.
        operator: who decided.

    Returns:
        the ended rights, and the duration in milliseconds.
    """
    end = PanicEnd(broker, reason, operator)
    end.begin()
    durability = await end.record()
    broker.health.changed()
    return end.result(durability)


async def restore_agent(
    broker: Broker,
    agent_id: str,
    operator: Actor,
    until: datetime | None = None,
    check: Callable[[Agent], Awaitable[None]] | None = None,
) -> Agent:
    """Serve the agent again; tokens revoked before stay revoked.

    Args:
        broker: the broker.
        agent_id: which.
        operator: who decided.
        until: when it ends by itself now, if not when it did before.
        check: refuses; called where no other restore of it is under way.

    Returns:
        the agent, active, or the template.

    Raises:
        NotFoundError: no such agent.
        UsageError: its time is over, and no new one was given; or it is served.
        ConflictError: it was revoked again while this was being recorded, or its
            subject is another agent's by now.
        LedgerUnwritableError: granting needs its record first.
    """
    return await decide_anew(lambda: _restore(broker, agent_id, operator, until, check))


async def _restore(
    broker: Broker,
    agent_id: str,
    operator: Actor,
    until: datetime | None,
    check: Callable[[Agent], Awaitable[None]] | None,
) -> Agent:
    registry = broker.registry
    async with registry.changing[registry.agent(agent_id).id], AsyncExitStack() as more:
        agent = registry.agent(agent_id)
        if agent.status is not AgentStatus.REVOKED:
            if until is not None:
                raise UsageError("it is not revoked", "a new end is given to restore")
            return agent
        if agent.removed_at is not None:
            raise ConflictError("it was removed", "register another agent")
        await broker.recording.cuts.record_missed()
        grant = registry.unless_revoked(agent.id)
        if check is not None:
            await check(agent)
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
        steps = broker.reaching.outbox.restore(agent.id)
        stays = partial(agent_draft, EventType.AGENT_REVOKED, operator, reason=FAILED)
        draft = agent_draft(EventType.AGENT_RESTORED, operator, active, None)
        change = broker, agent, active, draft, stays
        await record_change(*change, rows=steps, grant=grant)
        broker.registry.put_agent(active)
        broker.reaching.outbox.take(steps)
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
    return await decide_anew(lambda: _lift_panic(broker, operator))


async def _lift_panic(broker: Broker, operator: Actor) -> int:
    revocations = broker.registry.revocations
    if revocations.panic is not None:
        if broker.health.verify_first:
            raise ConflictError(
                "the ledger did not hold when it was verified last, and was not "
                "verified since",
                "wait until agentvault doctor says that it is, then restore",
            )
        await broker.recording.cuts.record_missed()
    if (lifted := revocations.panic) is not None:
        detail: dict[str, object] = {"since": iso(lifted.since)}
        failed = Draft(EventType.PANIC_ON, operator, reason=FAILED)
        async with still_cut(broker, lifted, failed):
            await broker.record(
                Draft(EventType.PANIC_OFF, operator, detail=detail),
                changes=[replace(lifted, on=False)],
            )
        if (again := revocations.panic) is lifted:
            revocations.panic = None
            broker.health.changed()
        elif again is not None:
            detail = {"since": iso(again.since)}
            draft = Draft(
                EventType.PANIC_ON, operator, reason=again.reason, detail=detail
            )
            await broker.record_cut(draft, changes=[again])
            raise ConflictError("everything was stopped again meanwhile")
    agents = broker.registry.agents()
    return sum(agent.status is AgentStatus.ACTIVE for agent in agents)


@asynccontextmanager
async def still_cut(
    broker: Broker, ended: Agent | Panic, failed: Draft
) -> AsyncIterator[None]:
    """Retain a revocation whose end failed to be recorded; *failed* is its event.

    The record may have reached the disk all the same. A restart would then serve an
    agent that the operator sees as revoked.
    """
    broker.ledger.check_writable()
    try:
        yield
    except LedgerUnwritableError:
        await broker.record_cut(failed, changes=[ended])
        raise


async def record_change(
    broker: Broker,
    agent: Agent,
    after: Agent,
    draft: Draft,
    stays: Callable[[Agent], Draft],
    *,
    rows: Sequence[Change] = (),
    urgent: bool = False,
    grant: Grant | None = None,
) -> None:
    """Record that *agent* becomes *after*; a cut meanwhile, or a failure, undoes it.

    The cut's record came before this one, and a panic's has no row of the agent: the
    active state is recorded once more, so that it is the ledger's last word.

    Args:
        broker: the broker.
        agent: as it is.
        after: as it will be; the caller puts it into the registry.
        draft: the event.
        stays: returns the event that says that it stays as it is.
        rows: changes that belong to it; small values come into memory here.
        urgent: whether it goes ahead of requests that wait to be recorded.
        grant: since the change was judged; by default from now.

    Raises:
        LedgerUnwritableError: it could not be recorded.
        ConflictError: the agent was cut off meanwhile.
    """
    grant = grant or broker.registry.unless_revoked(agent.id)
    async with still_cut(broker, agent, stays(agent)):
        await broker.record(draft, changes=[after, *rows], urgent=urgent)
    for row in rows:
        if isinstance(row, Meta):
            put(broker.recording.meta, row.key, row.value)
    if not grant.revoked:
        return
    current = broker.registry.agent(agent.id)
    draft, what = stays(current), "what the agent may do was cut meanwhile"
    if current.status is AgentStatus.REVOKED:
        reason = "a grant that was being recorded was overtaken"
        draft = agent_draft(EventType.AGENT_REVOKED, draft.actor, current, reason)
        what = "the agent was revoked meanwhile"
    elif broker.registry.revocations.panic is not None:
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
