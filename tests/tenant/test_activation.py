"""The device flow on the activation pages, and what protects their forms."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import httpx
import pytest
from auth0_double.running import DETAILS, START, TenantThread
from joserfc import jwt
from joserfc.jwk import KeySet
from support.manual_clock import ManualClock
from support.page_browser import Browser
from support.patience import PATIENT
from support.tenant_store import open_store, seal_of

from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.home import Home
from agentvault_tui.model import sha256_hex
from agentvault_tui.tenant.activation import ActivationSessions
from agentvault_tui.tenant.codes import DeviceCodes
from agentvault_tui.tenant.device_page_client import Activation, read_page
from agentvault_tui.tenant.users import NewUser, People


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
    assert shown.parameters == (
        ("amount", "4200 USD, unit unknown"),
        ("currency", "USD"),
    )


def test_the_pages_show_an_amount_in_its_unit(tenant: TenantThread) -> None:
    """The broker names the unit; one that is none starts no device flow."""
    money: dict[str, object] = {"unit": "minor", "exponent": 2}
    flow = tenant.flow({**DETAILS, "money": money})
    with Activation() as pages:
        shown = pages.open(tenant.issuer, flow["user_code"])
    assert dict(shown.parameters)["amount"] == "42.00 USD (4200 minor units)"
    for wrong in (
        *("minor", {}, {"unit": "minor"}, {"unit": "cents", "exponent": 2}),
        *({**money, "exponent": exponent} for exponent in (-1, 5, 2.0, "2", None)),
    ):
        asked = json.dumps([{**DETAILS, "money": wrong}])
        answer = tenant.ask(authorization_details=asked)
        assert answer.status_code == 400
        assert answer.json()["error"] == "invalid_authorization_details"


def test_the_pages_say_what_is_bound_of_a_held_call(
    tenant: TenantThread, alice: NewUser
) -> None:
    """Action and fingerprint, and that headers and content are not shown there."""
    request = {
        "method": "POST",
        "url": "https://api.test/v1/transfers",
        "body_kind": "opaque",
        "body_type": "image/png",
        "body_bytes": 45,
        "body_sha256": "ab" * 32,
    }
    flow = tenant.flow({**DETAILS, "request": request})
    with Activation() as pages:
        shown = pages.open(tenant.issuer, flow["user_code"])
        assert shown.request == tuple((name, f"{v}") for name, v in request.items())
        assert not shown.unlimited
        assert pages._page is not None
        values = pages._page.values
        assert "cannot read this content: 45 bytes, image/png" in values["warning"]
        assert "and no more of the request" in values["no_more"]
        pages.sign_in(alice.user.name, alice.password)
        pages.one_time_code(tenant.otp(alice))
        assert pages.step == "confirm"


@pytest.mark.parametrize(
    "change", [{"body_sha256": "ab"}, {"body_bytes": -1}, {"headers": {}}, {"url": ""}]
)
def test_a_held_call_that_is_not_told_whole_starts_no_device_flow(
    tenant: TenantThread, change: dict[str, object]
) -> None:
    """A person is not asked about a request with a wrong or unknown member."""
    request = {"method": "POST", "url": "u", "body_bytes": 0, "body_sha256": "0" * 64}
    details = {**DETAILS, "request": {**request, **change}}
    answer = tenant.ask(authorization_details=json.dumps([details]))
    assert answer.status_code == 400
    assert answer.json()["error"] == "invalid_authorization_details"


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


def test_two_connections_decide_and_spend_a_code_once(home: Home) -> None:
    """Of two connections that saw the same code, one decides and one spends it."""
    clock, seal = ManualClock(START), seal_of(home)
    stores = [open_store(home, checkpoints=False) for _ in range(2)]
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


def test_an_activation_form_takes_its_token_and_cookie(
    tenant: TenantThread, browser: Browser, alice: NewUser
) -> None:
    """A forged post, one without a cookie, and a stolen token all decide nothing."""
    flow = tenant.flow()
    page = browser.confirm_page(flow["user_code"], alice)
    url = tenant.issuer + "activate/confirm"
    stolen = page.forms["confirm"].fields
    cookie = dict(browser.http.cookies)
    other = Browser(tenant)
    other.details(tenant.flow()["user_code"])
    tries = [
        ({}, cookie),
        ({"form_token": ""}, cookie),
        ({"form_token": "x" * 43}, cookie),
        (stolen, {}),
        (stolen, dict(other.http.cookies)),
        (other.get().forms["code"].fields, cookie),
    ]
    other.http.close()
    for form, cookies in tries:
        with httpx.Client(cookies=cookies, trust_env=False, timeout=PATIENT) as http:
            answer = http.post(url, data=form)
        assert answer.status_code == 403
        assert read_page(answer.text).error == "stale_form"
    assert tenant.poll(flow).json()["error"] == "authorization_pending"
    assert browser.send(page, "confirm").step == "confirmed"


def test_the_code_form_takes_its_token_and_cookie(tenant: TenantThread) -> None:
    """A code cannot be entered for someone from another site's form."""
    flow = tenant.flow()
    page = read_page(tenant.http.get(f"{tenant.issuer}activate").text)
    form = {**page.forms["code"].fields, "user_code": flow["user_code"]}
    url = f"{tenant.issuer}activate"
    forged = tenant.http.post(url, data={**form, "form_token": "0" * 64})
    tenant.http.cookies.clear()
    for answer in (forged, tenant.http.post(url, data=form)):
        assert answer.status_code == 403
        assert read_page(answer.text).error == "stale_form"


