"""Settings of the tenant as a whole (``/tenants/settings``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentvault_tui.vault.api import Api
from agentvault_tui.vault.management.rows import without_secrets
from agentvault_tui.vault.reply import Json


async def get(api: Api) -> Json:
    """Return the tenant's settings (200). Scope ``read:tenant_settings``."""
    reply = await api.request(
        "GET",
        "tenants/settings",
        what="show its settings",
        scope="read:tenant_settings",
    )
    return without_secrets(reply.json())


async def patch(api: Api, changes: Mapping[str, Any]) -> Json:
    """Change the tenant's settings (200). Scope ``update:tenant_settings``."""
    reply = await api.request(
        "PATCH",
        "tenants/settings",
        body=dict(changes),
        what="change its settings",
        scope="update:tenant_settings",
    )
    return without_secrets(reply.json())
