"""Mint an elevated token: approval, evidence and token in one transaction."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from agentvault_tui.broker.core import SYSTEM, Broker, decide_anew
from agentvault_tui.broker.stepups import stepup_draft
from agentvault_tui.broker.usecases.approvals import (
    CUTTING,
    approved_by,
    check_person,
    confirm,
    end_gathered,
    is_overtaken,
    pages_at,
    told_of,
    with_approval,
)
from agentvault_tui.broker.usecases.changes import apply_change
from agentvault_tui.broker.usecases.policy_change import still_issued
from agentvault_tui.broker.uses import revoked_draft
from agentvault_tui.clock import Deadline, iso
from agentvault_tui.errors import IdentityError, LedgerBusyError
from agentvault_tui.ledger import DropToken
from agentvault_tui.model import (
    Actor,
    ActorKind,
    Draft,
    EventType,
    Evidence,
    Repeat,
    Risk,
    StepUp,
    StepUpId,
    StepUpStatus,
    Token,
    TokenId,
    TokenKind,
    new_id,
)
from agentvault_tui.model.claims import STEPUP
from agentvault_tui.model.role import Role, role_of
from agentvault_tui.settings import Settings
from agentvault_tui.text import visible
from agentvault_tui.vault import DeviceFlow, FlowTokens, Identity, is_approver
from agentvault_tui.vault.identity import verified_email


def may_approve(identity: Identity, settings: Settings) -> bool:
    """Check whether *identity*, proven a moment ago, may approve.

    Where the tenant gives a role of ours, or roles are ``claim``, being on the list of
    approvers is not enough.
    """
    if not is_approver(identity, settings.stepup.approvers):
        return False
    role = role_of(identity.roles)
    if role is None:
        return not settings.operators.by_claim
    return role is Role.APPROVER


_PASSKEYS: Final = frozenset({"hwk", "swk"})
"""RFC 8176 section 2: proof of a key in hardware, or in software."""
_BUSY_TRIES: Final = 4
"""In a team each takes a second; the person's code outlives them."""
UNDELIVERED: Final = "undelivered:"
"""Replaces the hash of a minted token whose secret has not been delivered yet."""


async def mint_verified(
    broker: Broker, started: StepUp, flow: DeviceFlow, tokens: FlowTokens
) -> bool:
    """Verify the approver at the end of *flow*, and mint the approved token.

    Returns as `mint_elevated` does.

    Raises:
        TenantError: the ID token proves too little, or who it names may not approve.
        LedgerError: the approval could not be recorded.
    """
    # Not before this flow, rather than this request: with two requests waiting,
    # the factor shown for one must not serve the other (RFC 9470 section 4 would
    # let it, within a max_age).
    identity = await broker.reaching.tenant.verify_id_token(
        tokens.id_token, not_before=flow.started_at, until=flow.expires
    )
    if not may_approve(identity, broker.settings):
        raise IdentityError(
            "not_an_approver", f"{identity.sub} is not an allowed approver"
        )
    check_person(broker, broker.stepups.get(started.id), identity)
    claim = identity.claims.get(STEPUP)
    # A tenant with approval pages signs what was decided; no other yes stands for it.
    if (claim is not None or pages_at(broker)) and claim != {
        "digest": started.digest,
        "decision": "approve",
    }:
        raise IdentityError("claims", "the ID token is about something else")
    high = started.risk is Risk.HIGH and broker.settings.stepup.passkey_only
    if high and not _PASSKEYS & set(identity.amr):
        raise IdentityError(
            "no_passkey", "this needs a passkey ([stepup] passkey_only)"
        )
    evidence = Evidence(
        *(identity.sub, identity.name, identity.amr, identity.authenticated_at),
        by_role=is_approver(identity, ()),
        email=verified_email(identity),
    )
    # Before it began nobody had its code, whatever the seconds of ``auth_time`` say.
    began = started.begun_at or started.requested_at
    shown, verified = max(identity.authenticated_at, began), broker.clock.now()

    async def mint() -> bool:
        """Mint the token, unless the approver lost the right meanwhile."""
        if broker.reaching.people.changed_since(identity.sub, shown):
            raise IdentityError(
                "stale",
                f"{visible(identity.name, 60)} was changed at the tenant meanwhile",
                "approve again",
            )
        await _end_overtaken(broker, started.id, verified)
        minted = await mint_elevated(broker, started, evidence, tokens.id_token)
        await _end_overtaken(broker, started.id, verified)
        return minted

    # Whoever has shown a factor is not asked for it again because others write now.
    for _ in range(_BUSY_TRIES):
        with suppress(LedgerBusyError):
            return await decide_anew(mint)
    return await decide_anew(mint)


async def _end_overtaken(broker: Broker, stepup_id: StepUpId, since: datetime) -> None:
    """End approvals of people revoked *since*, which `end_gathered` left to this."""
    for sub in approved_by(broker.stepups.get(stepup_id)):
        if broker.reaching.people.changed_since(sub, since, CUTTING):
            await end_gathered(broker, sub)