def test_an_activation_step_cannot_be_skipped(
    tenant: TenantThread, browser: Browser, alice: NewUser
) -> None:
    """Posting to confirm from an earlier page shows that page again."""
    flow = tenant.flow()
    page = browser.details(flow["user_code"])
    for step in ("details", "sign-in"):
        form = page.forms["cancel"]
        for target in ("confirm", "one-time-code"):
            form.action = f"/activate/{target}"
            page = browser.send(page, "cancel", otp=tenant.otp(alice))
            assert page.step == step
            form = page.forms["cancel"]
        if step == "details":
            page = browser.send(page, "continue")
    assert tenant.poll(flow).json()["error"] == "authorization_pending"


def test_an_activation_form_acts_once(
    tenant: TenantThread, browser: Browser, alice: NewUser
) -> None:
    """A page sent twice shows where the person stands, and does nothing again."""
    page = browser.details(tenant.flow()["user_code"])
    first = browser.send(page, "continue")
    assert browser.send(page, "continue").step == "sign-in"
    late = browser.send(first, "sign-in", user=alice.user.name, password=alice.password)
    assert late.step == "sign-in"


def test_a_get_of_a_later_step_shows_the_first_page(
    tenant: TenantThread, browser: Browser
) -> None:
    """A GET with the session's cookie shows the first page and nothing else."""
    browser.send(browser.details(tenant.flow()["user_code"]), "continue")
    assert browser.get().step == "code"
    answer = browser.http.get("activate/sign-in")
    assert (answer.status_code, answer.headers["location"]) == (303, "/activate")


def test_the_activation_cookie_is_httponly_and_same_site_strict(
    tenant: TenantThread, browser: Browser
) -> None:
    """HttpOnly, SameSite=Strict, and for these pages alone."""
    browser.get()
    cookie = browser.answers[0].headers["set-cookie"].lower()
    for part in ("httponly", "samesite=strict", "path=/activate"):
        assert part in cookie


def test_a_foreign_host_header_gets_421(tenant: TenantThread) -> None:
    """DNS rebinding is given away by Host: 421."""
    for host in ("evil.example", "127.0.0.1.evil", "127.0.0.1:1", "localhost", ""):
        for path in ("activate", "oauth/token"):
            for method in ("GET", "POST"):
                answer = tenant.http.request(
                    method, tenant.issuer + path, headers={"host": host}
                )
                assert answer.status_code == 421, (host, path, method)


def test_a_foreign_origin_gets_403(tenant: TenantThread) -> None:
    """A page of another origin cannot post here: 403, and nothing happens."""
    for origin in ("https://evil.test", "null", "http://127.0.0.1:1"):
        for path in ("activate", "activate/confirm", "oauth/device/code"):
            answer = tenant.http.post(
                tenant.issuer + path,
                data={"client_id": tenant.client_id},
                headers={"origin": origin},
            )
            assert answer.status_code == 403
    page = tenant.http.get(
        tenant.issuer + "activate", headers={"sec-fetch-site": "cross-site"}
    )
    assert page.status_code == 403


def test_a_cross_site_link_to_activate_is_served(tenant: TenantThread) -> None:
    """Following the link of a QR code or a mail is no cross-site request."""
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    answer = tenant.http.get(tenant.issuer + "activate", headers=headers)
    assert answer.status_code == 200


def test_a_form_sent_twice_at_once_acts_once(home: Home, clock: ManualClock) -> None:
    """Sent twice at once, to two processes: the second is shown where it stands."""
    stores, seal, cookie = [open_store(home) for _ in range(2)], seal_of(home), "a" * 43
    one, other = (
        ActivationSessions(store, seal, People(store, seal, clock), clock)
        for store in stores
    )
    until = clock.now() + timedelta(seconds=120)
    session = one.start(cookie, "key", "BCDF-GHJK", until)
    assert session is not None

    def acts(sessions: ActivationSessions, token: str) -> bool:
        found = sessions.take(cookie, token)
        assert found is not None
        assert (found.key, found.user_code) == (session.key, "BCDF-GHJK")
        return found.acts

    first = one.page(session)
    assert acts(other, first)
    assert not acts(one, first)
    second = other.page(session)
    assert not acts(one, first)
    assert one.take("b" * 43, second) is None
    assert other.take(None, second) is None
    assert other.take(cookie, f"{second[:-1]}é") is None
    page, _, mac = second.rpartition(".")
    assert other.take(cookie, f"{page[:-1]}9.{mac}") is None
    assert acts(one, second)
    for store in stores:
        store.close()
