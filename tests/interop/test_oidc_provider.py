"""Our client of the tenant against a provider nobody here wrote: npm oidc-provider."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest
from support.manual_clock import ManualClock
from support.oidc_peer import FACTORS, URSULA, Person, Provider, with_provider
from support.polls import polled

from agentvault_tui.errors import IdentityError, TenantRefusedError
from agentvault_tui.vault import (
    AccessToken,
    DeviceFlow,
    FlowDenied,
    FlowExpired,
    FlowFailed,
    FlowTokens,
    RefreshedToken,
    RegisteredClient,
    Secret,
    TenantClient,
    is_approver,
    revoke_token,
)
from agentvault_tui.vault.client import SCOPE
from agentvault_tui.vault.device import FlowPending, poll_once
from agentvault_tui.vault.identity import key_id
from agentvault_tui.vault.tenant import Sleep

LIFE = 600
"""Seconds that the provider's codes live."""

pytestmark = with_provider


@pytest.fixture
def issuer(provider: Provider) -> str:
    """Where it is."""
    return provider.issuer


@pytest.fixture
def clock() -> ManualClock:
    """The provider has the machine's time, and so have we."""
    return ManualClock(datetime.now(UTC))


@pytest.fixture
async def client(issuer: str, clock: ManualClock) -> AsyncIterator[TenantClient]:
    """Our client, as the console has it."""
    made = TenantClient(issuer, "console", clock)
    yield made
    await made.aclose()


async def signed_in(
    client: TenantClient, *amr: str, scope: str = SCOPE, openid: bool = True
) -> FlowTokens:
    """Return what the poll brings once somebody signed in."""
    flow = await client.start_device_flow(scope, ttl=LIFE)
    async with Person(client.issuer) as person:
        await person.approve(flow, *amr)
    tokens = await poll_once(client, client.client_id, flow, openid=openid)
    assert isinstance(tokens, FlowTokens)
    return tokens


async def test_discovery_names_what_we_use(client: TenantClient) -> None:
    """Its document is read whole, and nothing in it is refused."""
    assert await client.probe()
    metadata = await client.metadata()
    assert metadata.device_authorization_endpoint.endswith("/oauth/device/code")
    assert metadata.revocation_endpoint.endswith("/oauth/revoke")


def acting(*acts: Callable[[], Awaitable[object]]) -> tuple[Sleep, list[float]]:
    """Make a sleep that waits for nothing: before each poll, something is done."""
    left, naps = iter(acts), []

    async def sleep(seconds: float) -> None:
        naps.append(seconds)
        await next(left)()

    return sleep, naps


async def nothing() -> None:
    """Let the first poll find the code undecided."""


async def test_pending_then_approved_by_a_person_with_two_factors(
    issuer: str, clock: ManualClock
) -> None:
    """The wait sees it pending, then approved; the ID token stands every check."""
    flow: DeviceFlow
    async with Person(issuer) as person:
        sleep, naps = acting(nothing, lambda: person.approve(flow))
        client = TenantClient(issuer, "console", clock, sleep=sleep)
        seen = polled(client)
        flow = await client.start_device_flow(ttl=LIFE)
        end = await client.wait(flow)
    assert isinstance(end, FlowTokens)
    assert seen[:-1] == [FlowPending()]
    assert naps == [5.25, 5.25]  # RFC 8628 section 3.2: the provider names no interval.
    who = await client.verify_id_token(end.id_token, not_before=flow.started_at)
    assert (who.sub, who.name, who.amr) == (URSULA, "ursula", FACTORS)
    assert is_approver(who, ())
    assert is_approver(who, ("ursula@example.com",))
    used = await client.poll_once(flow)
    assert isinstance(used, FlowFailed)
    assert used.error == "invalid_grant"
    await client.aclose()


async def test_denied_by_the_person(client: TenantClient) -> None:
    """Who presses cancel is told to us as that."""
    flow = await client.start_device_flow(ttl=LIFE)
    async with Person(client.issuer) as person:
        await person.answer(flow, abort="yes")
    assert await client.poll_once(flow) == FlowDenied("End-User aborted interaction")


