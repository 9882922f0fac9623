"""An agent, or a hook of its host, asks whether it may act now; nothing is issued."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

from agentvault_tui.broker.answers import Denied, Escalated, Permitted
from agentvault_tui.broker.core import Broker, decide_anew
from agentvault_tui.broker.usecases.decide import (
    Request,
    decide,
    denied_by_limit,
    reserve_approved,
)
from agentvault_tui.broker.usecases.policy_change import POLICY_CHANGED
from agentvault_tui.broker.usecases.redeem import refusal_of, spend_approval
from agentvault_tui.broker.usecases.repeat import is_same
from agentvault_tui.broker.usecases.request import (
    ANEW,
    decision,
    deny,
    escalate,
    refused,
)
from agentvault_tui.errors import ShareTakenError
from agentvault_tui.model import (
    Action,
    Actor,
    Agent,
    DecisionId,
    EventType,
    Outcome,
    StepUp,
    StepUpId,
    StepUpStatus,
    new_id,
)

APPROVED: Final = "stepup_approved"
"""The reason of an evaluation that a person approved."""
_LATE: Final = "No person decided in time. Ask again."
_RECORDED: Final = dict.fromkeys(Outcome, EventType.ACCESS_DECISION)
_NOTHING: Final[Mapping[str, object]] = {}

Answer = Permitted | Denied | Escalated


async def evaluate(
    broker: Broker,
    agent: Agent,
    action: Action,
    *,
    about: Mapping[str, object] = _NOTHING,
    refusal: tuple[str, str] | None = None,
    wait: float = 0.0,
    gone: asyncio.Future[Any] | None = None,
    call: str | None = None,
    held: Callable[[StepUpId], None] = lambda _: None,
    source: str | None = None,
    others: tuple[Action, ...] = (),
    person: str = "",
    asked_by: Actor | None = None,
) -> Answer:
    """Decide and record whether *action* may happen now, once.

    An escalated one opens a step-up. Once it is approved, the same evaluation is
    permitted, at most once: the approval is spent before the answer.

    Args:
        broker: the broker.
        agent: who would act.
        action: the action.
        about: further members of the record.
        refusal: reason and message where it is denied without asking policy.
        wait: seconds to wait for a person where one has to decide.
        gone: done when the caller has left: nothing is spent then.
        call: the call that a person decides about; see `StepUp.request_json`.
        held: see `escalate`.
        source: see `foresee`.
        others: see `Request.others`.
        person: see `Request.person`.
        asked_by: the operator elsewhere who asked, if it was one.

    Returns:
        the answer; after a person's no, `Denied` with the decision that was held.

    Raises:
        LedgerError: the decision could not be recorded.
        ShareTakenError: the agent has its share of the places to wait in.
    """
    request = Request(
        *(agent, action, None, None, DecisionId("")),
        events=_RECORDED,
        about=about,
        call=call,
        evaluation=True,
        source=source,
        others=others,
        person=person,
        asked_by=asked_by,
    )
    decide = partial(_decide, broker, request, refusal, held)
    return await _until_decided(broker, decide, agent, wait, gone)


async def _until_decided(
    broker: Broker,
    decide: Callable[[], Awaitable[Answer]],
    agent: Agent,
    wait: float,
    gone: asyncio.Future[Any] | None,
) -> Answer:
    """Decide, and decide again once a person has; see `evaluate`."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + wait
    while True:
        answer = await decide_anew(decide)
        left = ends - loop.time()
        if not isinstance(answer, Escalated) or left <= 0:
            return answer
        if not await _wait_for_person(broker, agent, answer.stepup.id, left, gone):
            return answer
        stepup = broker.stepups.find(answer.stepup.id)
        if (gone and gone.done()) or stepup is None or stepup.status.open:
            return answer
        if stepup.status in {StepUpStatus.DENIED, StepUpStatus.CANCELLED}:
            return refusal_of(broker, agent, stepup)
        if stepup.status is StepUpStatus.EXPIRED:
            return Denied("stepup_expired", _LATE, answer.decision_id)


