"""Approving at a console: the sign-in before, and a fresh one-time code."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from auth0_double.running import DETAILS, START, TenantThread
from support.phone import Phone, public_address

from agentvault_tui.home import Home
from agentvault_tui.model import sha256_hex
from agentvault_tui.model.claims import SIGN_IN_FRESH_S
from agentvault_tui.settings import StepUpSettings
from agentvault_tui.tenant.users import NewUser

PATH = "oauth/device/confirm"


def claims(answer: Any) -> dict[str, Any]:
    part = answer.json()["id_token"].split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(part + "==")))


def signed_in(tenant: TenantThread, user: NewUser) -> str:
    """Sign in at a console, as `agentvault login` does; return the session's id."""
    flow = tenant.flow(None)
    tenant.approve(flow, user)
    sid = claims(tenant.poll(flow))["sid"]
    tenant.clock.advance(30)
    return str(sid)


def confirm(
    tenant: TenantThread, flow: dict[str, Any], user: NewUser, session: str, **more: str
) -> str:
    """Send a one-time code as the broker does; return the error, or ``approved``."""
    form = {"otp": tenant.otp(user), "sub": user.user.sub, "session": session, **more}
    known = {"client_id": tenant.client_id, "device_code": flow["device_code"]}
    answer = tenant.post(PATH, **{**known, **form})
    return "approved" if answer.status_code == 204 else str(answer.json()["error"])


def test_a_sign_in_and_a_fresh_code_approve(
    tenant: TenantThread, alice: NewUser
) -> None:
    """The device flow ends with an ID token like any other, of the code's time."""
    session, flow = signed_in(tenant, alice), tenant.flow()
    assert confirm(tenant, flow, alice, session) == "approved"
    token = claims(tenant.poll(flow))
    assert (token["sub"], token["amr"]) == (alice.user.sub, ["mfa", "otp"])
    assert token["auth_time"] == int(tenant.clock.now().timestamp())


def test_after_eight_hours_the_password_is_needed_as_well(
    tenant: TenantThread, alice: NewUser
) -> None:
    """A clock that is set back does not make the sign-in young again."""
    session = signed_in(tenant, alice)
    tenant.clock.advance(SIGN_IN_FRESH_S / 2)
    tenant.clock.jump_wall(-3600)
    tenant.clock.advance(SIGN_IN_FRESH_S / 2)
    flow = tenant.flow()
    assert confirm(tenant, flow, alice, session) == "password_needed"
    assert confirm(tenant, flow, alice, session, password="no") == "wrong_sign_in"
    right = alice.password
    assert confirm(tenant, flow, alice, session, password=right) == "approved"
    assert claims(tenant.poll(flow))["amr"] == ["mfa", "pwd", "otp"]


@pytest.mark.parametrize("session", ["", "x", "page"])
def test_nothing_else_stands_for_the_sign_in(
    tenant: TenantThread, alice: NewUser, session: str
) -> None:
    """No id, a made-up one, or the cookie of a page."""
    sid, flow = signed_in(tenant, alice), tenant.flow()
    wrong = sha256_hex(f"desk {sid}") if session == "page" else session
    assert confirm(tenant, flow, alice, wrong) == "password_needed"
    bob = tenant.users.add("bob@acme.test", approver=True)
    assert confirm(tenant, flow, bob, sid) == "password_needed"
    assert tenant.poll(flow).json()["error"] == "authorization_pending"


@pytest.mark.parametrize(
    "change",
    [
        lambda users, name: users.reset_password(name),
        lambda users, name: users.reset_otp(name),
        lambda users, name: users.set_roles(name, ["viewer"]),
        lambda users, name: users.remove(name),
    ],
    ids=["password", "factor", "role", "removed"],
)
def test_a_change_of_the_person_ends_the_sign_in(
    tenant: TenantThread, alice: NewUser, change: Callable[[Any, str], object]
) -> None:
    """Whoever sits at a console that was left signed in approves nothing any more."""
    session, flow = signed_in(tenant, alice), tenant.flow()
    change(tenant.users, "alice@acme.test")
    answer = confirm(tenant, flow, alice, session)
    assert answer in {"password_needed", "sign_in_needed"}


def test_a_code_counts_once_and_says_when_the_next_one_comes(
    tenant: TenantThread, alice: NewUser
) -> None:
    """The one of the sign-in is used as well; the wait is told to the second."""
    session, flow = signed_in(tenant, alice), tenant.flow()
    tenant.clock.advance(13 - START.second % 30)
    otp = tenant.otp(alice)
    assert confirm(tenant, flow, alice, session, otp=otp) == "approved"
    known = {"client_id": tenant.client_id, "sub": alice.user.sub, "session": session}
    answer = tenant.post(
        PATH, **known, otp=otp, device_code=tenant.flow()["device_code"]
    )
    assert answer.json() == {
        "error": "used_otp",
        "error_description": "This one-time code was used already."
        " Wait for the next code (0:17).",
    }


def test_guesses_end_the_device_code_and_lock_the_person_here(
    tenant: TenantThread, alice: NewUser
) -> None:
    """Five of them, as at the pages; and a stranger's guesses do not count here."""
    session, flow = signed_in(tenant, alice), tenant.flow()
    for _ in range(5):
        assert confirm(tenant, flow, alice, session, otp="000000") == "wrong_otp"
    assert confirm(tenant, flow, alice, session) == "code_over"
    assert confirm(tenant, tenant.flow(), alice, session) == "locked"
    tenant.clock.advance(30)
    assert confirm(tenant, tenant.flow(), alice, session) == "approved"


def test_a_sign_in_is_not_confirmed_by_a_sign_in(
    tenant: TenantThread, alice: NewUser
) -> None:
    """Else one sign-in would live for ever."""
    session = signed_in(tenant, alice)
    assert confirm(tenant, tenant.flow(None), alice, session) == "invalid_grant"


def test_high_risk_needs_a_passkey_where_the_settings_say_so(home: Home) -> None:
    """A one-time code approves the rest."""
    settings = StepUpSettings(passkey_only=True)
    tenant = TenantThread(home, settings=settings)
    try:
        alice = tenant.users.add("alice@acme.test", approver=True)
        session = signed_in(tenant, alice)
        high = tenant.flow({**DETAILS, "risk": "high"})
        assert confirm(tenant, high, alice, session) == "passkey_needed"
        low = tenant.flow({**DETAILS, "risk": "medium"})
        assert confirm(tenant, low, alice, session) == "approved"
    finally:
        tenant.close()


def test_it_is_served_on_loopback_alone(home: Home) -> None:
    """Whoever reaches the tenant from elsewhere finds no such path."""
    public = public_address(home, START)
    tenant = TenantThread(home, public=public)
    phone = Phone(home, public.url)
    try:
        assert phone.get(PATH).status_code == 404
        assert tenant.post(PATH, client_id="x").json()["error"] == "invalid_request"
    finally:
        phone.http.close()
        tenant.close()
