"""The login pages: password, second factor if one is needed, consent, and back."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.tenant.clients import Client
from agentvault_tui.tenant.login.authorize import AuthorizeError, read_request
from agentvault_tui.tenant.login.errands import LONGEST, Errand, Errands
from agentvault_tui.tenant.oauth.codes import Authorization, CodeGrant
from agentvault_tui.tenant.oauth.wire import peer_of
from agentvault_tui.tenant.parts import Parts
from agentvault_tui.tenant.people import User
from agentvault_tui.tenant.redirects import origin_of, with_query
from agentvault_tui.tenant.sessions import Sessions
from agentvault_tui.tenant.signing import SignInLog
from agentvault_tui.tenant.tokens import Login
from agentvault_tui.tenant.vault.connecting import ConnectRequest
from agentvault_tui.tenant.views import Problem, Views
from agentvault_tui.text import visible
from agentvault_tui.web import BodyError, parse_form, read_body

COOKIE: Final = "agentvault_login"
PATH: Final = "/u"
_STALE: Final = Problem(
    "stale_form", "This page is out of date, or was not opened by this browser."
)
_OVER: Final = Problem(
    "code_over", "This request is over. Start again where you began."
)
_log = logging.getLogger("agentvault.tenant")


class LoginPages:
    """Sign-in for a client (``/authorize``), and consent at a provider.

    There is no remembered sign-in: each errand takes the password afresh. A GET shows
    what is asked, and changes nothing; each later step is a form that brings the
    errand back, sealed to the browser's cookie.
    """

    def __init__(
        self, parts: Parts, codes: CodeGrant, errands: Errands, views: Views
    ) -> None:
        """Serve a tenant's *parts*."""
        self._parts = parts
        self._codes = codes
        self._errands = errands
        self._views = views
        self._log = SignInLog(parts.journal)

    async def authorize(self, request: Request) -> Response:
        """Begin a sign-in for a client."""
        try:
            errand = read_request(self._parts, request.query_params)
        except AuthorizeError as error:
            return _back(
                error.to.redirect_uri,
                error=error.error.error,
                error_description=error.error.what,
                state=error.to.state,
            )
        except TenantRefusedError as error:
            return self._views.page("login-over", Problem("bad_request", error.what))
        return self._show(request, "login", errand)

    async def connect(self, request: Request) -> Response:
        """Begin the consent that a connect request's link leads to."""
        ticket = request.query_params.get("ticket", "")
        asked = self._parts.connecting.by_ticket(ticket)
        if asked is None:
            return self._views.page("login-over", _OVER)
        errand = Errand("connect", asked.client_id, request=asked.key)
        return self._show(request, "login", errand)

    async def login(self, request: Request) -> Response:
        """Take user name and password."""
        form, errand = await self._submitted(request)
        if errand is None or errand.sub is not None:
            return self._views.page("login-over", _STALE)
        try:
            user = await self._parts.sign_in.password(
                form.get("user", ""), form.get("password", "")
            )
        except TenantRefusedError as error:
            self._log.refused(error, peer_of(request))
            return self._show(request, "login", errand, _problem(error))
        errand = errand.signed_in(user.sub)
        if errand.mfa:
            return self._show(request, "login-otp", errand)
        return self._authenticated(request, errand, user)

    async def one_time_code(self, request: Request) -> Response:
        """Take the second factor."""
        form, errand = await self._submitted(request)
        user = None if errand is None else self._parts.people.find(errand.sub)
        if errand is None or user is None or errand.at:
            return self._views.page("login-over", _STALE)
        try:
            self._parts.sign_in.one_time_code(user, form.get("otp", ""))
        except TenantRefusedError as error:
            self._log.refused(error, peer_of(request), user)
            return self._show(request, "login-otp", errand, _problem(error))
        return self._authenticated(request, errand, user)

    async def consent(self, request: Request) -> Response:
        """Grant what was shown, and send the person back."""
        _, errand = await self._submitted(request)
        user = None if errand is None else self._parts.people.find(errand.sub)
        if errand is None or user is None or user.blocked or not errand.at:
            return self._views.page("login-over", _STALE)
        if errand.kind == "connect":
            return self._connected(errand, user)
        client = self._parts.clients.find(errand.client_id)
        if client is None:
            return self._views.page("login-over", _OVER)
        granted = Authorization(
            client,
            errand.redirect_uri,
            errand.scope,
            errand.audience,
            errand.nonce,
            errand.challenge,
            errand.method,
        )
        login = Login(user.sub, secrets.token_urlsafe(24), errand.at, errand.mfa)
        code = self._codes.issue(granted, login)
        _log.info("authorization granted", extra={"sub": user.sub})
        return _back(errand.redirect_uri, code=code, state=errand.state)

    async def cancel(self, request: Request) -> Response:
        """Say no, at any step: refusing is free."""
        _, errand = await self._submitted(request)
        if errand is None:
            return self._views.page("login-over", _STALE)
        to, state = errand.redirect_uri, errand.state
        if errand.kind == "connect":
            asked = self._parts.connecting.by_key(errand.request or "")
            if asked is None:
                return self._views.page("login-over", _OVER)
            self._parts.connecting.cancel(asked)
            self._note_no(request, asked)
            to, state = asked.redirect_uri, asked.state
        return _back(
            to,
            error="access_denied",
            error_description="User did not authorize the request",
            state=state,
        )

    def _connected(self, errand: Errand, user: User) -> Response:
        asked = self._parts.connecting.by_key(errand.request or "")
        code = None
        if asked is not None:
            code = self._parts.connecting.consent(asked, user.name)
        if asked is None or code is None:
            return self._views.page("login-over", _OVER)
        return _back(asked.redirect_uri, connect_code=code, state=asked.state)

    def _authenticated(self, request: Request, errand: Errand, user: User) -> Response:
        """Note a complete sign-in, and ask whether they grant it."""
        now = int(self._parts.clock.now().timestamp())
        client = self._parts.clients.find(errand.client_id)
        self._log.succeeded(user, client, peer_of(request), mfa=errand.mfa)
        self._parts.people.note_login(user.sub)
        return self._show(request, "consent", errand.done(now))

    def _show(
        self,
        request: Request,
        page: str,
        errand: Errand,
        problem: Problem | None = None,
    ) -> Response:
        shown = self._shown(errand)
        cookie = Sessions.cookie(request.cookies.get(COOKIE))
        sealed = self._errands.close(errand, cookie)
        if shown is None or len(sealed) > LONGEST:
            return self._views.page("login-over", _OVER)
        answer = self._views.page(page, problem, errand=sealed, **shown)
        if page == "consent":
            # Browsers hold a form's redirect to form-action as well.
            policy = answer.headers["content-security-policy"]
            to = origin_of(shown["redirect_uri"])
            answer.headers["content-security-policy"] = policy.replace(
                "form-action 'self'", f"form-action 'self' {to}"
            )
        # As on the activation pages: http on loopback, so no Secure. The path is the
        # whole tenant's, so that a second tab keeps the first one's cookie.
        answer.set_cookie(COOKIE, cookie, path="/", httponly=True, samesite="strict")
        return answer

    def _shown(self, errand: Errand) -> dict[str, Any] | None:
        """Return what a page says of an errand, made displayable."""
        client = self._parts.clients.find(errand.client_id)
        user = self._parts.people.find(errand.sub)
        if client is None:
            return None
        said: dict[str, Any] = {
            "kind": errand.kind,
            "client": visible(client.name, 128),
            "user": None if user is None else visible(user.name, 64),
            "connection": None,
            "owner": None,
        }
        if errand.kind == "authorize":
            audience = errand.audience or self._parts.apis.userinfo
            return said | _destination(errand.redirect_uri, errand.scope, audience)
        asked = self._parts.connecting.by_key(errand.request or "")
        owner = None if asked is None else self._parts.people.find(asked.user_id)
        if asked is None or owner is None:
            return None
        said |= {
            "connection": visible(asked.connection, 128),
            "owner": visible(owner.name, 64),
        }
        return said | _destination(asked.redirect_uri, asked.scope, asked.connection)

    def _note_no(self, request: Request, asked: ConnectRequest) -> None:
        client: Client | None = self._parts.clients.find(asked.client_id)
        self._parts.journal.write(
            "connected_accounts_connection_failed",
            description="User did not authorize the request",
            client=(None, None) if client is None else client.log_name,
            user=self._parts.people.find(asked.user_id),
            peer=peer_of(request),
            connection=asked.connection,
        )

    async def _submitted(
        self, request: Request
    ) -> tuple[Mapping[str, str], Errand | None]:
        form = await _form(request)
        errand = self._errands.open(form.get("errand", ""), request.cookies.get(COOKIE))
        return form, errand


def _destination(redirect_uri: str, scope: str, audience: str) -> dict[str, Any]:
    return {
        "redirect_uri": redirect_uri,
        "back_to": visible(origin_of(redirect_uri), 300),
        "scopes": [visible(word, 300) for word in scope.split()],
        "audience": visible(audience, 600),
    }


def _problem(error: TenantRefusedError) -> Problem:
    return Problem(error.error, f"{error.what} {error.remedy}".strip())


def _back(redirect_uri: str, **members: str | None) -> Response:
    """Send the browser on; what it carries is in no cache and no referrer."""
    return RedirectResponse(
        with_query(redirect_uri, **members),
        302,
        {"cache-control": "no-store", "referrer-policy": "no-referrer"},
    )


async def _form(request: Request) -> dict[str, str]:
    body = await read_body(request.receive)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        return {}
    try:
        return parse_form(body)
    except BodyError:
        return {}
