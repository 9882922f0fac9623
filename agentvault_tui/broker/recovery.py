"""After a start or an outage of the ledger: disk and memory say the same again."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta
from typing import Final

from agentvault_tui.broker.core import SYSTEM, Broker
from agentvault_tui.broker.registry import Registry
from agentvault_tui.broker.usecases.request import digest_of
from agentvault_tui.broker.usecases.stepup import cancelled, cancelled_draft
from agentvault_tui.clock import iso
from agentvault_tui.errors import LedgerError, NotFoundError
from agentvault_tui.ledger import (
    Astray,
    Change,
    Cooldown,
    DropAccount,
    DropAgentTokens,
    DropAllTokens,
    DropToken,
    Loaded,
    OutboxStep,
    Panic,
    Recovery,
)
from agentvault_tui.model import (
    Account,
    Agent,
    AgentStatus,
    Draft,
    Event,
    EventType,
    Lease,
    StepUp,
    StepUpStatus,
    Token,
)

_SKEW: Final = timedelta(seconds=2)
_NAMED: Final = 100
"""So many of a kind an event names."""

log = logging.getLogger("agentvault.recovery")


async def take_over(broker: Broker) -> None:
    """Start from what the last process left.

    A deadline of an earlier boot is judged by the wall clock alone. Set back to
    before the ledger's last event it would revive what had expired, so then nothing
    that can expire is taken over. What the rows would serve although events say
    otherwise is not: rows are outside the chain, so whoever can write the file can
    change them while no broker runs.
    """
    loaded = await broker.ledger.load()
    broker.kept = loaded.meta
    found = await broker.ledger.astray(loaded)
    last = await broker.ledger.event(broker.ledger.head.seq)
    await _take_over(broker, _without(loaded, found), last)
    if found:
        await _record_astray(broker, found)
    await _cancel_changed(broker)


async def _cancel_changed(broker: Broker) -> None:
    """Cancel step-ups whose digest does not cover what they say.

    Their rows were changed, or an older version wrote them under a digest that
    covered less.
    """
    registry = broker.registry
    known = [*registry.open_stepups(), *registry.decided_stepups()]
    for stepup in known:
        minted = registry.elevated(stepup.id)
        if not (stepup.status.open or minted) or digest_of(stepup) == stepup.digest:
            continue
        ended = cancelled(broker, stepup, "its digest does not cover it; ask again")
        if minted:
            registry.drop_token(minted)
        await broker.record_cut(
            cancelled_draft(ended, SYSTEM),
            changes=[ended, *([DropToken(minted.id)] if minted else [])],
        )


async def _take_over(broker: Broker, loaded: Loaded, last: Event | None) -> None:
    broker.replays.take_over(loaded.assertions)
    now = broker.clock.now()
    if last is None or now >= last.time - _SKEW:
        broker.registry.take_over(loaded)
        return
    ended = [
        replace(
            stepup,
            status=StepUpStatus.CANCELLED,
            problem="clock_set_back",
            decided_at=now,
            device=None,
        )
        for stepup in loaded.stepups
        if stepup.status.open or stepup.status is StepUpStatus.APPROVED
    ]
    over = {stepup.id for stepup in ended}
    kept = [stepup for stepup in loaded.stepups if stepup.id not in over]
    broker.registry.take_over(replace(loaded, tokens=(), stepups=(*kept, *ended)))
    await broker.record(
        Draft(
            EventType.CLOCK_JUMP,
            SYSTEM,
            reason=f"started before the last event of {iso(last.time)}",
            detail={"tokens_revoked": len(loaded.tokens)},
        ),
        changes=[DropAllTokens(), *ended],
    )


def _without(loaded: Loaded, found: Astray) -> Loaded:
    """Return what was loaded, with the stricter word of events where they differ."""
    cut = {agent.id: agent for agent in found.agents}
    gone = {token.id for token in found.tokens}
    kept = tuple(t for t in loaded.tokens if t.id not in gone and t.agent_id not in cut)
    return replace(
        loaded,
        agents=tuple(cut.get(agent.id, agent) for agent in loaded.agents),
        panic=loaded.panic or found.panic,
        tokens=() if found.panic else kept,
    )


async def _record_astray(broker: Broker, found: Astray) -> None:
    """Record what the rows said otherwise, put them right, and tell operators."""
    drops: list[Change] = (
        [DropAllTokens()]
        if found.panic
        else [DropAgentTokens(agent.id) for agent in found.agents]
    )
    told = [f"{len(found.agents)} agents"] if found.agents else []
    told += ["the panic"] if found.panic else []
    told += [f"{len(found.tokens)} elevated tokens"] if found.tokens else []
    broker.state_problem = (
        f"The ledger's state was changed behind its events ({', '.join(told)}): "
        "it is taken as the events say. Run agentvault audit verify."
    )
    log.warning("%s", broker.state_problem)
    await broker.record_cut(
        Draft(
            EventType.AUDIT_AMBIGUOUS,
            SYSTEM,
            reason="state_changed",
            detail={
                "agents": [agent.id for agent in found.agents][:_NAMED],
                "panic": found.panic is not None,
                "tokens": [token.id for token in found.tokens][:_NAMED],
            },
        ),
        changes=[
            *found.agents,
            *drops,
            *(DropToken(token.id) for token in found.tokens),
            *([found.panic] if found.panic else ()),
        ],
    )


async def recover(broker: Broker, recovery: Recovery) -> None:
    """Make good what an outage left: kept revocations, and a doubtful batch.

    What a *found* batch changed although its callers were told that it failed is
    written again as memory has it. What memory has nothing of was never handed out:
    an agent comes back revoked, a step-up cancelled.
    """
    if recovery.found:
        changes = tuple(c for attempt in recovery.attempts for c in attempt.changes)
        broker.unrecorded.append(((), changes))
    try:
        await record_missed(broker)
    except LedgerError as error:
        log.warning("recovery is not over: %s", error.what)
    broker.on_status()


async def record_missed(broker: Broker) -> None:
    """Write what was kept while the ledger could not, as things stand now.

    Raises:
        LedgerError: it latched again; what is left is kept for the next time.
    """
    async with broker.recording_missed:
        while broker.unrecorded:
            drafts, changes = broker.unrecorded[0]
            known = [_as_known(broker, change) for change in changes]
            await broker.record(
                *drafts, changes=[c for c in known if c is not None], urgent=True
            )
            broker.unrecorded.pop(0)
        if unsaved := broker.replays.unsaved:
            await broker.record(changes=unsaved)
            broker.replays.saved(unsaved)


def _as_known(broker: Broker, change: Change) -> Change | None:
    """Return what memory says of the thing *change* changed."""
    registry = broker.registry
    match change:
        case Agent():
            try:
                return registry.agent(change.id)
            except NotFoundError:
                revoked = replace(
                    change,
                    status=AgentStatus.REVOKED,
                    revoked_at=broker.clock.now(),
                )
                registry.put_agent(revoked)
                return revoked
        case StepUp():
            try:
                return registry.stepup(change.id)
            except NotFoundError:
                return replace(
                    change,
                    status=StepUpStatus.CANCELLED,
                    problem="never_answered",
                    decided_at=broker.clock.now(),
                    device=None,
                )
        case Panic():
            return registry.panic or replace(change, on=False)
        case Cooldown():
            return registry.cooldowns.of(change.agent_id)
        case OutboxStep():
            return registry.step(change.agent_id, change.id)
        case Account() | DropAccount() | Lease():
            return _at_connection(registry, change)
        case Token():
            return None  # the ledger voided the batch's tokens itself
        case _:
            return change


def _at_connection(
    registry: Registry, change: Account | DropAccount | Lease
) -> Account | DropAccount | Lease:
    where = change.agent_id, change.connection
    if isinstance(change, Lease):
        return registry.leases.of(*where) or change
    return registry.accounts.get(*where) or DropAccount(*where)
