"""The accounts a user connects for Token Vault (Auth0's My Account API), as that user.

Connecting is two calls with a browser between them: `connect` gives the page to
open, which ends at our redirect URI with a code, and `complete` redeems it.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlencode

from authlib.oauth2.rfc7636 import create_s256_code_challenge

from agentvault_tui.clock import Deadline
from agentvault_tui.errors import TenantError, TenantUnreachableError
from agentvault_tui.vault.api import Purpose, TenantApi
from agentvault_tui.vault.budget import Budget
from agentvault_tui.vault.code_flow import check_return
from agentvault_tui.vault.credentials import Secret
from agentvault_tui.vault.issuer import origin, path
from agentvault_tui.vault.management.rows import delete_at, strings, text
from agentvault_tui.vault.reply import Json
from agentvault_tui.vault.tenant import RetryLimits, Tenant
from agentvault_tui.vault.tokens import TokenSource

SCOPES: Final = (
    "create:me:connected_accounts",
    "read:me:connected_accounts",
    "delete:me:connected_accounts",
)
"""A token's scopes for this API: to connect, to list and to delete an account."""
MAX_TAKE: Final = 20
"""Accounts in one answer, at most."""
MAX_SCOPES: Final = 100
"""Scopes that one connection may ask its provider for."""
_ACCOUNTS: Final = "connected-accounts/accounts"
_MAX_LIFE: Final = 3600
"""Seconds; a tenant that gives more is not believed."""
_MAX_CODE: Final = 256
_MAX_SCOPE: Final = 500
"""Characters of one of an account's scopes."""


@dataclass(frozen=True, slots=True)
class ConnectedAccount:
    """An account at a provider whose tokens Token Vault stores for a person."""

    id: str
    connection: str
    scopes: tuple[str, ...]
    """All that the person allowed; an exchange never gives less."""
    created_at: str


@dataclass(frozen=True, slots=True)
class PendingConnection:
    """A connection under way: the page to open, and the input of `complete`."""

    page: str = field(repr=False)
    """Where to send the user, on the tenant's own origin; holds a ticket."""
    redirect_uri: str
    state: str = field(repr=False)
    auth_session: Secret
    verifier: Secret
    expires: Deadline


class MyAccountApi(TenantApi):
    """The accounts of the one user of *tokens*."""

    def __init__(
        self,
        tenant: Tenant,
        tokens: TokenSource,
        *,
        budget: Budget | None = None,
        patience: RetryLimits | None = None,
        unguessable: Callable[[], str] = lambda: secrets.token_urlsafe(32),
    ) -> None:
        """Act as that user; *unguessable* makes states and PKCE verifiers."""
        base = f"{tenant.issuer}me/v1/"
        super().__init__(tenant, base, tokens, budget=budget, patience=patience)
        self._unguessable = unguessable

    async def connect(
        self, connection: str, redirect_uri: str, scopes: Sequence[str] = ()
    ) -> PendingConnection:
        """Begin to connect an account at *connection*'s provider (201).

        Args:
            connection: ``google-oauth2`` for example.
            redirect_uri: where the tenant's page ends; the client lists it.
            scopes: the provider's scopes to request, at most 100.

        Returns:
            the page to open, and the input of `complete`.

        Raises:
            TenantError: the tenant refuses, or sent a page that must not be opened.
        """
        verifier, state = self._unguessable(), self._unguessable()
        payload: Json = {
            "connection": connection,
            "redirect_uri": redirect_uri,
            "state": state,
            "code_challenge": create_s256_code_challenge(verifier),
            "code_challenge_method": "S256",
        }
        if scopes:
            payload["scopes"] = list(scopes[:MAX_SCOPES])
        reply = await self.request(
            "POST",
            "connected-accounts/connect",
            body=payload,
            expect=(200, 201),
            purpose=Purpose("begin to connect the account", SCOPES[0]),
        )
        body = reply.json()
        life = body.get("expires_in")
        if type(life) is not int or not 0 < life <= _MAX_LIFE:
            raise TenantUnreachableError("the tenant sent an odd time to connect in")
        return PendingConnection(
            page=self._page(body),
            redirect_uri=redirect_uri,
            state=state,
            auth_session=Secret(text(body, "auth_session")),
            verifier=Secret(verifier),
            expires=Deadline.after(self.tenant.clock, life),
        )

    async def complete(
        self, connecting: PendingConnection, *, code: str, state: str
    ) -> ConnectedAccount:
        """Redeem the code the browser came back with (201), its ``connect_code``.

        The result of `connect` works once.

        Raises:
            TenantRefusedError: ``wrong_state``, ``expired``, or the tenant says no.
        """
        check_return(connecting.state, state, connecting.expires, self.tenant.clock)
        reply = await self.request(
            "POST",
            "connected-accounts/complete",
            body={
                "auth_session": connecting.auth_session.reveal(),
                "connect_code": code[:_MAX_CODE],
                "redirect_uri": connecting.redirect_uri,
                "code_verifier": connecting.verifier.reveal(),
            },
            # The reference says 201, the guide 200.
            expect=(200, 201),
            purpose=Purpose("connect the account", SCOPES[0]),
        )
        return account(reply.json())

    async def accounts(
        self, *, connection: str | None = None
    ) -> AsyncIterator[ConnectedAccount]:
        """Yield the connected accounts. Scope ``read:me:connected_accounts``."""
        rows = self.by_checkpoint(
            _ACCOUNTS,
            "accounts",
            query={"connection": connection},
            take=MAX_TAKE,
            purpose=Purpose("list the connected accounts", SCOPES[1]),
        )
        async for row in rows:
            yield account(row)

    async def disconnect(self, account_id: str) -> bool:
        """Delete an account's tokens from the vault (204); return whether it existed.

        The provider's own tokens live on until they are revoked there.
        """
        return await delete_at(
            self,
            f"{_ACCOUNTS}/{path(account_id)}",
            Purpose("disconnect the account", SCOPES[2]),
        )

    def _page(self, body: Json) -> str:
        """Return the page to open with its ticket: one on the tenant's own origin."""
        uri, parameters = body.get("connect_uri"), body.get("connect_params")
        ticket = parameters.get("ticket") if isinstance(parameters, dict) else None
        page = f"{uri}?{urlencode({'ticket': ticket})}"
        plain = isinstance(uri, str) and isinstance(ticket, str) and "?" not in uri
        if not plain or "#" in page or origin(page) != origin(self.tenant.issuer):
            raise TenantError(
                "the tenant sent a page to connect at that is not on its own origin",
                "check that tenant.issuer is the tenant you mean",
            )
        return page


def audience(tenant: Tenant) -> str:
    """Return the My Account API's identifier, for the token it needs."""
    return f"{tenant.issuer}me/"


def account(row: Json) -> ConnectedAccount:
    """Read a connected account."""
    created = row.get("created_at")
    scopes = strings(row.get("scopes"))[:MAX_SCOPES]
    return ConnectedAccount(
        id=text(row, "id"),
        connection=text(row, "connection"),
        scopes=tuple(one[:_MAX_SCOPE] for one in scopes),
        created_at=created if isinstance(created, str) else "",
    )
