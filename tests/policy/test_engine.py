"""Decisions: what the shipped policy answers, and what no policy can be made to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from support.policies import (
    ALLOW_ALL,
    CATALOGUE,
    ENVIRONMENT,
    NAMES,
    SHIPPED,
    action,
    outcome,
)

from agentvault_tui.model import Action, Agent, Outcome, Risk
from agentvault_tui.policy import Effect, Policy, shipped_policy
from agentvault_tui.policy.facts import LARGEST
from agentvault_tui.policy.resources import canonical


def test_payments_are_escalated_by_the_rule_the_contract_names(agent: Agent) -> None:
    """A payment waits for a person, whatever its amount, under a stable rule id."""
    for parameters in ({"amount": 1, "currency": "USD"}, {"amount": "1"}, {}):
        verdict = SHIPPED.decide(
            agent, action("send:payment", **parameters), ENVIRONMENT
        )
        assert verdict.outcome is Outcome.ESCALATED
        assert verdict.rule == "payments-need-step-up"
        assert verdict.reason == "stepup_required"
        assert verdict.risk is Risk.HIGH
        assert "cannot be called back" in verdict.why
        assert verdict.why in verdict.message


def test_granted_low_and_medium_scopes_are_allowed(agent: Agent) -> None:
    """A shipped scope of low or medium risk that changes no many things is allowed."""
    for scope in CATALOGUE:
        if scope.risk is Risk.HIGH or CATALOGUE.effect(scope.name) is Effect.SEND:
            continue
        given = {"count": 1} if CATALOGUE.is_bulk(scope.name) else {}
        verdict = SHIPPED.decide(agent, action(scope.name, **given), ENVIRONMENT)
        assert (verdict.outcome, verdict.reason) == (Outcome.ALLOWED, "granted")
        assert verdict.rule == "granted-low-and-medium-risk"


def test_every_high_risk_scope_is_escalated(agent: Agent) -> None:
    """No shipped scope of high risk is ever allowed without a person."""
    for scope in CATALOGUE:
        if scope.risk is Risk.HIGH:
            verdict = SHIPPED.decide(
                agent, action(scope.name, count=1, recipients=1), ENVIRONMENT
            )
            assert verdict.outcome is Outcome.ESCALATED
    deletion = SHIPPED.decide(agent, action("delete:records"), ENVIRONMENT)
    assert deletion.rule == "deletions-need-step-up"
    assert (
        SHIPPED.decide(agent, action("merge:code"), ENVIRONMENT).rule
        == "high-risk-needs-step-up"
    )


@pytest.mark.parametrize(
    ("recipients", "expected"),
    [
        (1, Outcome.ALLOWED),
        (20, Outcome.ALLOWED),
        (21, Outcome.ESCALATED),
        (500, Outcome.ESCALATED),
        (0, Outcome.ESCALATED),
        ("3", Outcome.ESCALATED),
        ([f"p{n}@x.test" for n in range(20)], Outcome.ALLOWED),
        ([f"p{n}@x.test" for n in range(21)], Outcome.ESCALATED),
        (["a@x.test,b@x.test"], Outcome.ESCALATED),
    ],
)
def test_sends_are_bulk_from_21_or_when_it_cannot_be_told(
    agent: Agent, recipients: Any, expected: Any
) -> None:
    """Up to 20 recipients are allowed; more, or a number nobody can read, are not."""
    assert outcome(agent, "send:email", recipients=recipients) is expected


def test_a_bulk_send_is_named_as_one(agent: Agent) -> None:
    """The approver reads the sentence about sends, from the 21st recipient on."""
    verdict = SHIPPED.decide(agent, action("send:email", recipients=21), ENVIRONMENT)
    assert verdict.rule == "sends-to-many-need-step-up"


def test_a_send_that_does_not_say_to_how_many_is_escalated(agent: Agent) -> None:
    """Silence about the recipients of a send is not taken as few."""
    assert outcome(agent, "send:email") is Outcome.ESCALATED
    assert outcome(agent, "send:email", count=3) is Outcome.ESCALATED


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (100, Outcome.ALLOWED),
        (101, Outcome.ESCALATED),
        ("5", Outcome.ESCALATED),
        (True, Outcome.ESCALATED),
        (5.0, Outcome.ESCALATED),
        (-1, Outcome.ESCALATED),
    ],
)
def test_bulk_changes_are_escalated(agent: Agent, count: Any, expected: Any) -> None:
    """Over 100 changes, or a count nobody can read, wait for a person."""
    assert outcome(agent, "write:records", count=count) is expected


def test_a_bulk_change_without_a_count_is_escalated(agent: Agent) -> None:
    """Where one use may change many things, silence about how many is not one."""
    verdict = SHIPPED.decide(agent, action("write:records"), ENVIRONMENT)
    assert verdict.outcome is Outcome.ESCALATED
    assert verdict.rule == "uncounted-changes-need-step-up"
    assert outcome(agent, "read:calendar", "write:records") is Outcome.ESCALATED
    assert outcome(agent, "write:records", count=1) is Outcome.ALLOWED
    assert outcome(agent, "write:calendar") is Outcome.ALLOWED
    assert outcome(agent, "write:calendar", count=101) is Outcome.ESCALATED
    assert outcome(agent, "read:records", count=5000) is Outcome.ALLOWED


def test_an_invitation_to_many_is_escalated_though_it_is_no_send(agent: Agent) -> None:
    """Recipients count for every scope that names them."""
    assert outcome(agent, "write:calendar", recipients=20) is Outcome.ALLOWED
    assert outcome(agent, "write:calendar", recipients=21) is Outcome.ESCALATED
    assert outcome(agent, "write:calendar", Recipients=21) is Outcome.ESCALATED


def test_a_scope_not_granted_is_denied_with_what_to_do(
    agent_with: Callable[..., Agent],
) -> None:
    """The message names what is missing, what is there, and who decides.

    Models read it: it has no command of operators for them to run.
    """
    agent = agent_with("read:calendar")
    verdict = SHIPPED.decide(
        agent, action("read:calendar", "send:payment"), ENVIRONMENT
    )
    assert verdict.outcome is Outcome.DENIED
    assert (verdict.reason, verdict.rule) == ("scope_not_granted", "default-deny")
    assert "Not granted to this agent: send:payment." in verdict.message
    assert "Granted: read:calendar." in verdict.message
    assert verdict.message.endswith("An operator has to decide whether to grant it.")
    assert "agentvault agents" not in verdict.message


def test_a_policy_cannot_hand_out_what_was_not_granted(
    agent_with: Callable[..., Agent],
) -> None:
    """Even a policy that permits everything stays within the operator's grant."""
    policy = Policy(ALLOW_ALL, CATALOGUE)
    agent = agent_with("read:calendar")
    assert (
        policy.decide(agent, action("read:calendar"), ENVIRONMENT).outcome
        is Outcome.ALLOWED
    )
    assert (
        policy.decide(agent, action("send:payment"), ENVIRONMENT).reason
        == "scope_not_granted"
    )


