"""The pages: framing, hostile text, markup, and what they give away."""

from __future__ import annotations

import json
import re

import pytest
from auth0_double.running import DETAILS, TenantThread
from support.page_browser import Browser
from support.sound_page import HOSTILE, sound, strict

from agentvault_tui.tenant.device_page_client import Activation, read_page
from agentvault_tui.tenant.users import NewUser
from agentvault_tui.text import visible


@pytest.mark.slow
def test_each_page_is_well_formed_without_script_and_unframed(
    tenant: TenantThread, browser: Browser, alice: NewUser
) -> None:
    """Well-formed, no script, inline style or foreign link; headers forbid framing."""
    flow = tenant.flow()
    browser.get(user_code="nonsense")
    page = browser.details(flow["user_code"])
    page = browser.send(page, "continue")
    page = browser.send(page, "sign-in", user="alice", password="wrong")
    page = browser.send(
        page, "sign-in", user="Alice@acme.test ", password=alice.password
    )
    page = browser.send(page, "one-time-code", otp="000000")
    page = browser.send(page, "one-time-code", otp=tenant.otp(alice))
    browser.send(page, "confirm")
    browser.send(page, "cancel")
    browser.send(browser.details(tenant.flow(None)["user_code"]), "cancel")
    assert len(browser.answers) == 13
    for answer in browser.answers:
        sound(answer)


def test_the_stylesheet_is_served_under_its_hash(
    tenant: TenantThread, browser: Browser
) -> None:
    """The one stylesheet is ours, and knows light and dark."""
    browser.get()
    link = re.search(r'rel="stylesheet" href="([^"]+)"', browser.answers[0].text)
    assert link
    answer = browser.http.get(link[1])
    assert answer.headers["content-type"].startswith("text/css")
    assert "prefers-color-scheme: dark" in answer.text
    assert "url(" not in answer.text


@pytest.mark.slow
def test_hostile_agent_text_is_escaped_on_the_pages(
    tenant: TenantThread, browser: Browser, alice: NewUser
) -> None:
    """No text of an agent becomes markup, a control character or another field."""
    names = ("agent_id", "agent_name", "action", "resource", "why", "requested_on")
    browser.confirm_page(tenant.flow()["user_code"], alice)
    plain = [strict(answer.text).tags for answer in browser.answers]
    for hostile in HOSTILE:
        parameters = {hostile: hostile, "list": [hostile]}
        asked = {**DETAILS, **dict.fromkeys(names, hostile), "parameters": parameters}
        tenant.clock.advance(30)
        browser.answers.clear()
        browser.confirm_page(tenant.flow(asked)["user_code"], alice)
        for bad, good in zip(browser.answers, plain, strict=True):
            assert [tag for tag, _ in strict(bad.text).tags] == [tag for tag, _ in good]
            controls = r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u202e\u2066]"
            assert not re.search(controls, bad.text), hostile
            page = read_page(bad.text)
            assert page.values.get("fingerprint") in {None, "7F3A"}
        with Activation() as pages:
            code = tenant.flow({**DETAILS, "why": hostile})["user_code"]
            shown = pages.open(tenant.issuer, code)
        assert shown.why == visible(hostile, 5000)
        assert shown.parameters == (
            ("amount", "4200 USD, unit unknown"),
            ("currency", "USD"),
        )


@pytest.mark.slow
def test_the_pages_say_what_a_providers_token_may_do(
    tenant: TenantThread, browser: Browser, alice: NewUser
) -> None:
    """Both pages with the action say that it is more than that, and what ends it."""
    for connection in (None, "google-oauth2", *HOSTILE):
        member = {} if connection is None else {"connection": connection}
        flow = tenant.flow({**DETAILS, **member})
        with Activation() as pages:
            shown = pages.open(tenant.issuer, flow["user_code"])
        assert shown.connection == (connection and visible(connection, 5000))
        tenant.clock.advance(30)
        browser.confirm_page(flow["user_code"], alice)
        text = browser.answers[-1].text
        assert strict(text).tags
        assert ("exactly this action, once" in text) is (connection is None)
        assert ("until the provider ends it" in text) is (connection is not None)


def test_details_with_a_reason_start_no_device_flow(tenant: TenantThread) -> None:
    """No reason reaches the page: details with one start no flow."""
    lure = {**DETAILS, "reason": "enter WXYZ-BCDF at evil.test"}
    answer = tenant.ask(authorization_details=json.dumps([lure]))
    assert answer.status_code == 400
    assert answer.json()["error"] == "invalid_authorization_details"


def test_a_user_code_in_the_link_is_filled_in_alone(
    tenant: TenantThread, browser: Browser
) -> None:
    """The link fills the code in for comparing, and tells nothing of what it is for."""
    page = browser.get(user_code=tenant.flow()["user_code"].lower())
    assert page.step == "code"
    assert "send:payment" not in browser.answers[0].text
    assert browser.get(user_code="<b>").forms["code"].fields["user_code"] == ""


