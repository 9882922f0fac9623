"""Exchanges and revocations as oidc-provider's own clients, by secret and by key."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from joserfc.jwk import RSAKey
from support.manual_clock import ManualClock
from support.oidc_peer import (
    CALENDAR,
    URSULA,
    Provider,
    oidc_provider,
    signed_in_at,
    with_provider,
)

from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.vault import (
    Cause,
    ClientSecret,
    NoToken,
    PrivateKey,
    ProviderToken,
    RefreshedToken,
    RegisteredClient,
    Secret,
    SigningKey,
    Tenant,
    TokenVault,
    revoke_token,
)
from agentvault_tui.vault.tenant import RetryLimits

GOOGLE = "google-oauth2"
TO_PROVIDER = "http://auth0.com/oauth/token-type/federated-connection-access-token"

pytestmark = with_provider


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    """One provider for all tests here; Ursula's calendar is connected."""
    with oidc_provider() as running:
        running.tell("connected", account=URSULA, connection=GOOGLE, scope=CALENDAR)
        yield running


@pytest.fixture
async def tenant(provider: Provider) -> AsyncIterator[Tenant]:
    """How we reach it."""
    made = Tenant(provider.issuer, ManualClock(datetime.now(UTC)))
    yield made
    await made.aclose()


@dataclass
class Application:
    """An agent's, and its vault user's refresh token."""

    credential: RegisteredClient
    token: Secret


def by_secret(provider: Provider) -> RegisteredClient:
    """Register one with a secret."""
    made = provider.register()
    return ClientSecret(made["client_id"], Secret(made["client_secret"]))


def by_key(provider: Provider) -> RegisteredClient:
    """Register one with a key of its own (RFC 7523)."""
    key = RSAKey.generate_key(2048, private=True, auto_kid=True)
    made = provider.register(
        token_endpoint_auth_method="private_key_jwt",
        jwks={"keys": [key.as_dict(private=False)]},
    )
    pem = Secret(key.as_pem(private=True).decode())
    return PrivateKey(made["client_id"], SigningKey(pem, key.kid or ""))


@pytest.fixture(params=[by_secret, by_key])
async def application(
    provider: Provider, tenant: Tenant, request: pytest.FixtureRequest
) -> Application:
    """One where Ursula signed in."""
    credential = request.param(provider)
    return Application(credential, await signed_in_at(tenant, credential))


async def active(provider: Provider, token: Secret) -> bool:
    """Tell whether the provider takes the token, as it says itself (RFC 7662)."""
    judge = provider.register()
    form = {
        "token": token.reveal(),
        "client_id": judge["client_id"],
        "client_secret": judge["client_secret"],
    }
    return bool(provider.tell("oauth/introspect", **form)["active"])


async def test_a_refresh_token_is_exchanged(
    provider: Provider, tenant: Tenant, application: Application
) -> None:
    """The provider knows the client, and gives a token of its own that it honours."""
    vault = TokenVault(tenant, application.credential)
    found = await vault.for_refresh_token(application.token, GOOGLE)
    assert isinstance(found, ProviderToken)
    assert found.scopes == (CALENDAR,)
    assert 3590 <= found.expires_in <= 3600
    assert await active(provider, found.access_token)
    again = await vault.for_refresh_token(application.token, GOOGLE)
    assert isinstance(again, ProviderToken)
    assert again.access_token.reveal() != found.access_token.reveal()


async def no_token(
    tenant: Tenant,
    credential: RegisteredClient,
    token: Secret,
    connection: str = GOOGLE,
) -> NoToken:
    """Exchange in vain, and once."""
    vault = TokenVault(tenant, credential, patience=RetryLimits(attempts=1))
    found = await vault.for_refresh_token(token, connection)
    assert isinstance(found, NoToken)
    return found


async def test_each_no_has_its_cause(
    provider: Provider, tenant: Tenant, application: Application
) -> None:
    """Not connected, another's token, none at all, another's secret, no such grant."""
    mine, token = application.credential, application.token
    found = await no_token(tenant, mine, token, "bank")
    assert found.cause is Cause.NOT_CONNECTED
    assert found.remedy == "connect the account: agentvault connections add"
    other = by_secret(provider)
    for client, subject in ((other, token), (mine, Secret("none"))):
        found = await no_token(tenant, client, subject)
        assert (found.cause, found.error) == (Cause.SUBJECT_REFUSED, "invalid_grant")
    wrong = ClientSecret(other.client_id, Secret("not it"))
    found = await no_token(tenant, wrong, token)
    assert (found.cause, found.error) == (Cause.CLIENT_REFUSED, "invalid_client")
    made = provider.register(grant_types=["authorization_code", "refresh_token"])
    without = ClientSecret(made["client_id"], Secret(made["client_secret"]))
    found = await no_token(tenant, without, token)
    assert "grant type is not allowed" in found.message


async def test_revoked_it_is_really_dead(
    provider: Provider, tenant: Tenant, application: Application
) -> None:
    """Neither refreshed nor exchanged any more; what was handed out lives on.

    That is what is counted down after a revocation (RFC 7009 section 2.1 kills the
    grant's own tokens; the one at the other provider is of a grant of its own).
    """
    mine, token = application.credential, application.token
    found = await TokenVault(tenant, mine).for_refresh_token(token, GOOGLE)
    assert isinstance(found, ProviderToken)
    spared = await signed_in_at(tenant, mine)
    await RefreshedToken(tenant, mine, token).access()
    await revoke_token(tenant, mine, token)
    with pytest.raises(TenantRefusedError) as refused:
        await RefreshedToken(tenant, mine, token).access()
    assert refused.value.error == "invalid_grant"
    assert (await no_token(tenant, mine, token)).cause is Cause.SUBJECT_REFUSED
    assert not await active(provider, token)
    assert await active(provider, spared)
    assert await active(provider, found.access_token)
    await revoke_token(tenant, mine, token)  # RFC 7009 section 2.2: 200 again


async def test_another_client_revokes_nothing(
    provider: Provider, tenant: Tenant, application: Application
) -> None:
    """RFC 7009 section 2.1: whose token it is not, may not end it."""
    with pytest.raises(TenantRefusedError):
        await revoke_token(tenant, by_secret(provider), application.token)
    assert await active(provider, application.token)


async def test_away_is_worth_asking_again(
    provider: Provider, tenant: Tenant, application: Application
) -> None:
    """An outage is no refusal: nobody is told to connect the account anew."""
    provider.down()
    try:
        found = await no_token(tenant, application.credential, application.token)
    finally:
        provider.up()
    assert found.cause is Cause.UNAVAILABLE
    back = TokenVault(tenant, application.credential)
    found_again = await back.for_refresh_token(application.token, GOOGLE)
    assert isinstance(found_again, ProviderToken)
