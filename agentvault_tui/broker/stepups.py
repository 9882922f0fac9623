"""Step-ups in memory: the waiting ones, and the work under way on them.

Device flows, the times of polls and decisions that are being recorded do not survive a
restart.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, NamedTuple

from agentvault_tui.clock import Clock, Deadline
from agentvault_tui.errors import LedgerBusyError, NotFoundError, OvertakenError
from agentvault_tui.ledger import Cooldown
from agentvault_tui.ledger.canonical import canonical
from agentvault_tui.model import (
    Actor,
    AgentId,
    Draft,
    Event,
    EventType,
    Repeat,
    StepUp,
    StepUpId,
    StepUpStatus,
)
from agentvault_tui.vault import DeviceFlow

log = logging.getLogger("agentvault.stepup")

KEPT_DECIDED: Final = 200
"""Decided step-ups retained for lists and late polls."""
FIRST: Final = 30.0
LONGEST: Final = 900.0
_DOUBLINGS: Final = 5
"""Denials after which the wait is the longest."""


OFFER: Final = ""
"""The seat of an approval page's device flow: any person may answer it."""


class PersonalFlow(NamedTuple):
    """One device flow of a step-up, and the task that polls for it."""

    flow: DeviceFlow
    task: asyncio.Task[None]

    def end(self) -> None:
        """Stop polling, unless it is the poll that found the end."""
        if self.task is not asyncio.current_task():
            self.task.cancel()


