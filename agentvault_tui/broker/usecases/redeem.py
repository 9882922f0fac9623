"""Tokens after the decision: polling, introspection, revocation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from agentvault_tui.broker.answers import (
    POLL_INTERVAL,
    Denied,
    Expired,
    Granted,
    Introspection,
    Polled,
    SlowDown,
    Spent,
    Waiting,
)
from agentvault_tui.broker.audience import audiences_of
from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.stepups import digest_of
from agentvault_tui.broker.usecases.decide import (
    Request,
    call_webhooks,
    denied_by_limit,
    denied_by_webhook,
    reserve_approved,
)
from agentvault_tui.broker.usecases.exchange import deliver_approved
from agentvault_tui.broker.usecases.mint import record_void
from agentvault_tui.broker.usecases.policy_change import (
    POLICY_CHANGED,
    still_issued,
)
from agentvault_tui.broker.usecases.request import ANEW, deny, refused
from agentvault_tui.broker.usecases.stepup_end import expire
from agentvault_tui.broker.uses import revoked_draft, seen_by, token_detail
from agentvault_tui.clock import iso
from agentvault_tui.errors import (
    LedgerBusyError,
    LedgerError,
    LedgerUnwritableError,
    OvertakenError,
)
from agentvault_tui.ledger import ALLOWED, DropToken
from agentvault_tui.model import (
    Agent,
    Draft,
    EventType,
    StepUp,
    StepUpStatus,
    Token,
    TokenKind,
    Verdict,
    new_secret,
    sha256_hex,
)

PARENT_ENDED: Final = "parent_ended"
"""The reason of a token that ended with the one it was exchanged for."""
_EARLY: Final = 0.5
"""Seconds of grace before a poll counts as too fast: clocks and networks jitter."""


async def poll(broker: Broker, agent: Agent, auth_req_id: str) -> Polled:
    """Answer one CIBA poll (CIBA Core 11): only to the client that asked, once.

    Args:
        broker: the broker.
        agent: who polls.
        auth_req_id: the step-up's id.

    Returns:
        the token, or the state of the request.

    Raises:
        LedgerUnwritableError: the delivery could not be recorded.
    """
    broker.registry.seen(agent.id)
    stepup = broker.stepups.find(auth_req_id)
    if stepup is not None and stepup.status.open:
        # This one alone: looking at all of them at each poll is quadratic work.
        await expire(broker, [stepup])
        stepup = broker.stepups.find(auth_req_id)
    if stepup is None or stepup.agent_id != agent.id:
        return Spent()
    if stepup.status in {StepUpStatus.DENIED, StepUpStatus.CANCELLED}:
        return refusal_of(broker, agent, stepup)
    if refusal := refused(broker, agent):
        return Denied(*refusal, stepup.decision_id)
    match stepup.status:
        case StepUpStatus.APPROVED if stepup.connection is not None:
            return await deliver_approved(broker, agent, stepup)
        case StepUpStatus.APPROVED if stepup.fetched:
            return await deliver(broker, agent, stepup)
        case StepUpStatus.EXPIRED:
            return Expired()
        case StepUpStatus.PENDING | StepUpStatus.AUTHORIZING:
            early = broker.stepups.polled_early(stepup.id, POLL_INTERVAL - _EARLY)
            return SlowDown() if early else Waiting()
        case _:
            return Spent()


async def introspect(broker: Broker, caller: Agent, token: str) -> Introspection:
    """Return the facts of *token* that *caller* may know (RFC 7662 section 2.2).

    A resource server's active answer about a token good for one action consumes it,
    and the consumption is durable before the answer leaves. Between finding the token
    and dropping it nothing else can run, so of any number of callers one gets it.

    Args:
        broker: the broker.
        caller: a resource server, or the token's own agent.
        token: its secret.

    Returns:
        the token as the caller sees it, or None.

    Raises:
        LedgerUnwritableError: its consumption could not be recorded.
    """
    token_info = broker.registry.token(sha256_hex(token))
    if token_info is None or not broker.registry.serves(caller.id):
        return Introspection(None)
    if not caller.resource_server:
        # RFC 7662 section 4: whoever may ask about any token can go fishing for one.
        return Introspection(token_info if token_info.agent_id == caller.id else None)
    seen = seen_by(caller, token_info)
    if (
        seen is None
        or not token_info.scope  # says who asks at the gateway, and nothing to others
        or audiences_of(token_info.resource, broker.admitting.url)
    ):
        return Introspection(None)
    # The catalogue in force counts beside the one the token was issued under.
    elevated = token_info.kind is TokenKind.ELEVATED
    catalogue = broker.deciding.policy.catalogue
    if not (
        elevated
        or token_info.single_use
        or catalogue.is_single_use(token_info.scope.split())
    ):
        broker.recording.uses.count(token_info, caller)
        return Introspection(seen)
    broker.ledger.check_writable()  # or it would be spent, and nobody have an answer
    family = broker.registry.delegations.family(token_info)
    broker.registry.begin_use([token_info, *family])
    if not broker.registry.drop_token(token_info):
        return Introspection(None)
    if elevated and not _as_approved(broker, token_info):
        await record_void(broker, token_info, "it is not what was approved")
        return Introspection(None)
    grant = broker.registry.unless_revoked(token_info.agent_id, scope=token_info.scope)
    await _record_redemption(broker, caller, token_info, family)
    alive = (
        not grant.revoked
        and broker.registry.serves(caller.id)
        and not token_info.expires.passed(broker.clock)
    )
    return Introspection(seen if alive else None)


async def revoke_token(broker: Broker, agent: Agent, token: str) -> None:
    """Revoke one of the agent's own tokens (RFC 7009); anything else is ignored.

    Args:
        broker: the broker.
        agent: the agent.
        token: its secret.

    Raises:
        LedgerUnwritableError: too many of the agent's are not recorded yet, or it is
            not known here, and the team's store did not answer: this one was not cut
            (RFC 7009 section 2.2.1).
    """
    digest = sha256_hex(token)
    token_held = broker.registry.token(digest)
    if token_held is None:  # another broker may have issued it a moment ago
        await broker.ledger.confirm()
        token_held = broker.registry.token(digest)
    if token_held is not None and token_held.agent_id == agent.id:
        await end_token(broker, agent, token_held)


async def end_token(broker: Broker, agent: Agent, live: Token) -> None:
    """End a live token that its agent has no more use for, and the calls it opened.

    Args:
        broker: the broker.
        agent: the agent.
        live: the token.

    Raises:
        LedgerUnwritableError: see `revoke_token`.
    """
    if not broker.recording.cuts.may_end(agent.id):
        raise LedgerUnwritableError("what you ended before is not recorded yet")
    ended, _ = broker.end_tokens([live])
    if live in ended:
        below, actor = [one for one in ended if one is not live], broker.actor(agent)
        await broker.record_cut(
            *broker.recording.uses.ended(live),
            revoked_draft(live, actor, "handed back"),
            changes=[DropToken(live.id)],
        )
        await broker.record_ended(below, actor, PARENT_ENDED)


def _as_approved(broker: Broker, token: Token) -> bool:
    """Check whether an elevated token equals the content of its approval's digest."""
    stepup = broker.stepups.find(token.stepup_id)
    if stepup is None:
        return False
    approved = stepup.scope, stepup.resource_indicator, stepup.authorization_details
    served = token.scope, token.resource, token.authorization_details
    return (
        stepup.agent_id == token.agent_id
        and digest_of(stepup) == stepup.digest
        and served == approved
    )


