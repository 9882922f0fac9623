"""The operators' HTTP about services and secrets: who may, and what is told."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.bench import Bench
from support.gateway_stand import operators_http
from support.manual_clock import ManualClock

from agentvault_tui.gateway import Gateway
from agentvault_tui.home import Home
from agentvault_tui.settings import OperatorSettings

FILE = """
origin = "https://api.stripe.test"
[credential]
kind = "bearer"
secret = "stripe"
[[routes]]
method = "POST"
path = "/v1/transfers/{to}"
scope = "send:payment"
parameters = { amount = "body:/amount" }
"""


@pytest.fixture
async def bench(short: Path) -> AsyncIterator[Bench]:
    home = Home.locate(short / "home")
    clock = ManualClock(datetime(2026, 11, 24, tzinfo=UTC))
    opened = await Bench.open(home, clock)
    (home.config / "services").mkdir(exist_ok=True)
    (home.config / "services" / "stripe.toml").write_text(FILE)
    gateway = opened.broker.gateway = Gateway(opened.broker)
    await gateway.start()
    yield opened
    await gateway.aclose()
    await opened.close()


@pytest.fixture
async def http(bench: Bench) -> AsyncIterator[httpx.AsyncClient]:
    async with operators_http(bench) as client:
        yield client


async def tried(http: httpx.AsyncClient, **asked: Any) -> httpx.Response:
    whole = {"service": "stripe", "method": "POST", "path": "/v1/transfers/a", **asked}
    return await http.post("/api/services/try", json=whole)


async def test_a_secret_that_is_set_mends_its_service(
    bench: Bench, http: httpx.AsyncClient
) -> None:
    """A service whose secret is missing is broken; set, it waits for its first call."""
    before = (await http.get("/api/services/stripe")).json()
    assert (before["health"], before["last_used_at"]) == ("broken", None)
    answer = await http.post("/api/secrets", json={"name": "stripe", "value": "sk_1"})
    assert answer.status_code == 200
    (secret,) = answer.json()["secrets"]
    assert (secret["name"], secret["used_by"]) == ("stripe", ["stripe"])
    assert "sk_1" not in answer.text
    after = (await http.get("/api/services/stripe")).json()
    assert (after["health"], after["problem"]) == ("unused", None)
    assert "sk_1" not in str(after)
    (event,) = await bench.events("secret.changed")
    assert (event.resource, event.reason) == ("stripe", "set")


async def test_a_try_is_no_decision(bench: Bench, http: httpx.AsyncClient) -> None:
    """Nothing is recorded, held or issued; a body may be longer than other members."""
    agent = await bench.agent("payer", "send:payment")
    events = len(await bench.events())
    body = base64.b64encode(b'{"amount": 1, "x": "%s"}' % (b"x" * 9000)).decode()
    headers = {"Content-Type": "application/json"}
    answer = await tried(http, agent_id=agent.id, body=body, headers=headers)
    told = answer.json()
    assert told["decision"]["decision"] == "escalated"
    assert told["parameters"] == {"amount": 1}
    assert len(await bench.events()) == events
    assert bench.broker.stepups.open_count == 0


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"service": "nothing"}, 404),
        ({"agent_id": "agt_nobody"}, 404),
        ({"body": "no base64!"}, 400),
        ({"method": 3}, 400),
        ({"unknown": 1}, 400),
    ],
)
async def test_bad_questions_are_refused(
    bench: Bench, http: httpx.AsyncClient, asked: dict[str, Any], status: int
) -> None:
    """What is nobody's or no request is a problem document."""
    agent = await bench.agent("payer", "send:payment")
    answer = await tried(http, **{"agent_id": agent.id, **asked})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


async def test_setting_needs_a_role_and_removing_does_not(
    bench: Bench, http: httpx.AsyncClient
) -> None:
    """Under ``claim`` nobody signed in sets or rotates; a secret is removed at once."""
    given = {"name": "stripe", "value": "sk_1"}
    assert (await http.post("/api/secrets", json=given)).status_code == 200
    broker = bench.broker
    claim = OperatorSettings(roles="claim")
    broker.settings = replace(broker.settings, operators=claim)
    async with operators_http(bench) as bound:
        for path, body in (("", given), ("/rotate-key", {})):
            refused = await bound.post(f"/api/secrets{path}", json=body)
            assert refused.status_code == 403
            assert refused.json()["needed_role"] == "operator"
        body = {"name": "stripe"}
        assert (await bound.post("/api/secrets/remove", json=body)).status_code == 200
    assert len(await bench.events("operator.refused")) == 2
