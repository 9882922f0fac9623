"""Bring disk and memory into agreement after a start, or an outage of the ledger."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from typing import Final

from agentvault_tui.broker.core import SYSTEM, Broker
from agentvault_tui.broker.lifetimes import as_loaded
from agentvault_tui.broker.stepups import as_cancelled, digest_of
from agentvault_tui.broker.usecases.approvals import end_repeats
from agentvault_tui.broker.usecases.change_basis import states_of
from agentvault_tui.broker.usecases.delegate import change_delegates
from agentvault_tui.broker.usecases.disconnect import close_accounts
from agentvault_tui.broker.usecases.policy_change import keep_policy, take_over_policy
from agentvault_tui.broker.usecases.policy_edits import hold_policy_edits
from agentvault_tui.broker.usecases.redeem import PARENT_ENDED
from agentvault_tui.broker.usecases.revoke import panic, revoke_agent, revoke_ended
from agentvault_tui.broker.usecases.scopes import change_scopes
from agentvault_tui.broker.usecases.stepup_end import cancelled, cancelled_draft, deny
from agentvault_tui.broker.usecases.team_edits import hold_team_edits
from agentvault_tui.broker.usecases.timed_grants import end_due
from agentvault_tui.broker.uses import revoked_draft
from agentvault_tui.broker.verification import fault_recorded
from agentvault_tui.clock import Clock, iso, parse_iso
from agentvault_tui.errors import LedgerError, LedgerUnwritableError, NotFoundError
from agentvault_tui.ledger import (
    Change,
    CutJournal,
    DropAccount,
    DropAgentTokens,
    DropAllTokens,
    DropToken,
    EventQuery,
    KeptCut,
    Loaded,
    OutboxStep,
    Recovery,
    StateDivergence,
)
from agentvault_tui.ledger.docs import read_cooldown
from agentvault_tui.model import (
    Actor,
    ActorKind,
    AgentId,
    AgentStatus,
    Draft,
    Event,
    EventType,
    Lease,
    StepUp,
    StepUpStatus,
)

_SKEW: Final = timedelta(seconds=2)
_NAMED: Final = 100
"""Rows of a kind that an event names."""

log = logging.getLogger("agentvault.recovery")


async def take_over(broker: Broker, listen: Callable[[], None] = lambda: None) -> None:
    """Start from the state of the last process.

    A deadline of an earlier boot is judged by the wall clock alone. Where that was set
    back to before the ledger's last event, nothing that can expire is taken over. Rows
    that contradict the chain are not taken over either.

    Args:
        broker: the broker, with an empty memory.
        listen: connects it to other brokers' records, once the rest is in memory:
            between the two no record of theirs may be missed.
    """
    shared = broker.ledger.shared
    async with shared.taking if shared else nullcontext():
        loaded = await broker.ledger.load()
        broker.recording.meta.update(loaded.meta)
        divergence = await broker.ledger.diverged(loaded)
        last = await broker.ledger.event(broker.ledger.head.seq)
        loaded = trusted(broker, loaded, divergence)
        latest = last.time if last else broker.clock.now()
        agents = tuple(as_loaded(one, broker.clock, latest) for one in loaded.agents)
        loaded = replace(loaded, agents=agents)
        behind = last is not None and broker.clock.now() < last.time - _SKEW
        retained, ended = loaded, list[StepUp]()
        if behind:
            ended = ended_stepups(loaded, "clock_set_back", broker.clock)
            over = {stepup.id for stepup in ended}
            rest = (one for one in loaded.stepups if one.id not in over)
            retained = replace(loaded, tokens=(), stepups=(*rest, *ended))
        broker.admitting.replays.take_over(loaded.assertions, broker.clock)
        broker.registry.take_over(retained)
        listen()
    if last is not None and behind:
        await broker.record_cut(
            Draft(
                EventType.CLOCK_JUMP,
                SYSTEM,
                reason=f"started before the last event of {iso(last.time)}",
                detail={"tokens_revoked": len(loaded.tokens)},
            ),
            changes=[DropAllTokens(), *ended],
        )
    if divergence:
        await _record_divergence(broker, divergence)
    # What ended with the token it was exchanged for, before its own end was recorded.
    orphans = broker.registry.end_tokens(broker.registry.orphans())
    await broker.record_ended(orphans, SYSTEM, PARENT_ENDED)
    await _cancel_changed(broker)
    broker.extensions.states.update(states_of(broker))
    hold_policy_edits(broker)
    hold_team_edits(broker)
    await take_over_policy(broker)
    await apply_kept(broker)
    await revoke_ended(broker)
    await end_due(broker, latest)
    if broker.registry.revocations.panic is not None:
        broker.health.verify_first = await fault_recorded(broker)


async def _cancel_changed(broker: Broker) -> None:
    """Cancel step-ups whose digest does not match their content: changed rows."""
    registry = broker.registry
    stepups = [*registry.stepups.open(), *registry.stepups.decided()]
    for stepup in stepups:
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


def ended_stepups(loaded: Loaded, problem: str, clock: Clock) -> list[StepUp]:
    """Return the step-ups that still permit something, as they are once that is over.

    Args:
        loaded: the state.
        problem: why those that wait, or are approved and not redeemed, are cancelled.
        clock: the clock.

    Returns:
        those, cancelled, and redeemed ones that could be repeated, without that.
    """
    return [
        as_cancelled(stepup, problem, clock.now())
        for stepup in loaded.stepups
        if stepup.status.open or stepup.status is StepUpStatus.APPROVED
    ] + [
        stepup.repeated_no_more()
        for stepup in loaded.stepups
        if stepup.status is StepUpStatus.REDEEMED and stepup.repeats(clock)
    ]


def trusted(broker: Broker, loaded: Loaded, divergence: StateDivergence) -> Loaded:
    """Return the loaded state, with the chain's values if the rows contradict it."""
    changed = {agent.id: agent for agent in divergence.agents}
    now = broker.clock.now()
    ended = {
        one.id: as_cancelled(one, "state_changed", now) for one in divergence.stepups
    }
    gone = {token.id for token in (*divergence.tokens, *divergence.expired)}
    cooling = {one.requester: one for one in (*loaded.cooldowns, *divergence.cooldowns)}
    return replace(
        loaded,
        agents=tuple(changed.get(agent.id, agent) for agent in loaded.agents),
        panic=divergence.panic or loaded.panic,
        tokens=tuple(
            token
            for token in loaded.tokens
            if not divergence.panic and token.agent_id not in changed
            if token.id not in gone
        ),
        numbers=(),
        issued=(),
        stepups=tuple(
            ended.get(stepup.id, stepup)
            for stepup in loaded.stepups
            if stepup not in divergence.decided
        ),
        accounts=tuple(
            one for one in loaded.accounts if one not in divergence.accounts
        ),
        leases=tuple(one for one in loaded.leases if one not in divergence.leases),
        cooldowns=tuple(cooling.values()),
        outbox=tuple(step for step in loaded.outbox if step not in divergence.steps),
    )


