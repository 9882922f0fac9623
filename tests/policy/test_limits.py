"""LimitSet are read strictly, and answer by what their windows hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.policies import CATALOGUE, ENVIRONMENT, action

from agentvault_tui.errors import PolicyError
from agentvault_tui.model import Agent, Money, Outcome, Verdict
from agentvault_tui.policy import (
    Inputs,
    Limit,
    LimitSet,
    Policy,
    PolicyTexts,
    shipped_policy,
)

HEAD = '[[limits]]\nid = "a-day"\nscopes = ["send:payment"]\nwithin = "24h"\n'
COUNT = HEAD + "count = 3\n"
AMOUNT = HEAD + 'amount = 500\ncurrency = "USD"\n'
MAJOR = HEAD + 'amount_major = 500\ncurrency = "USD"\n'
MINOR_UNITS = Money("minor", 2)
ALLOW_ALL = (
    '@id("all") @why("w") @obligation("allow") permit (principal, action, resource);'
)


def limits_of(text: str) -> LimitSet:
    return LimitSet.parse(text, "limits.toml", CATALOGUE)


def policy_of(limits: str, rules: str = ALLOW_ALL) -> Policy:
    return Policy(rules, CATALOGUE, limits=limits_of(limits))


def answer(policy: Policy, agent: Agent, held: int, **parameters: Any) -> Verdict:
    """Decide a payment while the window of the first limit holds *held*."""
    (limit, *_) = policy.limits.limits
    left = max(0, limit.most - held)
    environment = ENVIRONMENT._replace(limits={limit.attribute: (held, left)})
    asked = action("send:payment", **parameters)
    return policy.answer(Inputs.of(agent, asked, environment))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[[limits]]\n", "id"),
        ("limits = 3", "array"),
        ("[[limit]]", "did you mean limits"),
        (COUNT + "cuont = 3", "did you mean count"),
        (COUNT.replace('id = "a-day"', 'id = "A day"'), "cannot be called that"),
        (COUNT.replace("a-day", "a_day"), "cannot be called that"),
        (COUNT + COUNT, "is there twice"),
        (COUNT.replace("send:payment", "send:paymnet"), "did you mean send:payment"),
        (COUNT.replace("send:payment", "paymnets"), "did you mean payments"),
        (COUNT.replace('"send:payment"', ""), "length >= 1"),
        (COUNT.replace("24h", "0h"), "is within '0h'"),
        (COUNT.replace("24h", "1w"), "is within '1w'"),
        (COUNT.replace("24h", "367d"), "is within '367d'"),
        (HEAD, "counts nothing"),
        (COUNT + 'amount = 5\ncurrency = "USD"', "or two things"),
        (HEAD + "amount = 5", "has an amount or a currency alone"),
        (COUNT + 'currency = "USD"', "has an amount or a currency alone"),
        (AMOUNT.replace("USD", "usd"), "has the currency 'usd'"),
        (HEAD + "amount_major = 5", "has an amount or a currency alone"),
        (MAJOR + "count = 5", "or two things"),
        (MAJOR + "amount = 5", "or two things"),
        *(
            (MAJOR.replace("500", value), "has the amount_major")
            for value in (
                *("0", "-1", "0.0", "1e3", "nan", "inf", "true", "[]", "1979-05-27"),
                *('""', '"1e3"', '"-1"', '"0.00"', '"1,000"', '"500 "', '"500."'),
                *("0.00001", '"0.00001"', "1" * 13, f'"{"1" * 13}"', '"NaN"'),
            )
        ),
        (HEAD + "count = 0", ">= 1"),
        (HEAD + "count = -1", ">= 1"),
        (HEAD + "count = 1.0", "got `float`"),
        (HEAD + "count = true", "got `bool`"),
        (HEAD + f"count = {2**53}", f"<= {2**53 - 1}"),
        (HEAD + f"count = {10**400}", "count"),
        (COUNT + 'per = "owner"', "Invalid enum value"),
        (COUNT + 'over = "allow"', "Invalid enum value"),
        ('[[hooks]]\nid = "h"\nscopes = ["reads"]\nurl = "http://a.test/"', "the url"),
        ('[[hooks]]\nid = "h"\nscopes = ["reads"]\nurl = "file:///x"', "the url"),
        *(
            (f'[[hooks]]\nid = "h"\nscopes = ["reads"]\nurl = "{url}"', "the url")
            for url in (
                *("https://a.test:99999/", "https://a.test:0/", "https://a.test:x/"),
                *(
                    "http://127.0.0.1:99999/",
                    "http://localhost:0",
                    "http://[::1]:65536",
                ),
            )
        ),
        (
            '[[hooks]]\nid = "h"\nscopes = ["reads"]\nurl = "https://u@a.test/"',
            "the url",
        ),
        *(
            (f'[[hooks]]\nid = "h"\nscopes = ["reads"]\nurl = "{url}"', "the url")
            for url in ("https://a.test:99999/", "https://a.test:0/", "https://[::1/")
        ),
        ('[[hooks]]\nid = "h"\nscopes = ["reads"]', "url"),
        ("[[limits]", "not TOML"),
        ("a = " + "[" * 5000, "not TOML"),
    ],
)
def test_a_broken_file_is_refused_and_told_what_is_wrong(text: str, told: str) -> None:
    """With the nearest known word, and the file's name."""
    with pytest.raises(PolicyError) as raised:
        limits_of(text)
    said = raised.value.diagnosis()
    assert said.startswith("limits.toml")
    assert told in said
    assert "\n" not in said


