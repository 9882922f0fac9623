"""The catalogue of scopes: what is shipped, and what a home may put in its place."""

from __future__ import annotations

from typing import Any

import pytest

from agentvault_tui.errors import PolicyError
from agentvault_tui.model import Risk
from agentvault_tui.policy import Catalogue, Effect, is_scope_name, shipped_catalogue

GOOD = """
[scopes."read:boats"]
description = "See the boats."
risk = "low"
revoking = "Stops seeing them."
"""


def test_shipped_catalogue_covers_the_nine_areas() -> None:
    """The shipped catalogue has a scope for each area the product promises."""
    nouns = {scope.name.partition(":")[2].rstrip("s") for scope in shipped_catalogue()}
    areas = "calendar email file contact finance payment record code chat"
    assert set(areas.split()) <= nouns


def test_every_shipped_scope_says_what_it_does_and_what_revoking_means() -> None:
    """Each scope has two whole sentences and a name agents may send."""
    for scope in shipped_catalogue():
        assert is_scope_name(scope.name)
        assert scope.description.endswith(".")
        assert scope.revoking.endswith(".")


def test_what_moves_money_or_deletes_is_high_risk_in_its_group() -> None:
    """No shipped payment or deletion is less than high, or outside its group."""
    catalogue = shipped_catalogue()
    for scope in catalogue:
        verb, _, noun = scope.name.partition(":")
        if verb == "delete":
            assert catalogue.effect(scope.name) is Effect.DELETE
        if noun == "payment":
            assert catalogue.effect(scope.name) is Effect.PAY
        if catalogue.effect(scope.name) in {Effect.DELETE, Effect.PAY}:
            assert scope.risk is Risk.HIGH


@pytest.mark.parametrize("name", ["read:calendar", "write:x", "a-b:c_d2", "r:n"])
def test_plain_scope_names_are_accepted(name: str) -> None:
    """Lower-case verb:noun, with - and _ between words, is a scope name."""
    assert is_scope_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ":",
        "read",
        "read:",
        ":calendar",
        "Read:calendar",
        "read:calendar\n",
        "read:calendar ",
        "read:cal endar",
        "read:a:b",
        "re\u0430d:calendar",
        "read:\u202ecalendar",
        "-a:b",
        "a--b:c",
        "1a:b",
        "read:" + "x" * 60,
        'read:"x"',
        "read:*",
    ],
)
def test_anything_else_is_no_scope_name(name: str) -> None:
    """Spaces, capitals, look-alikes, wildcards and long names are refused."""
    assert not is_scope_name(name)


@pytest.mark.parametrize(
    ("asked", "first"),
    [
        ("calendar:read", "read:calendar"),
        ("raed:calendar", "read:calendar"),
        ("READ:CALENDAR", "read:calendar"),
        ("send:emial", "send:email"),
        ("delete:record", "delete:records"),
        ("payment", "send:payment"),
    ],
)
def test_nearest_names_come_first(asked: str, first: str) -> None:
    """Swapped, mistyped and shouted names lead to the scope that was meant."""
    assert shipped_catalogue().nearest(asked)[0] == first


def test_nearest_is_bounded_for_hostile_names() -> None:
    """A name of any size and content yields at most three known names."""
    catalogue = shipped_catalogue()
    for hostile in ("x" * 100_000, "\x1b]0;\x07", "\ud800", ":" * 5000, ""):
        near = catalogue.nearest(hostile)
        assert len(near) <= 3
        assert all(name in catalogue for name in near)


def test_home_catalogue_is_read_with_its_effect_inferred() -> None:
    """A scope without an effect gets one from its verb and noun."""
    text = GOOD + GOOD.replace("read:boats", "wire:funds").replace("low", "high")
    catalogue = Catalogue.parse(text, "scopes.toml")
    assert [scope.name for scope in catalogue] == ["read:boats", "wire:funds"]
    assert catalogue.effect("read:boats") is Effect.READ
    assert catalogue.effect("wire:funds") is Effect.PAY
    assert catalogue.get("read:boats").risk is Risk.LOW
    assert catalogue.get("read:calendar") is None


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("[scopes", "", "not TOML"),
        ("", "", "holds no scopes"),
        ("[scopes]\n", "", "holds no scopes"),
        ("[scope.x]\na = 1\n", "line 1", "unknown table scope"),
        (GOOD.replace("read:boats", "Read Boats"), "line 2", "not a scope name"),
        (GOOD.replace('"low"', '"severe"'), "line 2", "low, medium, high"),
        (GOOD.replace('"low"', "3"), "line 2", "low, medium, high"),
        (GOOD.replace("revoking", "revokin"), "line 2", "did you mean revoking"),
        (GOOD.replace('"See the boats."', '"  "'), "line 2", "has no description"),
        (GOOD.replace('"See the boats."', "[1]"), "line 2", "has no description"),
        (GOOD.replace("boats.", "\u202eboats."), "line 2", "hidden characters"),
        (GOOD.replace("boats.", "b" * 400), "line 2", "too long"),
        (GOOD + 'effect = "burn"\n', "line 2", "it may be read, write"),
        ('[scopes]\n"read:boats" = 1\n', "", "not a table"),
        ("a = " + "[" * 5000, "", "not TOML"),
        ("a = " + "1" * 5000, "", "not TOML"),
    ],
)
def test_malformed_catalogues_are_refused_with_line_and_reason(
    text: str, line: Any, says: str
) -> None:
    """Each fault is told with where it stands and what is wrong."""
    with pytest.raises(PolicyError) as caught:
        Catalogue.parse(text, "scopes.toml")
    assert says in caught.value.diagnosis()
    assert line in caught.value.diagnosis()
    assert caught.value.diagnosis().startswith("scopes.toml")


def test_version_changes_with_any_word() -> None:
    """Two catalogues have one version only when they say the same."""
    first = Catalogue.parse(GOOD, "a")
    assert first.version == Catalogue.parse("# note\n" + GOOD, "b").version
    assert first.version != Catalogue.parse(GOOD.replace("low", "medium"), "a").version
    assert first.version != Catalogue.parse(GOOD.replace("See", "Se"), "a").version
