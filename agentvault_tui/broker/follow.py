"""Put in effect here the records of another broker of the team.

The store has one chain; each broker has in memory the state that decisions read.
Another broker's record changes that memory by the functions that a start uses, so that
following and loading again lead to the same state. An end elsewhere is an end here in
the same turn of the event loop: calls in flight are cancelled, decisions under way
voided, waiters woken.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.feed import Feed
from agentvault_tui.broker.recovery import recover
from agentvault_tui.broker.settings_record import differing_settings
from agentvault_tui.broker.team import Team
from agentvault_tui.broker.team_copies import put
from agentvault_tui.broker.tenant_process import TenantProcess
from agentvault_tui.broker.usecases.approvals import CUTTING, end_gathered
from agentvault_tui.broker.usecases.policy_change import (
    POLICY,
    POLICY_CHANGED,
    follow_policy,
)
from agentvault_tui.errors import ConflictError, LedgerError, RefusedError, SealedError
from agentvault_tui.ledger import (
    Change,
    Cooldown,
    DropAccount,
    DropAgentTokens,
    DropAllTokens,
    DropScopeTokens,
    DropToken,
    Ledger,
    Meta,
    OutboxStep,
    Panic,
    Recovery,
    UsedAssertion,
)
from agentvault_tui.model import (
    Account,
    ActorKind,
    Agent,
    AgentId,
    AgentStatus,
    Event,
    EventType,
    Lease,
    Outcome,
    StepUp,
    Token,
    TokenId,
)

if TYPE_CHECKING:
    from agentvault_tui.ledger.shared_log import SharedLog

log = logging.getLogger("agentvault.team")
_A_TURN: Final = 100
"""Changes taken over in one turn of the event loop."""


async def follow(
    broker: Broker, events: Sequence[Event], changes: Sequence[Change]
) -> None:
    """Apply another broker's records, before anything later is written.

    Args:
        broker: the broker with the memory that follows.
        events: the records, in the order of the chain.
        changes: the rows that were written with them, each as it is now, in the order
            of their numbers (see `ledger.state`).
    """
    revoked = [one.agent_id for one in changes if isinstance(one, DropAgentTokens)]
    held = [
        token for one in revoked for token in broker.registry.provider_tokens.of(one)
    ]
    for number, change in enumerate(changes):
        if number % _A_TURN == _A_TURN - 1:
            await asyncio.sleep(0)
        await _take(broker, change)
    await _keep_cuts(broker)
    for token in held:
        # It serves to revoke the rights that it has.
        broker.reaching.outbox.keep_undelivered(token)
    gateway = broker.extensions.gateway
    ended = {
        TokenId(str(one.detail.get("token_id")))
        for one in events
        # A call under way was decided before the policy changed.
        if one.type is EventType.TOKEN_REVOKED and one.reason != POLICY_CHANGED
    }
    if ended and gateway is not None:
        gateway.cut_tokens(ended)
    for event in events:
        _follow_event(broker, event)
    if broker.team.files is not None and broker.team.files.take(events, changes):
        await broker.team.files.tell()
    if any(isinstance(one, Panic | Agent | StepUp) for one in changes):
        broker.health.changed()


def _follow_event(broker: Broker, event: Event) -> None:
    """Apply the part of an event that no row of the state has."""
    broker.deciding.limits.count(event)
    if event.actor.kind is ActorKind.AGENT and event.agent_id is not None:
        broker.registry.seen(event.agent_id, event.time)
    _count_again(broker, event)
    gateway = broker.extensions.gateway
    if event.type is EventType.GATEWAY_RESULT and gateway is not None:
        gateway.over(str(event.detail.get("call_id")))
    if event.type is EventType.TENANT_USER_CHANGED:
        sub = str(event.detail.get("sub"))
        people = broker.reaching.people
        people.note(sub, str(event.action), event.time)
        for end_sessions in people.listeners:
            end_sessions(sub)
        if event.action in CUTTING:
            _later(end_gathered(broker, sub, elsewhere=True))


async def _keep_cuts(broker: Broker) -> None:
    """Put this broker's own cuts into effect again, which are recorded later.

    Rights that others granted before that, without knowledge of them, end as well.
    """
    for pending in (
        *broker.recording.cuts.under_way,
        *broker.recording.cuts.unrecorded,
    ):
        if pending.decide is None:
            for change in pending.changes:
                await _take(broker, change)
        else:
            with suppress(ConflictError):  # another decision was first, and counts
                pending.decide_again()


_recording: Final[set[asyncio.Future[Any]]] = set()


def _later(record: Coroutine[object, object, object]) -> None:
    """Record in a separate task: following the store must not wait for it."""
    task = asyncio.ensure_future(record)
    _recording.add(task)
    task.add_done_callback(_recording.discard)


async def _take(broker: Broker, change: Change) -> None:
    if isinstance(change, DropScopeTokens):
        await _cut_scope(broker, change.agent_id, change.scope)
    elif isinstance(change, Meta):
        await _put_meta(broker, change)
    elif (take := _TAKES.get(type(change))) is not None:
        take(broker, change)


def _put_token(broker: Broker, token: Token) -> None:
    registry = broker.registry
    registry.used_up(token.id)
    if current := registry.token_with_id(token.id):
        registry.drop_token(current)  # minted, and fetched since under another secret
    parent = registry.token_with_id(TokenId(token.parent_id or ""))
    registry.put_token(token, parent)


def _drop_token(broker: Broker, change: DropToken) -> None:
    """End one token, with the tokens exchanged for it and their calls."""
    token_id = change.token_id
    outdated = broker.deciding.state.outdated
    outdated[:] = [one for one in outdated if one.id != token_id]
    broker.registry.used_up(token_id)
    token = broker.registry.token_with_id(token_id)
    if token is None:
        return
    broker.registry.ended_before(token)
    if token.chain:
        broker.end_tokens([token])
    elif broker.registry.drop_token(token):
        broker.end_below([token])


def _cut_agent(broker: Broker, change: DropAgentTokens) -> None:
    """End all that an agent holds and does here, as its revocation did elsewhere."""
    registry, agent_id = broker.registry, change.agent_id
    broker.extensions.cut_calls(agent_id)
    registry.cut_tokens(agent_id)
    broker.end_tokens(registry.delegations.passed_on_by(agent_id))


async def _cut_scope(broker: Broker, agent_id: AgentId, scope: str) -> None:
    taken = frozenset({scope})
    broker.extensions.cut_calls(agent_id, taken)
    broker.registry.void_decisions(agent_id, taken)
    with broker.registry.ending_scopes(agent_id, taken) as slices:
        for tokens in slices:
            broker.end_below(tokens)
            await asyncio.sleep(0)


def _put_agent(broker: Broker, agent: Agent) -> None:
    registry = broker.registry
    current = registry.find_agent(agent.client_id)
    registry.put_agent(agent)
    if current is None:
        return
    if agent.status is not AgentStatus.ACTIVE:
        broker.extensions.cut_calls(agent.id)
    if taken := frozenset(current.scopes) - frozenset(agent.scopes):
        broker.extensions.cut_calls(agent.id, taken)
    for one in current.delegates:
        taken |= set(one.scopes) - agent.may_pass_on(one.agent_id)
    if taken:
        registry.void_decisions(agent.id, taken)


def _put_stepup(broker: Broker, stepup: StepUp) -> None:
    """Remember a step-up; work under way here on an earlier version of it ends."""
    current = broker.stepups.find(stepup.id)
    if current is not None and stepup.status.open:
        stepup = replace(stepup, count=max(stepup.count, current.count))
    broker.stepups.put(stepup)
    if current is not None and (
        not stepup.status.open or stepup.digest != current.digest
    ):
        broker.stepups.end_flow(stepup.id)


def _count_again(broker: Broker, event: Event) -> None:
    """Count a request that was identical to one that waits; see `stepups.load`."""
    count = event.detail.get("count")
    if event.outcome is not Outcome.ESCALATED or type(count) is not int:
        return
    stepup = broker.stepups.find(event.detail.get("stepup_id"))
    if stepup is not None and stepup.status.open and count > stepup.count:
        broker.stepups.put(replace(stepup, count=count))


async def _put_meta(broker: Broker, change: Meta) -> None:
    if change.key == POLICY and change.value is not None:
        await follow_policy(broker, change.value)
    else:
        put(broker.recording.meta, change.key, change.value)


def _cut_all(broker: Broker, _: DropAllTokens) -> None:
    broker.extensions.cut_calls(None)
    broker.registry.cut_all_tokens()


def _put_panic(broker: Broker, panic: Panic) -> None:
    if panic.on:
        broker.extensions.cut_calls(None)
    broker.registry.revocations.panic = panic if panic.on else None


def _put_cooldown(broker: Broker, cooldown: Cooldown) -> None:
    cooldowns = broker.stepups.cooldowns
    cooldowns.approved(cooldown.requester)
    if cooldown.until is not None:
        cooldowns.take_over([cooldown])


def _put_account(broker: Broker, account: Account) -> None:
    broker.registry.accounts.put(account)
    broker.registry.void_decisions(account.agent_id)


def _drop_account(broker: Broker, account: DropAccount) -> None:
    broker.registry.accounts.drop(account.agent_id, account.connection)
    broker.registry.void_decisions(account.agent_id)


_TAKES: Final[dict[type, Callable[[Broker, Any], None]]] = {
    Token: _put_token,
    DropToken: _drop_token,
    DropAgentTokens: _cut_agent,
    DropAllTokens: _cut_all,
    Agent: _put_agent,
    StepUp: _put_stepup,
    Panic: _put_panic,
    Cooldown: _put_cooldown,
    UsedAssertion: lambda broker, one: broker.admitting.replays.take_over(
        [one], broker.clock
    ),
    Account: _put_account,
    DropAccount: _drop_account,
    Lease: lambda broker, lease: broker.registry.leases.take_over([lease]),
    OutboxStep: lambda broker, step: broker.reaching.outbox.take([step]),
}
"""Takes each change over; texts of a policy are read from the copy."""


_CUTTING: Final = (Agent, DropAgentTokens, DropScopeTokens, DropAllTokens, Panic)
"""The message that a revoking broker waits for."""


def listen_to(ledger: Ledger, broker: Broker, feed: Feed) -> None:
    """Connect *broker* and *feed* to the ledger's commits."""

    async def recovered(recovery: Recovery) -> None:
        log.warning("the ledger writes again; last batch found: %s", recovery.committed)
        await recover(broker, recovery)

    async def followed(events: tuple[Event, ...], changes: Sequence[Change]) -> None:
        """Apply and publish the records of other brokers."""
        try:
            await follow(broker, events, changes)
        except BaseException:
            ledger.distrust("could not be followed: see the broker's log")
            raise
        publish(events, changes)
        cuts = any(isinstance(one, _CUTTING) for one in changes)
        if cuts:
            broker.team.brokers.soon()

    def publish(events: tuple[Event, ...], changes: Sequence[Change]) -> None:
        feed.publish(events, changes)
        broker.extensions.committed(events)
        if events:
            broker.team.brokers.seq = events[-1].seq

    if isinstance(broker.team.brokers, Team):
        broker.team.brokers.watching = lambda: feed.watched

    def written(events: tuple[Event, ...], changes: Sequence[Change]) -> None:
        if (files := broker.team.files) is not None:
            files.take(events, changes)
        publish(events, changes)

    ledger.listeners.written.append(written)
    ledger.listeners.followed.append(followed)
    ledger.listeners.state.append(feed.publish_status)
    ledger.listeners.recovered.append(recovered)