async def deliver(
    broker: Broker, agent: Agent, stepup: StepUp
) -> Granted | Denied | Expired | Spent:
    """Give the elevated token's secret to the agent: made now, stored as a hash.

    Args:
        broker: the broker.
        agent: the agent of the approved request.
        stepup: the approved request.

    Returns:
        the token, once.

    Raises:
        LedgerError: it could not be recorded, and can be fetched later.
    """
    registry = broker.registry
    if stepup.fetched_at is not None:
        return Spent()
    minted = registry.elevated(stepup.id)
    if minted is None:
        # Nobody came within the time there was: for the client as if undecided.
        return Expired(approved=True)
    if not _as_approved(broker, minted):
        registry.drop_token(minted)
        await record_void(broker, minted, "it is not what was approved")
        return Spent()
    request = Request.approved(agent, stepup)
    verdict = await call_webhooks(broker, request, request.foresee(broker))
    if denied_by_webhook(verdict):
        return await deny(broker, request, verdict.reason, verdict.message, verdict)
    if registry.elevated(stepup.id) is not minted:  # given out in the meantime
        return Spent()
    verdict = reserve_approved(broker, request)
    if denied_by_limit(verdict):
        return await deny(broker, request, verdict.reason, verdict.message, verdict)
    return await _give_out(broker, agent, stepup, minted, verdict)


async def _give_out(
    broker: Broker, agent: Agent, stepup: StepUp, minted: Token, verdict: Verdict
) -> Granted | Denied:
    deciding = broker.deciding
    registry = broker.registry
    fetched = replace(stepup, fetched_at=broker.clock.now())
    registry.stepups.put(fetched)  # before the wait: a second poll finds it spent
    registry.begin_use([minted])
    registry.drop_token(minted)
    secret = new_secret("av_e")
    expires, ttl = registry.lifetimes.life(agent.id, stepup.ttl)
    # Its life begins when someone holds it; fetched it must be within as long again.
    token = minted._replace(
        sha256=sha256_hex(secret),
        issued_at=broker.clock.now(),
        expires=expires,
    )
    grant = registry.unless_revoked(agent.id, scope=token.scope)
    version = deciding.policy.version
    try:
        draft = _delivery(broker, agent, stepup, token)
        if verdict.counted:
            draft.detail["counted"] = verdict.counted
        await broker.record(draft, changes=[token, fetched])
    except BaseException:
        registry.stepups.put_back(fetched, stepup)
        registry.put_back([minted])
        if version != deciding.policy.version and registry.lives(minted):
            still_issued(broker, minted)
        raise
    finally:
        registry.used_up(minted.id)
    if grant.revoked:
        await record_void(broker, token, "revoked while it was being delivered")
        reason, message = refused(broker, agent) or ("agent_revoked", "Revoked.")
        return Denied(reason, message, stepup.decision_id)
    registry.put_token(token)
    # While it was recorded a check of all live tokens did not see it.
    if version != deciding.policy.version and not still_issued(broker, token):
        return Denied(POLICY_CHANGED, ANEW, stepup.decision_id)
    return Granted(secret, token, ttl, stepup.decision_id)


