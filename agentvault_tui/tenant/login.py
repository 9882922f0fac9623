"""The login pages: password, consent, and back to the client that asked.

They serve two requests: an authorization (``/authorize``), and the consent that lets
Token Vault keep an account's tokens (``/connected-accounts/connect``).
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Protocol
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.tenant.authorize import AuthorizeError, read_request, with_query
from agentvault_tui.tenant.clients import Client, log_name
from agentvault_tui.tenant.journal import Peer, SignInLog
from agentvault_tui.tenant.login_state import (
    LONGEST,
    LoginKind,
    LoginState,
    SealedStates,
)
from agentvault_tui.tenant.oauth.grants import Authorization, CodeGrant
from agentvault_tui.tenant.oauth.wire import page_form, peer_of
from agentvault_tui.tenant.parts import Parts
from agentvault_tui.tenant.people import User
from agentvault_tui.tenant.tokens import Login
from agentvault_tui.tenant.vault.connecting import ConnectRequest
from agentvault_tui.tenant.views import Problem, Views, browser_cookie
from agentvault_tui.text import Shown, visible

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


@dataclass(frozen=True, slots=True)
class LoginText:
    """What the pages show of a request, made displayable."""

    kind: LoginKind
    client: Shown
    audience: Shown
    scopes: tuple[Shown, ...]
    back_to: Shown
    redirect_origin: str
    """Where the consent form may be redirected to."""
    connection: Shown | None = None
    owner: Shown | None = None


class LoginPurpose(Protocol):
    """One kind of request that the pages serve."""

    def text(self, state: LoginState) -> LoginText | None:
        """Return what its pages show; None: it is over."""
        ...

    def allowed(self, state: LoginState, user: User) -> Response | None:
        """Do what *user* allowed; return where to; None: it is over."""
        ...

    def refused(self, state: LoginState, peer: Peer) -> Response | None:
        """Do what a no means, given at any step and without signing in."""
        ...


class AuthorizationPurpose:
    """``/authorize``: a person signs in for a client."""

    def __init__(self, parts: Parts, codes: CodeGrant) -> None:
        self._parts = parts
        self._codes = codes

    def text(self, state: LoginState) -> LoginText | None:
        client = self._parts.clients.find(state.client_id)
        if client is None:
            return None
        audience = state.audience or self._parts.apis.userinfo
        return _text("authorize", client, state.redirect_uri, state.scope, audience)

    def allowed(self, state: LoginState, user: User) -> Response | None:
        client = self._parts.clients.find(state.client_id)
        if client is None:
            return None
        granted = Authorization(
            client,
            state.redirect_uri,
            state.scope,
            state.audience,
            state.nonce,
            state.challenge,
        )
        login = Login(user.sub, secrets.token_urlsafe(24), state.at, mfa=False)
        code = self._codes.issue(granted, login)
        _log.info("authorization granted by %s", user.sub)
        return _back(state.redirect_uri, code=code, state=state.state)

    def refused(self, state: LoginState, peer: Peer) -> Response:  # noqa: ARG002 - the protocol's
        return _back_refused(state.redirect_uri, state.state)


class ConnectPurpose:
    """A connect request's link: a person lets the vault keep an account's tokens."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._connecting = parts.connecting

    def text(self, state: LoginState) -> LoginText | None:
        client = self._parts.clients.find(state.client_id)
        asked = self._asked(state)
        owner = None if asked is None else self._parts.people.find(asked.user_id)
        if client is None or asked is None or owner is None:
            return None
        text = _text(
            "connect", client, asked.redirect_uri, asked.scope, asked.connection
        )
        return replace(
            text,
            connection=visible(asked.connection, 128),
            owner=visible(owner.name, 64),
        )

    def allowed(self, state: LoginState, user: User) -> Response | None:
        asked = self._asked(state)
        code = None if asked is None else self._connecting.consent(asked, user.name)
        if asked is None or code is None:
            return None
        return _back(asked.redirect_uri, connect_code=code, state=asked.state)

    def refused(self, state: LoginState, peer: Peer) -> Response | None:
        asked = self._asked(state)
        if asked is None:
            return None
        self._connecting.cancel(asked)
        self._parts.journal.write(
            "connected_accounts_connection_failed",
            description=_NO,
            client=log_name(self._parts.clients.find(asked.client_id)),
            user=self._parts.people.find(asked.user_id),
            peer=peer,
            connection=asked.connection,
        )
        return _back_refused(asked.redirect_uri, asked.state)

    def _asked(self, state: LoginState) -> ConnectRequest | None:
        return self._connecting.by_key(state.request or "")


