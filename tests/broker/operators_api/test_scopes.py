"""Scopes are granted and removed over the operators' HTTP."""

from __future__ import annotations

from support.bench import Bench
from support.gateway_stand import operators_http

from agentvault_tui.ledger import EventQuery, verify_ledger
from agentvault_tui.model import EventType

SCOPE = "read:contacts"


async def test_a_grant_that_makes_one_lasting_is_an_event_of_the_agent(
    bench: Bench,
) -> None:
    """It names the agent, the scope and the person, and is recorded once."""
    agent = await bench.agent("clerk", "read:calendar")
    async with operators_http(bench) as http:
        for more in ({"seconds": 60}, {}, {}):
            body = {"agent_id": agent.id, "grant": [SCOPE], **more}
            assert (await http.post("/api/agents/scopes", json=body)).status_code == 200
    page = await bench.ledger.events(
        EventQuery(type=EventType.AGENT_SCOPES_CHANGED, agent=agent.id, limit=9)
    )
    lasting, timed = page.events
    assert timed.detail["ends"] == [SCOPE]
    assert timed.detail["granted"] == [SCOPE]
    assert lasting.detail["lasting"] == [SCOPE]
    assert lasting.reason == "granted without an end"
    assert lasting.actor.kind == "operator"
    found = verify_ledger(bench.home)
    assert found.ok, found.problem