class StepUps:
    """Step-ups by id; of each its device flow, its decision and when it was polled."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.cooldowns = Cooldowns(clock)
        self._by_id: dict[StepUpId, StepUp] = {}
        self._open_of: dict[AgentId, set[StepUpId]] = defaultdict(set)
        self.deciding: set[StepUpId] = set()
        """Step-ups whose decision is being recorded: the first decision wins."""
        self.flows: dict[StepUpId, dict[str, PersonalFlow]] = {}
        """Device flows under way, of each step-up by who began them: `OFFER` for the
        one of its approval page."""
        self.codes: dict[StepUpId, DeviceFlow] = {}
        """The last device flow of each, over or not, for its approval page."""
        self.locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """Held while a device flow is started: a seat's consoles share one."""
        self.polled: dict[StepUpId, float] = {}
        """When each waiting one was last polled, in boot seconds."""
        self._repeating: dict[AgentId, set[StepUpId]] = defaultdict(set)
        """Approvals that may stand in for a person again, by agent."""
        self._uses: dict[StepUpId, tuple[asyncio.Future[tuple[Event, ...]], ...]] = {}
        """Uses of repeats that are being recorded, as long as only uses change them."""
        self.awaited: dict[StepUpId, set[asyncio.Future[None]]] = defaultdict(set)
        """Who waits for a decision, by step-up."""
        self._unread: set[StepUpId] = set()
        """Changes that were carried out and whose answer is unread."""
        self._repeated: set[StepUpId] = set()
        """Step-ups that were asked for again since `take_repeated`."""

    def take_over(
        self, stepups: Iterable[StepUp], cooldowns: Iterable[Cooldown]
    ) -> None:
        """Take over the last process's state; step-ups being authorized wait again."""
        self.cooldowns.take_over(cooldowns)
        for stepup in stepups:
            if stepup.status is StepUpStatus.AUTHORIZING:
                problem = "the broker restarted; approve again"
                self.put(as_pending(stepup, problem))
            else:
                self.put(stepup)

    def put(self, stepup: StepUp) -> None:
        """Remember *stepup*, replacing its earlier version."""
        before = self._by_id.get(stepup.id)
        if before is not None and stepup.repeat is not before.repeat:
            self._uses.pop(stepup.id, None)  # what is known now counts
        self._by_id[stepup.id] = stepup
        unread = stepup.change is not None and bool(stepup.change.result)
        (self._unread.add if unread else self._unread.discard)(stepup.id)
        if stepup.repeats(self._clock):
            self._repeating[stepup.agent_id].add(stepup.id)
        elif stepup.id in self._repeating.get(stepup.agent_id, ()):
            self._repeating[stepup.agent_id].discard(stepup.id)
            if not self._repeating[stepup.agent_id]:
                del self._repeating[stepup.agent_id]
        if stepup.status.open:
            self._open_of[stepup.agent_id].add(stepup.id)
        else:
            self._close(stepup)

    async def decision(self, stepup_id: StepUpId) -> None:
        """Return once a step-up is decided or over; at once if it is, or is unknown."""
        stepup = self.find(stepup_id)
        if stepup is None or not stepup.status.open:
            return
        done = asyncio.get_running_loop().create_future()
        self.awaited[stepup_id].add(done)
        try:
            await done
        finally:
            if (waiting := self.awaited.get(stepup_id)) is not None:
                waiting.discard(done)
                if not waiting:
                    del self.awaited[stepup_id]

    def forget(self, stepup: StepUp) -> None:
        """Forget a step-up whose record failed."""
        self._by_id.pop(stepup.id, None)
        self._close(stepup)

    def put_back(self, now: StepUp | None, before: StepUp | None) -> None:
        """Remember a step-up as *before* again, if it is still as put *now*.

        The record failed; another broker may have decided meanwhile.
        """
        if now is None or before is None or (stepup := self.find(now.id)) is None:
            return
        asked_again = stepup.status.open and replace(stepup, count=now.count) == now
        if stepup is now or asked_again:
            self.put(replace(before, count=stepup.count))

    async def use_again(
        self, used: StepUp, written: asyncio.Future[tuple[Event, ...]]
    ) -> None:
        """Count a use of an approval's repeats, from before its record is written.

        Args:
            used: the approval, with one repeat less.
            written: the record's outcome.

        Raises:
            LedgerError: as the record does.
        """
        uses = self._uses.get(used.id, ())
        self.put(used)
        self._uses[used.id] = (*uses, written)
        try:
            await written
        finally:
            self._settle_uses()

    def _settle_uses(self) -> None:
        """Release uses whose record certainly was not written.

        Another broker's record, or an end of the repeats, replaces uses that began
        before it.
        """
        for stepup_id, uses in list(self._uses.items()):
            stepup, over = self.find(stepup_id), [one for one in uses if one.done()]
            unwritten = sum(
                isinstance(one.exception(), OvertakenError | LedgerBusyError)
                for one in over
                if not one.cancelled()
            )
            if unwritten and stepup and (repeat := stepup.repeat):
                more = replace(repeat, left=repeat.left + unwritten)
                self.put(replace(stepup, repeat=more))
            self._uses.pop(stepup_id, None)
            if left := tuple(one for one in uses if not one.done()):
                self._uses[stepup_id] = left

    def find(self, stepup_id: str | None) -> StepUp | None:
        """Return the step-up with that id, if it is known."""
        return self._by_id.get(StepUpId(stepup_id)) if stepup_id else None

    def get(self, stepup_id: str) -> StepUp:
        """Return the step-up with that id, or raise NotFoundError."""
        if (stepup := self.find(stepup_id)) is None:
            raise NotFoundError("no step-up has that id", "agentvault stepup list")
        return stepup

    def open(self, agent_id: AgentId | None = None) -> list[StepUp]:
        """Return undecided step-ups, oldest first."""
        ids: Iterable[StepUpId] = (
            [i for group in self._open_of.values() for i in group]
            if agent_id is None
            else self._open_of.get(agent_id, ())
        )
        return sorted((self._by_id[i] for i in ids), key=lambda s: s.requested_at)

    def forsaken(self, lasts: Callable[[str], float]) -> list[StepUp]:
        """Return approvals that another broker of the team began before it died.

        After so many seconds that run of it would have sent the result of its code.
        """
        now = self._clock.now()
        return [
            stepup
            for stepup in self.open()
            if stepup.status is StepUpStatus.AUTHORIZING
            and stepup.id not in self.flows
            and stepup.begun_at is not None
            and (now - stepup.begun_at).total_seconds() > lasts(stepup.begun_by)
        ]

    def unread(self) -> list[StepUp]:
        """Return changes that were carried out and whose answer is unread."""
        return [one for one in map(self.find, self._unread) if one is not None]

    @property
    def open_count(self) -> int:
        """How many wait for a person."""
        return sum(map(len, self._open_of.values()))

    def approved(self, agent_id: AgentId | None) -> Iterator[StepUp]:
        """Yield the agent's approved step-ups; those of all agents for None."""
        for stepup in self._by_id.values():
            if stepup.status is StepUpStatus.APPROVED and (
                agent_id in {None, stepup.agent_id}
            ):
                yield stepup

    def repeating(self, agent_id: AgentId | None) -> list[StepUp]:
        """Return approvals that still stand in for a person; of all agents for None."""
        self._settle_uses()
        agents = list(self._repeating) if agent_id is None else [agent_id]
        ids = [one for each in agents for one in self._repeating.get(each, ())]
        stepups = map(self.find, ids)
        return [one for one in stepups if one and one.repeats(self._clock)]

    def end_repeats(self, stepups: Iterable[StepUp]) -> list[StepUp]:
        """End the remaining repeats of *stepups*, in memory; return them so."""
        ended = [stepup.repeated_no_more() for stepup in stepups]
        for stepup in ended:
            self.put(stepup)
        return ended

    def decided(self) -> list[StepUp]:
        """Return decided step-ups, the latest decision first."""
        decided = [s for s in self._by_id.values() if not s.status.open]
        decided.sort(key=lambda s: s.decided_at or s.requested_at, reverse=True)
        return decided

    def sweep(self, awaited: Callable[[StepUpId], object]) -> None:
        """Forget the oldest decided ones, but for those whose token is *awaited*."""
        for stepup in self.decided()[KEPT_DECIDED:]:
            if (
                stepup.expires.passed(self._clock)
                and not awaited(stepup.id)
                and not stepup.repeats(self._clock)
            ):
                self._by_id.pop(stepup.id)
                self.codes.pop(stepup.id, None)

    def count_again(self, stepup: StepUp) -> StepUp:
        """Count one more identical request, in memory: each has its own event.

        Consoles are shown it by `take_repeated`, not for each request.
        """
        again = replace(stepup, count=stepup.count + 1)
        # A decision on its way to the disk must not be written over.
        if stepup.id not in self.deciding:
            self.put(again)
            self._repeated.add(stepup.id)
        return again

    def count_less(self, stepup_id: StepUpId) -> None:
        """Take back the count of `count_again`, as it was not recorded."""
        stepup = self.find(stepup_id)
        if stepup and stepup.status.open and stepup_id not in self.deciding:
            self.put(replace(stepup, count=max(stepup.count - 1, 1)))

    def take_repeated(self) -> list[StepUp]:
        """Return those that were asked for again since the last time and still wait."""
        ids, self._repeated = self._repeated, set()
        stepups = map(self.find, ids - self.deciding)
        return [stepup for stepup in stepups if stepup and stepup.status.open]

    def polled_early(self, stepup_id: StepUpId, interval: float) -> bool:
        """Note a poll; return whether it came sooner than *interval* after the last."""
        now, last = self._clock.boot(), self.polled.get(stepup_id)
        self.polled[stepup_id] = now
        return last is not None and now - last < interval

    def follow(
        self,
        stepup_id: StepUpId,
        flow: DeviceFlow,
        work: Coroutine[object, object, None],
        who: str = OFFER,
    ) -> None:
        """Follow a device flow in a task of its own, until `end_flow`.

        *who* began it: an operator's seat, or empty for an approval page.
        """
        self.codes[stepup_id] = flow
        mine = self.flows.setdefault(stepup_id, {})
        if (before := mine.pop(who, None)) is not None:
            before.end()
        task = asyncio.create_task(work)
        mine[who] = PersonalFlow(flow, task)
        task.add_done_callback(lambda done: self._flow_ended(stepup_id, who, done))

    def flow_of(self, stepup_id: StepUpId, who: str) -> DeviceFlow | None:
        """Return the device flow that an operator's seat has begun, while it runs."""
        flow = self.flows.get(stepup_id, {}).get(who) if who != OFFER else None
        over = flow is None or flow.flow.expires.passed(self._clock)
        return None if flow is None or over else flow.flow

    def others_approve(self, stepup_id: StepUpId) -> bool:
        """Check whether a device flow other than the current task's is under way."""
        mine = asyncio.current_task()
        flows = self.flows.get(stepup_id, {}).items()
        return any(who != OFFER and one.task is not mine for who, one in flows)

    def end_offer(self, stepup_id: StepUpId) -> None:
        """Stop following the flow of an approval page: another takes its place."""
        if (offered := self.flows.get(stepup_id, {}).pop(OFFER, None)) is not None:
            offered.end()

    def end_flow(self, stepup_id: StepUpId) -> None:
        """Stop following the device flows of a step-up that is over."""
        flows = self.flows.pop(stepup_id, {})
        # A flow whose approval is being recorded goes on: it will find that it was
        # overtaken, and record that.
        if stepup_id not in self.deciding:
            for one in flows.values():
                one.end()
        self.polled.pop(stepup_id, None)
        self.locks.pop(stepup_id, None)

    def _flow_ended(
        self, stepup_id: StepUpId, who: str, task: asyncio.Task[None]
    ) -> None:
        flows = self.flows.get(stepup_id, {})
        if who in flows and flows[who].task is task:
            del flows[who]
            if not flows:
                del self.flows[stepup_id]
        if not task.cancelled() and (error := task.exception()):
            log.error("device flow of %s broke", stepup_id, exc_info=error)

    def _close(self, stepup: StepUp) -> None:
        waiting = self._open_of.get(stepup.agent_id)
        if waiting is not None:
            waiting.discard(stepup.id)
            if not waiting:
                del self._open_of[stepup.agent_id]
        for done in self.awaited.pop(stepup.id, ()):
            if not done.done():
                done.set_result(None)