def test_a_scope_that_left_the_catalogue_is_denied(
    agent_with: Callable[..., Agent],
) -> None:
    """A grant of a scope the catalogue no longer has opens nothing."""
    agent = agent_with("read:calendar", "fly:rockets")
    verdict = SHIPPED.decide(agent, action("fly:rockets"), ENVIRONMENT)
    assert verdict.outcome is Outcome.DENIED
    assert verdict.risk is Risk.HIGH


def test_the_strictest_answer_of_several_scopes_counts(
    agent_with: Callable[..., Agent],
) -> None:
    """Denied beats escalated beats allowed, whatever the order asked."""
    agent = agent_with("read:calendar", "send:payment")
    asked = ["read:calendar", "send:payment", "delete:code"]
    for scopes in (asked, asked[::-1]):
        assert outcome(agent, *scopes) is Outcome.DENIED
    for scopes in (asked[:2], asked[1::-1]):
        assert outcome(agent, *scopes) is Outcome.ESCALATED
        assert SHIPPED.decide(agent, action(*scopes), ENVIRONMENT).risk is Risk.HIGH


def test_the_named_action_counts_even_when_it_is_not_among_the_scopes(
    agent_with: Callable[..., Agent],
) -> None:
    """An action smuggled past the scopes is decided like any scope."""
    agent = agent_with("read:calendar")
    smuggled = Action(("read:calendar",), "send:payment")
    assert SHIPPED.decide(agent, smuggled, ENVIRONMENT).outcome is Outcome.DENIED


