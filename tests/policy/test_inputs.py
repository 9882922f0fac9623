"""What policy is told beside the request: when and where, recorded and read again."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.policies import CATALOGUE, ENVIRONMENT, action

from agentvault_tui.errors import PolicyError
from agentvault_tui.ledger.canonical import coerce
from agentvault_tui.model import Agent, Outcome
from agentvault_tui.policy import Environment, Inputs, Policy

NOON = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)


def policy_of(condition: str) -> Policy:
    """Return a policy that allows exactly what meets *condition*."""
    return Policy(
        '@id("r") @why("w") @obligation("allow")'
        f" permit (principal, action, resource) when {{ {condition} }};",
        CATALOGUE,
    )


ATOMS = [
    'context.now < datetime("2026-11-27T12:00:00Z")',
    'datetime("2026-11-27T13:00:00+0100") == context.now',
    'context.now.toTime() < duration("12h")',
    "context.weekday <= 5",
    "context.hour >= 9 && context.hour < 17",
    "context.minute == 30",
    "context.hour * 60 + context.minute > 730",
    'context has source && context.source.isInRange(ip("10.0.0.0/8"))',
    'context has source && context.source == ip("10.1.2.3")',
    "context has source && context.source.isLoopback()",
    "context has source && context.source.isIpv6()",
    'context has country && context.country == "DE"',
    'context has country && ["DE", "FR"].contains(context.country)',
    "context.delegated",
    "context.depth > 1",
    "principal.age_days < 30",
]
PLACES = [
    ENVIRONMENT._replace(source=source, country=country)
    for source in (None, "10.1.2.3", "11.1.2.3", "127.0.0.1", "::1", "2001:db8::7")
    for country in (None, "DE", "FR", "US")
]
MOMENTS = [
    Environment.at(NOON + timedelta(minutes=minutes), UTC, source="10.1.2.3")
    for minutes in (-721, -60, -1, 0, 1, 29, 30, 31, 299, 300, 301, 2880, 60_000)
]
CHAINS = [
    ENVIRONMENT._replace(delegated=depth > 0, depth=depth) for depth in (0, 1, 2, 3)
]


@pytest.mark.parametrize("atom", ATOMS)
def test_a_kept_answer_holds_for_every_moment_and_place_it_is_given_for(
    agent: Agent, atom: str
) -> None:
    """One policy that remembers answers as one that evaluates each request anew."""
    remembers, forgets = policy_of(atom), policy_of(atom)
    asked = action("read:files")
    for environment in (*MOMENTS, *PLACES, *CHAINS, *MOMENTS):
        forgets._answers.clear()
        kept = remembers.decide(agent, asked, environment)
        assert kept == forgets.decide(agent, asked, environment)


def test_the_passing_of_time_leaves_kept_answers_useful(agent: Agent) -> None:
    """A moment enters the key by the bounds it lies between; else nothing is kept."""
    bounded, by_time = policy_of(ATOMS[0]), policy_of(ATOMS[2])
    for second in range(100):
        environment = Environment.at(NOON + timedelta(seconds=second), UTC)
        for policy in (bounded, by_time):
            policy.decide(agent, action("read:files"), environment)
    assert len(bounded._answers) == 2  # on the bound, and after it
    assert not by_time._answers


@pytest.mark.parametrize("name", ["source", "country"])
def test_an_unknown_place_is_never_allowed_by_a_rule_that_reads_it(
    agent: Agent, name: str
) -> None:
    """Also where the rule forbids some places, and another allows everything."""
    value = 'ip("10.0.0.1")' if name == "source" else '"RU"'
    policy = Policy(
        '@id("all") @why("w") @obligation("allow")'
        " permit (principal, action, resource);"
        '@id("f") @why("w") forbid (principal, action, resource)'
        f" when {{ context has {name} && context.{name} == {value} }};",
        CATALOGUE,
    )
    asked = action("read:files")
    known = ENVIRONMENT._replace(source="10.0.0.2", country="DE")
    unknown = known._replace(**{name: None})
    assert policy.decide(agent, asked, known).outcome is Outcome.ALLOWED
    verdict = policy.decide(agent, asked, unknown)
    assert (verdict.outcome, verdict.reason) == (Outcome.ESCALATED, "parameter_unclear")


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        ("context.weekdya == 1", "weekdya"),
        ("context has contry", "country?"),
        ('context has country && context.country == "Germany"', "no country"),
        ("principal.age > 3", "age"),
        ('context.now < datetime("2026-13-01")', "datetime"),
        ('context has source && context.source.isInRange(ip("10.0.0"))', "IP address"),
    ],
)
def test_a_misspelt_attribute_of_the_environment_is_refused(
    condition: str, told: str
) -> None:
    """By the schema, or by the checks of what Cedar lets pass."""
    with pytest.raises(PolicyError, match=told):
        policy_of(condition)


@pytest.mark.parametrize(
    "condition", ["context.weekday > 7", "context.hour == 24", "principal.age_days < 0"]
)
def test_a_number_that_never_comes_is_pointed_out(condition: str) -> None:
    """Weekday is 1 to 7, hour 0 to 23: other bounds are never met."""
    assert any("is always" in one.what for one in policy_of(condition).problems())


def test_weekday_hour_and_minute_are_those_of_the_time_zone() -> None:
    """Friday evening in UTC is Saturday morning in Tokyo."""
    evening = datetime(2026, 11, 27, 20, 45, 59, 999_999, tzinfo=UTC)
    found = Environment.at(evening, ZoneInfo("Asia/Tokyo"))
    assert (found.weekday, found.hour, found.minute) == (6, 5, 45)
    assert found.written() == "2026-11-27T20:45:59.999Z"


parameters = st.dictionaries(
    st.sampled_from(["amount", "currency", "count", "recipients", "to", "Amount"]),
    st.integers(-5, 2**54) | st.sampled_from(["USD", "x@y.test", "1", None, 1.5]),
)
environments = st.builds(
    Environment.at,
    st.datetimes(min_value=datetime(2020, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    st.just(ZoneInfo("Europe/Berlin")),
    source=st.sampled_from([None, "10.0.0.1", "::1"]),
    country=st.sampled_from([None, "DE"]),
    depth=st.integers(0, 3),
)


@given(parameters, environments, st.booleans(), st.booleans())
def test_what_is_recorded_gives_the_same_inputs_again(
    given_parameters: dict[str, Any],
    environment: Environment,
    named: bool,
    backchannel: bool,
) -> None:
    """Through JSON and the ledger's canonical form."""
    agent = Agent(
        id="agt_1",  # type: ignore[arg-type]
        client_id="agt_1",
        name="n",
        owner="o",
        purpose="",
        scopes=("read:files", "send:payment"),
        created_at=NOON,
    )
    asked = action("send:payment", "read:files", resource="x:1", **given_parameters)
    details = ({"type": "other"},) if named else None
    inputs = Inputs.of(
        agent,
        replace(asked, named=named),
        environment,
        details,
        backchannel=backchannel,
    )
    recorded = json.loads(json.dumps(coerce(inputs.record())))
    assert Inputs.read("agt_1", recorded) == inputs
