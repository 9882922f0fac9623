"""Messages of MCP: read strictly, and written so that nobody reads two."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import pickle
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.service_requests import ROUNDED

from agentvault_tui.gateway.mcp.errors import McpError
from agentvault_tui.gateway.mcp.members import MOST_OBJECTS, MOST_VALUES
from agentvault_tui.gateway.mcp.messages import digest_of, one_line, read_message
from agentvault_tui.gateway.sources import find_number
from agentvault_tui.json_document import Number
from agentvault_tui.web.reply import decode_header

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(1 - 2**53, 2**53 - 1) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def body_of(method: str, **members: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, **members}).encode()


@settings(max_examples=50)
@given(VALUES, st.sampled_from([None, 1, 4]), st.booleans())
def test_a_request_is_sent_as_one_line_with_the_members_of_its_method(
    value: Any, indent: int | None, escaped: bool
) -> None:
    """Whatever its spelling: arguments mean the same, other members are dropped."""
    sent = {
        "jsonrpc": "2.0",
        "id": "a",
        "method": "tools/call",
        "params": {
            "name": "x",
            "arguments": {"v": value},
            "other": value,
            "_meta": {"progressToken": "t", "com.example/m": value},
        },
        "unknown": value,
    }
    text = json.dumps(sent, indent=indent, ensure_ascii=escaped)
    try:
        message = read_message(text.encode())
    except (UnicodeEncodeError, McpError):
        return  # a lone surrogate, or names that fold alike
    line = message.encoded(7, 8)
    assert len(line.decode().splitlines()) == 1
    params = {"name": "x", "arguments": {"v": value}, "_meta": {"progressToken": 8}}
    built = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}
    assert json.loads(line) == built
    assert message.dropped == ("unknown", "params.other", "_meta.com.example/m")


def test_numbers_are_sent_and_shown_with_their_digits() -> None:
    """``1.50`` is not ``1.5``."""
    text = b'{"b":1.50,"a":[-0,1e2,9007199254740991]}'
    body = b'{"params":{"arguments":%b,"name":"x"},"method":"tools/call","id":1,' % text
    message = read_message(body + b'"jsonrpc":"2.0"}')
    line = (
        b'{"jsonrpc":"2.0","id":2,"method":"tools/call",'
        b'"params":{"name":"x","arguments":%b}}'
    )
    assert message.encoded(2) == line % text
    assert message.held() == b'{"name":"x","arguments":%b}' % text
    read = {"b": "1.50", "a": ["-0", "1e2", 2**53 - 1]}
    assert message.params == {"name": "x", "arguments": read}
    assert pickle.loads(pickle.dumps(message)) == message  # noqa: S301


@given(st.binary())
def test_rubbish_is_refused_and_nothing_else_is_raised(body: bytes) -> None:
    """Any bytes are a message, or an error of JSON-RPC."""
    read = False
    with contextlib.suppress(McpError):
        read = bool(read_message(body))
    assert not read or json.loads(body)["jsonrpc"] == "2.0"


def test_what_a_person_decides_about_is_what_is_sent() -> None:
    """With the ``_meta`` that leaves, but for the progress token and trace context."""

    def held(**meta: Any) -> bytes:
        params = {"name": "x", "arguments": {"b": 1, "a": 2}, "_meta": meta}
        return read_message(body_of("tools/call", params=params)).held()

    bare = held()
    assert bare == b'{"name":"x","arguments":{"b":1,"a":2}}'
    assert held(progressToken=1, traceparent=PARENT, tracestate="a=1") == bare
    client = {"name": "n", "version": "1"}
    assert held(**{"io.modelcontextprotocol/clientInfo": client}) == (
        bare[:-1] + b',"_meta":{"io.modelcontextprotocol/clientInfo":'
        b'{"name":"n","version":"1"}}}'
    )
    assert held(**{"com.example/other": 1}) == bare


PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("meta", "leaves"),
    [
        ({"traceparent": PARENT, "tracestate": "a=1,b=2"}, True),
        ({"traceparent": PARENT.upper()}, False),
        ({"traceparent": PARENT[:-1]}, False),
        ({"traceparent": "ff" + PARENT[2:]}, False),
        ({"traceparent": [PARENT]}, False),
        ({"tracestate": "a=1"}, False),
        ({"baggage": "a=1"}, False),
    ],
)
def test_well_formed_trace_context_leaves(meta: dict[str, Any], leaves: bool) -> None:
    """W3C Trace Context; ``baggage`` never leaves, nor a state without a parent."""
    message = read_message(body_of("tools/list", params={"_meta": meta}))
    sent = json.loads(message.encoded(1)).get("params", {}).get("_meta", {})
    assert sent == (meta if leaves else {})
    assert list(message.dropped) == ([] if leaves else [f"_meta.{n}" for n in meta])
    parted = {"traceparent": PARENT, "tracestate": "a" * 424}
    message = read_message(body_of("tools/list", params={"_meta": parted}))
    assert message.trace == {"traceparent": PARENT}


@pytest.mark.parametrize("token", ["1.0", "1e0", "1.5", "true", "[]", "{}"])
def test_a_progress_token_is_a_text_or_an_integer(token: str) -> None:
    """A number with a fraction or exponent is none, whatever its value."""
    meta = b'{"_meta":{"progressToken":%b}}' % token.encode()
    body = b'{"jsonrpc":"2.0","id":"q","method":"tools/list","params":%b}' % meta
    with pytest.raises(McpError) as refused:
        read_message(body)
    assert (refused.value.code, refused.value.id) == (-32602, "q")
    for good in ("7", '"t"', "null", "123456789012345678901234567890"):
        read_message(body.replace(token.encode(), good.encode()))


@pytest.mark.parametrize(
    ("value", "number", "most"), [(1, 50_000, MOST_VALUES), ({}, 10_000, MOST_OBJECTS)]
)
def test_a_call_has_a_bounded_number_of_values(
    value: object, number: int, most: int
) -> None:
    """The text of one value may be long: its commas are not counted."""
    assert number == most
    arguments: dict[str, Any] = {"a": [value] * (most - 10), "b": "," * 100_000}
    params = {"name": "x", "arguments": arguments}
    read_message(body_of("tools/call", params=params))
    arguments["a"] += [value] * 10
    with pytest.raises(McpError) as refused:
        read_message(body_of("tools/call", params=params))
    assert (refused.value.code, refused.value.id) == (-32602, 1)


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ('{"name":"x","arguments":{"a":1,"a":1}}', -32602),
        ('{"name":"x","arguments":{"b":[{"a":1,"a":2}]}}', -32602),
        ('{"name":"x","arguments":{"b":[{"a":1,"A":2}]}}', -32602),
        ('{"name":"x","arguments":{"user_id":1,"userId":2}}', -32602),
        ('{"name":"x","arguments":{"\u017f":1,"s":2}}', -32602),
        ('{"name":"x","arguments":[]}', -32602),
        ('{"name":["x"],"arguments":{}}', -32602),
        ('{"name":"x","task":{}}', -32602),
        ('{"name":"x","name":"y"}', -32700),
        ('{"name":"x","arguments":{"a":1,"a":1},"_meta":{"b":1,"b":1}}', -32700),
        ('{"name":"x","arguments":{"a\\u0000":1}}', -32602),
        ('{"name":"x","arguments":{"__proto__":{"to":1}}}', -32602),
        ('{"name":"x","arguments":{"a":[{"\\u005f_proto__":{}}]}}', -32602),
        ('{"name":"x","arguments":{"a":NaN}}', -32700),
        ('{"name":"x","arguments":{"a":"\\ud800"}}', -32700),
        ('{"name":"x","arguments":{"%s":1}}' % ("\ufdfa" * 513), -32602),
    ],
)
def test_arguments_follow_the_rules_of_a_body(params: str, code: int) -> None:
    """No name twice, and no two that may be one, in any object at any depth."""
    body = f'{{"jsonrpc":"2.0","id":"q","method":"tools/call","params":{params}}}'
    with pytest.raises(McpError) as refused:
        read_message(body.encode())
    assert refused.value.code == code
    assert refused.value.id == ("q" if code == -32602 else None)
    copy = pickle.loads(pickle.dumps(refused.value))  # noqa: S301
    assert vars(copy) == vars(refused.value)


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


@pytest.mark.parametrize("number", ROUNDED)
@pytest.mark.parametrize("place", ["arguments", "inputResponses", "_meta"])
def test_a_number_that_a_server_may_round_is_refused(number: str, place: str) -> None:
    """JavaScript reads another one than is shown and recorded; the id is known."""
    value = {"a": [{"b": "N"}]}
    prefix = "io.modelcontextprotocol/"
    meta: dict[str, Any] = {f"{prefix}protocolVersion": "2026-07-28"}
    params = {"name": "x", "arguments": {}, "_meta": meta}
    if place == "_meta":
        meta[f"{prefix}other"] = value
    else:
        params[place] = value
    body = body_of("tools/call", params=params)
    read_message(body)
    with pytest.raises(McpError) as refused:
        read_message(body.replace(b'"N"', number.encode()))
    assert (refused.value.code, refused.value.id) == (-32602, 1)


def test_a_request_with_a_large_id_can_be_cancelled() -> None:
    """An id is its client's alone: the server gets ours instead of it."""
    id_ = 2**63 - 1
    body = body_of("notifications/cancelled", params={"requestId": id_})
    message = read_message(body.replace(b'"id": 1, ', b""))
    assert message.params == {"requestId": id_}


def test_a_message_with_many_numbers_is_copied_fast() -> None:
    """The event loop waits while a message is copied from a worker process."""
    numbers = b",".join([b"1.50"] * 49_000)
    body = (
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call",'
        b'"params":{"name":"a","arguments":{"amount":1.50,"all":[%b]}}}' % numbers
    )
    began = time.thread_time()
    message = read_message(body)
    reading_s = time.thread_time() - began
    copied = pickle.dumps(message)
    began = time.thread_time()
    copy = pickle.loads(copied)  # noqa: S301 - our own
    assert time.thread_time() - began < reading_s / 5
    assert copy == message
    assert find_number(message.exact, ("amount",)) == Number.parse("1.50")
    assert find_number(message.exact, ("all", "48999")) is not None
    assert find_number(message.exact, ("all", "49000")) is None
