"""Rules read amounts in major units, and destinations, or a person decides."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.policies import ALLOW_ALL, CATALOGUE, ENVIRONMENT, action

from agentvault_tui.model import Agent, Money, Outcome
from agentvault_tui.policy import Policy

UP_TO_50 = """
@id("large") @why("w") @obligation("step_up") @optional("amount_major")
permit (principal, action, resource)
when {
  context has amount_major && context.amount_major.greaterThan(decimal("50.00"))
};
"""
OUTSIDE = """
@id("outside") @why("w") @obligation("step_up")
permit (principal, action, resource)
unless { context has destinations && ["acme.test"].containsAll(context.destinations) };
"""
TO_EVIL = """
@id("evil") @why("w") @obligation("step_up") @optional("destinations")
permit (principal, action, resource)
when { context has destinations && context.destinations.contains("evil.test") };
"""
OVER_1000 = """
@id("whole") @why("w") @obligation("step_up")
permit (principal, action, resource)
when { context has amount && context.amount > 1000 };
"""
MINOR, MAJOR = Money("minor", 2), Money("major", 2)


@pytest.mark.parametrize(
    ("parameters", "money", "outcome"),
    [
        ({"amount": 5000, "currency": "USD"}, MINOR, Outcome.ALLOWED),
        ({"amount": 5001, "currency": "USD"}, MINOR, Outcome.ESCALATED),
        ({"amount": "50.00", "currency": "USD"}, MAJOR, Outcome.ALLOWED),
        ({"amount": "50.01", "currency": "USD"}, MAJOR, Outcome.ESCALATED),
        ({"amount": 51, "currency": "USD"}, MAJOR, Outcome.ESCALATED),
        ({}, MAJOR, Outcome.ALLOWED),
        ({"amount": 1, "currency": "USD"}, None, Outcome.ESCALATED),
        ({"amount": 1}, MINOR, Outcome.ESCALATED),
        ({"amount": "1e0", "currency": "USD"}, MAJOR, Outcome.ESCALATED),
        ({"amount_major": "1.00"}, MINOR, Outcome.ESCALATED),
    ],
)
def test_a_rule_reads_amounts_in_major_units(
    agent: Agent, parameters: dict[str, Any], money: Money | None, outcome: Outcome
) -> None:
    """Exactly; an amount whose unit is unknown is held, though the rule is optional.

    Each request is asked twice, in turns: no kept answer is given to another one.
    """
    policy = Policy(ALLOW_ALL + UP_TO_50, CATALOGUE)
    small = action("send:payment")
    for _ in range(2):
        asked = replace(action("send:payment", **parameters), money=money)
        assert policy.decide(agent, asked, ENVIRONMENT).outcome is outcome
        assert policy.decide(agent, small, ENVIRONMENT).outcome is Outcome.ALLOWED


def test_a_rule_about_whole_numbers_holds_an_amount_with_a_fraction(
    agent: Agent,
) -> None:
    """A request of 50000.50 is not below 1000, and does not lack an amount."""
    asked = action("send:payment", amount="50000.50", currency="USD")
    policy = Policy(ALLOW_ALL + OVER_1000, CATALOGUE)
    verdict = policy.decide(agent, replace(asked, money=MAJOR), ENVIRONMENT)
    assert (verdict.outcome, verdict.reason) == (Outcome.ESCALATED, "parameter_unclear")


@pytest.mark.parametrize(
    ("parameters", "outcome"),
    [
        ({"recipients": ["a@acme.test"]}, Outcome.ALLOWED),
        ({"recipients": 1, "destinations": ["acme.test"]}, Outcome.ALLOWED),
        ({"recipients": ["a@evil.test", "a@acme.test"]}, Outcome.ESCALATED),
        ({"recipients": ["a@acme.test.evil.test"]}, Outcome.ESCALATED),
        ({"recipients": ["a@sub.acme.test"]}, Outcome.ESCALATED),
        ({"recipients": 1}, Outcome.ESCALATED),
        ({"recipients": 1, "destinations": [], "to": "a@acme.test"}, Outcome.ESCALATED),
        ({"destinations": ["acme.test"], "to": "a@evil.test"}, Outcome.ESCALATED),
        ({}, Outcome.ESCALATED),
    ],
)
def test_mail_to_others_waits_by_one_rule(
    agent: Agent, parameters: dict[str, Any], outcome: Outcome
) -> None:
    """Whatever is not surely within the company waits."""
    policy = Policy(ALLOW_ALL + OUTSIDE, CATALOGUE)
    asked = action("send:email", **parameters)
    for _ in range(2):
        assert policy.decide(agent, asked, ENVIRONMENT).outcome is outcome


def test_an_optional_rule_about_destinations_holds_mail_to_unknown_places(
    agent: Agent,
) -> None:
    """A count of recipients says that there are destinations, and not which."""
    policy = Policy(ALLOW_ALL + TO_EVIL, CATALOGUE)
    for parameters, outcome in (
        ({}, Outcome.ALLOWED),
        ({"recipients": 1}, Outcome.ESCALATED),
        ({"recipients": ["a@acme.test"]}, Outcome.ALLOWED),
        ({"recipients": ["a@evil.test"]}, Outcome.ESCALATED),
    ):
        asked = action("send:email", **parameters)
        assert policy.decide(agent, asked, ENVIRONMENT).outcome is outcome
