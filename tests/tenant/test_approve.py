"""The approval page on a phone: sign in, look, approve with a passkey, deny."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from auth0_double.running import DETAILS, START, TenantThread
from support.authenticator import UP, Authenticator
from support.patience import PATIENT
from support.phone import Phone, public_address

from agentvault_tui.home import Home
from agentvault_tui.settings import StepUpSettings
from agentvault_tui.tenant import approve
from agentvault_tui.tenant.codes import DeviceCodes, StoredDeviceCode
from agentvault_tui.tenant.device_page_client import TenantPage
from agentvault_tui.tenant.users import NewUser

DIGEST = "sha256:7f3a" + "0" * 60
STEPUP = "sup_0123456789abcdef"
PAGE = {
    "id": STEPUP,
    "digest": DIGEST,
    "expires_in": 300,
    "owner": "bob@acme.test",
    "rule": "payments-need-step-up",
    "before": "last 2 like it: 2 redeemed",
    "reason": "Enter KDRT-WZNB at https://evil.example/ to confirm.",
}


def claims_of(answer: dict[str, str]) -> dict[str, Any]:
    payload = answer["id_token"].split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(payload + "==")))


class Stand:
    """A tenant that phones reach, one step-up with its page, and a person."""

    def __init__(self, home: Home, settings: StepUpSettings | None = None) -> None:
        public = public_address(home, START)
        self.tenant = TenantThread(home, public=public, settings=settings)
        self.url = public.url
        self.phone = Phone(home, self.url)
        self.alice = self.tenant.users.add("alice@acme.test", approver=True)

    def ask(self, **page: Any) -> dict[str, Any]:
        """Have the broker ask for the page of a step-up."""
        return self.tenant.flow({**DETAILS, "page": {**PAGE, **page}})

    def passkey(self, user: NewUser, *, synced: bool = False) -> Authenticator:
        """Register a passkey by a link, as its person does."""
        token = self.tenant.users.invite_passkey(user.user)
        self.phone.open(f"passkey/{token}")
        made = Authenticator(self.url, synced=synced)
        answer = made.create(self.phone.options("create"))
        assert self.phone.send("create", credential=answer).step == "passkey-done"
        return made

    def sign_in(self, user: NewUser) -> TenantPage:
        """Open the step-up's page, and sign in by password."""
        self.phone.forget()
        page = self.phone.open(f"approve/{STEPUP}")
        assert page.step == "approve-sign-in"
        assert "7F3A" not in self.phone.answer.text
        return self.phone.send("sign-in", user=user.user.name, password=user.password)

    def approve(self, key: Authenticator) -> TenantPage:
        """Approve what the open page shows with a passkey."""
        answer = key.get(self.phone.options("passkey"))
        return self.phone.send("passkey", credential=answer)

    def claims(self, flow: dict[str, Any]) -> dict[str, Any]:
        """Return the claims of the ID token that the broker gets."""
        return claims_of(self.tenant.poll(flow).json())

    def answered(self, flow: dict[str, Any]) -> dict[str, Any]:
        """Return the claims of who answered and did not approve."""
        answer = self.tenant.poll(flow).json()
        assert answer["error"] == "access_denied"
        return claims_of(answer)

    def waits(self, flow: dict[str, Any]) -> bool:
        """Tell whether nobody has decided yet."""
        self.tenant.clock.advance(10)
        error: str = self.tenant.poll(flow).json()["error"]
        return error in {"authorization_pending", "slow_down"}

    def close(self) -> None:
        self.phone.http.close()
        self.tenant.close()


@pytest.fixture
def stands(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Stand]]:
    """Makes stands whose pages wait for no broker, which none of them has."""
    for seconds in ("_HEARD_S", "_SOON_S"):
        monkeypatch.setattr(approve, seconds, 0)
    made: list[Stand] = []

    def make(**settings: Any) -> Stand:
        made.append(Stand(home, StepUpSettings(**settings)))
        return made[-1]

    yield make
    for stand in made:
        stand.close()


