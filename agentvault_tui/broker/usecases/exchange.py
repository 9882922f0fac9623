"""Token exchange: decide about a provider's token, then have it from Token Vault.

A provider's token carries every scope that its owner allowed, and the vault cannot
narrow it. So the decision is the strictest answer over all scopes that the connection
represents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from agentvault_tui.broker.accounts import HeldProviderToken
from agentvault_tui.broker.answers import (
    Denied,
    Disconnected,
    Escalated,
    Exchanged,
    Expired,
    Provided,
    Spent,
    TenantUnavailable,
)
from agentvault_tui.broker.core import SYSTEM, Broker
from agentvault_tui.broker.revocations import Grant
from agentvault_tui.broker.usecases.decide import (
    Request,
    call_webhooks,
    decide,
    denied_by_limit,
    reserve_approved,
)
from agentvault_tui.broker.usecases.repeat import is_same
from agentvault_tui.broker.usecases.request import decision, deny, escalate, refused
from agentvault_tui.broker.vault_access import CrowdedError
from agentvault_tui.clock import iso
from agentvault_tui.ledger import Change, DropToken
from agentvault_tui.model import (
    Account,
    Action,
    Agent,
    AgentId,
    DecisionId,
    Draft,
    EventType,
    Outcome,
    Risk,
    StepUp,
    StepUpStatus,
    Token,
    Verdict,
    new_id,
)
from agentvault_tui.text import visible
from agentvault_tui.vault import Cause, NoToken

NOT_CONNECTED: Final = "federated_connection_refresh_token_not_found"
"""Auth0's code: its SDKs and samples match it."""
_RETRY: Final = 5
_RECONNECT: Final = {
    Cause.NOT_CONNECTED: NOT_CONNECTED,
    Cause.NO_SUCH_ACCOUNT: NOT_CONNECTED,
    Cause.SUBJECT_REFUSED: NOT_CONNECTED,
    Cause.PROVIDER_REFUSED: "federated_connection_refresh_token_flow_failed",
}
"""Causes that connecting the account again removes."""


@dataclass(frozen=True, slots=True)
class _Permit:
    """The permission for one delivery: a revocation or another policy voids it."""

    agent: Agent
    account: Account
    scope: str
    """The catalogue's scopes that were decided about."""
    decision_id: DecisionId
    grant: Grant
    policy_version: str
    stepup: StepUp | None = None
    """The approval this uses up, if a person gave one, as it is afterwards."""
    minted: Token | None = None
    """The token that stood for the approval."""
    counted: Mapping[str, object] = field(default_factory=dict)
    """The approval's uses that count towards limits."""


async def exchange(
    broker: Broker, agent: Agent, connection: str, source: str | None = None
) -> Exchanged | Escalated:
    """Decide, record, and only then have the provider's token (RFC 8693).

    Args:
        broker: the broker.
        agent: who asks.
        connection: as the agent names it.
        source: the address the request came from, if it is known.

    Returns:
        the token, or why there is none.

    Raises:
        LedgerUnwritableError: decision or delivery could not be recorded.
        LedgerBusyError: too many decisions wait to be recorded.
    """
    registry = broker.registry
    registry.seen(agent.id)
    account = usable(broker, agent.id, connection)
    request = _request(broker, agent, connection, account, source)
    if refusal := refused(broker, agent):
        return await deny(broker, request, *refusal)
    if not request.action.scopes:
        message = (
            f"The connection {visible(connection, 60)} is not in the broker's settings."
        )
        return await deny(broker, request, "unknown_connection", message)
    verdict = await decide(broker, request)
    if verdict.outcome is Outcome.DENIED:
        return await deny(broker, request, verdict.reason, verdict.message, verdict)
    if account is None:
        # Nobody is asked to approve the use of an account that is not there.
        denied = await deny(broker, request, "not_connected", _CONNECT, verdict)
        return Disconnected(NOT_CONNECTED, denied.message, denied.decision_id)
    permit = _permit(broker, account, request)
    if verdict.outcome is Outcome.ESCALATED:
        return await _as_approved(broker, request, verdict, permit)
    await broker.record(
        decision(broker, request, Outcome.ALLOWED, verdict.reason, verdict)
    )
    try:
        async with broker.reaching.vault.turn(account):
            return await _deliver(broker, permit)
    except CrowdedError:
        return await _missed(broker, permit, _queue())


async def deliver_approved(
    broker: Broker, agent: Agent, stepup: StepUp
) -> Exchanged | Expired | Spent:
    """Give the polling agent its approved token, once (CIBA Core 10.1.1)."""
    connection = stepup.connection or ""
    account = usable(broker, agent.id, connection)
    if account is None or stepup.parameters != _whose(account):
        return Disconnected(NOT_CONNECTED, _CONNECT, stepup.decision_id)
    request = _request(broker, agent, connection, account, stepup.source)
    permit = _permit(broker, account, request)
    verdict = await call_webhooks(broker, request, request.foresee(broker))
    if verdict.outcome is Outcome.DENIED:
        return await deny(broker, request, verdict.reason, verdict.message, verdict)
    if not is_same(stepup, request):
        message = "What the connection stands for was changed since. Ask again."
        return await deny(broker, request, "request_changed", message, verdict)
    permit = replace(permit, decision_id=stepup.decision_id)
    try:
        async with broker.reaching.vault.turn(account):
            current = broker.stepups.get(stepup.id)
            if current.status is not StepUpStatus.APPROVED:
                return Spent()
            minted = broker.registry.elevated(stepup.id)
            if minted is None:
                return Expired(approved=True)
            return await _spend(broker, permit, request, current, minted)
    except CrowdedError:
        return await _missed(broker, permit, _queue())