def digest_of(stepup: StepUp) -> str:
    """Return the digest of a decision's content (RFC 8785, SHA-256).

    It covers everything that a resource server will see; absent members are null.
    ``request`` is there only for a call that the gateway holds, ``evaluation`` only
    for an evaluation, ``money`` only where a service says how amounts are written.

    Returns:
        ``sha256:`` and 64 hexadecimal digits.
    """
    content = canonical(
        {
            **tokenless(stepup),
            "agent_id": stepup.agent_id,
            "scope": stepup.scope,
            "action": stepup.action,
            "resource": stepup.resource,
            "resource_indicator": stepup.resource_indicator,
            "parameters": stepup.parameters,
            "authorization_details": stepup.details,
            "connection": stepup.connection,
            "policy_version": stepup.policy_version,
            "nonce": stepup.nonce,
        }
    )
    return "sha256:" + hashlib.sha256(content.encode()).hexdigest()


def tokenless(stepup: StepUp) -> dict[str, Any]:
    """Return the further members of a step-up that not each one has."""
    request: dict[str, Any] = {"evaluation": True} if stepup.evaluation else {}
    if change := stepup.change:
        requester = {"sub": change.sub, "name": change.name}
        diffs = {one.name: one.diff for one in change.texts if one.diff}
        request["change"] = {
            "call": change.call,
            "kinds": list(change.kinds),
            "request_hmac": change.body_hmac,
            "requested_by": requester,
            **({"diffs": diffs} if diffs else {}),
        }
    request |= {"repeat": stepup.repeat.request} if stepup.repeat else {}
    request |= {"repeat_of": stepup.repeat_of} if stepup.repeat_of else {}
    request |= {"money": stepup.money.written} if stepup.money else {}
    return request | ({"request": stepup.request} if stepup.request_json else {})


