"""Decide a token request: allowed, denied, or escalated to a person."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from agentvault_tui.broker.answers import (
    Decided,
    Denied,
    Escalated,
    Granted,
    InvalidScope,
)
from agentvault_tui.broker.core import SYSTEM, Broker
from agentvault_tui.broker.stepups import digest_of, tokenless
from agentvault_tui.broker.usecases.approvals import asked_of
from agentvault_tui.broker.usecases.decide import Request, decide
from agentvault_tui.broker.usecases.policy_change import (
    POLICY_CHANGED,
    still_issued,
)
from agentvault_tui.broker.usecases.repeat import approval_for, is_same, stand_in
from agentvault_tui.broker.uses import revoked_draft
from agentvault_tui.clock import Deadline, iso
from agentvault_tui.encoder import to_json
from agentvault_tui.errors import LedgerError
from agentvault_tui.ledger import DropToken
from agentvault_tui.model import (
    Action,
    Agent,
    DecisionId,
    Draft,
    EventType,
    Outcome,
    StepUp,
    StepUpId,
    Token,
    TokenId,
    TokenKind,
    Verdict,
    new_id,
    new_secret,
    other_details,
    sha256_hex,
)

NO_SCOPE: Final = "no_scope"
"""The reason of a token without a scope, for calls that a person decides each."""
REPEATED: Final = "stepup_repeated"
"""The reason if an approval replaces a person again."""
ANEW: Final = "The policy changed while this was decided. Ask again."
ON_TRIAL: Final = "on_trial"
"""The reason of a denial of a permission removed on trial."""
_ASKER: Final = frozenset({"asked_by", "session"})
"""Who asked for the agent, among the further members of a decision's event."""
_TAKEN: Final = frozenset({"scope_not_granted", "policy_forbids", "agent_revoked"})
_TAKEN_BACK: Final = "It was taken away on trial: an operator can give it back."


async def request_token(
    broker: Broker,
    agent: Agent,
    action: Action,
    *,
    resource: str | None,
    details: tuple[dict[str, object], ...] | None,
    source: str | None = None,
    backchannel: bool = False,
) -> Decided:
    """Decide, record, and only then answer a request for a token.

    Args:
        broker: the broker.
        agent: who asks.
        action: the action.
        resource: the resource indicator (RFC 8707).
        details: ``authorization_details`` as sent (RFC 9396).
        source: the address the request came from, if it is known.
        backchannel: whether it is escalated also where policy alone would allow it
            (CIBA Core 7).

    Returns:
        the token, a denial, or the step-up to poll for.

    Raises:
        LedgerUnwritableError: the decision could not be recorded.
        LedgerBusyError: too many decisions wait to be recorded.
    """
    decision_id = DecisionId(new_id("dec"))
    request = Request(
        *(agent, action, resource, details, decision_id),
        source=source,
        backchannel=backchannel,
    )
    broker.registry.seen(agent.id)
    if refusal := refused(broker, agent):
        return await deny(broker, request, *refusal)
    verdict = await decide(broker, request)
    if verdict.outcome is Outcome.DENIED:
        return await deny(broker, request, verdict.reason, verdict.message, verdict)
    if verdict.outcome is Outcome.ALLOWED and not backchannel:
        return await issue(broker, request, verdict)
    return await _escalate_action(broker, request, verdict)


async def _escalate_action(
    broker: Broker, request: Request, verdict: Verdict
) -> Escalated | Denied | InvalidScope:
    """Hold the one action a person decides about; its scope is all the token gets."""
    action, needs = request.action, verdict.escalating
    if not action.named:
        # Without a word about it, the scope that made it escalate is the action.
        if len(needs) != 1:
            of = f"{' and '.join(needs)} each need" if needs else "this needs"
            return InvalidScope(
                f"{of} a person, and a person decides one action at a time: ask for "
                "one scope, or name the 'action' in authorization_details"
            )
        action = replace(action, action=needs[0], named=True)
    elif needs and action.action not in needs:
        return InvalidScope(
            f"the action {action.action} needs no person, and {' and '.join(needs)} "
            "does: ask for it by itself, with its own action"
        )
    if action.scopes != (action.action,):
        scope = request.scope
        action = replace(action, scopes=(action.action,))
        request = request._replace(action=action, asked_scope=scope)
        alone = request.foresee(broker)
        if alone.outcome is Outcome.DENIED:
            return await deny(broker, request, alone.reason, alone.message, alone)
        if (
            alone.outcome is verdict.outcome
            and bool(alone.escalating) is bool(needs)
            and (not verdict.hooks)
        ):
            verdict = alone
    return await escalate(broker, request, verdict)


