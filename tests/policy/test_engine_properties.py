"""What holds of the shipped policy whatever is asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.policies import CATALOGUE, ENVIRONMENT, NAMES, SHIPPED, action, outcome

from agentvault_tui.model import Agent, Outcome
from agentvault_tui.policy import Effect
from agentvault_tui.policy.facts import derive

values = (
    st.integers(-5, 600)
    | st.booleans()
    | st.floats()
    | st.text(max_size=6)
    | st.none()
    | st.lists(st.text(max_size=6) | st.integers(), max_size=30)
)
parameters_of = st.dictionaries(
    st.sampled_from(["recipients", "amount", "currency", "count", "Count", "bcc"]),
    values,
)


@pytest.mark.slow
@given(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3), parameters_of)
def test_nothing_unclear_is_ever_allowed(
    agent: Agent, scopes: Any, parameters: Any
) -> None:
    """Whatever cannot be relied on goes to a person, for every scope."""
    asked = action(*scopes, **parameters)
    verdict = SHIPPED.decide(agent, asked, ENVIRONMENT)
    if derive(asked).unclear:
        assert verdict.outcome is Outcome.ESCALATED
    sends = any(CATALOGUE.effect(name) is Effect.SEND for name in scopes)
    if sends and verdict.outcome is Outcome.ALLOWED:
        assert 1 <= derive(asked).recipients <= 20


@given(
    st.sampled_from(NAMES),
    st.integers(1, 1000),
    st.integers(1, 1000),
    st.sampled_from(["recipients", "count", "amount"]),
)
def test_more_parameters_never_loosen_an_answer(
    agent: Agent, name: str, few: int, more: int, parameter: str
) -> None:
    """More recipients, changes or money never lead to a milder answer."""
    few, more = sorted((few, more))
    extra = {"recipients": 1} if parameter != "recipients" else {}
    strictness = [
        outcome(agent, name, **{**extra, parameter: n, "currency": "USD"}).strictness
        for n in (few, more)
    ]
    assert strictness[0] <= strictness[1]


@pytest.mark.slow
@given(
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True),
    st.sets(st.sampled_from(NAMES)),
    parameters_of,
)
def test_adding_a_scope_never_loosens(
    agent_with: Callable[..., Agent], scopes: Any, granted: Any, parameters: Any
) -> None:
    """A request for more is never answered more mildly than a request for less."""
    agent = agent_with(*granted)
    answers = [
        outcome(agent, *scopes[: n + 1], **parameters).strictness
        for n in range(len(scopes))
    ]
    assert answers == sorted(answers)
    if not set(scopes) <= granted:
        assert outcome(agent, *scopes, **parameters) is Outcome.DENIED
