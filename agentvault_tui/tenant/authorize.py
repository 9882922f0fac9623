"""Read an authorization request (RFC 6749 section 4.1.1), and its redirect URI."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Iterable
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from starlette.datastructures import QueryParams

from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.tenant.clients import AUTHORIZATION_CODE, Client
from agentvault_tui.tenant.login_state import LoginState
from agentvault_tui.tenant.oauth.wire import missing, refused
from agentvault_tui.tenant.parts import Parts

_URI_CAP: Final = 2000
_CAPS: Final = {
    "redirect_uri": 600, "state": 500, "scope": 500, "audience": 300, "nonce": 200,
    "code_challenge": 128,
}  # fmt: skip
"""Characters, so that all of it fits into a form's field, sealed."""


class AuthorizeError(Exception):
    """A refusal that goes back to the client, through the person's browser."""

    def __init__(self, to: LoginState, error: TenantRefusedError) -> None:
        super().__init__(error.what)
        self.to = to
        self.error = error


def read_request(parts: Parts, query: QueryParams) -> LoginState:
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
    if not redirect_allowed(redirect_uri, client.callbacks):
        # RFC 6749 section 4.1.2.1: never sent on to an address nobody registered.
        raise refused("invalid_request", "The redirect_uri is not registered.")
    back = LoginState(
        "authorize", client.client_id, redirect_uri, state=query.get("state")
    )
    try:
        return _checked(parts, query, client, back)
    except TenantRefusedError as error:
        raise AuthorizeError(back, error) from None


def _checked(
    parts: Parts, query: QueryParams, client: Client, back: LoginState
) -> LoginState:
    if query.get("response_type") != "code":
        raise refused("unsupported_response_type", "Use response_type=code.")
    if query.get("response_mode", "query") != "query":
        raise refused("invalid_request", "Use response_mode=query.")
    if AUTHORIZATION_CODE not in client.grants:
        raise refused("unauthorized_client", "Grant type not allowed for the client.")
    challenge = query.get("code_challenge")
    if challenge is None and not client.confidential:
        # RFC 9700 section 2.1.1: without a secret, PKCE is what binds the code.
        raise missing("code_challenge")
    if challenge is not None and query.get("code_challenge_method") != "S256":
        # RFC 7636 section 4.2: "plain" is for those who cannot compute a digest.
        raise refused("invalid_request", "Use code_challenge_method=S256.")
    api = parts.apis.asked(query.get("audience", query.get("resource")))
    scope = parts.apis.for_user(client, api, query.get("scope", "openid"))
    if query.get("prompt") == "none":
        # No sign-in outlives its page (OpenID Connect Core section 3.1.2.6).
        raise refused("login_required", "Login required")
    return LoginState(
        "authorize",
        client.client_id,
        back.redirect_uri,
        scope,
        state=back.state,
        audience=None if api is None else api.identifier,
        nonce=query.get("nonce"),
        challenge=challenge,
    )


def redirect_allowed(uri: str, registered: Iterable[str]) -> bool:
    """Tell whether *uri* is one of the *registered* (RFC 9700 section 2.1).

    Compared as strings, but for the port of a loopback address, which a program picks
    when it starts (RFC 8252 section 7.3).
    """
    if len(uri) > _URI_CAP or not uri.isascii() or not uri.isprintable():
        return False
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        return False
    if parts.fragment or parts.username is not None or parts.password is not None:
        return False
    loopback = parts.scheme == "http" and _loopback(parts.hostname)
    if parts.scheme != "https" and not loopback:
        # Neither a script nor another program's scheme is a place to send codes to.
        return False
    for known in registered:
        if hmac.compare_digest(known.encode(), uri.encode()):
            return True
        if loopback and port is not None and _without_port(known) == _without_port(uri):
            return True
    return False


def with_query(uri: str, **members: str | None) -> str:
    """Add *members* to the query of *uri*."""
    parts = urlsplit(uri)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    pairs += [(name, value) for name, value in members.items() if value is not None]
    return urlunsplit(parts._replace(query=urlencode(pairs)))


def _loopback(host: str | None) -> bool:
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def _without_port(uri: str) -> str | None:
    try:
        parts = urlsplit(uri)
    except ValueError:
        return None  # Whatever an administrator registered, it is no address.
    if parts.scheme != "http" or not _loopback(parts.hostname):
        return None
    return urlunsplit(parts._replace(netloc=parts.hostname or ""))