def refused(broker: Broker, agent: Agent) -> tuple[str, str] | None:
    """Return why nothing is decided for this agent at all, if that is so.

    Args:
        broker: the broker.
        agent: who asks.

    Returns:
        reason and message, under panic and of a revoked agent.
    """
    if broker.registry.revocations.panic is not None:
        return "panic", (
            "Everything is stopped by an operator. "
            "Nothing is issued until they lift it; ask again later."
        )
    if not broker.registry.lifetimes.is_active(agent.id):
        until = broker.registry.agent(agent.id).until
        how = (
            "This agent's time is over."
            if until is not None and until.passed(broker.clock)
            else "This agent was revoked by an operator."
        )
        return "agent_revoked", f"{how} Ask its owner to have it restored."
    return None


async def issue(
    broker: Broker, request: Request, verdict: Verdict, parent: Token | None = None
) -> Granted | Denied:
    """Record, then return *verdict*'s token, which ends by a *parent*'s end."""
    registry, ttl = broker.registry, broker.settings.tokens.standard_ttl
    expires, ttl = registry.lifetimes.life(request.agent.id, ttl, parent)
    most = broker.settings.tokens.max_live
    if not registry.may_hold_more(request.agent.id, most):
        message = (
            f"This agent holds as many live tokens as one may, at most {most:,}. Use "
            "them again, or hand some back (RFC 7009)."
        )
        return await deny(broker, request, "too_many_tokens", message, verdict)
    secret = new_secret("av_t")
    single_use = broker.deciding.policy.catalogue.is_single_use(request.action.scopes)
    token = Token(
        id=TokenId(new_id("tok")),
        sha256=sha256_hex(secret),
        agent_id=request.agent.id,
        scope=request.scope,
        kind=TokenKind.STANDARD,
        issued_at=broker.clock.now(),
        expires=expires,
        authorization_details=request.served_text,
        resource=request.resource,
        single_use=single_use or (parent is not None and parent.single_use),
        decision_id=request.decision_id,
        source=request.source,
        parent_id=parent.id if parent else None,
        chain=(*parent.chain, parent.agent_id) if parent else (),
    )
    holders = request.agent.id, *token.chain
    grant = registry.unless_revoked(*holders, scope=token.scope)
    reason = verdict.reason if request.scope else NO_SCOPE
    draft = decision(broker, request, Outcome.ALLOWED, reason, verdict)
    draft.detail.update(
        token_id=token.id,
        expires_at=iso(token.expires.wall),
        **({"single_use": True} if token.single_use else {}),
    )
    drafts = [draft]
    if parent is not None:
        drafts.append(_delegated(draft, token))
        registry.delegations.add(token, parent)  # it counts before the wait
    try:
        await broker.record(*drafts, changes=[token])
    except BaseException:
        registry.delegations.remove(token)
        raise
    if grant.revoked or (parent is not None and not registry.lives(parent)):
        registry.delegations.remove(token)
        return await _voided(broker, request, token)
    registry.put_token(token, parent)
    if verdict.policy_version != broker.deciding.policy.version and not still_issued(
        broker, token
    ):
        return Denied(POLICY_CHANGED, ANEW, request.decision_id)
    return Granted(secret, token, ttl, request.decision_id)


def _delegated(decided: Draft, token: Token) -> Draft:
    """Return the event that says from whom and to whom a token was passed on."""
    return replace(
        decided,
        type=EventType.TOKEN_DELEGATED,
        outcome=None,
        detail={
            "token_id": token.id,
            "parent_token_id": token.parent_id,
            "scope": token.scope,
            "expires_at": iso(token.expires.wall),
            "chain": [*token.chain, token.agent_id],
        },
    )


async def _voided(broker: Broker, request: Request, token: Token) -> Denied:
    """Take back a token that was decided before a revocation and recorded after."""
    draft = revoked_draft(token, SYSTEM, "revoked while it was being issued")
    await broker.record_cut(draft, changes=[DropToken(token.id)])
    return Denied(*_overtaken(broker, request), request.decision_id)


def _overtaken(broker: Broker, request: Request) -> tuple[str, str]:
    return refused(broker, request.agent) or (
        "scope_not_granted",
        "This agent's scopes were changed while it asked. Ask again.",
    )


