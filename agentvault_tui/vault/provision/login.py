"""A token for the Management API by device flow, as the person who signs in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from agentvault_tui.errors import TenantError, TenantRefusedError
from agentvault_tui.text import visible
from agentvault_tui.vault.device import (
    SLOWER,
    DeviceFlow,
    Pending,
    SlowDown,
    Unavailable,
    read_poll,
    read_start,
)
from agentvault_tui.vault.management import audience
from agentvault_tui.vault.tenant import Tenant
from agentvault_tui.vault.tokens import Access, read_access
from agentvault_tui.vault.urns import DEVICE_GRANT

_LIFE: Final = 900


async def sign_in(
    tenant: Tenant,
    client_id: str,
    scopes: Iterable[str],
    show: Callable[[DeviceFlow], None],
) -> Access:
    """Sign a person in and return their Management API token.

    Args:
        tenant: whose API it is for.
        client_id: a native application with the device grant.
        scopes: what is asked for; the tenant may give less.
        show: told the code and the link, for the person.

    Raises:
        TenantError: the tenant refused, or nobody signed in in time.
    """
    form = {
        "client_id": client_id,
        "scope": " ".join(scopes),
        "audience": audience(tenant),
    }
    metadata = await tenant.metadata()
    endpoint = metadata.device_authorization_endpoint
    reply = await tenant.send("POST", endpoint, form=form)
    flow = read_start(reply, tenant.issuer, _LIFE, tenant.clock)
    show(flow)
    interval = float(flow.interval)
    asked = {"grant_type": DEVICE_GRANT, "device_code": flow.device_code}
    while not flow.expires.passed(tenant.clock):
        await tenant.sleep(interval)
        # slow_down is a 429 and no rate limit: it is read here, not retried there.
        reply = await tenant.send(
            "POST",
            metadata.token_endpoint,
            form={**asked, "client_id": client_id},
        )
        if reply.status == 200:
            return read_access(reply, tenant.clock)
        match read_poll(reply, tenant.clock):
            case Pending() | Unavailable():
                continue
            case SlowDown():
                interval += SLOWER
            case _:
                code = visible(reply.error or f"status {reply.status}", 60)
                what = f"the tenant ended the sign-in: {code} {reply.description}"
                raise TenantRefusedError(code, what.rstrip(), status=reply.status)
    raise TenantError("nobody signed in before the code ran out", "start again")
