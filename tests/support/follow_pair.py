"""A broker, another that follows it, and what decisions read of their memory."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from support.bench import PAYMENT, Bench
from support.manual_clock import ManualClock
from support.scripted_tenant import ScriptedTenant

from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.follow import follow
from agentvault_tui.broker.limit_uses import LimitUses
from agentvault_tui.broker.registry import Registry
from agentvault_tui.broker.stepups import as_pending
from agentvault_tui.broker.usecases.policy_change import take_over_policy
from agentvault_tui.home import Home
from agentvault_tui.ledger import Change
from agentvault_tui.model import Action, Event, StepUp, StepUpStatus
from agentvault_tui.settings import Settings

START = datetime(2026, 11, 24, 10, tzinfo=UTC)
LIMITS = """
[[limits]]
id = "events"
scopes = ["write:calendar"]
per = "agent"
within = "1h"
count = 3
over = "deny"
"""
SCOPES = ("read:calendar", "write:calendar", "send:payment")
NOTHING: frozenset[str] = frozenset()


def action(scope: str) -> Action:
    return PAYMENT if scope == "send:payment" else Action((scope,), scope)


class Pair:
    """A broker, and another that follows what the first records."""

    def __init__(self, bench: Bench, home: Home) -> None:
        self.bench = bench
        home.prepare()
        self.other = Broker(
            home=home,
            settings=Settings(),
            clock=bench.clock,
            ledger=bench.ledger,
            policy=bench.broker.deciding.policy,
            tenant=ScriptedTenant(bench.clock),  # type: ignore[arg-type]
            registry=Registry(bench.clock),
        )
        self.queue: list[tuple[Sequence[Event], Sequence[Change]]] = []
        bench.ledger.listeners.written.append(
            lambda events, changes: self.queue.append((events, changes))
        )

    @classmethod
    async def open(cls, folder: Path, clock: ManualClock) -> Pair:
        home = Home.locate(folder / "one")
        home.prepare()
        home.limits_file.write_text(LIMITS)
        pair = cls(await Bench.open(home, clock), Home.locate(folder / "two"))
        pair.other.registry.take_over(await pair.bench.ledger.load())
        await take_over_policy(pair.other)
        return pair

    async def catch_up(self) -> None:
        while self.queue:
            events, changes = self.queue.pop(0)
            await follow(self.other, events, changes)
            for event in events:
                self.other.registry.count(event)

    async def loaded(self) -> tuple[Registry, LimitUses, dict[str, str]]:
        """Return what a start would know now."""
        registry = Registry(self.bench.clock)
        loaded = await self.bench.ledger.load()
        registry.take_over(loaded)
        limits = LimitUses(self.bench.clock, self.bench.ledger)
        limits.define(self.bench.broker.deciding.policy.limits)
        return registry, limits, loaded.meta


def memory(
    registry: Registry, limits: LimitUses, kept: dict[str, str]
) -> dict[str, Any]:
    """Return what decisions read of a broker's memory, once its upkeep was done."""
    for _ in registry.sweep():
        pass
    ids = [one.id for one in registry.agents()]
    tokens = [one for each in ids for one in registry.tokens_of(each)]
    known = registry.stepups

    def waiting(one: StepUp) -> StepUp:
        again = one.status is StepUpStatus.AUTHORIZING
        return as_pending(one, "the broker restarted; approve again") if again else one

    return {
        "agents": registry.agents(),
        "tokens": {
            one.id: one for one in tokens if registry.token(one.sha256) is not None
        },
        "passed on": {one: registry.delegations.given[one] for one in ids},
        "below": {one: registry.delegations.under[one] for one in ids},
        "open": {one.id: waiting(one) for one in known.open()},
        "approved": sorted(known.approved(None), key=lambda one: one.id),
        "elevated": {
            one.id: found
            for one in known.approved(None)
            if (found := registry.elevated(one.id))
        },
        "panic": registry.revocations.panic,
        "cooldowns": {one: known.cooldowns.of(one) for one in ids},
        "steps": sorted(registry.steps(), key=lambda one: one.id),
        "counts": {one: registry.counts(one) for one in ids},
        "seen": {one: registry.last_seen(one) for one in ids},
        "limits": {
            one: limits._window((*limit.kind, one), limit.micros).count(
                limits.now(), limit.micros
            )
            for limit in limits._limits.limits
            for one in ids
        },
        "kept": kept,
    }
