"""The rules and cases of docs/policy.md do what it says there."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support.policies import ENVIRONMENT

from agentvault_tui.cli.app import run as run_line
from agentvault_tui.model import Action, Agent, AgentId, Money
from agentvault_tui.policy import Policy, shipped_catalogue, shipped_policy
from agentvault_tui.policy.catalogue import schema_text

DOCS = Path(__file__).resolve().parents[2] / "docs"
TEXT = (DOCS / "policy.md").read_text()
_, AFTER = TEXT.split("## Ten example rules")
EXAMPLES = re.findall(r"```cedar\n(.*?)```", AFTER.split("\n## ")[0], re.DOTALL)
CATALOGUE = shipped_catalogue()


def policy_with(index: int) -> Policy:
    """Return the shipped policy with an example, and without the rule it replaces."""
    rules = shipped_policy()
    if '@id("small-payments")' in EXAMPLES[index]:
        for rule in ("payments-need-step-up", "high-risk-needs-step-up"):
            rules = re.sub(rf'@id\("{rule}"\).*?;\n', "", rules, flags=re.DOTALL)
    return Policy(rules + EXAMPLES[index], CATALOGUE)


def answer(index: int, scope: str, **asked: Any) -> str:
    agent = Agent(
        id=AgentId(asked.pop("id", "agt_1")),
        client_id="",
        name="agent",
        owner=asked.pop("owner", "alice@acme.test"),
        purpose="",
        scopes=tuple(one.name for one in CATALOGUE),
        created_at=datetime.now(UTC),
    )
    scopes = tuple(scope.split())
    action = Action(scopes, scopes[0], asked.pop("resource", None), asked)
    policy = policy_with(index)
    assert policy.problems() == []
    return policy.decide(agent, action, ENVIRONMENT).outcome.value


EUR = {"currency": "EUR", "resource": "stripe:acct_42"}
CASES: list[tuple[int, str, dict[str, Any], str]] = [
    (0, "send:payment", {"amount": 5000, **EUR}, "allowed"),
    (0, "send:payment", {"amount": 5001, **EUR}, "escalated"),
    (0, "send:payment", {"amount": "5000", **EUR}, "escalated"),
    (0, "send:payment", {"amount": 50, "currency": "EUR"}, "escalated"),
    (0, "send:payment", {"amount": 50, "currency": "USD"}, "escalated"),
    (
        0,
        "send:payment",
        {"amount": 5, **EUR, "resource": "stripe:acct_43"},
        "escalated",
    ),
    (1, "send:payment", {"amount": 1000001, **EUR}, "denied"),
    (1, "send:payment", {"amount": 1000000, **EUR}, "escalated"),
    (2, "send:payment", {"amount": 5, "currency": "USD"}, "denied"),
    (2, "send:payment", {"amount": 5, "currency": "CHF"}, "escalated"),
    (3, "write:calendar", {"id": "agt_0123456789abcdef"}, "denied"),
    (3, "read:calendar", {"id": "agt_0123456789abcdef"}, "allowed"),
    (3, "write:calendar", {}, "allowed"),
    (4, "write:calendar", {"owner": "eve@contractor.test"}, "escalated"),
    (4, "write:calendar", {}, "allowed"),
    (5, "write:calendar", {"resource": "calendar:board/1"}, "denied"),
    (5, "write:calendar", {"resource": "calendar:Board"}, "denied"),
    (5, "write:calendar", {}, "escalated"),
    (5, "write:calendar", {"resource": "calendar:me"}, "allowed"),
    (6, "read:files", {"resource": "files:public/a.txt"}, "allowed"),
    (6, "read:files", {"resource": "files:hr/a.txt"}, "denied"),
    (6, "read:files", {"resource": "files:public/../hr/a.txt"}, "denied"),
    (7, "send:email", {"recipients": 5}, "allowed"),
    (7, "send:email", {"recipients": 6}, "escalated"),
    (8, "write:records", {"count": 10}, "allowed"),
    (8, "write:records", {"count": 11}, "denied"),
    (8, "write:records", {}, "escalated"),
    (9, "send:email read:files", {"recipients": 1}, "denied"),
    (9, "send:email", {"recipients": 1}, "allowed"),
]


@pytest.mark.parametrize(("index", "scope", "asked", "expected"), CASES)
def test_each_rule_answers_as_it_reads(
    index: int, scope: str, asked: dict[str, Any], expected: str
) -> None:
    """Every example is a sound rule, and decides what its sentence says."""
    assert answer(index, scope, **asked) == expected


def test_all_of_them_are_tried() -> None:
    """There are ten examples, each with a case."""
    assert len(EXAMPLES) == 10
    assert {index for index, *_ in CASES} == set(range(10))


def test_the_cases_file_shown_passes(tmp_path: Path) -> None:
    """The example of a file of cases runs against the rules of the first example."""
    cases, rules = tmp_path / "cases.toml", tmp_path / "policy.cedar"
    (shown,) = re.findall(r"```toml\n(\[agent\].*?)```", TEXT, re.DOTALL)
    cases.write_text(shown)
    rules.write_text(policy_with(0).text)
    line = ["--home", str(tmp_path), "policy", "test", str(cases)]
    assert run_line([*line, "--policy", str(rules)]) == 0


AMOUNTS, OUTSIDE = re.findall(
    r"```cedar\n(.*?)```",
    TEXT.partition("## Amounts and destinations")[2].partition("\n## ")[0],
    re.DOTALL,
)
(SHIPPED_OUTSIDE,) = re.findall(
    r'^(// @id\("mail-to-others-needs-step-up"\)\n(?:// .*\n)+)',
    shipped_policy(),
    re.MULTILINE,
)
UNCOMMENTED = SHIPPED_OUTSIDE.replace("// ", "")
ANY = (
    '@id("any") @why("w") @obligation("allow") permit (principal, action, resource);\n'
)


@pytest.mark.parametrize(
    ("rule", "scope", "asked", "outcome"),
    [
        (AMOUNTS, "send:payment", {"amount": 5000, "currency": "USD"}, "allowed"),
        (AMOUNTS, "send:payment", {"amount": 5001, "currency": "USD"}, "escalated"),
        (AMOUNTS, "send:payment", {"amount": 5000, "currency": "JPY"}, "escalated"),
        (AMOUNTS, "send:payment", {}, "escalated"),
        *(
            (rule, "send:email", {"recipients": [address]}, outcome)
            for rule in (
                OUTSIDE,
                re.sub("^// ", "", SHIPPED_OUTSIDE, flags=re.MULTILINE),
            )
            for address, outcome in (
                *(("a@acme.test", "allowed"), ("a@evil.test", "escalated")),
                *(("a@acme.test.evil.test", "escalated"), ("ada", "escalated")),
            )
        ),
    ],
)
def test_rules_about_amounts_and_destinations_do_what_is_said(
    rule: str, scope: str, asked: dict[str, Any], outcome: str
) -> None:
    """Those of the page, and the one that the shipped policy has as a comment."""
    policy = Policy(ANY + rule, CATALOGUE)
    assert policy.problems() == []
    agent = Agent(
        *(AgentId("agt_1"), "", "agent", "alice@acme.test", "", (scope,)),
        created_at=datetime.now(UTC),
    )
    action = Action((scope,), scope, None, asked, money=Money.of("minor", asked))
    assert policy.decide(agent, action, ENVIRONMENT).outcome.value == outcome


def test_the_schema_shown_is_the_schema() -> None:
    """Attributes, types and groups in the document are those rules are checked by."""
    schema = re.sub(r"//[^\n]*", "", schema_text(CATALOGUE))
    written = re.sub(r"\s+", "", schema)
    (shown,) = re.findall(r"```cedarschema\n(.*?)```", TEXT, re.DOTALL)
    for part in re.sub(r"//[^\n]*", "", shown).split(";"):
        for line in part.split("\n  "):
            plain = re.sub(r"\s+", "", line)
            if plain.startswith(
                ("entity", "scopes", "recipients", "unclear", "now", "source")
            ):
                assert plain in written
    for attribute in re.findall(r"^  ([a-z]+\??: [A-Za-z<>]+)", schema, re.MULTILINE):
        assert re.sub(r"\s", "", attribute) in re.sub(r"\s", "", shown)
