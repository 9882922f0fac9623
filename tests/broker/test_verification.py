"""The verification beside the broker: what an end without a result leads to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support.bench import OPERATOR, Bench
from support.stepups import ask

from agentvault_tui.broker import verification
from agentvault_tui.broker.status import status_info
from agentvault_tui.broker.usecases.revoke import revoke_agent
from agentvault_tui.broker.verification import keep_verified
from agentvault_tui.errors import LedgerUnwritableError


@asynccontextmanager
async def verifying(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[asyncio.Queue[Any]]:
    """Run the verification, whose results are those that are put into the queue."""
    results: asyncio.Queue[Any] = asyncio.Queue()
    monkeypatch.setattr(verification, "_verify", lambda _: results.get())
    bench.broker.health.verify_first = True
    task = asyncio.create_task(keep_verified(bench.broker, pause=0.0))
    yield results
    task.cancel()


async def test_a_verifier_that_is_always_ended_stops_granting(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After ten ends nothing is granted and revoking works, until one has a result."""
    agent = await bench.agent()
    ended = "its process was ended with -9 before it was done; it is started again"
    async with verifying(bench, monkeypatch) as results:
        for _ in range(9):
            results.put_nowait(ended)
        await bench.until(results.empty)
        assert bench.ledger.writable
        results.put_nowait(ended)
        await bench.until(lambda: not bench.ledger.writable)
        with pytest.raises(LedgerUnwritableError, match="could not be verified"):
            await ask(bench, agent)
        told = status_info(bench.broker)
        assert told.ledger.fault is None
        (warning,) = told.warnings
        assert "10 tries" in warning
        assert "Nothing is granted" in warning
        await revoke_agent(bench.broker, agent.id, "", OPERATOR)
        assert (await bench.events("agent.revoked"))[0].agent_id == agent.id
        results.put_nowait({"ok": True, "head": {"seq": 1}})
        await bench.until(lambda: bench.ledger.writable)
        assert status_info(bench.broker).warnings == ()
