"""Auth0's Management API: its client, and the calls each kind of object takes."""

from __future__ import annotations

from agentvault_tui.vault.api import TenantApi
from agentvault_tui.vault.budget import Budget
from agentvault_tui.vault.credentials import RegisteredClient
from agentvault_tui.vault.tenant import RetryLimits, Tenant
from agentvault_tui.vault.tokens import ClientCredentials, TokenSource


class Management(TenantApi):
    """A client of the Management API."""

    def __init__(
        self,
        tenant: Tenant,
        client: RegisteredClient | TokenSource,
        *,
        budget: Budget | None = None,
        patience: RetryLimits | None = None,
    ) -> None:
        """Use *tenant* as *client*, or with tokens got elsewhere.

        Without a *budget*, requests are held to a free tenant's two a second.
        """
        tokens = (
            ClientCredentials(tenant, client, audience(tenant))
            if isinstance(client, RegisteredClient)
            else client
        )
        super().__init__(
            tenant,
            audience(tenant),
            tokens,
            budget=budget or Budget(tenant.clock, sleep=tenant.sleep),
            patience=patience,
        )


def audience(tenant: Tenant) -> str:
    """Return the Management API's identifier, which is its base URL too."""
    return f"{tenant.issuer}api/v2/"
