"""What brokers tell each other beside the log, in a real PostgreSQL."""

from __future__ import annotations

from support.patience import until
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
        await until(lambda: run("postgres", setting) == [("nobody",)])
        for number in range(20):
            over = number % 2 == 0
            assert await a.put([(f"call_{number}", over, b"{}")], anew=False) in range(
                20
            )
        await a.ask("ask_1", ["brk_b"], b"what")
        assert await b.requested() == [("ask_1", b"what")]
        await b.answer("ask_1", b"that")
        assert await a.answers("ask_1") == {"brk_b": b"that"}
        await a.forget("ask_1", whole=False)
        assert await a.answers("ask_1") == {}
        await a.ask("ask_2", ["brk_b"], b"what")
        await a.forget("ask_2", whole=False)
        assert await b.requested() == [("ask_2", b"what")]
        await a.forget("ask_2", whole=True)
        assert await b.requested() == []
    finally:
        for log in logs:
            await log.close()


async def test_what_has_ended_or_is_of_an_earlier_process_is_deleted(
    store: Database,
) -> None:
    """An ended call two seconds later, and all where what was told does not hold."""
    log = SharedLog(Connector(store.url, TEAM), "brk_a", 2, SystemClock())
    before, now = StoreCalls(log, "before"), StoreCalls(log, "now")
    left = "SELECT id FROM agentvault.calls ORDER BY id"
    try:
        assert await before.put([("call_0", False, b"{}")], anew=True) == 0
        told = [("call_1", False, b"{}"), ("call_2", True, b"{}")]
        assert await now.put(told, anew=False) == 0
        assert store.run(left) == [("call_1",), ("call_2",)]
        store.run("UPDATE agentvault.calls SET ended = ended - interval '3 seconds'")
        assert await now.put([], anew=False) == 1
        assert store.run(left) == [("call_1",)]
        assert await now.put([("call_3", False, b"{}")], anew=True) == 1
        assert store.run(left) == [("call_3",)]
        await log.prune()  # its broker has no lease
        assert store.run(left) == []
    finally:
        await log.close()


async def test_a_question_is_not_looked_at_after_ten_seconds(store: Database) -> None:
    """Whoever asked has given up; and the next question deletes it."""
    log = SharedLog(Connector(store.url, TEAM), "brk_a", 2, SystemClock())
    calls = StoreCalls(log, "run")
    try:
        await calls.ask("ask_1", ["brk_a"], b"what")
        assert await calls.requested() == [("ask_1", b"what")]
        store.run("UPDATE agentvault.asks SET at = at - interval '11 seconds'")
        assert await calls.requested() == []
        await calls.ask("ask_2", ["brk_b"], b"what")
        assert store.run("SELECT id FROM agentvault.asks") == [("ask_2",)]
    finally:
        await log.close()
