"""A loosening waits for a person's factor, as a step-up does, and is then carried out.

A change that waits is a step-up without an agent (`StepUp.change`): its digest, device
flow, approval page, rules for several people, denial and expiry are the step-up's own.
This module holds the rest: how it is asked for, when it is outdated, and how an
approved one is carried out, by the same call that asked for it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from base64 import b64decode, b64encode
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final, NamedTuple

import msgspec

from agentvault_tui.broker.core import SYSTEM, Broker
from agentvault_tui.broker.riders import Rider, record_of, ride
from agentvault_tui.broker.stepups import digest_of, stepup_draft
from agentvault_tui.broker.usecases.approvals import (
    confirm,
    is_overtaken,
    needed,
    told_of,
    with_approval,
)
from agentvault_tui.broker.usecases.change_basis import (
    OUTDATED,
    basis,
    forget_answer,
    is_current,
)
from agentvault_tui.broker.usecases.stepup_end import cancel
from agentvault_tui.clock import Deadline, iso
from agentvault_tui.encoder import to_json
from agentvault_tui.errors import AgentVaultError, ConflictError, LedgerError
from agentvault_tui.ledger.canonical import canonical
from agentvault_tui.model import (
    CHANGE_ID,
    Actor,
    ActorKind,
    AgentId,
    ChangedText,
    DecisionId,
    Draft,
    EventType,
    Evidence,
    Risk,
    StepUp,
    StepUpId,
    StepUpStatus,
    WaitingChange,
    new_id,
    new_secret,
)
from agentvault_tui.sealing import Seal
from agentvault_tui.text import visible

_MOST: Final = 64
"""Changes that may wait at once."""
_OF_ONE: Final = 16
"""And of one person."""
RULE: Final = "changes"
"""The rule of a change: ``[[changes.rules]]`` say how many people it takes."""


class ChangesSeal(Seal):
    """The seal of requests that wait, and of answers that are shown once."""

    WHOSE: ClassVar[str] = "changes"
    LOST: ClassVar[str] = "changes that wait cannot be carried out"

    def hmac(self, content: bytes) -> str:
        """Return the HMAC of *content* (RFC 2104): it shows nothing of a secret."""
        key = self.derive("request digest")
        return hmac.new(key, content, hashlib.sha256).hexdigest()


@dataclass(frozen=True, slots=True)
class Wanted:
    """The rights that a request would loosen."""

    kinds: tuple[str, ...]
    """Of `CHANGE_KINDS`; none: it loosens nothing."""
    summary: str
    about: str
    """Its subject, for records and pages."""
    subjects: tuple[str, ...] = ()
    """The things it would change: if one of them changes, it is outdated."""
    texts: tuple[ChangedText, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    """The other facts for the decision; no secret."""
    reason: str = ""
    """Why, in the operator's words."""
    basis: str = ""
    """Of its subjects when it was judged; empty: as they are when it is asked for."""


def shown_digest(wanted: Wanted) -> str:
    """Return a digest of a loosening, as a person sees it before they approve it.

    Args:
        wanted: the loosening.

    Returns:
        the SHA-256 of its summary, subjects, texts, details and kinds, hexadecimal.
    """
    texts = [[one.name, one.before, one.after] for one in wanted.texts]
    shown = [wanted.summary, *wanted.subjects], texts, dict(wanted.details)
    return hashlib.sha256(canonical([*shown, wanted.kinds]).encode()).hexdigest()


class Asker(NamedTuple):
    """Who asks for a change, and from where."""

    actor: Actor
    """Who is signed in, or the local user."""
    seat: Actor
    """The key of the session, or the local user."""


async def ask(
    broker: Broker,
    call: str,
    request: Mapping[str, Any],
    wanted: Wanted,
    asker: Asker,
) -> StepUp:
    """Hold a change until a person proves a factor for exactly it.

    Args:
        broker: the broker.
        call: the call that carries it out, method and path.
        request: its path parameters and body.
        wanted: the rights it would loosen.
        asker: who asks.

    Returns:
        the change; the same one if this was asked for already and still waits.

    Raises:
        ConflictError: too many wait.
        SealedError: the key that the request is encrypted under is not here.
    """
    # What is changed while others have their turn is not what is shown.
    wanted = replace(wanted, basis=wanted.basis or basis(broker, wanted.subjects))
    # In a thread: of hundreds of agents it takes 0.1 s.
    stepup = await asyncio.to_thread(_new, broker, call, request, wanted, asker)
    waiting = [one for one in broker.stepups.open(AgentId("")) if one.change]
    for one in waiting:
        if one.change and _same(one, stepup):
            return one
    theirs = sum(one.change.sub == asker.actor.id for one in waiting if one.change)
    if len(waiting) >= _MOST or theirs >= _OF_ONE:
        raise ConflictError(
            f"{theirs} changes of yours already wait for a person, {len(waiting)} in"
            " all",
            "have them decided first: agentvault changes list",
        )
    draft = stepup_draft(
        EventType.STEPUP_REQUESTED, asker.actor, stepup, reason=wanted.reason
    )
    draft.detail.update(
        nonce=stepup.nonce,
        parameters=stepup.parameters,
        why=stepup.why,
        risk=stepup.risk.value,
        kinds=list(wanted.kinds),
        expires_at=iso(stepup.expires.wall),
        need=stepup.need,
    )
    broker.stepups.put(stepup)
    try:
        await broker.record(draft, changes=[stepup])
    except BaseException:
        broker.stepups.forget(stepup)
        raise
    return stepup


