"""Exchanges at Token Vault: what is sent, what comes, and why nothing does."""

import logging
from typing import Any

import pytest
from support.exchanges import answer, names
from support.rogue_tenant import TOKEN, Answer, RogueTenant

from agentvault_tui.vault import (
    Cause,
    ClientSecret,
    NoToken,
    ProviderToken,
    Secret,
    Tenant,
    TokenVault,
)
from agentvault_tui.vault.credentials import TYPE_PROVIDER, TYPE_REFRESH, VAULT_GRANT
from agentvault_tui.vault.tenant import RetryLimits

GOOGLE = "google-oauth2"
REFUSALS = [name for name in names("token_vault") if not name.endswith("ok")]


@pytest.fixture
def token_vault(wired: Tenant) -> TokenVault:
    """The exchange, as the client of one agent."""
    return TokenVault(
        wired,
        ClientSecret("agent7", Secret("agent-secret")),
        patience=RetryLimits(attempts=3, seconds=5.0, jitter=lambda: 1.0),
    )


async def test_a_refresh_token_is_exchanged_as_every_sdk_does(
    tenant: RogueTenant, token_vault: TokenVault
) -> None:
    """Grant, types and connection word for word, and never a scope."""
    tenant.script(TOKEN, answer("token_vault", "ok"))
    found = await token_vault.for_refresh_token(Secret("v1.rt"), GOOGLE)
    assert isinstance(found, ProviderToken)
    assert found.access_token.reveal() == "ya29.provider-token"
    assert found.scopes == ("https://www.googleapis.com/auth/calendar", "openid")
    assert found.expires_in == 1377
    assert tenant.sent(TOKEN)[0].form == {
        "client_id": "agent7",
        "client_secret": "agent-secret",
        "grant_type": VAULT_GRANT,
        "subject_token": "v1.rt",
        "subject_token_type": TYPE_REFRESH,
        "requested_token_type": TYPE_PROVIDER,
        "connection": GOOGLE,
    }


@pytest.mark.parametrize("name", REFUSALS)
async def test_each_refusal_is_told_apart_with_a_remedy(
    tenant: RogueTenant, token_vault: TokenVault, name: str
) -> None:
    """Ten misconfigurations are ten causes, not one opaque error."""
    recorded = answer("token_vault", name)
    tenant.script(TOKEN, recorded)
    found = await token_vault.for_refresh_token(Secret("v1.rt"), GOOGLE)
    assert isinstance(found, NoToken)
    assert found.cause is Cause(name)
    assert found.error == recorded.body["error"]
    assert found.message == recorded.body["error_description"]
    assert found.remedy
    assert "mfa-token-secret" not in repr(found)
    assert tenant.asked(TOKEN) == 1


def test_every_cause_is_known_from_a_recorded_refusal() -> None:
    """No cause is without its exchange, but for those that have none."""
    without = {Cause.SEALED, Cause.UNAVAILABLE, Cause.OTHER}
    assert set(Cause) == {*map(Cause, REFUSALS), *without}


@pytest.mark.parametrize(
    ("reply", "cause"),
    [
        (Answer({"error": "something_new"}, 401), Cause.CLIENT_REFUSED),
        (Answer({"error": "something_new"}, 400), Cause.OTHER),
        (Answer(b"<html>", 403), Cause.OTHER),
        (Answer({"access_token": "x", "token_type": "DPoP"}), Cause.UNAVAILABLE),
        (Answer({"expires_in": 5}), Cause.UNAVAILABLE),
        (Answer(b"garbage"), Cause.UNAVAILABLE),
        (Answer({}, 503), Cause.UNAVAILABLE),
        (Answer(raw=b""), Cause.UNAVAILABLE),
        (None, Cause.UNAVAILABLE),
    ],
)
async def test_an_unknown_refusal_gives_no_token(
    tenant: RogueTenant, token_vault: TokenVault, reply: Answer | None, cause: Cause
) -> None:
    """Whatever else comes back, or nothing, is an outcome rather than a crash."""
    if reply is None:
        await tenant.stop()
    else:
        tenant.script(TOKEN, reply)
    found = await token_vault.for_refresh_token(Secret("v1.rt"), GOOGLE)
    assert isinstance(found, NoToken)
    assert found.cause is cause


async def test_a_rate_limited_exchange_says_when_to_retry(
    tenant: RogueTenant, token_vault: TokenVault, naps: list[float]
) -> None:
    """An agent is not kept for a minute: it is told how long that will be."""
    tenant.script(TOKEN, answer("authentication", "prose_rate_limit"))
    found = await token_vault.for_refresh_token(Secret("v1.rt"), GOOGLE)
    assert isinstance(found, NoToken)
    assert (found.cause, found.retry_after) == (Cause.UNAVAILABLE, 60.0)
    assert sum(naps) <= 5.0


async def test_a_provider_token_is_in_no_repr_and_no_log(
    tenant: RogueTenant, token_vault: TokenVault, caplog: Any
) -> None:
    """What an exchange gives is in nothing that is printed."""
    caplog.set_level(logging.DEBUG)
    tenant.script(TOKEN, answer("token_vault", "ok"))
    found = await token_vault.for_refresh_token(Secret("v1.rt"), GOOGLE)
    written = f"{found!r} {found} {caplog.text}"
    for secret in ("ya29", "v1.rt", "agent-secret"):
        assert secret not in written


@pytest.mark.parametrize("life", [None, "1377", -1, True])
async def test_a_token_without_expires_in_has_no_lifetime(
    tenant: RogueTenant, token_vault: TokenVault, life: Any
) -> None:
    """Without `expires_in` the token is for this once."""
    body = {**answer("token_vault", "ok").body, "expires_in": life}
    tenant.script(TOKEN, Answer(body))
    found = await token_vault.for_refresh_token(Secret("v1.rt"), GOOGLE)
    assert isinstance(found, ProviderToken)
    assert found.expires_in == 0
