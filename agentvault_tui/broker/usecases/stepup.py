"""Approve a step-up with a second factor, deny it, or let it expire.

The first decision wins. While one is being recorded its step-up is in
`StepUps.deciding`, and every other decision about it is a conflict; revocations do not
ask, they void the record.
"""

from __future__ import annotations

import hmac
import logging
import math
import socket
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Final, NamedTuple

from msgspec import ValidationError, convert

from agentvault_tui.broker.core import SYSTEM, Broker, decide_anew
from agentvault_tui.broker.pending_cuts import Decided
from agentvault_tui.broker.shown_texts import shown_texts
from agentvault_tui.broker.stepups import digest_of, stepup_draft, with_repeat
from agentvault_tui.broker.usecases.approvals import check_not_own, pages_at
from agentvault_tui.broker.usecases.change_basis import OUTDATED, is_current
from agentvault_tui.broker.usecases.decide import foresee
from agentvault_tui.broker.usecases.held import check_not_lost, page_body
from agentvault_tui.broker.usecases.mint import mint_verified
from agentvault_tui.broker.usecases.repeat import check_repeat
from agentvault_tui.broker.usecases.revoke import revoke_agent
from agentvault_tui.broker.usecases.stepup_end import (
    back_to_pending,
    cancel,
    decidable,
    deny,
    expire_due,
)
from agentvault_tui.clock import iso
from agentvault_tui.errors import (
    ConflictError,
    FactorRefusedError,
    IdentityError,
    LedgerError,
    LedgerUnwritableError,
    NotFoundError,
    RefusedError,
    TenantError,
    TenantRefusedError,
    UsageError,
)
from agentvault_tui.ledger.state import read_stepup, stepups_before
from agentvault_tui.model import (
    Actor,
    ActorKind,
    DeviceCode,
    EventType,
    Outcome,
    Repeat,
    StepUp,
    StepUpId,
    StepUpStatus,
    WaitingChange,
    fingerprint,
    new_secret,
    other_details,
)
from agentvault_tui.model.role import Role, role_of
from agentvault_tui.operator_api.requests import Factor, RepeatRequest
from agentvault_tui.operator_api.sessions import KeyChallenge
from agentvault_tui.text import visible
from agentvault_tui.vault import (
    DeviceFlow,
    FlowDenied,
    FlowExpired,
    FlowFailed,
    FlowTokens,
)

log = logging.getLogger("agentvault.stepup")


class DeskSession(NamedTuple):
    """Who proved both factors at a seat, for as long as they do not sign out."""

    seat: str
    sub: str
    name: str
    sid: str
    """Of the ID token: it shows the tenant that it was there."""
    since: datetime


_BODY: Final = ("kind", "type", "encoding", "bytes", "sha256")
_BEFORE: Final = 5
"""Earlier decisions of the same kind that an approval page counts."""


async def begin_approval(
    broker: Broker,
    stepup_id: str,
    digest: str,
    operator: Actor,
    repeat: Repeat | None = None,
    *,
    seat: str | None = None,
) -> StepUp:
    """Start the device flow for exactly the request of *digest* (RFC 8628).

    Asked again from the same seat while it runs, it goes on with the same device code;
    at another seat another begins. With another repeat all of them end, and one begins
    under the digest of action and repeat.

    Args:
        broker: where it waits.
        stepup_id: which.
        digest: the digest that the operator saw.
        operator: who asks.
        repeat: how often more the same is approved.
        seat: where they ask from, if that is not their id.

    Returns:
        the step-up, authorizing; `StepUps.flow_of` has the seat's device code.

    Raises:
        NotFoundError: no such step-up.
        UsageError: it cannot be repeated so.
        ConflictError: it is decided, changed or lost, or the policy changed.
        TenantError: the tenant did not start the flow; the step-up stays pending.
    """
    # No lock for what is over, or never was.
    await broker.look_up(lambda: decidable(broker, stepup_id))
    async with broker.stepups.locks[stepup_id]:
        await expire_due(broker)
        stepup = decidable(broker, stepup_id)
        if not _is_shown(stepup, digest):
            what = "the digest is not the one stored"
            raise ConflictError(what, "open the step-up again")
        check_not_own(broker, stepup, operator)
        await _check_current(broker, stepup)
        await check_not_lost(broker, stepup)
        if repeat is not None:
            check_repeat(stepup, repeat)
        wanted = with_repeat(stepup, repeat)
        seat = operator.id if seat is None else seat
        if stepup.status is StepUpStatus.AUTHORIZING:
            if wanted.digest != stepup.digest:
                broker.stepups.end_flow(stepup.id)
                await back_to_pending(broker, stepup, "asked for with another repeat")
            elif broker.stepups.flow_of(stepup.id, seat):
                return stepup
        return await _start(broker, wanted, operator, seat)


