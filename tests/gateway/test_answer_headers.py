"""Headers of answers: no service gives an order to a proxy before the broker."""

from __future__ import annotations

import pytest
from support.gateway_stand import Stand, answers

from agentvault_tui.gateway.answer_headers import passed_on

SERVICE = """
[[routes]]
method = "GET"
path = "/{rest*}"
scope = "read:calendar"
"""
ORDERS = [
    "X-Accel-Redirect",
    "X-Accel-Expires",
    "X_Accel_Redirect",
    "X-Sendfile",
    "X-Sendfile2",
    "X-Sendfile-Temporary",
    "X-LIGHTTPD-send-file",
    "X-LiteSpeed-Location",
    "X-Reproxy-URL",
    "X-REPROXY-FILE",
    "X-AppEngine-BlobKey",
    "X-Envoy-Immediate-Health-Check-Fail",
    "Fly-Replay",
    "Surrogate-Control",
    "X-Esi",
    "CDN-Cache-Control",
    "Cloudflare-CDN-Cache-Control",
    "Vercel-CDN-Cache-Control",
    "Edge-Control",
    "Proxy-Status",
    "AgentVault-Decision",
]


@pytest.mark.parametrize("name", ORDERS)
def test_an_order_to_a_proxy_is_removed(name: str) -> None:
    """No header that a web server, proxy or cache obeys is passed on."""
    assert passed_on([(name.encode(), b"/gw/other/x")]) == passed_on([])


@pytest.mark.parametrize(
    "name",
    [
        "X-Total-Count",
        "X-RateLimit-Remaining",
        "Retry-After",
        "ETag",
        "Stripe-Version",
        "Request-Id",
        "X-GitHub-Media-Type",
        "X-Accelerated",
        "Cache-Control",
        "Proxied-By",
    ],
)
def test_a_header_of_an_api_is_passed_on(name: str) -> None:
    """Clients of an API need the headers that it invents."""
    assert (name.lower().encode(), b"1") in passed_on([(name.encode(), b"1")])


async def test_an_agent_gets_no_order_to_a_proxy(stand: Stand) -> None:
    """Of a real answer only what is for the agent arrives, and no cache stores it."""
    await stand.service(SERVICE)
    lines = "".join(f"{one}: /gw/other/x\r\n" for one in ORDERS)
    head = f"200 OK\r\n{lines}X-Total-Count: 3\r\nCache-Control: public, max-age=60"
    stand.upstream.answer = answers(head.encode(), b"x")
    token = await stand.token(await stand.agent("read:calendar"), "read:calendar")
    shown = {"Authorization": f"Bearer {token}"}
    reply = await stand.client.get("/gw/api/x", headers=shown)
    assert (reply.status_code, reply.headers["x-total-count"]) == (200, "3")
    passed = {one.lower() for one in ORDERS} & reply.headers.keys()
    assert passed == {"agentvault-decision"}
    assert reply.headers["agentvault-decision"].startswith("dec_")
    assert reply.headers.get_list("cache-control") == ["public, max-age=60", "private"]
