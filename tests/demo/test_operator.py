"""What the demo reads of the ledger agrees with what its agents were answered."""

from __future__ import annotations

from typing import Any

from agentvault_tui.demo.operator import Record

AGENT = "agt_1"


def event(kind: str, decision: str | None, outcome: str | None) -> dict[str, Any]:
    said = {"decision_id": decision, "outcome": outcome}
    return {"type": kind, "agent_id": AGENT, **said}


def test_each_decision_has_all_its_outcomes() -> None:
    """What waited and went out later is both; what has no outcome is no decision."""
    record = Record()
    for each in (
        event("token.decision", "dec_1", "allowed"),
        event("gateway.held", "dec_2", "escalated"),
        event("gateway.attempt", "dec_2", "allowed"),
        event("gateway.result", "dec_2", None),
        event("gateway.refused", "dec_3", "denied"),
    ):
        record.add(each)
    assert record.outcomes[AGENT] == {"allowed": 2, "denied": 1, "escalated": 1}
    assert record.decisions["dec_2"] == {"escalated", "allowed"}
    assert record.decisions["dec_3"] == {"denied"}