def as_cancelled(stepup: StepUp, problem: str, when: datetime) -> StepUp:
    """Return *stepup* as it is once it was cancelled."""
    return replace(
        stepup.repeated_no_more(),
        status=StepUpStatus.CANCELLED,
        problem=problem,
        decided_at=when,
        device=None,
    )


def as_pending(stepup: StepUp, problem: str) -> StepUp:
    """Return *stepup* as it waits again, once, with why the last try failed."""
    pending = StepUpStatus.PENDING
    changed = digest_of(stepup) != stepup.digest  # a start cancels such ones
    stepup = replace(stepup, status=pending, device=None, problem=problem)
    return stepup if changed or stepup.repeat is None else with_repeat(stepup, None)


def with_repeat(stepup: StepUp, repeat: Repeat | None) -> StepUp:
    """Return *stepup* as it is decided about with *repeat*: one digest over both.

    Approvals that were gathered under another digest end.
    """
    anew = replace(stepup, repeat=repeat)
    digest = digest_of(anew)
    same = digest == stepup.digest
    return replace(anew, digest=digest, confirmed=stepup.confirmed if same else ())


def stepup_draft(
    kind: EventType,
    actor: Actor,
    stepup: StepUp,
    *,
    reason: str | None = None,
    **detail: object,
) -> Draft:
    """Return an event about *stepup*, bound to its digest."""
    return Draft(
        kind,
        actor,
        agent_id=stepup.agent_id or None,
        action=stepup.action,
        resource=stepup.resource,
        reason=reason,
        rule=stepup.rule,
        decision_id=stepup.decision_id,
        detail={
            "stepup_id": stepup.id,
            "digest": stepup.digest,
            **({"repeat": stepup.repeat.request} if stepup.repeat else {}),
            **detail,
        },
    )


