"""The activation pages (RFC 8628): code, details, sign-in, one-time code, confirm."""

from __future__ import annotations

import hmac
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Final, Literal

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from agentvault_tui.clock import Clock
from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.model import sha256_hex
from agentvault_tui.tenant.codes import StoredDeviceCode, normal_user_code
from agentvault_tui.tenant.journal import LogCode
from agentvault_tui.tenant.oauth.wire import page_form
from agentvault_tui.tenant.parts import Parts
from agentvault_tui.tenant.signin import GUESSES, Origin
from agentvault_tui.tenant.store import Store, TenantSeal
from agentvault_tui.tenant.users import People, User
from agentvault_tui.tenant.views import (
    STYLE_PATH,
    Problem,
    Views,
    browser_cookie,
    stylesheet,
)

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
Step = Literal["details", "sign-in", "one-time-code", "confirm"]

_KIND: Final = "activation code"
_PAGES: Final = 32
_PER_CODE: Final = 8
"""Browsers that may have one code open."""
_log = logging.getLogger("agentvault.tenant")


@dataclass(slots=True)
class ActivationSession:
    """One browser's progress with one device code."""

    secret: str = field(repr=False)
    code_key: str
    user_code: str = field(repr=False)
    step: Step = "details"
    user: User | None = None
    authenticated_at: int | None = None
    acts: bool = True
    """Whether the form that was sent may change anything."""

    @property
    def key(self) -> str:
        """SHA-256 of its secret, by which the store knows it."""
        return sha256_hex(self.secret)


