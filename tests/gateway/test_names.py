"""Names that a lenient service takes for each other are found."""

from __future__ import annotations

import pytest

from agentvault_tui.gateway.names import alike, base_name, fold_name


@pytest.mark.parametrize(
    "name",
    ["arguments", "Arguments", "argumentſ", "ARGU_MENTS", "argu-ments", " arguments"],
)
def test_spellings_of_one_name_fold_to_the_same(name: str) -> None:
    """Case, the long s, ``_``, ``-`` and blanks make no other name."""
    assert fold_name(name) == "arguments"


def test_the_kelvin_sign_folds_to_k() -> None:
    """U+212A is a k for case-insensitive readers."""
    assert fold_name("to\u212aen") == "token"


@pytest.mark.parametrize("name", ["to", "to[]", "to.x", "to[0]", "[to]", "T_o[a][b]"])
def test_parts_of_one_field_have_the_same_base(name: str) -> None:
    """PHP, Rack and Express read all of these as ``to``, or as a part of it."""
    assert base_name(name) == "to"


def test_only_names_that_differ_in_spelling_are_alike() -> None:
    """The same name repeated is no second spelling."""
    assert alike(["a", "b", "a"]) is None
    assert alike(["count", "to", "Count"]) == ("count", "Count")
