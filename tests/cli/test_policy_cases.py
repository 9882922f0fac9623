"""`agentvault policy test`: cases are decided, compared and refused in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from support.command_line import Answer

Run = Callable[..., Answer]

CASES = """
[agent]
scopes = ["send:payment", "read:calendar"]

[[cases]]
name = "payments wait"
scope = "send:payment"
parameters = { amount = 5, currency = "USD" }
expect = "escalated"
rule = "payments-need-step-up"

[[cases]]
name = "reading passes"
scope = "read:calendar"
expect = "allowed"
reason = "granted"

[[cases]]
name = "what was not granted is denied"
scope = "delete:files"
agent.scopes = ["read:files"]
expect = "denied"
"""


def test_cases_are_decided_and_compared(cli: Run, tmp_path: Path) -> None:
    """Cases answered as expected exit 0; one that is not exits 1 and says what came."""
    file = tmp_path / "cases.toml"
    file.write_text(CASES)
    home = ("--home", str(tmp_path))
    answer = cli(*home, "policy", "test", str(file))
    assert (answer.code, answer.out.split(" by ")[0]) == (0, "ok: 3 of 3 cases,")
    file.write_text(CASES.replace('"allowed"', '"denied"'))
    answer = cli(*home, "policy", "test", str(file))
    assert answer.code == 1
    assert "reading passes: expected denied, granted" in answer.out
    assert "got allowed, rule granted-low-and-medium-risk, reason granted" in answer.out
    told = cli(*home, "policy", "test", str(file), "--json")
    assert (told.code, told.json["ok"], told.json["failed"]) == (1, False, 1)
    assert [one["ok"] for one in told.json["cases"]] == [True, False, True]
    assert told.json["cases"][1]["answer"]["decision"] == "allowed"


def test_cases_may_be_json_and_about_files_not_in_place(
    cli: Run, tmp_path: Path
) -> None:
    """A policy and a catalogue can be tried before they are put into the home."""
    file, rules, scopes = (tmp_path / n for n in ("c.json", "p.cedar", "s.toml"))
    scopes.write_text(
        '[scopes."read:boats"]\ndescription = "d"\nrisk = "low"\nrevoking = "r"\n'
    )
    rules.write_text(
        '@id("a") @why("w") @obligation("allow") permit'
        ' (principal == Agent::"agt_1", action, resource)'
        " when { context has amount && context.amount < 5 };"
    )
    case = {"scope": "read:boats", "agent": {"id": "agt_1"}}
    cases = [
        {**case, "parameters": {"amount": 4}, "expect": "allowed", "rule": "a"},
        {**case, "parameters": {"amount": 4.0}, "expect": "denied"},
        {"scope": "read:boats", "parameters": {"amount": 4}, "expect": "denied"},
    ]
    file.write_text(json.dumps({"cases": cases}))
    given = ("--policy", str(rules), "--scopes", str(scopes))
    answer = cli("--home", str(tmp_path), "policy", "test", str(file), *given)
    assert answer.code == 0, answer.out


def test_wrong_cases_are_wrong_usage(cli: Run, tmp_path: Path) -> None:
    """A case that is misspelt, empty or about no scope exits 2 and is named."""
    file = tmp_path / "cases.toml"
    for text, says in (
        ("", "has no cases"),
        ("cases = [", "cannot be read"),
        ("[[case]]", "did you mean cases"),
        ('[[cases]]\nscope = "read:files"', "case 1 in"),
        ('[[cases]]\nscop = "x"\nexpect = "denied"', "did you mean scope"),
        ('[[cases]]\nscope = 5\nexpect = "denied"', "expected `str`, got `int`"),
        ('[[cases]]\nscope = "reed:files"\nexpect = "denied"', "mean read:files"),
        ('[[cases]]\nexpect = "denied"', "unknown scope"),
        (
            '[[cases]]\nscope = "read:files"\naction = "x:y"\nexpect = "denied"',
            "'action' is one of the scopes",
        ),
    ):
        file.write_text(text)
        answer = cli("--home", str(tmp_path), "policy", "test", str(file))
        assert answer.code == 2, text
        assert says in answer.err, text
    assert cli("policy", "test", str(tmp_path / "none")).code == 4
