"""The Token Vault exchange: an Auth0 token in, the provider's access token out."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.tenant.clients import TOKEN_VAULT
from agentvault_tui.tenant.connections import Connections
from agentvault_tui.tenant.oauth.grants import Exchange, Outcome
from agentvault_tui.tenant.oauth.wire import ExchangeError, missing, refused
from agentvault_tui.tenant.parts import Parts
from agentvault_tui.tenant.people import User
from agentvault_tui.tenant.times import of_epoch
from agentvault_tui.tenant.vault.accounts import Account
from agentvault_tui.tenant.vault.provider import ProviderTokens
from agentvault_tui.tenant.vault.worker import Workers

_TYPES: Final = "urn:ietf:params:oauth:token-type:"
FROM_REFRESH: Final = f"{_TYPES}refresh_token"
FROM_ACCESS: Final = f"{_TYPES}access_token"
FROM_JWT: Final = f"{_TYPES}jwt"
TO_CONNECTION: Final = (
    "http://auth0.com/oauth/token-type/federated-connection-access-token"
)
TO_VAULT: Final = "http://auth0.com/oauth/token-type/token-vault-access-token"


@dataclass(frozen=True, slots=True)
class Subject:
    """For whom a client exchanges, and how narrow the result must be."""

    user: User
    scope: str | None = None
    audit_context: str | None = None


class VaultGrant:
    """RFC 8693 in Auth0's three variants; each refusal has its reason in the log."""

    def __init__(self, parts: Parts) -> None:
        """Exchange for tokens of a tenant's connected accounts."""
        self._accounts = parts.accounts
        self._connections = parts.connections
        self._refresh = parts.refresh
        self._access = parts.access
        self._people = parts.people
        self._clock = parts.clock
        self._mfa_always = parts.settings.mfa_always
        self._workers = Workers(
            parts.credentials, parts.replays, parts.clock, parts.issuer
        )

    def __call__(self, asked: Exchange) -> Outcome:
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
        subject = self._subject(asked)
        account, lifetime = self._account(asked, subject.user)
        scope = subject.scope
        if scope is not None and not set(scope.split()) <= set(account.scopes):
            # Never silently more, or less, than was asked for.
            raise ExchangeError(
                "access_denied",
                "The connected account does not have the requested scopes.",
                "scope_not_granted",
            )
        tokens = self._accounts.tokens(account, lifetime, scope)
        if tokens is None:
            raise ExchangeError(
                "federated_connection_refresh_token_flow_failed",
                "Federated connection Refresh Token flow failed.",
                "provider_refused",
            )
        return self._outcome(asked, subject, account, tokens)

    def _subject(self, asked: Exchange) -> Subject:
        kind = asked.form["subject_token_type"]
        if kind == FROM_JWT:
            return self._from_worker(asked)
        if kind not in {FROM_REFRESH, FROM_ACCESS}:
            raise refused("invalid_request", "Unsupported subject_token_type.")
        if asked.form["requested_token_type"] != TO_CONNECTION:
            raise refused("invalid_request", "Unsupported requested_token_type.")
        if self._mfa_always():
            raise ExchangeError(
                "mfa_required", "Multifactor authentication required", "mfa_always"
            )
        sub = (
            self._by_refresh(asked) if kind == FROM_REFRESH else self._by_access(asked)
        )
        return Subject(self._user(sub))

    def _by_refresh(self, asked: Exchange) -> str:
        try:
            held = self._refresh.find(asked.form["subject_token"], asked.client)
        except TenantRefusedError:
            raise ExchangeError(
                "invalid_grant", "Unknown or invalid refresh token.", "invalid_token"
            ) from None
        if held.rotating:
            raise _not_found("refresh_token_rotation_is_on")
        return held.user_id

    def _by_access(self, asked: Exchange) -> str:
        linked = asked.client.linked_api
        if linked is None:
            raise _invalid("client_not_linked_to_an_api")
        found = self._access.read(asked.form["subject_token"], linked)
        if found is None:
            raise _invalid("not_a_token_for_the_linked_api")
        return found.sub

    def _from_worker(self, asked: Exchange) -> Subject:
        if asked.form["requested_token_type"] != TO_VAULT:
            raise refused("invalid_request", "Unsupported requested_token_type.")
        token = asked.form["subject_token"]
        said = self._workers.read(asked.client, token, asked.peer.ip)
        scope = self._workers.scope(
            asked.client, asked.form["connection"], asked.form.get("scope")
        )
        return Subject(self._user(said.sub), scope, said.audit_context)

    def _user(self, sub: str) -> User:
        user = self._people.find(sub)
        if user is None:
            raise _invalid("user_is_gone")
        if user.blocked:
            raise ExchangeError("access_denied", "user is blocked", "user_is_blocked")
        return user

    def _account(self, asked: Exchange, user: User) -> tuple[Account, float]:
        """Find the account; whatever is missing has one name, as at Auth0."""
        name = asked.form["connection"]
        connection = self._connections.for_vault(name, asked.client)
        if connection is None:
            raise _not_found("connection_not_enabled")
        found = self._accounts.list(user.sub, name)
        if not found:
            raise _not_found("tokenset_not_found")
        hint = asked.form.get("login_hint")
        if hint is not None:
            found = [account for account in found if account.account == hint]
            if not found:
                raise ExchangeError(
                    "user_not_found", "Identity User not found.", "login_hint"
                )
        # With several and no hint: the one connected last.
        return found[-1], Connections.token_lifetime(connection)

    def _outcome(
        self,
        asked: Exchange,
        subject: Subject,
        account: Account,
        tokens: ProviderTokens,
    ) -> Outcome:
        left = int(tokens.expires_at - self._clock.now().timestamp())
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
            "is_privileged_worker": subject.audit_context is not None,
        }
        if subject.audit_context is not None:
            details["audit_context"] = subject.audit_context
        return Outcome(answer, subject.user, details, account.connection)


def _not_found(reason: str) -> ExchangeError:
    return ExchangeError(
        "federated_connection_refresh_token_not_found",
        "Federated connection Refresh Token not found.",
        reason,
    )


def _invalid(reason: str) -> ExchangeError:
    return ExchangeError("invalid_token", "Invalid or expired subject token.", reason)
