"""The whole way: a device asks, a person decides, the device is told."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from auth0_double.running import DETAILS, START, TenantThread
from joserfc import jwt
from joserfc.jwk import KeySet
from support.manual_clock import ManualClock

from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.home import Home
from agentvault_tui.model import sha256_hex
from agentvault_tui.tenant.codes import DeviceCodes
from agentvault_tui.tenant.device_page_client import Activation
from agentvault_tui.tenant.sealing import TenantSeal
from agentvault_tui.tenant.store import Store
from agentvault_tui.tenant.users import NewUser


def test_the_console_clients_id_is_stored_nowhere(
    tenant: TenantThread, alice: NewUser
) -> None:
    """Its client ends with the run."""
    flow = tenant.flow()
    tenant.approve(flow, alice)
    assert tenant.poll(flow).status_code == 200
    for file in tenant.home.tenant.glob("tenant.db*"):
        assert tenant.client_id.encode() not in file.read_bytes()


def test_a_confirmed_device_code_gives_one_id_token(
    tenant: TenantThread, alice: NewUser
) -> None:
    """A confirmed code gives one signed ID token, of whom, how and when."""
    flow = tenant.flow()
    tenant.approve(flow, alice)
    answer = tenant.poll(flow)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert set(body) == {
        "access_token", "id_token", "scope", "expires_in", "token_type"
    }  # fmt: skip
    keys = tenant.http.get(tenant.issuer + ".well-known/jwks.json").json()
    assert all("d" not in key for key in keys["keys"])
    token = jwt.decode(body["id_token"], KeySet.import_key_set(keys), ["RS256"])
    now = int(tenant.clock.now().timestamp())
    assert token.claims == {
        "iss": tenant.issuer,
        "aud": tenant.client_id,
        "sub": alice.user.sub,
        "iat": now,
        "exp": now + 300,
        "auth_time": now,
        "amr": ["mfa", "pwd", "otp"],
        "acr": "http://schemas.openid.net/pape/policies/2007/06/multi-factor",
        "sid": token.claims["sid"],
        "https://agentvault.dev/mfa_at": now,
        "https://agentvault.dev/roles": ["approver"],
        "name": "alice@acme.test",
        "nickname": "alice",
        "email": "alice@acme.test",
        "email_verified": True,
    }
    again = tenant.poll(flow)
    assert (again.status_code, again.json()["error"]) == (403, "invalid_grant")


def test_the_pages_show_every_member_of_the_request(
    tenant: TenantThread, alice: NewUser
) -> None:
    """The pages show every member of the request, before any sign-in."""
    with Activation() as pages:
        shown = pages.open(tenant.issuer, tenant.flow()["user_code"])
    assert shown.fingerprint == "7F3A"
    assert shown.agent_id == DETAILS["agent_id"]
    assert shown.agent_name == DETAILS["agent_name"]
    assert shown.action == DETAILS["action"]
    assert shown.resource == DETAILS["resource"]
    assert shown.risk == "high"
    assert shown.why == DETAILS["why"]
    assert shown.requested_on == "ops-1"
    assert shown.requested_at == "2026-11-24 10:00:00 UTC"
    assert shown.parameters == (("amount", "4200"), ("currency", "USD"))


def test_the_page_client_gives_parameters_with_their_types(
    tenant: TenantThread,
) -> None:
    """A program gets numbers, lists and objects as they are, and texts inert."""
    parameters = {
        "amount": 4200.5,
        "digits": "4200",
        "none": None,
        "sure": True,
        "to": ["a\u200b", {"x\u202e": [1, "\x1b[31m"]}],
        "broken": "[1, 2",
    }
    flow = tenant.flow({**DETAILS, "parameters": parameters})
    with Activation() as pages:
        shown = pages.open(tenant.issuer, flow["user_code"])
    assert [name for name, _ in shown.parameters] == list(parameters)
    assert shown.values[:4] == (4200.5, "4200", None, True)
    assert shown.values[4] == ["a⟦U+200B⟧", {"x⟦U+202E⟧": [1, "⟦U+001B⟧[31m"]}]
    assert shown.values[5] == "[1, 2"


def test_a_device_flow_without_details_signs_an_operator_in(
    tenant: TenantThread, alice: NewUser
) -> None:
    """Without authorization_details the same way signs an operator in."""
    flow = tenant.flow(None)
    with Activation() as pages:
        assert pages.open(tenant.issuer, flow["user_code"]).fingerprint is None
    tenant.approve(flow, alice)
    assert tenant.poll(flow).status_code == 200


@pytest.mark.parametrize("step", ["details", "sign-in", "one-time-code", "confirm"])
def test_cancelling_at_any_step_denies_the_device_code(
    tenant: TenantThread, alice: NewUser, step: str
) -> None:
    """A cancelled code tells the device so, once, with Auth0's words."""
    flow = tenant.flow()
    with Activation() as pages:
        pages.open(tenant.issuer, flow["user_code"])
        if step == "sign-in":
            with pytest.raises(TenantRefusedError):
                pages.sign_in("alice@acme.test", "wrong")
        if step in {"one-time-code", "confirm"}:
            pages.sign_in("alice@acme.test", alice.password)
        if step == "confirm":
            pages.one_time_code(tenant.otp(alice))
        assert pages.step == step
        pages.cancel()
    answer = tenant.poll(flow)
    assert answer.status_code == 403
    assert answer.json() == {
        "error": "access_denied",
        "error_description": "User cancelled the confirmation prompt.",
    }
    assert tenant.poll(flow).json()["error"] == "invalid_grant"