class ActivationSessions:
    """The sessions of one store, which any broker's pages go on with.

    A cookie alone is not enough: cookies do not separate ports, so every server on
    127.0.0.1 that a browser visits is sent ours. The form token is in the page alone,
    which no other origin can read, and a GET never shows a session's page.
    """

    def __init__(
        self, store: Store, seal: TenantSeal, people: People, clock: Clock
    ) -> None:
        self._store = store
        self._seal = seal
        self._people = people
        self._clock = clock
        self._key = seal.derive("activation form")

    def first_token(self, cookie: str) -> str:
        """Return the form token of the first page, which has no session yet.

        It is computed, not stored, so that asking for the page costs no memory.
        """
        return self._mac(f"cookie {cookie}")

    def start(
        self, cookie: str, code_key: str, user_code: str, expires: datetime
    ) -> ActivationSession | None:
        """Begin a session; None when too many are open on this code."""
        session = ActivationSession(secrets.token_urlsafe(32), code_key, user_code)
        now = self._clock.now().timestamp()
        with self._store.transaction():
            self._store.change("DELETE FROM activations WHERE expires_at <= ?", now)
            sql = "SELECT id_hash FROM activations WHERE code_key = ?"
            if len(self._store.all(sql, code_key)) >= _PER_CODE:
                return None
            self._store.insert(
                "activations",
                id_hash=session.key,
                code_key=code_key,
                user_code_sealed=self._seal.close(
                    _KIND, session.key, 1, user_code.encode()
                ),
                browser=sha256_hex(cookie),
                expires_at=expires.timestamp(),
                step=session.step,
                page=0,
                used=0,
            )
        return session

    def page(self, session: ActivationSession) -> str:
        """Return a form token for the session's next page; of its pages the last acts.

        The form's changes of the session are stored.
        """
        shown: dict[str, object] = {}
        if session.acts:
            sub = None if session.user is None else session.user.sub
            shown = {"step": session.step, "sub": sub}
            shown["authenticated_at"] = session.authenticated_at
        sets = "".join(f", {name} = ?" for name in shown)
        with self._store.unflushed():
            row = self._store.one(
                f"UPDATE activations SET page = page + 1, used = 0{sets}"  # noqa: S608
                " WHERE id_hash = ? RETURNING page",
                *(*shown.values(), session.key),
            )
        page = 0 if row is None else int(row["page"])
        if page > _PAGES:
            self.end(session)
        head = f"{session.secret}.{page}"
        return f"{head}.{self._mac(f'page {head}')}"

    def take(self, cookie: str | None, token: str) -> ActivationSession | None:
        """Find the session of a submitted form, and note whether the form may act.

        A form sent twice, or from an earlier page, does nothing: its person is shown
        the current step.
        """
        head, _, mac = token.rpartition(".")
        secret, _, page = head.rpartition(".")
        ours = self._mac(f"page {head}").encode()
        if not cookie or not hmac.compare_digest(ours, mac.encode()):
            return None
        key, browser = sha256_hex(secret), sha256_hex(cookie)
        # One statement looks and marks: of two that are sent at once, one acts.
        mine = {"id_hash": key, "browser": browser}
        with self._store.unflushed():
            acts = self._store.update(
                "activations", {"used": 1}, **mine, page=int(page), used=0
            )
        row = self._store.find("activations", **mine)
        if row is None:
            return None
        box = row["user_code_sealed"]
        return ActivationSession(
            secret,
            row["code_key"],
            self._seal.open(_KIND, key, 1, box).decode(),
            row["step"],
            self._people.find(row["sub"]),
            row["authenticated_at"],
            acts=bool(acts),
        )

    def end(self, session: ActivationSession) -> None:
        self._store.delete("activations", id_hash=session.key)

    def _mac(self, text: str) -> str:
        return hmac.new(self._key, text.encode(), "sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class SubmittedForm:
    """A form that may act: its session, its code, and its fields."""

    request: Request
    session: ActivationSession
    code: StoredDeviceCode
    fields: Mapping[str, str] = field(repr=False)


_Act = Callable[[SubmittedForm], Awaitable[Response]]


class ActivationPages:
    """The pages over one store.

    Auth0's order is code, confirmation, login, factor. Here the person sees the request
    before they sign in, and once more when they confirm. There is no remembered
    sign-in: each approval takes password and one-time code afresh.
    """

    def __init__(self, parts: Parts, views: Views) -> None:
        self._parts = parts
        self._console = sha256_hex(parts.run.client_id)
        self._sessions = ActivationSessions(
            parts.store, parts.seal, parts.people, parts.clock
        )
        self._views = views

    def routes(self) -> list[BaseRoute]:
        """Return ``/activate`` and its steps.

        If a step's URL is opened by GET, the flow restarts.
        """
        steps: dict[str, tuple[Step | None, _Act]] = {
            "continue": ("details", self._go_on),
            "sign-in": ("sign-in", self._sign_in),
            "one-time-code": ("one-time-code", self._one_time_code),
            "confirm": ("confirm", self._confirm),
            "cancel": (None, self._cancel),
        }
        routes: list[BaseRoute] = [
            Route("/activate", self._start),
            Route("/activate", self._enter_code, methods=["POST"]),
            Route(STYLE_PATH, stylesheet),
        ]
        for name, (step, act) in steps.items():
            submit = partial(self._submitted, step, act)
            routes.append(Route(f"/activate/{name}", submit, methods=["POST"]))
            routes.append(Route(f"/activate/{name}", self._again))
        return routes

    async def _start(self, request: Request) -> Response:
        """Ask for the code; a code in the link is filled in, and still to be compared.

        RFC 8628 section 5.4: nothing is known of the code yet, and nothing is said.
        """
        typed = request.query_params.get("user_code", "")
        return self._code_page(request, normal_user_code(typed) or "")

    async def _again(self, _: Request) -> Response:
        """Send a reload of a later page to the first: a GET shows no session."""
        return RedirectResponse("/activate", 303, {"cache-control": "no-store"})

    async def _enter_code(self, request: Request) -> Response:
        form = await page_form(request)
        cookie = request.cookies.get(COOKIE)
        expected = self._sessions.first_token(cookie or "").encode()
        sent = form.get("form_token", "").encode()
        if not cookie or not hmac.compare_digest(expected, sent):
            return self._over(_STALE)
        # Each browser's count alone (RFC 8628 section 5.1): on loopback everyone is one
        # source, so any process could keep the owner out with a count over all. Two
        # thousand tries a second against 34.5 bits hit a code of the console's, which
        # lives two minutes, once in a hundred thousand, and a hit shows a request that
        # still wants a password and a one-time code.
        lockouts, browser = (
            self._parts.sign_in.lockouts,
            f"browser {sha256_hex(cookie)}",
        )
        if lockouts.charge(browser, "code") > 0:
            return self._code_page(request, "", _TOO_MANY_TRIES)
        user_code = normal_user_code(form.get("user_code", ""))
        code = user_code and self._parts.codes.by_user_code(user_code)
        if not user_code or not code:
            return self._code_page(request, "", _NO_SUCH_CODE)
        lockouts.clear(browser, "code")
        until = code.expires.wall
        session = self._sessions.start(cookie, code.key, user_code, until)
        if session is None:
            return self._code_page(request, "", _TOO_MANY_TRIES)
        return self._show(session, code)

    async def _submitted(
        self, step: Step | None, act: _Act, request: Request
    ) -> Response:
        """Check all that a form of *step* must bring; act on it if it may act."""
        fields = await page_form(request)
        token = fields.get("form_token", "")
        session = self._sessions.take(request.cookies.get(COOKIE), token)
        if session is None:
            return self._over(_STALE)
        code = self._parts.codes.by_key(session.code_key)
        if code is None or not self._parts.codes.open(code):
            self._sessions.end(session)
            return self._over(_OVER)
        if not session.acts or step not in {None, session.step}:
            return self._show(session, code)
        return await act(SubmittedForm(request, session, code, fields))

    async def _go_on(self, form: SubmittedForm) -> Response:
        form.session.step = "sign-in"
        return self._show(form.session, form.code)

    async def _sign_in(self, form: SubmittedForm) -> Response:
        session, code, fields = form.session, form.code, form.fields
        name, password = fields.get("user", ""), fields.get("password", "")
        origin = self._origin(form)
        try:
            session.user = await self._parts.sign_in.password(name, password, origin)
        except TenantRefusedError as error:
            return self._failed(form, error)
        self._parts.journal.write("gd_start_auth", form.request, user=session.user)
        session.step = "one-time-code"
        return self._show(session, code)

    async def _one_time_code(self, form: SubmittedForm) -> Response:
        session, code = form.session, form.code
        if session.user is None:
            return self._over(_STALE)
        origin, otp = self._origin(form), form.fields.get("otp", "")
        try:
            authenticated = self._parts.sign_in.one_time_code(session.user, otp, origin)
        except TenantRefusedError as error:
            return self._failed(form, error)
        session.authenticated_at = authenticated
        client = self._parts.clients.by_key(code.client)
        self._parts.journal.signed_in(form.request, session.user, client, mfa=True)
        session.step = "confirm"
        answer = self._show(session, code)
        self._parts.sign_in.lanes.remember(answer, origin, session.user.sub)
        return answer

    async def _confirm(self, form: SubmittedForm) -> Response:
        session, code = form.session, form.code
        if session.user is None or session.authenticated_at is None:
            return self._over(_STALE)
        self._sessions.end(session)
        sub, sid = session.user.sub, secrets.token_urlsafe(24)
        if not self._parts.codes.approve(code, sub, sid, session.authenticated_at):
            return self._over(_OVER)
        _log.info("device code confirmed by %s", sub)
        return self._views.step("confirmed", code, session.user_code, "")

    async def _cancel(self, form: SubmittedForm) -> Response:
        """Refuse, at any step and without signing in."""
        self._sessions.end(form.session)
        if not self._parts.codes.deny(form.code):
            return self._over(_OVER)
        _log.info("device code cancelled")
        self._note("fdecc", form, "User cancelled the confirmation")
        return self._views.step("cancelled", form.code, form.session.user_code, "")

    def _failed(self, form: SubmittedForm, error: TenantRefusedError) -> Response:
        """Show the same step again, and count a guess against the code."""
        session, code = form.session, form.code
        _log.warning("sign-in refused: %s", error.error)
        self._parts.journal.sign_in_refused(form.request, error, session.user)
        if error.error in GUESSES:
            self._parts.codes.failed(code)
            now = self._parts.codes.by_key(code.key)
            if now is None or not self._parts.codes.open(now):
                self._sessions.end(session)
                self._note("fdeac", form, "Too many failed sign-ins")
                return self._over(_OVER)
        text = f"{error.what} {error.remedy}".strip()
        return self._show(session, code, Problem(error.error, text))

    def _origin(self, form: SubmittedForm) -> Origin:
        """Return where a factor comes from; only the broker starts its own codes."""
        return self._parts.sign_in.lanes.origin(
            form.request,
            code=form.code.key if form.code.client == self._console else None,
            user_code=form.session.user_code,
        )

    def _note(self, kind: LogCode, form: SubmittedForm, description: str) -> None:
        client = self._parts.clients.by_key(form.code.client)
        self._parts.journal.write(
            kind, form.request, description=description, client=client
        )

    def _show(
        self,
        session: ActivationSession,
        code: StoredDeviceCode,
        problem: Problem | None = None,
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
        cookie = browser_cookie(request.cookies.get(COOKIE))
        answer = self._views.page(
            "code",
            problem,
            user_code=user_code,
            form_token=self._sessions.first_token(cookie),
        )
        # On loopback this origin is http. SameSite=Strict keeps the cookie from every
        # request another site causes.
        answer.set_cookie(
            COOKIE,
            cookie,
            path="/activate",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return answer

    def _over(self, problem: Problem) -> Response:
        return self._views.page("over", problem)
