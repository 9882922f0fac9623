"""OCSF records are what the schema says, for every event there is."""

from __future__ import annotations

from typing import Any

import pytest
from support.ocsf_check import SCHEMA, faults

from agentvault_tui import ocsf
from agentvault_tui.model import DECISION_TYPES, EventType, Outcome


def event(kind: EventType, **changes: Any) -> dict[str, Any]:
    made = {
        "seq": 7,
        "time": "2026-11-24T10:00:00.123456Z",
        "type": kind.value,
        "actor": {"kind": "agent", "id": "agt_1", "name": "payments-agent"},
        "agent_id": "agt_1",
        "action": "send:payment",
        "resource": "stripe:acct_42",
        "outcome": None,
        "reason": "why",
        "rule": "a-rule",
        "decision_id": "dec_1",
        "detail": {"scope": "send:payment", "parameters": {"amount": 4200}},
        "hash": "sha256:ab",
    }
    return made | changes


BARE = {
    "actor": {"kind": "system", "id": "broker", "name": "broker"},
    "agent_id": None,
    "action": None,
    "resource": None,
    "reason": None,
    "rule": None,
    "decision_id": None,
    "detail": {},
}


@pytest.mark.parametrize("kind", EventType)
def test_every_type_is_as_the_schema_says(kind: EventType) -> None:
    """With all members or the fewest, under each outcome: no attribute is unknown."""
    outcomes = list(Outcome) if kind in DECISION_TYPES else [None]
    for outcome in outcomes:
        for changes in ({}, BARE):
            said = event(kind, outcome=outcome and outcome.value, **changes)
            assert faults(ocsf.record(said, details=True)) == []
    assert SCHEMA["version"] == ocsf.VERSION


@pytest.mark.parametrize(
    ("kind", "uid"),
    [
        (EventType.TOKEN_DECISION, 3003),
        (EventType.STEPUP_REQUESTED, 3003),
        (EventType.GATEWAY_RESULT, 6003),
        (EventType.ACCESS_DECISION, 6003),
        (EventType.AGENT_REVOKED, 3004),
        (EventType.POLICY_CHANGED, 3004),
    ],
)
def test_each_family_has_its_class(kind: EventType, uid: int) -> None:
    """Tokens and step-ups authorize, calls are API activity, the rest manages."""
    made = ocsf.record(event(kind), details=True)
    assert made["class_uid"] == uid
    assert made["metadata"]["sequence"] == 7
    assert made["metadata"]["uid"] == "sha256:ab"
    if uid == 3003:
        assert made["user"]["uid"] == "agt_1"
        assert made["privileges"] == ["send:payment"]


def test_outcomes_have_their_status() -> None:
    """Denied is a failure, escalated another status, with its word."""
    found = {
        outcome: ocsf.record(
            event(EventType.TOKEN_DECISION, outcome=outcome.value), details=True
        )
        for outcome in Outcome
    }
    assert found[Outcome.ALLOWED]["status_id"] == 1
    assert found[Outcome.DENIED]["status_id"] == 2
    escalated = found[Outcome.ESCALATED]
    assert (escalated["status_id"], escalated["status"]) == (99, "Escalated")


def test_parameters_are_told_only_with_details() -> None:
    """What an agent sent stays out of a record unless it is asked for."""
    said = event(
        EventType.TOKEN_DECISION,
        outcome="denied",
        detail={
            "scope": "send:payment",
            "parameters": {"amount": 4200},
            "agent_says": "Invoice 1881",
            "facts": {"parameters": {"amount": 4200}},
        },
    )
    assert "4200" not in str(ocsf.record(said, details=False))
    assert "Invoice" not in str(ocsf.record(said, details=False))
    assert "4200" in str(ocsf.record(said, details=True))
