"""Which headers of a request leave, and which are dropped and named."""

from __future__ import annotations

import pytest

from agentvault_tui.encoder import to_json
from agentvault_tui.errors import UnreadableRequestError
from agentvault_tui.gateway.headers import (
    RequestHeaders,
    names_for_record,
    read_headers,
)

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def read(
    *lines: tuple[str, str],
    method: str = "POST",
    listed: tuple[str, ...] = (),
    ranges: bool = False,
) -> RequestHeaders:
    received = [
        (name.lower().encode(), value.encode("latin-1")) for name, value in lines
    ]
    return read_headers(
        received,
        method=method,
        listed=frozenset(listed),
        ranges=ranges,
        overridable=True,
    )


def code_of(*lines: tuple[str, str], **more: str) -> str:
    with pytest.raises(UnreadableRequestError) as refused:
        read(*lines, **more)  # type: ignore[arg-type]
    return refused.value.code


def test_only_listed_headers_leave() -> None:
    """The others are dropped and named; those that we write are not named."""
    found = read(
        ("Accept", "text/html"),
        ("Idempotency-Key", "k1"),
        ("Stripe-Version", "2026-01-01"),
        ("X-Request-Id", "7"),
        ("Baggage", "a=b"),
        ("Cookie", "s=1"),
        ("User-Agent", "curl"),
        ("Content-Type", "text/plain"),
        ("Connection", "keep-alive"),
        ("X-Forwarded-For", "1.2.3.4"),
        listed=("stripe-version",),
    )
    assert found.leaving == (
        ("accept", "text/html"),
        ("idempotency-key", "k1"),
        ("stripe-version", "2026-01-01"),
    )
    assert found.dropped == ("x-request-id", "baggage", "cookie", "x-forwarded-for")


@pytest.mark.parametrize(
    "name",
    [
        *("If-Range", "If-Schedule-Tag-Match", "X-If-Version", "X-Dry-Run", "Dry-Run"),
        *("Overwrite", "Depth", "Destination", "Prefer", "Stripe-Account"),
        *("X-Goog-Context", "x-ms-if-tags", "If", "Content-Range", "Upload-Offset"),
        *("X-Validate-Only", "X-Sandbox", "X-Test-Mode", "X-Account-Id", "X-Upsert"),
        *("X-Idempotency-Key", "x-amz-copy-source", "X-On-Behalf-Of", "X-Noop"),
    ],
)
def test_a_header_that_limits_the_effect_is_not_dropped(name: str) -> None:
    """Without it the service would do more than the agent asked for."""
    with pytest.raises(UnreadableRequestError) as refused:
        read((name, "return=minimal"))
    assert refused.value.code == "header_not_listed"
    assert name.title() in str(refused.value.more["add"])
    assert read((name, "return=minimal"), method="GET").dropped == (name.lower(),)
    listed = read((name, "return=minimal"), listed=(name.lower(),))
    assert listed.leaving == ((name.lower(), "return=minimal"),)


def test_a_preference_for_the_gateway_does_not_leave() -> None:
    """``wait`` and ``respond-async`` are ours (RFC 7240 section 4)."""
    for value in ("wait=5", "respond-async, wait=0", "Wait = 5"):
        assert read(("Prefer", value)) == RequestHeaders()
    found = read(("Prefer", "wait=5, return=minimal"), listed=("prefer",))
    assert found.leaving == (("prefer", "return=minimal"),)


def test_list_headers_are_joined_and_no_other_comes_twice() -> None:
    """A service may read the first, the last, or both."""
    twice = [("If-Match", '"a"'), ("Accept", "a/b"), ("If-Match", '"b"')]
    assert read(*twice).leaving == (("if-match", '"a", "b"'), ("accept", "a/b"))
    for name in ("Idempotency-Key", "Content-Type", "X-Mine"):
        assert code_of((name, "a"), (name, "a")) == "ambiguous_headers"


@pytest.mark.parametrize("value", ["\xe9", "a\tb", "a\x7f", "\x80"])
def test_a_value_that_leaves_is_visible_ascii(value: str) -> None:
    """Programs differ in how they decode other bytes."""
    assert code_of(("Accept", value)) == "invalid_request"
    assert read(("X-Mine", value)).dropped == ("x-mine",)


def test_a_header_that_connection_names_does_not_leave() -> None:
    """It is hop-by-hop (RFC 9110 section 7.6.1)."""
    found = read(("Connection", "close, Accept"), ("Accept", "a/b"))
    assert (found.leaving, found.dropped) == ((), ("accept",))


def test_ranges_leave_where_the_route_says_so() -> None:
    """A credential that is split over two answers is not found."""
    assert read(("Range", "bytes=0-1")).dropped == ("range",)
    assert read(("Range", "bytes=0-1"), ranges=True).leaving == (
        ("range", "bytes=0-1"),
    )


@pytest.mark.parametrize(
    ("parent", "state", "trace", "dropped"),
    [
        (PARENT, "a=1", 2, ()),
        (PARENT, "a=" + "b" * 500, 1, ("tracestate",)),
        ("00-" + "0" * 32 + PARENT[35:], "a=1", 0, ("traceparent", "tracestate")),
        ("ff" + PARENT[2:], "a=1", 0, ("traceparent", "tracestate")),
        (PARENT.upper(), "a=1", 0, ("traceparent", "tracestate")),
    ],
)
def test_only_well_formed_trace_context_leaves(
    parent: str, state: str, trace: int, dropped: tuple[str, ...]
) -> None:
    """It is no part of the call, and is bounded."""
    found = read(("traceparent", parent), ("tracestate", state))
    assert (len(found.trace), found.dropped) == (trace, dropped)
    assert found.leaving == ()


def test_trace_context_has_512_bytes_at_most_in_a_row() -> None:
    """As the row writes it: one byte more, and the ``tracestate`` is dropped."""
    row = len(to_json({"traceparent": PARENT, "tracestate": ""}))
    for size, kept in ((512 - row, 2), (513 - row, 1)):
        found = read(("traceparent", PARENT), ("tracestate", "a" * size))
        assert len(found.trace) == kept


def test_names_of_dropped_headers_are_bounded() -> None:
    """A row has 32 names of 64 bytes, then ``more``."""
    names = names_for_record(["x-" + "a" * 100] + [f"x-{n}" for n in range(40)])
    assert len(names) == 33
    assert names[-1] == "more"
    assert max(map(len, names)) <= 64


def test_a_method_in_a_header_is_refused() -> None:
    """Dropping it would send another request than the agent meant."""
    assert code_of(("X-HTTP-Method-Override", "DELETE")) == "method_override"
    assert code_of(("X_Method_Override", "DELETE")) == "method_override"
