"""Metrics: what Prometheus reads of a broker."""

from __future__ import annotations

from dataclasses import replace

import httpx
import pytest
from support.bench import OPERATOR, PAYMENT, Bench
from support.patience import PATIENT

from agentvault_tui.broker.usecases.request import request_token
from agentvault_tui.broker.usecases.revoke import panic
from agentvault_tui.model import Action
from agentvault_tui.settings import BrokerSettings
from agentvault_tui.vault import Secret
from agentvault_tui.watch import LedgerWatch
from agentvault_tui.web.server import Server


async def metrics(bench: Bench) -> dict[str, float]:
    """Read all metrics, by name and labels."""
    bench.broker.extensions.watch = LedgerWatch(
        bench.broker, lambda name, _: Secret(name)
    )
    answer = await bench.read("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = [line for line in answer.text.splitlines() if not line.startswith("#")]
    return {key: float(value) for key, _, value in (x.rpartition(" ") for x in lines)}


async def ask(bench: Bench, name: str = "agent") -> None:
    """Ask once for what is allowed, denied and escalated."""
    agent = await bench.agent(name)
    for action in (
        Action(("write:calendar",), "write:calendar", "calendar:primary", {}, None),
        Action(("read:mail",), "read:mail", None, {}, None),
        PAYMENT,
    ):
        await request_token(
            bench.broker, agent, action, resource=action.resource, details=None
        )


async def test_decisions_are_counted_as_in_the_ledger(bench: Bench) -> None:
    """Each outcome counts once, and a restart forgets none."""
    await ask(bench)
    expected = dict.fromkeys(("allowed", "denied", "escalated"), 1.0)

    def counted(found: dict[str, float]) -> dict[str, float]:
        names = {o: f'agentvault_decisions_total{{outcome="{o}"}}' for o in expected}
        return {outcome: found[name] for outcome, name in names.items()}

    found = await metrics(bench)
    assert counted(found) == expected
    assert found["agentvault_stepups_pending"] == 1
    assert found["agentvault_ledger_head"] == bench.ledger.head.seq
    assert found["agentvault_ledger_writable"] == 1
    assert found["agentvault_calls_in_flight"] == 0
    assert found["agentvault_decision_seconds_count"] == 3
    assert found['agentvault_decision_seconds_bucket{le="+Inf"}'] == 3
    await panic(bench.broker, "a test", OPERATOR)
    found = await metrics(bench)
    assert found["agentvault_revocation_seconds_count"] == 1
    async with bench.restarted() as again:
        assert counted(await metrics(again)) == expected


async def test_agents_are_named_only_where_the_settings_say_so(bench: Bench) -> None:
    """A name is in no label by default; with the setting it is one label, inert."""
    await ask(bench, 'a"} 9\\')
    assert not any("agent=" in key for key in await metrics(bench))
    named = BrokerSettings(metrics_by_agent=True)
    bench.broker.settings = replace(bench.broker.settings, broker=named)
    keys = [key for key in await metrics(bench) if "agent=" in key]
    assert len(keys) == 3
    assert all('agent="a\\"} 9\\\\"' in key for key in keys)


@pytest.mark.slow
async def test_loopback_has_metrics_and_nothing_else(bench: Bench) -> None:
    """``[broker] metrics`` answers GET /metrics to loopback's own names alone."""
    where = BrokerSettings(metrics="127.0.0.1:0")
    bench.broker.settings = replace(bench.broker.settings, broker=where)
    watch = LedgerWatch(bench.broker, lambda name, _: Secret(name))
    async with (
        Server(bench.clock) as server,
        httpx.AsyncClient(trust_env=False, timeout=PATIENT) as client,
    ):
        told = await watch.listen(server, None)  # type: ignore[arg-type]
        url = str(told["metrics_url"])
        answer = await client.get(url)
        assert answer.status_code == 200
        assert "agentvault_ledger_head" in answer.text
        assert (await client.post(url)).status_code == 405
        status = url.replace("/metrics", "/api/status")
        assert (await client.get(status)).status_code == 404
        other = await client.get(url, headers={"Host": "evil.test"})
        assert other.status_code == 421
