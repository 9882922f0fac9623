"""What Cedar accepts and can never match, or not as it reads."""

from __future__ import annotations

from typing import Any

import pytest
from support.policies import CATALOGUE

from agentvault_tui.errors import PolicyError
from agentvault_tui.policy import Policy, shipped_policy

RULE = '@id("r") @why("w") @obligation("step_up") permit (principal, action, resource)'


def found(text: str, agents: Any = None) -> list[str]:
    policy = Policy(text, CATALOGUE, "policy", strict=False)
    return [problem.what for problem in policy.problems(agents)]


def test_the_shipped_policy_has_no_problem() -> None:
    """Nothing in the shipped policy is misspelt, constant or hidden."""
    assert found(shipped_policy(), ()) == []


MISSPELT = [
    ("context has cuont", "context never has cuont: count?"),
    ("context has cuont && context.cuont > 3", "context never has cuont"),
    ("principal has nme", "principal never has nme: name?"),
    ("resource has kind", "resource never has kind"),
    ('context has currency && context.currency == "usd"', '"usd" is no currency'),
    ('context has currency && "usd" != context.currency', '"usd" is no currency'),
    ('context has currency && ["EUR", "usd"].contains(context.currency)', '"usd"'),
    ('context has currency && context.currency like "eu*"', "no currency is like"),
    ('context.unclear.contains("amuont")', '"amuont" is never sent there: amount?'),
    ('context.unclear.containsAny(["amuont", "count"])', "amuont"),
    ('context has destinations && context.destinations == ["A.test"]', "no host"),
    (
        'context has destinations && ["a@b.test"].containsAll(context.destinations)',
        '"a@b.test" is no host or mail domain',
    ),
    ('context.performs == "send:paymnet"', '"send:paymnet" is never sent there: send:'),
    ('context.performs like "sned:*"', 'sent there is like "sned:*"'),
    ('context.scopes.contains("read:calender")', "read:calendar?"),
    ('principal.scopes.containsAll(["read:calender"])', "read:calendar?"),
    ('principal == Agent::"payments-agent"', "agents go by their id, agt_"),
    ('principal in [Agent::"payments-agent"]', "agents go by their id, agt_"),
    ('action == Action::"nothing"', "never asked for"),
    ('resource == Resource::"Stripe:acct_1"', 'it is "stripe:acct_1"'),
    ('context has resource && context.resource == "a//b"', "ever spelt"),
    ('context has resource && context.resource == "a:b?c"', "ever spelt"),
    ('context has resource && context.resource == "a:b*"', "ever spelt"),
    ('context has resource && context.resource like "a:b,*"', "ever like"),
    ('context has resource && context.resource like "a:*#c"', "ever like"),
    ('context has resource && context.resource like "Files:*"', "ever like"),
    ('if context.performs == "x:y" then true else false', '"x:y" is never sent'),
]  # fmt: skip


@pytest.mark.parametrize(("condition", "says"), MISSPELT)
@pytest.mark.parametrize("keyword", ["when", "unless"])
def test_what_the_broker_never_sends_is_not_put_in_force(
    keyword: str, condition: str, says: str
) -> None:
    """A misspelt attribute, scope, currency, agent or resource is told, and where."""
    text = f"\n\n{RULE}\n{keyword} {{ {condition} }};"
    assert any(says in what for what in found(text))
    with pytest.raises(PolicyError, match="policy line 3: the rule r: "):
        Policy(text, CATALOGUE)


@pytest.mark.parametrize(
    ("head", "says"),
    [
        ('principal == Agent::"payments-agent", action, resource', "by their id"),
        ('principal in Agent::"x", action, resource', "by their id"),
        ('principal, action == Action::"nothing", resource', "never asked for"),
        ('principal, action, resource == Resource::"A:b"', 'it is "a:b"'),
    ],
)
def test_a_scope_that_admits_nothing_is_not_put_in_force(head: str, says: str) -> None:
    """What the head of a rule names is looked at like its conditions."""
    text = f'@id("r") @why("w") forbid ({head});'
    with pytest.raises(PolicyError, match=says):
        Policy(text, CATALOGUE)