async def confirm_here(
    broker: Broker, stepup_id: str, signed_in: DeskSession | None, factor: Factor
) -> None:
    """Have the tenant approve the flow of a seat by a factor that was given there.

    The tenant verifies the factors, and the flow ends with an ID token like any other:
    the approval is verified and recorded where every approval is.

    Args:
        broker: the broker.
        stepup_id: the step-up of the seat's flow.
        signed_in: who signed in at that seat.
        factor: the one-time code, and the password where it is needed; or the
            assertion of a security key.

    Raises:
        FactorRefusedError: a factor is missing or wrong, or no person is signed in.
        ConflictError: the flow is over.
        TenantError: the tenant does not answer.
    """
    person, flow = _at_desk(broker, stepup_id, signed_in)
    typed = {name: getattr(factor, name) for name in ("otp", "password", "passkey")}
    form = {name: value for name, value in typed.items() if value}
    form |= {"sub": person.sub, "session": person.sid}
    try:
        await broker.reaching.tenant.confirm(flow, form)
    except TenantRefusedError as error:
        raise FactorRefusedError(error.error, error.what) from None


async def key_challenge(
    broker: Broker, stepup_id: str, signed_in: DeskSession | None
) -> KeyChallenge:
    """Fetch the tenant's challenge for a security key, for the flow of a seat.

    Args:
        broker: the broker.
        stepup_id: the step-up of the seat's flow.
        signed_in: who signed in at that seat.

    Returns:
        the challenge that the key signs: it approves that flow and no other.

    Raises:
        FactorRefusedError: the person has no passkey, or no person is signed in.
        ConflictError: the flow is over.
        TenantError: the tenant does not answer, or not with a challenge.
    """
    person, flow = _at_desk(broker, stepup_id, signed_in)
    try:
        challenge = await broker.reaching.tenant.key_challenge(flow, person.sub)
        return convert(challenge, KeyChallenge)
    except TenantRefusedError as error:
        raise FactorRefusedError(error.error, error.what) from None
    except ValidationError:
        raise TenantError("the tenant's challenge cannot be read") from None


def _at_desk(
    broker: Broker, stepup_id: str, signed_in: DeskSession | None
) -> tuple[DeskSession, DeviceFlow]:
    """Return who signed in at a seat, and the flow that the seat has begun."""
    if signed_in is None:
        raise FactorRefusedError(
            "sign_in_needed", "nobody is signed in here", "agentvault login"
        )
    flow = broker.stepups.flow_of(StepUpId(stepup_id), signed_in.seat)
    if flow is None:
        raise ConflictError("its code is over", "approve again")
    return signed_in, flow


async def _start(broker: Broker, stepup: StepUp, operator: Actor, seat: str) -> StepUp:
    """Start the device flow for a step-up as it is to be approved."""
    broker.stepups.end_offer(stepup.id)
    try:
        flow = await broker.reaching.tenant.start_device_flow(
            authorization_details=[await _shown_at_tenant(broker, stepup)],
            ttl=broker.settings.stepup.device_code_ttl,
        )
    except TenantError as error:
        await _not_begun(broker, stepup.id, operator, error)
        raise
    return await _authorizing(broker, stepup, flow, operator, seat)


def _is_shown(stepup: StepUp, digest: str) -> bool:
    """Check whether *digest* is of the shown action, alone or with its repeat."""
    if digest_of(stepup) != stepup.digest:
        return False
    shown = (stepup.digest, with_repeat(stepup, None).digest)
    return any(hmac.compare_digest(one.encode(), digest.encode()) for one in shown)


