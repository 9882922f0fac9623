"""Whatever the broker can hold can be approved: the largest bodies, to the end."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from auth0_double.running import START, TenantThread
from support.agents_http import Caller, Live, live_broker
from support.bench import OPERATOR, Bench
from support.manual_clock import ManualClock

from agentvault_tui.broker.usecases.stepup import begin_approval
from agentvault_tui.home import Home
from agentvault_tui.model import StepUpStatus
from agentvault_tui.tenant.device_page_client import Activation
from agentvault_tui.vault import TenantClient
from agentvault_tui.web import BODY_CAP
from agentvault_tui.web.forms import FIELD_CAP, VALUE_CAP

PIECES = {
    "two-byte letters": '"' + "é" * 500 + '"',
    "four-byte letters": '"' + "😀" * 500 + '"',
    "quotes": '"' + '\\"' * 500 + '"',
    "control characters": '"' + "\\u0001" * 500 + '"',
    "hidden characters": '"' + "\u200b" * 500 + '"',
    "short floats of many digits": "1e15",
    "empty strings": '""',
    "ampersands": '"' + "&" * 500 + '"',
}
"""JSON that grows most on its way through forms and pages."""
_OTHER_VALUES = 16
"""More than the request has beside the pieces."""


@pytest.fixture(scope="module")
def tenant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TenantThread]:
    running = TenantThread(Home.locate(tmp_path_factory.mktemp("tenant")))
    yield running
    running.close()


@pytest.fixture
async def live(tmp_path: Path, tenant: TenantThread) -> AsyncIterator[Live]:
    clock = ManualClock(START)
    bench = await Bench.open(Home.locate(tmp_path / "home"), clock)
    bench.broker.reaching.tenant = TenantClient(tenant.issuer, tenant.client_id, clock)
    async with live_broker(bench) as live:
        yield live
    await bench.broker.reaching.tenant.aclose()
    await bench.close()


def largest(piece: str) -> bytes:
    """Return the largest body an agent may send, full of *piece*."""
    asked = {
        "grant_type": "client_credentials",
        "scope": "send:payment",
        "authorization_details": [
            {
                "type": "agentvault:action",
                "action": "send:payment",
                "resource": "é" * 4000,
                "parameters": {"x": ["@"]},
            }
        ],
    }
    before, after = json.dumps(asked, ensure_ascii=False).encode().split(b'"@"')
    room = BODY_CAP - len(before) - len(after)
    raw = piece.encode()
    most = VALUE_CAP - _OTHER_VALUES
    many = min((room + 1) // (len(raw) + 1), most)
    body = before + b",".join([raw] * many) + after
    left = min(BODY_CAP - len(body) - 3, FIELD_CAP)
    body = before + b",".join([raw] * many + [b'"%b"' % (b"x" * left)]) + after
    return body if left >= 0 else before + b",".join([raw] * many) + after


async def held(live: Live, caller: Caller, body: bytes) -> str:
    answer = await live.http.post(
        "/oauth/token",
        content=body,
        headers={"content-type": "application/json"},
        auth=(caller.agent.client_id, caller.secret),
    )
    assert answer.status_code == 403, answer.text
    assert answer.json()["error"] == "insufficient_user_authentication"
    return str(answer.json()["auth_req_id"])


@pytest.mark.parametrize("piece", PIECES.values(), ids=PIECES)
async def test_the_largest_request_reaches_the_approvers_page(
    live: Live, tenant: TenantThread, piece: str
) -> None:
    """The tenant takes it, and the page shows every parameter of it."""
    body = largest(piece)
    full = BODY_CAP - len(piece.encode())
    assert full <= len(body) <= BODY_CAP or body.count(b",") > VALUE_CAP - 50
    caller = await live.caller("payer")
    broker = live.bench.broker
    stepup = broker.stepups.get(await held(live, caller, body))
    started = await begin_approval(broker, stepup.id, stepup.digest, OPERATOR)
    assert started.device is not None
    with Activation() as pages:
        details = pages.open(tenant.issuer, started.device.user_code)
    ((name, value),) = details.parameters
    assert name == "x"
    assert value.count(",") >= len(stepup.parameters["x"]) - 1
    assert len(str(details.resource)) == 4000


async def test_the_largest_request_is_approved_to_the_end(
    live: Live, tenant: TenantThread
) -> None:
    """Held, approved with two factors, fetched: the token carries all of it."""
    alice = tenant.users.add("alice@acme.test", approver=True)
    body = largest(PIECES["short floats of many digits"])
    caller = await live.caller("payer")
    broker = live.bench.broker
    stepup = broker.stepups.get(await held(live, caller, body))
    started = await begin_approval(broker, stepup.id, stepup.digest, OPERATOR)
    assert started.device is not None
    tenant.approve({"user_code": started.device.user_code}, alice)
    await live.bench.until(
        lambda: broker.stepups.get(stepup.id).status is StepUpStatus.APPROVED
    )
    answer = await caller.poll(stepup.id)
    assert answer.status_code == 200, answer.text
    asked: Any = json.loads(body)["authorization_details"]
    assert answer.json()["authorization_details"] == asked


async def test_an_empty_resource_is_none(live: Live) -> None:
    """Empty in a JSON body as in a form, so that what is held can be approved."""
    caller = await live.caller("payer")
    body = {"grant_type": "client_credentials", "scope": "send:payment", "resource": ""}
    stepup_id = await held(live, caller, json.dumps(body).encode())
    broker = live.bench.broker
    stepup = broker.stepups.get(stepup_id)
    assert stepup.resource is None
    await begin_approval(broker, stepup.id, stepup.digest, OPERATOR)
