"""Privileged workers: a client signs for a user who is not there, within its pins."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from agentvault_tui.clock import Clock
from agentvault_tui.tenant.clients import Client
from agentvault_tui.tenant.oauth.grants import TokenRequest
from agentvault_tui.tenant.oauth.wire import ExchangeError, refused
from agentvault_tui.tenant.parts import Parts
from agentvault_tui.tenant.tokens import number
from agentvault_tui.tenant.vault.exchange import VaultGrant, VaultSubject
from auth0_double.credentials import Credentials, Replays

TYP: Final = "token-vault-req+jwt"
FROM_JWT: Final = "urn:ietf:params:oauth:token-type:jwt"
TO_VAULT: Final = "http://auth0.com/oauth/token-type/token-vault-access-token"
_OLDEST: Final = 60.0
"""Seconds since ``iat``, whatever ``exp`` says, as at Auth0."""
_EARLY: Final = 5.0
"""Seconds by which a worker's clock may be ahead."""
_AUDIT_CAP: Final = 256
_JTI_CAP: Final = 256


@dataclass(frozen=True, slots=True)
class WorkerRequest:
    """What a worker's JWT says, once it is believed."""

    sub: str
    audit_context: str


class Workers:
    """Checks the JWTs of privileged workers, and what they may ask for."""

    def __init__(
        self, credentials: Credentials, replays: Replays, clock: Clock, issuer: str
    ) -> None:
        """Check JWTs addressed to *issuer*."""
        self._credentials = credentials
        self._replays = replays
        self._clock = clock
        self._issuer = issuer

    def read(self, client: Client, token: str, ip: str) -> WorkerRequest:
        """Return what *token* says.

        Raises:
            ExchangeError: ``access_denied`` for the client, ``invalid_token`` for
                the token.
        """
        access = _access(client)
        if not access.get("ip_allowlist") or not access.get("grants"):
            raise _denied("privileged_access_not_configured")
        if not _listed(ip, access["ip_allowlist"]):
            raise _denied("ip_not_allowed")
        keys = tuple(item["id"] for item in access.get("credentials") or ())
        claims = self._credentials.verified(client.client_id, keys, token, TYP)
        if claims is None:
            raise _invalid("bad_signature")
        return self._believed(client, claims)

    def _believed(self, client: Client, claims: dict[str, Any]) -> WorkerRequest:
        now = self._clock.now().timestamp()
        sub, audit, jti = (claims.get(n) for n in ("sub", "audit_context", "jti"))
        issued, expires = number(claims, "iat"), number(claims, "exp")
        if claims.get("iss") != client.client_id or claims.get("aud") != self._issuer:
            raise _invalid("bad_issuer_or_audience")
        # Older than a minute it is refused whatever its own exp says.
        if issued is None or not -_EARLY <= now - issued <= _OLDEST:
            raise _invalid("too_old")
        if "exp" in claims and (expires is None or expires <= now):
            raise _invalid("expired")
        if not isinstance(audit, str) or not 0 < len(audit) <= _AUDIT_CAP:
            raise _invalid("no_audit_context")
        if not isinstance(sub, str) or not isinstance(jti, str):
            raise _invalid("bad_claims")
        if not 0 < len(jti) <= _JTI_CAP or not self._replays.first(
            client.client_id, jti, issued + _OLDEST
        ):
            raise _invalid("replayed")
        return WorkerRequest(sub, audit)

    @staticmethod
    def scope(client: Client, connection: str, asked: str | None) -> str:
        """Return the scope of the token: what was asked, or all that is pinned.

        Raises:
            ExchangeError: ``access_denied``: beyond the client's pins.
        """
        pinned: list[str] = []
        for grant in _access(client).get("grants") or ():
            if grant["connection"] == connection:
                pinned.extend(grant["scopes"])
        if not pinned:
            raise _denied("connection_not_pinned")
        wanted = pinned if asked is None else asked.split()
        if not wanted or not set(wanted) <= set(pinned):
            raise _denied("scope_not_pinned")
        return " ".join(dict.fromkeys(wanted))


class WorkersGrant(VaultGrant):
    """Token Vault's exchange, also by workers who sign for a user."""

    def __init__(self, parts: Parts, workers: Workers) -> None:
        super().__init__(parts)
        self._workers = workers

    def subject(self, asked: TokenRequest) -> VaultSubject:
        if asked.form["subject_token_type"] != FROM_JWT:
            return super().subject(asked)
        if asked.form["requested_token_type"] != TO_VAULT:
            raise refused("invalid_request", "Unsupported requested_token_type.")
        token = asked.form["subject_token"]
        said = self._workers.read(asked.client, token, asked.peer.ip)
        scope = self._workers.scope(
            asked.client, asked.form["connection"], asked.form.get("scope")
        )
        details = {"is_privileged_worker": True, "audit_context": said.audit_context}
        return VaultSubject(self.user(said.sub), scope, details)


def _access(client: Client) -> Mapping[str, Any]:
    return client.doc.get("token_vault_privileged_access") or {}


def _listed(ip: str, allowed: list[str]) -> bool:
    try:
        address = ipaddress.ip_address(ip)
        return any(
            address in ipaddress.ip_network(net, strict=False) for net in allowed
        )
    except ValueError:
        return False


def _denied(reason: str) -> ExchangeError:
    return ExchangeError(
        "access_denied", "The client is not permitted to do this.", reason
    )


def _invalid(reason: str) -> ExchangeError:
    return ExchangeError("invalid_token", "Invalid or expired subject token.", reason)
