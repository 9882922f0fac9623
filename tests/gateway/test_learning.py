"""Calls that no route matched become drafts of routes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.gateway_stand import Stand

from agentvault_tui.gateway.learning import LearnedRoute, draft_text, learn_routes
from agentvault_tui.gateway.routes import match
from agentvault_tui.gateway.services import Service, parse_service
from agentvault_tui.gateway.target import parse_target
from agentvault_tui.policy import shipped_catalogue

FILE = """origin = "https://api.test"
[[routes]]
method = "GET"
path = "/v1/known/{id}"
scope = "read:records"
"""


def service(more: str = "") -> Service:
    return parse_service("api", FILE + more, shipped_catalogue(), Path("/"))


def rows(*lines: str) -> list[dict[str, Any]]:
    split = (line.split() for line in lines)
    return [{"service": "api", "method": m, "path": p} for m, p in split]


def learned(*lines: str) -> list[tuple[str, str, str, int]]:
    found = learn_routes(service(), rows(*lines))
    return [(one.method, one.path, one.scope, one.calls) for one in found]


def test_calls_without_a_route_are_grouped() -> None:
    """By method and path; ids are captures, and what has a route is left out."""
    found = learned(
        "GET /v1/customers/cus_9s6XKzkNRiz8",
        "GET /v1/customers/cus_4QFHdsTR1jxx",
        "GET /v1/customers",
        "GET /v1/known/7",
        "POST /v1/payouts",
        "DELETE /v1/customers/42/cards/7",
        "POST /v1/customers/8f14e45f-ceea-467f-a0e6-6cb2f2d9a1b2/send",
    )
    assert sorted(found) == [
        ("DELETE", "/v1/customers/{customer}/cards/{card}", "delete:records", 1),
        ("GET", "/v1/customers", "read:records", 1),
        ("GET", "/v1/customers/{customer}", "read:records", 2),
        ("POST", "/v1/customers/{customer}/send", "send:email", 1),
        ("POST", "/v1/payouts", "send:payment", 1),
    ]


def test_a_place_with_many_values_is_a_capture() -> None:
    """Also if none of them looks like an id; a few stay what they are."""
    assert learned(*(f"GET /v1/users/{n}" for n in ("ann", "bob", "eve", "joe"))) == [
        ("GET", "/v1/users/{user}", "read:records", 4)
    ]
    assert len(learned("GET /v1/users/ann", "GET /v1/users/bob")) == 2


def test_a_custom_verb_is_no_part_of_a_capture() -> None:
    """A capture at the end of a path has no colon, and the verb is the method."""
    calls = learned("GET /v1/known/7:access", "GET /v1/known/8:access")
    assert calls == [("GET", "/v1/known/{known}:access", "read:records", 2)]


@pytest.mark.parametrize(
    "line",
    [
        *("GET /a/..%2fb", "BREW /a", "GET a", "GET /a%00", "PUT //x"),
        *("GET /a%7Bb%7Dc", "GET /adm/%7Brest*%7D", "GET /a{b", "GET /a}b"),
    ],
)
def test_what_cannot_be_a_route_is_left_out(line: str) -> None:
    """A request that the gateway cannot read, or whose text would be a capture."""
    assert learned(line) == []


def test_other_services_and_broken_rows_are_left_out() -> None:
    """The rows are of whatever was called."""
    odd = [{"service": "other", "method": "GET", "path": "/x"}, {"service": "api"}]
    assert learn_routes(service(), odd) == []


def test_the_draft_is_a_part_of_a_service_file() -> None:
    """Added to the file, the calls have their routes; hostile paths write no line."""
    given = rows(
        "GET /v1/customers/42", "POST /v1/%22%5D%0Ascope%20=%201", "GET /v1/{x}"
    )
    found = learn_routes(service(), given)
    text = draft_text(found)
    after = service(text)
    for one in given[:1]:
        target = parse_target(one["path"].encode())
        matched = match(after, one["method"], target)
        assert matched is not None
        assert matched.scope == "read:records"
    assert learn_routes(after, given[:1]) == []
    assert isinstance(found[0], LearnedRoute)


async def test_refused_requests_of_a_gateway_are_learned(stand: Stand) -> None:
    """Their events have what a draft needs."""
    await stand.secret()
    text = FILE.replace("https://api.test", f"http://127.0.0.1:{stand.upstream.port}")
    await stand.service(text.partition("\n")[2])
    agent = await stand.agent("read:records")
    token = await stand.token(agent, "read:records")
    headers = {"Authorization": f"Bearer {token}"}
    reply = await stand.client.get("/gw/api/v1/orders/4711?x=1", headers=headers)
    assert (reply.status_code, reply.json()["reason"]) == (403, "no_route")
    details = [one.detail for one in await stand.bench.events("gateway.refused")]
    known = stand.gateway.services.get("api")
    assert known is not None
    (found,) = learn_routes(known, details)
    assert (found.method, found.path) == ("GET", "/v1/orders/{order}")
