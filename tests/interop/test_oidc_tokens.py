"""ID tokens that oidc-provider signed with its own keys, and that prove too little."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from support.manual_clock import ManualClock
from support.oidc_peer import (
    BACK,
    FACTORS,
    URSULA,
    Person,
    Provider,
    oidc_provider,
    query_of,
    with_provider,
)

from agentvault_tui.errors import IdentityError, TenantRefusedError
from agentvault_tui.vault import (
    ClientSecret,
    DeviceFlow,
    FlowTokens,
    Secret,
    SigningIn,
    TenantClient,
    begin_sign_in,
    finish_sign_in,
)

LATER = 300

pytestmark = with_provider


@pytest.fixture
def application(provider: Provider) -> ClientSecret:
    """An agent's own, for whose vault user people sign in."""
    made = provider.register()
    return ClientSecret(made["client_id"], Secret(made["client_secret"]))


async def told(client: TenantClient, flow: DeviceFlow) -> str:
    """Return the ID token that the poll brings."""
    tokens = await client.poll_once(flow)
    assert isinstance(tokens, FlowTokens)
    return tokens.id_token


async def refusal(client: TenantClient, raw: str, not_before: datetime) -> str:
    """Return why an approval does not take this token."""
    with pytest.raises(IdentityError) as refused:
        await client.verify_id_token(raw, not_before=not_before)
    return refused.value.reason


async def test_a_browser_still_signed_in_is_no_fresh_factor(
    provider: Provider, client: TenantClient, clock: ManualClock
) -> None:
    """The provider signs a new token of an old session: its factor counts no more."""
    first = await client.start_device_flow(ttl=600)
    async with Person(provider.issuer) as person:
        await person.approve(first)
        before = await client.verify_id_token(
            await told(client, first), not_before=first.started_at
        )
        provider.ahead(LATER)
        try:
            clock.advance(LATER)
            second = await client.start_device_flow(ttl=600)
            await person.approve_again(second)
            raw = await told(client, second)
        finally:
            provider.ahead(0)
    assert await refusal(client, raw, second.started_at) == "stale"
    # All that is wrong with it is when: for the first request it would have been good.
    who = await client.verify_id_token(raw, not_before=first.started_at)
    assert (who.sub, who.amr) == (URSULA, FACTORS)
    assert who.authenticated_at == before.authenticated_at
    assert who.claims["iat"] >= before.claims["iat"] + LATER


async def test_the_token_of_another_approval_is_too_old(
    provider: Provider, client: TenantClient, clock: ManualClock
) -> None:
    """What a person approved a minute ago approves nothing that was asked since."""
    flow = await client.start_device_flow(ttl=600)
    async with Person(provider.issuer) as person:
        await person.approve(flow)
    raw = await told(client, flow)
    assert (await client.verify_id_token(raw, not_before=flow.started_at)).sub == URSULA
    asked_since = clock.now() + timedelta(seconds=60)
    assert await refusal(client, raw, asked_since) == "stale"


async def test_an_issuer_with_the_same_keys_is_another_issuer(
    provider: Provider, client: TenantClient, clock: ManualClock
) -> None:
    """The signature holds, and the name does not: two tenants may share a key."""
    with oidc_provider(keys=provider.tell("keys")) as other:
        theirs = TenantClient(other.issuer, "console", clock)
        flow = await theirs.start_device_flow(ttl=600)
        async with Person(other.issuer) as person:
            await person.approve(flow)
        raw = await told(theirs, flow)
        who = await theirs.verify_id_token(raw, not_before=flow.started_at)
        await theirs.aclose()
    assert who.sub == URSULA
    with pytest.raises(IdentityError, match="iss") as refused:
        await client.verify_id_token(raw, not_before=flow.started_at)
    assert refused.value.reason == "claims"


async def signed_in(
    client: TenantClient, application: ClientSecret
) -> tuple[SigningIn, str]:
    """Have Ursula sign in at the application; return that, and its ID token."""
    begun = await begin_sign_in(client, application.client_id, BACK)
    async with Person(client.issuer) as person:
        code, state = query_of(await person.sign_in(begun.page))
    found = await finish_sign_in(client, application, begun, code=code, state=state)
    with pytest.raises(TenantRefusedError) as twice:
        await finish_sign_in(client, application, begun, code=code, state=state)
    assert twice.value.error == "invalid_grant"
    return begun, found.id_token


async def test_a_sign_in_is_bound_to_its_nonce_and_its_client(
    client: TenantClient, application: ClientSecret
) -> None:
    """It says who it was there and then: for no other sign-in, and for no approval."""
    own = application.client_id
    first, raw = await signed_in(client, application)
    again, _ = await signed_in(client, application)
    who = await client.verify_login(raw, client_id=own, nonce=first.nonce)
    assert who == (URSULA, "ursula")
    for client_id, nonce in ((own, again.nonce), ("console", first.nonce)):
        with pytest.raises(IdentityError) as refused:
            await client.verify_login(raw, client_id=client_id, nonce=nonce)
        assert refused.value.reason == "claims"
    began = client.clock.now() - timedelta(seconds=LATER)
    assert await refusal(client, raw, began) == "claims"