@pytest.fixture
def stand(stands: Callable[..., Stand]) -> Stand:
    return stands()


def test_the_page_shows_what_is_asked_to_who_signed_in(stand: Stand) -> None:
    """Facts and fingerprint are there, the agent's own words masked and last."""
    stand.ask()
    page = stand.sign_in(stand.alice)
    assert page.step == "approve"
    shown = {name: page.values[name] for name in ("fingerprint", "action", "risk")}
    assert shown == {"fingerprint": "7F3A", "action": "send:payment", "risk": "high"}
    assert page.values["rule"] == "payments-need-step-up"
    assert page.values["owner"] == "bob@acme.test"
    assert page.values["before"] == "last 2 like it: 2 redeemed"
    assert ("amount", "4200 USD, unit unknown", "json") in page.parameters
    assert "KDRT" not in stand.phone.answer.text
    assert "evil.example" not in stand.phone.answer.text
    assert "1 code and 1 link masked" in stand.phone.answer.text
    text = stand.phone.answer.text
    assert text.index('data-field="says"') > text.index('id="deny"')
    policy = stand.phone.answer.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "default-src 'none'" in policy
    assert "//" not in text.split("<body>")[0].replace("<!doctype", "")


@pytest.mark.parametrize(("synced", "word"), [(True, "swk"), (False, "hwk")])
def test_a_passkey_approves_exactly_the_digest(
    stand: Stand, *, synced: bool, word: str
) -> None:
    """Its challenge is the digest's 32 bytes; the ID token says so, and how."""
    key = stand.passkey(stand.alice, synced=synced)
    flow = stand.ask()
    stand.sign_in(stand.alice)
    asked = stand.phone.options("passkey")
    raw = base64.urlsafe_b64decode(asked["challenge"] + "==")
    assert raw == bytes.fromhex(DIGEST.removeprefix("sha256:"))
    assert asked["rpId"] == "ops.example"
    assert asked["userVerification"] == "required"
    page = stand.approve(key)
    assert page.step == "approve-result"
    claims = stand.claims(flow)
    assert claims["sub"] == stand.alice.user.sub
    assert claims["amr"] == [word, "user", "mfa"]
    assert claims["https://agentvault.dev/stepup"] == {
        "digest": DIGEST,
        "decision": "approve",
    }


def test_password_and_one_time_code_approve_without_a_script(stand: Stand) -> None:
    """A session is not enough: both are asked for again with the approval."""
    flow = stand.ask()
    page = stand.sign_in(stand.alice)
    form = stand.phone.answer.text.partition('id="factors"')[2].partition("</form>")[0]
    assert page.values["headline"] in form, "on a phone the top is out of view"
    assert page.values["fingerprint"] in form
    otp = stand.tenant.otp(stand.alice)
    page = stand.phone.send("factors", password="wrong", otp=otp)
    assert page.error == "wrong_sign_in"
    page = stand.phone.send("factors", password=stand.alice.password, otp="000000")
    assert page.error == "wrong_otp"
    assert stand.waits(flow)
    otp = stand.tenant.otp(stand.alice)
    page = stand.phone.send("factors", password=stand.alice.password, otp=otp)
    assert page.step == "approve-result"
    assert stand.claims(flow)["amr"] == ["mfa", "pwd", "otp"]