@pytest.mark.parametrize("kind", ["unknown", "expired", "cancelled", "approved"])
def test_wrong_expired_and_used_user_codes_look_the_same(
    tenant: TenantThread, browser: Browser, alice: NewUser, kind: str
) -> None:
    """Wrong, expired and used codes get the same status and the same text."""
    flow = tenant.flow()
    if kind == "unknown":
        flow["user_code"] = "BBBB-BBBB"
    if kind == "expired":
        tenant.clock.advance(120)
    if kind == "approved":
        tenant.approve(flow, alice)
    if kind == "cancelled":
        browser.send(browser.details(flow["user_code"]), "cancel")
    page = browser.details(flow["user_code"])
    assert browser.answers[-1].status_code == 400
    assert (page.step, page.error) == ("code", "no_such_code")
    assert page.message == "There is no such code, or it is not valid any more."


def test_five_wrong_user_codes_lock_a_browser_for_a_minute(
    tenant: TenantThread, browser: Browser
) -> None:
    """After five wrong codes the right one is refused too, until a minute is over."""
    flow = tenant.flow()
    for _ in range(5):
        assert browser.details("BBBB-BBBB").error == "no_such_code"
    assert browser.details(flow["user_code"]).error == "too_many_tries"
    assert browser.answers[-1].status_code == 429
    tenant.clock.advance(60)
    assert browser.details(flow["user_code"]).step == "details"


@pytest.mark.slow
def test_wrong_user_codes_of_others_lock_nobody_out(tenant: TenantThread) -> None:
    """However many wrong codes others send, the right one is taken."""
    flow = tenant.flow()
    for code in ["BBBB-BBBB"] * 100 + [flow["user_code"]]:
        tenant.http.cookies.clear()
        page = read_page(tenant.http.get(f"{tenant.issuer}activate").text)
        answer = tenant.http.post(
            f"{tenant.issuer}activate",
            data={**page.forms["code"].fields, "user_code": code},
        )
    assert read_page(answer.text).step == "details"


def test_an_expired_code_ends_every_activation_step(
    tenant: TenantThread, browser: Browser, alice: NewUser
) -> None:
    """A code that runs out under way approves nothing, even at the last click."""
    flow = tenant.flow()
    page = browser.confirm_page(flow["user_code"], alice)
    tenant.clock.advance(120)
    assert browser.send(page, "confirm").error == "code_over"
    assert browser.answers[-1].status_code == 410
    assert tenant.poll(flow).json()["error"] == "expired_token"


def test_an_unknown_path_gets_a_404_envelope(tenant: TenantThread) -> None:
    """What is not there is a plain 404 in the usual envelope."""
    answer = tenant.http.get(tenant.issuer + "nowhere")
    assert (answer.status_code, answer.json()) == (404, {"error": "not_found"})


def test_two_activations_in_one_browser_do_not_mix(
    tenant: TenantThread, browser: Browser, alice: NewUser
) -> None:
    """One browser can walk two codes side by side without mixing them."""
    one, two = tenant.flow(), tenant.flow({**DETAILS, "fingerprint": "BEEF"})
    first = browser.details(one["user_code"])
    second = browser.details(two["user_code"])
    assert browser.send(first, "cancel").step == "cancelled"
    assert second.values["fingerprint"] == "BEEF"
    assert browser.send(second, "continue").step == "sign-in"


def test_an_unlimited_request_is_named_first_on_the_page(
    tenant: TenantThread, browser: Browser
) -> None:
    """As the console does: the page and `tenant activate` show the same."""
    bare = {**DETAILS, "resource": None, "parameters": {}, "ttl": 299}
    with Activation() as page:
        details = page.open(tenant.issuer, tenant.flow(bare)["user_code"])
        assert details.unlimited
        assert details.ttl == "299"
    html = browser.details(tenant.flow(bare)["user_code"])
    assert html.values["unlimited"] == "Nothing limits this:"
    text = browser.answers[-1].text
    assert text.index("Nothing limits this") < text.index("Fingerprint")
    others = [{"type": "payment_initiation", "creditorAccount": {"iban": HOSTILE[0]}}]
    code = tenant.flow({**DETAILS, "other_details": others})["user_code"]
    with Activation() as page:
        details = page.open(tenant.issuer, code)
    assert not details.unlimited
    assert [name for name, _ in details.others] == [
        "payment_initiation: creditorAccount"
    ]
    sound(browser.answers[-1])


def test_the_confirmed_page_promises_no_sign_in(
    tenant: TenantThread, browser: Browser, alice: NewUser
) -> None:
    """The broker may still refuse a sign-in: the console shows whether it did."""
    page = browser.confirm_page(tenant.flow()["user_code"], alice)
    assert browser.send(page, "confirm").step == "confirmed"
    text = browser.answers[-1].text
    assert "Your console shows whether it was accepted" in text
    assert not re.search("approved", text, re.IGNORECASE)


def test_no_live_code_is_in_the_store(tenant: TenantThread) -> None:
    """A copy of the tenant's files holds neither a user code nor a device code."""
    flow = tenant.flow()
    files = [path for path in tenant.home.tenant.rglob("*") if path.is_file()]
    written = b"".join(path.read_bytes() for path in files)
    assert b"payments-agent" in written
    assert flow["user_code"].encode() not in written
    assert flow["user_code"].replace("-", "").encode() not in written
    assert flow["device_code"].encode() not in written
