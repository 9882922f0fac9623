"""Second factors, and when the tenant itself asks for one (``/guardian``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from agentvault_tui.errors import TenantUnreachableError
from agentvault_tui.vault.api import Api
from agentvault_tui.vault.issuer import path
from agentvault_tui.vault.management.rows import strings
from agentvault_tui.vault.reply import Json

NEVER: Final = ()
"""The policy under which our Actions alone ask for a factor."""
ALWAYS: Final = ("all-applications",)
"""The policy under which Token Vault's exchanges fail."""


async def factors(api: Api) -> dict[str, Json]:
    """Return each factor by name. Scope ``read:guardian_factors``.

    ``enabled``, and ``trial_expired``: the plan does not have it any more, whatever
    ``enabled`` says.
    """
    reply = await api.request(
        "GET",
        "guardian/factors",
        what="list its second factors",
        scope="read:guardian_factors",
    )
    return {
        row["name"]: {
            "enabled": row.get("enabled") is True,
            "trial_expired": row.get("trial_expired") is True,
        }
        for row in reply.rows()
        if isinstance(row.get("name"), str)
    }


async def set_factor(api: Api, name: str, *, enabled: bool) -> None:
    """Enable or disable a factor (200). Scope ``update:guardian_factors``."""
    await api.request(
        "PUT",
        path("guardian", "factors", name),
        body={"enabled": enabled},
        what=f"change the factor {name}",
        scope="update:guardian_factors",
    )


async def policies(api: Api) -> tuple[str, ...]:
    """Return when a factor is asked for; `NEVER` is best. ``read:mfa_policies``."""
    reply = await api.request(
        "GET",
        "guardian/policies",
        what="show its MFA policy",
        scope="read:mfa_policies",
    )
    if not isinstance(reply.value, list):
        raise TenantUnreachableError("the tenant sent no list of MFA policies")
    return strings(reply.value)


async def set_policies(api: Api, wanted: Sequence[str]) -> None:
    """Say when a factor is asked for (200). Scope ``update:mfa_policies``."""
    await api.request(
        "PUT",
        "guardian/policies",
        body=list(wanted),
        what="change its MFA policy",
        scope="update:mfa_policies",
    )