def test_a_misspelt_annotation_is_not_put_in_force() -> None:
    """An annotation that nearly is one of ours is; one of the author's own is not."""
    assert found(f'@optinal("count") {RULE};')[0].endswith("@optional?")
    assert found(f'@ticket("SEC-12") {RULE};') == []


@pytest.mark.parametrize(
    ("clause", "says"),
    [
        ("when { false }", "when is always false, so the rule never matches"),
        ("when { 1 == 2 }", "when is always false, so the rule never matches"),
        ('when { "a" like "b*" }', "never matches"),
        ("when { [1, 2].contains(3) }", "never matches"),
        ("when { !(1 < 2) }", "never matches"),
        ("unless { true }", "unless is always true, so the rule never matches"),
        ("when { true }", "when is always true, so it makes no difference"),
        ("unless { 2 < 1 }", "unless is always false, so it makes no difference"),
        ('when { principal.owner == "x" && 1 == 2 }', "a part of when is always"),
        ("when { context has count && context.count < 0 }", "always false"),
        ("when { context has count && -1 < context.count }", "always true"),
        ("when { context has recipients && context.recipients == 0 }", "always false"),
        (f"when {{ context has amount && context.amount > {2**53} }}", "always false"),
    ],
)
def test_constant_conditions_are_told(clause: str, says: str) -> None:
    """A condition that no request can change is found by evaluating it."""
    text = f"{RULE} {clause};"
    (what,) = found(text)
    assert says in what
    Policy(text, CATALOGUE)


@pytest.mark.parametrize(
    "condition",
    [
        "context has count && 5 < context.count",
        "if context has count then true else false",
        'context has currency && ["EUR", "CHF"].contains(context.currency)',
        'context.unclear.contains("amount") && !context.unclear.isEmpty()',
        'principal.name == "x" && principal.owner like "*@acme.test"',
        'context has resource && context.resource like "files:public/*"',
        'context.performs like "send:*" || context.scopes.contains("read:files")',
        'principal == Agent::"agt_0123456789abcdef"',
        'action in [Action::"bulk", Action::"read:files"]',
    ],
)
def test_sound_rules_have_no_problem(condition: str) -> None:
    """What can match and not match is left alone."""
    assert found(f"{RULE} when {{ {condition} }};") == []


@pytest.mark.parametrize(
    "clauses",
    [
        "when { context has amount && context.amount > 1000 && context.amount < 500 }",
        "when { context has amount && context.amount > 5 && context.amount < 6 }",
        "when { context has amount && !(context.amount < 9 || context.amount > 7) }",
        (
            "when { context has count && context.count == 3 } "
            "when { context has count && context.count == 4 }"
        ),
        (
            "when { context has amount && context.amount > 9 } "
            "unless { context has amount && context.amount > 5 }"
        ),
        "when { context has amount } unless { context has amount }",
        (
            'when { context has currency && ["EUR", "CHF"].contains(context.currency) '
            '&& context.currency == "USD" }'
        ),
        'when { principal.name == "a" && principal.name == "b" }',
        'when { action == Action::"read:files" && action == Action::"send:payment" }',
        (
            "when { if context has amount then context.amount > 4 "
            "&& context.amount < 4 else false }"
        ),
    ],
)
def test_conditions_that_contradict_each_other_are_told(clauses: str) -> None:
    """Each comparison can hold, and no request can meet all of them."""
    (what,) = found(f"{RULE} {clauses};")
    assert what == "its conditions contradict each other, so the rule never matches"


def test_a_part_that_contradicts_itself_is_told() -> None:
    """Another part of the condition can hold, so the rule may match."""
    never = "context has amount && context.amount > 9 && context.amount < 5"
    (what,) = found(f'{RULE} when {{ principal.name == "a" || ({never}) }};')
    assert what == "a part of when contradicts itself, so it is always false"


