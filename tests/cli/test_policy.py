"""`agentvault policy`: check with no broker, explain through a real one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.command_line import HOSTILE, Agent, Answer, Broker
from support.ledger_kit import agent as agent_named
from support.ledger_kit import manual_clock

from agentvault_tui.broker.usecases.policy_change import POLICY
from agentvault_tui.home import Home
from agentvault_tui.ledger import Ledger, Meta
from agentvault_tui.policy import shipped_policy

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


def test_check_counts_the_limits_beside_the_policy(cli: Run, tmp_path: Path) -> None:
    """Whoever wrote limits.toml sees that it was read."""
    limit = 'id = "mails"\nscopes = ["send:email"]\nwithin = "1h"\ncount = 3\n'
    (tmp_path / "limits.toml").write_text(f"[[limits]]\n{limit}")
    answer = cli("--home", str(tmp_path), "policy", "check")
    assert (answer.code, "ok: 1 limit, 0 call-outs\n" in answer.out) == (0, True)


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


BOATS = """[scopes."{}"]
description = "See the boats."
risk = "low"
revoking = "Stops it."
"""


def test_check_reads_files_of_own_scopes(cli: Run, tmp_path: Path) -> None:
    """A file of scopes.d adds scopes, before and after it is in the home directory."""
    home, draft = tmp_path / "home", tmp_path / "scopes.d" / "boats.toml"
    draft.parent.mkdir()
    home.mkdir(mode=0o700)
    (home / "scopes.d").mkdir(mode=0o700)
    draft.write_text(BOATS.format("read:boats"))
    line = ("--home", str(home), "policy", "check")
    scopes = {one["scope"] for one in cli(*line, str(draft), "--json").json["scopes"]}
    assert {"read:boats", "send:payment"} <= scopes
    draft.write_text(BOATS.format("send:payment"))
    answer = cli(*line, str(draft))
    assert answer.code == 1
    assert "scopes.d/boats.toml line 1: send:payment is defined already" in answer.err
    (home / "scopes.d" / "boats.toml").write_text(BOATS.format("read:boats"))
    found = cli(*line, "--json").json["scopes"]
    assert "read:boats" in {one["scope"] for one in found}


HIDDEN = """
@id("small-payments")
@why("Up to 50.")
@obligation("allow")
permit (principal, action == Action::"send:payment", resource)
when { context has amount && context.amount <= 5000 };
"""
NEVER = '@id("n") @why("w") forbid (principal, action, resource) when { false };'


def test_check_warns_of_a_rule_that_never_decides(cli: Run, tmp_path: Path) -> None:
    """A warning is printed, and fails the check only with --strict."""
    file = tmp_path / "mine.cedar"
    file.write_text(shipped_policy() + HIDDEN)
    line = ("--home", str(tmp_path), "policy", "check", str(file))
    says = (
        "warning: small-payments never decides: payments-need-step-up asks a person"
        " for everything it matches"
    )
    for more, code in ((), 0), (("--strict",), 1):
        answer = cli(*line, *more)
        assert (answer.code, says in answer.out) == (code, True)
        told = cli(*line, *more, "--json").json
        assert (told["ok"], told["problems"][0]["severity"]) == (not code, "warning")


def test_apply_refuses_what_check_calls_an_error(
    av: Run, broker: Broker, tmp_path: Path
) -> None:
    """Errors refuse the policy, warnings only with --strict, and a forbid never."""
    file = tmp_path / "mine.cedar"
    shipped = shipped_policy()
    cases = (
        (shipped + NEVER, (), 1, "when is always false, so the rule never matches"),
        (shipped + HIDDEN, ("--strict",), 1, "small-payments never decides"),
        (shipped + HIDDEN, (), 0, "small-payments never decides"),
        (NEVER.replace("when { false }", "") + shipped, ("--strict",), 0, "in force"),
    )
    try:
        for text, more, code, says in cases:
            file.write_text(text)
            answer = av("policy", "apply", str(file), *more)
            assert (answer.code, says in answer.out + answer.err) == (code, True), says
    finally:
        (broker.home / "policy.cedar").unlink()
        assert av("policy", "reset").code == 0


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
    assert "which was granted to " in answer.out
    assert "policy.cedar" not in answer.out
    assert ": every use of it is denied" in answer.out


async def recorded(home: Home, **texts: str) -> None:
    """Record what was active last, and an agent with a scope of its own."""
    home.prepare()
    ledger = await Ledger.open(home, clock=manual_clock())
    said = {"version": "v1", "policy": None, "scopes": None, "limits": None, **texts}
    rows = Meta(POLICY, json.dumps(said)), agent_named(scopes=("read:boats",))
    await ledger.commit(changes=rows)
    await ledger.close()


@pytest.mark.parametrize("file", ["policy.cedar", "scopes.toml", "limits.toml"])
def test_a_file_of_the_active_policy_that_is_gone_is_a_fault(
    cli: Run, tmp_path: Path, file: str
) -> None:
    """Neither check nor doctor takes the shipped one for it; both exit 1."""
    asyncio.run(recorded(Home(tmp_path, tmp_path), **{file.partition(".")[0]: "text"}))
    for line in (("policy", "check"), ("policy", "check", "--json"), ("doctor",)):
        answer = cli("--home", str(tmp_path), *line)
        assert answer.code == 1, line
        assert f"{file} was in force and is gone" in answer.out + answer.err
    one = tmp_path / "mine.cedar"
    one.write_text(shipped_policy())
    asked = cli("--home", str(tmp_path), "policy", "check", str(one))
    assert "is gone" not in asked.out + asked.err


def test_doctor_names_granted_scopes_that_the_catalogue_lacks(
    cli: Run, tmp_path: Path
) -> None:
    """Every use of them is denied; the agent that has one is named."""
    asyncio.run(recorded(Home(tmp_path, tmp_path)))
    findings = cli("--home", str(tmp_path), "doctor", "--json").json["findings"]
    told = [one["what"] for one in findings if one["level"] == "warning"]
    assert any("read:boats, which was granted to" in what for what in told)


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


def test_init_writes_what_is_shipped_and_replaces_nothing(
    cli: Run, tmp_path: Path
) -> None:
    """Files are written to edit, 0600, and never over an existing one."""
    home = tmp_path / "home"
    assert cli("--home", str(home), "policy", "init").code == 0
    rules = home / "policy.cedar"
    assert not (home / "scopes.toml").exists()
    rules.unlink()
    assert cli("--home", str(home), "policy", "init", "--scopes").code == 0
    assert rules.read_text() == shipped_policy()
    assert rules.stat().st_mode & 0o777 == 0o600
    assert cli("--home", str(home), "policy", "check").code == 0
    (home / "scopes.toml").unlink()
    rules.write_text("mine")
    answer = cli("--home", str(home), "policy", "init")
    assert answer.code == 1
    assert "nothing was written" in answer.err
    assert rules.read_text() == "mine"
    assert not (home / "scopes.toml").exists()


def test_show_prints_the_rules_with_and_without_a_broker(
    av: Run, cli: Run, tmp_path: Path
) -> None:
    """What is in force is printed; without a broker what the files say."""
    assert '@id("payments-need-step-up")' in av("policy", "show").out
    assert av("policy", "show", "--json").json["source"] == "shipped"
    answer = cli("--home", str(tmp_path), "policy", "show", "--json")
    assert answer.json["text"] == shipped_policy()


def test_show_prints_what_was_in_force_by_its_version(av: Run) -> None:
    """The version in a record names texts that can be read; another names none."""
    version = av("policy", "show", "--json").json["version"]
    found = av("policy", "show", "--version", version, "--json").json
    assert found["texts"]["policy"] == found["text"] == shipped_policy()
    assert "read:calendar" in found["catalogue"]
    answer = av("policy", "show", "--version", "0123456789ab")
    assert answer.code == 4
    assert "was in force" in answer.err


def test_apply_replaces_the_file_on_the_record(av: Run, broker: Broker) -> None:
    """A file of the largest size is put in force; who did it and why is recorded."""
    file = broker.home / "new.cedar"
    file.write_text(shipped_policy().ljust(256 * 1024))
    own = broker.home / "policy.cedar"
    try:
        version = av("policy", "apply", str(file), "--reason", "r", "--json").json
        assert own.read_bytes() == file.read_bytes()
        assert av("policy", "show", "--json").json["version"] == version["version"]
        said = av("audit", "search", "--type", "policy.changed", "--json").out
        found = map(json.loads, said.splitlines())
        assert ("operator", "r") in [
            (one["actor"]["kind"], one["detail"].get("why")) for one in found
        ]
        again = av("policy", "apply", str(file), "--plan", "sha256:00")
        assert (again.code, "no plan of these texts" in again.err) == (1, True)
    finally:
        own.unlink()
        assert av("policy", "reset").code == 0


def test_reset_brings_nothing_back_while_no_file_is_gone(
    av: Run, cli: Run, tmp_path: Path
) -> None:
    """Reset is for files that are gone; without a broker there is none to tell."""
    answer = av("policy", "reset")
    assert answer.code == 1
    assert "no file of the active policy is gone" in answer.err
    assert cli("--home", str(tmp_path), "policy", "reset").code == 3
