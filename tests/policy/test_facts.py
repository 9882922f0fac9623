"""What a rule may know of a request: sure facts, or that something is unclear."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentvault_tui.gateway.counting import how_many
from agentvault_tui.model import Action, Money
from agentvault_tui.policy.facts import (
    LARGEST,
    MOST_ADDRESSES,
    PARAMETERS,
    derive,
    read_fact,
)


def facts(**parameters: Any) -> Any:
    return derive(Action(("send:email",), "send:email", None, parameters))


UNREADABLE_NUMBERS = [
    True,
    False,
    None,
    -1,
    20.0,
    0.5,
    float("nan"),
    float("inf"),
    "20",
    "twenty",
    "",
    LARGEST + 1,
    2**63,
    10**400,
    Decimal(3),
    {},
    {"number": 3},
    b"3",
]


@pytest.mark.parametrize("value", [*UNREADABLE_NUMBERS, [], [3]])
@pytest.mark.parametrize("name", ["count", "amount"])
def test_what_is_no_whole_number_is_unclear(name: str, value: Any) -> None:
    """Booleans, fractions, negatives, digits in quotes and huge numbers are unclear."""
    found = facts(**{name: value, "currency": "USD"})
    assert found.unclear == (name,)
    assert name not in found.context()


@pytest.mark.parametrize(
    "value",
    [
        *UNREADABLE_NUMBERS,
        0,
        [],
        [1, 2],
        ["a@x.test", None],
        [["a@x.test", "b@x.test"]],
        ["a@x.test,b@x.test"],
        ["a@x.test;b@x.test"],
        ["a@x.test b@x.test"],
        ["a@x.test\nb@x.test"],
        ["team: a@x.test, b@x.test;"],
        ["*@x.test"],
        ["#general"],
        ["@here"],
        ["everyone"],
        ["all@x.test"],
        ["Ada <a@x.test> <b@x.test>"],
        ["Ada <a@x.test,b@x.test>"],
        ["a@x.test\u200b"],
        ["\u202ea@x.test"],
        [""],
        ["a@b@c"],
        ["x" * 321],
    ],
)
def test_recipients_that_may_fan_out_are_unclear(value: Any) -> None:
    """Lists in lists, joined addresses, wildcards and groups are not a number."""
    assert facts(recipients=value).unclear == ("recipients",)
    assert facts(recipients=value).recipients is None


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (1, 1),
        (500, 500),
        (["a@x.test"], 1),
        (["a@x.test", "Ada Lovelace <b@x.test>", "carol"], 3),
        (["a@x.test"] * 25, 25),
    ],
)
def test_plain_recipients_are_counted(value: Any, count: Any) -> None:
    """Counts are taken, lists are counted, and duplicates count each time."""
    assert facts(recipients=value).recipients == count


@pytest.mark.parametrize(
    "field",
    [
        *("to", "cc", "bcc", "BCC", "Bcc ", "recipient", "emails", "toRecipients"),
        *("cc_recipients", "BccRecipients"),
    ],
)
def test_address_fields_that_hold_more_contradict_the_count(field: str) -> None:
    """One recipient declared and many addressed is not one recipient."""
    many = [f"p{n}@x.test" for n in range(30)]
    assert facts(recipients=1, **{field: many}).unclear == ("recipients",)
    assert facts(recipients=1, **{field: "a@x.test, b@x.test"}).recipients is None
    assert facts(recipients=1, **{field: {"list": many}}).recipients is None
    assert facts(recipients=30, **{field: many}).recipients == 30


@pytest.mark.parametrize(
    "name",
    [
        *("Count", "COUNT", "count ", "_count", "\uff43ount", "c\u200bount", "co-unt"),
        *("c\u043eunt", "\u200b" * 70 + "count", "_" * 70 + "count"),
    ],
)
def test_look_alike_names_make_the_parameter_unclear(name: str) -> None:
    """Another spelling that a lenient server may read is not overlooked."""
    assert facts(**{name: 5000}).unclear == ("count",)
    assert facts(**{name: 5000, "count": 1}).things is None


def test_an_amount_needs_its_currency() -> None:
    """An amount says nothing without a currency; a currency alone does no harm."""
    assert facts(amount=4200, currency="USD").unclear == ()
    assert facts(amount=4200).unclear == ("currency",)
    assert facts(amount=4200, currency="usd").unclear == ("currency",)
    assert facts(amount=4200, currency=["USD"]).unclear == ("currency",)
    assert facts(currency="EUR").unclear == ()


@pytest.mark.parametrize(
    ("parameters", "unclear"),
    [
        ({"payment": {"amount": 5000}}, "amount"),
        ({"amount": 5, "currency": "USD", "rows": [{"Amount": 5000}]}, "amount"),
        ({"count": 1, "filter": {"count": 900}}, "count"),
        ({"recipients": 1, "mail": {"bcc": ["a@x.test", "b@x.test"]}}, "recipients"),
        ({"mail": [{"recipients": 500}]}, "recipients"),
        ({"bcc": ["a@x.test"]}, "recipients"),
        ({"message": {"to": "a@x.test"}}, "recipients"),
    ],
)
def test_what_is_said_inside_another_object_is_not_overlooked(
    parameters: Any, unclear: str
) -> None:
    """A resource server may go by the inner object, so what is outside is not sure."""
    assert facts(**parameters).unclear == (unclear,)
    assert unclear not in facts(**parameters).context()


def test_the_end_of_a_period_is_no_address() -> None:
    """A ``to`` that holds a time makes no recipients of a request without any."""
    assert facts(**{"from": "2026-12-01", "to": "2026-12-02T10:00:00Z"}).unclear == ()


def test_half_a_surrogate_pair_in_the_resource_is_unclear() -> None:
    """A resource that is no Unicode text never reaches the policy."""
    found = derive(Action(("a:b",), "a:b", "x\ud800", {}))
    assert found.resource is None
    assert found.unclear == ("resource",)


@pytest.mark.parametrize(
    "parameters",
    [{"resource": "stripe:b"}, {"Re_source": 1}, {"on": [{"resource": "stripe:b"}]}],
)
def test_a_resource_among_the_parameters_makes_it_unclear(
    parameters: dict[str, Any],
) -> None:
    """A resource server may go by that one, which no rule sees."""
    found = derive(Action(("a:b",), "a:b", "stripe:a", parameters))
    assert (found.resource, found.unclear) == (None, ("resource",))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
names = st.sampled_from(["recipients", "amount", "currency", "count", "to"]) | st.text()


@pytest.mark.slow
@given(st.dictionaries(names, json_values, max_size=8), st.none() | st.text())
def test_any_parameters_reduce_to_typed_facts(parameters: Any, resource: Any) -> None:
    """Whatever JSON an agent sends, only bounded numbers and plain words come out."""
    found = derive(Action(("send:email",), "send:email", resource, parameters))
    hash(found)
    for number in (found.recipients, found.amount, found.things):
        assert number is None or (type(number) is int and 0 <= number <= LARGEST)
    for name in ("recipients", "amount", "currency", "count"):
        if name in parameters:
            assert (name in found.context()) != (name in found.unclear)


def paid(money: Money | None, **parameters: Any) -> Any:
    named = Action(("send:payment",), "send:payment", None, parameters, money=money)
    return derive(named)


@pytest.mark.parametrize(
    ("money", "amount", "whole", "major"),
    [
        (Money("minor", 2), 4200, 4200, "42.00"),
        (Money("minor", 0), 4200, 4200, "4200"),
        (Money("major", 2), 42, 42, "42.00"),
        (Money("major", 2), "42.5", None, "42.50"),
        (None, 4200, 4200, None),
        (Money("minor", 0), LARGEST, LARGEST, None),
        (Money("minor", 2), LARGEST, LARGEST, "90071992547409.91"),
    ],
)
def test_an_amount_is_read_in_major_units_where_its_unit_is_known(
    money: Money | None, amount: object, whole: int | None, major: str | None
) -> None:
    """Exactly; Cedar's decimal ends at 922337203685477.5807."""
    found = paid(money, amount=amount, currency="USD")
    assert (found.amount, found.unclear) == (whole, ())
    assert found.context().get("amount_major") == (
        f"{major}.0" if major == "4200" else major
    )
    missing = ("amount",) if whole is None else ("amount_major",)
    assert found.hidden == (missing if whole is None or major is None else ())


