"""`agentvault policy plan` and `replay`, beside a real broker and without one."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.command_line import Agent, Answer, Broker
from support.patience import PATIENT
from support.wire_shapes import filled

from agentvault_tui.cli.output import Output
from agentvault_tui.cli.policy_plan import print_changes
from agentvault_tui.errors import ConflictError
from agentvault_tui.home import Home
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.client import OperatorClient
from agentvault_tui.operator_api.planning import PlannedChangeInfo, PlanRequest
from agentvault_tui.policy import shipped_policy

Run = Callable[..., Answer]
NO_READS = (
    '@id("no") @why("w")\nforbid (principal, action in Action::"reads", resource);'
)


def test_a_plan_tells_what_would_no_longer_be_allowed(
    av: Run, agent: Agent, tmp_path: Path
) -> None:
    """Exit 1 with the agent, the change and an event; 0 where nothing gets stricter."""
    assert "access_token" in agent.ask("read:calendar", {})
    new = tmp_path / "new.cedar"
    new.write_text(shipped_policy() + NO_READS)
    answer = av("policy", "plan", str(new), "--json")
    assert answer.code == 1
    (change,) = [one for one in answer.json["changes"] if one["agent"] == agent.id]
    seq = change.pop("examples")[0]
    assert change == {
        "agent": agent.id,
        "scope": "read:calendar",
        "count": 1,
        "from": "allowed",
        "to": "denied",
        "amounts": [],
    }
    assert av("audit", "show", str(seq), "--json").json["event"]["agent_id"] == agent.id
    shown = av("policy", "plan", str(new), "--since", "1h")
    assert agent.name in shown.out
    assert "prompts a day" in shown.out
    # The digest is what apply asks for, and no other text has it.
    digest = answer.json["digest"]
    new.write_text(shipped_policy())
    same = av("policy", "plan", str(new), "--json")
    assert (same.code, same.json["changes"], same.json["mismatches"]) == (0, [], 0)
    assert same.json["digest"] != digest
    assert av("policy", "apply", str(new), "--plan", digest).code == 1


def test_a_change_that_policy_does_not_explain_says_why(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A call whose token would lack a scope is denied, though no rule says so."""
    told = {"agent": "a", "scope": "s", "from": "allowed", "to": "denied", "count": 7}
    reasons: tuple[dict[str, str], ...] = ({}, {"reason": "insufficient_scope"})
    changes = [filled(PlannedChangeInfo, {**told, **reason}) for reason in reasons]
    print_changes(Output(), changes, {"a": "payer"})
    _, plain, explained = capsys.readouterr().out.splitlines()
    assert plain.split() == ["payer", "s", "allowed", "denied", "7", "-"]
    assert "denied: insufficient_scope" in explained


def test_the_history_of_the_broker_follows_from_its_facts(
    av: Run, agent: Agent
) -> None:
    """Exit 0, and how many decisions there were."""
    agent.ask("read:calendar", {})
    answer = av("policy", "replay", "--json")
    assert (answer.code, answer.json["mismatches"]) == (0, 0)
    assert answer.json["decisions"] > 0
    assert "0 that do not follow" in av("policy", "replay").out


@pytest.mark.parametrize(
    ("content", "code", "told"),
    [
        (b"permit (", 1, "line 1"),
        (b"// " + b"x" * 300_000, 1, "larger than 256 KiB"),
        (b"\xff\xfe", 1, "not UTF-8"),
        (None, 4, "there is no file"),
    ],
)
def test_a_candidate_that_is_no_policy_is_told(
    av: Run, tmp_path: Path, content: bytes | None, code: int, told: str
) -> None:
    """A broken, huge or missing file is one line, and plans nothing."""
    file = tmp_path / "new.cedar"
    if content is not None:
        file.write_bytes(content)
    answer = av("policy", "plan", str(file))
    assert answer.code == code
    assert told in answer.err
    assert answer.out == ""


def test_a_linked_candidate_is_read_and_a_folder_is_not(
    av: Run, tmp_path: Path
) -> None:
    """What a symbolic link points to is planned; what is no plain file is refused."""
    (tmp_path / "real.cedar").write_text(shipped_policy())
    (tmp_path / "link.cedar").symlink_to(tmp_path / "real.cedar")
    assert av("policy", "plan", str(tmp_path / "link.cedar")).code == 0
    answer = av("policy", "plan", str(tmp_path))
    assert answer.code == 1
    assert "not a plain file" in answer.err


def test_without_a_history_there_is_nothing_to_plan(cli: Run, tmp_path: Path) -> None:
    """A home without a ledger is told as such."""
    home = ("--home", str(tmp_path / "none"))
    assert cli(*home, "policy", "replay").code == 4


def test_a_shadow_counts_beside_the_policy_in_force(
    av: Run, agent: Agent, tmp_path: Path
) -> None:
    """It is set, counts what it would have answered otherwise, and is off again."""
    new = tmp_path / "new.cedar"
    new.write_text(shipped_policy() + NO_READS)
    assert av("policy", "shadow", str(new), "--json").json["shadow"]["decisions"] == 0
    try:
        assert "access_token" in agent.ask("read:calendar", {})

        def counted() -> bool:
            found = av("policy", "shadow", "--json").json["shadow"]["by"]
            return agent.id in {one["agent"] for one in found}

        ends = time.monotonic() + PATIENT
        while not counted():
            assert time.monotonic() < ends
        assert agent.name in av("policy", "shadow").out
        assert av("policy", "show", "--json").json["shadow"]["differences"] >= 1
    finally:
        assert av("policy", "shadow", "--off", "--json").json == {"shadow": None}
    assert "no policy decides" in av("policy", "shadow").out
    assert av("policy", "shadow", str(new), "--off").code == 2


@pytest.mark.slow
def test_the_broker_plans_for_the_console(broker: Broker, agent: Agent) -> None:
    """The operators' HTTP gives the same plan, from a process beside the broker."""
    agent.ask("read:calendar", {})
    client = OperatorClient(Home.locate(broker.home).operator_socket)
    asked = PlanRequest(policy=shipped_policy() + NO_READS)
    found = client.call(calls.PLAN, asked)
    assert agent.id in {one.agent for one in found.changes}
    with pytest.raises(ConflictError, match="line 1"):
        client.call(calls.PLAN, PlanRequest(policy="permit ("))