async def test_a_code_runs_out(provider: Provider, client: TenantClient) -> None:
    """The provider's own word for it is understood."""
    flow = await client.start_device_flow(ttl=LIFE)
    provider.ahead(LIFE + 1)
    try:
        assert await client.poll_once(flow) == FlowExpired()
    finally:
        provider.ahead(0)


@pytest.mark.parametrize(
    ("amr", "audience", "later", "reason"),
    [
        (("pwd",), "console", 0, "no_mfa"),
        (("pwd", "otp"), "console", 0, "no_mfa"),
        (("pwd", "mfa"), "console", 60, "stale"),
        (("pwd", "mfa"), "another", 0, "claims"),
    ],
)
async def test_what_an_approval_does_not_take(
    client: TenantClient, amr: tuple[str, ...], audience: str, later: int, reason: str
) -> None:
    """One factor, an earlier sign-in, another client's: well signed, and refused."""
    clock = client.clock
    theirs = TenantClient(client.issuer, audience, clock)
    asked = clock.now() + timedelta(seconds=later)
    tokens = await signed_in(theirs, *amr)
    await theirs.aclose()
    with pytest.raises(IdentityError) as refused:
        await client.verify_id_token(tokens.id_token, not_before=asked)
    assert refused.value.reason == reason


async def test_a_changed_claim_breaks_the_signature(
    client: TenantClient, clock: ManualClock
) -> None:
    """The provider's key is what vouches, not the token's own words."""
    good = (await signed_in(client)).id_token
    other = (await signed_in(client, "pwd")).id_token
    head, _, signature = good.split(".")
    forged = ".".join((head, other.split(".")[1], signature))
    with pytest.raises(IdentityError) as refused:
        await client.verify_id_token(forged, not_before=clock.now())
    assert refused.value.reason == "signature"


async def test_refreshed_rotated_and_revoked(client: TenantClient) -> None:
    """A refresh token gives another in its place; revoked, that gives nothing."""
    scope = f"{SCOPE} offline_access"
    access = (await signed_in(client, scope=scope, openid=False)).access
    assert isinstance(access, AccessToken)
    first = access.refresh_token
    assert first is not None
    console, rotated = RegisteredClient("console"), list[Secret]()

    def source(token: Secret) -> RefreshedToken:
        return RefreshedToken(client, console, token, rotated=rotated.append)

    renewed = await source(first).access()
    assert renewed.token.reveal() != access.token.reveal()
    (second,) = rotated
    await revoke_token(client, console, second)
    with pytest.raises(TenantRefusedError):
        await source(second).access()
    await revoke_token(client, console, second)  # RFC 7009 2.2: 200 again.


async def test_keys_are_rotated_while_a_person_approves(
    issuer: str, client: TenantClient, clock: ManualClock
) -> None:
    """The new key is fetched at once, also when it is replaced a moment later.

    What the old one signed counts while the provider lists it, and no longer.
    """
    old = (await signed_in(client)).id_token
    began = clock.now()
    await client.verify_id_token(old, not_before=began)
    flow = await client.start_device_flow(ttl=LIFE)
    async with Person(issuer) as person:
        await person.http.post("rotate")
        await person.approve(flow)
        new = await client.poll_once(flow)
        assert isinstance(new, FlowTokens)
        assert key_id(new.id_token) != key_id(old)
        for token in (new.id_token, old):
            who = await client.verify_id_token(token, not_before=began)
            assert who.sub == URSULA
        await person.http.post("rotate")
        newest = (await signed_in(client)).id_token
        await client.verify_id_token(newest, not_before=began)
        await person.http.post("retire")
    fresh = TenantClient(issuer, "console", clock)
    await fresh.verify_id_token(newest, not_before=began)
    with pytest.raises(IdentityError, match="does not list"):
        await fresh.verify_id_token(old, not_before=began)
    await fresh.aclose()
