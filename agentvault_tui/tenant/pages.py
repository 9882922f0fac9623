"""The activation pages: code, what it approves, sign-in, one-time code, confirm."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.model import sha256_hex
from agentvault_tui.tenant.clients import log_name
from agentvault_tui.tenant.codes import DeviceCode
from agentvault_tui.tenant.guesses import Guesses
from agentvault_tui.tenant.journal import Code
from agentvault_tui.tenant.lanes import Origin
from agentvault_tui.tenant.oauth.wire import page_form, peer_of
from agentvault_tui.tenant.parts import Parts
from agentvault_tui.tenant.sessions import Session, Sessions
from agentvault_tui.tenant.signing import SignInLog
from agentvault_tui.tenant.views import Problem, Views

COOKIE: Final = "agentvault_activation"
_NO_SUCH_CODE: Final = Problem(
    "no_such_code", "There is no such code, or it is not valid any more."
)
_TOO_MANY_TRIES: Final = Problem(
    "too_many_tries", "Too many wrong codes. Wait a minute, then try again."
)
_STALE: Final = Problem(
    "stale_form", "This page is out of date, or was not opened by this browser."
)
_OVER: Final = Problem("code_over", "This code is not valid any more.")
_log = logging.getLogger("agentvault.tenant")

_Act = Callable[[Session, DeviceCode, Mapping[str, str]], Awaitable[Response]]


class Pages:
    """The pages over one store.

    Auth0's order is code, confirmation, login, factor. Here the person sees what they
    decide about before they sign in, and once more when they confirm. There is no
    remembered sign-in: each approval takes password and one-time code afresh.
    """

    def __init__(
        self, parts: Parts, sessions: Sessions, guesses: Guesses, views: Views
    ) -> None:
        """Serve a tenant's *parts*."""
        self._codes = parts.codes
        self._sign_in = parts.sign_in
        self._console = sha256_hex(parts.run.client_id)
        self._clients = parts.clients
        self._people = parts.people
        self._journal = parts.journal
        self._settings = parts.settings
        self._log = SignInLog(parts.journal)
        self._sessions = sessions
        self._guesses = guesses
        self._views = views

    async def start(self, request: Request) -> Response:
        """Ask for the code; a code in the link is filled in, and still to be compared.

        RFC 8628 section 5.4: nothing is known of the code yet, and nothing is said.
        """
        typed = request.query_params.get("user_code", "")
        return self._code_page(request, self._normal(typed) or "")

    async def again(self, _request: Request) -> Response:
        """Send whoever reloads a later page to the first: a GET shows no session."""
        return RedirectResponse("/activate", 303, {"cache-control": "no-store"})

    async def enter_code(self, request: Request) -> Response:
        """Take the code and show what it is for."""
        form = await page_form(request)
        cookie = request.cookies.get(COOKIE)
        if cookie is None or not self._sessions.is_first(
            cookie, form.get("form_token", "")
        ):
            return self._over(_STALE)
        browser = sha256_hex(cookie)
        if self._guesses.spent(browser):
            return self._code_page(request, "", _TOO_MANY_TRIES)
        user_code = self._normal(form.get("user_code", ""))
        code = user_code and self._codes.by_user_code(user_code)
        if not user_code or not code:
            self._guesses.wrong(browser)
            return self._code_page(request, "", _NO_SUCH_CODE)
        self._guesses.right(browser)
        session = self._sessions.start(cookie, code.key, user_code, code.expires)
        if session is None:
            return self._code_page(request, "", _TOO_MANY_TRIES)
        return self._show(session, code)

    async def go_on(self, request: Request) -> Response:
        """From what is being approved to the sign-in."""

        async def act(
            session: Session, code: DeviceCode, _: Mapping[str, str]
        ) -> Response:
            session.step = "sign-in"
            return self._show(session, code)

        return await self._submitted(request, "details", act)

    async def sign_in(self, request: Request) -> Response:
        """Take user name and password."""

        async def act(
            session: Session, code: DeviceCode, form: Mapping[str, str]
        ) -> Response:
            name, password = form.get("user", ""), form.get("password", "")
            origin = self._origin(request, session, code)
            try:
                session.user = await self._sign_in.password(name, password, origin)
            except TenantRefusedError as error:
                return self._failed(request, session, code, error)
            self._log.challenged(session.user, peer_of(request))
            session.step = "one-time-code"
            return self._show(session, code)

        return await self._submitted(request, "sign-in", act)

    async def one_time_code(self, request: Request) -> Response:
        """Take the one-time code."""

        async def act(
            session: Session, code: DeviceCode, form: Mapping[str, str]
        ) -> Response:
            """Note when the person was authenticated, and ask whether they approve."""
            if session.user is None:
                return self._over(_STALE)
            origin = self._origin(request, session, code)
            try:
                session.authenticated_at = self._sign_in.one_time_code(
                    session.user, form.get("otp", ""), origin
                )
            except TenantRefusedError as error:
                return self._failed(request, session, code, error)
            client = self._clients.by_key(code.client)
            self._log.succeeded(session.user, client, peer_of(request), mfa=True)
            session.step = "confirm"
            answer = self._show(session, code)
            self._sign_in.lanes.remember(answer, origin, session.user.sub)
            return answer

        return await self._submitted(request, "one-time-code", act)

    async def confirm(self, request: Request) -> Response:
        """Approve, once and for this code alone."""

        async def act(
            session: Session, code: DeviceCode, _: Mapping[str, str]
        ) -> Response:
            if session.user is None or session.authenticated_at is None:
                return self._over(_STALE)
            self._sessions.end(session)
            sub, sid = session.user.sub, secrets.token_urlsafe(24)
            self._people.note_login(sub)
            if not self._codes.approve(code, sub, sid, session.authenticated_at):
                return self._over(_OVER)
            _log.info("device code confirmed", extra={"sub": sub})
            return self._views.step("confirmed", code, session.user_code, "")

        return await self._submitted(request, "confirm", act)

    async def cancel(self, request: Request) -> Response:
        """Say no, at any step and without signing in: refusing is free."""

        async def act(
            session: Session, code: DeviceCode, _: Mapping[str, str]
        ) -> Response:
            self._sessions.end(session)
            if not self._codes.deny(code):
                return self._over(_OVER)
            _log.info("device code cancelled")
            self._note("fdecc", request, code, "User cancelled the confirmation")
            return self._views.step("cancelled", code, session.user_code, "")

        return await self._submitted(request, None, act)

    async def _submitted(
        self, request: Request, step: str | None, act: _Act
    ) -> Response:
        """Check everything a form must bring, the code's life included, then *act*."""
        form = await page_form(request)
        session, acts = self._sessions.take(
            request.cookies.get(COOKIE), form.get("form_token", "")
        )
        if session is None:
            return self._over(_STALE)
        code = self._codes.by_key(session.code_key)
        if code is None or not self._codes.open(code):
            self._sessions.end(session)
            return self._over(_OVER)
        if not acts or step not in {None, session.step}:
            return self._show(session, code)
        return await act(session, code, form)

    def _failed(
        self,
        request: Request,
        session: Session,
        code: DeviceCode,
        error: TenantRefusedError,
    ) -> Response:
        """Show the same step again, and count what was a guess against the code."""
        _log.warning("sign-in refused", extra={"why": error.error})
        self._log.refused(error, peer_of(request), session.user)
        if error.error in {"wrong_sign_in", "wrong_otp"}:
            self._codes.failed(code)
            now = self._codes.by_key(code.key)
            if now is None or not self._codes.open(now):
                self._sessions.end(session)
                self._note("fdeac", request, code, "Too many failed sign-ins")
                return self._over(_OVER)
        text = f"{error.what} {error.remedy}".strip()
        return self._show(session, code, Problem(error.error, text))

    def _origin(self, request: Request, session: Session, code: DeviceCode) -> Origin:
        """Return where a factor comes from; only the broker starts its own codes."""
        return self._sign_in.lanes.origin(
            request,
            code=code.key if code.client == self._console else None,
            user_code=session.user_code,
        )

    def _normal(self, typed: str) -> str | None:
        return self._settings.code_format().normal(typed)

    def _note(
        self, kind: Code, request: Request, code: DeviceCode, description: str
    ) -> None:
        client = self._clients.by_key(code.client)
        self._journal.write(
            kind,
            description=description,
            client=log_name(client),
            peer=peer_of(request),
        )

    def _show(
        self, session: Session, code: DeviceCode, problem: Problem | None = None
    ) -> Response:
        return self._views.step(
            session.step,
            code,
            session.user_code,
            self._sessions.page(session),
            problem,
            user=session.user.name if session.user else None,
        )

    def _code_page(
        self, request: Request, user_code: str, problem: Problem | None = None
    ) -> Response:
        cookie = Sessions.cookie(request.cookies.get(COOKIE))
        answer = self._views.page(
            "code",
            problem,
            user_code=user_code,
            form_token=self._sessions.first_token(cookie),
        )
        # No Secure: this origin is http on loopback. SameSite=Strict keeps the cookie
        # from every request another site causes.
        answer.set_cookie(
            COOKIE, cookie, path="/activate", httponly=True, samesite="strict"
        )
        return answer

    def _over(self, problem: Problem) -> Response:
        return self._views.page("over", problem)
