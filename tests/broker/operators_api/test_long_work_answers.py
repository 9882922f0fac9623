"""However large the answers to an operator are, a revocation is not delayed by them."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.bench import Bench
from support.gateway_stand import operators_http
from support.manual_clock import ManualClock
from support.stepups import ask
from support.team_members import member

from agentvault_tui.broker.usecases.request import request_token
from agentvault_tui.home import Home
from agentvault_tui.model import Action
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.calls import ACCESS
from agentvault_tui.settings import ChangeSettings

READERS = 8
"""Requests for the same answer at once."""
TURN = 0.05
"""Seconds of processor time that the longest turn of the event loop may take."""
REVOKED = 0.1
"""And all turns until a revocation is answered."""
ENTRY = {"owner": "o" * 150, "purpose": "p" * 600, "scopes": ["read:email"]}
READS = Action(("read:email",), "read:email")
SERVICE = 'origin = "https://api.mail.example"\n'
LIMITS = """
[[limits]]
id = "mails"
scopes = ["read:email"]
within = "1h"
count = 10
"""


async def fill(bench: Bench, http: httpx.AsyncClient) -> dict[str, str]:
    """Register 2,000 agents with step-ups and tokens, and ask for a change of 900.

    Returns:
        the parameters of paths.
    """
    for half in range(2):
        entries = {f"a{half}-{one}": ENTRY for one in range(1000)}
        answer = await http.post("/api/files", json={"agents": entries})
        assert answer.status_code == 200
    agents = bench.broker.registry.agents()
    payers = [await bench.agent(f"payer-{one}") for one in range(100)]
    held = [(await ask(bench, one)).stepup.id for one in payers]
    for one in payers:
        for amount in (1, 2):
            wanted = Action(
                ("send:payment",),
                "send:payment",
                resource="stripe:acct_1",
                parameters={"amount": amount, "currency": "USD"},
            )
            await ask(bench, one, wanted)
    for one in agents[:200]:
        await request_token(bench.broker, one, READS, resource=None, details=None)
    changes = ChangeSettings(socket="factor")
    bench.broker.settings = replace(bench.broker.settings, changes=changes)
    entries = {f"a0-{one}": ENTRY | {"owner": "ø" * 150} for one in range(900)}
    wider = {one: entry | {"scopes": ["read:files"]} for one, entry in entries.items()}
    waits = await http.post("/api/files", json={"agents": wider})
    assert waits.status_code == 202
    assert len(waits.content) > 1_000_000
    return {"change": waits.json()["id"], "stepup": held[0], "agent": payers[0].id}


@asynccontextmanager
async def rich(
    folder: Path, clock: ManualClock
) -> AsyncIterator[tuple[Bench, httpx.AsyncClient, dict[str, str]]]:
    home = Home(folder / "home", folder / "home")
    home.prepare()
    (home.config / "limits.toml").write_text(LIMITS)
    (home.config / "services").mkdir(exist_ok=True, mode=0o700)
    (home.config / "services" / "mail.toml").write_text(SERVICE)
    async with (
        member(home, clock, None) as broker,
        operators_http(broker.bench) as http,
    ):
        yield broker.bench, http, await fill(broker.bench, http)


def paths_of(bench: Bench, names: dict[str, str]) -> dict[str, str]:
    """Return a request for the largest answer of each route that reads, by its path."""
    head = bench.ledger.head.seq
    links = ",".join(str(one) for one in range(head - 199, head + 1))
    queries = {
        calls.AGENTS.path: "?limit=500&tokens=true",
        calls.AUDIT.path: "?limit=1000",
        calls.LINKS.path: f"?seq={links}",
        calls.PAST.path: f"?seq={head}",
        calls.PAST_ACTIVITY.path: f"?seq={head}&agent={names['agent']}",
        calls.STEPUPS.path: "?limit=500",
        calls.CHANGES.path: "?limit=500",
    }
    ids = {calls.CHANGE.path: "change", calls.AGENT.path: "agent"}
    ids[calls.ACTIVITY.path] = "agent"
    found = {}
    for method, path in ACCESS:
        if method != "GET" or path == calls.EVENTS_PATH:  # which has no end
            continue
        one = path.replace("{id}", names[ids.get(path, "stepup")])
        one = one.replace("{name}", "mail").replace("{seq:int}", str(head - 3))
        found[path] = one + queries.get(path, "")
    # A change is a step-up too.
    found["a change as a step-up"] = calls.STEPUP.at(id=names["change"])
    return found


def posts_of(names: dict[str, str]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return large requests that change nothing at once, by what each does."""
    wider = ENTRY | {"owner": "ø" * 150, "scopes": ["read:email", "read:calendar"]}
    files = {"agents": {f"a0-{one}": wider for one in range(900)}}
    action = {"action": "send:payment", "parameters": {"amount": 1}}
    return {
        "plan files": (calls.APPLY_FILES.path, {**files, "plan": True}),
        "ask for a change": (calls.APPLY_FILES.path, files),
        "explain": (calls.EXPLAIN.path, {"agent_id": names["agent"], **action}),
        "lift the panic": (calls.RESTORE.path, {"all": True}),
    }


@contextmanager
def turns() -> Iterator[list[float]]:
    """Measure the processor time of each turn of the event loop in the block."""
    measured, ends = list[float](), asyncio.Event()

    async def measure() -> None:
        while not ends.is_set():
            began = time.thread_time()
            await asyncio.sleep(0)
            measured.append(time.thread_time() - began)

    measuring = asyncio.ensure_future(measure())
    gc.disable()  # a collection of this process is as long as its tests have objects
    try:
        yield measured
    finally:
        gc.enable()
        ends.set()
        measuring.cancel()


async def revocation(http: httpx.AsyncClient, agent_id: str) -> float:
    """Revoke an agent; return the processor time that the loop took meanwhile."""
    await asyncio.sleep(0)
    began = time.thread_time()
    answer = await http.post("/api/agents/revoke", json={"agent_id": agent_id})
    took = time.thread_time() - began
    assert answer.status_code == 200
    return took


@pytest.mark.slow
async def test_no_answer_delays_a_revocation(short: Path, clock: ManualClock) -> None:
    """Every route that reads divides its answer over turns of the event loop.

    And a request to change hundreds of agents is prepared in a thread.
    """
    async with rich(short, clock) as (bench, http, names):
        victims = [one.id for one in bench.broker.registry.agents()[1000:]]
        slow: dict[str, Any] = {}
        for path, asked in paths_of(bench, names).items():
            assert (await http.get(asked)).status_code == 200, asked
            with turns() as measured:
                reads = [asyncio.ensure_future(http.get(asked)) for _ in range(READERS)]
                took = await revocation(http, victims.pop())
                answers = await asyncio.gather(*reads)
            assert {one.status_code for one in answers} <= {200, 409}, path
            if max(measured) > TURN or took > REVOKED:
                slow[path] = round(max(measured), 3), round(took, 3)
        for name, (path, body) in posts_of(names).items():
            with turns() as measured:
                asks = [asyncio.ensure_future(http.post(path, json=body))]
                asks += [asyncio.ensure_future(http.post(path, json=body))]
                took = await revocation(http, victims.pop())
                answers = await asyncio.gather(*asks)
            assert {one.status_code for one in answers} <= {200, 202}, name
            if max(measured) > TURN or took > REVOKED:
                slow[name] = round(max(measured), 3), round(took, 3)
        assert not slow
