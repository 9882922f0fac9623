"""What counts as a tightening of policy and limits: read off the rules, no plan."""

from __future__ import annotations

import pytest

from agentvault_tui.policy import (
    LimitSet,
    Policy,
    only_tightens,
    shipped_catalogue,
    shipped_policy,
)
from agentvault_tui.policy.catalogue import Catalogue
from agentvault_tui.policy.texts import shipped_scopes

READ = '@id("read") @why("Reading.") @obligation("allow")\npermit (principal, action =='
BASE = """
@id("read") @why("Reading.") @obligation("allow")
permit (principal, action == Action::"read:calendar", resource);
@id("mail") @why("Mail.") @obligation("allow")
permit (principal, action == Action::"send:email", resource)
when { context has amount && context.amount < 100 };
@id("pay") @why("Payments.") @obligation("step_up")
permit (principal, action == Action::"send:payment", resource);
@id("never") @why("Never.")
forbid (principal, action == Action::"delete:files", resource);
"""
FORBID = '@id("no") @why("No.")\nforbid (principal, action, resource);\n'
LIMITS = """
[[limits]]
id = "mails"
scopes = ["send:email"]
within = "24h"
count = 20
"""
CATALOGUE = shipped_catalogue()


def policy(text: str, limits: str = "", catalogue: Catalogue = CATALOGUE) -> Policy:
    parsed = LimitSet.parse(limits, "limits.toml", catalogue)
    return Policy(text, catalogue, limits=parsed, strict=False)


def without(rule: str) -> str:
    """Return the rules without one of them."""
    rules = [one for one in BASE.strip().split(";\n") if f'@id("{rule}")' not in one]
    return "".join(f"{one.removesuffix(';')};\n" for one in rules)


def swapped() -> str:
    rules = [f"{one.removesuffix(';')};" for one in BASE.strip().split(";\n")]
    return "// another order\n" + "\n\n".join(reversed(rules))


TIGHTER = {
    "nothing": BASE,
    "comments, order, layout": swapped(),
    "a forbid": BASE + FORBID,
    "a permit that allows is gone": without("read"),
    "allow becomes step_up": BASE.replace(
        '"allow")\npermit (principal, action == Action::"read',
        '"step_up")\npermit (principal, action == Action::"read',
    ),
}
LOOSER = {
    "a forbid is gone": without("never"),
    "a permit that reads a parameter is gone": without("mail"),
    "a step-up permit is gone": without("pay"),
    "a new step-up permit": BASE
    + '@id("new") @why("New.") @obligation("step_up")\n'
    + 'permit (principal, action == Action::"write:files", resource);',
    "a new permit": BASE
    + '@id("new") @why("New.") @obligation("allow")\n'
    + 'permit (principal, action == Action::"write:files", resource);',
    "step_up becomes allow": BASE.replace('"step_up"', '"allow"'),
    "a condition": BASE.replace("< 100", "< 101"),
    "a narrower condition": BASE.replace("< 100", "< 99"),
    "allow becomes step_up, and more": BASE.replace("< 100", "< 101").replace(
        '@obligation("allow")', '@obligation("step_up")'
    ),
    "a forbid that excepts": BASE.replace(
        '"delete:files", resource);', '"delete:files", resource) unless { true };'
    ),
    "a permit becomes a forbid with its id": BASE.replace(
        '@obligation("step_up")\npermit', "forbid"
    ),
    "another why": BASE.replace("Payments.", "Fine."),
    "a forbid, and a permit": BASE
    + FORBID
    + '@id("new") @why("New.") @obligation("allow")\n'
    + "permit (principal, action, resource);",
    "another rule under an id": without("read")
    + '@id("read") @why("Reading.") @obligation("allow")\n'
    + "permit (principal, action, resource);",
}


@pytest.mark.parametrize("name", TIGHTER)
def test_what_only_refuses_more_is_a_tightening(name: str) -> None:
    """An operator elsewhere may do it without a factor."""
    assert only_tightens(policy(BASE), policy(TIGHTER[name])), TIGHTER[name]


@pytest.mark.parametrize("name", LOOSER)
def test_every_other_change_of_the_rules_is_a_loosening(name: str) -> None:
    """Also where it tightens as well, and where the history would show no change."""
    assert LOOSER[name] != BASE
    assert not only_tightens(policy(BASE), policy(LOOSER[name])), LOOSER[name]


@pytest.mark.parametrize(
    "head",
    [
        "resource) when { context has count && context.count < 5 };",
        "resource) when { context has source };",
        'resource == Resource::"gmail:me");',
        'resource) when { context has resource && context.resource like "gmail:*" };',
    ],
)
def test_a_permit_that_reads_the_request_is_not_removed_as_a_tightening(
    head: str,
) -> None:
    """Without it, another permit may allow a request that left the value unclear."""
    narrow = '@id("few") @why("Few.") @obligation("allow")\n'
    narrow += f'permit (principal, action == Action::"read:calendar", {head}\n'
    assert not only_tightens(policy(BASE + narrow), policy(BASE)), narrow


HOOKED = LIMITS + (
    '[[hooks]]\nid = "ask"\nurl = "https://a.example/"\nscopes = ["send:email"]\n'
)


@pytest.mark.parametrize(
    ("after", "tightens"),
    [
        (LIMITS, True),
        (LIMITS.replace("20", "19"), True),
        (LIMITS + LIMITS.replace("mails", "more"), True),
        (LIMITS.replace("20", "21"), False),
        ("", False),
        (LIMITS.replace("24h", "23h"), False),
        (LIMITS + 'over = "deny"\n', False),
        (LIMITS + 'agents = ["a"]\n', False),
        (LIMITS.replace("send:email", "send:payment"), False),
        (HOOKED, False),
    ],
)
def test_a_limit_that_is_added_or_lowered_is_a_tightening(
    after: str, tightens: bool
) -> None:
    """Nothing else about limits and their webhooks is."""
    assert only_tightens(policy(BASE, LIMITS), policy(BASE, after)) is tightens


def test_a_webhook_that_is_taken_away_is_a_loosening() -> None:
    """It could only refuse."""
    assert not only_tightens(policy(BASE, HOOKED), policy(BASE, LIMITS))


def test_lowering_a_limit_whose_rest_a_rule_reads_is_a_loosening() -> None:
    """A forbid may match where much is left."""
    reads = BASE + (
        '@id("much") @why("Much left.")\nforbid (principal, action, resource)'
        " when { context.limits.mails.left > 10 };"
    )
    before = policy(reads, LIMITS)
    assert not only_tightens(before, policy(reads, LIMITS.replace("20", "5")))
    assert only_tightens(before, policy(reads + FORBID, LIMITS))


@pytest.mark.parametrize(
    "condition", ["context has limits", "context has limits.mails"]
)
def test_a_limit_whose_presence_a_rule_asks_for_is_a_loosening(condition: str) -> None:
    """It forbids nothing any more once somebody adds a limit, however high."""
    rule = '@id("x") @why("X.")\nforbid (principal, action, resource)\nunless '
    asks = f"{rule}{{ {condition} }};\n"
    before, after = policy(BASE + asks), policy(BASE + asks, LIMITS)
    assert not only_tightens(before, after)


def test_another_catalogue_is_a_loosening() -> None:
    """What a scope is decides which rules read its requests."""
    text = shipped_scopes().replace('risk = "high"', 'risk = "low"', 1)
    other = Catalogue.parse(text, "scopes.toml")
    same = policy(shipped_policy())
    assert not only_tightens(same, policy(shipped_policy(), catalogue=other))
