"""No row that somebody may cause at the tenant hides the rest of its log."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from support.manual_clock import ManualClock
from support.rogue_tenant import Answer, Request, RogueTenant, rogue_tenant

from agentvault_tui.broker.upstream.tenant_log import TenantLog
from agentvault_tui.errors import TenantError
from agentvault_tui.ledger import Meta
from agentvault_tui.model import Draft
from agentvault_tui.vault import ClientSecret, Management, Secret, Tenant
from agentvault_tui.vault.tenant import RetryLimits

PATH = "/api/v2/logs"


class Reading:
    """A reader of a rogue tenant's log, whose one client is of ours."""

    def __init__(self, rogue: RogueTenant, clock: ManualClock) -> None:
        async def nap(seconds: float) -> None:
            clock.advance(seconds)

        self.tenant = Tenant(rogue.issuer, clock, sleep=nap)
        credential = ClientSecret("mgmt", Secret("the-management-secret"))
        holdings = SimpleNamespace(clients=lambda: {"ours": None}, users=dict)
        access: Any = SimpleNamespace(
            holdings=holdings,
            management=Management(self.tenant, credential, patience=RetryLimits(1)),
        )
        self.told: list[str] = []
        self._log = TenantLog(clock, rogue.issuer, access, self._record)

    async def _record(self, *drafts: Draft, changes: list[Meta]) -> None:
        assert len(changes) == 1
        self.told += [event.detail["log_id"] for event in drafts]

    async def go_on(self, most: int = 60) -> None:
        """Read on as long as it takes: after an error, and after a full page."""
        for _ in range(most):
            try:
                if not await self._log.read():
                    return
            except TenantError:
                continue
        pytest.fail("the log cannot be read to its end")


@pytest.fixture
async def rogue() -> AsyncIterator[RogueTenant]:
    async with rogue_tenant() as running:
        yield running


@pytest.fixture
async def reading(rogue: RogueTenant, clock: ManualClock) -> AsyncIterator[Reading]:
    reading = Reading(rogue, clock)
    yield reading
    await reading.tenant.aclose()


def row(number: int, said: str = "1") -> str:
    """Return a row about us that repeats *said*, which is JSON, of a request."""
    return (
        f'{{"log_id": "{number:06}", "type": "sapi", "client_id": "ours",'
        f' "details": {{"request": {{"body": {said}}}}}}}'
    )


def serve(rogue: RogueTenant, rows: list[str]) -> None:
    """Answer from *rows* as Auth0 does: the newest, or those behind one."""

    def page(asked: Request) -> Answer:
        ids = [json.loads(one[: one.index(",")] + "}")["log_id"] for one in rows]
        if "sort" in asked.query:
            found = rows[:1]
        else:
            behind = [
                one
                for one, key in zip(rows, ids, strict=True)
                if key > asked.query["from"]
            ]
            found = behind[: int(asked.query["take"])]
        return Answer(f"[{','.join(found)}]".encode())

    rogue.script(PATH, page)


@pytest.mark.parametrize("levels", [40, 5_000])
@pytest.mark.parametrize("pair", ["[]", "{}"])
async def test_a_row_that_nests_deep_does_not_end_the_reading(
    rogue: RogueTenant, reading: Reading, levels: int, pair: str
) -> None:
    """Users' own metadata are in the log as they sent them, however deep."""
    start = "[" if pair == "[]" else r'{"a\"]}": '
    deep = start * levels + '"]}"' + pair[1] * levels
    serve(rogue, [row(1)])
    await reading.go_on()
    serve(rogue, [row(1), row(2), row(3, deep), row(4)])
    await reading.go_on()
    assert reading.told == ["000002", "000003", "000004"]


@pytest.mark.slow
async def test_rows_that_are_too_large_together_are_read_in_smaller_pages(
    rogue: RogueTenant, reading: Reading
) -> None:
    """A hundred changes of something large make a page we would never read."""
    serve(rogue, [row(1)])
    await reading.go_on()
    large = json.dumps("x" * 600_000)
    rows = [row(number, large) for number in range(2, 30)]
    serve(rogue, [row(1), *rows, row(30)])
    await reading.go_on()
    assert reading.told == [f"{number:06}" for number in range(2, 31)]


async def test_rows_that_were_read_are_no_reason_to_hurry(
    rogue: RogueTenant, reading: Reading
) -> None:
    """A tenant that shows the same full page for ever is not asked without a pause."""
    rows = [row(number) for number in range(1, 101)]
    serve(rogue, [rows[-1]])
    await reading.go_on()
    rogue.script(PATH, Answer(f"[{','.join(rows)}]".encode()))
    await reading.go_on(1)
    assert reading.told == []
