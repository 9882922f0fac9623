"""Sign-ins at a browser of this machine: whose they are, and what they are good for."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from auth0_double.running import DETAILS, TenantThread
from support.patience import PATIENT

from agentvault_tui.home import Home
from agentvault_tui.tenant import page_sessions
from agentvault_tui.tenant.device_page_client import read_page
from agentvault_tui.tenant.users import NewUser

STEPUP = "sup_0123456789abcdef"
PAGE = {"id": STEPUP, "digest": "sha256:7f3a" + "0" * 60}
COOKIE = "agentvault_session"


class Browser:
    """A browser of this machine, at http://localhost."""

    def __init__(self, tenant: TenantThread) -> None:
        self.host = f"localhost:{tenant.port}"
        self.http = httpx.Client(
            base_url=tenant.issuer, trust_env=False, timeout=PATIENT
        )
        self.cookie = ""

    def ask(self, path: str, form: dict[str, str] | None = None) -> httpx.Response:
        headers = {"host": self.host, "origin": f"http://{self.host}"}
        if self.cookie:
            headers["cookie"] = f"{COOKIE}={self.cookie}"
        answer = self.http.request(
            "POST" if form is not None else "GET", path, data=form, headers=headers
        )
        self.cookie = answer.cookies.get(COOKIE) or self.cookie
        self.http.cookies.clear()
        return answer

    def sign_in(self, user: NewUser) -> None:
        self.ask("/")
        form = {"user": user.user.name, "password": user.password}
        assert self.ask("/sign-in", form).status_code == 303


@pytest.fixture
def local(home: Home) -> Iterator[TenantThread]:
    tenant = TenantThread(home, localhost=True)
    yield tenant
    tenant.close()


@pytest.fixture
def browser(local: TenantThread) -> Iterator[Browser]:
    made = Browser(local)
    yield made
    made.http.close()


def step(answer: httpx.Response) -> str:
    return read_page(answer.text).step


def test_a_session_is_good_for_processes_of_its_own_user_alone(
    local: TenantThread, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Browsers send cookies of localhost to every port: another user may see them."""
    alice = local.users.add("alice@acme.test", approver=True)
    browser.sign_in(alice)
    assert step(browser.ask("/")) == "inbox"
    monkeypatch.setattr(page_sessions, "tcp_user", lambda *_: 65_534)
    assert step(browser.ask("/")) == "approve-sign-in"


def test_a_cookie_that_was_planted_is_not_signed_in(
    local: TenantThread, browser: Browser
) -> None:
    """Signing in gives the browser another; signing out ends that one."""
    alice = local.users.add("alice@acme.test", approver=True)
    browser.cookie = planted = "p" * 43
    browser.sign_in(alice)
    signed, browser.cookie = browser.cookie, planted
    assert signed != planted
    assert step(browser.ask("/")) == "approve-sign-in"
    browser.cookie = signed
    assert step(browser.ask("/")) == "inbox"
    browser.ask("/leave", {})
    browser.cookie = signed
    assert step(browser.ask("/")) == "approve-sign-in"


def test_a_form_of_another_session_decides_nothing(
    local: TenantThread, browser: Browser
) -> None:
    """Its token is for the session, the request and the digest that it shows."""
    alice = local.users.add("alice@acme.test", approver=True)
    bob = local.users.add("bob@acme.test", approver=True)
    flow = local.flow({**DETAILS, "page": PAGE})
    browser.sign_in(alice)
    form = read_page(browser.ask(f"/approve/{STEPUP}").text).forms["deny"]
    browser.cookie = ""
    browser.sign_in(bob)
    sent = browser.ask(form.action, form.fields)
    assert read_page(sent.text).error == "stale_form"
    stop = browser.ask(f"/approve/{STEPUP}/stop", form.fields)
    assert read_page(stop.text).error == "stale_form"
    assert local.poll(flow).json()["error"] == "authorization_pending"


def test_without_an_address_of_ours_there_are_no_pages(tenant: TenantThread) -> None:
    """Where another process could answer for localhost, nobody is sent there."""
    host = {"host": f"localhost:{tenant.port}"}
    assert tenant.http.get(tenant.issuer, headers=host).status_code == 421


def test_a_clock_that_is_set_back_prolongs_no_session(
    local: TenantThread, browser: Browser
) -> None:
    """It ends by the boot clock: twelve hours after the person signed in."""
    browser.sign_in(local.users.add("alice@acme.test", approver=True))
    local.clock.advance(60)
    local.clock.jump_wall(-30)
    assert step(browser.ask("/")) == "inbox"
    local.clock.jump_wall(-3600)
    local.clock.advance(page_sessions.SESSION_SECONDS - 90)
    local.clock.jump_wall(-3600)
    assert step(browser.ask("/")) == "inbox"
    local.clock.advance(60)
    assert step(browser.ask("/")) == "approve-sign-in"
