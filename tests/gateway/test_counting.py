"""What a document states is counted wherever a server may read it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentvault_tui.gateway.counting import ArgumentPlace, inner_document, stated_twice

PLACES = {"recipients": ArgumentPlace(("to",), addressed=True)}
INNER: dict[str, Any] = {"bcc": ["p0@elsewhere.test"]}


@pytest.mark.parametrize(
    "options",
    [
        INNER,
        json.dumps(INNER),
        f"\n {json.dumps(INNER)} ",
        json.dumps([INNER]),
        json.dumps({"more": json.dumps(INNER)}),
        '{"bcc": ["p0@elsewhere.test"], "bcc": []}',
        '{"bcc": [1], "n": ' + "1" * 5_000 + "}",
        '{"bcc": ["a\tb"], "n": NaN}',
        "[" * 100_000,
    ],
)
def test_a_document_in_a_text_states_what_it_holds(options: object) -> None:
    """The Python SDK of MCP reads such a text as the document."""
    given = {"to": ["ann@acme.test"], "options": options}
    assert stated_twice(PLACES, given) == {"recipients"}


@pytest.mark.parametrize("options", ["bcc", '"bcc"', "{bcc}", '{"subject": "bcc"}'])
def test_a_text_without_the_name_states_nothing(options: str) -> None:
    """Prose, and a document about something else."""
    assert stated_twice(PLACES, {"to": ["a@b.test"], "text": options}) == frozenset()


def test_a_document_keeps_the_digits_of_its_numbers() -> None:
    """Whatever is no object and no array stays the text that it is."""
    assert inner_document('{"a": [1.50, 2]}') == {"a": ["1.50", "2"]}
    assert [inner_document(one) for one in ("", "1", "[x]", '"{}"')] == [None] * 4
