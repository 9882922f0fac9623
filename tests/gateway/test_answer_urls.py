"""Answers that name URLs: relative ones, other hosts, the broker's own origin."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.gateway_stand import Received, Stand

from agentvault_tui.gateway.answer_urls import AnswerUrls
from agentvault_tui.gateway.services import parse_service
from agentvault_tui.policy import shipped_catalogue
from agentvault_tui.web.guard import loopback_hosts
from agentvault_tui.web.service_connection import UpstreamError

SERVICE = parse_service(
    "api", 'origin = "https://api.test"\n', shipped_catalogue(), Path("/")
)
OWN = loopback_hosts(7717)


def rewritten(name: str, value: str, own: frozenset[bytes] | None = OWN) -> str:
    urls = AnswerUrls(SERVICE, "/v1/notes?a=1", own)
    ((_, new),) = urls.rewrite([(name.encode(), value.encode())])
    return new.decode()


@pytest.mark.parametrize(
    ("sent", "passed_on"),
    [
        ("/gw/pay/mallory", "/gw/api/gw/pay/mallory"),
        ("../x", "/gw/api/x"),
        ("more?page=2#top", "/gw/api/v1/more?page=2#top"),
        ("?page=2", "/gw/api/v1/notes?page=2"),
        ("https://api.test", "/gw/api/"),
        ("HTTPS://API.test:443/x", "/gw/api/x"),
        ("//api.test/x", "/gw/api/x"),
        ("http://api.test/x", "http://api.test/x"),
        ("//other.test/x", "https://other.test/x"),
        ("https://other.test/gw/pay?a=b#c", "https://other.test/gw/pay?a=b#c"),
        ("http://127.0.0.1:9999/gw/pay", "http://127.0.0.1:9999/gw/pay"),
        ("http://127.0.0.1:7717/gw/api/x", "/gw/api/x"),
        ("mailto:a@b.test", "mailto:a@b.test"),
        # The gateway takes none of these paths; the service's own URL has one reading.
        ("/%2e%2e/pay/mallory", "https://api.test/%2e%2e/pay/mallory"),
        ("/a;b", "https://api.test/a;b"),
        ("/\\evil.test/x", "https://api.test/%5Cevil.test/x"),
        ("/a%2Fb", "https://api.test/a%2Fb"),
    ],
)
def test_a_url_is_resolved_against_the_services_own(sent: str, passed_on: str) -> None:
    """At the service it is below /gw/SERVICE/; anywhere else it is absolute."""
    assert rewritten("location", sent) == passed_on
    assert rewritten("content-location", sent) == passed_on
    assert rewritten("link", f'<{sent}>; rel="next"') == f'<{passed_on}>; rel="next"'
    assert rewritten("refresh", f"5;URL='{sent}'") == f"5; url={passed_on}"
    assert rewritten("refresh", f"5;{sent}") == f"5; url={passed_on}"


@pytest.mark.parametrize(
    ("sent", "passed_on"),
    [
        ("more?page=2#top", "https://api.test/v1/more?page=2#top"),
        ("?page=2", "https://api.test/v1/notes?page=2"),
        ("//api.test/x", "https://api.test/x"),
        ("HTTPS://PAY.test:443/x", "https://pay.test/x"),
        ("///pay.test/x", "https://api.test/pay.test/x"),
        ("/\\pay.test/x", "https://api.test/%5Cpay.test/x"),
        ("\\/pay.test/x", "https://api.test/v1/%5C/pay.test/x"),
        ("\\\\pay.test/x", "https://api.test/v1/%5C%5Cpay.test/x"),
        ("/\t/pay.test/x", "https://api.test/%09/pay.test/x"),
        ("\x00//pay.test/x", "https://api.test/v1/%00/pay.test/x"),
        ("ht\ttps://pay.test/x", "https://api.test/v1/ht%09tps:/pay.test/x"),
    ],
)
def test_through_the_proxy_each_url_is_absolute(sent: str, passed_on: str) -> None:
    """A relative URL that some programs read as another host's is the service's."""
    assert rewritten("location", sent, None) == passed_on
    assert rewritten("content-location", sent, None) == passed_on
    assert rewritten("link", f'<{sent}>; rel="next"', None).startswith(f"<{passed_on}>")
    assert rewritten("refresh", f"5;URL='{sent}'", None) == f"5; url={passed_on}"


@pytest.mark.parametrize(
    "url",
    ["https:/pay.test/x", "https:pay.test", "https:\\\\pay.test/x", "//p%61y.test/"],
)
def test_through_the_proxy_an_unclear_host_is_refused(url: str) -> None:
    """An absolute URL whose host programs read in different ways is 502."""
    with pytest.raises(UpstreamError):
        rewritten("location", url, None)


@given(st.text(alphabet="ahtpsy/.:\\%?#@;127 \t\0", max_size=40))
def test_no_relative_url_reaches_a_client_of_the_proxy(value: str) -> None:
    """It gets a URL of another scheme, or an absolute one with one plain host."""
    try:
        url = rewritten("location", value, None)
    except UpstreamError:
        return
    if url.lower().startswith("http"):
        assert re.match(r"https?://[a-z0-9.-]+(:[1-9][0-9]*)?/[^\\\s]*$", url)
    else:
        assert re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", url)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:7717/gw/pay/mallory",
        "//localhost:7717/gw/pay/mallory",
        "http://localhost:80/",
        "https://[::1]:7717/mcp/files",
        "http://LOCALHOST:7717/token",
        "http://a@127.0.0.1:7717/gw/pay",
        "http://127.0.0.1:7717/gw/api",
        "http://127.0.0.1:7717/gw/api/../pay/mallory",
        "http://127.0.0.1:7717/gw/api/%2e%2e/pay/mallory",
        "http://127.1:7717/gw/pay",
        "http://0x7f.1:7717/gw/pay",
        "http://[::ffff:7f00:1]:7717/gw/pay",
        "http://127.0.0.1:77a7/gw/pay",
        "http:/127.0.0.1:7717/gw/pay",
        "http:\\\\127.0.0.1:7717/gw/pay",
        "http://\uff11\uff12\uff17.0.0.1:7717/gw/pay",
    ],
)
def test_a_url_at_the_brokers_origin_is_refused(url: str) -> None:
    """Also in spellings that some programs read as the broker's host."""
    for name, value in (
        ("location", url),
        ("content-location", url),
        ("link", f'</x>; rel="prev", <{url}>; rel="next"'),
        ("refresh", f"0; url={url}"),
    ):
        with pytest.raises(UpstreamError) as refused:
            rewritten(name, value)
        assert refused.value.status == 502


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("link", "http://127.0.0.1:7717/gw/pay; rel=next"),
        ("link", '</x>; title="a, <http://127.0.0.1:7717/gw/pay; rel=next"'),
        ("refresh", "0 url=http://127.0.0.1:7717/gw/pay"),
        ("refresh", "url=/x"),
    ],
)
def test_a_header_that_programs_read_differently_is_refused(
    name: str, value: str
) -> None:
    """Nothing is guessed of a header whose URL is not delimited."""
    with pytest.raises(UpstreamError):
        rewritten(name, value)