def _delivery(broker: Broker, agent: Agent, stepup: StepUp, token: Token) -> Draft:
    return Draft(
        EventType.TOKEN_DELIVERED,
        broker.actor(agent),
        agent_id=agent.id,
        action=stepup.action,
        resource=stepup.resource,
        rule=stepup.rule,
        decision_id=stepup.decision_id,
        detail={
            "token_id": token.id,
            "stepup_id": stepup.id,
            "scope": token.scope,
            "expires_at": iso(token.expires.wall),
            **({"repeat_of": stepup.repeat_of} if stepup.repeat_of else {}),
            **agent.shown_identity,
        },
    )


def refusal_of(broker: Broker, agent: Agent, stepup: StepUp) -> Denied:
    """Return the agent's error for a step-up that was denied or cancelled.

    Args:
        broker: the broker.
        agent: the agent.
        stepup: its request.

    Returns:
        the denial, with the decision that was held.
    """
    if stepup.status is StepUpStatus.DENIED:
        denial = stepup.denial or "no reason was given"
        return Denied(
            "stepup_denied", f"A person denied this: {denial}", stepup.decision_id
        )
    reason, message = refused(broker, agent) or (
        stepup.problem or "cancelled",
        "This request was cancelled before a person decided. Ask again.",
    )
    return Denied(reason, message, stepup.decision_id)


async def spend_approval(
    broker: Broker, agent: Agent, stepup: StepUp, *drafts: Draft
) -> bool:
    """Spend an approval at once, in place of the token it would be fetched as.

    Nothing else runs between finding the approval and spending it, so it is spent at
    most once; *drafts* and the end of the token are durable before this returns.

    Returns:
        whether it counts; False when it was spent, ended or revoked meanwhile.

    Raises:
        LedgerError: it could not be recorded. From the first wait on it stays spent.
    """
    minted = broker.registry.elevated(stepup.id)
    if minted is None:
        return False
    grant = broker.registry.unless_revoked(agent.id, scope=minted.scope)
    spent = await spend_token(broker, agent, minted, *drafts)
    return spent and not grant.revoked


async def spend_token(
    broker: Broker, agent: Agent, token: Token, *drafts: Draft
) -> bool:
    """Spend a single-use token, together with *drafts*.

    Args:
        broker: the broker.
        agent: who uses it.
        token: the token.
        drafts: events of the same transaction.

    Returns:
        whether it was this that used it up; only then *drafts* are recorded.

    Raises:
        LedgerError: it could not be recorded. From the first wait on it stays spent.
    """
    broker.ledger.check_writable()
    family = broker.registry.delegations.family(token)
    broker.registry.begin_use([token, *family])
    if not broker.registry.drop_token(token):
        return False
    if token.kind is TokenKind.ELEVATED and not _as_approved(broker, token):
        await record_void(broker, token, "it is not what was approved")
        return False
    await _record_redemption(broker, agent, token, family, *drafts)
    return True


async def _record_redemption(
    broker: Broker,
    caller: Agent,
    token: Token,
    family: Sequence[Token],
    *drafts: Draft,
) -> None:
    # What was decided is one action, whoever of those it was passed on to takes it.
    family, _ = broker.end_tokens(family)
    changes: list[DropToken | StepUp] = [DropToken(one.id) for one in (token, *family)]
    approved = stepup = broker.stepups.find(token.stepup_id)
    if stepup is not None:
        now = broker.clock.now()
        stepup = replace(stepup, status=StepUpStatus.REDEEMED, redeemed_at=now)
        broker.stepups.put(stepup)
        changes.append(stepup)
    draft = Draft(
        EventType.TOKEN_REDEEMED,
        broker.actor(caller),
        agent_id=token.agent_id,
        action=stepup.action if stepup else token.scope,
        resource=stepup.resource if stepup else token.resource,
        reason=ALLOWED if token.kind is TokenKind.STANDARD else None,
        decision_id=stepup.decision_id if stepup else token.decision_id,
        detail=token_detail(token) | caller.shown_identity,
    )
    try:
        ended = [revoked_draft(one, broker.actor(caller), "used") for one in family]
        await broker.record(*drafts, draft, *ended, changes=changes)
    except (OvertakenError, LedgerBusyError):  # it was not written
        broker.stepups.put_back(stepup, approved)
        broker.registry.put_back([token, *family])
        raise
    except LedgerError:
        # The caller hears of an error, the token stays spent, and so it must on disk.
        broker.recording.cuts.missed(changes, token.agent_id)
        await broker.recording.cuts.keep()
        raise
    finally:
        for one in (token, *family):
            broker.registry.used_up(one.id)