async def _record_divergence(broker: Broker, divergence: StateDivergence) -> None:
    """Record the rows that contradict the chain, correct them, and warn operators."""
    summary = ", ".join(
        f"{count} {kind}" for kind, count in divergence.counts().items()
    )
    broker.health.state_problem = (
        f"The ledger's state was changed behind its events ({summary}): "
        "it is taken as the events say. Run agentvault audit verify."
    )
    log.warning("%s", broker.health.state_problem)
    drops: list[Change] = (
        [DropAllTokens()]
        if divergence.panic
        else [DropAgentTokens(agent.id) for agent in divergence.agents]
    )
    again = {step.agent_id for step in divergence.steps} | set(divergence.lost_steps)
    steps = [
        step for agent_id in sorted(again) for step in _steps_anew(broker, agent_id)
    ]
    broker.reaching.outbox.take(steps)
    named: dict[str, list[str]] = {
        "agents": [agent.id for agent in divergence.agents],
        "tokens": [token.id for token in divergence.tokens],
        "stepups": [one.id for one in (*divergence.stepups, *divergence.decided)],
        "accounts": [f"{one.agent_id} {one.connection}" for one in divergence.accounts],
        "leases": [f"{one.agent_id} {one.connection}" for one in divergence.leases],
        "cooldowns": [one.requester for one in divergence.cooldowns],
        "steps": sorted(again),
    }
    await broker.record_cut(
        Draft(
            EventType.AUDIT_AMBIGUOUS,
            SYSTEM,
            reason="state_changed",
            detail={
                "panic": divergence.panic is not None,
                **({"limits": True} if divergence.limits else {}),
                **{kind: ids[:_NAMED] for kind, ids in named.items() if ids},
            },
        ),
        changes=[
            *divergence.agents,
            *drops,
            *(DropToken(token.id) for token in divergence.tokens),
            *([divergence.panic] if divergence.panic else ()),
            *(broker.stepups.get(stepup.id) for stepup in divergence.stepups),
            *(DropAccount(one.agent_id, one.connection) for one in divergence.accounts),
            *(Lease(one.agent_id, one.connection, ()) for one in divergence.leases),
            *divergence.cooldowns,
            *steps,
        ],
    )


