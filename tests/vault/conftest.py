"""A rogue tenant on a socket, a client of it, and a clock only tests move."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from support.manual_clock import ManualClock
from support.patience import PATIENT
from support.rogue_tenant import CLIENT_ID, RogueTenant, rogue_tenant

from agentvault_tui.errors import IdentityError
from agentvault_tui.vault import ClientSecret, Management, Secret, Tenant, TenantClient
from agentvault_tui.vault.tenant import RetryLimits

MFA_AT = "https://agentvault.dev/mfa_at"
ROLES = "https://agentvault.dev/roles"
NOON = datetime(2026, 11, 24, 12, 0, 0, 600_000, tzinfo=UTC)


@pytest.fixture
def clock() -> ManualClock:
    """Noon, and 0.6 seconds."""
    return ManualClock(NOON)


@pytest.fixture
async def tenant() -> AsyncIterator[RogueTenant]:
    """A tenant that behaves until a test says otherwise."""
    async with rogue_tenant() as running:
        yield running


@pytest.fixture
def naps() -> list[float]:
    """How long the client slept, each time."""
    return []


@pytest.fixture
def sleep(clock: ManualClock, naps: list[float]) -> Any:
    """A sleep that moves the test's clock instead of waiting."""

    async def nap(seconds: float) -> None:
        naps.append(seconds)
        clock.advance(seconds)
        await asyncio.sleep(0)

    return nap


@pytest.fixture
async def wired(
    tenant: RogueTenant, clock: ManualClock, sleep: Any
) -> AsyncIterator[Tenant]:
    """The tenant as its clients reach it."""
    reached = Tenant(tenant.issuer, clock, timeout=PATIENT, sleep=sleep)
    yield reached
    await reached.aclose()


@pytest.fixture
def api(wired: Tenant) -> Management:
    """The Management API, without chance in its pauses."""
    credential = ClientSecret("avMgmt01", Secret("the-management-secret"))
    return Management(wired, credential, patience=RetryLimits(jitter=lambda: 1.0))


@pytest.fixture
async def client(
    tenant: RogueTenant, clock: ManualClock, sleep: Any
) -> AsyncIterator[TenantClient]:
    """A client whose sleep moves the test's clock instead of waiting."""
    made = TenantClient(tenant.issuer, CLIENT_ID, clock, timeout=PATIENT, sleep=sleep)
    yield made
    await made.aclose()


@pytest.fixture
def claims(tenant: RogueTenant, clock: ManualClock) -> dict[str, Any]:
    """Claims of someone who proved a second factor this very second."""
    now = int(clock.now().timestamp())
    return {
        "iss": tenant.issuer,
        "sub": "auth0|u1",
        "aud": "avConsole01",
        "iat": now,
        "exp": now + 36_000,
        "amr": ["mfa"],
        "acr": "http://schemas.openid.net/pape/policies/2007/06/multi-factor",
        "sid": "k3",
        "name": "Alice",
        "email": "alice@acme.test",
        "email_verified": True,
        ROLES: ["approver"],
        MFA_AT: now,
    }


@pytest.fixture
async def refused(client: TenantClient, clock: ManualClock) -> Any:
    """Returns the reason a token is refused for."""

    async def reason(raw: str) -> str:
        with pytest.raises(IdentityError) as caught:
            await client.verify_id_token(raw, not_before=clock.now())
        assert caught.value.diagnosis().isprintable()
        assert len(caught.value.diagnosis()) < 400
        return caught.value.reason

    return reason
