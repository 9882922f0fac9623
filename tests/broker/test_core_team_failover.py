"""The store fails over to its replica while brokers issue tokens."""

from __future__ import annotations

import asyncio
import json
import signal
from datetime import UTC, datetime
from pathlib import Path

from support.manual_clock import ManualClock
from support.patience import PATIENT
from support.postgres import Database
from support.team_brokers import Broker, brokers_of, known

from agentvault_tui.model import Agent


class Issuing:
    """Agents that ask three brokers for tokens, until they are told to stop."""

    def __init__(self, brokers: list[Broker], agent: Agent) -> None:
        self.brokers, self.agent = brokers, agent
        self.answered: list[str] = []
        self.stop = asyncio.Event()

    async def run(self, broker: Broker) -> None:
        while not self.stop.is_set():
            reply = await broker.token(self.agent, "read:calendar")
            if reply.status_code == 200:
                self.answered.append(reply.json()["decision_id"])
            else:
                assert reply.status_code == 503, reply.text
                await asyncio.sleep(0.02)

    async def more(self) -> None:
        """Wait until each broker grants again."""
        async with asyncio.timeout(PATIENT):
            for broker in self.brokers:
                while (  # noqa: ASYNC110 - what is awaited has no event
                    await broker.token(self.agent, "read:calendar")
                ).status_code != 200:
                    await asyncio.sleep(0.02)


async def test_brokers_go_on_with_the_promoted_replica_and_lose_no_answer(
    short: Path, own_store: Database
) -> None:
    """Without a restart; the old primary, back beside it, is never written to."""
    primary = own_store.cluster
    replica = await asyncio.to_thread(primary.replica)
    both = own_store.settings_at(f"{primary.folder},{replica.folder}")
    clocks = [ManualClock(datetime.now(UTC)) for _ in range(3)]
    async with brokers_of(short, clocks, [both] * 3) as brokers:
        agent = await brokers[0].agent("one", "read:calendar")
        await known(brokers)
        issuing = Issuing(brokers, agent)
        tasks = [asyncio.create_task(issuing.run(one)) for one in brokers * 2]
        await issuing.more()
        await asyncio.to_thread(primary.stop, signal.SIGQUIT)
        promoted = Database(replica, own_store.name)
        for sql in (
            "SELECT pg_promote()",
            "ALTER SYSTEM RESET synchronous_standby_names",
            "SELECT pg_reload_conf()",
        ):
            await asyncio.to_thread(promoted.run, sql)
        await issuing.more()
        await asyncio.to_thread(primary.start, "synchronous_standby_names=")
        ((before,),) = await asyncio.to_thread(own_store.run, HEAD)
        # Each connection is made anew, and the old primary is named first.
        await asyncio.to_thread(promoted.run, CUT, own_store.name)
        await issuing.more()
        issuing.stop.set()
        await asyncio.gather(*tasks)
        ((after,),) = await asyncio.to_thread(own_store.run, HEAD)
        assert after == before
        rows = await asyncio.to_thread(
            promoted.run, "SELECT body FROM agentvault.events ORDER BY seq"
        )
    stored = {json.loads(bytes(body))["decision_id"] for (body,) in rows}  # type: ignore[call-overload]
    assert set(issuing.answered) <= stored
    await asyncio.to_thread(replica.stop, signal.SIGQUIT)


HEAD = "SELECT seq FROM agentvault.head"
CUT = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = %s AND pid <> pg_backend_pid()"
)
