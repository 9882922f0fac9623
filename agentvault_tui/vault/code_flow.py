"""Sign a person in through their browser: the authorization code flow with PKCE."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from authlib.oauth2 import OAuth2Client

from agentvault_tui.clock import Clock, Deadline
from agentvault_tui.errors import TenantError, TenantRefusedError
from agentvault_tui.vault.credentials import RegisteredClient, Secret
from agentvault_tui.vault.refusals import refused
from agentvault_tui.vault.tenant import Tenant
from agentvault_tui.vault.tokens import ask_token, read_access

SCOPE: Final = "openid profile offline_access"
"""Who it is, and a refresh token; no API."""
_LIFE: Final = 600.0
"""Seconds from the page to the browser's coming back."""
_MAX_CODE: Final = 2048


@dataclass(frozen=True, slots=True)
class SigningIn:
    """A sign-in under way: the page to open, and the input of `finish_sign_in`."""

    page: str = field(repr=False)
    redirect_uri: str
    state: str = field(repr=False)
    nonce: str = field(repr=False)
    verifier: Secret
    expires: Deadline


@dataclass(frozen=True, slots=True)
class SignedIn:
    """The tenant's answer to the code; the ID token is yet to be verified."""

    id_token: str = field(repr=False)
    refresh_token: Secret


async def begin_sign_in(
    tenant: Tenant,
    client_id: str,
    redirect_uri: str,
    *,
    unguessable: Callable[[], str] = lambda: secrets.token_urlsafe(32),
) -> SigningIn:
    """Begin an authorization code flow for a client (RFC 6749 section 4.1).

    Args:
        tenant: where.
        client_id: for which client; it lists *redirect_uri*.
        redirect_uri: where the browser ends.
        unguessable: makes states, nonces and PKCE verifiers.

    Returns:
        the page to open, and the input of `finish_sign_in`.

    Raises:
        TenantError: the tenant cannot be reached, or has no such page.
    """
    endpoint = (await tenant.metadata()).authorization_endpoint
    if not endpoint or "?" in endpoint or "#" in endpoint:
        raise TenantError("the tenant names no page to sign in at")
    verifier, state, nonce = unguessable(), unguessable(), unguessable()
    requests = OAuth2Client(None, client_id, code_challenge_method="S256")
    page, _ = requests.create_authorization_url(
        endpoint,
        state,
        verifier,
        redirect_uri=redirect_uri,
        scope=SCOPE,
        nonce=nonce,
        # Not whoever this browser happens to be signed in as.
        prompt="login",
    )
    return SigningIn(
        page=page,
        redirect_uri=redirect_uri,
        state=state,
        nonce=nonce,
        verifier=Secret(verifier),
        expires=Deadline.after(tenant.clock, _LIFE),
    )


async def finish_sign_in(
    tenant: Tenant, client: RegisteredClient, begun: SigningIn, *, code: str, state: str
) -> SignedIn:
    """Redeem the code the browser came back with (RFC 6749 section 4.1.3).

    Args:
        tenant: where the sign-in began.
        client: for which it began.
        begun: the result of `begin_sign_in`; used once.
        code: the ``code`` of the redirect.
        state: its ``state``.

    Returns:
        an ID token that is yet to be verified, and a refresh token.

    Raises:
        TenantRefusedError: ``wrong_state``, ``expired``, or the tenant says no.
        TenantError: the tenant does not answer, or gives no refresh token.
    """
    check_return(begun.state, state, begun.expires, tenant.clock)
    form = {
        "grant_type": "authorization_code",
        "code": code[:_MAX_CODE],
        "redirect_uri": begun.redirect_uri,
        "code_verifier": begun.verifier.reveal(),
    }
    # A code sent twice ends what came of it (RFC 6749 section 4.1.2).
    reply = await ask_token(tenant, client, form, repeatable=False)
    if reply.status != 200:
        raise refused(reply, "take the sign-in", tenant.clock.now())
    access, id_token = read_access(reply, tenant.clock), reply.json().get("id_token")
    if access.refresh_token is None or not isinstance(id_token, str):
        raise TenantError(
            "the tenant gave no refresh token for the sign-in",
            "allow the agent's application the Refresh Token grant",
        )
    return SignedIn(id_token, access.refresh_token)


def check_return(expected: str, state: str, expires: Deadline, clock: Clock) -> None:
    """Check that a browser comes back from this sign-in, and in time.

    RFC 6749 section 10.12: without it someone else's code could be slipped in.

    Raises:
        TenantRefusedError: ``wrong_state`` or ``expired``.
    """
    if not hmac.compare_digest(state.encode(), expected.encode()):
        raise TenantRefusedError(
            "wrong_state",
            "the browser came back from something that was not begun here",
            "begin again, and follow the link that is shown",
        )
    if expires.passed(clock):
        raise TenantRefusedError(
            "expired", "the time to come back is over", "begin again"
        )