@pytest.mark.parametrize(("over", "outcome"), [("deny", "denied"), (None, "escalated")])
def test_beyond_its_count_a_limit_denies_or_asks_a_person(
    agent: Agent, over: str | None, outcome: str
) -> None:
    """The third of three is allowed; the fourth is answered by the limit, by name."""
    policy = policy_of(COUNT + (f'over = "{over}"' if over else ""))
    assert answer(policy, agent, held=2).outcome is Outcome.ALLOWED
    verdict = answer(policy, agent, held=3)
    assert verdict.outcome.value == outcome
    assert (verdict.rule, verdict.reason) == ("limit:a-day", "limit_reached")
    assert "3 in 24h" in verdict.message


def test_an_amount_that_would_pass_a_limit_is_refused_whole(agent: Agent) -> None:
    """What is left is not given out in part."""
    policy = policy_of(AMOUNT + 'over = "deny"')
    for amount, outcome in ((100, Outcome.ALLOWED), (101, Outcome.DENIED)):
        verdict = answer(policy, agent, held=400, amount=amount, currency="USD")
        assert verdict.outcome is outcome
    huge = answer(policy, agent, held=2**80, amount=1, currency="USD")
    assert huge.outcome is Outcome.DENIED


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"amount": 1},
        {"amount": 1, "currency": "EUR"},
        {"amount": 1.5, "currency": "USD"},
        {"amount": -1, "currency": "USD"},
        {"amount": "1", "currency": "USD"},
        {"amount": 2**53, "currency": "USD"},
        {"amount": float("nan"), "currency": "USD"},
        {"amount": True, "currency": "USD"},
        {"amount": 1, "Amount": 900, "currency": "USD"},
        {"amount": 1, "currency": "USD", "more": [{"amount": 900}]},
    ],
)
def test_an_amount_that_cannot_be_counted_is_for_a_person(
    agent: Agent, parameters: dict[str, Any]
) -> None:
    """Whatever the limit says of those beyond it; and it counts as nothing."""
    policy = policy_of(AMOUNT + 'over = "deny"')
    verdict = answer(policy, agent, held=0, **parameters)
    assert (verdict.outcome, verdict.rule) == (Outcome.ESCALATED, "limit:a-day")
    inputs = Inputs.of(agent, action("send:payment", **parameters), ENVIRONMENT)
    counted = policy.limits.counted(inputs)["limits"]
    assert counted == {"a-day": {"amount": 0, "currency": "USD"}}


@pytest.mark.parametrize("written", ["499.50", '"499.50"', '"499.5"', "499.5000"])
def test_an_amount_in_major_units_is_read_exactly(written: str) -> None:
    """As a number or a text, it is a decimal."""
    (limit,) = limits_of(MAJOR.replace("500", written)).limits
    assert (limit.most, limit.counted_in) == (4_995_000, "USD/10000")
    assert limit.wording() == "499.50 USD in 24h"


