"""End step-ups: deny, cancel, expire them, or let them wait again.

The first decision wins; in a team it is the first that the store holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from agentvault_tui.broker.core import SYSTEM, Broker
from agentvault_tui.broker.cuts import Kept
from agentvault_tui.broker.pending_cuts import Decided
from agentvault_tui.broker.stepups import as_pending, stepup_draft
from agentvault_tui.broker.team import WORK
from agentvault_tui.broker.usecases.approvals import end_repeats
from agentvault_tui.broker.usecases.change_basis import (
    OUTDATED,
    forget_answer,
    is_current,
)
from agentvault_tui.broker.uses import revoked_draft
from agentvault_tui.clock import iso
from agentvault_tui.errors import ConflictError, LedgerUnwritableError
from agentvault_tui.ledger import Change, Cooldown, DropToken
from agentvault_tui.model import (
    Actor,
    AgentId,
    Draft,
    EventType,
    Evidence,
    StepUp,
    StepUpId,
    StepUpStatus,
)

ENDED_A_TURN: Final = 100
"""Step-ups ended in one turn of the event loop: a few milliseconds."""
_MARGIN: Final = 30
"""Seconds that a code of another broker is given longer: its clock may differ."""


async def deny(
    broker: Broker, stepup_id: str, reason: str, operator: Actor
) -> tuple[StepUp, Kept]:
    """Deny a step-up, or end its remaining repeats, in effect before its record.

    Args:
        broker: the broker.
        stepup_id: which.
        reason: reaches the agent.
        operator: who decided.

    Returns:
        the step-up, denied, and where that is durable.

    Raises:
        NotFoundError: no such step-up.
        ConflictError: it is decided already.
        LedgerUnwritableError: it is a change, and the team's store does not answer:
            it is denied here, and can still be approved at another broker.
    """
    await expire_due(broker)
    stepup = await broker.look_up(lambda: broker.stepups.get(stepup_id))
    if stepup.repeats(broker.clock):
        durability = await end_repeats(broker, [stepup], operator, reason)
        return broker.stepups.get(stepup_id), durability
    denial = Denial(broker, stepup_id, reason, operator)
    # Like a revocation it takes effect before its record, and waits for no disk.
    durability = await broker.record_decided(denial.decide)
    denial.answered = durability is not Kept.LEDGER
    denied = broker.stepups.get(stepup_id)
    if denied.change is not None and denial.answered and broker.team.brokers.id:
        # What an approval elsewhere applies cannot be taken back, as a token can.
        raise LedgerUnwritableError(
            "it is denied at this broker alone: the store does not answer, so that"
            " another broker may still apply it",
            "deny it at another broker too",
        )
    return denied, durability


class Denial:
    """A person's no; in a team the first decision that the store holds counts."""

    def __init__(
        self, broker: Broker, stepup_id: str, reason: str, operator: Actor
    ) -> None:
        """Deny nothing yet; see `decide`."""
        self.answered = False
        """Whether its reply left before its record: then it wins over an approval."""
        self._broker, self._id = broker, stepup_id
        self._reason, self._operator = reason or None, operator
        self._denied: StepUp | None = None
        self._before: Cooldown | None = None
        self._waits: Cooldown | None = None

    def decide(self) -> Decided:
        """Deny it in memory, and have its requester wait.

        Raises:
            ConflictError: it is decided already.
        """
        broker, more = self._broker, list[tuple[Draft, Change]]()
        stepup = broker.stepups.get(self._id)
        if self._denied is None or stepup is not self._denied:
            approved = broker.registry.elevated(stepup.id)
            if self.answered and approved and broker.registry.drop_token(approved):
                why = "its approval was overtaken"
                draft = revoked_draft(approved, SYSTEM, why)
                more.append((draft, DropToken(approved.id)))
            else:
                self._check(stepup)
            by = Evidence(self._operator.id, self._operator.name)
            more_of = {"decided_by": by, "denial": self._reason}
            stepup = _ended(broker, stepup, StepUpStatus.DENIED, **more_of)
            self._denied = stepup
        draft = stepup_draft(
            EventType.STEPUP_DENIED, self._operator, stepup, reason=stepup.denial
        )
        if stepup.change is not None:  # no agent asked, and none has to wait
            return Decided((draft,), (stepup,))
        waits = self._cool_down(stepup)
        if waits.until is not None:
            until = iso(waits.until.wall)
            draft.detail.update(denials=waits.denials, cooling_until=until)
        drafts = draft, *(one for one, _ in more)
        return Decided(drafts, (stepup, waits, *(one for _, one in more)))

    def _check(self, stepup: StepUp) -> None:
        try:
            decidable(self._broker, stepup.id)
        except ConflictError:
            cooldowns = self._broker.stepups.cooldowns
            if self._before and cooldowns.of(stepup.requester) is self._waits:
                cooldowns.put(self._before)  # it does not count
            raise

    def _cool_down(self, stepup: StepUp) -> Cooldown:
        """Count it after the cooldowns that others recorded, once."""
        cooldowns = self._broker.stepups.cooldowns
        cooldown = cooldowns.of(stepup.requester)
        if self._waits is None or cooldown is not self._waits:
            self._before, self._waits = cooldown, cooldowns.denied(stepup.requester)
        return self._waits