@pytest.mark.parametrize(
    "parameters",
    [
        {"amount": "1e3", "currency": "USD"},
        {"amount": 42.5, "currency": "USD"},
        {"amount": "42.505", "currency": "USD"},
        {"amount": -42, "currency": "USD"},
        {"amount": 2**53, "currency": "USD"},
        {"amount": 42, "currency": "usd"},
        {"amount": 42, "currency": "USD", "Amount": 7},
        {"amount": 42, "currency": "USD", "pay": {"amount": 7}},
        {"amount": "42.50", "currency": "USD", "amount_major": "1.00"},
        {"amount": 42, "currency": "USD", "AmountMajor": 1},
    ],
)
def test_an_amount_that_is_not_clear_has_no_major_units(
    parameters: dict[str, Any],
) -> None:
    """What is misspelt, stated twice or not exact is for a person to decide."""
    found = paid(Money("major", 2), **parameters)
    assert found.amount_major is None
    assert found.unclear
    assert {"amount_major"} <= {*found.unclear, *found.hidden}


def test_no_agent_states_the_unit_of_an_amount() -> None:
    """A parameter in its name is unclear, and nothing is read from it."""
    found = facts(amount=4200, currency="USD", amount_major="1.00")
    assert (found.amount_major, found.unclear) == (None, ("amount_major",))
    assert facts(amount=4200, currency="USD", unit="major").amount_major is None


