"""What is passed on is within what was decided, compared as policy reads both."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentvault_tui.model import Action
from agentvault_tui.model.waiting import BOUNDED
from agentvault_tui.policy.facts import derive
from agentvault_tui.policy.subset import wider

MAIL = Action(
    ("send:email", "read:email"),
    "send:email",
    "mailbox:ada",
    {"recipients": ["a@x.test", "b@x.test", "b@x.test"], "subject": "Café"},
)
PAYMENT = Action(
    ("send:payment",),
    "send:payment",
    None,
    {"amount": 100, "currency": "USD", "count": 3, "to": {"iban": "DE1", "n": 1}},
)


def changed(action: Action, **parameters: Any) -> Action:
    return replace(action, parameters={**action.parameters, **parameters})


@pytest.mark.parametrize(
    ("parent", "child"),
    [
        (MAIL, MAIL),
        (MAIL, replace(MAIL, scopes=("send:email",))),
        (MAIL, replace(MAIL, reason="other words")),
        (MAIL, changed(MAIL, recipients=["b@x.test", "b@x.test"])),
        (PAYMENT, changed(PAYMENT, amount=99, count=0)),
        (PAYMENT, changed(PAYMENT, to={"n": 1, "iban": "DE1"})),
        (PAYMENT, replace(PAYMENT, resource="stripe:acct_42")),
    ],
)
def test_less_and_the_same_are_within(parent: Action, child: Action) -> None:
    """Fewer scopes, smaller sums, some of the recipients, a resource named at last."""
    assert wider(parent, child) is None


@pytest.mark.parametrize(
    ("child", "what"),
    [
        (replace(MAIL, scopes=("send:email", "read:files")), "scope"),
        (replace(MAIL, scopes=("Send:email",), action="Send:email"), "scope"),
        (replace(MAIL, action="read:email"), "action"),
        (replace(MAIL, resource="mailbox:Ada"), "resource"),
        (replace(MAIL, resource="mailbox:аda"), "resource"),
        (replace(MAIL, resource="mailbox:ada/archive"), "resource"),
        (replace(MAIL, resource=None), "resource"),
        (changed(MAIL, subject="Cafe\u0301"), "subject"),
        (changed(MAIL, Recipients=1), "Recipients"),
        (changed(MAIL, recipients=["c@x.test"]), "recipients"),
        (changed(MAIL, recipients=["a@x.test"] * 2), "recipients"),
        (changed(MAIL, recipients=1), "recipients"),
        (changed(MAIL, recipients=[]), "recipients"),
        (changed(MAIL, cc=["d@x.test"]), "cc"),
        (replace(MAIL, parameters={"recipients": ["a@x.test"]}), "subject"),
    ],
)
def test_what_is_wider_is_named(child: Action, what: str) -> None:
    """By case, Unicode, look-alikes, a path below, a new or missing parameter."""
    assert wider(MAIL, child) == what


@pytest.mark.parametrize(
    "value", [101, 99.0, 100.0, True, "99", -1, None, [99], {"amount": 99}, 2**53]
)
def test_an_amount_is_smaller_only_where_policy_reads_a_whole_number(
    value: object,
) -> None:
    """A fraction, a text or a negative sum is none that can be compared."""
    assert wider(PAYMENT, changed(PAYMENT, amount=value)) == "amount"


@pytest.mark.parametrize(
    "resource", ["https://a/../b", "a//b", " a", "a%2fb", "a\u200b"]
)
def test_a_resource_that_programs_read_in_several_ways_narrows_nothing(
    resource: str,
) -> None:
    """Where the parent names none, the child's must have one canonical form."""
    assert wider(PAYMENT, replace(PAYMENT, resource=resource)) == "resource"


NAMES = st.sampled_from(
    ["amount", "Amount", "count", "recipients", "currency", "to", "cc", "note", "nоte"]
)
VALUES = st.one_of(
    st.integers(-2, 5),
    st.sampled_from(
        [1.0, 2.0, True, None, "1", "USD", "usd", "a@x.test", ["a@x.test"]]
    ),
    st.lists(st.sampled_from(["a@x.test", "b@x.test"]), max_size=3),
)
ACTIONS = st.builds(
    Action,
    st.sampled_from([("a:b",), ("a:b", "c:d"), ("c:d",), ("A:b",)]),
    st.just("a:b"),
    st.sampled_from([None, "r:1", "R:1", "r:1/x", "r:\u03611"]),
    st.dictionaries(NAMES, VALUES, max_size=4),
    st.none(),
    st.booleans(),
)


@pytest.mark.slow
@given(ACTIONS, ACTIONS)
def test_what_is_within_has_no_fact_that_is_larger_or_another(
    parent: Action, child: Action
) -> None:
    """For any pair that passes, each fact of policy's is the same, or a smaller sum."""
    if wider(parent, child) is not None:
        return
    before, after = derive(parent), derive(child)
    assert set(child.scopes) <= set(parent.scopes)
    assert child.parameters.keys() == parent.parameters.keys()
    assert set(after.unclear) <= set(before.unclear)
    assert after.resource == before.resource or parent.resource is None
    for name in BOUNDED:
        most, now = before.value(name), after.value(name)
        if most is None:
            assert json.dumps(child.parameters.get(name)) == json.dumps(
                parent.parameters.get(name)
            )
        else:
            assert isinstance(now, int)
            assert now <= int(most)


@pytest.mark.slow
@given(ACTIONS, ACTIONS, ACTIONS)
def test_within_is_transitive(one: Action, two: Action, three: Action) -> None:
    """Whatever is passed on from hop to hop is within what was decided first."""
    assert wider(one, one) is None
    if wider(one, two) is None and wider(two, three) is None:
        assert wider(one, three) is None
