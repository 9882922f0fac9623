"""A page shows a bounded part of a change, and says how much is left out."""

from __future__ import annotations

from typing import Any

from msgspec import convert

from agentvault_tui.broker.riders import text_change
from agentvault_tui.broker.shown_texts import shown_request, shown_texts
from agentvault_tui.operator_api.requests import AgentRequest, ScopesRequest
from agentvault_tui.tenant.details import PageTexts


def test_lines_are_bounded_over_all_texts() -> None:
    """The second text gets what the first leaves; each says how many lines it lacks."""
    first = text_change("one", None, "".join(f"{n}\n" for n in range(150)))
    second = text_change("two", "", "".join(f"{n}\n" for n in range(150)))
    page = convert(shown_texts([first, second]), PageTexts)
    assert [(len(one.lines), one.left) for one in page.texts] == [(151, 0), (49, 102)]
    assert page.texts[1].lines[1] == "+0"


def test_a_line_is_truncated_and_characters_are_bounded() -> None:
    """One file cannot make a page that the tenant's listener refuses."""
    long = text_change("one", None, f"{'a' * 1_000}\n" * 100)
    (shown,) = convert(shown_texts([long]), PageTexts).texts
    assert shown.lines[1].endswith("… 501 characters more")
    assert sum(map(len, shown.lines)) <= 16_000
    assert shown.left == 101 - len(shown.lines)


def test_texts_beyond_forty_are_counted() -> None:
    """The others are read on the command line."""
    found = convert(shown_texts([text_change("n", None, "a\n")] * 43), PageTexts)
    assert (len(found.texts), found.more) == (40, 3)


def shown(details: dict[str, Any], **members: Any) -> dict[str, Any]:
    body = convert({"agent_id": "agt_1", **members}, ScopesRequest)
    return shown_request(body, ("serves",), details)


def test_a_member_that_no_detail_names_is_shown() -> None:
    """And one that a detail names otherwise; but not what is absent or apart."""
    found = shown({"grant": ["a"]}, grant=["a"], seconds=60, serves=["x"])
    assert found == {"grant": ["a"], "agent_id": "agt_1", "seconds": 60}
    found = shown({"grant": ["a"]}, grant=["a", "b"])
    assert found["request: grant"] == ["a", "b"]


def test_scopes_in_another_order_are_shown_once() -> None:
    """The order of scopes means nothing; a scope more is shown."""
    found = shown({"grant": ["a", "b"]}, grant=["b", "a"])
    assert found == {"grant": ["a", "b"], "agent_id": "agt_1"}
    found = shown({"grant": ["a", "b"]}, grant=["b", "a", "c"])
    assert found["request: grant"] == ["b", "a", "c"]


def test_a_long_value_says_how_much_is_left() -> None:
    """Texts by characters, lists by items, tables as one text for each name."""
    found = shown({}, grant=[f"s{n}" for n in range(103)])
    assert found["grant"][99:] == ["s99", "3 more: agentvault changes show"]
    key = {f"m{n}": "v" * 600 for n in range(2)}
    body = convert({"name": "n", "purpose": "p" * 600, "public_key": key}, AgentRequest)
    found = shown_request(body, (), {})
    assert found["purpose"].endswith("… 100 characters more")
    assert [one[:4] for one in found["public_key"]] == ["m0: ", "m1: "]
