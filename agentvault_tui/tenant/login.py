"""The login pages: password, consent, and back to the client.

They serve two requests: an authorization (``/authorize``), and the consent with which
Token Vault stores an account's tokens (``/connected-accounts/connect``).
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import logging
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from agentvault_tui.encoder import from_base64url, to_base64url
from agentvault_tui.errors import SealedError, TenantRefusedError
from agentvault_tui.model import sha256_hex
from agentvault_tui.tenant.clients import AUTHORIZATION_CODE, Client
from agentvault_tui.tenant.oauth.grants import issue_code
from agentvault_tui.tenant.oauth.wire import page_form, refused
from agentvault_tui.tenant.parts import Parts
from agentvault_tui.tenant.tokens import Login
from agentvault_tui.tenant.views import Problem, Views, browser_cookie
from agentvault_tui.text import visible

COOKIE: Final = "agentvault_login"
PATH: Final = "/u"
_STALE: Final = Problem(
    "stale_form", "This page is out of date, or was not opened by this browser."
)
_OVER: Final = Problem(
    "code_over", "This request is over. Start again where you began."
)
_NO: Final = "User did not authorize the request"
_log = logging.getLogger("agentvault.tenant")


class LoginPages:
    """Sign-in for one request, whichever kind the state names.

    There is no remembered sign-in: each request takes the password afresh. A GET shows
    the request, and changes nothing; each later step is a form that brings the state
    back, encrypted for the browser's cookie for ten minutes. That also protects against
    cross-site request forgery: it takes the page that held the state, and the cookie.
    """

    def __init__(self, parts: Parts, views: Views) -> None:
        self._parts = parts
        self._views = views
        self._kind = f"login state {parts.store.fact('epoch') or ''}"

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/authorize", self._authorize),
            Route("/connected-accounts/connect", self._connect),
            Route(f"{PATH}/login", self._login, methods=["POST"]),
            Route(f"{PATH}/consent", self._consent, methods=["POST"]),
            Route(f"{PATH}/cancel", self._cancel, methods=["POST"]),
        ]

    async def _authorize(self, request: Request) -> Response:
        """Answer ``/authorize`` (RFC 6749 section 4.1.1)."""
        try:
            state = read_request(self._parts, request.query_params)
        except AuthorizeError as error:
            refusal, to = error.error, error.to
            return _back(
                to.redirect_uri,
                error=refusal.error,
                error_description=refusal.what,
                state=to.state,
            )
        except TenantRefusedError as error:
            return self._views.page("login-over", Problem("bad_request", error.what))
        return self._show(request, "login", state)

    async def _connect(self, request: Request) -> Response:
        """Answer the link of a connect request (Auth0's My Account API)."""
        ticket = request.query_params.get("ticket", "")
        consent = self._parts.connecting.by_ticket(ticket)
        if consent is None:
            return self._over()
        state = LoginState("connect", consent.client_id, request=consent.key)
        return self._show(request, "login", state)

    async def _login(self, request: Request) -> Response:
        """Check the password that was submitted, and ask for consent."""
        form, state = await self._submitted(request)
        if state is None or state.sub is not None:
            return self._views.page("login-over", _STALE)
        parts = self._parts
        try:
            user = await parts.sign_in.password(
                form.get("user", ""),
                form.get("password", ""),
                parts.sign_in.lanes.origin(request),
            )
        except TenantRefusedError as error:
            parts.journal.sign_in_refused(request, error)
            problem = Problem(error.error, f"{error.what} {error.remedy}".strip())
            return self._show(request, "login", state, problem)
        client = parts.clients.find(state.client_id)
        parts.journal.signed_in(request, user, client, mfa=False)
        now = int(parts.clock.now().timestamp())
        return self._show(request, "consent", replace(state, sub=user.sub, at=now))

    async def _consent(self, request: Request) -> Response:
        """Send the browser back with a code for the consent."""
        _, state = await self._submitted(request)
        parts = self._parts
        user = None if state is None else parts.people.find(state.sub)
        if state is None or user is None or user.blocked:
            return self._views.page("login-over", _STALE)
        if state.kind == "connect":
            consent = parts.connecting.by_key(state.request or "")
            proof = None
            if consent is not None:
                proof = parts.connecting.consent(consent, user.name)
            if consent is None or proof is None:
                return self._over()
            return _back(consent.redirect_uri, connect_code=proof, state=consent.state)
        client = parts.clients.find(state.client_id)
        if client is None:
            return self._over()
        code = issue_code(
            parts,
            client,
            Login(user.sub, secrets.token_urlsafe(24), state.at, mfa=False),
            redirect_uri=state.redirect_uri,
            scope=state.scope,
            audience=state.audience,
            nonce=state.nonce,
            challenge=state.challenge,
        )
        _log.info("authorization granted by %s", user.sub)
        return _back(state.redirect_uri, code=code, state=state.state)

    async def _cancel(self, request: Request) -> Response:
        """Send the browser back with ``access_denied``."""
        _, state = await self._submitted(request)
        if state is None:
            return self._views.page("login-over", _STALE)
        back_to, sent = state.redirect_uri, state.state
        if state.kind == "connect":
            parts = self._parts
            consent = parts.connecting.by_key(state.request or "")
            if consent is None:
                return self._over()
            back_to, sent = consent.redirect_uri, consent.state
            parts.connecting.cancel(consent)
            parts.journal.write(
                "connected_accounts_connection_failed",
                request,
                description=_NO,
                client=parts.clients.find(consent.client_id),
                user=parts.people.find(consent.user_id),
                connection=consent.connection,
            )
        return _back(back_to, error="access_denied", error_description=_NO, state=sent)

    def _over(self) -> Response:
        return self._views.page("login-over", _OVER)

    def _show(
        self,
        request: Request,
        page: str,
        state: LoginState,
        problem: Problem | None = None,
    ) -> Response:
        text = self._text(state)
        cookie = browser_cookie(request.cookies.get(COOKIE))
        sealed = self._sealed(state, cookie)
        if text is None or len(sealed) > LONGEST:
            return self._over()
        user = self._parts.people.find(state.sub)
        answer = self._views.page(
            page,
            problem,
            state=sealed,
            said=text,
            user=None if user is None else visible(user.name, 64),
        )
        if page == "consent":
            # Browsers hold a form's redirect to form-action as well.
            policy = answer.headers["content-security-policy"]
            answer.headers["content-security-policy"] = policy.replace(
                "form-action 'self'", f"form-action 'self' {text['redirect_origin']}"
            )
        # The path is the whole tenant's: a second tab keeps the first one's cookie.
        answer.set_cookie(
            COOKIE,
            cookie,
            path="/",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return answer

    def _text(self, state: LoginState) -> dict[str, object] | None:
        """Return the pages' text of a request, displayable; None: it is over."""
        parts = self._parts
        client = parts.clients.find(state.client_id)
        redirect_uri, scope = state.redirect_uri, state.scope
        audience = state.audience or parts.apis.userinfo
        connection = owner = None
        if state.kind == "connect":
            consent = parts.connecting.by_key(state.request or "")
            user = None if consent is None else parts.people.find(consent.user_id)
            if consent is None or user is None:
                return None
            redirect_uri, scope = consent.redirect_uri, consent.scope
            audience = consent.connection
            connection = visible(consent.connection, 128)
            owner = visible(user.name, 64)
        if client is None:
            return None
        to = urlsplit(redirect_uri)
        origin = f"{to.scheme}://{to.netloc}"
        return {
            "kind": state.kind,
            "client": visible(client.name, 128),
            "audience": visible(audience, 600),
            "scopes": [visible(word, 300) for word in scope.split()],
            "back_to": visible(origin, 300),
            "redirect_origin": origin,
            "connection": connection,
            "owner": owner,
        }

    async def _submitted(
        self, request: Request
    ) -> tuple[Mapping[str, str], LoginState | None]:
        form = await page_form(request)
        sent, cookie = form.get("state", ""), request.cookies.get(COOKIE)
        return form, self._opened(sent, cookie) if cookie else None

    def _sealed(self, state: LoginState, cookie: str) -> str:
        """Return the value that the next form brings back."""
        until = self._parts.clock.now().timestamp() + LIFETIME
        encoded = json.dumps([until, asdict(state)]).encode()
        box = self._parts.seal.close(self._kind, sha256_hex(cookie), 1, encoded)
        return to_base64url(box)

    def _opened(self, sent: str, cookie: str) -> LoginState | None:
        """Return the state of a form; None if it is old, or another browser's."""
        if len(sent) > LONGEST:
            return None
        try:
            box = from_base64url(sent)
            raw = self._parts.seal.open(self._kind, sha256_hex(cookie), 1, box)
        except (SealedError, ValueError):
            return None
        until, members = json.loads(raw)
        # Not after its time, and not if the clock was set back by more than its life.
        left: float = until - self._parts.clock.now().timestamp()
        members_read: dict[str, Any] = members
        return LoginState(**members_read) if 0 < left <= LIFETIME else None


def _back(redirect_uri: str, **members: str | None) -> Response:
    """Redirect the browser; no cache and no referrer retains its parameters."""
    uri = urlsplit(redirect_uri)
    pairs = parse_qsl(uri.query, keep_blank_values=True)
    pairs += [(name, value) for name, value in members.items() if value is not None]
    return RedirectResponse(
        urlunsplit(uri._replace(query=urlencode(pairs))),
        302,
        {"cache-control": "no-store", "referrer-policy": "no-referrer"},
    )


LoginKind = Literal["authorize", "connect"]

LIFETIME: Final = 600.0
"""Seconds from one page to the form it sends."""
LONGEST: Final = 4_000
"""Characters a form's field may have."""


@dataclass(frozen=True, slots=True)
class LoginState:
    """The request, and the signed-in person; only the tenant reads it."""

    kind: LoginKind
    client_id: str
    redirect_uri: str = ""
    scope: str = ""
    state: str | None = field(default=None, repr=False)
    audience: str | None = None
    nonce: str | None = field(default=None, repr=False)
    challenge: str | None = field(default=None, repr=False)
    request: str | None = field(default=None, repr=False)
    """The key of a connect request, which holds all the rest."""
    sub: str | None = None
    """Who has shown their password."""
    at: int = 0
    """When, in epoch seconds."""


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
        TenantRefusedError: the client is unknown: the person gets the reason.
        AuthorizeError: the client gets the reason.
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
        raise refused("invalid_request", "Missing required parameter: code_challenge")
    if challenge is not None and query.get("code_challenge_method") != "S256":
        # RFC 7636 section 4.2: "plain" is for those who cannot compute a digest.
        raise refused("invalid_request", "Use code_challenge_method=S256.")
    api = parts.apis.requested(query.get("audience", query.get("resource")))
    scope = parts.apis.for_user(client, api, query.get("scope", "openid"))
    if query.get("prompt") == "none":
        # No sign-in outlives its page (OpenID Connect Core section 3.1.2.6).
        raise refused("login_required", "Login required")
    return replace(
        back,
        scope=scope,
        audience=None if api is None else api.identifier,
        nonce=query.get("nonce"),
        challenge=challenge,
    )


def redirect_allowed(uri: str, registered: Iterable[str]) -> bool:
    """Check whether *uri* is one of the *registered* (RFC 9700 section 2.1).

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
    for allowed in registered:
        if hmac.compare_digest(allowed.encode(), uri.encode()):
            return True
        if (
            loopback
            and port is not None
            and _without_port(allowed) == _without_port(uri)
        ):
            return True
    return False


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
