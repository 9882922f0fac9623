"""The filter language line by line."""

from __future__ import annotations

import pytest
from support.dialog_stand import scene
from support.plain_session import StandSession
from support.wire_shapes import tell


def happen(session: StandSession, agent: str, outcome: str) -> None:
    state = session.stand.state
    found = next(a for a in state.agents.values() if a["name"] == agent)
    event = state.decide(found, "read:calendar", outcome)
    tell(session.stand.mirror, "audit", event)


@pytest.mark.parametrize("text", ["status:waiting", "@needs a person", "-agent:cal"])
async def test_agents_are_listed_by_a_filter(text: str) -> None:
    """Only those that match, how many are hidden, and what waits in any case."""
    session = StandSession(scene())
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
    shown = await StandSession(scene()).type("list pay outcom:x")
    assert "In the filter, at 5: no key outcom:, did you mean outcome:." in shown


async def test_events_are_told_by_a_filter() -> None:
    """Those that match and no others, until it is taken off."""
    session = StandSession(scene())
    session.news()
    assert "Only what matches" in await session.type("events outcome:denied agent:cal")
    happen(session, "calendar-agent", "denied")
    happen(session, "payments-agent", "denied")
    happen(session, "calendar-agent", "allowed")
    told = session.news()
    assert told.count("\n") == 1
    assert "calendar-agent" in told
    await session.type("events few")
    happen(session, "payments-agent", "denied")
    assert "payments-agent" in session.news()
