"""After the decision: polling, introspection, revocation, discovery."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from support.agents_http import CIBA, DETAIL, Caller, Live
from support.bench import OPERATOR, Bench

from agentvault_tui.broker.agents_api.app import EXCHANGE
from agentvault_tui.broker.usecases.policy_change import reload_policy
from agentvault_tui.broker.usecases.revoke import revoke_agent
from agentvault_tui.broker.usecases.stepup_end import deny


def is_error(answer: httpx.Response, status: int, error: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.json()["error"] == error, answer.text
    return dict(answer.json())


@pytest.mark.slow
async def test_an_approved_payment_is_polled_once_and_redeemed_once(
    live: Live, caller: Caller
) -> None:
    """The whole journey of an elevated token, as an agent and an API see it."""
    auth_req_id = (await caller.payment()).json()["auth_req_id"]
    is_error(await caller.poll(auth_req_id), 400, "authorization_pending")
    slow = await caller.poll(auth_req_id)
    assert is_error(slow, 400, "slow_down")["interval"] >= 2
    assert int(slow.headers["retry-after"]) >= 2
    await live.approve(auth_req_id)
    body = (await caller.poll(auth_req_id)).json()
    assert body.keys() == {
        "access_token",
        "token_type",
        "expires_in",
        "scope",
        "authorization_details",
        "decision_id",
    }
    assert body["access_token"].startswith("av_e_")
    assert body["expires_in"] == 300
    assert body["authorization_details"] == [DETAIL]
    is_error(await caller.poll(auth_req_id), 400, "invalid_grant")
    # Its owner may look without using it up; of 64 at once one API gets it.
    assert (await caller.introspect(body["access_token"]))["elevated"] is True
    api = await live.caller("api", resource_server=True)
    told = await asyncio.gather(
        *(api.introspect(body["access_token"]) for _ in range(64))
    )
    active = [answer for answer in told if answer["active"]]
    assert len(active) == 1
    assert all(answer == {"active": False} for answer in told if not answer["active"])
    assert active[0] == {
        "active": True,
        "client_id": caller.agent.client_id,
        "sub": caller.agent.id,
        "scope": "send:payment",
        "exp": active[0]["iat"] + 300,
        "iat": active[0]["iat"],
        "token_type": "Bearer",
        "authorization_details": [DETAIL],
        "elevated": True,
    }


async def test_an_operators_reason_reaches_the_agent_readably(
    caller: Caller, bench: Bench
) -> None:
    """A denial is access_denied with code and words, in what RFC 6749 allows."""
    auth_req_id = (await caller.payment()).json()["auth_req_id"]
    stepup = bench.broker.stepups.get(auth_req_id)
    await deny(bench.broker, stepup.id, 'Zu viel – "frag" später \\ \u202e', OPERATOR)
    body = is_error(await caller.poll(auth_req_id), 400, "access_denied")
    assert body["reason"] == "stepup_denied"
    assert "Zu viel - 'frag' spater /" in body["error_description"]
    assert body["error_description"].isascii()


async def test_a_poll_that_gets_no_token_says_why(
    live: Live, caller: Caller, bench: Bench
) -> None:
    """Foreign, unknown, missing, expired and revoked, each in its own word."""
    auth_req_id = (await caller.payment()).json()["auth_req_id"]
    other = await live.caller("other")
    is_error(await other.poll(auth_req_id), 400, "invalid_grant")
    is_error(await caller.poll("sup_unknown"), 400, "invalid_grant")
    is_error(await caller.poll(""), 400, "invalid_request")
    odd = {"grant_type": CIBA, "auth_req_id": [auth_req_id]}
    basic = (caller.agent.client_id, caller.secret)
    answer = await live.http.post("/oauth/token", json=odd, auth=basic)
    is_error(answer, 400, "invalid_request")
    bench.clock.advance(301)
    is_error(await caller.poll(auth_req_id), 400, "expired_token")
    second = (await caller.payment()).json()["auth_req_id"]
    await revoke_agent(bench.broker, caller.agent.id, "test", OPERATOR)
    body = is_error(await caller.poll(second), 400, "access_denied")
    assert body["reason"] == "agent_revoked"


async def test_a_backchannel_start_always_asks_a_person(
    caller: Caller, bench: Bench
) -> None:
    """As an Auth0 client starts it: openid, login_hint and a message to show."""
    answer = await caller.post(
        "/bc-authorize",
        scope="openid write:calendar",
        login_hint='{ "format": "iss_sub", "iss": "https://x/", "sub": "auth0|u" }',
        binding_message="Pay #1",
        audience="None",
    )
    assert answer.status_code == 200
    body = answer.json()
    assert body.keys() == {"auth_req_id", "expires_in", "interval"}
    stepup = bench.broker.stepups.get(body["auth_req_id"])
    assert (stepup.scope, stepup.reason) == ("write:calendar", "Pay #1")
    pending = await caller.poll(body["auth_req_id"])
    is_error(pending, 400, "authorization_pending")
    denied = await caller.post("/bc-authorize", scope="delete:records")
    assert is_error(denied, 403, "access_denied")["reason"] == "scope_not_granted"
    is_error(await caller.post("/bc-authorize", scope="openid"), 400, "invalid_scope")
    is_error(await caller.post("/bc-authorize"), 400, "invalid_scope")


async def test_a_detailed_reason_goes_before_the_binding_message(
    caller: Caller, bench: Bench
) -> None:
    """What RFC 9396 carries is more exact than what CIBA does."""
    answer = await caller.post(
        "/bc-authorize",
        scope="send:payment",
        binding_message="Pay #1",
        authorization_details=json.dumps([DETAIL]),
    )
    stepup = bench.broker.stepups.get(answer.json()["auth_req_id"])
    assert stepup.reason == "Invoice 1881"


async def test_introspection_tells_owners_and_apis_alone(
    live: Live, caller: Caller, bench: Bench
) -> None:
    """RFC 7662: anything but an active token, seen by the right client, is inactive."""
    token = (await caller.token(resource="calendar:primary")).json()["access_token"]
    api = await live.caller("api", resource_server=True)
    for who in (caller, api, api):
        told = await who.introspect(token)
        assert told["active"] is True
        assert told["elevated"] is False
        assert told["authorization_details"] == []
        assert told["aud"] == "calendar:primary"
        assert told["exp"] - told["iat"] == 3600
    other = await live.caller("other")
    for who, text in ((other, token), (api, token + "x"), (api, "é\u202e" * 99)):
        assert await who.introspect(text) == {"active": False}
    is_error(await api.post("/oauth/introspect"), 400, "invalid_request")
    bench.clock.advance(3600)
    assert await api.introspect(token) == {"active": False}


async def test_revocation_is_heard_at_once(live: Live, caller: Caller) -> None:
    """RFC 7009: one's own token ends; unknown and foreign ones are 200 all the same."""
    token = (await caller.token()).json()["access_token"]
    other = await live.caller("other")
    assert (await other.post("/oauth/revoke", token=token)).status_code == 200
    assert (await caller.introspect(token))["active"] is True
    hint = {"token": token, "token_type_hint": "refresh_token"}
    assert (await caller.post("/oauth/revoke", **hint)).status_code == 200
    assert await caller.introspect(token) == {"active": False}
    assert (await caller.post("/oauth/revoke", token="av_t_no")).status_code == 200
    is_error(await caller.post("/oauth/revoke"), 400, "invalid_request")


