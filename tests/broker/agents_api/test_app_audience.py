"""Tokens for one MCP server of the broker: an audience, and nothing to decide about."""

from __future__ import annotations

import pytest
from support.agents_http import Live
from support.bench import OPERATOR, Bench

from agentvault_tui.broker.audience import mcp_server_of
from agentvault_tui.broker.usecases.policy_change import reload_policy, still_issued
from agentvault_tui.broker.usecases.scopes import change_scopes
from agentvault_tui.model import sha256_hex
from agentvault_tui.policy import shipped_policy


async def test_the_url_of_an_mcp_server_is_audience_alone(
    live: Live, bench: Bench
) -> None:
    """The token carries it; policy decides without a resource, then and later."""
    caller = await live.caller("reader", "read:files")
    url = f"{live.url}/mcp/files"
    answer = await caller.token("read:files", resource=url)
    assert answer.status_code == 200, answer.text
    secret = answer.json()["access_token"]
    token = bench.broker.registry.token(sha256_hex(secret))
    assert token is not None
    assert token.resource == url
    (event,) = await bench.events("token.decision")
    assert event.detail["resource_indicator"] == url
    assert still_issued(bench.broker, token)
    assert (await caller.introspect(secret))["aud"] == url


async def test_a_token_for_an_mcp_server_is_good_nowhere_else(live: Live) -> None:
    """No resource server finds it active, and no evaluation takes it."""
    caller = await live.caller("reader", "read:files")
    server = await live.caller("server", "read:files", resource_server=True)
    url = f"{live.url}/mcp/files"
    secret = (await caller.token("read:files", resource=url)).json()["access_token"]
    assert await server.introspect(secret) == {"active": False}
    asked = {"action": {"name": "read:files"}, "resource": {"type": "fs", "id": "/a"}}
    answer = await live.http.post(
        "/access/v1/evaluation",
        json=asked,
        headers={"authorization": f"Bearer {secret}"},
    )
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_token")


@pytest.mark.parametrize("place", ["mcp/files", "gw/stripe"])
async def test_a_request_without_a_scope_is_for_the_gateway(
    live: Live, bench: Bench, place: str
) -> None:
    """An agent all of whose scopes ask a person gets a token that says who it is: its
    scope is empty, it is recorded, and it is good at the gateway alone."""
    caller = await live.caller("payer", "send:payment")
    server = await live.caller("server", "send:payment", resource_server=True)
    url = f"{live.url}/{place}"
    answer = await caller.token("", resource=url)
    assert answer.status_code == 200, answer.text
    assert answer.json()["scope"] == ""
    secret = answer.json()["access_token"]
    token = bench.broker.registry.token(sha256_hex(secret))
    assert token is not None
    assert (token.scope, token.resource) == ("", url)
    assert still_issued(bench.broker, token)
    (event,) = await bench.events("token.decision")
    assert (event.outcome, event.reason, event.action) == ("allowed", "no_scope", None)
    assert event.detail["resource_indicator"] == url
    assert await server.introspect(secret) == {"active": False}
    assert (await caller.introspect(secret))["active"] is True


async def test_without_the_gateway_a_scope_is_needed(live: Live, bench: Bench) -> None:
    """RFC 6749 section 3.3: none is given by default; nor to whom policy denies all."""
    payer = await live.caller("payer", "send:payment")
    for resource in ("", "https://api.test", f"{live.url}/gw/", f"{live.url}/gw/a/b"):
        answer = await payer.token("", resource=resource)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_scope")
    empty = await live.caller("empty", "read:files")
    less = frozenset({"read:files"})
    await change_scopes(bench.broker, empty.agent.id, frozenset(), less, OPERATOR)
    answer = await empty.token("", resource=f"{live.url}/gw/stripe")
    assert (answer.status_code, answer.json()["reason"]) == (403, "scope_not_granted")
    forbid = '\n@id("no") @why("w") forbid (principal, action, resource);\n'
    bench.home.policy_file.write_text(shipped_policy() + forbid)
    await reload_policy(bench.broker)
    answer = await payer.token("", resource=f"{live.url}/gw/stripe")
    assert (answer.status_code, answer.json()["error"]) == (403, "access_denied")


async def test_details_may_name_what_is_acted_on_beside_the_audience(
    live: Live,
) -> None:
    """The resource of `authorization_details` is no other target than the server."""
    caller = await live.caller("reader", "read:files")
    details = '[{"type":"agentvault:action","action":"read:files","resource":"fs:/a"}]'
    answer = await caller.token(
        "read:files", resource=f"{live.url}/mcp/files", authorization_details=details
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["authorization_details"][0]["resource"] == "fs:/a"


@pytest.mark.parametrize(
    ("resource", "name"),
    [
        ("http://127.0.0.1:7717/mcp/files", "files"),
        ("http://localhost:7717/mcp/files", "files"),
        ("http://[::1]:7717/mcp/files", "files"),
        ("http://127.0.0.1:7718/mcp/files", None),
        ("http://127.0.0.1/mcp/files", None),
        ("https://127.0.0.1:7717/mcp/files", None),
        ("http://127.0.0.1:7717/mcp/files/", None),
        ("http://127.0.0.1:7717/mcp/Files", None),
        ("http://127.0.0.1:7717/mcp/files?x", None),
        ("http://127.0.0.1:7717/mcp/files#x", None),
        ("http://u@127.0.0.1:7717/mcp/files", None),
        ("http://127.0.0.1:7717/gw/files", None),
        ("http://127.0.0.1:7717/other/files", None),
        ("http://127.0.0.1:x/mcp/files", None),
        ("http://evil.test:7717/mcp/files", None),
        ("stripe:acct_42", None),
        ("http://[", None),
        ("", None),
    ],
)
def test_only_a_url_of_this_broker_names_a_server(
    resource: str, name: str | None
) -> None:
    """Scheme, host, port and path must all be ours, in one spelling."""
    assert mcp_server_of(resource, "http://127.0.0.1:7717") == name
