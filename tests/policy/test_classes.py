"""Requests are answered from memory only as the rules themselves would answer them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.policies import CATALOGUE, ENVIRONMENT, action, conditions

from agentvault_tui.model import Agent, AgentId, Outcome
from agentvault_tui.policy import Policy

HEAD = '@id("{}") @why("w")'
ATOMS = {
    "recipients": ["context.recipients > 3", "3 == context.recipients"],
    "amount": [
        "context.amount <= 7",
        "100 < context.amount",
        "context.amount != 50",
        "context.amount + 1 > 8",
        "context has count && context.amount > context.count",
    ],
    "currency": [
        'context.currency == "USD"',
        '"EUR" != context.currency',
        '["GBP", "USD"].contains(context.currency)',
        'context.currency like "U*"',
    ],
    "count": ["context.count * 2 >= 10", "context.count < 6", "context.count == 5"],
    "resource": ['context.resource == "crm:1"', 'context.resource like "crm:*"'],
}
WITHOUT = [
    'principal.owner == "alice@acme.test"',
    'action in Action::"reads"',
    'context.unclear.contains("amount")',
    'context.scopes.contains("write:files")',
    'context.performs == "read:files"',
]
GUARDED = [
    f"(context has {name} && {atom})" for name, atoms in ATOMS.items() for atom in atoms
]
PRESENCE = [f"context has {name}" for name in ATOMS]
CONDITIONS = conditions(st.sampled_from(WITHOUT + GUARDED + PRESENCE), 4)
scopes_of_rules = st.sampled_from(
    [
        "(principal, action, resource)",
        '(principal, action == Action::"read:files", resource)',
        '(principal == Agent::"agt_7f3k2m5q8r1t4w6y", action, resource)',
        '(principal, action, resource == Resource::"crm:1")',
    ]
)
effects = st.sampled_from(
    ['@obligation("allow") permit', '@obligation("step_up") permit', "forbid"]
)
keywords = st.sampled_from(["when", "unless"])
rules = st.lists(
    st.tuples(effects, scopes_of_rules, keywords, CONDITIONS), min_size=1, max_size=4
)
small = st.integers(0, 9) | st.sampled_from([49, 50, 51, 99, 100, 101])
parameters = st.fixed_dictionaries(
    {},
    optional={
        "recipients": small,
        "amount": small | st.just(1.5),
        "currency": st.sampled_from(["USD", "EUR", "GBP", "CHF", "usd"]),
        "count": small,
        "Amount": small,
    },
)
requests = st.tuples(
    st.sampled_from([("read:files",), ("write:files", "read:files")]),
    st.sampled_from([None, "crm:1", "crm:2", "mail:1"]),
    parameters,
)


def policy_of(drawn: list[tuple[str, str, str, str]]) -> Policy:
    text = HEAD.format("all") + (
        ' @obligation("allow") permit (principal, action, resource);\n'
    )
    for number, (effect, scope, keyword, condition) in enumerate(drawn):
        text += f"{HEAD.format(number)} {effect} {scope} {keyword} {{ {condition} }};\n"
    return Policy(text, CATALOGUE)


@pytest.mark.slow
@settings(max_examples=30)
@given(rules, st.lists(requests, min_size=2, max_size=12))
def test_a_cached_answer_is_the_one_the_rules_give(
    agent: Agent, drawn: Any, asked: Any
) -> None:
    """One policy that remembers, and one that is made to forget each request."""
    remembers, forgets = policy_of(drawn), policy_of(drawn)
    for scopes, resource, given_parameters in asked:
        wanted = action(*scopes, resource=resource, **given_parameters)
        forgets._answers.clear()
        assert remembers.decide(agent, wanted, ENVIRONMENT) == forgets.decide(
            agent, wanted, ENVIRONMENT
        )


SAMPLES = [
    {},
    *({name: n} for name in ("recipients", "amount", "count") for n in range(10)),
    *({"amount": n, "count": 7} for n in (*range(10), 49, 50, 51, 99, 100, 101)),
    *({"currency": code} for code in ("USD", "EUR", "GBP", "UAH", "CHF", "usd")),
    {"amount": 1.5},
    {"Amount": 5},
]


@pytest.mark.parametrize("atom", WITHOUT + GUARDED + PRESENCE)
def test_each_way_to_read_a_request_tells_apart_what_it_must(
    agent: Agent, atom: str
) -> None:
    """For every form of condition, alone in a rule, and values around its literals."""
    drawn = [
        ('@obligation("step_up") permit', "(principal, action, resource)", "when", atom)
    ]
    remembers, forgets = policy_of(drawn), policy_of(drawn)
    others = [replace(agent, owner="bob@acme.test")] if "principal" in atom else []
    for who in (agent, *others):
        for resource in (None, "crm:1", "crm:2", "mail:1"):
            for scopes in (("read:files",), ("write:files", "read:files")):
                for sample in SAMPLES if resource == "crm:1" else SAMPLES[:2]:
                    wanted = action(*scopes, resource=resource, **sample)
                    forgets._answers.clear()
                    assert remembers.decide(who, wanted, ENVIRONMENT) == forgets.decide(
                        who, wanted, ENVIRONMENT
                    )


def test_a_rule_for_one_agent_answers_only_that_one(agent: Agent) -> None:
    """What was answered for one agent is not said to another."""
    scope = f'(principal == Agent::"{agent.id}", action, resource)'
    policy = policy_of([("forbid", scope, "when", "true")])
    other = replace(agent, id=AgentId("agt_other"))
    outcomes = [
        policy.decide(who, action("read:files"), ENVIRONMENT).outcome
        for who in (agent, other)
    ]
    assert outcomes == [Outcome.DENIED, Outcome.ALLOWED]


def test_what_was_not_granted_is_told_to_each_agent_by_itself(agent: Agent) -> None:
    """Agents that lack another scope of the same request get their own answer."""
    policy = policy_of([])
    asked = action("read:files", "write:files")
    for scope, lacks in (("read:files", "write:files"), ("write:files", "read:files")):
        verdict = policy.decide(replace(agent, scopes=(scope,)), asked, ENVIRONMENT)
        assert verdict.outcome is Outcome.DENIED
        assert (
            f"Not granted to this agent: {lacks}. Granted: {scope}." in verdict.message
        )


def test_a_request_that_names_its_action_is_another_than_one_that_does_not(
    agent: Agent,
) -> None:
    """Without a named action each scope may be the one that is performed."""
    rule = ("forbid", "(principal, action, resource)", "when")
    policy = policy_of([(*rule, 'context.performs == "write:files"')])
    asked = action("read:files", "write:files")
    assert (
        policy.decide(agent, replace(asked, named=True), ENVIRONMENT).outcome
        is Outcome.ALLOWED
    )
    assert (
        policy.decide(agent, replace(asked, named=False), ENVIRONMENT).outcome
        is Outcome.DENIED
    )


def test_amounts_on_one_side_of_a_limit_are_one_class(agent: Agent) -> None:
    """A rule that compares with 1000 is evaluated for 7 and not again for 12."""
    policy = policy_of(
        [
            (
                '@obligation("step_up") permit',
                "(principal, action, resource)",
                "when",
                "context has amount && context.amount > 1000",
            )
        ]
    )
    for amount in (7, 12, 1000, 999, 1001, 5000, 1002):
        policy.decide(
            agent, action("read:files", amount=amount, currency="USD"), ENVIRONMENT
        )
    # Below it, on it, and above it.
    assert len(policy._answers) == 3