@pytest.mark.parametrize(
    ("parameters", "places"),
    [
        ({"recipients": ["a@acme.test", "b@x.test"]}, ("acme.test", "x.test")),
        (
            {"recipients": 2, "to": "a@acme.test", "cc": ["b@x.test"]},
            ("acme.test", "x.test"),
        ),
        ({"destinations": ["x.test", "acme.test"]}, ("acme.test", "x.test")),
        (
            {"recipients": ["a@acme.test"], "destinations": ["acme.test", "x.test"]},
            ("acme.test", "x.test"),
        ),
        ({"recipients": 1, "destinations": ["acme.test"]}, ("acme.test",)),
        ({"recipients": ["ada", "a@acme.test"]}, None),
        ({"recipients": 3, "to": ["a@acme.test"]}, None),
        ({"recipients": 3}, None),
        ({"to": "2026-12-31"}, None),
        ({}, None),
    ],
)
def test_destinations_are_those_of_the_addresses_or_stated(
    parameters: dict[str, Any], places: tuple[str, ...] | None
) -> None:
    """Of all recipients, or of none."""
    found = facts(**parameters)
    assert found.destinations == places
    assert "destinations" not in found.unclear
    reached = "recipients" in parameters and places is None
    assert ("destinations" in found.hidden) is reached


@pytest.mark.parametrize(
    "parameters",
    [
        {"destinations": []},
        {"destinations": "acme.test"},
        {"destinations": ["Acme.test"]},
        {"destinations": ["acme.test", 3]},
        {"destinations": ["acme.test"], "Destinations": ["evil.test"]},
        {"destinations": ["acme.test"], "mail": {"destinations": ["evil.test"]}},
        {"destinations": ["acme.test"], "recipients": ["a@evil.test"]},
        {"destinations": ["acme.test"], "recipients": 1, "to": "a@evil.test"},
        {"destinations": ["acme.test"], "recipients": ["a@acme.test", "evil"]},
        {"destinations": ["acme.test"], "recipients": 2, "m": {"bcc": ["a@evil.test"]}},
    ],
)
def test_destinations_that_do_not_cover_all_addresses_are_unclear(
    parameters: dict[str, Any],
) -> None:
    """No address is elsewhere than the request states."""
    found = facts(**parameters)
    assert found.destinations is None
    assert "destinations" in found.unclear


@given(
    st.dictionaries(
        st.sampled_from(
            ["amount", "amount_major", "currency", "destinations", "recipients", "to"]
        ),
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(),
            st.floats(),
            st.sampled_from(["42.50", "USD", "a@acme.test", "acme.test", "NaN"]),
            st.lists(st.sampled_from(["a@acme.test", "acme.test", 3]), max_size=3),
        ),
    ),
    st.sampled_from([None, Money("minor", 2), Money("major", 2), Money("major", 0)]),
)
def test_facts_are_read_again_as_they_were_recorded(
    parameters: dict[str, Any], money: Money | None
) -> None:
    """The ledger has each fact in JSON: a replay decides about the same request."""
    found = paid(money, **parameters)
    context = json.loads(json.dumps(found.context()))
    for name in PARAMETERS:
        assert read_fact(name, context.get(name)) == found.value(name)
    assert tuple(context["unclear"]) == found.unclear


def test_the_recipients_of_more_addresses_than_are_read_are_unclear() -> None:
    """Reading 40,000 of them would keep others waiting for a quarter of a second."""
    some = ["a@b.test"] * MOST_ADDRESSES
    assert how_many("recipients", some) == len(some)
    assert how_many("recipients", [*some, "a@b.test"]) is None
    for to, unclear in ((some, ()), ([*some, "a@b.test"], ("recipients",))):
        action = Action(("send:email",), "send:email", None, {"recipients": to})
        assert derive(action).unclear == unclear
