"""Token Vault: a provider's access token, for a refresh token of the tenant's.

The exchange takes no scope: the token carries all scopes that the user once allowed, so
our policy decides the agent's use of it before.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from agentvault_tui.errors import TenantUnreachableError
from agentvault_tui.text import visible
from agentvault_tui.vault.credentials import (
    TYPE_PROVIDER,
    TYPE_REFRESH,
    VAULT_GRANT,
    RegisteredClient,
    Secret,
)
from agentvault_tui.vault.refusals import read_refusal, refused
from agentvault_tui.vault.reply import TenantReply
from agentvault_tui.vault.tenant import RetryLimits, Tenant
from agentvault_tui.vault.tokens import ask_token, read_access, seconds, words

_PROMPT: Final = RetryLimits(attempts=3, seconds=5.0)
"""An agent waits for the answer, and prefers an early "come again"."""


@dataclass(frozen=True, slots=True)
class ProviderToken:
    """An access token for a provider's API; in no repr, and in no log."""

    access_token: Secret
    scopes: tuple[str, ...]
    expires_in: int
    """Seconds left of it; 0 when the tenant did not state them: then cache nothing."""


class Cause(StrEnum):
    """Why there is no provider token."""

    NOT_CONNECTED = "not_connected"
    """The user connected no account there, or disconnected it."""
    PROVIDER_REFUSED = "provider_refused"
    """The provider does not renew it: the user took the consent back there."""
    NO_SUCH_ACCOUNT = "no_such_account"
    """No connected account has this ``login_hint``."""
    CLIENT_REFUSED = "client_refused"
    """Our client, or the token it showed, is not accepted."""
    GRANT_DISABLED = "grant_disabled"
    """The client may not use Token Vault: a revocation's effect on it."""
    DENIED = "denied"
    """The tenant does not let this client have it."""
    FACTOR_REQUIRED = "factor_required"
    """The tenant asks for a second factor, which is impossible here."""
    SUBJECT_REFUSED = "subject_refused"
    """The token that represents the user is spent, revoked or unknown."""
    SCOPE_REFUSED = "scope_refused"
    """The provider cannot narrow the scope, so nothing is given."""
    SEALED = "sealed"
    """Our credential for the tenant is encrypted, with a key that is not here."""
    UNAVAILABLE = "unavailable"
    """No answer of use; worth asking again."""
    OTHER = "other"
    """Something that no document names."""


@dataclass(frozen=True, slots=True)
class NoToken:
    """There is no provider token, and why; displayable."""

    cause: Cause
    error: str
    message: str
    remedy: str
    retry_after: float | None = None


_CAUSES: Final = {
    "federated_connection_refresh_token_not_found": Cause.NOT_CONNECTED,
    "tokenset_not_found": Cause.NOT_CONNECTED,
    "federated_connection_refresh_token_flow_failed": Cause.PROVIDER_REFUSED,
    "user_not_found": Cause.NO_SUCH_ACCOUNT,
    "invalid_client": Cause.CLIENT_REFUSED,
    "invalid_token": Cause.CLIENT_REFUSED,
    "unauthorized_client": Cause.GRANT_DISABLED,
    "access_denied": Cause.DENIED,
    "mfa_required": Cause.FACTOR_REQUIRED,
    "invalid_grant": Cause.SUBJECT_REFUSED,
    "invalid_scope": Cause.SCOPE_REFUSED,
}
_REMEDIES: Final = {
    Cause.NOT_CONNECTED: "connect the account: agentvault connections add",
    Cause.PROVIDER_REFUSED: "connect the account again, and allow offline access",
    Cause.NO_SUCH_ACCOUNT: "leave the account out, or name one that is connected",
    Cause.SUBJECT_REFUSED: "sign the vault user in again",
    Cause.SCOPE_REFUSED: "ask for all the account's scopes, or for none",
}


class TokenVault:
    """Exchanges tokens as one confidential, first-party client of *tenant*."""

    def __init__(
        self,
        tenant: Tenant,
        client: RegisteredClient,
        *,
        patience: RetryLimits = _PROMPT,
    ) -> None:
        self._tenant = tenant
        self._client = client
        self._patience = patience

    async def for_refresh_token(
        self, refresh_token: Secret, connection: str
    ) -> ProviderToken | NoToken:
        """Exchange a refresh token of this client's for the provider's access token.

        It must not rotate, for it is used again. Why there is none is returned: nothing
        is raised.
        """
        form = {
            "grant_type": VAULT_GRANT,
            "subject_token": refresh_token.reveal(),
            "subject_token_type": TYPE_REFRESH,
            "requested_token_type": TYPE_PROVIDER,
            "connection": connection,
        }
        try:
            reply = await ask_token(self._tenant, self._client, form, self._patience)
            return self._read(reply)
        except TenantUnreachableError as error:
            return NoToken(
                Cause.UNAVAILABLE,
                "temporarily_unavailable",
                visible(error.what, 300),
                error.remedy,
                getattr(error, "retry_after", None),
            )

    def _read(self, reply: TenantReply) -> ProviderToken | NoToken:
        if reply.status == 200:
            access = read_access(reply, self._tenant.clock)
            body = reply.json()
            return ProviderToken(
                access_token=access.token,
                scopes=words(body.get("scope")),
                expires_in=seconds(body.get("expires_in")),
            )
        error = refused(reply, "exchange the token", self._tenant.clock.now())
        if isinstance(error, TenantUnreachableError):
            raise error
        refusal = read_refusal(reply)
        refused_client = Cause.CLIENT_REFUSED if refusal.status == 401 else Cause.OTHER
        cause = _CAUSES.get(refusal.code, refused_client)
        return NoToken(
            cause, refusal.code, refusal.message, _REMEDIES.get(cause) or error.remedy
        )