class Cooldowns:
    """One small record a requester, in the ledger with the decision that made it.

    A requester is an agent, or the chain of a passed-on token; see `requester_of`.
    Each denial since the last approval doubles the wait: push fatigue needs
    repetition, so repetition costs. Memory goes first and the record follows, in the
    same order, so that both say the same.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_id: dict[str, Cooldown] = {}

    def take_over(self, cooldowns: Iterable[Cooldown]) -> None:
        """Take over the state of the last process."""
        self._by_id.update((cooldown.requester, cooldown) for cooldown in cooldowns)

    def of(self, requester: str) -> Cooldown:
        """Return a requester's state, in the ledger's form."""
        return self._by_id.get(requester) or Cooldown(requester)

    def remaining(self, requester: str) -> float:
        """Return the seconds that a requester still waits; 0 when it need not."""
        cooldown = self.of(requester)
        if cooldown.until is None:
            return 0.0
        if cooldown.until.boot_id == self._clock.boot_id:
            left = cooldown.until.boot - self._clock.boot()
        else:
            left = (cooldown.until.wall - self._clock.now()).total_seconds()
        return max(0.0, min(left, _wait(cooldown.denials)))

    def denied(self, requester: str) -> Cooldown:
        """Make a requester wait; return the rows of the denial's transaction."""
        denials = self.of(requester).denials + 1
        until = Deadline.after(self._clock, _wait(denials))
        return self.put(Cooldown(requester, denials, until))

    def approved(self, requester: str) -> tuple[Cooldown, ...]:
        """Reset; return the rows of the approval's transaction, if any."""
        return (Cooldown(requester),) if self._by_id.pop(requester, None) else ()

    def restore(self, cooldown: Cooldown) -> None:
        """Restore the state before an approval that was not recorded."""
        if cooldown.until is not None and cooldown.requester not in self._by_id:
            self.put(cooldown)

    def put(self, cooldown: Cooldown) -> Cooldown:
        """Make a requester wait as *cooldown* says, in memory."""
        self._by_id[cooldown.requester] = cooldown
        return cooldown


def _wait(denials: int) -> float:
    return min(FIRST * 2.0 ** min(denials - 1, _DOUBLINGS), LONGEST)
