"""What a half-typed filter may become."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentvault_tui.console.state.completion import MOST, complete
from agentvault_tui.presenters.filters import KEYS, Filter

_VALUES = {
    "outcome": ("allowed", "denied", "escalated"),
    "agent": ("mail-agent", "pay-agent", "Pay Bot", 'a"b', "-odd"),
}


class _Words:
    def values(self, key: str) -> Iterable[str]:
        return _VALUES.get(key, ())

    class saved:  # noqa: N801 - as the attribute it stands for
        @staticmethod
        def all() -> Mapping[str, str]:
            return {"night shift": "outcome:denied since:8h", "pay": "scope:payment"}


def _texts(typed: str) -> list[str]:
    return [found.text for found in complete(typed, _Words())]


def test_what_is_no_key_is_completed_by_what_may_be_meant() -> None:
    """A key like it, or the scope that was begun without its key."""

    class Words(_Words):
        def values(self, key: str) -> Iterable[str]:
            return ("send:email", "send:payment") if key == "scope" else ()

    def texts(typed: str) -> list[str]:
        return [found.text for found in complete(typed, Words())]

    assert texts("x -staus:wai") == ["x -status:wai"]
    assert texts("send:pa") == ["scope:send:payment"]
    assert texts("foo:bar") == []


@pytest.mark.parametrize(
    ("typed", "texts"),
    [
        ("", []),
        ("mail ", []),
        ("ou", ["outcome:"]),
        ("x -OU", ["x -outcome:"]),
        ("ow", ["owner:"]),
        ("outcome:d", ["outcome:denied"]),
        ("outcome:denied", []),
        ("outcome:", ["outcome:allowed", "outcome:denied", "outcome:escalated"]),
        ("x outcome:e", ["x outcome:escalated"]),
        ("agent:pay", ["agent:pay-agent", 'agent:"Pay Bot"']),
        ('agent:"pay', ['agent:"pay-agent"', 'agent:"Pay Bot"']),
        ("agent:-", ['agent:"-odd"', "agent:mail-agent", "agent:pay-agent"]),
        ('agent:"pay-agent"', []),
        ('"out', []),
        ("nokey:x", []),
        ("@", ["outcome:denied since:8h", "scope:payment"]),
        ("risk:high @NIGHT", ["risk:high outcome:denied since:8h"]),
    ],
)
def test_a_half_typed_filter_is_completed(typed: str, texts: list[str]) -> None:
    """Keys, then values that begin so, then values that hold it; saved ones by name."""
    assert _texts(typed) == texts


def test_the_ghost_completion_only_appends() -> None:
    """What would change a letter typed can be taken, but not shown behind it."""
    plain, quoted = complete("agent:pay", _Words())
    assert plain.extends("agent:pay")
    assert not quoted.extends("agent:pay")


@pytest.mark.slow
@given(st.lists(st.sampled_from([*KEYS, ":", '"', "-", " ", "@", "pay", "d"])))
def test_any_text_can_be_completed(parts: list[str]) -> None:
    """Nothing typed breaks it, what stood before stays, and the result is a filter."""
    typed = "".join(parts)
    found = complete(typed, _Words())
    assert len(found) <= MOST
    stays = Filter.parse(typed).terms[:-1]
    for each in found:
        assert Filter.parse(each.text).terms[: len(stays)] == stays
