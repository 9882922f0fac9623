"""Approving by a security key at a console: what the tenant asks it, and accepts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from auth0_double.running import DETAILS, TenantThread
from support.authenticator import UP, UV, Authenticator
from support.phone import Phone
from support.security_key import PIN, SoftKey

from agentvault_tui.home import Home
from agentvault_tui.operator_api.security_key import SecurityKeys
from agentvault_tui.operator_api.sessions import KeyChallenge
from agentvault_tui.settings import StepUpSettings
from agentvault_tui.tenant.passkeys import CHALLENGE_LIFE
from agentvault_tui.tenant.users import NewUser

from .test_approve import Stand
from .test_desk import PATH, claims

KEY = "oauth/device/key"


@pytest.fixture
def stand(home: Home) -> Iterator[Stand]:
    """A tenant that holds one-time codes back from high risk, and alice."""
    stand = Stand(home, StepUpSettings(passkey_only=True))
    yield stand
    stand.phone.http.close()
    stand.tenant.close()


def ask(tenant: TenantThread, path: str, flow: dict[str, Any], **more: str) -> Any:
    known = {"client_id": tenant.client_id, "device_code": flow["device_code"]}
    return tenant.post(path, **known, **more)


def challenge(stand: Stand, flow: dict[str, Any], user: NewUser) -> KeyChallenge:
    answer = ask(stand.tenant, KEY, flow, sub=user.user.sub)
    assert answer.status_code == 200, answer.text
    return KeyChallenge(**answer.json())


def signed(key: SoftKey, wanted: KeyChallenge) -> str:
    """Have the software key sign, through fido2, as the console does."""
    keys = SecurityKeys(lambda: [lambda: key])
    return asyncio.run(keys.sign(wanted, PIN, lambda: None))


def confirm(stand: Stand, flow: dict[str, Any], user: NewUser, answer: str) -> str:
    """Send an assertion as the broker does; return the error, or ``approved``."""
    found = ask(stand.tenant, PATH, flow, sub=user.user.sub, passkey=answer)
    return "approved" if found.status_code == 204 else str(found.json()["error"])


def test_a_key_approves_without_code_or_password(stand: Stand) -> None:
    """Also high risk, from which `passkey_only` holds one-time codes back."""
    key = SoftKey(stand.passkey(stand.alice))
    flow = stand.tenant.flow({**DETAILS, "risk": "high"})
    answer = signed(key, challenge(stand, flow, stand.alice))
    assert confirm(stand, flow, stand.alice, answer) == "approved"
    token = claims(stand.tenant.poll(flow))
    assert (token["sub"], token["amr"]) == (
        stand.alice.user.sub,
        ["hwk", "user", "mfa"],
    )
    assert token["auth_time"] == int(stand.tenant.clock.now().timestamp())


def test_a_challenge_is_of_one_device_code_and_one_person(stand: Stand) -> None:
    """What was signed for one request approves no other, and nobody else's."""
    key = SoftKey(stand.passkey(stand.alice))
    bob = stand.tenant.users.add("bob@acme.test", approver=True)
    one, other = stand.tenant.flow(), stand.tenant.flow()
    answer = signed(key, challenge(stand, one, stand.alice))
    assert confirm(stand, other, stand.alice, answer) == "bad_passkey"
    assert confirm(stand, one, bob, answer) == "bad_passkey"
    assert confirm(stand, one, stand.alice, answer) == "approved"


def test_an_assertion_counts_once_and_for_five_minutes(stand: Stand) -> None:
    """One that is sent again, and one that is late, approve nothing."""
    key = SoftKey(stand.passkey(stand.alice))
    flow = stand.tenant.flow()
    late = signed(key, challenge(stand, flow, stand.alice))
    stand.tenant.clock.advance(CHALLENGE_LIFE)
    assert confirm(stand, flow, stand.alice, late) in {"bad_passkey", "code_over"}
    flow = stand.tenant.flow()
    answer = signed(key, challenge(stand, flow, stand.alice))
    assert confirm(stand, flow, stand.alice, answer) == "approved"
    assert confirm(stand, flow, stand.alice, answer) == "code_over"


