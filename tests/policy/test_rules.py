"""Policies as people write them: whole, broken, hostile."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from support.policies import ENVIRONMENT

from agentvault_tui.errors import PolicyError
from agentvault_tui.model import Action, Agent
from agentvault_tui.policy import Catalogue, Policy, shipped_catalogue, shipped_policy
from agentvault_tui.policy.rules import MAX_RULE, Obligation

NOTES = '@id("one") @why("Because.") @obligation("allow")\n'
GOOD = NOTES + "permit (principal, action, resource);\n"


def load(text: str) -> Any:
    return Policy(text, shipped_catalogue())


def test_every_shipped_rule_carries_its_annotations() -> None:
    """Each shipped rule has an id, a sentence for the approver and an obligation."""
    policy = load(shipped_policy())
    assert len(policy.rules) == 9
    for rule in policy.rules:
        assert rule.why.endswith(".")
        assert rule.obligation in {Obligation.ALLOW, Obligation.STEP_UP}
        assert policy.text.splitlines()[rule.line - 1].startswith(f'@id("{rule.id}")')
        assert rule.source in policy.text


def test_semicolons_and_brackets_in_strings_and_comments_end_no_rule() -> None:
    """A rule is found whole, whatever its strings and comments hold."""
    policy = load(
        "// ; { (\n"
        '@id("a") @why("One; \\"two\\" (three {") @obligation("allow")\n'
        "permit (principal, action, resource) // ; here\n"
        'when { principal.name like "*;//*" };\n// the end ;\n'
    )
    (rule,) = policy.rules
    assert rule.line == 2
    assert rule.why == 'One; "two" (three {'


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("", "", "holds no rules"),
        ("// only a comment ;\n", "", "holds no rules"),
        (GOOD + NOTES + "permit (principal,\n action resource);", 5, "unexpected"),
        (GOOD + NOTES + "permit (principal, action, resource)", 4, "unexpected end"),
        (GOOD + ";", 3, "unexpected token"),
        ("\n\n" + GOOD + "\n" + GOOD, 6, "as on line 3"),
        (GOOD.replace('@id("one")', ""), 1, "has no @id"),
        (GOOD.replace('"one"', '""'), 1, "has no @id"),
        (GOOD.replace('@why("Because.")', ""), 1, "has no @why"),
        (GOOD.replace("Because.", "  "), 1, "has no @why"),
        (GOOD.replace("Because.", "\\u{202e}x"), 1, "hidden characters"),
        (GOOD.replace("Because.", "x" * 301), 1, "too long"),
        (GOOD.replace('@obligation("allow")', ""), 1, "has no @obligation"),
        (GOOD.replace('"allow"', '"maybe"'), 1, "unknown @obligation maybe"),
        (GOOD.replace('"allow"', '"deny"'), 1, "write forbid"),
        (GOOD.replace("permit", "forbid"), 1, "leave the annotation out"),
        (GOOD.replace('"one"', '"One Two"'), 1, "cannot be used"),
        (GOOD.replace('"one"', '"default-deny"'), 1, "cannot be used"),
        (GOOD.replace('"one"', '"\\u{1b}[2J"'), 1, "cannot be used"),
        (GOOD.replace('@id("one")', '@id("a") @id("b")'), 2, "duplicate annotation"),
        (GOOD.replace("(principal,", "(principal == ?principal,"), 1, "templates"),
        (GOOD.replace(";", " when { context.recipent == 3 };"), 1, "recipent"),
        (GOOD.replace(";", " when { context.count > 3 };"), 1, "optional attribute"),
        (GOOD.replace(";", " when { principal.owner > 3 };"), 1, "does not fit"),
        (GOOD.replace("action,", 'action == Action::"send:paymnt",'), 1, "send:paymnt"),
        (GOOD.replace("principal,", 'principal == User::"x",'), 1, "User"),
        (GOOD.replace(";", " when {" + "(" * 40 + "true" + ")" * 40 + "};"), 2, "nest"),
        (GOOD.replace(";", " when { " + "true && " * 1000 + "true };"), 1, "longer"),
        (GOOD * 501, "", "more than 500"),
        ("\x00\x1b[2J", 1, ""),
        ('@id("unterminated', 1, ""),
    ],
)  # fmt: skip
def test_broken_policies_are_refused_with_line_and_reason(
    text: str, line: Any, says: str
) -> None:
    """Syntax, names, types and annotations are all checked before a policy counts."""
    with pytest.raises(PolicyError) as caught:
        load(text)
    told = caught.value.diagnosis()
    assert told.startswith("policy")
    assert says in told
    assert told.isprintable()
    if line:
        assert f"policy line {line}: " in told


@pytest.mark.parametrize(
    ("commas", "rules", "says"),
    [
        (1001, 1, "more than 1000 commas"),
        (900, 12, "more than 10000 commas and operators"),
    ],
)
def test_long_lists_are_refused(commas: int, rules: int, says: str) -> None:
    """Cedar parses a rule and validates a policy in one step: all else waits for it."""
    rule = GOOD.replace(";", f" when {{ [{'1,' * commas}1].contains(1) }};\n")
    with pytest.raises(PolicyError, match=says):
        load(rule * rules)


def test_a_fault_in_a_later_rule_names_that_rule() -> None:
    """With many rules, the one that does not fit the schema is named with its line."""
    rules = [
        f'@id("r{n}") @why("w") @obligation("allow")\n'
        f"permit (principal, action, resource)"
        f" when {{ {'context.nope' if n == 11 else 'true'} }};\n"
        for n in range(13)
    ]
    with pytest.raises(PolicyError, match="line 23: the rule r11 does not fit"):
        load("".join(rules))


def test_shipped_policy_fits_a_catalogue_without_payments_or_deletions() -> None:
    """A home that replaces the catalogue need not replace the policy too."""
    catalogue = Catalogue.parse(
        '[scopes."read:boats"]\ndescription = "d"\nrisk = "low"\nrevoking = "r"', "s"
    )
    assert len(Policy(shipped_policy(), catalogue).rules) == 9


@pytest.mark.parametrize(
    "condition",
    [
        "'('*100000+'true'",
        "'['*20000+']'*20000",
        "'!'*7000+'true'",
        "'if true then true else '*340+'true'",
        "'true && '*980+'true'",
        "'context'+'.a'*3500",
        "'1+'*3500+'1 > 0'",
        "'(if true then '*30+'true'+' else true)'*30",
    ],
)
def test_no_policy_text_crashes_the_parser(condition: str) -> None:
    """Cedar's parser follows nesting on the C stack; ours stops it before."""
    code = f"""
from agentvault_tui.errors import PolicyError
from agentvault_tui.policy import Policy, shipped_catalogue
text = {NOTES!r} + "permit (principal, action, resource) when {{ "
text += {condition} + " }};"
try:
    Policy(text, shipped_catalogue())
except PolicyError as error:
    print("refused", error.diagnosis()[:200])
else:
    print("accepted")
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(("refused", "accepted"))


@pytest.mark.slow
def test_a_rule_at_the_limit_is_decided_in_a_thread_too(
    agent: Agent, ask: Callable[..., Action]
) -> None:
    """A rule as long as may be evaluates in an ordinary thread, too."""
    words = '"xxxx", ' * ((MAX_RULE - 900) // 8)
    filler = "true && " * 90 + f"[{words}].contains(principal.owner) || true"
    text = NOTES + "permit (principal, action, resource) when { " + filler + " };"
    answers = []

    def work() -> None:
        policy = load(text)
        answers.append(policy.decide(agent, ask("read:files"), ENVIRONMENT).outcome)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert answers == ["allowed"]
