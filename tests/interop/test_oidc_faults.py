"""Our client while npm's oidc-provider is strict, rotates its keys, or is away."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from support.manual_clock import ManualClock
from support.oidc_peer import URSULA, Person, Provider, oidc_provider, with_provider
from support.polls import polled

from agentvault_tui.errors import IdentityError, TenantError
from agentvault_tui.vault import DeviceFlow, FlowTokens, TenantClient
from agentvault_tui.vault.device import FlowPending, FlowSlowDown, FlowUnavailable
from agentvault_tui.vault.refreshed import FRESH, PAUSE, STALE

DISCOVERY = "/.well-known/openid-configuration"
KEYS = "/.well-known/jwks.json"
INTERVAL = 5

pytestmark = with_provider


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    """One that keeps to its interval."""
    with oidc_provider(interval=INTERVAL) as running:
        yield running


class Asked:
    """How often the provider was asked for its two documents, from here on."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._before = self._counts()

    def since(self) -> tuple[int, ...]:
        """Return discovery and keys."""
        return tuple(
            now - then for now, then in zip(self._counts(), self._before, strict=True)
        )

    def _counts(self) -> tuple[int, int]:
        return self._provider.asked(DISCOVERY), self._provider.asked(KEYS)


async def id_token(client: TenantClient) -> str:
    """Have somebody sign in; return what the provider signed."""
    flow = await client.start_device_flow(ttl=600)
    async with Person(client.issuer) as person:
        await person.approve(flow)
    tokens = await client.poll_once(flow)
    assert isinstance(tokens, FlowTokens)
    return tokens.id_token


async def test_each_document_is_fetched_once_for_all_who_ask(
    provider: Provider, client: TenantClient, clock: ManualClock
) -> None:
    """Fifty at once wait for one fetch; an hour long nobody asks again, then once."""
    asked = Asked(provider)
    await asyncio.gather(*(client.metadata() for _ in range(50)))
    raw = await id_token(client)
    began = clock.now()

    async def verified() -> set[str]:
        who = await asyncio.gather(
            *(client.verify_id_token(raw, not_before=began) for _ in range(50))
        )
        return {one.sub for one in who}

    assert await verified() == {URSULA}
    assert asked.since() == (1, 1)
    clock.advance(FRESH)
    assert await verified() == {URSULA}
    assert asked.since() == (1, 1)
    clock.advance(1)
    assert await verified() == {URSULA}
    assert asked.since() == (2, 2)


async def test_a_storm_of_unknown_keys_costs_three_fetches_in_three_minutes(
    provider: Provider, client: TenantClient, clock: ManualClock
) -> None:
    """Tokens of another provider's key do not make us its tool against the tenant."""
    mine = await id_token(client)
    began = clock.now()
    with oidc_provider() as other:
        stranger = TenantClient(other.issuer, "console", clock)
        other.tell("rotate")
        other.tell("rotate")
        odd = await id_token(stranger)
        await stranger.aclose()
    await client.verify_id_token(mine, not_before=began)
    asked = Asked(provider)
    for round_ in range(3):
        for _ in range(40):
            with pytest.raises(IdentityError, match="does not list"):
                await client.verify_id_token(odd, not_before=began)
        assert asked.since() == (0, 3 * (round_ + 1))
        clock.advance(3 * PAUSE)
    who = await client.verify_id_token(mine, not_before=began)
    assert who.sub == URSULA


async def test_keys_rotated_under_a_hundred_verifications(
    provider: Provider, client: TenantClient, clock: ManualClock
) -> None:
    """Tokens of both keys, all at once: each is good, for one fetch more."""
    old, began = await id_token(client), clock.now()
    await client.verify_id_token(old, not_before=began)
    clock.advance(PAUSE)
    provider.tell("rotate")
    new = await id_token(client)
    asked = Asked(provider)
    both = [old, new] * 50
    who = await asyncio.gather(
        *(client.verify_id_token(raw, not_before=began) for raw in both)
    )
    assert {one.sub for one in who} == {URSULA}
    assert asked.since() == (0, 1)


async def test_what_it_once_said_serves_a_day_while_it_is_away(
    provider: Provider, client: TenantClient, clock: ManualClock
) -> None:
    """Down, its keys vouch on for a day and nothing new begins; back up, all does."""
    raw, began = await id_token(client), clock.now()
    await client.verify_id_token(raw, not_before=began)
    asked = Asked(provider)
    provider.down()
    try:
        assert not await client.probe()
        clock.advance(FRESH + 1)
        who = await client.verify_id_token(raw, not_before=began)
        assert (who.sub, client.reachable) == (URSULA, False)
        with pytest.raises(TenantError, match="cannot be reached"):
            await client.start_device_flow(ttl=600)
        clock.advance(STALE - FRESH)
        with pytest.raises(TenantError, match="cannot be reached"):
            await client.verify_id_token(raw, not_before=began)
    finally:
        provider.up()
    with pytest.raises(IdentityError, match="expired"):
        await client.verify_id_token(raw, not_before=began)
    assert asked.since() == (1, 1)
    assert client.reachable


async def test_too_fast_then_away_then_approved(
    provider: Provider, clock: ManualClock
) -> None:
    """Its slow_down slows us for good, an outage ends nothing, and the yes comes."""
    flow: DeviceFlow
    naps: list[float] = []

    async def someone_polls_just_before_us() -> None:
        await client.poll_once(flow)

    async def nothing() -> None:
        pass

    async with Person(provider.issuer) as person:
        acts = iter(
            (
                someone_polls_just_before_us,
                nothing,
                lambda: asyncio.to_thread(provider.down),
                lambda: asyncio.to_thread(provider.up),
                lambda: person.approve(flow),
            )
        )

        async def sleep(seconds: float) -> None:
            naps.append(seconds)
            provider.ahead(sum(naps))
            await next(acts)()

        client = TenantClient(provider.issuer, "console", clock, sleep=sleep)
        seen = polled(client)
        try:
            flow = await client.start_device_flow(ttl=600)
            assert flow.interval == INTERVAL
            end = await client.wait(flow)
        finally:
            provider.ahead(0)
            await client.aclose()
    assert isinstance(end, FlowTokens)
    kinds = [type(one) for one in seen[1:]]  # the first poll was the other one's
    assert kinds == [
        FlowSlowDown,
        FlowPending,
        FlowUnavailable,
        FlowPending,
        FlowTokens,
    ]
    assert naps == [5.25, 10.25, 10.25, 20.5, 10.25]