@pytest.mark.parametrize("name", ["oauth-authorization-server", "openid-configuration"])
async def test_discovery_lists_what_there_is(
    live: Live, caller: Caller, name: str
) -> None:
    """Every endpoint named answers; the issuer is the one the client asked."""
    told = (await live.http.get(f"/.well-known/{name}")).json()
    assert told["issuer"] == live.url
    assert "jwks_uri" not in told
    assert told["grant_types_supported"] == ["client_credentials", CIBA, EXCHANGE]
    assert told["token_endpoint_auth_methods_supported"] == [
        "client_secret_basic",
        "client_secret_post",
        "private_key_jwt",
    ]
    assert "send:payment" in told["scopes_supported"]
    for endpoint in ("token", "introspection", "revocation"):
        answer = await live.http.post(told[f"{endpoint}_endpoint"], data={"a": "1"})
        assert answer.status_code == 401
    answer = await live.http.post(
        told["backchannel_authentication_endpoint"], data={"a": "1"}
    )
    assert answer.status_code == 401
    # RFC 8414: section 2 requires the member, and section 3.2 forbids an empty list.
    assert told["response_types_supported"] == ["none"]
    assert "authorization_code" not in told["grant_types_supported"]
    assert told["authorization_endpoint"] == f"{live.url}/authorize"
    port = live.url.rpartition(":")[2]
    host = {"host": f"localhost:{port}"}
    told = (await live.http.get(f"/.well-known/{name}", headers=host)).json()
    assert told["issuer"] == f"http://localhost:{port}"


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("", "unsupported_response_type"),
        ("?response_type=code", "unsupported_response_type"),
        ("?response_type=token", "unsupported_response_type"),
        ("?response_type=none&response_type=code", "unsupported_response_type"),
        ("?response_type=none", "unauthorized_client"),
        ("?response_type=%ff%00", "unsupported_response_type"),
    ],
)
async def test_nobody_is_authorized_by_a_browser(
    live: Live, caller: Caller, query: str, error: str
) -> None:
    """The endpoint refuses each response type, and leads no browser anywhere."""
    lure = "client_id=x&redirect_uri=https://evil.test/&state=s"
    path = f"/authorize{query}{'&' if query else '?'}{lure}"
    answer = await live.http.get(path)
    is_error(answer, 400, error)
    assert "location" not in answer.headers
    assert "evil" not in answer.text
    assert (await live.http.post("/authorize")).status_code == 405


async def test_health_and_readiness(
    live: Live, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up is up; ready means that decisions can be recorded."""
    assert (await live.http.get("/healthz")).json() == {"status": "ok"}
    assert (await live.http.head("/healthz")).status_code == 200
    assert (await live.http.get("/readyz")).json()["status"] == "ready"
    monkeypatch.setattr(type(bench.ledger), "writable", property(lambda _: False))
    answer = await live.http.get("/readyz")
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert answer.json()["ledger_writable"] is False


async def test_ready_means_that_the_policy_on_disk_is_in_force(
    live: Live, bench: Bench
) -> None:
    """A broken file is no loaded policy, until it is mended; why is not agents' own."""
    bench.home.policy_file.write_text("permit (everything);")
    await reload_policy(bench.broker)
    answer = await live.http.get("/readyz")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.json() == {
        "status": "not ready",
        "ledger_writable": True,
        "policy_loaded": False,
    }
    bench.home.policy_file.unlink()
    await reload_policy(bench.broker)
    answer = await live.http.get("/readyz")
    assert (answer.status_code, answer.json()["policy_loaded"]) == (200, True)