class LoginPages:
    """Sign-in for one request, whichever the state names.

    There is no remembered sign-in: each request takes the password afresh. A GET shows
    what is asked, and changes nothing; each later step is a form that brings the state
    back, sealed to the browser's cookie.
    """

    def __init__(self, parts: Parts, codes: CodeGrant, views: Views) -> None:
        self._parts = parts
        self._states = SealedStates(parts.seal, parts.clock)
        self._views = views
        self._log = SignInLog(parts.journal)
        self._purposes: Mapping[LoginKind, LoginPurpose] = {
            "authorize": AuthorizationPurpose(parts, codes),
            "connect": ConnectPurpose(parts),
        }

    async def authorize(self, request: Request) -> Response:
        try:
            state = read_request(self._parts, request.query_params)
        except AuthorizeError as error:
            return _back(
                error.to.redirect_uri,
                error=error.error.error,
                error_description=error.error.what,
                state=error.to.state,
            )
        except TenantRefusedError as error:
            return self._views.page("login-over", Problem("bad_request", error.what))
        return self._show(request, "login", state)

    async def connect(self, request: Request) -> Response:
        ticket = request.query_params.get("ticket", "")
        asked = self._parts.connecting.by_ticket(ticket)
        if asked is None:
            return self._over()
        state = LoginState("connect", asked.client_id, request=asked.key)
        return self._show(request, "login", state)

    async def login(self, request: Request) -> Response:
        form, state = await self._submitted(request)
        if state is None or state.sub is not None:
            return self._views.page("login-over", _STALE)
        parts, peer = self._parts, peer_of(request)
        try:
            user = await parts.sign_in.password(
                form.get("user", ""),
                form.get("password", ""),
                parts.sign_in.lanes.origin(request),
            )
        except TenantRefusedError as error:
            self._log.refused(error, peer)
            problem = Problem(error.error, f"{error.what} {error.remedy}".strip())
            return self._show(request, "login", state, problem)
        client = parts.clients.find(state.client_id)
        self._log.succeeded(user, client, peer, mfa=False)
        parts.people.note_login(user.sub)
        now = int(parts.clock.now().timestamp())
        return self._show(request, "consent", replace(state, sub=user.sub, at=now))

    async def consent(self, request: Request) -> Response:
        _, state = await self._submitted(request)
        user = None if state is None else self._parts.people.find(state.sub)
        if state is None or user is None or user.blocked:
            return self._views.page("login-over", _STALE)
        return self._purposes[state.kind].allowed(state, user) or self._over()

    async def cancel(self, request: Request) -> Response:
        _, state = await self._submitted(request)
        if state is None:
            return self._views.page("login-over", _STALE)
        purpose = self._purposes[state.kind]
        return purpose.refused(state, peer_of(request)) or self._over()

    def _over(self) -> Response:
        return self._views.page("login-over", _OVER)

    def _show(
        self,
        request: Request,
        page: str,
        state: LoginState,
        problem: Problem | None = None,
    ) -> Response:
        text = self._purposes[state.kind].text(state)
        cookie = browser_cookie(request.cookies.get(COOKIE))
        sealed = self._states.close(state, cookie)
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
                "form-action 'self'", f"form-action 'self' {text.redirect_origin}"
            )
        # As on the activation pages: http on loopback, so no Secure. The path is the
        # whole tenant's, so that a second tab keeps the first one's cookie.
        answer.set_cookie(COOKIE, cookie, path="/", httponly=True, samesite="strict")
        return answer

    async def _submitted(
        self, request: Request
    ) -> tuple[Mapping[str, str], LoginState | None]:
        form = await page_form(request)
        state = self._states.open(form.get("state", ""), request.cookies.get(COOKIE))
        return form, state


def _back(redirect_uri: str, **members: str | None) -> Response:
    """Send the browser on; what it carries is in no cache and no referrer."""
    return RedirectResponse(
        with_query(redirect_uri, **members),
        302,
        {"cache-control": "no-store", "referrer-policy": "no-referrer"},
    )


def _back_refused(redirect_uri: str, state: str | None) -> Response:
    return _back(
        redirect_uri, error="access_denied", error_description=_NO, state=state
    )


def _text(
    kind: LoginKind, client: Client, redirect_uri: str, scope: str, audience: str
) -> LoginText:
    parts = urlsplit(redirect_uri)
    origin = f"{parts.scheme}://{parts.netloc}"
    return LoginText(
        kind,
        client=visible(client.name, 128),
        audience=visible(audience, 600),
        scopes=tuple(visible(word, 300) for word in scope.split()),
        back_to=visible(origin, 300),
        redirect_origin=origin,
    )
