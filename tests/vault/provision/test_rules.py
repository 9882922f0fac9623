"""What should stand in a field: settled once, settled for good."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentvault_tui.vault.provision.rules import (
    AllButOurs,
    AtLeast,
    FieldChange,
    InOrder,
    Is,
    Ref,
    Rule,
    SameSet,
    body,
    compare,
)

WORDS = st.lists(st.sampled_from("abcdef"), unique=True)
IDS = {letter: f"id-{letter}" for letter in "abcdef"}
STANDING = st.lists(st.sampled_from([*IDS.values(), "other", "more"]), unique=True)
SCOPES = st.lists(
    st.fixed_dictionaries({"value": st.sampled_from("abc"), "description": st.text()}),
    unique_by=lambda one: one["value"],
)


def refs(letters: list[str]) -> tuple[Ref, ...]:
    return tuple(Ref(letter) for letter in letters)


@given(st.one_of(STANDING, st.none(), st.booleans()), WORDS)
def test_a_settled_field_needs_no_second_change(now: Any, wanted: list[str]) -> None:
    """Whatever stands there: what a rule makes of it, it leaves alone afterwards."""
    rules: list[Rule] = [
        Is(wanted),
        SameSet(tuple(wanted)),
        AtLeast(tuple(wanted)),
        AllButOurs(refs(list("abc")), refs([one for one in wanted if one in "abc"])),
        InOrder(refs(wanted)),
    ]
    for rule in rules:
        after = rule.settle(now, IDS)
        assert rule.settle(after, IDS) == after
        assert compare({"field": rule}, {"field": after}, IDS) == ()


@given(STANDING, WORDS)
def test_values_of_others_are_kept(now: list[str], wanted: list[str]) -> None:
    """Lists that are shared only grow, and keep the order of what is not ours."""
    ours = {IDS[letter] for letter in wanted}
    for rule in (AllButOurs((), refs(wanted)), InOrder(refs(wanted))):
        after = rule.settle(now, IDS)
        assert set(after) == set(now) | ours
        assert [one for one in after if one not in ours] == [
            one for one in now if one not in ours
        ]


@given(STANDING, WORDS, WORDS)
def test_unwanted_values_of_ours_are_removed(
    now: list[str], ours: list[str], wanted: list[str]
) -> None:
    """Those that are not wanted go, also when nobody knows their id; others stay."""
    wanted = [one for one in wanted if one in ours]
    after = AllButOurs(refs(ours), refs(wanted)).settle(now, IDS)
    gone = {IDS[one] for one in ours if one not in wanted}
    assert set(after) == (set(now) - gone) | {IDS[one] for one in wanted}
    assert [one for one in after if one in now] == [one for one in now if one in after]


@given(STANDING, WORDS)
def test_our_actions_keep_their_order(now: list[str], wanted: list[str]) -> None:
    """Wherever they stood, one comes after the other in the end."""
    after = InOrder(refs(wanted)).settle(now, IDS)
    assert [one for one in after if one in {IDS[x] for x in wanted}] == [
        IDS[letter] for letter in wanted
    ]


@pytest.mark.slow
@given(SCOPES, SCOPES)
def test_objects_are_the_same_by_their_key(
    now: list[dict[str, str]], wanted: list[dict[str, str]]
) -> None:
    """A scope that stands keeps its words; one that is missing comes after it."""
    after = AtLeast(tuple(wanted), key="value").settle(now, {})
    assert after[: len(now)] == now
    values = [one["value"] for one in after]
    assert len(values) == len(set(values))
    assert {one["value"] for one in wanted} <= set(values)


def test_only_what_changes_is_sent_with_what_stands_beside_it() -> None:
    """A member is replaced as a whole, so its other parts are sent along."""
    now = {"name": "x", "refresh_token": {"rotation_type": "rotating", "leeway": 5}}
    rules = {"name": Is("x"), "refresh_token.rotation_type": Is("non-rotating")}
    changes = compare(rules, now, {})
    assert changes == (
        FieldChange("refresh_token.rotation_type", "rotating", "non-rotating"),
    )
    assert body(changes, now, {}) == {
        "refresh_token": {"rotation_type": "non-rotating", "leeway": 5}
    }


def test_null_differs_from_missing() -> None:
    """A field that is absent and should be null is a change; one that is null, none."""
    assert compare({"x": Is(None)}, {"x": None}, {}) == ()
    assert len(compare({"x": Is(None)}, {}, {})) == 1
