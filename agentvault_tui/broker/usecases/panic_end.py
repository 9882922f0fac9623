"""The end of everything at once: the panic switch, and all that ends with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice

from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.cuts import Kept
from agentvault_tui.broker.extensions import CallsCut
from agentvault_tui.broker.pending_cuts import Decided
from agentvault_tui.broker.usecases.ending import Cut, unused
from agentvault_tui.broker.usecases.stepup_end import (
    ENDED_A_TURN,
    cancelled,
    cancelled_draft,
)
from agentvault_tui.clock import iso
from agentvault_tui.ledger import DropAllTokens, Panic
from agentvault_tui.model import (
    Actor,
    Draft,
    EventType,
    StepUp,
    StepUpId,
    StepUpStatus,
)


def _switch_on(broker: Broker, reason: str, operator: Actor) -> Panic:
    """Return the panic switch, on; equal to the old one if nothing is new.

    It is a new object each time: a lift that is being recorded sees that it was
    overtaken.
    """
    before = broker.registry.revocations.panic
    if before is None:
        return Panic(True, broker.clock.now(), operator.name, reason)
    if not reason or reason == before.reason:
        return replace(before)
    return replace(before, by=operator.name, reason=reason)


class PanicEnd:
    """A panic, and all that ends with it."""

    def __init__(self, broker: Broker, reason: str, operator: Actor) -> None:
        """Stop nothing yet; see `begin`."""
        self._broker, self._reason, self._operator = broker, reason, operator
        self._panic: Panic | None = None
        self._before: Panic | None = None
        """The panic that was on already, if there was one."""
        self._tokens, self._delegated, self._calls = 0, 0, CallsCut()
        self._waiting: dict[StepUpId, StepUp] = {}
        """Step-ups that are to be cancelled."""
        self._cancelled: dict[StepUpId, StepUp] = {}
        self._repeats: list[StepUp] = []
        self._effective_ms = 0.0

    def begin(self) -> None:
        """Stop everything in memory, at once."""
        started = self._broker.clock.boot()
        count = self._stop()
        self._effective_ms = (self._broker.clock.boot() - started) * 1000
        self._broker.health.revocation_seconds.observe(self._effective_ms / 1000)
        self._tokens += count()

    def _stop(self) -> Callable[[], int]:
        broker, registry = self._broker, self._broker.registry
        if self._panic is None or registry.revocations.panic is not self._panic:
            self._before = registry.revocations.panic
            self._panic = _switch_on(broker, self._reason, self._operator)
            registry.revocations.panic = self._panic
        self._calls = self._calls.plus(
            broker.extensions.cut_calls(None, by=self._operator)
        )
        waiting = [*registry.stepups.open(), *unused(broker)]
        self._waiting |= {one.id: one for one in waiting}
        self._delegated = max(self._delegated, len(registry.delegations))
        return registry.cut_all_tokens()

    def _decide(self) -> Decided:
        """Stop the agents that others added meanwhile."""
        self._tokens += self._stop()()
        stepups = self._broker.registry.stepups
        self._repeats += stepups.end_repeats(stepups.repeating(None))
        delegated = self._delegated
        detail = {
            "agents": self._broker.registry.agent_count,
            "tokens_revoked": self._tokens,
            "stepups_cancelled": len(self._cancelled) + len(self._waiting),
            "calls_cut": self._calls.cut,
            "calls_sent": self._calls.sent,
            **({"delegated_revoked": delegated} if delegated else {}),
            **({"since": iso(self._before.since)} if self._before else {}),
        }
        head = Draft(
            EventType.PANIC_ON, self._operator, reason=self._reason, detail=detail
        )
        # Also where memory has none: one may be on its way out, taken for a delivery.
        assert self._panic is not None  # noqa: S101 - it was stopped
        ended = self._panic, DropAllTokens()
        drafts = () if self._panic == self._before else (head,)
        return Decided(drafts, (*ended, *self._repeats))

    async def record(self) -> Kept:
        """Persist it, and then the end of each step-up that waits.

        No request is added once the panic is placed, and all before it are known then.
        """
        record, durabilities = self._broker.record_decided, set[Kept]()
        with self._broker.admitting.paused():
            records = [asyncio.create_task(record(self._decide))]
            while records:
                while part := list(islice(self._waiting.values(), ENDED_A_TURN)):
                    cancel = partial(self._cancel, part)
                    records.append(asyncio.create_task(record(cancel)))
                    await asyncio.sleep(0)
                durabilities |= {*await asyncio.gather(*records)}
                records = []
                if self._waiting:
                    records.append(asyncio.create_task(record(self._decide)))
        return (
            Kept.LEDGER
            if durabilities == {Kept.LEDGER}
            else self._broker.recording.cuts.durability
        )

    def _cancel(self, stepups: Sequence[StepUp]) -> Decided | None:
        """Cancel those that are undecided."""
        cancels, find_stepup = list[StepUp](), self._broker.stepups.find
        for one in stepups:
            self._waiting.pop(one.id, None)
            now, ended = find_stepup(one.id), self._cancelled.pop(one.id, None)
            if now is None or (now is not ended and not _may_be_used(now)):
                continue
            if ended is None or now is not ended:
                ended = cancelled(self._broker, now, "panic")
            self._cancelled[one.id] = ended
            cancels.append(ended)
        drafts = (cancelled_draft(one, self._operator) for one in cancels)
        return Decided(tuple(drafts), tuple(cancels)) if cancels else None

    def result(self, durability: Kept) -> Cut:
        """Return the result."""
        agents = tuple(self._broker.registry.agents())
        counts = self._tokens, len(self._cancelled), self._effective_ms
        return Cut(
            agents,
            *counts,
            durability,
            calls=self._calls,
            delegated=self._delegated,
            panic=self._before,
        )


def _may_be_used(stepup: StepUp) -> bool:
    return stepup.status.open or stepup.status is StepUpStatus.APPROVED
