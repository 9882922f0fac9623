"""The Token Vault exchange: a refresh token in, the provider's access token out."""

from __future__ import annotations

from hashlib import sha256
from typing import Any, Final

from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.tenant.clients import TOKEN_VAULT
from agentvault_tui.tenant.connections import Connections
from agentvault_tui.tenant.oauth.grants import GrantResult, TokenRequest
from agentvault_tui.tenant.oauth.wire import ExchangeError, missing, refused
from agentvault_tui.tenant.parts import Parts
from agentvault_tui.tenant.people import User
from agentvault_tui.tenant.times import of_epoch
from agentvault_tui.tenant.vault.accounts import TokenPair, VaultAccount

_TYPES: Final = "urn:ietf:params:oauth:token-type:"
FROM_REFRESH: Final = f"{_TYPES}refresh_token"
TO_CONNECTION: Final = (
    "http://auth0.com/oauth/token-type/federated-connection-access-token"
)


class VaultGrant:
    """Token exchange (RFC 8693) as Auth0 has it; the log has each refusal's reason."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def __call__(self, asked: TokenRequest) -> GrantResult:
        """Give the provider's access token.

        Raises:
            TenantRefusedError: with Auth0's word for what is missing.
        """
        form, client = asked.form, asked.client
        for name in ("subject_token_type", "subject_token", "requested_token_type"):
            if not form.get(name):
                raise missing(name)
        if not form.get("connection"):
            raise missing("connection")
        if not client.token_vault:
            raise refused(
                "unauthorized_client",
                f"Grant type '{TOKEN_VAULT}' not allowed for the client.",
            )
        user = self._subject(asked)
        account, lifetime = self._account(asked, user)
        tokens = self._parts.accounts.tokens(account, lifetime)
        if tokens is None:
            raise ExchangeError(
                "federated_connection_refresh_token_flow_failed",
                "Federated connection Refresh Token flow failed.",
                "provider_refused",
            )
        return self._outcome(asked, user, account, tokens)

    def _subject(self, asked: TokenRequest) -> User:
        if asked.form["subject_token_type"] != FROM_REFRESH:
            raise refused("invalid_request", "Unsupported subject_token_type.")
        if asked.form["requested_token_type"] != TO_CONNECTION:
            raise refused("invalid_request", "Unsupported requested_token_type.")
        try:
            held = self._parts.refresh.find(asked.form["subject_token"], asked.client)
        except TenantRefusedError:
            raise ExchangeError(
                "invalid_grant", "Unknown or invalid refresh token.", "invalid_token"
            ) from None
        user = self._parts.people.find(held.user_id)
        if user is None:
            raise ExchangeError(
                "invalid_token", "Invalid or expired subject token.", "user_is_gone"
            )
        if user.blocked:
            raise ExchangeError("access_denied", "user is blocked", "user_is_blocked")
        return user

    def _account(self, asked: TokenRequest, user: User) -> tuple[VaultAccount, float]:
        """Find the account; whatever is missing has one name, as at Auth0."""
        name = asked.form["connection"]
        connection = self._parts.connections.for_vault(name, asked.client)
        if connection is None:
            raise _not_found("connection_not_enabled")
        found = self._parts.accounts.list(user.sub, name)
        if not found:
            raise _not_found("tokenset_not_found")
        # Of several, the one connected last.
        return found[-1], Connections.token_lifetime(connection)

    def _outcome(
        self,
        asked: TokenRequest,
        user: User,
        account: VaultAccount,
        tokens: TokenPair,
    ) -> GrantResult:
        left = int(tokens.expires_at - self._parts.clock.now().timestamp())
        kind = asked.form["requested_token_type"]
        answer: dict[str, Any] = {
            "access_token": tokens.access_token,
            "scope": tokens.scope,
            "expires_in": max(left, 0),
            "issued_token_type": kind,
            "token_type": "Bearer",
        }
        details = {
            "subject_token_type": asked.form["subject_token_type"],
            "issued_token_type": kind,
            "scope": tokens.scope,
            "expires_at": of_epoch(tokens.expires_at),
            "token_thumbprint": sha256(tokens.access_token.encode()).hexdigest(),
            "token_broker": "token_vault",
            "connected_account": {"id": account.id, "idp_user_id": account.account},
            "is_privileged_worker": False,
        }
        return GrantResult(answer, user, details, account.connection)


def _not_found(reason: str) -> ExchangeError:
    return ExchangeError(
        "federated_connection_refresh_token_not_found",
        "Federated connection Refresh Token not found.",
        reason,
    )
