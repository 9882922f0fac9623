"""`agentvault status` of a broker that serves, and of none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.command_line import Answer, Broker
from support.wire_shapes import filled

from agentvault_tui.operator_api.client import OperatorClient
from agentvault_tui.operator_api.shapes import StatusInfo

Run = Callable[..., Answer]


def test_status_says_how_the_broker_is_and_what_waits(av: Run, broker: Broker) -> None:
    """In lines for people, and for programs as the operators' HTTP has it."""
    told = av("status", "--json").json
    assert set(told) >= {"version", "tenant", "ledger", "panic", "stepups_pending"}
    said = av("status").out
    assert f"version {told['version']}, agents reach it at {broker.url}" in said
    assert f"{told['tenant']['issuer']} (embedded)" in said
    assert "events, recording" in said
    assert "panic     off" in said
    assert "team" not in said


def test_status_says_that_everything_is_stopped(av: Run) -> None:
    """With who stopped it, and why."""
    av("agents", "revoke", "--all", "--reason", "a drill")
    try:
        assert "panic     on since" in (said := av("status").out)
        assert "a drill" in said
    finally:
        av("agents", "restore", "--all")


ALONE = {"id": "brk_a", "alive": True, "in_step": True}
SILENT = {"id": "brk_b", "alive": False, "in_step": False, "reason": "it is silent"}
TEAM = {"name": "payments", "store": "db1", "brokers": [ALONE, SILENT]}


@pytest.mark.parametrize(
    ("told", "said", "unsaid"),
    [
        ({}, "recording", "team"),
        ({"ledger": {"writable": False}}, "nothing is granted", "recording"),
        ({"ledger": {"fault": "event 3 is gone"}}, "fault: event 3", "recording"),
        ({"tenant": {"reachable": False}}, "does not answer", "answers"),
        ({"warnings": ["a file is outdated"]}, "a file is outdated", "team"),
        ({"team": TEAM}, "payments, 1 alive, in db1\n", "not known"),
        ({"team": TEAM}, "it is silent", "away"),
        ({"team": TEAM, "stale": True}, "who is alive is not known, in db1", "1 alive"),
        ({"team": TEAM, "stale": True}, "db1, which is away", "it is silent"),
    ],
)
def test_status_says_what_is_not_as_it_should_be(
    cli: Run,
    monkeypatch: pytest.MonkeyPatch,
    told: dict[str, Any],
    said: str,
    unsaid: str,
) -> None:
    """Of ledger, tenant and team; with the store away nothing of others is known."""
    info = filled(StatusInfo, {"agents": 0, "warnings": [], **told})
    monkeypatch.setattr(OperatorClient, "call", lambda *_: info)
    answer = cli("status")
    assert said in answer.out + answer.err
    assert unsaid not in answer.out + answer.err


def test_status_without_a_broker_exits_3(av: Run, tmp_path: Path) -> None:
    """There is nothing to tell of."""
    assert av("--home", str(tmp_path / "none"), "status").code == 3