async def join_team(
    broker: Broker, shared: SharedLog, process: TenantProcess | None = None
) -> None:
    """Say to the team's other brokers that this one lives.

    Args:
        broker: this one.
        shared: the team's log.
        process: its embedded tenant, if it runs one.

    Raises:
        RefusedError: another process has this broker's id, or this one would serve an
            embedded tenant that the others do not.
    """
    extensions, reaching = broker.extensions, broker.reaching
    own = reaching.kind == "embedded"
    # Without a URL the issuer is this machine's alone: no other broker is that tenant.
    alone = own and not broker.settings.tenant.url
    issuer = "" if alone else reaching.tenant.issuer
    key, files = broker.team.key, broker.team.files
    assert key is not None and files is not None  # noqa: S101, PT018 - it is shared
    version = lambda: f"{broker.deciding.policy.version} {files.version()}"  # noqa: E731
    extensions.chores.append(key.look)
    if process is not None:
        key.changed = partial(process.follow_key, reaching.tenant)

    def end_calls() -> None:
        if extensions.gateway is not None:
            extensions.gateway.end_lease()

    team = broker.team.brokers = key.team = Team(
        *(broker.ledger, shared, broker.clock, version),
        tenant=issuer,
        key=key.announcement,
        differing=partial(differing_settings, broker),
        end_calls=end_calls,
        notify=broker.health.changed,
    )
    with suppress(SealedError):  # told by each look
        await key.read()
    try:
        await team.join()
    except LedgerError as error:
        log.warning("no call goes on here: %s", error.what)
        return
    # A broker whose embedded tenant has no URL says "", and so does an older version.
    others = team.others() if own else []
    strange = [one for one in others if alone or one.beat.tenant != issuer]
    if strange:
        await team.leave()
        raise RefusedError(
            f"{strange[0].beat.host} serves this team already, and has another tenant"
            " than the embedded one of this broker",
            "give all the same tenant: one tenant.url of the embedded one, or an"
            " outside tenant.issuer",
        )
