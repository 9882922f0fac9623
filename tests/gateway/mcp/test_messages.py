"""Messages of MCP: read strictly, and written so that nobody reads two."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentvault_tui.gateway.mcp.messages import (
    McpError,
    digest_of,
    one_line,
    read_message,
)
from agentvault_tui.web.reply import decode_header

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@settings(max_examples=50)
@given(VALUES, st.sampled_from([None, 1, 4]), st.booleans())
def test_a_relayed_request_is_one_line_that_means_the_same(
    value: Any, indent: int | None, escaped: bool
) -> None:
    """Whatever its spelling: only the id and the progress token are other ones."""
    sent = {
        "jsonrpc": "2.0",
        "id": "a",
        "method": "tools/call",
        "params": {
            "name": "x",
            "v": value,
            "_meta": {"progressToken": "t", "m": value},
        },
        "unknown": value,
    }
    text = json.dumps(sent, indent=indent, ensure_ascii=escaped)
    try:
        body = text.encode()
        message = read_message(body)
    except (UnicodeEncodeError, McpError):
        return  # a lone surrogate
    line = message.relayed(7, 8)
    assert len(line.decode().splitlines()) == 1
    sent["id"] = 7
    sent["params"]["_meta"]["progressToken"] = 8  # type: ignore[index]
    assert json.loads(line) == sent


@given(st.binary())
def test_rubbish_is_refused_and_nothing_else_is_raised(body: bytes) -> None:
    """Any bytes are a message, or an error of JSON-RPC."""
    read = False
    with contextlib.suppress(McpError):
        read = bool(read_message(body))
    assert not read or json.loads(body)["jsonrpc"] == "2.0"


def test_what_a_person_decides_about_leaves_out_what_a_retry_changes() -> None:
    """Progress token, the protocol's own words and tracing; anything else counts."""

    def held(**meta: Any) -> bytes:
        params = {"name": "x", "arguments": {"b": 1, "a": 2}, "_meta": meta}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        return read_message(json.dumps(body).encode()).held()

    plain = held()
    assert plain == b'{"arguments":{"a":2,"b":1},"name":"x"}'
    assert held(progressToken=1, traceparent="x") == plain
    assert held(**{"io.modelcontextprotocol/clientInfo": {}}) == plain
    assert held(other=1) != plain


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        (b"plain", "plain"),
        (b" edges ", "edges"),
        (b"=?base64?w6Q=?=", "ä"),
        (b"=?base64?w6R=?=", None),
        (b"=?base64?w6Q?=", None),
        (b"=?base64?/w==?=", None),
        (b"\xe4", None),
        (b"=?base64??=", ""),
    ],
)
def test_headers_are_decoded_in_one_way(value: bytes, meant: str | None) -> None:
    """Base64 in its canonical form, of UTF-8; anything else matches nothing."""
    assert decode_header(value) == meant


@given(st.text())
def test_any_text_in_a_header_is_what_was_encoded(text: str) -> None:
    """As official clients encode it."""
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        return
    if text:
        assert decode_header(b"=?base64?%b?=" % base64.b64encode(raw)) == text


def test_separators_keep_their_meaning() -> None:
    """Lines of Unicode are escaped in strings, where alone they can stand."""
    text = '{"a":\r\n"\u2028\u2029\x85"}'
    line = one_line(text.encode())
    assert len(line.decode().splitlines()) == 1
    assert json.loads(line) == json.loads(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"ü": 1.0, "a": [1e2, -0.0]}, '{"a":[100,0],"ü":1}'),
        ({"id": 2**60 + 1, "é": "x"}, '{"id":1152921504606846977,"é":"x"}'),
    ],
)
def test_arguments_have_the_digest_of_their_canonical_form(
    value: object, text: str
) -> None:
    """RFC 8785, so that anyone can recompute it; integers keep all their digits."""
    assert digest_of(value) == hashlib.sha256(text.encode()).hexdigest()