@pytest.mark.parametrize(
    ("parameters", "money", "outcome"),
    [
        ({"amount": 10_000, "currency": "USD"}, MINOR_UNITS, Outcome.ALLOWED),
        ({"amount": 10_001, "currency": "USD"}, MINOR_UNITS, Outcome.DENIED),
        ({"amount": "100.00", "currency": "USD"}, Money("major", 2), Outcome.ALLOWED),
        ({"amount": "100.01", "currency": "USD"}, Money("major", 2), Outcome.DENIED),
        ({"amount": 1, "currency": "USD"}, None, Outcome.ESCALATED),
        ({"amount": 1, "currency": "EUR"}, MINOR_UNITS, Outcome.ESCALATED),
        ({"amount": 1}, MINOR_UNITS, Outcome.ESCALATED),
        ({}, MINOR_UNITS, Outcome.ESCALATED),
        ({"amount": "1e0", "currency": "USD"}, Money("major", 2), Outcome.ESCALATED),
        ({"amount_major": "1.00", "currency": "USD"}, None, Outcome.ESCALATED),
        (
            {"amount": 1, "currency": "USD", "amount_major": "1.00"},
            MINOR_UNITS,
            Outcome.ESCALATED,
        ),
    ],
)
def test_a_limit_in_major_units_adds_up_all_services(
    agent: Agent, parameters: dict[str, Any], money: Money | None, outcome: Outcome
) -> None:
    """Without a unit or in another currency, a person decides, and nothing counts."""
    policy = policy_of(MAJOR + 'over = "deny"')
    environment = ENVIRONMENT._replace(limits={"a_day": (4_000_000, 1_000_000)})
    asked = replace(action("send:payment", **parameters), money=money)
    inputs = Inputs.of(agent, asked, environment)
    verdict = policy.answer(inputs)
    assert verdict.outcome is outcome
    counted = policy.limits.counted(inputs)["limits"]["a-day"]
    assert counted["currency"] == "USD/10000"
    assert (counted["amount"] == 0) is (outcome is Outcome.ESCALATED)
    if outcome is Outcome.DENIED:
        words = "At most 500.00 USD in 24h: 400.00 USD used, 100.00 USD left."
        assert words in verdict.message


def test_rules_read_a_limit_in_major_units_as_a_decimal(agent: Agent) -> None:
    """What it holds and has left compares with amounts of rules."""
    left = "context.limits.a_day.left"
    rule = RULE.format(f'{left}.lessThan(decimal("200.00"))')
    policy = policy_of(MAJOR, ALLOW_ALL + rule)
    for held, outcome in ((3_000_000, Outcome.ALLOWED), (3_000_001, Outcome.DENIED)):
        environment = ENVIRONMENT._replace(limits={"a_day": (held, 5_000_000 - held)})
        asked = replace(
            action("send:payment", amount=1, currency="USD"), money=MINOR_UNITS
        )
        assert policy.decide(agent, asked, environment).outcome is outcome
    with pytest.raises(PolicyError):
        policy_of(MAJOR, ALLOW_ALL + RULE.format(f"{left} < 200"))


def test_of_several_limits_the_first_in_the_file_among_the_strictest_is_named(
    agent: Agent,
) -> None:
    """And policy's own answer stays where no limit is stricter."""
    text = COUNT.replace("a-day", "one") + COUNT.replace("a-day", "two")
    text += 'over = "deny"\n' + COUNT.replace("a-day", "three") + 'over = "deny"\n'
    policy = policy_of(text)
    full = ENVIRONMENT._replace(limits=dict.fromkeys(("one", "two", "three"), (3, 0)))
    asked = action("send:payment")
    assert policy.decide(agent, asked, full).rule == "limit:two"
    escalates = Policy(shipped_policy(), CATALOGUE, limits=limits_of(COUNT))
    assert escalates.decide(agent, asked, full).rule == "payments-need-step-up"


def test_a_limit_is_for_its_agents_and_scopes_alone(agent: Agent) -> None:
    """An agent is named by name or id; a group stands for its scopes."""
    other = replace(agent, name="other")
    for named in (agent.name, agent.id):
        text = COUNT.replace('"send:payment"', '"payments"') + f'agents = ["{named}"]'
        (limit,) = limits_of(text).limits
        assert limit.agents_of(Inputs.of(agent, action("refund:payment"), ENVIRONMENT))
        assert not limit.agents_of(Inputs.of(agent, action("read:email"), ENVIRONMENT))
        paid = Inputs.of(other, action("send:payment"), ENVIRONMENT)
        assert bool(limit.agents_of(paid)) is (named == agent.id)


