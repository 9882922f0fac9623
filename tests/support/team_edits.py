"""Two brokers of a team that ask for a factor, with an edit that waits."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from support import stepups
from support.bench import OPERATOR
from support.manual_clock import ManualClock
from support.postgres import Database
from support.scripted_tenant import ALICE
from support.team_members import Member, member, seen

from agentvault_tui.broker.usecases.policy_apply import apply_policy
from agentvault_tui.broker.usecases.stepup_end import expire_due
from agentvault_tui.home import Home, put_private
from agentvault_tui.model import AgentId, StepUp
from agentvault_tui.policy import shipped_policy
from agentvault_tui.settings import ChangeSettings, StepUpSettings

FACTOR: dict[str, Any] = {
    "changes": ChangeSettings(socket="factor"),
    "stepup": StepUpSettings(approvers=(ALICE["sub"],)),
}
RULES = f"{shipped_policy()}// of the team\n"
API = "services/api.toml"
ONE, EVIL = (f'origin = "https://{name}.test"\n' for name in ("one", "evil"))


Place = tuple[list[Home], ManualClock, Database]


@pytest.fixture
def place(homes: list[Home], clock: ManualClock, store: Database) -> Place:
    return homes, clock, store


@asynccontextmanager
async def team(place: Place, file: str, text: str) -> AsyncIterator[list[Member]]:
    """Open two brokers that ask for a factor, with a file that counts already."""
    homes, clock, store = place
    for home in homes[:2]:
        put_private(home.team_key, bytes(range(32)), replace=False)
    async with member(homes[0], clock, store) as first:
        rules = {"policy": RULES}
        await apply_policy(first.bench.broker, rules, OPERATOR, None, "")
        first.path(file).write_text(text)
        await first.look()
    async with AsyncExitStack() as stack:
        members = [
            await stack.enter_async_context(member(home, clock, store, **FACTOR))
            for home in homes[:2]
        ]
        await seen(*members)
        assert [one.files.text(file) for one in members] == [text, text]
        yield members


def waiting(one: Member) -> list[StepUp]:
    return one.bench.broker.stepups.open(AgentId(""))


async def approve(one: Member, change: StepUp) -> None:
    await stepups.approve(one.bench, change)


async def settle(*members: Member) -> None:
    """Let each broker compare its files twice, and end what is over."""
    for _ in range(2):
        await seen(*members)
        for one in members:
            await expire_due(one.bench.broker)


@asynccontextmanager
async def edited(
    place: Place, file: str, text: str
) -> AsyncIterator[tuple[Member, Member, StepUp]]:
    """Open a team, edit a file at its first broker: both know of the change."""
    async with team(place, API, ONE) as (a, b):
        a.path(file).write_text(text)
        await settle(a, b)
        (change,) = waiting(b)
        assert [one.id for one in waiting(a)] == [change.id]
        yield a, b, change
