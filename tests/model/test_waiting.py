"""Requests that wait, and repeats that are approved with one."""

from __future__ import annotations

import pytest

from agentvault_tui import model
from agentvault_tui.model import ParameterBound, Repeat, StepUpStatus, repeat_words


def test_a_repeat_is_worded_with_its_bounds() -> None:
    """The sentence has the number, the time, and each bound in a fixed order."""
    words = repeat_words(3, 1800, {"recipients": 2, "amount": 5_000})
    assert words == (
        "the next 3 like it within 1,800 s, amount up to 5,000, recipients up to 2"
    )


def test_the_digest_covers_what_a_repeat_allows() -> None:
    """The decision's subject holds the count, the time and the bounds."""
    repeat = Repeat(3, 60, (ParameterBound("amount", 5_000),), left=2)
    assert repeat.request == {
        "count": 3,
        "within": 60,
        "bounds": {"amount": {"max": 5_000}},
    }


def test_only_undecided_requests_are_open() -> None:
    """A decision is possible before and during the approver's sign-in."""
    opened = {one for one in StepUpStatus if one.open}
    assert opened == {StepUpStatus.PENDING, StepUpStatus.AUTHORIZING}


def test_every_type_of_the_door_is_there() -> None:
    """Each name of `__all__` can be imported, and no other name is made up."""
    assert all(hasattr(model, name) for name in model.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Token2'"):
        _ = model.Token2  # type: ignore[attr-defined]
