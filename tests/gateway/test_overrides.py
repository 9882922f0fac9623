"""Fields by which an upstream would take a request for one of another method."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.gateway_stand import Stand

from agentvault_tui.gateway.overrides import OverrideScan, is_override, query_overrides
from agentvault_tui.gateway.refusals import CallRefusedError

ROUTES = """
[[routes]]
method = "POST"
path = "/items/{id}"
scope = "write:calendar"
"""
PART = b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\nDELETE\r\n--b--\r\n'
HIDDEN = [
    b"_method=DELETE",
    b"a=1&%5Fm%45thod=delete",
    b"a=1;.method=delete",
    b"a=1& _method[]=delete",
    b"_HttpMethod=PATCH&a=1",
    b"a&+%20++_method=x",
    b'{"_method": "DELETE"}',
    b'{"\\u005fm\\u0065thod": "DELETE"}',
    '{"_method": 1}'.encode("utf-16"),
    PART % b"_method",
    PART % b"X-HTTP-Method-Override",
    PART % b"_Meth\\od",
    PART % b"=?utf-8?B?X21ldGhvZA==?=",
    b"Content-Disposition: form-data;\r\n name =\t_method\r\n\r\nx",
    b"Content-Disposition: form-data; name*=utf-8''%5Fmethod\r\n\r\nx",
    b'Content-Disposition: form-data; name*0="_met"; name*1="hod"\r\n\r\nx',
    b"Content-Disposition: form-data\r\nContent-ID: <_method>\r\n\r\nx",
    b"name" + b" " * 70_000 + b"=" + b"\t" * 70_000 + b'"_method"',
]
PLAIN = [
    b"method=GET&payment_method=card&shipping-method=air",
    b'{"method": "eth_call", "payment_method": "card", "_methodology": 1}',
    PART % b"payment_method",
    PART % b"_method_id",
    b"a _method is called by its name",
]


def refused(*pieces: bytes) -> bool:
    scan = OverrideScan()
    try:
        for piece in pieces:
            scan.check(piece)
    except CallRefusedError as error:
        return error.error == "unreadable_body"
    return False


@given(st.sampled_from(HIDDEN), st.lists(st.integers(0, 200), max_size=6))
def test_no_cut_of_a_body_hides_a_field(body: bytes, cuts: list[int]) -> None:
    """However it is spelled, and wherever the pieces of a body end, it is found."""
    places = [0, *sorted(cuts), len(body)]
    assert refused(*(body[a:b] for a, b in pairwise(places)))


@pytest.mark.parametrize("body", PLAIN)
def test_other_fields_pass(body: bytes) -> None:
    """Methods of other things are not the request's."""
    assert not refused(body)


def test_fields_are_known_in_every_spelling() -> None:
    """PHP takes dots for underscores; others read no case, or another name."""
    for name in (
        "_method",
        "_METHOD",
        ".method",
        "_method[]",
        "x-http-method-override",
    ):
        assert is_override(name), name
    for query in ("_HttpMethod=PATCH", "a=1;%5Fmethod=x", "+_method=x", "a&_method"):
        assert query_overrides(query), query
    for name in ("method", "method_", "payment_method", "__method_x"):
        assert not is_override(name), name


@pytest.mark.parametrize(
    ("kind", "body", "encoding"),
    [
        ("multipart/form-data; boundary=b", PART % b"_method", None),
        ("application/json", b'{"a": 1, "_method": "DELETE"}', None),
        (None, b"a=1&_method=DELETE", None),
        ("application/json", b"\x1f\x8b", "gzip"),
    ],
)
async def test_an_unread_body_does_not_change_the_method(
    stand: Stand, kind: str | None, body: bytes, encoding: str | None
) -> None:
    """A POST that no parameter is read from stays one; where a file says that its API
    knows no other method than the request's, its bodies pass unseen."""
    await stand.service(ROUTES)
    token = await stand.token(await stand.agent("write:calendar"), "write:calendar")
    headers = {"authorization": f"Bearer {token}"}
    headers |= {"content-type": kind} if kind else {}
    headers |= {"content-encoding": encoding} if encoding else {}
    url = "/gw/api/items/1"
    reply = await stand.client.post(url, headers=headers, content=body)
    assert (reply.status_code, reply.json()["error"]) == (400, "unreadable_body")
    assert not any(b"DELETE" in one.body for one in stand.upstream.received)
    await stand.service("method_override = false\n" + ROUTES)
    reply = await stand.client.post(url, headers=headers, content=body)
    assert reply.status_code == 200
    assert stand.upstream.received[-1].body == body


async def test_a_body_that_a_person_would_read_is_refused_before(stand: Stand) -> None:
    """It is recorded as refused, and nobody is asked."""
    await stand.service(ROUTES.replace("write:calendar", "send:payment"))
    agent = await stand.agent("send:payment", "read:calendar")
    token = await stand.token(agent, "read:calendar")
    reply = await stand.client.post(
        "/gw/api/items/1",
        headers={
            "authorization": f"Bearer {token}",
            "content-type": "multipart/form-data; boundary=b",
        },
        content=PART % b"_method",
    )
    assert (reply.status_code, reply.json()["error"]) == (400, "unreadable_body")
    assert await stand.records() == [("refused", "unreadable_body")]
    assert not stand.bench.broker.stepups.open()