@pytest.mark.slow
def test_one_of_32_simultaneous_polls_gets_the_tokens(
    tenant: TenantThread, alice: NewUser
) -> None:
    """An approved code is spent by exactly one of 32 simultaneous polls."""
    flow = tenant.flow()
    tenant.approve(flow, alice)
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda _: tenant.poll(flow), range(32)))
    assert sorted(answer.status_code for answer in answers) == [200] + [403] * 31


def test_two_connections_decide_and_spend_a_code_once(
    home: Home,
) -> None:
    """Of two connections that saw the same code, one decides and one spends it."""
    clock, seal = ManualClock(START), TenantSeal.of(home)
    stores = [Store(home, checkpoints=False) for _ in range(2)]
    one, two = (DeviceCodes(store, seal, clock) for store in stores)
    pair = one.issue("app_x", "openid", None, 120)
    seen = [codes.by_key(sha256_hex(pair.device_code)) for codes in (one, two)]
    assert seen[0]
    assert seen[0] == seen[1]
    assert one.approve(seen[0], "sub", "sid", 1)
    assert not two.deny(seen[0])
    approved = one.by_key(seen[0].key)
    assert approved
    assert [codes.spend(approved) for codes in (two, one)] == [True, False]
    for store in stores:
        store.close()


def test_a_code_cannot_be_decided_twice(tenant: TenantThread, alice: NewUser) -> None:
    """Of two people on one code the first decides; the other is told it is over."""
    flow = tenant.flow()
    with Activation() as one, Activation() as two:
        for pages in (one, two):
            pages.open(tenant.issuer, flow["user_code"])
        one.cancel()
        with pytest.raises(TenantRefusedError) as refused:
            two.sign_in("alice@acme.test", alice.password)
    assert refused.value.error == "code_over"


def test_an_id_token_names_no_role_the_user_lacks(tenant: TenantThread) -> None:
    """Whether someone may approve is in their token, not assumed."""
    bob = tenant.users.add("bob", approver=False)
    flow = tenant.flow()
    tenant.approve(flow, bob)
    keys = tenant.http.get(tenant.issuer + ".well-known/jwks.json").json()
    raw = tenant.poll(flow).json()["id_token"]
    claims = jwt.decode(raw, KeySet.import_key_set(keys), ["RS256"]).claims
    assert claims["https://agentvault.dev/roles"] == []
    assert "email" not in claims


def test_a_device_flow_survives_a_restart(tenant: TenantThread, alice: NewUser) -> None:
    """Codes, users, client and signing keys outlive the process."""
    flow = tenant.flow()
    before = tenant.http.get(tenant.issuer + ".well-known/jwks.json").json()
    client_id = tenant.client_id
    tenant.restart()
    assert tenant.client_id == client_id
    assert tenant.http.get(tenant.issuer + ".well-known/jwks.json").json() == before
    tenant.approve(flow, alice)
    assert tenant.poll(flow).status_code == 200