def test_a_passkey_signs_in_by_a_challenge_of_its_own(stand: Stand) -> None:
    """One touch signs in; the answer signs neither in twice nor another browser."""
    key = stand.passkey(stand.alice)
    stand.ask()
    stand.phone.forget()
    stand.phone.open(f"approve/{STEPUP}")
    answer = key.get(stand.phone.options("passkey-sign-in"))
    cookies = dict(stand.phone.cookies)
    assert stand.phone.send("passkey-sign-in", credential=answer).step == "approve"
    stand.phone.forget()
    stand.phone.cookies = cookies
    stand.phone.open(f"approve/{STEPUP}")
    page = stand.phone.send("passkey-sign-in", credential=answer)
    assert page.error == "bad_passkey"
    stand.phone.forget()
    stand.phone.open(f"approve/{STEPUP}")
    fresh = key.get(stand.phone.options("passkey-sign-in"))
    stand.phone.forget()
    stand.phone.open(f"approve/{STEPUP}")
    page = stand.phone.send("passkey-sign-in", credential=fresh)
    assert page.error == "bad_passkey"


def test_tries_of_a_passkey_are_counted(stand: Stand) -> None:
    """By its id and where they come from; another passkey has tries of its own."""
    key, other = stand.passkey(stand.alice), stand.passkey(stand.alice)
    stand.ask()

    def tried(which: Authenticator, origin: str = "https://evil.example") -> str:
        stand.phone.forget()
        stand.phone.open(f"approve/{STEPUP}")
        right, which.origin = which.origin, origin or which.origin
        answer = which.get(stand.phone.options("passkey-sign-in"))
        which.origin = right
        return stand.phone.send("passkey-sign-in", credential=answer).error

    assert [tried(key) for _ in range(6)] == ["bad_passkey"] * 5 + ["locked"]
    assert tried(other, "") == ""
    stand.tenant.clock.advance(30)
    assert tried(key, "") == ""


def lie(**members: Any) -> Callable[[Authenticator], None]:
    def change(key: Authenticator) -> None:
        for name, value in members.items():
            setattr(key, name, value)

    return change


@pytest.mark.parametrize(
    "change",
    [
        lie(rp_id="evil.example"),
        lie(rp_id="sub.ops.example"),
        lie(origin="https://evil.example"),
        lie(origin="https://ops.example:1"),
        lie(origin="https://ops.example"),
        lie(origin="http://ops.example"),
        lie(flags=UP),
        lie(flags=0),
        lie(client={"crossOrigin": True}),
        lie(client={"crossOrigin": False, "topOrigin": "https://evil.example"}),
        lie(client={"type": "webauthn.create"}),
        lie(client={"challenge": "AAAA"}),
        lie(id=b"nobody's"),
    ],
)
def test_an_assertion_that_is_not_exactly_ours_approves_nothing(
    stand: Stand, change: Callable[[Authenticator], None]
) -> None:
    """RP id, origin with its port, user verification, type and challenge count."""
    key = stand.passkey(stand.alice)
    flow = stand.ask()
    stand.sign_in(stand.alice)
    change(key)
    assert stand.approve(key).error == "bad_passkey"
    assert stand.waits(flow)


def test_anothers_passkey_does_not_approve_in_my_name(stand: Stand) -> None:
    """A passkey is good for the person who registered it alone."""
    mallory = stand.tenant.users.add("mallory", approver=True)
    foreign = stand.passkey(mallory)
    stand.passkey(stand.alice)
    flow = stand.ask()
    stand.sign_in(stand.alice)
    assert stand.approve(foreign).error == "bad_passkey"
    assert stand.waits(flow)


def test_a_falling_counter_refuses_and_is_in_the_tenants_log(stand: Stand) -> None:
    """A copy of the key may exist: nothing is approved, and the log says it."""
    key = stand.passkey(stand.alice)
    stand.ask()
    stand.sign_in(stand.alice)
    stand.approve(key)
    flow = stand.ask(digest="sha256:" + "1" * 64)
    stand.sign_in(stand.alice)
    key.counter = 0
    assert stand.approve(key).error == "passkey_copied"
    assert stand.waits(flow)
    rows = stand.tenant.users._store.all("SELECT doc FROM journal")
    told = [doc for row in rows if "passkey_copied" in (doc := row["doc"])]
    # The broker reads the rows of its own client into the audit.
    (found,) = map(json.loads, told)
    assert found["client_id"] is not None
    assert found["user_id"] == stand.alice.user.sub