async def _wait_for_person(
    broker: Broker,
    agent: Agent,
    stepup_id: StepUpId,
    timeout_s: float,
    gone: asyncio.Future[Any] | None,
) -> bool:
    """Wait for a person's decision; return False if the place to wait was needed.

    Raises:
        ShareTakenError: the agent has its share of the places to wait in.
    """
    wanted = asyncio.get_running_loop().create_future()
    place = broker.admitting.waiting.wait_in(agent.id, wanted)
    if place is None:
        raise ShareTakenError("this agent's share of waiting evaluations is taken")
    decided = asyncio.ensure_future(broker.stepups.decision(stepup_id))
    try:
        await asyncio.wait(
            {decided, wanted, *([gone] if gone else ())},
            timeout=timeout_s,
            return_when=asyncio.FIRST_COMPLETED,
        )
    finally:
        place.leave()
        decided.cancel()
    return not wanted.done()


async def _decide(
    broker: Broker,
    wanted: Request,
    refusal: tuple[str, str] | None,
    held: Callable[[StepUpId], None],
) -> Answer:
    agent = broker.registry.now(wanted.agent)
    request = wanted._replace(agent=agent, decision_id=DecisionId(new_id("dec")))
    broker.registry.seen(agent.id)
    if refusal := refused(broker, agent) or refusal:
        return await deny(broker, request, *refusal)
    verdict = await decide(broker, request)
    match verdict.outcome:
        case Outcome.DENIED:
            return await deny(broker, request, verdict.reason, verdict.message, verdict)
        case Outcome.ALLOWED:
            grant = broker.registry.unless_revoked(agent.id, scope=request.scope)
            await broker.record(
                decision(broker, request, Outcome.ALLOWED, verdict.reason, verdict)
            )
            if grant.revoked:
                return await _overtaken(broker, request)
            if verdict.policy_version != broker.deciding.policy.version:
                now = request.foresee(broker)
                if now.outcome is not Outcome.ALLOWED:
                    return await deny(broker, request, POLICY_CHANGED, ANEW, now)
            return Permitted(verdict.reason, verdict.message, request.decision_id)
        case Outcome.ESCALATED:
            if stepup := _approved(broker, request):
                return await _spend(broker, request, stepup)
            answer = await escalate(broker, request, verdict, held=held)
            if isinstance(answer, Escalated) and not answer.stepup.status.open:
                return await _spend(broker, request, answer.stepup)
            return answer


def _approved(broker: Broker, request: Request) -> StepUp | None:
    """Return an approved step-up about exactly this that can still be spent."""
    return next(
        (
            stepup
            for stepup in broker.stepups.approved(request.agent.id)
            if is_same(stepup, request) and broker.registry.elevated(stepup.id)
        ),
        None,
    )


async def _spend(broker: Broker, request: Request, stepup: StepUp) -> Answer:
    verdict = reserve_approved(broker, request)
    if denied_by_limit(verdict):
        return await deny(broker, request, verdict.reason, verdict.message, verdict)
    draft = decision(broker, request, Outcome.ALLOWED, APPROVED, verdict)
    draft.detail["stepup_id"] = stepup.id
    try:
        spent = await spend_approval(broker, request.agent, stepup, draft)
    finally:
        broker.deciding.limits.release(request.decision_id)
    if spent:
        return Permitted(APPROVED, "A person approved this.", request.decision_id)
    return await _overtaken(broker, request)


async def _overtaken(broker: Broker, request: Request) -> Denied:
    """Take back a yes that was recorded and did not leave before a revocation."""
    reason, message = refused(broker, request.agent) or (
        "scope_not_granted",
        "This agent was revoked or its scopes were changed while it asked. Ask again.",
    )
    return await deny(broker, request, reason, message)
