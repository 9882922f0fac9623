"""CIBA at the tenant: asked, polled, accepted or rejected, and what the log tells."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from support.backchannel import CIBA, Asking
from support.tenant_admin import Admin
from support.tenant_thread import TenantThread

from agentvault_tui.model.claims import MFA_AT

DENIED = "The end-user denied the authorization request or it has been expired"


@pytest.fixture
def asking(admin: Admin) -> Asking:
    return Asking.someone(admin)


def test_asked_waited_for_accepted_and_fetched_once(asking: Asking) -> None:
    """Pending with 400, then the tokens of a fresh second factor, then nothing more."""
    before = int(asking.tenant.clock.now().timestamp())
    answer = asking.ask()
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    body = answer.json()
    token = body.pop("auth_req_id")
    assert body == {"expires_in": 300, "interval": 5}
    pending = asking.poll(token)
    assert pending.status_code == 400
    assert pending.json() == {
        "error": "authorization_pending",
        "error_description": "The end-user authorization is pending",
    }
    assert asking.accept().step == "login-accepted"
    answer = asking.poll(token)
    assert answer.status_code == 200, answer.text
    said = answer.json()
    assert set(said) == {
        "access_token",
        "id_token",
        "expires_in",
        "scope",
        "token_type",
    }
    shown = asking.claims(said["id_token"])
    assert shown["sub"] == asking.user.user.sub
    assert "mfa" in shown["amr"]
    assert shown[MFA_AT] >= before
    again = asking.poll(token)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")


def test_denied_and_expired_look_the_same(asking: Asking) -> None:
    """A no, a request run out, and a yes that nobody fetched in time: one answer."""
    told = []
    rejected = asking.asked()
    assert asking.reject().step == "login-rejected"
    told.append(asking.poll(rejected))
    late = asking.asked(requested_expiry="60")
    asking.tenant.clock.advance(60)
    told.append(asking.poll(late))
    unfetched = asking.asked()
    asking.accept()
    asking.tenant.clock.advance(300)
    told.append(asking.poll(unfetched))
    for answer in told:
        assert answer.status_code == 400
        assert answer.json() == {"error": "access_denied", "error_description": DENIED}
    for token in (rejected, late, unfetched):
        assert asking.poll(token).json()["error"] == "invalid_grant"


def test_a_hasty_client_waits_longer_each_time(asking: Asking) -> None:
    """429 with Retry-After and interval, growing by five; patience is rewarded."""
    token = asking.asked()
    assert asking.poll(token).json()["error"] == "authorization_pending"
    for seconds in (10, 15):
        asking.tenant.clock.advance(4)
        answer = asking.poll(token)
        assert answer.status_code == 429
        assert answer.headers["retry-after"] == str(seconds)
        assert answer.json() == {
            "error": "slow_down",
            "error_description": "You are polling faster than allowed. "
            f"Try again in {seconds} seconds.",
            "interval": seconds,
        }
    asking.tenant.clock.advance(15)
    assert asking.poll(token).json()["error"] == "authorization_pending"


def test_a_foreign_or_invented_request_is_unknown(admin: Admin, asking: Asking) -> None:
    """Another client hears the same as for an id nobody made, and spends nothing."""
    token = asking.asked()
    other = Asking(admin, asking.user)
    foreign, invented = other.poll(token), asking.poll("arq_invented")
    assert foreign.json() == invented.json()
    assert (foreign.status_code, foreign.json()["error"]) == (400, "invalid_grant")
    assert asking.poll(token).json()["error"] == "authorization_pending"
    missing = asking.poll("")
    assert (missing.status_code, missing.json()["error"]) == (400, "invalid_request")


def test_of_many_polls_at_once_one_gets_the_tokens(asking: Asking) -> None:
    """An accepted request is spent by one statement."""
    token = asking.asked()
    asking.accept()
    codes: list[int] = []

    def poll() -> None:
        codes.append(asking.poll(token).status_code)

    threads = [threading.Thread(target=poll) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [200, 400, 400, 400, 400, 400]


def test_secret_basic_and_json_are_taken(asking: Asking) -> None:
    """HTTP Basic instead of the body, and JSON with nulls and numbers."""
    url = asking.tenant.issuer + "bc-authorize"
    form = asking.form(client_id=None, client_secret=None)
    auth = (asking.auth["client_id"], asking.auth["client_secret"])
    assert asking.tenant.http.post(url, data=form, auth=auth).status_code == 200
    body = {
        **asking.form(),
        "audience": None,
        "requested_expiry": 301,
        "authorization_details": None,
        "organization": None,
    }
    answer = asking.tenant.http.post(url, json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["expires_in"] == 301
    token = answer.json()["auth_req_id"]
    poll = {"grant_type": CIBA, "auth_req_id": token, **asking.auth}
    url = asking.tenant.issuer + "oauth/token"
    pending = asking.tenant.http.post(url, json={**poll, "organization": None})
    assert pending.json()["error"] == "authorization_pending"


def test_the_sdks_audience_none_is_no_audience(asking: Asking) -> None:
    """auth0-ai sends the word None: the token is then for /userinfo."""
    token = asking.asked(audience="None")
    asking.accept()
    said = asking.poll(token).json()
    bearer = {"authorization": f"Bearer {said['access_token']}"}
    url = asking.tenant.issuer + "userinfo"
    shown = asking.tenant.http.get(url, headers=bearer).json()
    assert shown["sub"] == asking.user.user.sub


def test_the_log_has_a_row_for_each_step(admin: Admin, asking: Asking) -> None:
    """Start, sign-in, no, exchange and their failures, tied by one id; no secret."""
    accepted = asking.asked()
    asking.accept()
    asking.poll(accepted)
    rejected = asking.asked()
    asking.reject()
    asking.poll(rejected)
    asking.ask(scope="profile")
    sub = asking.user.user.sub
    rows = admin.call("GET", "logs", per_page="100").json()
    mine = [row for row in rows if row["client_id"] == asking.client["client_id"]]
    kinds = [row["type"] for row in reversed(mine)]
    assert kinds == [
        "ciba_start_succeeded", "s", "ciba_exchange_succeeded", "ciba_start_succeeded",
        "gd_auth_rejected", "ciba_exchange_failed", "ciba_start_failed",
    ]  # fmt: skip
    told = [row["details"].get("transaction_linking_id") for row in reversed(mine)]
    assert told[0] == told[2] != told[3] == told[4]
    assert mine[-1]["details"]["notification_channel"] == "email"
    assert mine[-1]["user_id"] == sub
    assert mine[0]["description"] == "openid scope must be requested"
    for secret in (accepted, rejected, asking.client["client_secret"]):
        assert secret not in str(rows)


def test_what_waits_is_stored_without_its_secret(asking: Asking) -> None:
    """The auth_req_id stands in no file of the tenant's."""
    token = asking.asked()
    held = b"".join(file.read_bytes() for file in asking.tenant.home.tenant.iterdir())
    assert token.encode() not in held


def test_a_restart_forgets_no_request(home: Any, tenant: TenantThread) -> None:
    """What waits, what was accepted and how often a person was asked outlive it."""
    asking = Asking(Admin(tenant), tenant.users.add("ursula@acme.test"))
    token = asking.asked()
    asking.accept()
    for _ in range(3):
        asking.asked()
    tenant.restart()
    assert asking.poll(token).status_code == 200
    asking.tenant.clock.advance(29)
    asking.asked()
    assert asking.ask().status_code == 429


def test_who_looks_after_the_tenant_hears_where_to_look(
    asking: Asking, caplog: pytest.LogCaptureFixture
) -> None:
    """The process's log says that something waits, for whom and on which page."""
    with caplog.at_level("INFO", "agentvault.tenant"):
        token = asking.asked()
    (record,) = [one for one in caplog.records if "waits" in one.getMessage()]
    said = record.__dict__
    assert said["sub"] == asking.user.user.sub
    assert said["page"] == f"{asking.tenant.issuer}agentvault/inbox"
    assert token not in str(said)
    assert asking.inbox()[0] not in str(said)
