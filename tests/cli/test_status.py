"""`agentvault status` of a broker that serves, and of none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from support.command_line import Answer, Broker

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


def test_status_without_a_broker_exits_3(av: Run, tmp_path: Path) -> None:
    """There is nothing to tell of."""
    assert av("--home", str(tmp_path / "none"), "status").code == 3