async def _check_current(broker: Broker, stepup: StepUp) -> None:
    """Refuse to approve a step-up of another policy, or of a state that changed since.

    Raises:
        ConflictError: it was decided again, or is cancelled.
    """
    if is_current(broker, stepup):
        return
    if stepup.change is not None:
        await cancel(broker, stepup.id, OUTDATED, SYSTEM)
        raise ConflictError(OUTDATED, "ask for it again")
    await _decide_again(broker, stepup)
    what = "the policy changed since this was asked"
    raise ConflictError(what, "it was decided anew; open it again")


async def offer(broker: Broker, stepup: StepUp) -> None:
    """Give a step-up that waits without a code its page at the tenant.

    Raises:
        TenantError: the tenant did not start the flow.
    """
    if not is_current(broker, stepup):
        broker.stepups.end_offer(stepup.id)
        with suppress(ConflictError):
            await _check_current(broker, stepup)
        return
    left = min(math.floor(stepup.expires.remaining(broker.clock)), 86_400)
    async with broker.stepups.locks[stepup.id]:
        if left < 1 or stepup.id in broker.stepups.flows:
            return
        flow = await broker.reaching.tenant.start_device_flow(
            authorization_details=[
                await _shown_at_tenant(broker, stepup, expires_in=left)
            ],
            ttl=left,
        )
        now = broker.stepups.find(stepup.id)
        if now is not None and now.status.open and now.digest == stepup.digest:
            waiting = _await_person(broker, now, flow)
            broker.stepups.follow(stepup.id, flow, waiting)
        else:
            broker.stepups.codes[stepup.id] = flow  # its page is told that it is over


async def known_stepup(broker: Broker, stepup_id: str) -> StepUp:
    """Return a step-up, however long ago it was decided.

    Args:
        broker: the broker.
        stepup_id: which.

    Returns:
        the step-up.

    Raises:
        NotFoundError: there never was one with that id.
    """
    await expire_due(broker)
    try:
        with suppress(LedgerError):  # a reading may be stale
            return await broker.look_up(lambda: broker.stepups.get(stepup_id))
        return broker.stepups.get(stepup_id)
    except NotFoundError:
        if not stepup_id.isascii():  # ours are; SQLite refuses what is no Unicode
            raise
        if old := await broker.ledger.read(read_stepup, StepUpId(stepup_id)):
            return old
        raise


async def _authorizing(
    broker: Broker, escalated: StepUp, flow: DeviceFlow, operator: Actor, seat: str
) -> StepUp:
    """Record that the flow runs, and wait for the person in a task of its own."""
    stepup_id = escalated.id

    async def begin() -> StepUp:
        """Mark the step-up as being authorized, and record it."""
        stepup = decidable(broker, stepup_id)
        if with_repeat(stepup, escalated.repeat).digest != escalated.digest:
            what = "it was decided about again, or with another repeat"
            raise ConflictError(what, "open the step-up again")
        started = replace(
            with_repeat(stepup, escalated.repeat),
            status=StepUpStatus.AUTHORIZING,
            device=device_code(flow),
            problem=None,
            begun_at=broker.clock.now(),
            begun_by=broker.team.brokers.run_id,
        )
        broker.stepups.put(started)
        try:
            await broker.record(
                stepup_draft(EventType.STEPUP_AUTHORIZING, operator, started),
                changes=[started],
            )
        except BaseException:
            broker.stepups.put_back(started, stepup)
            raise
        return started

    started = await decide_anew(begin)
    current = broker.stepups.get(stepup_id)
    if current.status is StepUpStatus.AUTHORIZING:
        waiting = _await_person(broker, started, flow)
        broker.stepups.follow(stepup_id, flow, waiting, seat)
    return current


async def _not_begun(
    broker: Broker, stepup_id: str, operator: Actor, error: TenantError
) -> None:
    """Record who tried to approve, and that no device flow began."""
    problem, begun = visible(error.what, 200), None
    kind = EventType.STEPUP_NOT_APPROVED

    def decide() -> Decided | None:
        """Record the problem on a step-up that still waits."""
        nonlocal begun
        stepup = broker.stepups.get(stepup_id)
        if stepup is not begun:
            waits = stepup.status is StepUpStatus.PENDING
            if not waits or stepup_id in broker.stepups.deciding:
                return None
            broker.stepups.put(begun := replace(stepup, problem=problem))
        draft = stepup_draft(kind, operator, begun, reason=problem)
        return Decided((draft,), (begun,))

    await broker.record_decided(decide)


