"""What a CIBA request may say: each rule's refusal, and nothing but refusals."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.tenant.ciba import asked, details

ISSUER = "http://127.0.0.1:7719/"
HINT = {"format": "iss_sub", "iss": "https://127.0.0.1/", "sub": "auth0|1"}
FORM = {"login_hint": json.dumps(HINT), "scope": "openid", "binding_message": "7F3A"}
TYPES = frozenset({"payment"})
_plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=260)
_json = st.recursive(
    _plain,
    lambda inner: (
        st.lists(inner, max_size=6)
        | st.dictionaries(st.text(max_size=20), inner, max_size=12)
    ),
    max_leaves=8,
)
_detail = st.dictionaries(
    st.sampled_from(["amount", "to", "type", "a b", "x" * 256]) | st.text(max_size=4),
    _json,
    max_size=4,
).map(lambda members: {"type": "payment", **members})


def hint(**members: Any) -> dict[str, str]:
    said = {**HINT, **members}
    return {"login_hint": json.dumps({k: v for k, v in said.items() if v is not None})}


@pytest.mark.parametrize(
    ("members", "error", "text"),
    [
        ({"scope": None}, "invalid_request", "Missing required parameter: scope"),
        ({"scope": "profile"}, "invalid_request", "openid scope must be requested"),
        ({"scope": "xopenid"}, "invalid_request", "openid scope must be requested"),
        ({"login_hint": None}, "invalid_request", "login_hint"),
        ({"login_hint": "auth0|1"}, "invalid_request", "iss_sub"),
        ({"login_hint": '["iss_sub"]'}, "invalid_request", "iss_sub"),
        ({"login_hint": {"format": "iss_sub"}}, "invalid_request", "string"),
        (hint(format="email"), "invalid_request", "iss_sub"),
        (
            hint(iss="https://elsewhere.test/"),
            "unknown_user_id",
            "malformed or unknown",
        ),
        (hint(iss="https://[/"), "unknown_user_id", "malformed or unknown"),
        (hint(iss=None), "unknown_user_id", "malformed or unknown"),
        (hint(sub=""), "unknown_user_id", "malformed or unknown"),
        (hint(sub=7), "unknown_user_id", "malformed or unknown"),
        ({"binding_message": None}, "invalid_request", "binding_message"),
        ({"binding_message": "x" * 65}, "invalid_binding_message", "64"),
        ({"binding_message": "see http://evil"}, "invalid_binding_message", "64"),
        ({"binding_message": "café"}, "invalid_binding_message", "64"),
        ({"binding_message": "one\n"}, "invalid_binding_message", "64"),
        ({"requested_expiry": "0"}, "invalid_request", "1 to 259200"),
        ({"requested_expiry": "259201"}, "invalid_request", "1 to 259200"),
        ({"requested_expiry": "-1"}, "invalid_request", "1 to 259200"),
        ({"requested_expiry": "1e2"}, "invalid_request", "1 to 259200"),
        ({"requested_expiry": "٣"}, "invalid_request", "1 to 259200"),
        ({"requested_expiry": 1.5}, "invalid_request", "1 to 259200"),
        ({"requested_expiry": True}, "invalid_request", "1 to 259200"),
        ({"audience": ["https://a.test/"]}, "invalid_request", "string"),
    ],
)
def test_each_rule_has_its_refusal(
    members: dict[str, Any], error: str, text: str
) -> None:
    """One wrong member, one code, and words that say which it was."""
    whole = {**FORM, **members}
    said = {name: value for name, value in whole.items() if value is not None}
    with pytest.raises(TenantRefusedError) as caught:
        asked.read(said, ISSUER)
    assert caught.value.error == error
    assert text in caught.value.what


def test_what_is_documented_is_taken() -> None:
    """Every character of the binding message, the longest of all, and the defaults."""
    message = "Az09+-_.,:# " + "x" * 52
    found = asked.read({**FORM, "binding_message": message}, ISSUER)
    assert found == asked.Asked("auth0|1", "openid", message, None, 300, None)
    longest = {"requested_expiry": "259200", "resource": "https://a.test/"}
    found = asked.read({**FORM, **longest, "audience": "None"}, ISSUER)
    assert (found.expiry, found.audience) == (259_200, "https://a.test/")
    found = asked.read({**FORM, "authorization_details": [{"type": "é"}]}, ISSUER)
    assert found.details == '[{"type":"é"}]'


@given(st.dictionaries(st.sampled_from([*FORM, "audience", "requested_expiry"]), _json))
def test_nothing_else_comes_of_what_is_sent(members: dict[str, Any]) -> None:
    """Any members at all are read, within the limits, or refused with a code."""
    try:
        found = asked.read({**FORM, **members}, ISSUER)
    except TenantRefusedError:
        return
    assert "openid" in found.scope.split()
    assert 0 < len(found.binding_message) <= 64
    assert found.binding_message.isascii()
    assert found.binding_message.isprintable()
    assert 1 <= found.expiry <= 259_200


def nested(levels: int) -> Any:
    return {"type": "payment", "in": nested(levels - 1)} if levels else 1


LARGEST = [
    {"type": "payment", **{f"p{n}": "é" * 90 for n in range(9)}},
    *[{"type": "payment"}] * 4,
]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([{"type": "payment", "a.b_c-D9": "x" * 255}]),
        json.dumps([nested(5)]),
        json.dumps(LARGEST, ensure_ascii=False),
        '[{"type":"payment","pad":"' + "x" * 255 + '"}]' + " " * (5 * 1024 - 284),
    ],
)
def test_details_up_to_each_limit_are_taken(text: str) -> None:
    """Five objects, ten properties, five levels, 255 characters and 5 KB are in."""
    assert details.read(text, TYPES) == json.loads(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "{}", "[]", "[1]", '["payment"]', "[[]]", "[{}]", "nonsense",
        '[{"type":"other"}]', '[{"type":["payment"]}]', '[{"type":"payment","a":NaN}]',
        '[{"type":"payment","type":"payment"}]',
        json.dumps([{"type": "payment"}] * 6),
        json.dumps([{"type": "payment", **{f"p{n}": 1 for n in range(10)}}]),
        json.dumps([{"type": "payment", "in": {f"p{n}": 1 for n in range(11)}}]),
        json.dumps([nested(6)]),
        json.dumps([{"type": "payment", "a b": 1}]),
        json.dumps([{"type": "payment", "in": {"": 1}}]),
        json.dumps([{"type": "payment", "x" * 256: 1}]),
        json.dumps([{"type": "payment", "a": "x" * 256}]),
        json.dumps([{"type": "payment", "a": [{"b": "x" * 256}]}]),
        json.dumps([{"type": "payment"}]) + " " * 5120,
        "[" * 50_000,
    ],
)  # fmt: skip
def test_details_beyond_a_limit_are_refused(text: str) -> None:
    """Unknown, malformed or too large: refused whole, with RFC 9396's code."""
    with pytest.raises(TenantRefusedError) as caught:
        details.read(text, TYPES)
    assert caught.value.error == "invalid_authorization_details"


@settings(max_examples=60)
@given(st.lists(_detail, min_size=1, max_size=6))
def test_details_are_what_was_sent_or_refused(members: list[dict[str, Any]]) -> None:
    """What a person is shown is what the client sent, and never a part of it."""
    text = json.dumps(members)
    try:
        found = details.read(text, TYPES)
    except TenantRefusedError:
        return
    assert found == json.loads(text)
    assert len(found) <= 5
    assert len(text.encode()) <= 5 * 1024
