"""Reaches the tenant's Management API with whichever credential was given."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from agentvault_tui.cli.auth0_credential import (
    from_descriptor,
    from_keyring,
    from_prompt,
    usable,
)
from agentvault_tui.cli.auth0_needs import management_issuer, needs, tenant_issuer
from agentvault_tui.cli.device import print_device
from agentvault_tui.cli.session import CliSession
from agentvault_tui.clock import SystemClock
from agentvault_tui.errors import UsageError
from agentvault_tui.vault import (
    Budget,
    DeviceFlow,
    FixedToken,
    Management,
    RegisteredClient,
    Secret,
    Tenant,
    TokenSource,
)
from agentvault_tui.vault.kept_clients import KeptClients
from agentvault_tui.vault.provision import (
    Needs,
    Provisioner,
    scopes,
    sign_in,
)


class TellingClients(KeptClients):
    """Keeps as ever, and remembers what came new, to print it once if asked."""

    def __init__(self, *args: Any) -> None:
        """Remember nothing yet."""
        super().__init__(*args)
        self.fresh: dict[str, tuple[str, Secret]] = {}

    def keep(self, key: str, client_id: str, secret: Secret | None) -> None:
        """Keep a client, and its secret if it has one; on disk when this returns."""
        super().keep(key, client_id, secret)
        if secret is not None:
            self.fresh[key] = (client_id, secret)


@dataclass
class ManagementSession:
    """A tenant that is reached, with a credential."""

    management: Management
    kept: TellingClients
    needs: Needs

    @property
    def provisioner(self) -> Provisioner:
        """Return what plans and applies there."""
        return Provisioner(self.management, self.kept)


@asynccontextmanager
async def opened(
    session: CliSession,
    *,
    credential_fd: int | None,
    device: bool,
    change_mfa_policy: bool = False,
    remove_unused: bool = False,
) -> AsyncIterator[ManagementSession]:
    """Reach the Management API; a person is asked for a credential last of all.

    Raises:
        UsageError: no tenant is set, or there is no credential.
    """
    issuer = tenant_issuer(session)
    wanted = replace(
        needs(session), change_mfa_policy=change_mfa_policy, remove_unused=remove_unused
    )
    kept = TellingClients(session.home, issuer)
    async with reached(management_issuer(session)) as tenant:
        source: RegisteredClient | TokenSource
        if device:
            source = await _by_device(session, tenant, kept, wanted)
        elif credential_fd is not None:
            source = usable(from_descriptor(credential_fd))
        else:
            source = usable(from_keyring(issuer) or from_prompt())
        rate = session.settings.tenant.rate
        budget = Budget(tenant.clock, rate=rate, burst=max(2.0, rate))
        yield ManagementSession(Management(tenant, source, budget=budget), kept, wanted)


@asynccontextmanager
async def reached(issuer: str) -> AsyncIterator[Tenant]:
    """Yield the tenant at *issuer*, and close its connections afterwards.

    Raises:
        SettingsError: *issuer* is not one we may talk to.
    """
    tenant = Tenant(issuer, SystemClock())
    try:
        yield tenant
    finally:
        await tenant.aclose()


async def _by_device(
    session: CliSession, tenant: Tenant, kept: KeptClients, wanted: Needs
) -> TokenSource:
    if session.json:
        raise UsageError("a person reads the code", "leave out --json, or --device")
    client_id = session.settings.tenant.client_id or kept.client_id("console")
    if not client_id:
        raise UsageError(
            "signing in by device flow needs a native application of the tenant",
            "set tenant.client_id, or use a credential: --credential-fd N",
        )
    asked = scopes.reading(wanted) + scopes.writing(wanted)

    def tell(flow: DeviceFlow) -> None:
        print_device(session, flow)

    return FixedToken(await sign_in(tenant, client_id, asked, tell))