def test_a_forbid_denies_by_its_id_over_any_permit(agent: Agent) -> None:
    """A custom forbid wins over every permit and is named."""
    policy = Policy(
        ALLOW_ALL
        + """
        @id("not-the-board") @why("Nobody books the board's calendar.")
        forbid (principal, action in Action::"writes", resource)
        when { context has resource && context.resource like "calendar:board*" };
        """,
        CATALOGUE,
    )
    denied = policy.decide(
        agent, action("write:calendar", resource="calendar:board/1"), ENVIRONMENT
    )
    assert denied.outcome is Outcome.DENIED
    assert (denied.reason, denied.rule) == ("policy_forbids", "not-the-board")
    assert "Nobody books" in denied.message
    allowed = policy.decide(
        agent, action("write:calendar", resource="calendar:me"), ENVIRONMENT
    )
    assert allowed.outcome is Outcome.ALLOWED


def test_what_no_rule_permits_is_denied(agent: Agent) -> None:
    """A policy that is silent about a granted scope denies it."""
    policy = Policy(
        '@id("r") @why("Reading.") @obligation("allow")'
        'permit (principal, action in Action::"reads", resource);',
        CATALOGUE,
    )
    verdict = policy.decide(agent, action("write:calendar"), ENVIRONMENT)
    assert (verdict.reason, verdict.rule) == ("policy_forbids", "default-deny")


def test_a_rule_that_fails_denies_instead_of_being_skipped(agent: Agent) -> None:
    """Cedar skips a forbid that overflows; an agent must not gain from that."""
    policy = Policy(
        ALLOW_ALL
        + """
        @id("big") @why("Too much.")
        forbid (principal, action, resource)
        when { context has count && context.count * 9000000000000000 > 5 };
        """,
        CATALOGUE,
    )
    assert (
        policy.decide(agent, action("write:files", count=0), ENVIRONMENT).outcome
        is Outcome.ALLOWED
    )
    verdict = policy.decide(agent, action("write:files", count=LARGEST), ENVIRONMENT)
    assert verdict.outcome is Outcome.DENIED
    assert (verdict.reason, verdict.rule) == ("policy_error", "policy-error")


def test_of_equally_strict_rules_the_first_in_the_file_is_named(agent: Agent) -> None:
    """With more than ten rules the order stays the file's, not the alphabet's."""
    rules = "".join(
        f'@id("rule-{n}") @why("w") @obligation("step_up")'
        f"permit (principal, action, resource)"
        f" when {{ context has count && context.count >= {n} }};\n"
        for n in range(12, -1, -1)
    )
    policy = Policy(rules, CATALOGUE)
    for count in range(12):
        verdict = policy.decide(agent, action("write:files", count=count), ENVIRONMENT)
        assert verdict.rule == f"rule-{count}"


def test_rules_see_the_agent_and_the_whole_request(
    agent_with: Callable[..., Agent],
) -> None:
    """Owner, agent id, granted scopes, asked scopes and amounts can be ruled on."""
    policy = Policy(
        """
        @id("owner") @why("w") @obligation("allow")
        permit (principal == Agent::"agt_1", action in Action::"writes", resource)
        when { principal.owner == "alice@acme.test"
               && principal.scopes.contains("read:finance")
               && context.scopes.containsAll(["write:finance", "read:finance"])
               && context.performs == "write:finance"
               && context has amount && context.amount <= 100
               && context has currency && context.currency == "EUR" };
        @id("read") @why("w") @obligation("allow")
        permit (principal, action == Action::"read:finance", resource == Resource::"r");
        """,
        CATALOGUE,
    )
    asked = action(
        "write:finance", "read:finance", resource="r", amount=100, currency="EUR"
    )
    alice = agent_with("read:finance", "write:finance")
    bob = replace(alice, owner="bob@acme.test")
    assert policy.decide(alice, asked, ENVIRONMENT).outcome is Outcome.ALLOWED
    assert policy.decide(bob, asked, ENVIRONMENT).outcome is Outcome.DENIED
    dearer = replace(asked, parameters={"amount": 101, "currency": "EUR"})
    assert policy.decide(alice, dearer, ENVIRONMENT).outcome is Outcome.DENIED


