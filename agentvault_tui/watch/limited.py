"""Decide the history by a policy with limits, and count its windows over it again.

What a candidate's windows hold follows from what it would have allowed, in the order
and by the time of the ledger. An approved step-up counts when its token was fetched.
"""

from __future__ import annotations

from collections import defaultdict

import msgspec

from agentvault_tui.broker.limit_uses import UseWindow, micros
from agentvault_tui.clock import parse_iso
from agentvault_tui.model import Outcome, Verdict
from agentvault_tui.policy import Inputs, Policy
from agentvault_tui.policy.limits import Limit
from agentvault_tui.watch.history import Decider, RecordedDecision

_OPEN = 10_000
"""Step-ups that may wait at a time; the oldest are forgotten."""


class LimitedDecider(Decider):
    """A policy whose windows hold what it would have allowed itself."""

    def __init__(self, policy: Policy) -> None:
        """Begin with empty windows."""
        super().__init__(policy)
        self._windows: dict[tuple[str, str], UseWindow] = defaultdict(UseWindow)
        self._asked: Inputs | None = None
        self._open: dict[str, Inputs] = {}
        self._latest = 0
        """In microseconds; see `_now`."""

    def decide(self, record: RecordedDecision) -> Verdict:
        """Answer a record; what its limits hold is what was counted before it."""
        facts = msgspec.json.decode(record.detail.facts)
        inputs = Inputs.read(record.agent_id, {**facts, "limits": {}})
        limits = self.policy.limits_for(inputs)
        self._asked = inputs if limits else None
        if not limits:
            return super().decide(record)
        now = self._now(record)
        held = {}
        for limit in limits:
            count = self._window(limit, inputs).count(now, limit.micros)
            held[limit.attribute] = count, max(0, limit.most - count)
        environment = inputs.environment._replace(limits=held)
        self.made += 1
        return self.policy.answer(inputs._replace(environment=environment))

    def settle(self, record: RecordedDecision, outcome: str) -> None:
        """Count *record*, which was decided last, if it would have been allowed."""
        if self._asked is None or self._asked.exempt:
            return
        if outcome == Outcome.ALLOWED:
            self._count(self._asked, record)
        elif outcome == Outcome.ESCALATED and (stepup := record.detail.stepup_id):
            self._open[stepup] = self._asked
            if len(self._open) > _OPEN:
                del self._open[next(iter(self._open))]

    def delivered(self, record: RecordedDecision) -> None:
        """Count the step-up whose token was fetched."""
        if inputs := self._open.pop(record.detail.stepup_id or "", None):
            self._count(inputs, record)

    def _count(self, inputs: Inputs, record: RecordedDecision) -> None:
        for limit in self.policy.limits.applying(inputs):
            units = limit.units(inputs) or 0
            self._window(limit, inputs).add(self._now(record), units)

    def _window(self, limit: Limit, inputs: Inputs) -> UseWindow:
        key = limit.key(inputs.who.id, inputs.facts.resource)
        return self._windows[limit.id, key]

    def _now(self, record: RecordedDecision) -> int:
        """Return the latest time so far: a clock set back opens no window again."""
        self._latest = max(self._latest, micros(parse_iso(record.time)))
        return self._latest
