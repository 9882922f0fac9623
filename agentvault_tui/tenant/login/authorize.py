"""Reads an authorization request, and says no where the client can hear it."""

from __future__ import annotations

from typing import Final

from starlette.datastructures import QueryParams

from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.tenant.clients import AUTHORIZATION_CODE, Client
from agentvault_tui.tenant.login.errands import Errand
from agentvault_tui.tenant.oauth.wire import missing, refused
from agentvault_tui.tenant.parts import Parts
from agentvault_tui.tenant.redirects import allowed
from agentvault_tui.tenant.tokens import MFA_ACR

_METHODS: Final = ("S256", "plain")
_CAPS: Final = {
    "redirect_uri": 600, "state": 500, "scope": 500, "audience": 300, "nonce": 200,
    "code_challenge": 128,
}  # fmt: skip
"""Characters, so that all of it fits into a form's field, sealed."""


class AuthorizeError(Exception):
    """A refusal that goes back to the client, through the person's browser."""

    def __init__(self, to: Errand, error: TenantRefusedError) -> None:
        """Keep where it goes."""
        super().__init__(error.what)
        self.to = to
        self.error = error


def read_request(parts: Parts, query: QueryParams) -> Errand:
    """Read the query of ``/authorize`` (RFC 6749 section 4.1.1, RFC 7636 section 4.3).

    Raises:
        TenantRefusedError: it is not known whom to tell: a person is shown why.
        AuthorizeError: the client is told.
    """
    for name in query:
        # RFC 6749 section 3.1: no parameter twice.
        if len(query.getlist(name)) > 1:
            raise refused("invalid_request", "A parameter stands twice.")
    for name, cap in _CAPS.items():
        if len(query.get(name, "")) > cap:
            raise refused("invalid_request", f"{name} may have {cap} characters.")
    client = parts.clients.find(query.get("client_id", ""))
    if client is None:
        raise refused("invalid_request", "Unknown client.")
    redirect_uri = query.get("redirect_uri", "")
    if not allowed(redirect_uri, client.callbacks):
        # RFC 6749 section 4.1.2.1: never sent on to an address nobody registered.
        raise refused("invalid_request", "The redirect_uri is not registered.")
    back = Errand("authorize", client.client_id, redirect_uri, state=query.get("state"))
    try:
        return _checked(parts, query, client, back)
    except TenantRefusedError as error:
        raise AuthorizeError(back, error) from None


def _checked(parts: Parts, query: QueryParams, client: Client, back: Errand) -> Errand:
    if query.get("response_type") != "code":
        raise refused("unsupported_response_type", "Use response_type=code.")
    if query.get("response_mode", "query") != "query":
        raise refused("invalid_request", "Use response_mode=query.")
    if AUTHORIZATION_CODE not in client.grants:
        raise refused("unauthorized_client", "Grant type not allowed for the client.")
    challenge, method = _challenge(query, client)
    api = parts.apis.asked(query.get("audience", query.get("resource")))
    scope = parts.apis.for_user(client, api, query.get("scope", "openid"))
    if query.get("prompt") == "none":
        # No sign-in outlives its page (OpenID Connect Core section 3.1.2.6).
        raise refused("login_required", "Login required")
    words = scope.split()
    mfa = (
        parts.settings.mfa_always()
        or (api is not None and api.transactional)
        or MFA_ACR in query.get("acr_values", "").split()
        or any(word.startswith("stepup:") for word in words)
    )
    return Errand(
        "authorize",
        client.client_id,
        back.redirect_uri,
        scope,
        state=back.state,
        audience=None if api is None else api.identifier,
        nonce=query.get("nonce"),
        challenge=challenge,
        method=method,
        mfa=mfa,
    )


def _challenge(query: QueryParams, client: Client) -> tuple[str | None, str | None]:
    challenge = query.get("code_challenge")
    method = query.get("code_challenge_method", "plain") if challenge else None
    if challenge is None and not client.confidential:
        # RFC 9700 section 2.1.1: without a secret, PKCE is what binds the code.
        raise missing("code_challenge")
    if method is not None and method not in _METHODS:
        raise refused("invalid_request", "Unknown code_challenge_method.")
    return challenge, method
