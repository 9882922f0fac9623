"""What a client asks of the forward proxy is read in one way, or refused."""

from __future__ import annotations

import base64

import pytest

from agentvault_tui.gateway.connect import (
    parse_authority,
    parse_connect,
    proxy_password,
)
from agentvault_tui.gateway.refusals import CallRefusedError

CONNECT = b"CONNECT a.test:443 HTTP/1.1\r\n"


def test_a_connect_has_a_target_and_headers() -> None:
    """Names are in lower case, values as they came."""
    head = CONNECT + b"Host: a.test:443\r\nX-Mine: A\r\n\r\n"
    wanted = [(b"host", b"a.test:443"), (b"x-mine", b"A")]
    assert parse_connect(head) == ("a.test:443", wanted)


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
        b"CONNECT caf\xc3\xa9.test:443 HTTP/1.1\r\n\r\n",
        CONNECT + b"Content-Length: 0\r\n\r\n",
        CONNECT + b"Transfer-Encoding: chunked\r\n\r\n",
        CONNECT + b"Host: a.test:443\r\nHost: b.test:443\r\n\r\n",
        CONNECT + b"Proxy-Authorization: a\r\nProxy-Authorization: b\r\n\r\n",
        CONNECT + b"Host: a.test:443\r\n",
        b"\x16\x03\x01",
    ],
)
def test_what_is_no_plain_connect_is_refused(head: bytes) -> None:
    """Another method, a body, a header that counts twice, or no HTTP."""
    with pytest.raises(CallRefusedError) as refused:
        parse_connect(head)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A.Test:443", ("a.test", 443)),
        ("a.test:1", ("a.test", 1)),
        ("a.test:65535", ("a.test", 65_535)),
        ("[::1]:443", ("::1", 443)),
        ("[FE80::1]:443", ("fe80::1", 443)),
    ],
)
def test_a_host_and_port_are_read(text: str, found: tuple[str, int]) -> None:
    """A name in small letters, an IPv6 address without its brackets."""
    assert parse_authority(text) == found


def test_a_port_may_go_without_saying() -> None:
    """That of plain HTTP does in a URL."""
    assert parse_authority("a.test", 80) == ("a.test", 80)
    assert parse_authority("[::1]", 80) == ("::1", 80)
    assert parse_authority("[::1]:81", 80) == ("::1", 81)


@pytest.mark.parametrize(
    "text",
    [
        *("a.test", "a.test:", "a.test:0", "a.test:65536", "a.test:000443"),
        *("a.test:+1", "a.test:1 ", "::1:443", "[::1:443", "::1]:443", "[a]:443"),
        *("[a.test]:443", "a[::1]:443", "[::1]a:443"),
    ],
)
def test_what_names_no_host_and_port_is_refused(text: str) -> None:
    """A port in another spelling, or brackets around what is no IPv6 address."""
    with pytest.raises(CallRefusedError) as refused:
        parse_authority(text)
    assert (refused.value.status, refused.value.reason) == (403, "bad_host")


def said(pair: bytes, scheme: bytes = b"Basic") -> tuple[bytes, bytes]:
    return b"proxy-authorization", scheme + b" " + base64.b64encode(pair)


def test_the_password_of_the_user_agent_is_found() -> None:
    """The scheme in any case (RFC 9110 section 11.1), the password with colons."""
    for scheme in (b"Basic", b"BASIC"):
        assert proxy_password([said(b"agent:av_t_1:2", scheme)]) == "av_t_1:2"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [said(b"agent:a"), said(b"agent:b")],
        [said(b"agent:a", b"Bearer")],
        [said(b"other:a")],
        [said(b"agent:")],
        [said(b"agent")],
        [said("agent:\u00e9".encode())],
        [(b"proxy-authorization", b"Basic YWdlbn!Q6YQ==")],
        [(b"authorization", said(b"agent:a")[1])],
    ],
)
def test_anything_else_is_no_password(headers: list[tuple[bytes, bytes]]) -> None:
    """Said twice, of another user or scheme, empty, or no base64 of ASCII."""
    assert proxy_password(headers) is None