@pytest.mark.parametrize(
    ("resource", "outcome"),
    [
        ("acct_1", Outcome.ALLOWED),
        (None, Outcome.ALLOWED),
        ("acct_1%20", Outcome.ESCALATED),
        ("acct_1\u200b", Outcome.ESCALATED),
        ("acct_1?", Outcome.ESCALATED),
        ("acct_1#a", Outcome.ESCALATED),
        ("acct_1,acct_2", Outcome.ESCALATED),
        ("acct_*", Outcome.ESCALATED),
        ("_all", Outcome.ESCALATED),
    ],
)
def test_a_limit_by_resource_leaves_an_unclear_one_to_a_person(
    agent: Agent, resource: str | None, outcome: Outcome
) -> None:
    """Else a spelling that a service trims has a window of its own."""
    policy = policy_of(COUNT + 'per = "resource"\n')
    asked = replace(action("send:payment"), resource=resource)
    assert policy.decide(agent, asked, ENVIRONMENT).outcome is outcome


def keys_of(limit: Limit, inputs: Inputs) -> list[str]:
    """Return the keys of the windows that a request counts in."""
    return [window[3] for window in limit.windows_of(inputs, inputs.facts.fold)]


def test_a_passed_on_token_counts_for_everyone_above_its_holder(agent: Agent) -> None:
    """A use counts for the holder and each agent above it, each once in each window."""
    above = (("agt_first", "first"), ("agt_second", "second"))
    asked = Inputs.of(agent, action("send:payment"), ENVIRONMENT, above=above)
    (each,) = limits_of(COUNT).limits
    assert keys_of(each, asked) == [agent.id, "agt_first", "agt_second"]
    (shared,) = limits_of(COUNT + 'per = "all"').limits
    assert keys_of(shared, asked) == [""]
    (named,) = limits_of(COUNT + 'agents = ["first"]').limits
    assert keys_of(named, asked) == ["agt_first"]
    assert LimitSet((named,)).applying(asked) == (named,)
    counted = LimitSet((each,)).counted(asked)["limits"][each.id]
    assert counted["agents"] == (agent.id, "agt_first", "agt_second")
    assert Inputs.read(agent.id, asked.record()) == asked


def test_a_request_of_several_scopes_is_counted_once(agent: Agent) -> None:
    """Each limit counts a request once, whatever its scopes."""
    limits = limits_of(COUNT.replace('"send:payment"', '"send:payment", "reads"'))
    asked = action("send:payment", "read:email", "read:files", resource="x:1")
    assert limits.counted(Inputs.of(agent, asked, ENVIRONMENT)) == {
        "limits": {"a-day": {"count": 1}},
        "resource": "x:1",
    }


RULE = '@id("r") @why("w") forbid (principal, action, resource) when {{ {} }};'


@pytest.mark.parametrize(
    ("condition", "held", "outcome"),
    [
        ("context.limits.a_day.left < 2", 1, Outcome.ALLOWED),
        ("context.limits.a_day.left < 2", 2, Outcome.DENIED),
        ("context.limits.a_day.count == 2", 2, Outcome.DENIED),
        ("context.limits.a_day.count + context.limits.a_day.left < 3", 2, "allowed"),
    ],
)
def test_rules_read_what_a_window_holds_and_has_left(
    agent: Agent, condition: str, held: int, outcome: Outcome
) -> None:
    """Kept answers are told apart by it."""
    policy = policy_of(COUNT, ALLOW_ALL + RULE.format(condition))
    for count in (0, held, 0, held):
        verdict = answer(policy, agent, held=count)
    assert verdict.outcome == outcome


def test_a_rule_and_a_limits_file_that_do_not_fit_are_refused() -> None:
    """A rule that names a limit there is not, whichever of the two files came first."""
    rules = ALLOW_ALL + RULE.format("context.limits.a_dya.left < 2")
    with pytest.raises(PolicyError, match=r"a_dya, which limits\.toml lacks: a_day"):
        policy_of(COUNT, rules)
    texts = PolicyTexts(policy=rules)
    with pytest.raises(PolicyError, match=r"limits\.toml lacks"):
        Policy.of(texts, ("policy.cedar", "scopes.toml", "limits.toml"))


def test_limits_are_part_of_the_version() -> None:
    """Another text of limits is another version; without a file it is as before."""
    plain = Policy(ALLOW_ALL, CATALOGUE).version
    versions = {policy_of(text).version for text in (COUNT, AMOUNT, COUNT + "\n\n")}
    assert len(versions | {plain}) == 3


@pytest.mark.slow
@given(st.text(max_size=200) | st.from_regex(r"\[\[limits\]\]\n(\w+ = .*\n)*"))
def test_any_text_is_a_file_of_limits_or_refused(text: str) -> None:
    """With one line, never with another error."""
    wrong = "none"
    try:
        limits_of(text)
    except PolicyError as error:
        wrong = error.what
    assert len(wrong.splitlines()) == 1