async def expire_due(broker: Broker) -> None:
    """End every expired step-up, and let those without a follower wait again.

    Args:
        broker: the broker.
    """
    await expire(broker, broker.stepups.open())
    await _end_outdated(broker)

    def lasts(run: str) -> float:
        gone = broker.team.brokers.gone(run)
        return WORK if gone else broker.settings.stepup.device_code_ttl + _MARGIN

    for stepup in broker.stepups.forsaken(lasts) if broker.team.brokers.works() else ():
        await back_to_pending(broker, stepup, "its broker stopped; approve again")


async def _end_outdated(broker: Broker) -> None:
    """Cancel outdated changes, and forget answers that were not fetched."""
    for one in broker.stepups.open(AgentId("")):
        waits = one.change is not None and one.id not in broker.stepups.deciding
        if waits and not is_current(broker, one):
            await cancel(broker, one.id, OUTDATED, SYSTEM)
    for one in broker.stepups.unread():
        if one.expires.passed(broker.clock):
            await forget_answer(broker, one)


async def expire(broker: Broker, waiting: Iterable[StepUp]) -> None:
    """End the expired ones of *waiting*, all open: no answer is a denial."""
    due = [stepup for stepup in waiting if stepup.expires.passed(broker.clock)]
    for start in range(0, len(due), ENDED_A_TURN):
        part, over = due[start : start + ENDED_A_TURN], dict[StepUpId, StepUp]()

        def decide(
            part: list[StepUp] = part, over: dict[StepUpId, StepUp] = over
        ) -> Decided | None:
            """End the undecided ones of *part*; *over* has those ended here."""
            # Another may have been decided or have ended meanwhile; of the brokers of a
            # team, which all see it, one records it.
            for one in part:
                now = broker.stepups.get(one.id)
                if now.status.open and one.id not in broker.stepups.deciding:
                    over[one.id] = _ended(broker, now, StepUpStatus.EXPIRED)
                elif now is not over.get(one.id):
                    over.pop(one.id, None)
            ended = tuple(over.values())
            kind = EventType.STEPUP_EXPIRED
            drafts = tuple(stepup_draft(kind, SYSTEM, one) for one in ended)
            return Decided(drafts, ended) if ended else None

        await broker.record_decided(decide)


def _ended(
    broker: Broker, stepup: StepUp, status: StepUpStatus, **changes: Any
) -> StepUp:
    """End a step-up and its device flow in memory, at once for all readers."""
    now = broker.clock.now()
    stepup = stepup.repeated_no_more()
    ended = replace(stepup, status=status, decided_at=now, device=None, **changes)
    broker.stepups.put(ended)
    broker.stepups.end_flow(stepup.id)
    return ended


def cancelled(broker: Broker, stepup: StepUp, reason: str) -> StepUp:
    """Cancel an open step-up in memory, its device flow with it."""
    return _ended(broker, stepup, StepUpStatus.CANCELLED, problem=reason)


async def cancel(
    broker: Broker, stepup_id: StepUpId, reason: str, actor: Actor
) -> None:
    """Cancel a step-up, unless it is decided or its decision is being recorded.

    Args:
        broker: the broker.
        stepup_id: the step-up, or a change that waits.
        reason: its problem, for its agent or operator.
        actor: who caused it.

    Raises:
        LedgerError: it could not be recorded.
    """
    ended: StepUp | None = None

    def decide() -> Decided | None:
        nonlocal ended
        stepup = broker.stepups.get(stepup_id)
        if ended is None or stepup is not ended:
            if not stepup.status.open or stepup_id in broker.stepups.deciding:
                return None
            ended = cancelled(broker, stepup, reason)
        return Decided((cancelled_draft(ended, actor),), (ended,))

    await broker.record_decided(decide)


def cancelled_draft(stepup: StepUp, actor: Actor) -> Draft:
    """Return the event of a cancelled step-up."""
    kind = EventType.STEPUP_CANCELLED
    return stepup_draft(kind, actor, stepup, reason=stepup.problem)


async def back_to_pending(broker: Broker, started: StepUp, problem: str) -> None:
    """Let the request wait again, with the reason the last try failed."""
    pending: StepUp | None = None
    kind, begun = EventType.STEPUP_NOT_APPROVED, broker.stepups.get(started.id)

    def decide() -> Decided | None:
        """Let the step-up wait again, unless it was decided meanwhile."""
        nonlocal pending
        stepup = broker.stepups.get(started.id)
        if pending is None or stepup is not pending:
            if not stepup.status.open or stepup.id in broker.stepups.deciding:
                return None
            if stepup.begun_at != begun.begun_at:
                return None  # begun again elsewhere
            pending = as_pending(stepup, problem)
            if broker.stepups.others_approve(stepup.id):  # with codes of their own
                pending = replace(stepup, problem=problem)
            broker.stepups.put(pending)
        draft = stepup_draft(kind, SYSTEM, pending, reason=problem)
        return Decided((draft,), (pending,))

    await broker.record_decided(decide)


def decidable(broker: Broker, stepup_id: str) -> StepUp:
    """Return an undecided step-up.

    Raises:
        NotFoundError: no such step-up.
        ConflictError: it is decided, or is being decided.
    """
    stepup = broker.stepups.get(stepup_id)
    if not stepup.status.open:
        by = f" by {stepup.decided_by.name}" if stepup.decided_by else ""
        raise ConflictError(f"this step-up is {stepup.status}{by} already")
    if stepup.id in broker.stepups.deciding:
        raise ConflictError("this step-up is being decided by someone else right now")
    return stepup