async def deny(
    broker: Broker,
    request: Request,
    reason: str,
    message: str,
    verdict: Verdict | None = None,
) -> Denied:
    """Record a no, and return it.

    Args:
        broker: the broker.
        request: the refused request.
        reason: the stable code.
        message: the remedy for a person.
        verdict: policy's answer, if it was asked.

    Returns:
        the denial.
    """
    broker.deciding.limits.release(request.decision_id)
    rule = verdict.rule if verdict else None
    if reason in _TAKEN and broker.extensions.is_on_trial(
        request.agent.id, request.action.scopes, rule
    ):
        reason = ON_TRIAL
        message += f" {_TAKEN_BACK}"
    draft = decision(broker, request, Outcome.DENIED, reason, verdict)
    draft.detail["message"] = message
    wait = verdict.retry_after if verdict and verdict.reason == reason else None
    if wait is not None:
        draft.detail["retry_after"] = wait
    await broker.record(draft)
    return Denied(reason, message, request.decision_id, wait)


async def escalate(
    broker: Broker,
    request: Request,
    verdict: Verdict,
    *,
    held: Callable[[StepUpId], None] = lambda _: None,
    stepup_id: StepUpId | None = None,
) -> Escalated | Denied:
    """Hold the request for a person, or say why not: record either, and return it.

    Args:
        broker: the broker.
        request: the request that waits.
        verdict: policy's answer.
        held: called with the step-up before anybody can see or decide it.
        stepup_id: the id of the step-up, where records name it already.

    Returns:
        the step-up, or a denial: too many wait, or the agent has to wait.
    """
    registry, limit = broker.registry, broker.settings.stepup.max_pending
    standing = await approval_for(broker, request, verdict)
    waiting = [
        stepup
        for stepup in registry.stepups.open(request.agent.id)
        if stepup.chain == request.chain and not stepup.expires.passed(broker.clock)
    ]
    wait = registry.stepups.cooldowns.remaining(request.requester)
    for stepup in waiting if standing is None or wait else ():
        if is_same(stepup, request):
            held(stepup.id)
            return await _collapse(broker, request, verdict, stepup)
    if wait:
        message = (
            f"A person said no. Requests that need a person wait {math.ceil(wait)} s "
            "more; "
            "do not repeat what was denied."
        )
        return await deny(broker, request, "cooling_down", message, verdict)
    if standing is not None:
        stepup = _new_stepup(broker, request, verdict, stepup_id)
        return await _repeated(broker, request, verdict, standing, stepup)
    if len(waiting) >= limit:
        message = (
            f"{len(waiting)} requests of this agent already wait for a person, "
            f"the most there may be is {limit}. Wait for one to be decided."
        )
        return await deny(broker, request, "too_many_pending", message, verdict)
    stepup = _new_stepup(broker, request, verdict, stepup_id)
    held(stepup.id)
    return await _hold(broker, request, verdict, stepup)


async def _repeated(
    broker: Broker,
    request: Request,
    verdict: Verdict,
    standing: StepUp,
    stepup: StepUp,
) -> Escalated | Denied:
    """Let an approval that was given for more than once stand in for a person.

    The returned step-up is approved: it is fetched, sent or spent as any approval.
    """
    decided = decision(broker, request, Outcome.ALLOWED, REPEATED, verdict)
    decided.detail.pop("counted", None)  # that is when its token is given out
    wanted = _request_detail(request, stepup)
    approved = await stand_in(broker, standing, stepup, decided, wanted)
    if approved is None:
        return Denied(*_overtaken(broker, request), request.decision_id)
    return _escalated(broker, request, verdict, approved)


async def _hold(
    broker: Broker, request: Request, verdict: Verdict, stepup: StepUp
) -> Escalated:
    """Record the step-up, in memory first so that an identical one finds it."""
    broker.stepups.put(stepup)
    draft = decision(broker, request, Outcome.ESCALATED, verdict.reason, verdict)
    draft.detail["stepup_id"] = stepup.id
    requested = Draft(
        EventType.STEPUP_REQUESTED,
        broker.actor(request.agent),
        agent_id=request.agent.id,
        action=stepup.action,
        resource=stepup.resource,
        reason=stepup.reason,
        rule=stepup.rule,
        decision_id=request.decision_id,
        detail=_request_detail(request, stepup),
    )
    try:
        await broker.record(draft, requested, changes=[stepup])
    except BaseException:
        broker.stepups.forget(stepup)
        raise
    return _escalated(broker, request, verdict, stepup)


