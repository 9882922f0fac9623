"""What brokers tell each other beside the log, in a real PostgreSQL."""

from __future__ import annotations

import asyncio

from support.patience import PATIENT
from support.postgres import TEAM, Database

from agentvault_tui.clock import SystemClock
from agentvault_tui.ledger.shared_log import SharedLog
from agentvault_tui.ledger.store_calls import StoreCalls
from agentvault_tui.store_connection import Connector


async def test_nothing_of_it_waits_for_a_replica(own_store: Database) -> None:
    """Calls cost no flush: here a commit that is to be durable would wait for good."""
    run = own_store.cluster.run
    run("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    run("postgres", "SELECT pg_reload_conf()")
    logs = [
        SharedLog(Connector(own_store.url, TEAM), name, 2, SystemClock())
        for name in ("brk_a", "brk_b")
    ]
    a, b = (StoreCalls(log, "run") for log in logs)
    try:
        setting = "SELECT current_setting('synchronous_standby_names')"
        async with asyncio.timeout(PATIENT):
            while run("postgres", setting) != [("nobody",)]:  # noqa: ASYNC110 - a server's
                await asyncio.sleep(0.01)
        for number in range(20):
            over = number % 2 == 0
            assert await a.put([(f"call_{number}", over, b"{}")], anew=False) in range(
                20
            )
        await a.ask("ask_1", ["brk_b"], b"what")
        assert await b.asked() == [("ask_1", b"what")]
        await b.answer("ask_1", b"that")
        assert await a.answers("ask_1") == {"brk_b": b"that"}
        await a.forget("ask_1")
        assert await a.answers("ask_1") == {}
    finally:
        for log in logs:
            await log.close()