def _steps_anew(broker: Broker, agent_id: AgentId) -> tuple[OutboxStep, ...]:
    """Return the steps of a revocation again: their rows cannot be trusted."""
    agent = broker.registry.find_agent(agent_id)
    if agent is None or agent.status is AgentStatus.ACTIVE:
        return ()
    return broker.reaching.outbox.cut(agent_id, ())


async def recover(broker: Broker, recovery: Recovery) -> None:
    """Repair an outage: retained revocations, and a doubtful batch.

    A *found* batch was reported as failed to its callers: its rows are written again as
    memory has them; rows that memory lacks were never delivered.
    """
    if recovery.committed:
        await broker.recording.cuts.settle(recovery.attempts)
    try:
        await record_missed(broker)
    except LedgerError as error:
        log.warning("recovery is not over: %s", error.what)
    broker.health.changed()


async def record_missed(broker: Broker) -> None:
    """Record the entries that the ledger missed, and used assertions."""
    await broker.recording.cuts.record_missed()
    await keep_policy(broker)
    unsaved = broker.admitting.replays.unsaved
    if unsaved and broker.ledger.writable:
        await broker.record(changes=unsaved)
        broker.admitting.replays.saved(unsaved)


async def _last_start(broker: Broker) -> Event | None:
    """Return the event of this broker's last start; of several each has a journal."""
    whose, before = broker.team.brokers.id, None
    while True:
        query = EventQuery(type=EventType.BROKER_STARTED, before=before, limit=100)
        page = await broker.ledger.events(query)
        for event in page.events:
            if not whose or event.detail.get("broker") == whose:
                return event
        if (before := page.next) is None:
            return None


async def open_journal(broker: Broker) -> CutJournal:
    """Open the cut journal of the home, or create it in one that never had any.

    The chain has its existence, so that it cannot be deleted unnoticed.
    """
    ledger, last = broker.ledger, await _last_start(broker)
    try:
        return await asyncio.to_thread(
            CutJournal.open,
            broker.home,
            ledger.ledger_id,
            expected=last is not None and "cut_journal" in last.detail,
            fresh=ledger.head.seq == 0,
        )
    except OSError as error:
        raise LedgerUnwritableError(
            f"{broker.home.cut_journal} cannot be made ({error.strerror})",
            "make room on the disk: without it a revocation could be lost",
        ) from error


async def apply_kept(broker: Broker) -> None:
    """Put in effect, and record, the unrecorded revocations of the last process.

    Each is done in the name of its operator, unless the ledger has it. Where cuts may
    be missing, everything is stopped.
    """
    cuts = broker.recording.cuts
    journal = cuts.journal = await open_journal(broker)
    cuts.replaying = journal.entries
    for entry in journal.entries:
        try:
            with cuts.took_effect(parse_iso(entry.at)):
                by = Actor(ActorKind(entry.by[0]), *entry.by[1:])
                await _APPLY[entry.kind](broker, entry, by)
        except NotFoundError:
            log.warning(
                "a cut in the journal names an agent that is unknown: %s", entry.key
            )
        except (ValueError, KeyError) as error:
            journal.problem = f"{journal.path} cannot be read ({error!r:.80})"
    if journal.problem is not None:
        broker.health.state_problem = (
            f"Everything was stopped at the start: {journal.problem}, so that cuts "
            "may be missing. Look at every agent before agentvault agents restore "
            "--all."
        )
        log.error("%s", broker.health.state_problem)
        reason, detail = "cuts_may_be_missing", {"problem": journal.problem}
        await broker.record_cut(
            Draft(EventType.AUDIT_AMBIGUOUS, SYSTEM, reason=reason, detail=detail)
        )
        await panic(broker, f"stopped at the start: {journal.problem}", SYSTEM)
    cuts.replaying = ()
    await cuts.keep()


async def _stop_all(broker: Broker, entry: KeptCut, by: Actor) -> None:
    if broker.registry.revocations.panic is None and not await _events(
        broker, entry, "panic.on"
    ):
        await panic(broker, entry.why, by)


