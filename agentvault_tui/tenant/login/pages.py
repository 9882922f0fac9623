"""The login pages: password, second factor if one is needed, consent, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.tenant.login.authorize import AuthorizeError, read_request
from agentvault_tui.tenant.login.errands import LONGEST, Errand, Errands, Kind
from agentvault_tui.tenant.login.purposes import Authorize, Connect, Purpose, back
from agentvault_tui.tenant.oauth.codes import CodeGrant
from agentvault_tui.tenant.oauth.wire import page_form, peer_of
from agentvault_tui.tenant.parts import Parts
from agentvault_tui.tenant.people import User
from agentvault_tui.tenant.sessions import Sessions
from agentvault_tui.tenant.signing import SignInLog
from agentvault_tui.tenant.views import Problem, Views
from agentvault_tui.text import visible

COOKIE: Final = "agentvault_login"
PATH: Final = "/u"
_STALE: Final = Problem(
    "stale_form", "This page is out of date, or was not opened by this browser."
)
_OVER: Final = Problem(
    "code_over", "This request is over. Start again where you began."
)


class LoginPages:
    """Sign-in for one purpose, whichever the errand has.

    There is no remembered sign-in: each errand takes the password afresh. A GET shows
    what is asked, and changes nothing; each later step is a form that brings the
    errand back, sealed to the browser's cookie.
    """

    def __init__(
        self, parts: Parts, codes: CodeGrant, errands: Errands, views: Views
    ) -> None:
        """Serve a tenant's *parts*."""
        self._parts = parts
        self._errands = errands
        self._views = views
        self._log = SignInLog(parts.journal)
        self._purposes: Mapping[Kind, Purpose] = {
            "authorize": Authorize(parts, codes),
            "connect": Connect(parts),
        }

    async def authorize(self, request: Request) -> Response:
        """Begin a sign-in for a client."""
        try:
            errand = read_request(self._parts, request.query_params)
        except AuthorizeError as error:
            return back(
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
            return self._over()
        errand = Errand("connect", asked.client_id, request=asked.key)
        return self._show(request, "login", errand)

    async def login(self, request: Request) -> Response:
        """Take user name and password."""
        form, errand = await self._submitted(request)
        if errand is None or errand.sub is not None:
            return self._views.page("login-over", _STALE)
        try:
            user = await self._parts.sign_in.password(
                form.get("user", ""),
                form.get("password", ""),
                self._parts.sign_in.lanes.origin(request),
            )
        except TenantRefusedError as error:
            self._log.refused(error, peer_of(request))
            return self._show(request, "login", errand, _problem(error))
        errand = errand.signed_in(user.sub)
        if errand.mfa:
            self._log.challenged(user, peer_of(request))
            return self._show(request, "login-otp", errand)
        return self._authenticated(request, errand, user)

    async def one_time_code(self, request: Request) -> Response:
        """Take the second factor."""
        form, errand = await self._submitted(request)
        user = None if errand is None else self._parts.people.find(errand.sub)
        if errand is None or user is None or errand.at:
            return self._views.page("login-over", _STALE)
        lanes = self._parts.sign_in.lanes
        origin = lanes.origin(request)
        try:
            self._parts.sign_in.one_time_code(user, form.get("otp", ""), origin)
        except TenantRefusedError as error:
            self._log.refused(error, peer_of(request), user)
            return self._show(request, "login-otp", errand, _problem(error))
        answer = self._authenticated(request, errand, user)
        lanes.remember(answer, origin, user.sub)
        return answer

    async def consent(self, request: Request) -> Response:
        """Grant what was shown, and send the person back to where they came from."""
        _, errand = await self._submitted(request)
        user = None if errand is None else self._parts.people.find(errand.sub)
        if errand is None or user is None or user.blocked or not errand.at:
            return self._views.page("login-over", _STALE)
        return self._purposes[errand.kind].allowed(errand, user) or self._over()

    async def cancel(self, request: Request) -> Response:
        """Say no, at any step: refusing is free."""
        _, errand = await self._submitted(request)
        if errand is None:
            return self._views.page("login-over", _STALE)
        purpose = self._purposes[errand.kind]
        return purpose.refused(errand, peer_of(request)) or self._over()

    def _over(self) -> Response:
        return self._views.page("login-over", _OVER)

    def _authenticated(self, request: Request, errand: Errand, user: User) -> Response:
        """Note a complete sign-in, and show what it was for."""
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
        said = self._purposes[errand.kind].said(errand)
        cookie = Sessions.cookie(request.cookies.get(COOKIE))
        sealed = self._errands.close(errand, cookie)
        if said is None or len(sealed) > LONGEST:
            return self._over()
        user = self._parts.people.find(errand.sub)
        answer = self._views.page(
            page,
            problem,
            errand=sealed,
            said=said,
            user=None if user is None else visible(user.name, 64),
        )
        if page == "consent" and said.redirect_origin:
            # Browsers hold a form's redirect to form-action as well.
            policy = answer.headers["content-security-policy"]
            answer.headers["content-security-policy"] = policy.replace(
                "form-action 'self'", f"form-action 'self' {said.redirect_origin}"
            )
        # As on the activation pages: http on loopback, so no Secure. The path is the
        # whole tenant's, so that a second tab keeps the first one's cookie.
        answer.set_cookie(COOKIE, cookie, path="/", httponly=True, samesite="strict")
        return answer

    async def _submitted(
        self, request: Request
    ) -> tuple[Mapping[str, str], Errand | None]:
        form = await page_form(request)
        errand = self._errands.open(form.get("errand", ""), request.cookies.get(COOKIE))
        return form, errand


def _problem(error: TenantRefusedError) -> Problem:
    return Problem(error.error, f"{error.what} {error.remedy}".strip())
