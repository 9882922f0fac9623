"""A call of a dead broker gets one result, whoever takes it over."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.bench import clock
from support.manual_clock import ManualClock
from support.postgres import Database
from support.team_brokers import brokers_of, known

from agentvault_tui.broker.core import SYSTEM
from agentvault_tui.gateway.calls import Calls
from agentvault_tui.model import DecisionId, Draft, EventType, Outcome

pytestmark = pytest.mark.slow

__all__ = ["clock"]


async def test_two_brokers_that_take_over_at_once_record_one_result(
    short: Path, store: Database, clock: ManualClock
) -> None:
    """The second is told that it was late; calls of a third broker go on."""
    every = [clock] * 3, [store.settings] * 3
    async with brokers_of(short, *every) as brokers:
        dead, alive = ["brk_dead"] * 5, ["brk_alive"]
        for number, broker in enumerate([*dead, *alive]):
            attempt = Draft(
                EventType.GATEWAY_ATTEMPT,
                SYSTEM,
                outcome=Outcome.ALLOWED,
                decision_id=DecisionId(f"dec_{number}"),
                detail={"broker": broker, "call_id": f"call_{number}"},
            )
            await brokers[0].bench.broker.record(attempt)
        await known(brokers)
        calls = [Calls(one.bench.broker) for one in brokers]
        await asyncio.gather(*(one.recover("brk_dead") for one in calls))
        await known(brokers)
        for one in calls:
            await one.look()
        await known(brokers)
        for one in brokers:
            results = await one.bench.events("gateway.result")
            ended = [event.detail["call_id"] for event in results]
            assert sorted(ended) == [f"call_{number}" for number in range(5)]
            assert {event.detail["ended"] for event in results} == {"unknown"}
            named = {event.detail["broker"] for event in results}
            assert named <= {each.bench.ledger.shared.broker_id for each in brokers}  # type: ignore[union-attr]
