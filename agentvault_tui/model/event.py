"""One line of the ledger: the actor, the action and the answer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple

from agentvault_tui.model.decision import Outcome
from agentvault_tui.model.ids import AgentId, DecisionId
from agentvault_tui.model.role import Role, role_of


class EventType(StrEnum):
    """Every kind of event there is; the words are part of the contract."""

    PANIC_ON = "panic.on"
    PANIC_OFF = "panic.off"
    AGENT_REGISTERED = "agent.registered"
    AGENT_REVOKED = "agent.revoked"
    AGENT_RESTORED = "agent.restored"
    AGENT_SCOPES_CHANGED = "agent.scopes_changed"
    AGENT_CHANGED = "agent.changed"
    """Its owner, purpose, kind or credential."""
    AGENT_FLOODING = "agent.flooding"
    """An agent repeats refused requests; they are no longer decided."""
    TOKEN_DECISION = "token.decision"  # noqa: S105 - a word of the contract
    ACCESS_DECISION = "access.decision"
    """An evaluation (AuthZEN, or a hook of an agent host): nothing was issued."""
    GATEWAY_REFUSED = "gateway.refused"
    GATEWAY_HELD = "gateway.held"
    GATEWAY_ATTEMPT = "gateway.attempt"
    """A call that is allowed, recorded before its first byte leaves."""
    GATEWAY_RESULT = "gateway.result"
    """How an attempt ended; ``unknown`` where the process ended before it."""
    GATEWAY_TUNNEL = "gateway.tunnel"
    """How a tunnel to a host that is no service ended: its attempt's result."""
    RUN_CONFINED = "run.confined"
    """A command begins that reaches AgentVault alone; recorded before it does."""
    RUN_REFUSED = "run.refused"
    """A confined command tried to reach something else, so many times."""
    MCP_MESSAGE = "mcp.message"
    """A number of messages of one method, other than calls, reached an MCP server."""
    TOKEN_DELEGATED = "token.delegated"  # noqa: S105 - same
    """An agent exchanged its token for one of another agent's (RFC 8693)."""
    TOKEN_DELIVERED = "token.delivered"  # noqa: S105 - same
    """An approved token's secret was made and given to the agent that asked."""
    TOKEN_REDEEMED = "token.redeemed"  # noqa: S105 - same
    """A token good for one action was consumed by a resource server's question."""
    TOKEN_USED = "token.used"  # noqa: S105 - same
    """A resource server asked so many times about an active token."""
    TOKEN_REVOKED = "token.revoked"  # noqa: S105 - same
    TOKEN_EXCHANGED = "token.exchanged"  # noqa: S105 - same
    """A provider's token was given to an agent, out of Token Vault."""
    TOKEN_NOT_EXCHANGED = "token.not_exchanged"  # noqa: S105 - same
    """An allowed request got no provider's token: there is none, or the tenant
    refused."""
    STEPUP_REQUESTED = "stepup.requested"
    STEPUP_AUTHORIZING = "stepup.authorizing"
    STEPUP_NOT_APPROVED = "stepup.not_approved"
    """A try at approving that led to no decision: cancelled, stale, no factor."""
    STEPUP_CONFIRMED = "stepup.confirmed"
    """One of several people who have to approve it did."""
    STEPUP_APPROVED = "stepup.approved"
    STEPUP_REPEAT_ENDED = "stepup.repeat_ended"
    """The rest of an approval's repeats ended: a request deviated, or was denied."""
    STEPUP_DENIED = "stepup.denied"
    STEPUP_EXPIRED = "stepup.expired"
    STEPUP_CANCELLED = "stepup.cancelled"
    OPERATOR_LOGIN = "operator.login"
    OPERATOR_LOGOUT = "operator.logout"
    OPERATOR_NOT_SIGNED_IN = "operator.not_signed_in"
    """A sign-in that failed: cancelled, stale, without a factor."""
    OPERATOR_REFUSED = "operator.refused"
    """A decision by a person without the role for it."""
    POLICY_CHANGED = "policy.changed"
    CHANGE_APPLIED = "change.applied"
    """A loosening was approved by a person's factor, or a file brought it.

    ``detail.loosened`` says all: kinds, digest, who, how proven, why, and the texts.
    At the socket, where the uid is the proof, the event of the change itself has it.
    """
    CONFIG_APPLIED = "config.applied"
    """Agents, services and limits from files were put in effect."""
    ADVICE_APPLIED = "advice.applied"
    """An unused permission was removed, on trial."""
    ADVICE_GIVEN_BACK = "advice.given_back"
    ADVICE_DISMISSED = "advice.dismissed"
    SERVICE_CHANGED = "service.changed"
    """A file of the gateway was put in effect, or removed."""
    SERVICE_PROBED = "service.probed"
    """An operator probed whether a service leaves bodies unread."""
    SECRET_CHANGED = "secret.changed"  # noqa: S105 - a word of the contract
    """A sealed secret was set or removed, or all have another key."""
    CONNECTION_ADDED = "connection.added"
    """A person connected an account for an agent."""
    CONNECTION_REMOVED = "connection.removed"
    UPSTREAM_REVOCATION = "upstream.revocation"
    """A step of a revocation or restore at the tenant: done, given up, or stuck."""
    TENANT_LOG = "tenant.log"
    """A row of the tenant's own log about a client, an agent or a user of ours."""
    TENANT_LOG_GAP = "tenant.log_gap"
    """A time of the tenant's log that was not read, and may have had such rows."""
    TENANT_AWAY = "tenant.away"
    """The tenant answers no more: until it does, nothing a person decides can be."""
    TENANT_BACK = "tenant.back"
    TENANT_USER_CHANGED = "tenant.user_changed"
    """A person of the embedded tenant: added, removed, new role, password or factor."""
    TENANT_KEYS_CHANGED = "tenant.keys_changed"
    """The embedded tenant's signing keys: rotated, or all of them revoked."""
    BROKER_STARTED = "broker.started"
    BROKER_STOPPED = "broker.stopped"
    LEDGER_RESTORED = "ledger.restored"
    """The ledger continues from a backup: later events are missing here."""
    STATE_RECORDED = "state.recorded"
    """Rows of the state changed next to no event that could hold their hashes."""
    AUDIT_AMBIGUOUS = "audit.ambiguous"
    STORE_COPIED = "store.copied"
    """The ledger was copied into this store; the events before are the source's."""
    ALERT_DEAD = "alert.dead"
    """An alert that its destination did not accept for a day."""
    EXPORT_SKIPPED = "export.skipped"
    """An event that a destination for programs refused even alone."""
    CLOCK_JUMP = "clock.jump"