def usable(broker: Broker, agent_id: AgentId, connection: str) -> Account | None:
    """Return the agent's account there, unless it is being removed.

    Nor when another of its vault user's was connected since: the vault would give a
    token of that one.

    Args:
        broker: the broker.
        agent_id: the agent.
        connection: as the tenant names it.

    Returns:
        the account, if one can be used.
    """
    accounts = broker.registry.accounts
    account = accounts.get(agent_id, connection)
    if account is None or account.removing:
        return None
    later = any(one.since > account.since for one in accounts.rivals(account))
    return None if later else account


def _request(
    broker: Broker,
    agent: Agent,
    connection: str,
    account: Account | None,
    source: str | None,
) -> Request:
    """Return the request to decide about: all of the connection's scopes."""
    settings = broker.settings.connections.get(connection)
    scopes = settings.scopes if settings else ()

    def rank(name: str) -> int:
        entry = broker.deciding.policy.catalogue.get(name)
        return entry.risk.rank if entry else len(Risk)

    performs = max(scopes, key=rank, default="")
    resource = f"connection:{connection}"
    # The provider's token performs any of them.
    action = Action(scopes, performs, resource, _whose(account), named=False)
    decision_id = DecisionId(new_id("dec"))
    return Request(agent, action, None, None, decision_id, connection, source=source)


def _whose(account: Account | None) -> dict[str, object]:
    """Return the account as parameters: an approval is for that one and no other."""
    if account is None:
        return {}
    return {"account": account.id, "user": account.user, "name": account.user_name}


async def _as_approved(
    broker: Broker,
    request: Request,
    verdict: Verdict,
    permit: _Permit,
) -> Exchanged | Escalated:
    """Deliver on an approval that waits for exactly this request; else ask for one."""
    try:
        async with broker.reaching.vault.turn(permit.account):
            if _overtaken(broker, permit):
                return await _void(broker, permit)
            for stepup in broker.stepups.decided():
                minted = broker.registry.elevated(stepup.id)
                if minted and _approves(stepup, request):
                    permit = replace(permit, decision_id=stepup.decision_id)
                    return await _spend(broker, permit, request, stepup, minted)
            return await escalate(broker, request, verdict)
    except CrowdedError:
        return await _missed(broker, permit, _queue())


def _approves(stepup: StepUp, request: Request) -> bool:
    return (
        stepup.status is StepUpStatus.APPROVED
        and stepup.agent_id == request.agent.id
        and is_same(stepup, request)
    )


async def _spend(
    broker: Broker, permit: _Permit, request: Request, approved: StepUp, minted: Token
) -> Exchanged:
    """Spend an approval on one delivery; restore it where there is none."""
    request = request._replace(decision_id=permit.decision_id)
    verdict = reserve_approved(broker, request)
    if denied_by_limit(verdict):
        return await deny(broker, request, verdict.reason, verdict.message, verdict)
    permit = replace(permit, counted=verdict.counted)
    registry, now = broker.registry, broker.clock.now()
    spent = replace(
        approved, status=StepUpStatus.REDEEMED, fetched_at=now, redeemed_at=now
    )
    registry.stepups.put(spent)  # before the wait: whoever polls finds it spent
    registry.begin_use([minted])
    registry.drop_token(minted)
    delivered = False
    try:
        answer = await _deliver(broker, replace(permit, stepup=spent, minted=minted))
        delivered = isinstance(answer, Provided)
        return answer
    finally:
        broker.deciding.limits.release(permit.decision_id)
        # A revocation has ended the approval with the rest: nothing to put back.
        if not delivered and not _overtaken(broker, permit):
            registry.stepups.put_back(spent, approved)
            registry.put_back([minted])
        registry.used_up(minted.id)


async def _deliver(broker: Broker, permit: _Permit) -> Exchanged:
    """Have the token and record that the agent has it: the record comes first.

    If the agent was revoked meanwhile, the provider's answer never leaves here.
    """
    reaching = broker.reaching
    registry, account = broker.registry, permit.account
    if _overtaken(broker, permit):
        return await _void(broker, permit)
    held = registry.provider_tokens.get(account)
    fresh = held is None
    if held is None:
        exchanged = await reaching.vault.exchange(account)
        if isinstance(exchanged, NoToken):
            return await _missed(broker, permit, exchanged)
        longest = broker.settings.tokens.lease
        _, longest = registry.lifetimes.life(permit.agent.id, longest)
        held = HeldProviderToken.of(broker.clock, account, exchanged, longest)
    if _overtaken(broker, permit):
        # Nobody has it, so it serves to revoke what they have.
        reaching.outbox.keep_undelivered(held)
        return await _void(broker, permit)
    lease = registry.leases.note(account, held.thumbprint, held.until)
    expires_in = max(1, int(held.lease.remaining(broker.clock)))
    changes: list[Change] = [lease]
    if permit.stepup and permit.minted:
        changes += [permit.stepup, DropToken(permit.minted.id)]
    drafts = _deliveries(broker, permit, held, expires_in, fresh=fresh)
    await broker.record(*drafts, changes=changes)
    if _overtaken(broker, permit):
        reaching.outbox.keep_undelivered(held)
        return await _void(broker, permit)
    registry.provider_tokens.put(held)
    return Provided(held.token, held.scope, expires_in, permit.decision_id)


