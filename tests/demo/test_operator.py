"""What the demo reads of the ledger agrees with what its agents were answered."""

from __future__ import annotations

from typing import Any

from agentvault_tui.demo.operator import Record

AGENT = "agt_1"


def event(kind: str, outcome: str | None = None, reason: str = "") -> dict[str, Any]:
    return {"type": kind, "agent_id": AGENT, "outcome": outcome, "reason": reason}


def test_what_a_revocation_overtook_was_answered_with_a_refusal() -> None:
    """Allowed and then not given is a refusal, but for a tenant that was away."""
    record = Record()
    for each in (
        *[event("token.decision", "allowed")] * 5,
        event("token.decision", "denied"),
        event("token.revoked", reason="revoked while it was being issued"),
        event("token.revoked", reason="handed back"),
        event("token.not_exchanged", reason="agent_revoked"),
        event("token.not_exchanged", reason="unavailable"),
    ):
        record.add(each)
    assert record.events == 10
    assert record.outcomes[AGENT] == {"allowed": 5, "denied": 1}
    answers = record.answers(AGENT)
    assert (answers["allowed"], answers["denied"]) == (2, 3)
    assert record.answers("agt_2")["allowed"] == 0
