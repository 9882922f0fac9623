"""Which approval a request is covered by: of itself, or of one that may be repeated.

"Approve the next N like this": policy and limits are checked first; if they want a
person, an approval with repeats replaces the person, for a request that is equal except
for its bounded parameters. The first that deviates ends the rest.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import rfc8785

from agentvault_tui.broker.core import SYSTEM, Broker
from agentvault_tui.broker.stepups import as_cancelled, digest_of, stepup_draft
from agentvault_tui.broker.usecases.approvals import end_repeats
from agentvault_tui.broker.usecases.decide import Request
from agentvault_tui.broker.usecases.mint import elevated_token, record_void
from agentvault_tui.broker.usecases.policy_change import still_issued
from agentvault_tui.clock import iso
from agentvault_tui.errors import UsageError
from agentvault_tui.model import (
    DETAIL_TYPE,
    Actor,
    ActorKind,
    Draft,
    EventType,
    Repeat,
    StepUp,
    StepUpStatus,
    Verdict,
    other_details,
)
from agentvault_tui.model.waiting import BOUNDED
from agentvault_tui.policy.facts import derive
from agentvault_tui.policy.subset import same, same_details


async def approval_for(
    broker: Broker, request: Request, verdict: Verdict
) -> StepUp | None:
    """Return an approval that replaces a person, with a repeat left, if any does.

    Those that the request deviates from end.
    """
    if request.chain:
        return None  # nor do those of the holder end
    actions = {one.action for one in (request.action, *request.others)}
    like = [
        stepup
        for stepup in broker.stepups.repeating(request.agent.id)
        if stepup.action in actions
    ]
    for stepup in like:
        if _covers(stepup, request, verdict):
            return stepup
    await end_repeats(broker, like, SYSTEM, "deviated")
    return None


def check_repeat(stepup: StepUp, repeat: Repeat) -> None:
    """See that a step-up can be approved with *repeat*, and is itself within it.

    Raises:
        UsageError: it cannot.
    """
    if stepup.change is not None:
        raise UsageError("a change is approved for once")
    if stepup.connection is not None:
        raise UsageError("an approval for an account at a provider is for once")
    if repeat.bounds and stepup.request_json is not None:
        # Policy reads some of a request; its body says more to the service.
        raise UsageError(
            "a held call is repeated byte for byte", "leave the bounds out"
        )
    facts = derive(stepup.requested)
    for bound in repeat.bounds:
        if bound.name not in BOUNDED:
            raise UsageError(
                f"{bound.name} cannot be bounded", f"bound {', '.join(BOUNDED)}"
            )
        value = facts.value(bound.name)
        if not isinstance(value, int):
            raise UsageError(f"the request does not state {bound.name} clearly")
        if value > bound.most:
            raise UsageError(f"the request itself has {bound.name} {value}")


def _covers(stepup: StepUp, request: Request, verdict: Verdict) -> bool:
    """Check whether an approval's repeat is about *request* too."""
    if (repeat := stepup.repeat) is None:
        return False
    if (verdict.rule, verdict.policy_version) != (stepup.rule, stepup.policy_version):
        return False
    if not repeat.bounds:
        return is_same(stepup, request)
    action, before = request.action, stepup.parameters
    bounds = {bound.name: bound.most for bound in repeat.bounds}
    facts = derive(action)
    others = other_details(stepup.details), other_details(request.details)
    return (
        _same_place(stepup, request)
        and before.keys() == action.parameters.keys()
        and same_details(*others)
        and (stepup.details is None) == (request.details is None)
        and all(
            _is_within(facts.value(name), bounds[name])
            if name in bounds
            else same(value, action.parameters[name])
            for name, value in before.items()
        )
    )


def _is_within(value: str | int | None, most: int) -> bool:
    return isinstance(value, int) and value <= most


def _same_place(stepup: StepUp, request: Request) -> bool:
    action = request.action
    return (
        stepup.scope == request.scope
        and stepup.action == action.action
        and stepup.resource == action.resource
        and stepup.resource_indicator == request.resource
        and stepup.connection == request.connection
        and stepup.request_json == request.call
        and stepup.evaluation == request.evaluation
        and stepup.chain == request.chain
    )


def is_same(stepup: StepUp, request: Request) -> bool:
    """Check whether a step-up is about exactly this request.

    The agent's reason may differ: the one that the person saw is served.

    Args:
        stepup: a step-up that waits, or was decided.
        request: the new request.

    Returns:
        whether all else is the same.
    """
    action = request.action
    return (
        _same_place(stepup, request)
        # Not ==, to which 1, 1.0 and True are the same.
        and rfc8785.dumps([stepup.parameters, _compared(stepup.details)])
        == rfc8785.dumps([action.parameters, _compared(request.served)])
    )


def _compared(details: tuple[dict[str, Any], ...] | None) -> list[Any] | None:
    if details is None:
        return None
    return [
        one | {"reason": None} if one["type"] == DETAIL_TYPE else one for one in details
    ]


async def stand_in(
    broker: Broker,
    standing: StepUp,
    stepup: StepUp,
    decided: Draft,
    wanted: dict[str, Any],
) -> StepUp | None:
    """Approve *stepup* by an approval that was given for more than once.

    Args:
        broker: the broker.
        standing: the approval that replaces a person.
        stepup: the step-up that would wait.
        decided: the event of the decision; where no token is fetched, the attempt or
            the answer is the decision.
        wanted: the event's detail of a step-up that waits.

    Returns:
        the step-up, approved; None when a revocation overtook it.

    Raises:
        LedgerError: it could not be recorded, or may not be: then it counts as used.
    """
    registry, agent_id = broker.registry, stepup.agent_id
    used, by = standing.used_again(), standing.decided_by
    stepup = replace(
        stepup,
        status=StepUpStatus.APPROVED,
        repeat_of=standing.id,
        decided_by=by,
        decided_at=broker.clock.now(),
    )
    stepup = replace(stepup, digest=digest_of(stepup))
    token = elevated_token(broker, stepup)
    grant = registry.unless_revoked(agent_id, scope=token.scope)
    who = Actor(ActorKind.OPERATOR, by.sub, by.name) if by else SYSTEM
    draft = stepup_draft(EventType.STEPUP_APPROVED, who, stepup, reason=stepup.reason)
    draft.detail.update(
        wanted | draft.detail,
        agent=stepup.agent_name,
        amr=list(by.amr) if by else [],
        auth_time=iso(by.auth_time) if by and by.auth_time else None,
        token_id=token.id,
        token_fetch_before=iso(token.expires.wall),
        repeat_of=standing.id,
        repeat_left=used.repeat.left if used.repeat else 0,
    )
    decided.detail.update(stepup_id=stepup.id, repeat_of=standing.id)
    # The first has the hashes of the rows, where a start looks for them.
    drafts = [draft, decided] if stepup.fetched else [draft]
    record = broker.record(*drafts, changes=[used, stepup, token])
    await broker.stepups.use_again(used, asyncio.ensure_future(record))
    if grant.revoked:
        ended = as_cancelled(stepup, "revoked", broker.clock.now())
        await record_void(broker, token, "revoked while it was approved", ended)
        return None
    broker.stepups.put(stepup)
    registry.put_token(token)
    if stepup.policy_version != broker.deciding.policy.version:
        still_issued(broker, token)
    return stepup
