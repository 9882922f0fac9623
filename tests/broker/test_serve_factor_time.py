"""Which claim says when the second factor was proved, at the tenant in use."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support.manual_clock import ManualClock
from support.rogue_tenant import CLIENT_ID, RogueTenant, rogue_tenant

from agentvault_tui.broker.serve import tenant_client
from agentvault_tui.broker.tenant_process import Announcement
from agentvault_tui.errors import IdentityError
from agentvault_tui.home import Home
from agentvault_tui.model.claims import MFA_AT
from agentvault_tui.vault.kept_clients import ClientSecretsFile

NOW = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)


def session_only(issuer: str) -> dict[str, Any]:
    """What a tenant says of an MFA session once our Action is out of its login."""
    now = int(NOW.timestamp())
    return {
        "iss": issuer,
        "sub": "auth0|u1",
        "aud": CLIENT_ID,
        "iat": now,
        "exp": now + 600,
        "amr": ["mfa"],
        "auth_time": now,
    }


async def reason(
    home: Home, tenant: RogueTenant, *, embedded: bool = False, **changes: Any
) -> str:
    """Return why that, with *changes*, is no proof for the broker of *home*."""
    found = Announcement(tenant.issuer, CLIENT_ID)
    client = tenant_client(home, found, ManualClock(NOW), embedded=embedded)
    claims = {**session_only(tenant.issuer), **changes}
    raw = tenant.sign({name: one for name, one in claims.items() if one is not None})
    try:
        await client.verify_id_token(raw, not_before=NOW)
    except IdentityError as error:
        return error.reason
    finally:
        await client.aclose()
    return ""


STAMPED = {MFA_AT: int(NOW.timestamp()), "amr": None, "auth_time": None}
"""What our Action proves on a tenant that leaves amr out of a device flow's token."""


async def test_where_apply_set_the_tenant_up_its_claim_alone_counts(
    tmp_path: Path,
) -> None:
    """An Action unbound from the login must stop approvals, not weaken them."""
    home = Home(tmp_path, tmp_path)
    async with rogue_tenant() as tenant:
        assert await reason(home, tenant) == ""
        assert await reason(home, tenant, embedded=True) == "no_mfa"
        kept = ClientSecretsFile(home, tenant.issuer)
        kept.keep("console", "another", None)
        assert await reason(home, tenant) == ""
        kept.keep("console", CLIENT_ID, None)
        assert await reason(home, tenant) == "no_mfa"


async def test_the_signed_claim_needs_no_amr_where_apply_set_the_tenant_up(
    tmp_path: Path,
) -> None:
    """Auth0 does not say that a device flow's ID token has amr; ours is documented."""
    home = Home(tmp_path, tmp_path)
    async with rogue_tenant() as tenant:
        assert await reason(home, tenant, **STAMPED) == "no_mfa"
        assert await reason(home, tenant, embedded=True, **STAMPED) == ""
        kept = ClientSecretsFile(home, tenant.issuer)
        kept.keep("console", CLIENT_ID, None)
        assert await reason(home, tenant, **STAMPED) == ""
        assert await reason(home, tenant, **{**STAMPED, "amr": ["pwd"]}) == ""
        old = {**STAMPED, MFA_AT: STAMPED[MFA_AT] - 1}
        assert await reason(home, tenant, **old) == "stale"


@pytest.mark.parametrize("damage", ["{", "[]", "\xff"])
async def test_a_home_that_cannot_be_read_requires_both(
    tmp_path: Path, damage: str
) -> None:
    """Damage to what apply kept must not make an approval easier."""
    home = Home(tmp_path, tmp_path)
    async with rogue_tenant() as tenant:
        kept = ClientSecretsFile(home, tenant.issuer)
        kept.path.parent.mkdir()
        kept.path.write_text(damage, "latin-1")
        assert await reason(home, tenant) == "no_mfa"
        assert await reason(home, tenant, **STAMPED) == "no_mfa"
        assert await reason(home, tenant, **{**STAMPED, "amr": ["mfa"]}) == ""
