"""The answer of an approved change is given out once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.bench import Bench
from support.elsewhere import Stand
from support.loosenings import approve, opened, signed_in, waits

from agentvault_tui.broker.usecases.changes import take_answer
from agentvault_tui.errors import LedgerUnwritableError

NEW = {"name": "new", "owner": "o", "scopes": ["read:calendar"]}
READERS = 12


async def applied(stand: Stand, approver: Any) -> str:
    """Register an agent, have that approved by another person, return its path."""
    change = await waits(await approver.post("/api/agents", **NEW))
    done = await approve(stand, await signed_in(stand, "approver", "bob"), change)
    assert done["status"] == "applied"
    return f"/api/changes/{change['id']}"


async def test_of_concurrent_readers_one_gets_the_secret(bench: Bench) -> None:
    """If the session that asked reads its answer 12 times at once, one has it."""
    async with opened(bench) as stand:
        approver = await signed_in(stand, "approver")
        path = await applied(stand, approver)
        change = bench.broker.stepups.get(path.rpartition("/")[2])
        assert change.change is not None
        seats = {change.change.seat}
        reading = (take_answer(bench.broker, change, seats) for _ in range(READERS))
        answers = [one for one in await asyncio.gather(*reading) if one is not None]
        assert [one["name"] for one in answers] == ["new"]
        assert await take_answer(bench.broker, change, seats) is None


async def test_an_answer_whose_reading_was_not_recorded_can_be_read_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the record fails, the secret is not given out, and not lost."""

    async def full(*_: object, **__: object) -> None:
        raise LedgerUnwritableError("no space left")

    async with opened(bench) as stand:
        approver = await signed_in(stand, "approver")
        path = await applied(stand, approver)
        with monkeypatch.context() as patch:
            patch.setattr(bench.broker, "record", full)
            refused = await approver.get(path)
        assert refused.status_code == 503
        assert "av_s_" not in refused.text
        read = await approver.get(path)
        assert read.json()["client_secret"].startswith("av_s_")