@pytest.mark.parametrize("flags", [0, UP, UV])
def test_presence_and_verification_are_both_needed(stand: Stand, flags: int) -> None:
    """A key that nobody touched, or that verified nobody, approves nothing."""
    key = SoftKey(stand.passkey(stand.alice))
    key.passkey.flags = flags
    flow = stand.tenant.flow()
    answer = signed(key, challenge(stand, flow, stand.alice))
    assert confirm(stand, flow, stand.alice, answer) == "bad_passkey"


@pytest.mark.parametrize(
    ("member", "value"), [("rp_id", "evil.example"), ("origin", "https://evil.example")]
)
def test_another_site_is_refused(stand: Stand, member: str, value: str) -> None:
    """Signed for another RP id or origin, as a browser there would have it signed."""
    made = stand.passkey(stand.alice)
    flow = stand.tenant.flow()
    wanted = challenge(stand, flow, stand.alice)
    setattr(made, member, value)
    answer = made.get({"challenge": wanted.challenge})
    assert confirm(stand, flow, stand.alice, answer) == "bad_passkey"


def test_a_key_that_was_removed_or_is_a_strangers_is_refused(stand: Stand) -> None:
    """Between challenge and answer a person's keys may go."""
    key = SoftKey(stand.passkey(stand.alice))
    flow = stand.tenant.flow()
    wanted = challenge(stand, flow, stand.alice)
    stranger = Authenticator(stand.url).get({"challenge": wanted.challenge})
    assert confirm(stand, flow, stand.alice, stranger) == "bad_passkey"
    answer = signed(key, wanted)
    held = stand.tenant.users.passkeys()
    stand.tenant.users.remove_passkeys([one["id"] for one in held])
    assert confirm(stand, flow, stand.alice, answer) == "bad_passkey"


@pytest.mark.parametrize("answer", ["{", "[]", "x" * 9000, '{"id": "a"}'])
def test_an_answer_that_cannot_be_read_is_refused(stand: Stand, answer: str) -> None:
    """Whatever a console sends, it approves nothing."""
    stand.passkey(stand.alice)
    flow = stand.tenant.flow()
    assert confirm(stand, flow, stand.alice, answer) in {
        "bad_passkey",
        "invalid_request",
    }
    assert stand.tenant.poll(flow).json()["error"] == "authorization_pending"


def test_who_has_no_passkey_gets_no_challenge(stand: Stand) -> None:
    """Nor does a sign-in have one, nor a stranger's device code."""
    flow, sub = stand.tenant.flow(), stand.alice.user.sub
    assert ask(stand.tenant, KEY, flow, sub=sub).json()["error"] == "no_passkey"
    stand.passkey(stand.alice)
    for asked, who, error in [
        (stand.tenant.flow(None), sub, "invalid_grant"),
        ({"device_code": "x"}, sub, "invalid_grant"),
        (flow, "auth0|nobody", "sign_in_needed"),
    ]:
        assert ask(stand.tenant, KEY, asked, sub=who).json()["error"] == error


def test_a_tenant_without_pages_has_no_keys(
    tenant: TenantThread, alice: NewUser
) -> None:
    """An assertion there is refused, and a challenge is not made."""
    flow, sub = tenant.flow(), alice.user.sub
    assert ask(tenant, KEY, flow, sub=sub).json()["error"] == "no_passkey"
    answer = ask(tenant, PATH, flow, sub=sub, passkey="{}")
    assert answer.json()["error"] == "no_passkey"


def test_the_challenge_is_made_on_loopback_alone(stand: Stand) -> None:
    """Whoever reaches the tenant from elsewhere finds no such path."""
    phone: Phone = stand.phone
    assert phone.get(KEY).status_code == 404