def test_two_tabs_and_a_page_that_changed_decide_nothing_twice(stand: Stand) -> None:
    """The first decision counts; a changed request has to be looked at again."""
    key = stand.passkey(stand.alice)
    flow = stand.ask()
    stand.sign_in(stand.alice)
    tab = stand.phone.answer
    stand.approve(key)
    stand.phone.answer = tab
    assert stand.phone.send("deny").step == "approve-result"
    assert "id_token" in stand.tenant.poll(flow).json()
    stand.ask()
    stand.sign_in(stand.alice)
    changed = stand.ask(digest="sha256:" + "2" * 64)
    assert stand.approve(key).error == "changed"
    assert stand.waits(changed)


def test_a_form_of_another_session_does_nothing(stand: Stand) -> None:
    """Whoever signs in later on this phone did not see what the form was about."""
    flow = stand.ask()
    stand.sign_in(stand.alice)
    form = stand.phone.answer
    mallory = stand.tenant.users.add("mallory", approver=True)
    stand.sign_in(mallory)
    stand.phone.answer = form
    assert stand.phone.send("deny").error == "stale_form"
    assert stand.waits(flow)


def test_a_no_needs_the_session_alone_and_says_who(stand: Stand) -> None:
    """The broker gets access_denied with an ID token that proves no factor."""
    flow = stand.ask()
    stand.sign_in(stand.alice)
    assert stand.phone.send("deny").step == "approve-result"
    claims = stand.answered(flow)
    assert claims["sub"] == stand.alice.user.sub
    assert claims["https://agentvault.dev/stepup"]["decision"] == "deny"
    assert "amr" not in claims
    # The broker knows of it, and has not told the page yet.
    stand.phone.open(f"approve/{STEPUP}")
    assert "Denied: waiting for the vault" in stand.phone.answer.text


REPEAT = {"count": 5, "within": 600, "bounds": {"amount": {"max": 5000}}}
CHOSEN = {"count": "5", "minutes": "10", "max-amount": "5000"}


def test_choosing_the_next_ones_like_it_approves_nothing(stand: Stand) -> None:
    """The broker is told who wants what; its next page is of both, and is approved."""
    flow = stand.ask()
    stand.sign_in(stand.alice)
    assert stand.phone.send("repeat", **CHOSEN).step == "approve-result"
    assert "Not approved yet" in stand.phone.answer.text
    claims = stand.answered(flow)
    assert claims["sub"] == stand.alice.user.sub
    assert "amr" not in claims
    said = claims["https://agentvault.dev/stepup"]
    assert said == {"digest": DIGEST, "decision": "repeat", "repeat": REPEAT}
    both = {**PAGE, "digest": "sha256:" + "8" * 64, "expires_in": None}
    flow = stand.tenant.flow(
        {**DETAILS, "fingerprint": "8888", "repeat": REPEAT, "page": both}
    )
    page = stand.phone.open(f"approve/{STEPUP}")
    assert (
        page.values["repeat"] == "the next 5 like it within 600 s, amount up to 5,000"
    )
    assert page.values["fingerprint"] == "8888"
    otp = stand.tenant.otp(stand.alice)
    stand.phone.send("factors", password=stand.alice.password, otp=otp)
    said = stand.claims(flow)["https://agentvault.dev/stepup"]
    assert said == {"digest": both["digest"], "decision": "approve"}


def test_a_code_that_another_replaced_does_not_say_that_a_user_cancelled(
    stand: Stand,
) -> None:
    """A step-up has one code: whoever polls for the one before hears what ended it."""
    replaced = stand.ask()
    stand.ask(expires_in=None)
    assert stand.tenant.poll(replaced).json() == {
        "error": "access_denied",
        "error_description": "Another code was asked for in the place of this one.",
    }