def _same(one: StepUp, other: StepUp) -> bool:
    a, b = one.change, other.change
    if a is None or b is None:
        return False
    return (a.call, a.sub, a.seat, a.body_hmac, one.policy_version) == (
        *(b.call, b.sub, b.seat, b.body_hmac, other.policy_version),
    )


def _seal(broker: Broker) -> ChangesSeal:
    return ChangesSeal.of(broker.home, shared=broker.ledger.shared is not None)


def _new(
    broker: Broker,
    call: str,
    request: Mapping[str, Any],
    wanted: Wanted,
    asker: Asker,
) -> StepUp:
    content, seal = canonical(dict(request)).encode(), _seal(broker)
    actor, seat = asker
    change_id = StepUpId(new_id(CHANGE_ID))
    texts = [[one.name, one.before, one.after] for one in wanted.texts]
    change = WaitingChange(
        kinds=wanted.kinds,
        summary=wanted.summary,
        call=call,
        sub=actor.id,
        name=actor.name,
        seat=seat.id,
        texts=wanted.texts,
        body_hmac=seal.hmac(content),
        sealed=b64encode(seal.close("request", change_id, 1, content)).decode(),
    )
    stepup = StepUp(
        id=change_id,
        agent_id=AgentId(""),
        agent_name=actor.name,
        scope="",
        action=f"change:{wanted.kinds[0]}",
        resource=wanted.about,
        parameters_json=to_json(
            {
                **wanted.details,
                "summary": wanted.summary,
                "changes": list(wanted.subjects),
                **({"texts": texts} if texts else {}),
            }
        ),
        reason=wanted.reason or None,
        rule=RULE,
        why=wanted.summary,
        risk=Risk.HIGH,
        policy_version=wanted.basis,
        nonce=new_secret("n"),
        digest="",
        decision_id=DecisionId(new_id("dec")),
        ttl=0,
        requested_at=broker.clock.now(),
        expires=Deadline.after(broker.clock, broker.settings.changes.expires_in),
        change=change,
    )
    rules = needed(broker, stepup)
    asked_by = (actor.id.casefold(), actor.name.casefold())
    stepup = replace(
        stepup,
        need=rules.approvals,
        owners=tuple(dict.fromkeys(asked_by)) if rules.no_self else (),
    )
    return replace(stepup, digest=digest_of(stepup))


async def apply_change(
    broker: Broker, started: StepUp, evidence: Evidence, detail: dict[str, Any]
) -> bool:
    """Carry out a change that a person has approved, in one transaction with the proof.

    Args:
        broker: the broker.
        started: the change as it was when its device flow began.
        evidence: the approver, the factor and the time.
        detail: how that was proven, as events say it.

    Returns:
        whether it counts; False when it was decided or changed meanwhile.

    Raises:
        LedgerError: it could not be recorded, and nothing has changed.
    """
    stepup = broker.stepups.get(started.id)
    if is_overtaken(broker, stepup, started):
        return False
    if not is_current(broker, stepup):
        await cancel(broker, stepup.id, OUTDATED, SYSTEM)
        return True
    stepup = with_approval(broker, stepup, evidence)
    if 0 < len({one.sub for one in stepup.confirmed}) < stepup.need:
        return await confirm(broker, stepup, detail)
    broker.stepups.deciding.add(stepup.id)
    try:
        await _carry_out(broker, stepup, evidence, detail)
    except LedgerError:
        raise
    except AgentVaultError as error:
        broker.stepups.deciding.discard(stepup.id)
        why = visible(f"it could not be carried out: {error.what}", 300)
        await cancel(broker, stepup.id, why, SYSTEM)
        return True
    finally:
        broker.stepups.deciding.discard(stepup.id)
    broker.stepups.end_flow(stepup.id)
    return True


