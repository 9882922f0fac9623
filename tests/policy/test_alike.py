"""A rule about a resource holds for every spelling that a service may read as it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.policies import ALLOW_ALL, CATALOGUE, ENVIRONMENT, action

from agentvault_tui.model import Agent, Outcome
from agentvault_tui.policy import Inputs, LimitSet, Policy
from agentvault_tui.policy.resources import canonical, reads_like

AGENT = Agent(
    id="agt_1",  # type: ignore[arg-type]
    client_id="agt_1",
    name="Coder",
    owner="olga@acme.test",
    purpose="",
    scopes=("read:code", "write:code"),
    created_at=datetime(2026, 11, 1, tzinfo=UTC),
)
SAME_AS = (".html", ".json", ".git", ".xml")
HAS = "context has resource && "
EQUALS = HAS + 'context.resource == "%s"'
FORBIDS = {
    "equals": f"when {{ {EQUALS} }};",
    "entity": 'when { resource == Resource::"%s" };',
    "in a list": f'when {{ {HAS}["other:x", "%s"].contains(context.resource) }};',
    "in entities": 'when { resource in [Resource::"%s"] };',
    "not unless": f'unless {{ {HAS}context.resource != "%s" }};',
    "nested": f"when {{ context.hour < 0 || (if true then {EQUALS} else false) }};",
}
LIMITS = """
[[limits]]
id = "each"
scopes = ["write:code"]
within = "1h"
count = 1
per = "resource"
"""


def forbids(condition: str, *, head: str = "resource") -> Policy:
    rule = '@id("no") @why("Not this one.") @optional("resource")'
    return Policy(
        f"{ALLOW_ALL}{rule} forbid (principal, action, {head}) {condition}", CATALOGUE
    )


def ask(policy: Policy, resource: str, same_as: tuple[str, ...] = SAME_AS) -> Outcome:
    asked = action("write:code", resource=resource, count=1)
    inputs = Inputs.of(AGENT, asked, ENVIRONMENT, same_as=same_as)
    return policy.answer(inputs).outcome


@st.composite
def spellings(draw: st.DrawFn) -> tuple[str, str]:
    """A resource, and another spelling of it that has a canonical form."""
    segment = st.text("abcxyzABK09-_", min_size=1, max_size=6)
    resource = "github:" + "/".join(draw(st.lists(segment, min_size=1, max_size=3)))
    told = list(resource)
    alike = {"a": "\u0430", "x": "\u0445", "K": "\u212a", "c": "\uff43", "0": "\uff10"}
    for index in range(len("github:"), len(told)):
        match draw(st.integers(0, 4)):
            case 0:
                told[index] = told[index].swapcase()
            case 1:
                told[index] = alike.get(told[index], told[index])
            case 2:
                told[index] = f"%{ord(told[index]):02X}"
    ending = draw(
        st.sampled_from(
            [
                *("", "/", ".", ".git", ".JSON", ".git.", ".xml.json", ";v=1"),
                *(".git;a.b/", "?", "#", "?v=1", ".git#a/b"),
            ]
        )
    )
    return resource, "".join(told) + ending


@pytest.mark.parametrize("condition", FORBIDS.values(), ids=FORBIDS)
@settings(max_examples=40)
@given(pair=spellings())
def test_what_is_forbidden_is_so_in_every_spelling(
    condition: str, pair: tuple[str, str]
) -> None:
    """No spelling with the fold of a forbidden resource is allowed."""
    resource, spelling = pair
    assert reads_like(spelling, SAME_AS) == reads_like(resource, SAME_AS)
    policy = forbids(condition % resource)
    assert ask(policy, resource) is Outcome.DENIED
    if canonical(spelling) is not None:
        assert ask(policy, spelling) is Outcome.DENIED
    assert ask(policy, spelling) is not Outcome.ALLOWED


@settings(max_examples=40)
@given(pair=spellings())
def test_a_scope_that_names_a_resource_holds_in_every_spelling(
    pair: tuple[str, str],
) -> None:
    """`forbid (…, resource == Resource::"…")` is compared by the fold too."""
    resource, spelling = pair
    policy = forbids(";", head=f'resource == Resource::"{resource}"')
    if canonical(spelling) is not None:
        assert ask(policy, spelling) is Outcome.DENIED
    assert ask(policy, "github:entirely/different") is Outcome.ALLOWED


@settings(max_examples=40)
@given(pair=spellings())
def test_a_permit_needs_the_literal(pair: tuple[str, str]) -> None:
    """No spelling is allowed by a rule that permits another one."""
    resource, spelling = pair
    rule = f"permit (principal, action, resource) when {{ {EQUALS % resource} }};"
    permits = Policy('@id("one") @why("This.") @obligation("allow") ' + rule, CATALOGUE)
    asks = Policy('@id("one") @why("This.") @obligation("step_up") ' + rule, CATALOGUE)
    assert ask(permits, resource) is Outcome.ALLOWED
    assert ask(asks, resource) is Outcome.ESCALATED
    if canonical(spelling) != resource:
        assert ask(permits, spelling) is not Outcome.ALLOWED
    if canonical(spelling) not in {None, resource}:
        # A step-up that matches by the fold alone is no permission.
        assert ask(asks, spelling) is Outcome.DENIED


@settings(max_examples=40)
@given(pair=spellings())
def test_a_step_up_counts_by_the_fold_where_another_rule_permits(
    pair: tuple[str, str],
) -> None:
    """A request that needs a person in one spelling needs one in every spelling."""
    resource, spelling = pair
    rule = '@id("ask") @why("This one.") @obligation("step_up") @optional("resource")'
    told = f"permit (principal, action, resource) when {{ {EQUALS % resource} }};"
    assert (
        ask(Policy(f"{ALLOW_ALL}{rule} {told}", CATALOGUE), spelling)
        is Outcome.ESCALATED
    )


@settings(max_examples=40)
@given(pair=spellings())
def test_every_spelling_is_counted_in_the_same_window(pair: tuple[str, str]) -> None:
    """A limit per resource has one window for all spellings of a resource."""
    limits = LimitSet.parse(LIMITS, "limits.toml", CATALOGUE)
    keys = set()
    for one in pair:
        if canonical(one) is None:
            return
        asked = action("write:code", resource=one)
        inputs = Inputs.of(AGENT, asked, ENVIRONMENT, same_as=SAME_AS)
        windows = limits.limits[0].windows_of(inputs, inputs.facts.fold)
        keys |= {window[3] for window in windows}
        assert limits.counted(inputs)["resource"] == inputs.facts.fold
    assert keys == {reads_like(pair[0], SAME_AS)}


@pytest.mark.parametrize(
    ("pattern", "resource"),
    [
        ("github:acme/*", "github:ACME/repo"),
        ("github:Acme/*", "github:acme/repo"),
        ("github:acme/*", "github:acme.git/repo"),
        ("github:acme/Repo*", "github:acme/repository.git"),
        ("github:*/secret", "github:acme/SECRET.git"),
        ("github:*/secret.git", "github:acme/secret"),
        ("*.json", "github:acme/config.xml"),
        ("github:*/secret/*", "github:acme/\u0455ecret/x"),
        ("github:acme/*", "github:acm\u0435/repo"),
    ],
)
def test_a_pattern_holds_for_the_fold(pattern: str, resource: str) -> None:
    """`forbid … resource like` holds for a spelling that reads like a match."""
    policy = forbids(
        f'when {{ context has resource && context.resource like "{pattern}" }};'
    )
    assert ask(policy, resource) is Outcome.DENIED


@pytest.mark.parametrize(
    ("pattern", "resource"),
    [
        ("github:acme/*", "github:acme2/repo"),
        ("github:acme/*", "github:acme"),
        ("github:acme/repo.*", "github:acme/repository"),
        ("github:*/secret", "github:acme/secrets"),
    ],
)
def test_a_pattern_holds_for_nothing_else(pattern: str, resource: str) -> None:
    """The fold of a pattern matches no other resource."""
    policy = forbids(
        f'when {{ context has resource && context.resource like "{pattern}" }};'
    )
    assert ask(policy, resource) is Outcome.ALLOWED


def test_the_name_of_the_agent_is_compared_by_its_fold_too() -> None:
    """A rule about the agent's own resource holds for its spellings."""
    policy = forbids(
        "when { context has resource && context.resource == principal.name };"
    )
    assert ask(policy, "Coder") is Outcome.DENIED
    assert ask(policy, "CODER.git") is Outcome.DENIED
    assert ask(policy, "Code") is Outcome.ALLOWED