def test_only_this_one_can_be_chosen_again(stand: Stand) -> None:
    """Whoever finds the page of a series need not approve it, nor lose the request."""
    flow = stand.tenant.flow({**DETAILS, "repeat": REPEAT, "page": PAGE})
    stand.sign_in(stand.alice)
    stand.phone.send("once")
    said = stand.answered(flow)["https://agentvault.dev/stepup"]
    assert said == {"digest": DIGEST, "decision": "repeat", "repeat": None}


WRONG = {
    "count": ("21", "-1", "0", "1.5", "x" * 200),
    "minutes": ("", "0", "61"),
    "max-amount": ("-1", str(2**53), "NaN"),
}


def test_a_series_out_of_bounds_is_not_chosen(stand: Stand) -> None:
    """The page says what can be, and the request waits on."""
    flow = stand.ask()
    stand.sign_in(stand.alice)
    for name, value in ((name, one) for name, wrong in WRONG.items() for one in wrong):
        page = stand.phone.send("repeat", **{**CHOSEN, name: value})
        assert page.error == "bad_request", (name, value)
    assert stand.waits(flow)


@pytest.mark.parametrize(
    ("details", "offered", "named"),
    [
        ({}, True, True),
        ({"parameters": {}}, True, False),
        ({"connection": "google-oauth2"}, False, False),
    ],
)
def test_what_may_differ_is_what_the_request_says(
    stand: Stand, details: dict[str, Any], *, offered: bool, named: bool
) -> None:
    """No bound of a parameter it lacks, no series of an account at a provider."""
    stand.tenant.flow({**DETAILS, **details, "page": PAGE})
    page = stand.sign_in(stand.alice)
    assert ("repeat" in page.forms) is offered
    assert ("max-amount" in stand.phone.answer.text) is named


def test_roles_decide_who_sees_denies_and_approves(stand: Stand) -> None:
    """No role sees nothing, not even what is not there yet; a viewer looks and does no
    more, neither by a form nor by a request that skips it; an operator denies."""
    people = {
        role: stand.tenant.users.add(role, roles=[role] if role != "none" else [])
        for role in ("none", "viewer", "operator")
    }
    assert stand.sign_in(people["none"]).step == "approve-over"
    flow = stand.ask()
    assert stand.sign_in(people["none"]).step == "approve-over"
    assert "send:payment" not in stand.phone.answer.text
    page = stand.sign_in(people["viewer"])
    assert {"passkey", "factors", "repeat"}.isdisjoint(page.forms)
    assert stand.phone.send("deny").error == "not_yours"
    to = f"approve/{STEPUP}/repeat"
    assert stand.phone.send("deny", to=to, **CHOSEN).error == "not_yours"
    assert stand.waits(flow)
    stand.sign_in(people["operator"])
    assert stand.phone.send("deny").step == "approve-result"


def test_the_owner_and_who_has_approved_may_not_approve(stand: Stand) -> None:
    """The page says why, and the other names who still may."""
    bob = stand.tenant.users.add("Bob@acme.test", approver=True)
    flow = stand.ask(
        need=2, by=[[stand.alice.user.sub, "alice@acme.test"]], not_by=["bob@acme.test"]
    )
    for person in (stand.alice, bob):
        page = stand.sign_in(person)
        assert {"passkey", "factors"}.isdisjoint(page.forms)
        assert page.values["have"] == "1"
        assert page.values["need"] == "2"
        assert "may" not in page.values
    carol = stand.tenant.users.add("carol", approver=True)
    page = stand.sign_in(carol)
    assert page.values["by"] == "alice@acme.test"
    assert page.values["may"] == "carol"
    assert "factors" in page.forms
    assert stand.waits(flow)