async def mint_elevated(
    broker: Broker, started: StepUp, evidence: Evidence, id_token: str
) -> bool:
    """Turn a verified approval into one token for one action, or carry out a change.

    Args:
        broker: the broker.
        started: the step-up as it was when its device flow began; the approval is
            for that digest and no other.
        evidence: the approver, the factor and the time.
        id_token: the verified token; only its hash is stored.

    Returns:
        whether it was approved; False when it was decided, cut or changed meanwhile.
    """
    registry = broker.registry
    if started.change is not None:
        return await apply_change(
            broker, started, evidence, _proof_detail(evidence, id_token)
        )
    stepup = registry.stepups.get(started.id)
    if (
        is_overtaken(broker, stepup, started)
        or stepup.policy_version != broker.deciding.policy.version
        or not registry.serves(stepup.agent_id)
    ):
        return False
    stepup = with_approval(broker, stepup, evidence)
    detail = _proof_detail(evidence, id_token)
    if 0 < len({one.sub for one in stepup.confirmed}) < stepup.need:
        return await confirm(broker, stepup, detail)
    token = elevated_token(broker, stepup)
    approved = replace(
        stepup,
        status=StepUpStatus.APPROVED,
        decided_by=evidence,
        decided_at=broker.clock.now(),
        problem=None,
        device=None,
        repeat=_begun(broker, stepup, evidence),
    )
    grant = registry.unless_revoked(stepup.agent_id, scope=token.scope)
    broker.stepups.deciding.add(stepup.id)
    try:
        draft = _approval(approved, token, evidence, detail)
        await _record_approval(broker, approved, token, draft)
        if grant.revoked:
            why = "revoked while it was being approved"
            await record_void(broker, token, why, registry.stepups.get(stepup.id))
            return False
        count = registry.stepups.get(stepup.id).count
        registry.stepups.put(replace(approved, count=count))
        registry.put_token(token)
        if stepup.policy_version != broker.deciding.policy.version and not still_issued(
            broker, token
        ):
            return False
    finally:
        broker.stepups.deciding.discard(stepup.id)
    broker.stepups.end_flow(stepup.id)
    return True


def _begun(broker: Broker, stepup: StepUp, evidence: Evidence) -> Repeat | None:
    """Return the repeat that is approved, from when the person proved who they are."""
    if (repeat := stepup.repeat) is None:
        return None
    proven = evidence.auth_time or broker.clock.now()
    gone = max((broker.clock.now() - proven).total_seconds(), 0.0)
    ends = Deadline.after(broker.clock, max(repeat.within - gone, 0.0))
    return replace(repeat, left=repeat.count, expires=ends)


async def _record_approval(
    broker: Broker, approved: StepUp, token: Token, draft: Draft
) -> None:
    """Write approval and token, and that earlier denials count no longer."""
    cooldowns = broker.stepups.cooldowns
    before = cooldowns.of(approved.requester)
    over = cooldowns.approved(approved.requester)
    try:
        await broker.record(draft, changes=[approved, token, *over])
    except BaseException:
        cooldowns.restore(before)
        raise


def elevated_token(broker: Broker, stepup: StepUp) -> Token:
    """Return the token of an approval; its secret is not delivered yet."""
    token_id = TokenId(new_id("tok"))
    return Token(
        id=token_id,
        sha256=UNDELIVERED + token_id,
        agent_id=stepup.agent_id,
        scope=stepup.scope,
        kind=TokenKind.ELEVATED,
        issued_at=broker.clock.now(),
        expires=broker.registry.lifetimes.life(stepup.agent_id, stepup.ttl)[0],
        authorization_details=stepup.authorization_details,
        resource=stepup.resource_indicator,
        stepup_id=stepup.id,
        decision_id=stepup.decision_id,
    )


async def record_void(
    broker: Broker, token: Token, reason: str, *ended: StepUp
) -> None:
    """Record that a revocation overtook *token*: its secret was never delivered."""
    draft = revoked_draft(token, SYSTEM, reason)
    await broker.record_cut(draft, changes=[DropToken(token.id), *ended])


def _proof_detail(evidence: Evidence, id_token: str) -> dict[str, Any]:
    """Return how an approval was proven."""
    return {
        "amr": list(evidence.amr),
        "auth_time": iso(evidence.auth_time) if evidence.auth_time else None,
        "id_token_sha256": hashlib.sha256(id_token.encode()).hexdigest(),
    }


def _approval(
    stepup: StepUp, token: Token, evidence: Evidence, detail: dict[str, Any]
) -> Draft:
    by: dict[str, Any] = {"decided_by": [told_of(one) for one in stepup.confirmed]}
    return stepup_draft(
        EventType.STEPUP_APPROVED,
        Actor(ActorKind.OPERATOR, evidence.sub, evidence.name),
        stepup,
        **detail,
        **(by if stepup.confirmed else {}),
        token_id=token.id,
        scope=token.scope,
        token_fetch_before=iso(token.expires.wall),
    )
