"""Killed at any moment, the broker's ledger and the services say the same."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sqlite3
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.command_line import plain_environment
from support.forked import Forked, run
from support.gateway_stand import Upstream
from support.patience import PATIENT

CALLS, KILLS = 100, 10
RUNS = int(os.environ.get("AGENTVAULT_TEST_KILLS", "10")) // KILLS
"""One, of ten kills; 200 kills before a release."""
SERVICE = """
allow_http = true
allow_private = true
[[routes]]
method = "*"
path = "/{rest*}"
scope = "write:calendar"
body = "opaque"
types = ["application/octet-stream"]
"""


def command(home: Path, *argv: str) -> Any:
    done = run(*argv, "--json", env=plain_environment(AGENTVAULT_HOME=str(home)))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[0])


async def token_of(url: str, agent: dict[str, str]) -> str:
    async with httpx.AsyncClient(base_url=url, timeout=PATIENT) as client:
        form = {"grant_type": "client_credentials", "scope": "write:calendar"}
        pair = (agent["client_id"], agent["client_secret"])
        reply = await client.post("/oauth/token", data=form, auth=pair)
        return str(reply.json()["access_token"])


async def some_calls(
    url: str, token: str, numbers: range, chance: random.Random
) -> None:
    """Send calls at once, of several shapes; the broker may die under them."""
    async with httpx.AsyncClient(base_url=url, timeout=PATIENT, verify=False) as client:  # noqa: S501

        async def slow() -> Any:
            for _ in range(4):
                yield b"x" * 1_000
                await asyncio.sleep(0.002)

        async def one(number: int) -> None:
            content = chance.choice([None, b"short", b"y" * 200_000, slow()])
            headers = {"Authorization": f"Bearer {token}"}
            headers["Content-Type"] = "application/octet-stream"
            await asyncio.sleep(chance.random() * 0.02)
            with suppress(httpx.TransportError):
                await client.put(f"/gw/api/{number}", headers=headers, content=content)

        await asyncio.gather(*(one(number) for number in numbers))


def story(home: Path) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return the path of each call that was attempted, and its results."""
    with closing(sqlite3.connect(home / "agentvault.db")) as db:
        rows = db.execute(
            "SELECT type, json_extract(body, '$.detail.call_id'),"
            " json_extract(body, '$.detail.path'),"
            " json_extract(body, '$.detail.ended') FROM events"
            " WHERE type IN ('gateway.attempt', 'gateway.result') ORDER BY seq"
        ).fetchall()
    attempts = {call: path for kind, call, path, _ in rows if kind.endswith("attempt")}
    results: dict[str, list[str]] = {call: [] for call in attempts}
    for kind, call, _, ended in rows:
        if kind.endswith("result"):
            results[call].append(ended)
    return attempts, results


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(RUNS))
async def test_what_a_service_received_is_what_the_ledger_says(
    short: Path, seed: int
) -> None:
    """100 calls under 10 kills: none arrives twice or unrecorded, each has one end."""
    home, chance = short / "home", random.Random(seed)  # noqa: S311
    upstream = Upstream()
    await upstream.start()
    (home / "services").mkdir(parents=True)
    origin = f'origin = "http://127.0.0.1:{upstream.port}"'
    (home / "services" / "api.toml").write_text(origin + SERVICE)
    # A tenant that never answers: none has to be started fifty times.
    (home / "config.toml").write_text(
        '[tenant]\nissuer = "http://127.0.0.1:9/"\nclient_id = "console"\n'
    )
    line = ("--home", str(home), "serve", "--listen", "127.0.0.1:0")
    agent, token = {}, ""
    each = CALLS // KILLS
    for kill in range(KILLS + 1):
        with Forked(line, plain_environment()) as process:
            said = json.loads(await asyncio.to_thread(process.stdout.readline))
            url = said["agents_url"]
            if not agent:
                more = ("--owner", "olga", "--scope", "write:calendar")
                add = ("agents", "add", "bot", *more)
                agent = await asyncio.to_thread(command, home, *add)
                agent.setdefault("client_id", agent["id"])
                token = await token_of(url, agent)
            if kill == KILLS:
                process.terminate()
                await asyncio.to_thread(process.wait)
                break
            numbers = range(kill * each, (kill + 1) * each)
            calls = asyncio.create_task(some_calls(url, token, numbers, chance))
            wanted = len(upstream.received) + chance.randint(1, each)
            while len(upstream.received) < wanted and not calls.done():  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            await asyncio.sleep(chance.random() * 0.02)
            process.kill()
            await calls
    attempts, results = story(home)
    received = Counter(request.target for request in upstream.received)
    await upstream.stop()
    assert max(received.values()) == 1, "a call arrived twice"
    assert received.keys() <= set(attempts.values()), "a call left without a record"
    assert len(set(attempts.values())) == len(attempts)
    assert {len(ends) for ends in results.values()} == {1}
    for call, (ended,) in results.items():
        if ended == "done":
            assert received[attempts[call]] == 1
    assert len(received) > CALLS // 3, "too few were sent to say anything"
    verified = await asyncio.to_thread(command, home, "audit", "verify")
    assert verified["ok"]
