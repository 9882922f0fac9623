"""A person signs in by browser: what goes out, and that only our own answer counts."""

from __future__ import annotations

import base64
import hashlib
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from support.manual_clock import ManualClock
from support.rogue_tenant import DISCOVERY, TOKEN, Answer, RogueTenant

from agentvault_tui.errors import IdentityError, TenantError, TenantRefusedError
from agentvault_tui.vault import (
    ClientSecret,
    Secret,
    SigningIn,
    Tenant,
    TenantClient,
    begin_sign_in,
    finish_sign_in,
)

AGENT = ClientSecret("agent7", Secret("agent-secret"))
BACK = "http://127.0.0.1:7719/callback"


@pytest.fixture
async def begun(wired: Tenant) -> SigningIn:
    """A sign-in whose page the person has open."""
    return await begin_sign_in(wired, AGENT.client_id, BACK)


def given(tenant: RogueTenant, **changes: Any) -> Answer:
    """What the tenant gives for a good code."""
    body = {**tenant.access(refresh_token="v1.rt"), "id_token": "ey.a.b", **changes}
    return Answer({name: value for name, value in body.items() if value is not None})


async def test_the_authorization_url_has_state_nonce_and_challenge(
    tenant: RogueTenant, wired: Tenant, begun: SigningIn
) -> None:
    """State, nonce and PKCE are another each time; whoever sits there signs in anew."""
    page = urlsplit(begun.page)
    assert begun.page.startswith(f"{tenant.issuer}authorize?")
    asked = {name: value for name, (value,) in parse_qs(page.query).items()}
    digest = hashlib.sha256(begun.verifier.reveal().encode()).digest()
    assert asked == {
        "response_type": "code",
        "client_id": "agent7",
        "redirect_uri": BACK,
        "scope": "openid profile offline_access",
        "state": begun.state,
        "nonce": begun.nonce,
        "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
        "code_challenge_method": "S256",
        "prompt": "login",
    }
    other = await begin_sign_in(wired, AGENT.client_id, BACK)
    secrets = [begun.state, begun.nonce, begun.verifier.reveal()]
    secrets += [other.state, other.nonce, other.verifier.reveal()]
    assert len(set(secrets)) == 6
    assert not [secret for secret in secrets if secret in repr((begun, other))]


async def test_a_code_is_redeemed_with_its_verifier(
    tenant: RogueTenant, wired: Tenant, begun: SigningIn
) -> None:
    """A code sent twice would end what came of it, so a lost answer is an end."""
    tenant.script(TOKEN, given(tenant))
    found = await finish_sign_in(wired, AGENT, begun, code="c1", state=begun.state)
    assert (found.id_token, found.refresh_token.reveal()) == ("ey.a.b", "v1.rt")
    assert tenant.sent(TOKEN)[0].form == {
        "grant_type": "authorization_code",
        "client_id": "agent7",
        "client_secret": "agent-secret",
        "code": "c1",
        "redirect_uri": BACK,
        "code_verifier": begun.verifier.reveal(),
    }
    tenant.script(TOKEN, Answer({}, 503), given(tenant))
    with pytest.raises(TenantError):
        await finish_sign_in(wired, AGENT, begun, code="c2", state=begun.state)
    assert tenant.asked(TOKEN) == 2


@pytest.mark.parametrize(
    ("state", "seconds", "error"),
    [
        *(("", 0, "wrong_state"), ("another's", 0, "wrong_state")),
        *(("ü", 0, "wrong_state"), (None, 601, "expired")),
    ],
)
async def test_a_foreign_or_late_state_redeems_no_code(
    tenant: RogueTenant,
    wired: Tenant,
    begun: SigningIn,
    clock: ManualClock,
    *,
    state: str | None,
    seconds: float,
    error: str,
) -> None:
    """Another's sign-in cannot be slipped in under ours (RFC 6749 section 10.12).

    A page left open for more than ten minutes is begun again.
    """
    clock.advance(seconds)
    state = begun.state if state is None else state
    with pytest.raises(TenantRefusedError) as caught:
        await finish_sign_in(wired, AGENT, begun, code="c1", state=state)
    assert caught.value.error == error
    assert tenant.asked(TOKEN) == 0


@pytest.mark.parametrize("lacks", ["refresh_token", "id_token"])
async def test_a_sign_in_without_refresh_or_id_token_is_an_error(
    tenant: RogueTenant, wired: Tenant, begun: SigningIn, lacks: str
) -> None:
    """Without who it was, or what to go on with, there is nothing to keep."""
    tenant.script(TOKEN, given(tenant, **{lacks: None}))
    with pytest.raises(TenantError, match="gave no refresh token"):
        await finish_sign_in(wired, AGENT, begun, code="c1", state=begun.state)


@pytest.mark.parametrize("endpoint", [None, "?a=b", "#x"])
async def test_a_tenant_without_an_authorization_endpoint_is_an_error(
    tenant: RogueTenant, wired: Tenant, endpoint: str | None
) -> None:
    """Our parameters are added to an address, not to somebody's query."""
    document = tenant.discovery()
    page = document.pop("authorization_endpoint")
    changes = {} if endpoint is None else {"authorization_endpoint": page + endpoint}
    tenant.script(DISCOVERY, Answer({**document, **changes}))
    with pytest.raises(TenantError, match="no page to sign in at"):
        await begin_sign_in(wired, AGENT.client_id, BACK)


@pytest.mark.parametrize("nonce", [None, "", "another's", 7, ["n-1"]])
async def test_an_id_token_with_another_nonce_is_refused(
    tenant: RogueTenant, client: TenantClient, claims: Any, nonce: Any
) -> None:
    """The nonce binds it to the page we opened (OpenID Connect Core 3.1.3.7)."""
    claims |= {"aud": "agent7", "nonce": nonce}
    sent = {name: value for name, value in claims.items() if value is not None}
    with pytest.raises(IdentityError, match="nonce") as caught:
        await client.verify_login(tenant.sign(sent), client_id="agent7", nonce="n-1")
    assert caught.value.reason == "claims"


async def test_an_id_token_with_our_nonce_gives_subject_and_name(
    tenant: RogueTenant, client: TenantClient, claims: Any
) -> None:
    """For the agent's client alone: a token of the console's is not taken for it."""
    raw = tenant.sign({**claims, "aud": "agent7", "nonce": "n-1"})
    found = await client.verify_login(raw, client_id="agent7", nonce="n-1")
    assert found == ("auth0|u1", "Alice")
    raw = tenant.sign({**claims, "nonce": "n-1"})
    with pytest.raises(IdentityError):
        await client.verify_login(raw, client_id="agent7", nonce="n-1")