def test_passkey_only_leaves_nothing_weaker_for_high_risk(
    stands: Callable[..., Stand],
) -> None:
    """Neither the form nor a request that skips it takes a password."""
    stand = stands(passkey_only=True)
    flow = stand.ask()
    page = stand.sign_in(stand.alice)
    assert "factors" not in page.forms
    factors = {"password": stand.alice.password, "otp": stand.tenant.otp(stand.alice)}
    page = stand.phone.send("deny", to=f"approve/{STEPUP}/factors", **factors)
    assert page.error == "passkey_needed"
    assert stand.waits(flow)


def test_a_removed_person_and_a_new_password_end_the_session(stand: Stand) -> None:
    """Who was cut off sees nothing any more."""
    stand.ask()
    stand.sign_in(stand.alice)
    stand.tenant.users.reset_password("alice@acme.test")
    assert stand.phone.open(f"approve/{STEPUP}").step == "approve-sign-in"
    bob = stand.tenant.users.add("bob", approver=True)
    stand.sign_in(bob)
    stand.tenant.users.remove("bob")
    assert stand.phone.open(f"approve/{STEPUP}").step == "approve-sign-in"


def test_the_page_says_when_the_request_ends(stand: Stand) -> None:
    """The code that somebody began at the desk ends sooner, and another follows."""
    stand.ask(expires_in=None, ends="2030-01-02T03:04:05Z")
    stand.sign_in(stand.alice)
    stand.phone.open(f"approve/{STEPUP}")
    assert 'datetime="2030-01-02T03:04:05' in stand.phone.answer.text
    assert "at 03:04:05 UTC" in stand.phone.answer.text


def test_what_became_of_it_is_shown_and_ends_the_page(stand: Stand) -> None:
    """The broker tells it on loopback alone, with the device code."""
    flow = stand.ask()
    stand.sign_in(stand.alice)
    told = {
        "client_id": stand.tenant.client_id,
        "device_code": flow["device_code"],
        "outcome": json.dumps({"status": "redeemed", "by": "alice", "why": None}),
    }
    outside = stand.phone.http.post(
        f"https://127.0.0.1:{stand.phone.port}/oauth/device/outcome",
        data=told,
        headers={"host": stand.phone.netloc},
        extensions={"sni_hostname": "ops.example"},
    )
    assert outside.status_code == 404
    wrong = stand.tenant.post("oauth/device/outcome", **{**told, "device_code": "x"})
    assert wrong.status_code == 403
    assert stand.tenant.post("oauth/device/outcome", **told).status_code == 204
    page = stand.phone.open(f"approve/{STEPUP}")
    assert page.step == "approve-result"
    assert "Approved, and used" in stand.phone.answer.text


@pytest.mark.slow
def test_a_link_that_is_opened_too_early_waits_for_its_step_up(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker may tell of it a moment later; no page loads itself again."""
    monkeypatch.setattr(approve, "_SOON_S", PATIENT)
    looked, by_stepup = threading.Event(), DeviceCodes.by_stepup

    def look(codes: DeviceCodes, stepup_id: str) -> StoredDeviceCode | None:
        found = by_stepup(codes, stepup_id)
        looked.set()
        return found

    monkeypatch.setattr(DeviceCodes, "by_stepup", look)
    later = threading.Thread(target=lambda: looked.wait(PATIENT) and stand.ask())
    later.start()
    assert stand.sign_in(stand.alice).step == "approve"
    assert "http-equiv" not in stand.phone.answer.text
    later.join()
    monkeypatch.setattr(approve, "_SOON_S", 0)
    assert stand.phone.open("approve/sup_fedcba9876543210").step == "approve-over"


def test_nobody_can_type_the_code_of_a_page(stand: Stand) -> None:
    """It lives as long as the step-up, so guessing one would have time."""
    flow = stand.ask()
    answer = stand.phone.open(f"activate?user_code={flow['user_code']}")
    assert answer.step == "code"
    assert stand.phone.send("code").error == "no_such_code"
    assert flow["verification_uri_complete"] == f"{stand.url}approve/{STEPUP}"
