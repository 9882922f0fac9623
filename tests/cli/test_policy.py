"""`agentvault policy`: check with no broker, explain through a real one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from support.command_line import HOSTILE, Agent, Answer

Run = Callable[..., Answer]


def test_check_the_shipped_policy_with_no_broker(cli: Run, tmp_path: Path) -> None:
    """The shipped policy is sound, and its rules and scopes are listed."""
    answer = cli("--home", str(tmp_path), "policy", "check", "--json")
    assert answer.code == 0
    assert answer.json["ok"] is True
    assert "payments-need-step-up" in {rule["rule"] for rule in answer.json["rules"]}
    assert "send:payment" in {scope["scope"] for scope in answer.json["scopes"]}
    assert (
        "payments-need-step-up" in cli("--home", str(tmp_path), "policy", "check").out
    )


def test_check_a_broken_file(cli: Run, tmp_path: Path) -> None:
    """A file that could not be put in force exits 1 and names the line."""
    file = tmp_path / "broken.cedar"
    file.write_text("permit (principal, action, resource) when { nonsense };\n")
    answer = cli("--home", str(tmp_path), "policy", "check", str(file))
    assert answer.code == 1
    assert answer.err.count("\n") == 1
    assert "broken.cedar" in answer.err
    told = cli("--home", str(tmp_path), "policy", "check", str(file), "--json")
    assert told.code == 1
    assert told.json["ok"] is False


def test_check_reads_the_homes_own_policy(cli: Run, tmp_path: Path) -> None:
    """Without FILE the home's policy.cedar is checked."""
    (tmp_path / "policy.cedar").write_text("nonsense")
    answer = cli("--home", str(tmp_path), "policy", "check")
    assert answer.code == 1
    assert "policy.cedar" in answer.err


def test_check_lists_what_can_never_match(cli: Run, tmp_path: Path) -> None:
    """Each rule that never matches is told with its line, and the exit code is 1."""
    file = tmp_path / "mine.cedar"
    notes = '@why("w") @obligation("allow") permit (principal, action, resource)'
    file.write_text(
        f'@id("a") {notes} when {{ context has cuont }};\n'
        f'@id("b") {notes} when {{ context.performs == "send:paymnet" }};\n'
        f'@id("c") {notes}\nwhen {{ false }};\n'
    )
    answer = cli("--home", str(tmp_path), "policy", "check", str(file))
    assert answer.code == 1
    first, second, third = answer.out.splitlines()
    assert "mine.cedar line 1: the rule a: context never has cuont: count?" in first
    assert 'line 2: the rule b: "send:paymnet" is never sent there' in second
    assert "line 3: the rule c: when is always false" in third
    told = cli("--home", str(tmp_path), "policy", "check", str(file), "--json")
    assert (told.code, told.json["ok"]) == (1, False)
    assert [one["rule"] for one in told.json["problems"]] == ["a", "b", "c"]


def test_check_knows_the_homes_agents(av: Run, agent: Agent, tmp_path: Path) -> None:
    """Ids of nobody, and catalogues without scopes that agents have, exit 1."""
    file = tmp_path / "mine.cedar"
    rule = '@id("a") @why("w") forbid (principal == Agent::"{}", action, resource);'
    file.write_text(rule.format(agent.id))
    assert av("policy", "check", str(file)).code == 0
    file.write_text(rule.format("agt_0000000000000000"))
    answer = av("policy", "check", str(file))
    assert answer.code == 1
    assert "no agent agt_0000000000000000 is registered" in answer.out
    catalogue = tmp_path / "scopes.toml"
    catalogue.write_text(
        '[scopes."read:boats"]\ndescription = "d"\nrisk = "low"\nrevoking = "r"\n'
    )
    answer = av("policy", "check", str(catalogue))
    assert answer.code == 1
    assert f"was granted to {agent.name}: every use of it is denied" in answer.out


def test_check_of_a_missing_file_exits_four(cli: Run, tmp_path: Path) -> None:
    """A file that is not there is no such thing."""
    assert cli("policy", "check", str(tmp_path / "none")).code == 4


def test_explain_gives_decision_rule_and_what_would_change_it(
    av: Run, agent: Agent
) -> None:
    """A denial for want of a grant says that granting would change it."""
    line = ("policy", "explain", "--agent", agent.name, "--action", "read:finance")
    answer = av(*line, "--json")
    assert answer.code == 0
    assert answer.json["decision"] == "denied"
    assert any("granted" in sentence for sentence in answer.json["would_change"])
    people = av(*line).out
    assert "denied" in people
    assert "read:finance granted" in people
    paying = av(
        *("policy", "explain", "--agent", agent.id, "--action", "send:payment"),
        *("--resource", HOSTILE, "--parameters", json.dumps({"amount": 1})),
    )
    assert "payments-need-step-up" in paying.out
    assert all(row.isprintable() for row in paying.out.split("\n"))


def test_explain_refuses_what_is_unknown(av: Run, agent: Agent) -> None:
    """An unknown scope is wrong usage, an unknown agent is no such thing."""
    line = ("policy", "explain", "--action")
    assert av(*line, "reed:mail", "--agent", agent.name).code == 2
    assert av(*line, "read:email", "--agent", "nobody").code == 4