def test_headers_without_urls_stay() -> None:
    """A delay without a URL, and every other header, leave as they came."""
    assert rewritten("refresh", "5") == "5"
    assert rewritten("x-location", "/gw/pay") == "/gw/pay"


@given(st.text(alphabet="abgpwy/.:\\%?#@;<>127e \t", max_size=40))
def test_no_path_of_a_location_leaves_the_service(value: str) -> None:
    """A path that is passed on is below /gw/SERVICE/ for every program."""
    try:
        url = rewritten("location", value)
    except UpstreamError:
        return
    if url.startswith("/"):
        path = url.partition("?")[0].partition("#")[0]
        assert path.startswith("/gw/api/")
        assert not {"..", "%2e", "\\", "//"} & {
            *path.lower().split("/"),
            *(mark for mark in ("\\", "//", "%2e") if mark in path.lower()),
        }


async def test_no_answer_sends_an_agents_client_to_another_service(
    stand: Stand,
) -> None:
    """A client that follows a redirect with its token stays at the same service."""
    agent = await stand.agent("read:calendar", "write:calendar")
    token = await stand.token(agent, "read:calendar write:calendar")
    route = '[[routes]]\nmethod = "POST"\npath = "/{x*}"\nscope = "write:calendar"\n'
    await stand.service(route)
    await stand.service(route, name="pay")
    said = {"location": f"{stand.url}/gw/pay/mallory"}

    async def redirect(request: Received, writer: asyncio.StreamWriter) -> None:
        moved = request.target != "/notes"
        writer.write(b"HTTP/1.1 %s\r\nContent-Length: 0\r\n" % status[moved])
        writer.write(b"Location: %s\r\n" % said["location"].encode())
        writer.write(b'Alt-Svc: h2="evil.test"\r\nClear-Site-Data: "*"\r\n')
        writer.write(b"Strict-Transport-Security: max-age=1\r\n\r\n")

    status = (b"307 Temporary Redirect", b"201 Created")
    stand.upstream.answer = redirect
    ask = {"headers": {"Authorization": f"Bearer {token}"}, "json": {"amount": 5}}
    first = await stand.client.post("/gw/api/notes", follow_redirects=True, **ask)
    assert (first.status_code, first.json()["error"]) == (502, "upstream_reset")
    assert [one.target for one in stand.upstream.received] == ["/notes"]
    said["location"] = "/gw/pay/mallory"
    second = await stand.client.post("/gw/api/notes", follow_redirects=True, **ask)
    assert (second.status_code, second.url.path) == (201, "/gw/api/gw/pay/mallory")
    assert not {"alt-svc", "clear-site-data", "strict-transport-security"} & {
        *second.headers
    }
    services = {e.detail["service"] for e in await stand.bench.events("gateway.result")}
    assert services == {"api"}