async def _carry_out(
    broker: Broker, stepup: StepUp, evidence: Evidence, approval: dict[str, Any]
) -> None:
    change = stepup.change
    assert change is not None  # noqa: S101 - it is a change
    seal = _seal(broker)
    content = seal.open("request", stepup.id, 1, b64decode(change.sealed))
    actor = Actor(ActorKind.OPERATOR, evidence.sub, evidence.name)
    applied = replace(
        stepup,
        status=StepUpStatus.APPLIED,
        decided_by=evidence,
        decided_at=broker.clock.now(),
        problem=None,
        device=None,
        change=replace(change, sealed=""),
    )

    def check() -> None:
        """Refuse to record a change just denied, ended by panic or outdated."""
        if not broker.stepups.get(stepup.id).status.open:
            raise ConflictError("it was cancelled meanwhile")
        # The call may have taken rights away already, which changes its own target.
        if not rider.is_judged and not is_current(broker, stepup):
            raise ConflictError(OUTDATED)

    draft = stepup_draft(EventType.CHANGE_APPLIED, actor, applied, **approval)
    people = stepup.confirmed or (evidence,)
    detail = record_of(
        change.kinds,
        change.summary,
        change.texts,
        stepup.reason,
        digest=stepup.digest,
        proof="factor",
        by=[told_of(one) for one in people],
        requested_by={"sub": change.sub, "name": change.name},
    )
    rider = Rider(actor, detail, draft, [applied], check)
    check()
    box = ""
    try:
        answer = await carry(broker, rider, change.call, json.loads(content))
        box = b64encode(seal.close("answer", stepup.id, 1, answer)).decode()
    except AgentVaultError as error:
        if not rider.recorded:
            raise
        # It is on record as applied: only a step behind the record has failed.
        applied = replace(applied, problem=visible(error.what, 300))
    if not broker.stepups.get(stepup.id).status.open:
        # A panic that came while it was recorded: its row is the later one.
        await broker.record_cut(changes=[applied])
    assert applied.change is not None  # noqa: S101 - it is a change
    shown = replace(applied, change=replace(applied.change, result=box))
    broker.stepups.put(shown)
    await broker.record_cut(changes=[shown])


async def carry(
    broker: Broker, rider: Rider, call: str, request: Mapping[str, Any]
) -> bytes:
    """Carry out a call and record *rider* with its first event.

    Args:
        broker: the broker.
        rider: who, how proven and why.
        call: method and path.
        request: its path parameters and body.

    Returns:
        the call's answer, JSON.

    Raises:
        AgentVaultError: as the call does.
    """
    with ride(rider):
        answer = await broker.extensions.carriers[call](request, rider.actor)
    if not rider.recorded:  # it changed nothing that has an event
        rider.draft = rider.draft or Draft(EventType.CHANGE_APPLIED, rider.actor)
        drafts, rows = rider.alone(())
        await broker.record(*drafts, changes=rows)
    return answer


class _HeldRequest(msgspec.Struct):
    """A request that waits, as its JSON is."""

    body: msgspec.Raw


def request_of(broker: Broker, stepup: StepUp) -> msgspec.Raw | None:
    """Return the body that carries a waiting change out, for who decides about it.

    It is not parsed: the request may have a thousand agents.

    Args:
        broker: the broker.
        stepup: the change.

    Returns:
        the body, JSON; None where it holds a secret, or the change is over.

    Raises:
        SealedError: the key that it is encrypted under is not here.
    """
    change = stepup.change
    if change is None or not change.sealed or "secrets" in change.kinds:
        return None
    box = b64decode(change.sealed)
    content = _seal(broker).open("request", stepup.id, 1, box)
    return msgspec.json.decode(content, type=_HeldRequest).body


async def take_answer(
    broker: Broker, stepup: StepUp, seats: Collection[str]
) -> dict[str, Any] | None:
    """Return the answer of a change that was carried out, once.

    Only the session that asked gets it.

    Args:
        broker: the broker.
        stepup: the change.
        seats: where this is asked from: ids that name it.

    Returns:
        the answer; None to everybody else, and after the first time.

    Raises:
        LedgerError: that it was given out could not be recorded.
    """
    # As it is now: another reader may have had the answer since.
    stepup = broker.stepups.get(stepup.id)
    change = stepup.change
    if change is None or not change.result or change.seat not in seats:
        return None
    box = b64decode(change.result)
    answer: dict[str, Any] = json.loads(_seal(broker).open("answer", stepup.id, 1, box))
    await forget_answer(broker, stepup)
    return answer