def _request_detail(request: Request, stepup: StepUp) -> dict[str, Any]:
    """Return the first event's detail of a step-up."""
    return {
        "stepup_id": stepup.id,
        "digest": stepup.digest,
        "nonce": stepup.nonce,
        "policy_version": stepup.policy_version,
        "scope": stepup.scope,
        "parameters": stepup.parameters,
        "why": stepup.why,
        "risk": stepup.risk.value,
        "ttl": stepup.ttl,
        "expires_at": iso(stepup.expires.wall),
        "need": stepup.need,
        **_event_detail(request),
        **{name: request.about[name] for name in _ASKER & request.about.keys()},
        **tokenless(stepup),
    }


async def _collapse(
    broker: Broker, request: Request, verdict: Verdict, stepup: StepUp
) -> Escalated:
    again = broker.stepups.count_again(stepup)
    draft = decision(broker, request, Outcome.ESCALATED, verdict.reason, verdict)
    draft.detail.update(stepup_id=stepup.id, count=again.count)
    try:
        await broker.record(draft)
    except LedgerError:
        broker.stepups.count_less(stepup.id)
        raise
    return _escalated(broker, request, verdict, again)


def _escalated(
    broker: Broker, request: Request, verdict: Verdict, stepup: StepUp
) -> Escalated:
    left = max(1, round(stepup.expires.remaining(broker.clock)))
    return Escalated(stepup, verdict.message, left, request.decision_id)


def _new_stepup(
    broker: Broker, request: Request, verdict: Verdict, stepup_id: StepUpId | None
) -> StepUp:
    action, agent = request.action, request.agent
    stepup = StepUp(
        id=stepup_id or StepUpId(new_id("sup")),
        agent_id=agent.id,
        agent_name=agent.name,
        scope=request.scope,
        action=action.action,
        resource=action.resource,
        parameters_json=to_json(action.parameters),
        reason=action.reason,
        rule=verdict.rule,
        why=verdict.why,
        risk=verdict.risk,
        policy_version=verdict.policy_version,
        nonce=new_secret("n"),
        digest="",
        decision_id=request.decision_id,
        ttl=broker.settings.tokens.elevated_ttl,
        requested_at=broker.clock.now(),
        expires=Deadline.after(broker.clock, broker.settings.stepup.expires_in),
        authorization_details=request.served_text,
        resource_indicator=request.resource,
        connection=request.connection,
        request_json=request.call,
        evaluation=request.evaluation,
        source=request.source,
        chain=request.chain,
        money=action.money,
        **asked_of(broker, request.scope, verdict.risk, (agent.id, *request.chain)),
    )
    return replace(stepup, digest=digest_of(stepup))


def decision(
    broker: Broker,
    request: Request,
    outcome: Outcome,
    reason: str,
    verdict: Verdict | None,
) -> Draft:
    """Return the event of a decision about *request*.

    Args:
        broker: the broker.
        request: the decided request.
        outcome: how.
        reason: the stable code.
        verdict: policy's answer, if it was asked.

    Returns:
        the event, of the type that the request says.
    """
    action = request.action
    detail: dict[str, object] = {
        "scope": " ".join(action.scopes),
        **_event_detail(request),
        **request.about,
        **request.agent.shown_identity,
    }
    if action.parameters:
        detail["parameters"] = action.parameters
    if action.money:
        detail["money"] = action.money.written
    if action.reason:
        detail["agent_says"] = action.reason
    if verdict is not None:
        detail |= {"policy_version": verdict.policy_version, "facts": verdict.facts}
        if outcome is Outcome.ALLOWED and verdict.counted:
            detail["counted"] = verdict.counted
        answered = verdict.before or (verdict.outcome, verdict.reason, verdict.rule)
        if (outcome, reason, verdict.rule) != answered:
            # Policy said otherwise: what follows from its answer is another matter.
            names = ("outcome", "reason", "rule")
            detail["verdict"] = dict(zip(names, answered, strict=True))
        if verdict.hooks:
            detail["hooks"] = verdict.hooks
    return Draft(
        request.events[outcome],
        request.asked_by or broker.actor(request.agent),
        agent_id=request.agent.id,
        action=action.action or None,
        resource=action.resource or request.resource,
        outcome=outcome,
        reason=reason,
        rule=verdict.rule if verdict else None,
        decision_id=request.decision_id,
        detail=detail,
    )


def _event_detail(request: Request) -> dict[str, object]:
    """Return an event's detail of a request next to scope, action and parameters."""
    detail = {
        "connection": request.connection,
        "asked_scope": request.asked_scope or (request.scope if request.others else ""),
        "resource_indicator": request.resource,
        "other_details": other_details(request.details),
    }
    return {name: value for name, value in detail.items() if value}