def _permit(broker: Broker, account: Account, request: Request) -> _Permit:
    agent, scope = request.agent, request.scope
    grant = broker.registry.unless_revoked(agent.id, scope=scope)
    version = broker.deciding.policy.version
    return _Permit(agent, account, scope, request.decision_id, grant, version)


def _overtaken(broker: Broker, permit: _Permit) -> bool:
    """Check whether agent, scopes, account or policy changed since the decision."""
    changed = broker.deciding.policy.version != permit.policy_version
    return permit.grant.revoked or changed


async def _void(broker: Broker, permit: _Permit) -> Denied:
    """Record that a revocation overtook the delivery: the agent never had it."""
    reason, message = refused(broker, permit.agent) or (
        "scope_not_granted",
        "What this agent may use was changed while it asked. Ask again.",
    )
    draft = _draft(broker, permit, EventType.TOKEN_NOT_EXCHANGED, reason)
    changes: list[Change] = []
    if permit.stepup and permit.minted:
        # The cut found no token, for this delivery had it: it must not come back.
        ended = replace(
            permit.stepup,
            status=StepUpStatus.CANCELLED,
            problem=reason,
            fetched_at=None,
            redeemed_at=None,
        )
        broker.stepups.put(ended)
        changes = [ended, DropToken(permit.minted.id)]
    await broker.record_cut(draft, changes=changes)
    return Denied(reason, message, permit.decision_id)


async def _missed(
    broker: Broker, permit: _Permit, missing: NoToken
) -> Denied | Disconnected | TenantUnavailable:
    """Record that an allowed request led to no token."""
    draft = _draft(broker, permit, EventType.TOKEN_NOT_EXCHANGED, missing.cause.value)
    draft.detail.update(error=missing.error, message=missing.message)
    await broker.record(draft)
    if missing.cause is Cause.SEALED:
        return TenantUnavailable(
            missing.message, round(_RETRY), permit.decision_id, "sealed"
        )
    if missing.cause is Cause.UNAVAILABLE:
        pause = max(1, min(round(missing.retry_after or _RETRY), 3600))
        return TenantUnavailable(missing.message, pause, permit.decision_id)
    if missing.cause in _RECONNECT:
        message = f"{_CONNECT} ({missing.error})"
        return Disconnected(_RECONNECT[missing.cause], message, permit.decision_id)
    why = f"{missing.error} {missing.message}"
    message = f"The tenant gives no token of this connection: {why}"
    return Denied(f"tenant_{missing.cause}", message.strip(), permit.decision_id)


def _deliveries(
    broker: Broker,
    permit: _Permit,
    held: HeldProviderToken,
    expires_in: int,
    *,
    fresh: bool,
) -> list[Draft]:
    draft = _draft(broker, permit, EventType.TOKEN_EXCHANGED, None)
    draft.detail.update(
        scope=permit.scope,
        provider_scope=held.scope,
        expires_in=expires_in,
        expires_at=iso(held.until),
        token_sha256=held.thumbprint,
        fresh=fresh,
    )
    if permit.minted is None:
        return [draft]
    if permit.counted:
        draft.detail["counted"] = permit.counted
    redeemed = _draft(broker, permit, EventType.TOKEN_REDEEMED, None)
    redeemed.detail["token_id"] = permit.minted.id
    return [redeemed, draft]


def _draft(
    broker: Broker, permit: _Permit, kind: EventType, reason: str | None
) -> Draft:
    detail: dict[str, object] = {
        "connection": permit.account.connection,
        "account": permit.account.id,
        **permit.agent.shown_identity,
    }
    if permit.stepup is not None:
        detail["stepup_id"] = permit.stepup.id
    delivered = kind is not EventType.TOKEN_NOT_EXCHANGED
    return Draft(
        kind,
        broker.actor(permit.agent) if delivered else SYSTEM,
        agent_id=permit.agent.id,
        action=permit.scope,
        resource=f"connection:{permit.account.connection}",
        reason=reason,
        decision_id=permit.decision_id,
        detail=detail,
    )


def _queue() -> NoToken:
    message = "requests before this one still wait for the tenant"
    return NoToken(Cause.UNAVAILABLE, "temporarily_unavailable", message, "ask again")


_CONNECT: Final = (
    "No account is connected that would give a token. Its owner connects one: "
    "agentvault connections add"
)
