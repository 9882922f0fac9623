"""The operators' HTTP about services and secrets: who may, and what is told."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from support.bench import Bench
from support.gateway_stand import gateway_of, operators_http
from support.patience import PATIENT

from agentvault_tui.broker.authority import remote_seat
from agentvault_tui.broker.operators_api.wire import local_operator_of
from agentvault_tui.errors import ConflictError
from agentvault_tui.gateway import probe as probe_module
from agentvault_tui.gateway.body import WORKERS
from agentvault_tui.model import Actor, ActorKind
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
async def http(bench: Bench) -> AsyncIterator[httpx.AsyncClient]:
    """The operators' HTTP of a broker whose gateway has a service of Stripe."""
    (bench.home.config / "services").mkdir(exist_ok=True)
    (bench.home.config / "services" / "stripe.toml").write_text(FILE)
    async with gateway_of(bench), operators_http(bench) as client:
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


async def test_a_large_body_that_is_tried_is_read_in_a_worker(
    bench: Bench, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixty of them, by one viewer, stopped the event loop for seconds."""
    agent = await bench.agent("payer", "send:payment")
    asked_by: list[str] = []
    run = WORKERS.run

    async def counted(who: str, *args: Any, **keywords: Any) -> Any:
        asked_by.append(who)
        return await run(who, *args, **keywords)

    monkeypatch.setattr(WORKERS, "run", counted)
    body = base64.b64encode(b'{"amount": 1, "x": [%s0]}' % (b"0," * 50_000)).decode()
    headers = {"Content-Type": "application/json"}
    answer = await tried(http, agent_id=agent.id, body=body, headers=headers)
    assert answer.json()["parameters"] == {"amount": 1}
    (operator,) = asked_by
    assert operator.startswith("uid:")


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


async def served(answer: bytes, *, reads: bool) -> asyncio.Server:
    """Serve *answer* to each request, whose body it reads or leaves."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, OSError, RuntimeError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                assert b"authorization" not in head.lower()
                length = re.search(rb"content-length: (\d+)", head.lower())
                if reads and length:
                    await reader.readexactly(int(length[1]))
                writer.write(answer)
                await writer.drain()
                if b"close" in answer:
                    break
        writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0)


NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n"


@pytest.mark.parametrize(
    ("answer", "reads", "shown", "outcome"),
    [
        (NOT_FOUND + b"\r\nno", False, True, "unread"),
        (NOT_FOUND + b"\r\nno", True, None, "nothing_shown"),
        (NOT_FOUND + b"Connection: close\r\n\r\nno", False, None, "closed"),
        (b"rubbish\r\n", True, None, "upstream_reset"),
    ],
    ids=["leaves", "reads", "closes", "rubbish"],
)
async def test_a_probe_shows_who_leaves_bodies_unread(
    bench: Bench,
    http: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    *,
    answer: bytes,
    reads: bool,
    shown: bool | None,
    outcome: str,
) -> None:
    """A service that does is known; of one that does not, nothing is proved."""
    monkeypatch.setattr(probe_module, "_SETTLE_S", 0.2 if shown is None else PATIENT)
    server = await served(answer, reads=reads)
    port = server.sockets[0].getsockname()[1]
    text = FILE.replace("https://api.stripe.test", f"http://127.0.0.1:{port}")
    text = "allow_http = true\nallow_private = true\n" + text
    (bench.home.config / "services" / "stripe.toml").write_text(text)
    async with asyncio.timeout(PATIENT):
        told = (await http.post("/api/services/stripe/probe")).json()
    server.close()
    assert told["leaves_unread"] is shown
    assert {one["outcome"] for one in told["probes"]} == {outcome}
    assert [one["method"] for one in told["probes"]] == ["OPTIONS", "GET", "POST"]
    begun, ended = await bench.events("service.probed")
    assert (begun.reason, ended.reason) == ("begun", outcome if shown else PROVED)
    assert begun.actor.id == "uid:1000"
    assert begun.resource == "services/stripe.toml"


PROVED = "nothing_shown"


async def test_a_probe_goes_where_calls_may_go_and_by_whom(
    bench: Bench, http: httpx.AsyncClient
) -> None:
    """A private address is refused; no operator elsewhere, and no role, sends one."""
    server = await served(NOT_FOUND + b"\r\nno", reads=False)
    port = server.sockets[0].getsockname()[1]
    text = FILE.replace("https://api.stripe.test", f"http://127.0.0.1:{port}")
    (bench.home.config / "services" / "stripe.toml").write_text(
        "allow_http = true\n" + text
    )
    told = (await http.post("/api/services/stripe/probe")).json()
    server.close()
    assert {one["outcome"] for one in told["probes"]} == {"upstream_refused"}
    assert (await http.post("/api/services/none/probe")).status_code == 404
    broker = bench.broker
    claim = OperatorSettings(roles="claim")
    broker.settings = replace(broker.settings, operators=claim)
    async with operators_http(bench) as bound:
        assert (await bound.post("/api/services/stripe/probe")).status_code == 403
    elsewhere = Request({"type": "http", "state": {"operator": REMOTE}})
    with pytest.raises(ConflictError):
        local_operator_of(elsewhere)


REMOTE = Actor(ActorKind.OPERATOR, remote_seat("thumbprint"), "10.0.0.1")