@pytest.mark.parametrize(
    "clauses",
    [
        "when { context has amount && context.amount > 4 && context.amount < 6 }",
        "when { context has amount && (context.amount < 5 || context.amount > 9) }",
        (
            "when { context has count && context.count >= 2 && context.count != 1 } "
            "unless { context has amount && context.amount > 9 }"
        ),
        (
            'when { context has currency && context.currency != "EUR" '
            '&& context.currency != "CHF" }'
        ),
        (
            'when { context has resource && context.resource == "files:a" '
            '|| principal.name == "b" }'
        ),
        (
            "when { context has amount && context has count "
            "&& context.amount > context.count && context.amount < context.count }"
        ),
        "when { context has amount && context.amount * 2 > 9 && context.amount < 5 }",
    ],
)
def test_conditions_that_can_hold_together_are_not_told(clauses: str) -> None:
    """What is not compared with a constant is taken to be possible."""
    assert found(f"{RULE} {clauses};") == []


def test_a_rule_that_never_decides_is_told() -> None:
    """A rule that another one covers is named with that one."""
    allow = '@id("a") @why("w") @obligation("allow") permit'
    covered = f'{RULE};\n{allow} (principal, action in Action::"reads", resource);'
    says = ["a never decides: r asks a person for everything it matches"]
    assert found(covered) == says
    assert found(f"{allow} (principal, action, resource);\n{RULE};") == says
    narrow = RULE.replace("action,", 'action in Action::"payments",')
    assert found(f"{narrow};\n{allow} (principal, action, resource);") == []
    reads = "when { context has count && context.count > 9 }"
    assert found(f"{RULE};\n{allow} (principal, action, resource) {reads};") == says
    first = f"{allow} (principal, action, resource);\n"
    later = allow.replace("a", "b", 1)
    assert found(f"{first}{later} (principal, action, resource);") != []
    assert found(f"{first}{later} (principal, action, resource) {reads};") == []


@pytest.mark.parametrize(
    ("narrow", "wide", "hidden"),
    [
        ("context.amount <= 50", "context.amount <= 100", True),
        ("context.amount <= 100", "context.amount <= 50", False),
        ("context.amount <= 50 && context.amount > 9", "context.amount < 51", True),
        ("context.amount <= 50", 'principal.name == "x"', False),
        ("context.amount * 2 < 9", "context.amount * 2 < 99", False),
    ],
)
def test_a_stricter_rule_hides_what_its_conditions_cover(
    narrow: str, wide: str, hidden: bool
) -> None:
    """A rule that asks a person wherever another one allows is named, and no other."""
    head = "(principal, action, resource) when { context has amount &&"
    text = (
        f'@id("a") @why("w") @obligation("allow") permit {head} {narrow} }};\n'
        f'@id("s") @why("w") @obligation("step_up") permit {head} {wide} }};'
    )
    assert (found(text) != []) is hidden


@pytest.mark.parametrize("who", ["principal", 'principal == Agent::"agt_1"'])
def test_a_forbid_above_the_shipped_policy_has_no_problem(who: str) -> None:
    """Rules that a broader forbid hides are not reported, also rules that forbid."""
    forbid = f'@id("stop") @why("w") forbid ({who}, action, resource);'
    narrow = forbid.replace("action,", 'action in Action::"sends",')
    text = f"{forbid}\n{narrow.replace('stop', 'narrow')}\n{shipped_policy()}"
    assert found(text, ["agt_1"]) == []


@pytest.mark.parametrize("head", ["permit", "forbid"])
@pytest.mark.parametrize(
    ("clause", "is_error"),
    [
        ("when { false }", True),
        ("when { context.hour > 24 }", True),
        ("when { context.hour > 9 && context.hour < 8 }", True),
        ('when { principal == Agent::"agt_7" }', True),
        ("when { true }", False),
        ("when { context.hour > 9 || context.hour > 24 }", False),
    ],
)
def test_a_rule_that_can_never_match_is_an_error(
    head: str, clause: str, is_error: bool
) -> None:
    """A rule that no request can match protects nothing; the rest are warnings."""
    text = f"{RULE.replace('permit', head)} {clause};"
    if head == "forbid":
        text = text.replace('@obligation("step_up")', "")
    (problem,) = Policy(text, CATALOGUE).problems(["agt_1"])
    assert problem.is_error is is_error


def test_agents_are_compared_with_those_registered() -> None:
    """Where the registered agents are known, an id of nobody is told."""
    text = RULE.replace("(principal", '(principal == Agent::"agt_1"') + ";"
    assert found(text) == []
    assert found(text, ["agt_1"]) == []
    assert found(text, ["agt_2"]) == ["no agent agt_1 is registered"]