async def _revoke(broker: Broker, entry: KeptCut, by: Actor) -> None:
    served = broker.registry.agent(entry.agent).status is not AgentStatus.REVOKED
    if served and not await _events(broker, entry, "agent.revoked"):
        await revoke_agent(broker, entry.agent, entry.why, by)


async def _ungrant(broker: Broker, entry: KeptCut, by: Actor) -> None:
    taken = set(entry.scopes) & set(broker.registry.agent(entry.agent).scopes)
    for event in await _events(broker, entry, "agent.scopes_changed"):
        taken -= set(event.detail.get("ungranted", ()))
    if taken:
        nothing: frozenset[str] = frozenset()
        await change_scopes(broker, entry.agent, nothing, frozenset(taken), by)


async def _close_account(broker: Broker, entry: KeptCut, by: Actor) -> None:
    account_id, _, connection = entry.id.partition(" ")
    account = broker.registry.accounts.get(AgentId(entry.agent), connection)
    if account is not None and account_id in {"", account.id}:
        await close_accounts(broker, [account], by)


async def _wait_longer(broker: Broker, entry: KeptCut, _: Actor) -> None:
    cooldowns = broker.stepups.cooldowns
    cooldown = read_cooldown(entry.id or entry.agent, entry.status)
    if cooldown.denials > cooldowns.of(cooldown.requester).denials:
        cooldowns.take_over([cooldown])
        await broker.record_cut(changes=[cooldown])


async def _events(broker: Broker, entry: KeptCut, kind: str) -> Sequence[Event]:
    """Return the events since the cut that may be its record.

    In a team another broker may have cut the same, and have given it back, without
    knowing of this cut: the record of this one says when it took effect.
    """
    agent = AgentId(entry.agent) if entry.agent else None
    query = EventQuery(after=entry.since, agent=agent, type=EventType(kind), limit=1000)
    events = (await broker.ledger.events(query)).events
    if broker.ledger.shared is None:
        return events
    return [one for one in events if one.detail.get("took_effect_at") == entry.at]


async def _end_token(broker: Broker, entry: KeptCut, by: Actor) -> None:
    registry = broker.registry
    agents = (
        [AgentId(entry.agent)] if entry.agent else [a.id for a in registry.agents()]
    )
    for token in (one for agent in agents for one in registry.tokens_of(agent)):
        if token.id == entry.id and registry.drop_token(token):
            why = "ended while the ledger could not write"
            draft = revoked_draft(token, by, why)
            await broker.record_cut(draft, changes=[DropToken(token.id)])
            await broker.record_ended(broker.end_below([token]), by, why)


async def _undelegate(broker: Broker, entry: KeptCut, by: Actor) -> None:
    agent = broker.registry.agent(entry.agent)
    taken = set(entry.scopes)
    for event in await _events(broker, entry, "agent.scopes_changed"):
        if event.detail.get("delegate_to") == entry.id:
            taken -= set(event.detail.get("undelegated", ()))
    left = agent.may_pass_on(AgentId(entry.id)) - taken
    await change_delegates(broker, agent.id, entry.id, left, by)


async def _end_stepup(broker: Broker, entry: KeptCut, by: Actor) -> None:
    stepup = broker.stepups.get(entry.id)
    if stepup.repeats(broker.clock):
        await end_repeats(broker, [stepup], by, entry.why)
    status = StepUpStatus(entry.status)
    spent = status is StepUpStatus.REDEEMED and stepup.status is StepUpStatus.APPROVED
    if not (stepup.status.open or spent):
        return
    if spent:
        ended = replace(stepup, status=status, redeemed_at=broker.clock.now())
        broker.stepups.put(ended)
        await broker.record_cut(changes=[ended], agent_id=stepup.agent_id)
    elif status is StepUpStatus.DENIED:
        await deny(broker, stepup.id, entry.why, by)
    else:
        ended = cancelled(broker, stepup, entry.why)
        await broker.record_cut(cancelled_draft(ended, by), changes=[ended])


_APPLY: Final[dict[str, Callable[[Broker, KeptCut, Actor], Awaitable[None]]]] = {
    "panic": _stop_all,
    "revoke": _revoke,
    "ungrant": _ungrant,
    "undelegate": _undelegate,
    "token": _end_token,
    "stepup": _end_stepup,
    "account": _close_account,
    "cooldown": _wait_longer,
}
"""Puts each kind of `KeptCut` in effect."""