def test_suffixes_count_only_where_the_service_says_so() -> None:
    """Without `same_as` a file and another of that name are two resources."""
    policy = forbids(f"when {{ {EQUALS % 'files:report.json'} }};")
    assert ask(policy, "files:report.xml", same_as=()) is Outcome.ALLOWED
    assert ask(policy, "files:report.xml") is Outcome.DENIED
    assert ask(policy, "files:REPORT.json.", same_as=()) is Outcome.DENIED


def test_answers_are_not_cached_across_suffixes() -> None:
    """The same request under other suffixes is decided again."""
    policy = forbids(f"when {{ {EQUALS % 'github:acme/repo'} }};")
    for _ in range(2):
        assert ask(policy, "github:acme/repo.git", same_as=()) is Outcome.ALLOWED
        assert ask(policy, "github:acme/repo.git") is Outcome.DENIED


def test_recorded_facts_are_decided_alike() -> None:
    """The recorded facts of a request give the same answer again."""
    policy = forbids(f"when {{ {EQUALS % 'github:acme/repo'} }};")
    asked = action("write:code", resource="github:acme/repo.git")
    inputs = Inputs.of(AGENT, asked, ENVIRONMENT, same_as=SAME_AS)
    again = Inputs.read(AGENT.id, inputs.record())
    assert again == inputs
    assert policy.answer(again) == policy.answer(inputs)
