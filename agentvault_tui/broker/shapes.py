"""The shapes of the operators' HTTP: Agent, Token, StepUp, Event as plain JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from itertools import islice
from typing import Any, Final

from agentvault_tui.broker.registry import Registry
from agentvault_tui.broker.upstream.steps import rank, reason
from agentvault_tui.clock import Deadline, iso
from agentvault_tui.ledger import OutboxStep, Panic
from agentvault_tui.model import (
    Account,
    Agent,
    AgentCounts,
    AgentId,
    DeviceCode,
    Event,
    Evidence,
    StepUp,
    Token,
    TokenKind,
    fingerprint,
)

TOKENS_SHOWN: Final = 100
"""An agent may hold any number of tokens; the soonest to expire are listed."""


Ends = Callable[[Deadline], datetime]
"""Tells when a deadline passes; see `clock.as_set_now`."""


def _as_recorded(deadline: Deadline) -> datetime:
    return deadline.wall


def agent_shape(
    agent: Agent,
    registry: Registry,
    *,
    counts: AgentCounts | None = None,
    tokens: bool = True,
    ends: Ends | None = None,
) -> dict[str, Any]:
    """Return *agent* with how it stands: what it holds, what a revocation would do.

    Args:
        agent: the agent.
        registry: what is known of it.
        counts: how its requests were answered, if not as of now.
        tokens: whether its live tokens are listed; if not, only the next to end is.
        ends: tells when deadlines pass, if that was asked a moment ago.
    """
    held, ends = registry.held(agent.id), ends or registry.ends()
    soonest = list(islice(held, TOKENS_SHOWN if tokens else 1))
    told = told_of(
        agent,
        counts or registry.counts(agent.id),
        registry.last_seen(agent.id),
        soonest,
        len(held),
        ends=ends,
    )
    told["tokens_elevated"] = held.elevated
    if not tokens:
        del told["tokens"]
        told["next_token"] = token_shape(soonest[0], ends) if soonest else None
    told["at_tenant"] = list(registry.foreseen(agent.id))
    steps = registry.steps_of(agent.id)
    told["upstream"] = [step_shape(step) for step in sorted(steps, key=rank)]
    accounts = registry.accounts.of(agent.id)
    told["connections"] = [account_shape(account, registry) for account in accounts]
    told["outside_until"] = _moment(registry.leases.outside_until(agent.id))
    shared = registry.shared_with(agent.id) if accounts else ()
    told["shared_with"] = _named(shared, registry)
    return told


def account_shape(account: Account, registry: Registry) -> dict[str, Any]:
    """Return a connected account; what could use it is not known here."""
    lease = registry.leases.of(account.agent_id, account.connection)
    ahead = registry.outlook(account)
    return {
        "connection": account.connection,
        "account": account.id,
        "user": account.user,
        "user_name": account.user_name,
        "provider_scopes": list(account.scopes),
        "since": iso(account.since),
        "removing": account.removing,
        "outside_until": _moment(lease.until if lease else None),
        "shared_with": _named(registry.sharing(account), registry),
        "provider_user": account.provider_user or None,
        "at_provider": {
            "known": ahead.known,
            "kept_for": _named(ahead.kept_for, registry),
            "may_cut": _named(ahead.may_cut, registry),
        },
    }


def _named(agents: Iterable[AgentId], registry: Registry) -> list[dict[str, str]]:
    return [{"id": one, "name": registry.agent(one).name} for one in agents]


def step_shape(step: OutboxStep) -> dict[str, Any]:
    """Return a step at the tenant, or at a provider, as it stands."""
    return {
        "step": step.step,
        "connection": step.connection or None,
        "status": step.status,
        "ms": step.ms,
        "attempts": step.attempts,
        "problem": step.problem,
        "reason": reason(step),
        "begun_at": iso(step.begun_at),
        "next_at": _moment(step.next_at),
    }


def told_of(
    agent: Agent,
    counts: AgentCounts,
    seen: datetime | None,
    soonest: Iterable[Token],
    live: int,
    *,
    ends: Ends = _as_recorded,
) -> dict[str, Any]:
    """Return *agent* with what it holds: *live* tokens, the *soonest* to end listed."""
    return {
        "id": agent.id,
        "client_id": agent.client_id,
        "name": agent.name,
        "owner": agent.owner,
        "purpose": agent.purpose,
        "status": agent.status.value,
        "scopes": list(agent.scopes),
        "resource_server": agent.resource_server,
        "serves": list(agent.serves),
        "resources": list(agent.resources),
        "created_at": iso(agent.created_at),
        "revoked_at": _moment(agent.revoked_at),
        "last_seen_at": _moment(seen),
        "tokens": [token_shape(token, ends) for token in soonest],
        "tokens_live": live,
        "counts": counts_shape(counts),
    }


def counts_shape(counts: AgentCounts) -> dict[str, int]:
    """Return how requests were answered."""
    return {
        "allowed": counts.allowed,
        "denied": counts.denied,
        "escalated": counts.escalated,
    }


def panic_shape(panic: Panic | None) -> dict[str, Any]:
    """Return how the panic switch stands."""
    return {
        "on": panic is not None,
        "since": iso(panic.since) if panic else None,
        "by": panic.by if panic else None,
        "reason": panic.reason if panic else None,
    }


def token_shape(token: Token, ends: Ends = _as_recorded) -> dict[str, Any]:
    """Return *token* without anything that could use it."""
    return {
        "id": token.id,
        "agent_id": token.agent_id,
        "scope": token.scope,
        "kind": token.kind.value,
        "single_use": token.single_use or token.kind is TokenKind.ELEVATED,
        "issued_at": iso(token.issued_at),
        "expires_at": iso(ends(token.expires)),
    }


def stepup_shape(stepup: StepUp, ends: Ends = _as_recorded) -> dict[str, Any]:
    """Return *stepup* as consoles render and approvers decide it."""
    return {
        "id": stepup.id,
        "agent_id": stepup.agent_id,
        "agent_name": stepup.agent_name,
        "scope": stepup.scope,
        "action": stepup.action,
        "resource": stepup.resource,
        "parameters": stepup.parameters,
        "resource_indicator": stepup.resource_indicator,
        "authorization_details": stepup.details,
        "unlimited": stepup.unlimited,
        "reason": stepup.reason,
        "rule": stepup.rule,
        "why": stepup.why,
        "risk": stepup.risk.value,
        "policy_version": stepup.policy_version,
        "nonce": stepup.nonce,
        "digest": stepup.digest,
        "fingerprint": fingerprint(stepup.digest),
        "ttl": stepup.ttl,
        "count": stepup.count,
        "connection": stepup.connection,
        "problem": stepup.problem,
        "requested_at": iso(stepup.requested_at),
        "expires_at": iso(ends(stepup.expires)),
        "status": stepup.status.value,
        "decided_by": _evidence(stepup.decided_by),
        "decided_at": _moment(stepup.decided_at),
        "fetched_at": _moment(stepup.fetched_at),
        "denial": stepup.denial,
        "begun_at": _moment(stepup.begun_at),
        "redeemed_at": _moment(stepup.redeemed_at),
        "device": device_shape(stepup.device) if stepup.device else None,
    }


def event_shape(event: Event) -> dict[str, Any]:
    """Return *event* as the audit pane, the CLI and exports show it."""
    return {
        "seq": event.seq,
        "time": iso(event.time),
        "type": event.type.value,
        "actor": {
            "kind": event.actor.kind.value,
            "id": event.actor.id,
            "name": event.actor.name,
        },
        "agent_id": event.agent_id,
        "action": event.action,
        "resource": event.resource,
        "outcome": event.outcome.value if event.outcome else None,
        "reason": event.reason,
        "rule": event.rule,
        "decision_id": event.decision_id,
        "detail": event.detail,
        "hash": event.hash,
    }


def device_shape(device: DeviceCode) -> dict[str, Any]:
    """Return what an approver needs to reach the tenant."""
    return {
        "user_code": device.user_code,
        "verification_uri": device.verification_uri,
        "verification_uri_complete": device.verification_uri_complete,
        "expires_in": device.expires_in,
        "interval": device.interval,
        "expires_at": iso(device.expires_at),
    }


def _evidence(evidence: Evidence | None) -> dict[str, Any] | None:
    if evidence is None:
        return None
    return {
        "sub": evidence.sub,
        "name": evidence.name,
        "amr": list(evidence.amr),
        "auth_time": _moment(evidence.auth_time),
    }


def _moment(moment: datetime | None) -> str | None:
    return iso(moment) if moment else None
