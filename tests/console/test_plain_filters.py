"""The filter language line by line."""

from __future__ import annotations

import io

import pytest
from support.dialog_stand import Stand, scene

from agentvault_tui.console.plain import Plain


class Session:
    """A plain session over a scene, and what it says."""

    def __init__(self) -> None:
        self.stand: Stand = scene()
        self.out = io.StringIO()
        self.plain = Plain(self.stand.desk, self.out)

    async def type(self, line: str) -> str:
        before = len(self.out.getvalue())
        await self.plain.take(line)
        return self.out.getvalue()[before:]

    def news(self) -> str:
        before = len(self.out.getvalue())
        self.plain.teller.news()
        return self.out.getvalue()[before:]

    def happen(self, agent: str, outcome: str) -> None:
        found = next(a for a in self.stand.state.agents.values() if a["name"] == agent)
        event = self.stand.state.decide(found, "read:calendar", outcome)
        self.stand.mirror.apply("audit", event)


@pytest.mark.parametrize("text", ["status:waiting", "@needs a person", "-agent:cal"])
async def test_agents_are_listed_by_a_filter(text: str) -> None:
    """Only those that match, how many are hidden, and what waits in any case."""
    session = Session()
    shown = await session.type(f"list {text}")
    total = len(session.stand.mirror.agents)
    listed = [a.name for a in session.stand.mirror.agents.values() if a.name in shown]
    assert "payments-agent" in listed
    assert "calendar-agent" not in shown.replace("calendar-agent asks", "")
    assert f" of {total} agents, " in shown
    assert "hidden." in shown
    assert "step-up" in shown


async def test_a_problem_is_told_with_its_place() -> None:
    """The same words as in the filter bar."""
    shown = await Session().type("list pay outcom:x")
    assert "In the filter, at 5: no key outcom:, did you mean outcome:." in shown


async def test_events_are_told_by_a_filter() -> None:
    """Those that match and no others, until it is taken off."""
    session = Session()
    session.news()
    assert "Only what matches" in await session.type("events outcome:denied agent:cal")
    session.happen("calendar-agent", "denied")
    session.happen("payments-agent", "denied")
    session.happen("calendar-agent", "allowed")
    told = session.news()
    assert told.count("\n") == 1
    assert "calendar-agent" in told
    await session.type("events few")
    session.happen("payments-agent", "denied")
    assert "payments-agent" in session.news()
