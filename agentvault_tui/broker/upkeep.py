"""What happens with time: expiry, policy reload, clock jumps, the tenant's pulse."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from agentvault_tui.broker.core import SYSTEM, Broker
from agentvault_tui.broker.recovery import record_missed
from agentvault_tui.broker.usecases.policy_change import keep_policy, reload_policy
from agentvault_tui.broker.usecases.stepup import expire_due
from agentvault_tui.broker.usecases.uses import record_uses
from agentvault_tui.errors import LedgerError
from agentvault_tui.model import Draft, EventType

log = logging.getLogger("agentvault.upkeep")

_TICK: Final = 0.5
_PULSE: Final = 10.0
"""Seconds between an answer of the tenant and the next question."""
_SWEEP_EVERY: Final = 60
_JUMP: Final = 2.0
"""Seconds the wall clock may move against the boot clock between two looks."""


async def upkeep(broker: Broker) -> None:
    """Look after the broker until cancelled; no fault of one look ends the next.

    The tenant is asked beside it: one that takes its time must not delay a policy
    that became stricter.
    """
    async with asyncio.TaskGroup() as both:
        both.create_task(_looks(broker))
        both.create_task(_pulses(broker))


async def _looks(broker: Broker) -> None:
    looks = 0
    drift = _drift(broker)
    while True:
        try:
            drift = await _clock(broker, drift)
            await expire_due(broker)
            await reload_policy(broker)
            for chore in broker.chores:
                await chore()
            registry = broker.registry
            swept = looks % _SWEEP_EVERY == 0
            for _ in registry.sweep_in_slices() if swept else registry.forget_cut():
                await asyncio.sleep(0)
            # What needs the ledger comes last: while it cannot write, the rest goes on.
            show_repeated(broker)
            await _floods(broker)
            await record_uses(broker)
            missed = broker.cuts.unfinished or broker.replays.unsaved
            if missed and broker.ledger.takes_cuts:
                await record_missed(broker)
            await keep_policy(broker)
        except LedgerError as error:
            log.warning("upkeep waits for the ledger: %s", error.what)
        except Exception:
            # Expiry and policy reload go on whatever one look met.
            log.exception("upkeep met something unforeseen")
        looks += 1
        await asyncio.sleep(_TICK)


async def _pulses(broker: Broker) -> None:
    answers: bool | None = None
    while True:
        try:
            answers = await pulse(broker, answers)
        except Exception:
            log.exception("asking the tenant met something unforeseen")
        await asyncio.sleep(_PULSE)


async def pulse(broker: Broker, before: bool | None) -> bool:
    """Ask the tenant how it is; say and record it when that is not as *before*.

    Args:
        broker: the broker.
        before: what the last pulse told. Not what the tenant's client knows: an
            exchange between two pulses may have found it away, and told nobody.
    """
    answers = await broker.tenant.probe()
    if answers == before:
        return answers
    broker.on_status()
    if answers and before is None:
        return answers  # at our start: nothing to tell
    kind = EventType.TENANT_BACK if answers else EventType.TENANT_AWAY
    reason = (
        "the tenant answers again"
        if answers
        else "the tenant does not answer: nothing that needs a person is granted"
    )
    detail = {"issuer": broker.tenant.issuer}
    await broker.record_cut(Draft(kind, SYSTEM, reason=reason, detail=detail))
    return answers


async def _floods(broker: Broker) -> None:
    """Record which agents flood, and how often each was refused since last told."""
    for agent_id, count in broker.floods.due():
        draft = Draft(
            EventType.AGENT_FLOODING,
            SYSTEM,
            agent_id=agent_id,
            reason=f"refused {count} times: answered 429 until it keeps still",
            detail={"count": count},
        )
        try:
            await broker.record(draft)
        except LedgerError:
            broker.floods.again(agent_id, count)
            raise


def _drift(broker: Broker) -> float:
    return broker.clock.now().timestamp() - broker.clock.boot()


async def _clock(broker: Broker, before: float) -> float:
    """Record a jump of the wall clock: times around it cannot be compared.

    What the clock passed has ended, also when it is set back: in memory now, and at
    any later start by this event, which is kept until it can be recorded.
    """
    now = _drift(broker)
    if abs(now - before) > _JUMP:
        broker.registry.end_expired()
        await broker.record_cut(
            Draft(
                EventType.CLOCK_JUMP,
                SYSTEM,
                reason=f"the wall clock moved by {now - before:+.1f} s",
                detail={"seconds": str(round(now - before, 3))},
            )
        )
    return now


def show_repeated(broker: Broker) -> None:
    """Show consoles the step-ups that were asked for again since the last time.

    Nothing is written: each repetition has an event, from which a start counts them.
    """
    repeated = broker.stepups.take_repeated()
    if repeated and broker.ledger.on_written is not None:
        broker.ledger.on_written((), repeated)
