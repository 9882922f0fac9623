"""A difference is found: each report, row or wire here differs in one thing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from differential.comparing import (
    Rules,
    asked_and_wire,
    call_and_report,
    cut_and_row,
    decided_and_report,
    wire_and_row,
)
from differential.reading import Message, call_of, sha256

FORM = "application/x-www-form-urlencoded"
BODY = b"to=a&to=b&x.y=1"
MESSAGE = Message(
    "POST",
    "/form/a%20b?amount=1&q=",
    (
        ("host", "service.test"),
        ("content-type", FORM),
        ("content-length", str(len(BODY))),
        ("if-match", '"1"'),
    ),
    BODY,
)
ROW = {
    "method": "POST",
    "path": "/form/a%20b",
    "query": "amount=1&q=",
    "headers": {"if-match": '"1"'},
    "dropped": ["x-forwarded-for"],
    "body_bytes": len(BODY),
    "body_sha256": sha256(BODY),
}
REPORT = {
    "method": "POST",
    "path": "/form/a b",
    "query": [["amount", "1"], ["q", ""]],
    "headers": dict(MESSAGE.fields),
    "length": len(BODY),
    "sha256": sha256(BODY),
    "kind": "form",
    "json": None,
    "form": [["to", "a"], ["to", "b"], ["x.y", "1"]],
    "files": [],
    "watched": {"amount": ["1"], "to": [], "count": []},
}
ASKED = frozenset(["if-match", "x-forwarded-for"])
NESTED = Rules(nests=True, last_wins=True, php_names=True)
NESTED_REPORT = {
    **REPORT,
    "query": {"amount": "1", "q": ""},
    "form": {"to": "b", "x_y": "1"},
}


def differences(report: Mapping[str, Any], rules: Rules) -> list[str]:
    return list(call_and_report(call_of(MESSAGE), MESSAGE, report, rules))


@pytest.mark.parametrize(
    ("report", "rules"), [(REPORT, Rules()), (NESTED_REPORT, NESTED)]
)
def test_an_equal_report_has_no_difference(report: Any, rules: Rules) -> None:
    """The call, read with the rules of a server, equals that server's report."""
    assert differences(report, rules) == []
    assert list(wire_and_row(MESSAGE, ROW, ASKED)) == []


@pytest.mark.parametrize(
    ("report", "rules", "change"),
    [
        (REPORT, Rules(), {"method": "DELETE"}),
        (REPORT, Rules(), {"path": "/form/a%20b"}),
        (REPORT, Rules(), {"query": [["amount", "1"]]}),
        (REPORT, Rules(), {"query": [["amount", "1"], ["q", ""], ["q", ""]]}),
        (REPORT, Rules(), {"headers": {**REPORT["headers"], "x-smuggled": "1"}}),
        (REPORT, Rules(), {"length": 2}),
        (REPORT, Rules(), {"sha256": sha256(b"other")}),
        (REPORT, Rules(), {"kind": None}),
        (REPORT, Rules(), {"kind": "json"}),
        (REPORT, Rules(), {"form": [["to", "b"], ["to", "a"], ["x.y", "1"]]}),
        (NESTED_REPORT, NESTED, {"form": {"to": "a", "x_y": "1"}}),
        (NESTED_REPORT, NESTED, {"form": {"to": "b", "x_y": "b"}}),
        (NESTED_REPORT, NESTED, {"form": {"to": "b"}}),
        (NESTED_REPORT, NESTED, {"form": {"to": "b", "x_y": "1", "z": ""}}),
        (NESTED_REPORT, NESTED, {"form": {"to": ["a", "b"], "x_y": "1"}}),
        (NESTED_REPORT, Rules(nests=True), {"form": {"to": "b", "x.y": "1"}}),
    ],
)
def test_a_report_that_differs_in_one_thing_is_a_difference(
    report: Any, rules: Rules, change: Any
) -> None:
    """No rule of a server hides another value, name, method, header or length."""
    assert differences({**report, **change}, rules)


@pytest.mark.parametrize(
    "change",
    [
        {"method": "PUT"},
        {"path": "/form/a b"},
        {"query": "amount=1"},
        {"query": None},
        {"headers": {}},
        {"headers": {"if-match": '"2"'}},
        {"dropped": ["If-Match"]},
        {"dropped": []},
        {"body_bytes": None},
        {"body_sha256": sha256(b"")},
    ],
)
def test_a_row_that_differs_from_the_wire_is_a_difference(change: Any) -> None:
    """The row holds the call as it was sent, and names each header that was dropped."""
    assert list(wire_and_row(MESSAGE, {**ROW, **change}, ASKED))


LAZY = Rules(lazy=True)
CUT = {**ROW, "request_whole": False, "bytes_out": 4}


@pytest.mark.parametrize(
    ("change", "body", "rules", "is_equal"),
    [
        ({}, BODY[:4], LAZY, True),
        ({}, b"", LAZY, True),
        ({"body_bytes": 5, "body_sha256": sha256(BODY[:5])}, BODY[:4], LAZY, True),
        ({}, BODY[:4], Rules(), False),
        ({"request_whole": True}, BODY[:4], LAZY, False),
        ({"request_whole": None}, BODY[:4], LAZY, False),
        ({"body_bytes": 5}, BODY[:4], LAZY, False),
        ({"bytes_out": 3}, BODY[:4], LAZY, False),
        ({}, b"to=b", LAZY, False),
    ],
)
def test_a_body_that_ends_early_is_the_beginning_of_the_one_in_the_row(
    change: Any, body: bytes, rules: Rules, is_equal: bool
) -> None:
    """Only of a server that leaves bodies unread, and if the row says so."""
    message = replace(MESSAGE, body=body, is_whole=False)
    assert (not list(cut_and_row(message, {**CUT, **change}, BODY, rules))) is is_equal
    assert list(wire_and_row(MESSAGE, CUT, ASKED))


@pytest.mark.parametrize(
    ("declared", "decided", "values"),
    [("amount", {"amount": 2}, ["1"]), ("to", {}, ["eve"]), ("to", {"to": "a"}, ["b"])],
)
def test_another_value_than_the_decided_one_is_a_difference(
    declared: str, decided: Any, values: Any
) -> None:
    """A handler finds the parameter that policy read, and none where it read none."""
    report = {**REPORT, "watched": {declared: values}}
    assert list(decided_and_report(decided, frozenset([declared]), report))
    assert not list(decided_and_report({declared: None}, frozenset([declared]), report))


def test_numbers_are_compared_as_programs_hold_them() -> None:
    """A form has texts only, so 1 in a form is the number that policy read."""
    report = {**REPORT, "watched": {"amount": ["1", 1, 1.0]}}
    assert not list(decided_and_report({"amount": 1}, frozenset(["amount"]), report))


def test_what_an_agent_sent_is_what_leaves() -> None:
    """A pair that the gateway drops, adds or changes on its way is a difference."""
    call = call_of(MESSAGE)
    assert not list(asked_and_wire(call, call))
    for change in ({"pairs": ()}, {"method": "GET"}, {"content": (("to", "a"),)}):
        assert list(asked_and_wire(call, replace(call, **change)))
