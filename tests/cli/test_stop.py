"""`agentvault panic` and `lift-panic`, with a broker, a busy one, and none."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from support.command_line import Answer
from support.vault import serving

Run = Callable[..., Answer]


def test_panic_stops_every_agent_until_it_is_lifted(av: Run) -> None:
    """The switch is on after `panic`, with its reason, and off after `lift-panic`."""
    answer = av("panic", "--reason", "a drill", "--json")
    assert (answer.code, answer.json["recorded"]) == (0, True)
    status = av("status", "--json").json["panic"]
    assert (status["on"], status["reason"]) == (True, "a drill")
    assert av("lift-panic").code == 0
    assert av("status", "--json").json["panic"]["on"] is False


@pytest.mark.slow
def test_an_order_left_without_a_broker_stops_the_next_start(
    cli: Run, tmp_path: Path
) -> None:
    """The start obeys before it serves, on the record of who gave the order and why."""
    home = tmp_path / "h"
    at = ("--home", str(home))
    with serving(home, tenant=False) as vault:
        pass
    assert vault.process.returncode == 0
    left = cli(*at, "panic", "--reason", "leaked")
    assert left.code == 0
    assert "the next start stops everything" in left.out
    with serving(home, tenant=False):
        panic = cli(*at, "status", "--json").json["panic"]
        assert (panic["on"], panic["reason"]) == (True, "leaked")
        (event,) = cli(*at, "audit", "search", "--type", "panic.on", "--json").lines
        assert event["actor"]["kind"] == "operator"
        assert cli(*at, "lift-panic").code == 0
    with serving(home, tenant=False):  # the order was obeyed once
        assert cli(*at, "status", "--json").json["panic"]["on"] is False


@pytest.mark.slow
def test_a_broker_that_does_not_answer_obeys_as_soon_as_it_runs(
    cli: Run, tmp_path: Path
) -> None:
    """While it is stopped the command says that nothing was stopped, and exits 1."""
    home = tmp_path / "h"
    at = ("--home", str(home))
    with serving(home, tenant=False) as vault:
        vault.process.send_signal(signal.SIGSTOP)
        try:
            left = cli(*at, "panic", "--reason", "it hangs")
        finally:
            vault.process.send_signal(signal.SIGCONT)
        assert left.code == 1
        assert "NOT stopped yet" in left.out
        while not (panic := cli(*at, "status", "--json").json["panic"])["on"]:
            assert vault.process.poll() is None
        assert panic["reason"] == "it hangs"
        while (home / "stop.order").exists():
            assert vault.process.poll() is None


def test_panic_on_an_empty_folder_leaves_nothing(cli: Run, tmp_path: Path) -> None:
    """A mistyped --home is no order for a broker to come."""
    home = tmp_path / "h"
    assert cli("--home", str(home), "panic").code == 3
    assert not home.exists()