async def _await_person(broker: Broker, started: StepUp, flow: DeviceFlow) -> None:
    """Poll the tenant until the device flow ends, then mint or wait again."""
    try:
        result = await broker.reaching.tenant.wait(flow)
        if isinstance(result, FlowDenied) and result.id_token is not None:
            await _answered_at_page(broker, started, flow, result.id_token)
            return
        if not isinstance(result, FlowTokens):
            if isinstance(result, FlowExpired | FlowDenied) and started.device is None:
                return  # nobody used its page, or it has another code: that is no try
            away = broker.reaching.tenant.reachable is False
            problem = problem_of(result, away=away)
            await back_to_pending(broker, started, problem)
            return
        await check_not_lost(broker, started)
        if not await mint_verified(broker, started, flow, result):
            await back_to_pending(broker, started, "no longer open")
    except (TenantError, LedgerError, ConflictError) as error:
        log.warning("step-up %s not approved: %s", started.id, error.what)
        await back_to_pending(broker, started, error.what)
    except Exception as error:
        # Nobody must wait for a flow that broke, nor take it for one that goes on.
        log.exception("step-up %s not approved", started.id)
        problem = f"the broker failed, see its log ({type(error).__name__})"
        await back_to_pending(broker, started, problem)


async def _answered_at_page(
    broker: Broker, started: StepUp, flow: DeviceFlow, id_token: str
) -> None:
    """Carry out a signed-in person's choice on the page: deny, or ask for more.

    Asking for the next ones like it approves nothing: it begins again, under the digest
    of action and repeat, which the page then shows and the second factor covers.
    """
    answer = await broker.reaching.tenant.verify_page_answer(
        id_token, digest=started.digest, until=flow.expires
    )
    role = role_of(answer.roles)
    least = Role.OPERATOR if answer.denied else Role.APPROVER
    listed = broker.settings.stepup.approvers
    if not listed and (role is None or not role.includes(least)):
        raise IdentityError("not_an_operator", f"{answer.name} may not do that")
    current = broker.stepups.find(started.id)
    if current is None or current.digest != started.digest:
        return
    actor = Actor(ActorKind.OPERATOR, answer.sub, answer.name)
    if answer.denied:
        # Decided elsewhere a moment before, or the store does not answer.
        with suppress(ConflictError, LedgerUnwritableError):
            await deny(broker, started.id, answer.reason, actor)
        if answer.stop and started.agent_id:
            why = answer.reason or "stopped on the approval page"
            await revoke_agent(broker, started.agent_id, why, actor)
        return
    if started.device is not None:  # its code was spent by the answer
        await back_to_pending(broker, started, "asked for with another repeat")
    try:
        series = convert(answer.repeat, RepeatRequest | None)
        repeat = None if series is None else series.repeat
        alone = with_repeat(started, None).digest
        await begin_approval(broker, started.id, alone, actor, repeat)
    except (RefusedError, UsageError, ValidationError) as error:
        await back_to_pending(broker, started, visible(error, 200))


def device_code(flow: DeviceFlow) -> DeviceCode:
    """Return the public part of a started flow; its secret stays behind.

    Args:
        flow: as the tenant started it.

    Returns:
        user code, addresses and times.
    """
    return DeviceCode(
        user_code=flow.user_code,
        verification_uri=flow.verification_uri,
        verification_uri_complete=flow.verification_uri_complete,
        expires_in=flow.expires_in,
        interval=flow.interval,
        expires_at=flow.expires.wall,
    )


def problem_of(
    end: FlowDenied | FlowExpired | FlowFailed, *, away: bool = False
) -> str:
    """Say why a flow ended without a person's yes."""
    match end:
        case FlowDenied(message):
            return f"refused at the tenant: {visible(message, 120)}"
        case FlowExpired() if away:
            # Nobody could have used it: that is not the person's doing.
            return "the tenant did not answer until the code ran out"
        case FlowExpired():
            return "the code ran out before it was used"
        case FlowFailed(error, message):
            return f"the tenant gave up: {visible(error, 40)} {visible(message, 120)}"


