"""A Management token by device flow: who signs in, and how it ends."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from support.auth0_answers import CANCELLED, PENDING, SLOW_DOWN, oauth_error
from support.provisioning import configure
from support.rogue_tenant import CLIENT_ID, DEVICE, TOKEN, Answer, rogue_tenant

from agentvault_tui.cli.app import run
from agentvault_tui.clock import SystemClock
from agentvault_tui.errors import TenantError, TenantRefusedError
from agentvault_tui.vault import AccessToken, Tenant
from agentvault_tui.vault.device import MARGIN
from agentvault_tui.vault.provision import sign_in

GIVEN = Answer(
    {
        "access_token": "management-token",
        "token_type": "Bearer",
        "expires_in": 7200,
        "scope": "read:clients read:actions",
    }
)


async def signed_in(*answers: Answer) -> tuple[AccessToken, list[float], Any]:
    """Sign in at a tenant that answers so; return the token, the waits, the tenant."""
    async with rogue_tenant() as tenant:
        tenant.script(DEVICE, Answer(tenant.device(interval=5)))
        tenant.script(TOKEN, *answers)
        waits: list[float] = []

        async def wait(seconds: float) -> None:
            waits.append(seconds)

        reached = Tenant(tenant.issuer, SystemClock(), sleep=wait)
        try:
            shown: list[Any] = []
            scopes = ("read:clients", "read:actions")
            access = await sign_in(reached, CLIENT_ID, scopes, shown.append)
            assert shown[0].user_code
            return access, waits, tenant
        finally:
            await reached.aclose()


async def test_the_token_is_for_the_management_api_and_says_what_it_may() -> None:
    """Asked for by audience; what the tenant gave less is known from its scope."""
    access, waits, tenant = await signed_in(PENDING, SLOW_DOWN, PENDING, GIVEN)
    (asked,) = tenant.sent(DEVICE)
    assert asked.form["audience"] == f"{tenant.issuer}api/v2/"
    assert asked.form["scope"] == "read:clients read:actions"
    assert access.scopes == {"read:clients", "read:actions"}
    assert access.token.reveal() == "management-token"
    # RFC 8628 section 3.5: slower for good.
    assert [wait - MARGIN for wait in waits] == [5, 5, 10, 10]


@pytest.mark.parametrize(
    "answer", [CANCELLED, oauth_error(403, "invalid_grant")], ids=["cancelled", "spent"]
)
async def test_a_denied_sign_in_gives_no_token(answer: Answer) -> None:
    """The tenant's own word is told."""
    with pytest.raises(TenantRefusedError, match="ended the sign-in"):
        await signed_in(PENDING, answer)


async def test_an_expired_code_ends_the_sign_in() -> None:
    """The tenant's word for it is no refusal: whoever is late starts again."""
    with pytest.raises(TenantError, match="nobody signed in"):
        await signed_in(PENDING, oauth_error(403, "expired_token"))


async def test_an_outage_during_sign_in_is_waited_out() -> None:
    """A 503 ends nothing: the code lives on at the tenant."""
    access, _, _ = await signed_in(Answer(b"", 503), PENDING, GIVEN)
    assert access.token.reveal() == "management-token"


@pytest.mark.slow
async def test_a_person_signs_in_instead_of_a_credential(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The code is shown, and what their token lacks is named before the first call."""
    monkeypatch.setenv("AGENTVAULT_HOME", str(tmp_path))
    plan = ["auth0", "plan", "--device"]
    async with rogue_tenant() as tenant:
        configure(tmp_path, issuer=tenant.issuer)
        assert await asyncio.to_thread(run, plan) == 2
        assert "set tenant.client_id" in capfd.readouterr().err
        configure(tmp_path, issuer=tenant.issuer, client_id=CLIENT_ID)
        assert await asyncio.to_thread(run, [*plan, "--json"]) == 2
        assert "a person reads the code" in capfd.readouterr().err
        assert tenant.asked(DEVICE) == 0
        tenant.script(DEVICE, Answer(tenant.device(interval=1)))
        tenant.script(TOKEN, GIVEN)
        assert await asyncio.to_thread(run, plan) == 1
        assert not [one for one in tenant.requests if one.path.startswith("/api")]
    out, err = capfd.readouterr()
    assert "KDRT-WZNB" in out
    assert "read:connections" in err
    assert "management-token" not in out + err


async def test_a_refusals_code_is_displayable() -> None:
    """What the tenant calls its no reaches a terminal, and moves no cursor there."""
    with pytest.raises(TenantRefusedError) as caught:
        await signed_in(oauth_error(403, "\x1b[2Jinvalid\u202e", "\x1b]0;x\x07"))
    assert caught.value.diagnosis().isprintable()
    assert caught.value.error.isprintable()
    assert "\u202e" not in caught.value.diagnosis()