DECISION_TYPES: Final = (
    EventType.TOKEN_DECISION,
    EventType.ACCESS_DECISION,
    EventType.GATEWAY_REFUSED,
    EventType.GATEWAY_HELD,
    EventType.GATEWAY_ATTEMPT,
)
"""Types that answer an agent's request, each with an outcome."""
OUTCOME_TYPES: Final = (*DECISION_TYPES, EventType.RUN_REFUSED)
"""Types with an outcome. A refusal of the kernel's is no answer of policy."""
CALL_TYPES: Final = (
    EventType.GATEWAY_ATTEMPT,
    EventType.GATEWAY_RESULT,
    EventType.GATEWAY_TUNNEL,
)
"""Types of a call that policy let through: anything else goes ahead of them."""


class ActorKind(StrEnum):
    """Who can act."""

    AGENT = "agent"
    OPERATOR = "operator"
    SYSTEM = "system"
    TENANT = "tenant"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acted; an agent's name is untrusted."""

    kind: ActorKind
    id: str
    name: str


@dataclass(slots=True)
class Draft:
    """An event before the ledger gives it its place: no number, time or hash yet."""

    type: EventType
    actor: Actor
    agent_id: AgentId | None = None
    action: str | None = None
    resource: str | None = None
    outcome: Outcome | None = None
    """Set on `OUTCOME_TYPES` alone, so that counting outcomes counts answers."""
    reason: str | None = None
    rule: str | None = None
    decision_id: DecisionId | None = None
    detail: dict[str, Any] = field(default_factory=dict)


class Event(NamedTuple):
    """A recorded event, at its place in the chain."""

    seq: int
    time: datetime
    type: EventType
    actor: Actor
    agent_id: AgentId | None
    action: str | None
    resource: str | None
    outcome: Outcome | None
    reason: str | None
    rule: str | None
    decision_id: DecisionId | None
    detail: dict[str, Any]
    hash: str
    """``sha256:…`` of this link of the chain."""


LOOSENED: Final = "loosened"
"""The member of ``detail`` that says all of a loosening: see `CHANGE_APPLIED`."""


def loosens(event: Event) -> bool:
    """Check whether *event* is of a loosening, by any person and any way."""
    return LOOSENED in event.detail


_TAKEN: Final = ("passkey_removed", "removed")
"""Changes of people that take rights away, whatever the person has."""
PERSON_CHANGES: Final = ("added", "role", "password", "factor", "passkey", *_TAKEN)


def gives_rights(
    change: str, roles: Iterable[str], held: Role | None, *, by_list: bool
) -> bool:
    """Check whether a change of a person may let them do more.

    Args:
        change: one of `PERSON_CHANGES`.
        roles: as `user_changed` takes them.
        held: the person's role until now; None if that is not known.
        by_list: whether people without a role may approve, if a list names them.

    Returns:
        whether it may; not if it only takes rights away, or leaves a person without.
    """
    if change not in {"added", "role"}:
        return change not in _TAKEN
    names = (*roles,)
    new = role_of(names)
    if new is None:
        return by_list or any(names)
    return held is None or not held.includes(new)


def user_changed(
    actor: Actor, change: str, user: str, sub: str, roles: Iterable[str]
) -> Draft:
    """Return the event that *change* was made to *user*.

    Args:
        actor: who makes it.
        change: one of `PERSON_CHANGES`.
        user: the name the person signs in with; not verified.
        sub: their subject; empty for one who is added.
        roles: all they have from now on, where the change is ``added`` or ``role``.
    """
    detail: dict[str, object] = {"change": change, "user": user, "sub": sub}
    if change in {"added", "role"}:
        detail["roles"] = list(roles)
    return Draft(
        EventType.TENANT_USER_CHANGED,
        actor,
        action=change,
        resource=f"user:{user}",
        detail=detail,
    )


def keys_changed(actor: Actor, *, revoked: bool) -> Draft:
    """Return the event that the embedded tenant's signing keys are replaced.

    Args:
        actor: who replaces them.
        revoked: whether nothing that was signed before is accepted any more.

    Returns:
        the event.
    """
    action = "revoked" if revoked else "rotated"
    return Draft(EventType.TENANT_KEYS_CHANGED, actor, action=action)