async def _decide_again(broker: Broker, stepup: StepUp) -> None:
    """Decide a step-up that was asked under an older policy again."""
    agent = broker.registry.agent(stepup.agent_id)
    verdict = foresee(broker, agent, stepup.requested, stepup.source)
    if verdict.outcome is Outcome.DENIED:
        await cancel(broker, stepup.id, verdict.reason, SYSTEM)
        return
    # Where the new policy would allow it, the person still decides: they have seen it.
    anew = replace(
        stepup,
        rule=verdict.rule,
        why=verdict.why,
        risk=verdict.risk,
        policy_version=verdict.policy_version,
        nonce=new_secret("n"),
        confirmed=(),
        status=StepUpStatus.PENDING,
        device=None,
        problem="the policy changed; look again",
    )
    anew = with_repeat(anew, None)
    broker.stepups.end_flow(stepup.id)
    broker.stepups.put(anew)
    draft = stepup_draft(
        EventType.STEPUP_REQUESTED, SYSTEM, anew, reason="policy changed"
    )
    draft.detail.update(
        nonce=anew.nonce,
        policy_version=anew.policy_version,
        why=anew.why,
        risk=anew.risk.value,
        facts=verdict.facts,
    )
    await broker.record(draft, changes=[anew])


async def _shown_at_tenant(
    broker: Broker, stepup: StepUp, *, expires_in: int | None = None
) -> dict[str, object]:
    """Return the RFC 9396 object a tenant that can will show next to its own pages.

    The agent's own words are for the approval page alone, which marks them: on the
    others they would look official. Headers of a held call stay out, and but for the
    approval page its body: its digest is there, of bytes that only the broker keeps.
    *expires_in* is said where the code is for the approval page alone.
    """
    sent, change = stepup.request, stepup.change
    members = ("method", "url", *(f"body_{name}" for name in _BODY))
    return {
        "type": "agentvault:stepup",
        "agent_id": stepup.agent_id or stepup.id,
        "agent_name": stepup.agent_name,
        "action": stepup.action,
        "scope": stepup.scope or stepup.action,
        "resource": stepup.resource,
        "parameters": stepup.parameters,
        **({"money": stepup.money.written} if stepup.money else {}),
        **(_shown_change(broker, change) if change else {"ttl": stepup.ttl}),
        **(
            {"resource_indicator": stepup.resource_indicator}
            if stepup.resource_indicator != stepup.resource
            else {}
        ),
        "other_details": other_details(stepup.details),
        **({"repeat": stepup.repeat.request} if stepup.repeat else {}),
        "risk": stepup.risk.value,
        "why": stepup.why,
        "fingerprint": fingerprint(stepup.digest),
        "requested_at": iso(stepup.requested_at),
        "requested_on": socket.gethostname(),
        **({"connection": stepup.connection} if stepup.connection else {}),
        **({"evaluation": True} if stepup.evaluation else {}),
        **({"request": {name: sent.get(name) for name in members}} if sent else {}),
        **(
            {"page": await _page(broker, stepup, expires_in)}
            if pages_at(broker)
            else {}
        ),
    }


def _shown_change(broker: Broker, change: WaitingChange) -> dict[str, object]:
    """Return the members of a change; our own tenant shows the lines of its texts."""
    shown: dict[str, object] = {"change": change.call}
    if change.texts and broker.reaching.kind == "embedded":
        shown["texts"] = shown_texts(change.texts)
    return shown


async def _page(
    broker: Broker, stepup: StepUp, expires_in: int | None
) -> dict[str, object]:
    """Return the further content and checks of the embedded tenant's approval page."""
    before = await broker.ledger.read(stepups_before, stepup, _BEFORE)
    ends = Counter(one.status.value for one in before)
    summary = ", ".join(f"{count} {word}" for word, count in sorted(ends.items()))
    many = f"last {ends.total()}" if ends.total() > 1 else "one"
    find, change = broker.registry.agent, stepup.change
    return {
        "id": stepup.id,
        "digest": stepup.digest,
        "expires_in": expires_in,
        "ends": iso(stepup.expires.wall),
        "owner": change.name if change else find(stepup.agent_id).owner,
        "rule": stepup.rule,
        "count": stepup.count,
        "before": f"{many} like it: {summary}" if summary else "",
        "reason": stepup.reason,
        "problem": stepup.problem,
        "body": await page_body(broker, stepup),
        "need": stepup.need,
        "by": [[one.sub, one.name] for one in stepup.confirmed],
        "only_by": [list(one) for one in stepup.approvers],
        "not_by": list(stepup.owners),
    }
