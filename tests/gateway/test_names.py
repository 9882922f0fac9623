"""Names that a lenient service takes for each other are found."""

from __future__ import annotations

import pytest

from agentvault_tui.gateway.names import (
    alike,
    alike_fields,
    field_names,
    fold_name,
    last_part,
)


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


@pytest.mark.parametrize("name", ["rec\u0131pient", "REC\u0130PIENT"])
def test_the_turkish_i_folds_to_i(name: str) -> None:
    """Java compares characters in both cases, one by one."""
    assert fold_name(name) == "recipient"


@pytest.mark.parametrize(
    "name",
    [
        *("to", "to[]", "to.x", "to[0]", "[to]", "T_o[a][b]", "to:lines", "to(1i)"),
        *("to['x']", 'to["x"]', "!to", ":to", "to*", "to\u200b", "to\uff1alines"),
    ],
)
def test_parts_of_one_field_have_the_same_base(name: str) -> None:
    """PHP, Rack, Express, Rails, Spring and Zope read each of these as ``to``, or as a
    part of it."""
    assert "to" in field_names(name)


def test_only_names_that_differ_in_spelling_are_alike() -> None:
    """The same name repeated is no second spelling."""
    assert alike(["a", "b", "a"]) is None
    assert alike(["count", "to", "Count"]) == ("count", "Count")


@pytest.mark.parametrize("name", ["pay.to", "pay[to", "pay to", ".pay_to", "pay_to[x]"])
def test_names_are_read_as_php_writes_them(name: str) -> None:
    """A dot, and a bracket that is not closed, are an underscore to PHP."""
    assert "payto" in field_names(name)
    assert alike_fields(["pay_to", name]) or name == "pay_to[x]"


@pytest.mark.parametrize("name", ["]to", "[]to", "][to]"])
def test_brackets_before_a_name_are_no_part_of_it(name: str) -> None:
    """Rack 2 leaves them out."""
    assert "to" in field_names(name)


def test_parts_of_different_rows_are_not_alike() -> None:
    """Closed brackets keep the parts of a name apart."""
    assert alike_fields(["rows[1][12]", "rows[11][2]", "a[b]", "a_c"]) is None


@pytest.mark.parametrize(
    "name", ["pay.amount", "pay[amount]", "a[b].Amount", "pay['amount']"]
)
def test_the_last_part_of_a_name_is_a_name(name: str) -> None:
    """ASP.NET Core binds it where its handler calls the object so."""
    assert last_part(name) == "amount"
    assert last_part("amount[]") is None
