"""Forged, stolen, repeated and cross-site requests to the pages decide nothing."""

from __future__ import annotations

import httpx
from auth0_double.running import TenantThread
from support.manual_clock import ManualClock
from support.page_browser import Browser
from support.patience import PATIENT

from agentvault_tui.clock import Deadline
from agentvault_tui.tenant.activation import ActivationSessions
from agentvault_tui.tenant.device_page_client import read_page
from agentvault_tui.tenant.users import NewUser
from agentvault_tui.tenant.views import browser_cookie


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


def test_a_form_sent_twice_at_once_acts_once(clock: ManualClock) -> None:
    """Sent twice at once, before its answer: the second is shown where it stands."""
    sessions = ActivationSessions(clock)
    cookie = browser_cookie(None)
    session = sessions.start(cookie, "key", "BCDF-GHJK", Deadline.after(clock, 120))
    assert session is not None
    first = sessions.page(session)
    assert sessions.take(cookie, first) == (session, True)
    assert sessions.take(cookie, first) == (session, False)
    second = sessions.page(session)
    assert sessions.take(cookie, first) == (session, False)
    assert sessions.take("another" + cookie[7:], second) == (None, False)
    assert sessions.take(None, second) == (None, False)
    assert sessions.take(cookie, second) == (session, True)