HOSTILE = [
    '"; permit(principal, action, resource); //',
    'x" || true || "',
    "\x00\x1b]0;owned\x07\n\r\u2028",
    "\u202eevil\u200b",
    'Action::"read:calendar"',
    "*",
    "x" * 4000,
    "\ud800",
    "🏴‍☠️",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_changes_no_decision(agent: Agent, text: str) -> None:
    """Names, owners, resources, scopes and parameters never become policy."""
    rogue = replace(agent, name=text, owner=text)
    read = action("read:calendar", resource=text, note=text, **{text: text})
    expected = Outcome.ALLOWED if canonical(text) else Outcome.ESCALATED
    assert SHIPPED.decide(rogue, read, ENVIRONMENT).outcome is expected
    assert SHIPPED.decide(rogue, action(text), ENVIRONMENT).outcome is Outcome.DENIED
    assert SHIPPED.decide(
        rogue, action("send:payment", **{text: 1}), ENVIRONMENT
    ).outcome is (Outcome.ESCALATED)


@pytest.mark.parametrize("text", HOSTILE)
def test_messages_are_inert_and_bounded(
    agent_with: Callable[..., Agent], text: str
) -> None:
    """What an agent's developer reads holds no control or bidirectional character."""
    agent = replace(agent_with(text), name=text)
    for asked in (action(text), action("read:calendar", text)):
        message = SHIPPED.decide(agent, asked, ENVIRONMENT).message
        assert message.isprintable()
        assert len(message) < 1500


def test_cached_answers_equal_evaluated_ones(
    agent: Agent, agent_with: Callable[..., Agent]
) -> None:
    """Asking again, in any order, gives the answer a new policy would give."""
    kept, fresh = (Policy(shipped_policy(), CATALOGUE) for _ in range(2))
    asked = [
        action(name, resource=resource, **parameters)
        for name in NAMES
        for resource in (None, "r", "x" * 300)
        for parameters in ({}, {"recipients": 20}, {"recipients": 21}, {"count": True})
    ]
    agents = [agent, agent_with("read:calendar"), replace(agent, owner="b")]
    for _ in range(2):
        for who in agents:
            for one in asked[::7]:
                fresh._answers.clear()
                assert kept.decide(who, one, ENVIRONMENT) == fresh.decide(
                    who, one, ENVIRONMENT
                )


@pytest.mark.slow
def test_the_cache_of_answers_is_bounded(agent: Agent) -> None:
    """However many resources an agent names, memory for answers has an end."""
    rule = (
        '@id("r") @why("w") @obligation("allow")'
        ' permit (principal, action, resource == Resource::"r1");'
    )
    policy = Policy(rule, CATALOGUE)
    for n in range(4200):
        policy.decide(agent, action("read:calendar", resource=f"r{n}"), ENVIRONMENT)
    assert len(policy._answers) == 4096
    known = set(policy._answers)
    policy.decide(agent, action("read:calendar", resource="x" * 257), ENVIRONMENT)
    assert set(policy._answers) == known


def test_version_covers_policy_and_catalogue() -> None:
    """Any change to the rules or the scopes is another version."""
    other = type(CATALOGUE).parse(
        '[scopes."read:boats"]\ndescription = "d"\nrisk = "low"\nrevoking = "r"', "s"
    )
    versions = {
        SHIPPED.version,
        Policy(shipped_policy() + "// note\n", CATALOGUE).version,
        Policy(shipped_policy(), other).version,
    }
    assert len(versions) == 3
    assert Policy(shipped_policy(), CATALOGUE).version == SHIPPED.version
    assert all(len(version) == 12 for version in versions)
