"""A token for the Management API by device flow, as the person who signs in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from agentvault_tui.errors import TenantError, TenantRefusedError
from agentvault_tui.vault.device import (
    DeviceFlow,
    FlowDenied,
    FlowFailed,
    FlowTokens,
    Poll,
    poll_once,
    poll_until_ended,
    read_start,
)
from agentvault_tui.vault.management import audience
from agentvault_tui.vault.tenant import Tenant
from agentvault_tui.vault.tokens import AccessToken

_LIFE: Final = 900
"""Seconds: what Auth0 gives a device code."""


async def sign_in(
    tenant: Tenant,
    client_id: str,
    scopes: Iterable[str],
    show: Callable[[DeviceFlow], None],
) -> AccessToken:
    """Sign a person in and return their Management API token.

    Args:
        tenant: whose API it is for.
        client_id: a native application with the device grant.
        scopes: what is asked for; the tenant may give less.
        show: told the code and the link, for the person.

    Returns:
        an access token with the scopes that were given.

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

    async def ask() -> Poll:
        # No openid in the scope, so no ID token: what it may is all that counts.
        return await poll_once(tenant, client_id, flow, openid=False)

    match await poll_until_ended(tenant, flow, ask, cancel=asyncio.Event()):
        case FlowTokens(access=AccessToken() as access):
            return access
        case FlowDenied(message):
            raise _ended("access_denied", message)
        case FlowFailed(error, message):
            raise _ended(error, message)
    raise TenantError("nobody signed in before the code ran out", "start again")


def _ended(error: str, message: str) -> TenantRefusedError:
    what = f"the tenant ended the sign-in: {error} {message}"
    return TenantRefusedError(error, what.rstrip(), status=403)
