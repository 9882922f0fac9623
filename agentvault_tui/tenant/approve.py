"""The pages on a phone: decide about one step-up, and register a passkey."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from msgspec import to_builtins
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.lures import mask_lures
from agentvault_tui.model import sha256_hex
from agentvault_tui.settings import StepUpSettings
from agentvault_tui.tenant.codes import StoredDeviceCode
from agentvault_tui.tenant.details import AskedRepeat, PageDetails
from agentvault_tui.tenant.oauth.wire import page_form
from agentvault_tui.tenant.parts import Parts
from agentvault_tui.tenant.passkeys import CounterError, Passkeys
from agentvault_tui.tenant.users import User
from agentvault_tui.tenant.views import (
    Problem,
    Views,
    body_view,
    browser_cookie,
)
from agentvault_tui.text import in_full, visible

COOKIE: Final = "__Host-agentvault_session"
PATH: Final = "/approve"
SESSION_SECONDS: Final = 12 * 3600
"""NIST SP 800-63B-4, AAL3: at most 12 hours. It shows and denies, and approves
nothing."""
_SCRIPT: Final = (Path(__file__).parent / "static" / "passkey.js").read_bytes()
SCRIPT_PATH: Final = f"/passkey/{hashlib.sha256(_SCRIPT).hexdigest()[:16]}.js"
_STEPUP: Final = re.compile(r"(?:sup|chg)_[0-9a-z]{8,64}")
_TRIES: Final = frozenset(map(str, range(12)))
"""Times that a page looks for a step-up that is not known yet, once a second. In a team
another broker takes over offering pages within eight."""
_SIGN_IN: Final = "sign-in "
_OVER: Final = Problem("code_over", "This request does not wait for anybody any more.")
_CHANGED: Final = Problem("changed", "This request has changed. Look at it again.")
_STALE: Final = Problem("stale_form", "This page is out of date. Look at it again.")
_LINK_OVER: Final = Problem("code_over", "This link was used, or its time is over.")
_log = logging.getLogger("agentvault.tenant")


@dataclass(frozen=True, slots=True)
class _Submitted:
    """A form of a signed-in person, about a step-up that waits as it was shown."""

    request: Request
    user: User
    code: StoredDeviceCode
    page: PageDetails
    fields: Mapping[str, str] = field(repr=False)


_Act = Callable[[_Submitted], Awaitable[None]]


class ApprovalPages:
    """``/approve/sup_…`` for whoever has the link and signs in.

    The session shows and denies. Each approval takes a passkey that signs the digest,
    or password and one-time code, afresh.
    """

    def __init__(
        self, parts: Parts, views: Views, keys: Passkeys, settings: StepUpSettings
    ) -> None:
        self._parts = parts
        self._views = views
        self._keys = keys
        self._settings = settings
        self._form_key = parts.seal.derive("approval form")

    def routes(self) -> list[BaseRoute]:
        """Return the routes; a step got by a link begins again."""
        steps: dict[str, _Act] = {
            "passkey": self._by_passkey,
            "factors": self._by_factors,
            "repeat": self._repeat,
            "deny": self._deny,
        }
        one = f"{PATH}/{{id}}"
        ways = {"sign-in": self._password, "passkey-sign-in": self._passkey}
        return [
            Route(SCRIPT_PATH, _script),
            Route(one, self._show),
            Route(f"{one}/leave", self._leave, methods=["POST"]),
            *(
                Route(f"{one}/{name}", partial(self._sign_in, way), methods=["POST"])
                for name, way in ways.items()
            ),
            *(
                Route(f"{one}/{name}", partial(self._submitted, act), methods=["POST"])
                for name, act in steps.items()
            ),
        ]

    async def _show(self, request: Request) -> Response:
        return self._page(request, self._user(request))

    def _page(
        self, request: Request, user: User | None, problem: Problem | None = None
    ) -> Response:
        """Show what a person may see of the step-up now."""
        stepup_id = request.path_params["id"]
        if user is None:
            return self._sign_in_page(request, problem)
        known = _STEPUP.fullmatch(stepup_id)
        code = self._parts.codes.by_stepup(stepup_id) if known else None
        page = None if code is None else code.page
        may_see = self._may_see(user)
        again = self._next_try(request) if may_see and code is None else None
        if again is not None:
            return self._views.page(
                "approve-soon", problem, user=user.name, again=again
            )
        if code is None or page is None or not may_see:
            return self._views.page("approve-over", problem or _OVER, user=user.name)
        if code.outcome is not None or code.sub is not None:
            return self._result(code, page, user)
        if not self._parts.codes.open(code):
            return self._views.page("approve-over", problem or _OVER, user=user.name)
        answer = self._views.step(
            "approve",
            code,
            "",
            self._form_token(request, page),
            problem,
            user=user.name,
            page=page,
            by=[visible(name, 64) for _, name in page.by],
            may=[one.name for one in self._parts.people.all() if self._may(one, page)],
            why_not=self._why_not(user, page),
            says=_masked(page.reason),
            body=None if page.body is None else body_view(page.body),
            before=in_full(page.before),
            rule=in_full(page.rule),
            owner=in_full(page.owner),
            may_differ=None if code.details is None else code.details.may_differ,
            last_try=None if page.problem is None else in_full(page.problem),
            options=self._options(user, page),
            factors=not self._passkey_only(code),
            script=SCRIPT_PATH,
        )
        return _scripted(answer)

    def _next_try(self, request: Request) -> str | None:
        """Return where to look again for a step-up that is not known yet.

        A link may be opened before the broker has told of its step-up.
        """
        tried = request.query_params.get("try", "0")
        if tried not in _TRIES:
            return None
        path = f"{PATH}/{request.path_params['id']}"
        known = _STEPUP.fullmatch(request.path_params["id"])
        return f"{path}?try={int(tried) + 1}" if known else None

    def _options(self, user: User, page: PageDetails) -> str | None:
        """Return what the person's passkey is asked to sign; None: they have none."""
        if not self._keys.of(user.sub):
            return None
        return self._keys.request_options(_challenge(page), user.sub)

    def _result(
        self, code: StoredDeviceCode, page: PageDetails, user: User
    ) -> Response:
        """Show the outcome, and whether it was used; the page polls itself."""
        told: dict[str, Any] = json.loads(code.outcome) if code.outcome else {}
        status = str(told.get("status", "waiting"))
        again = {"waiting": 1, "instead": 1, "approved": 3}.get(status)
        return self._views.step(
            "approve-result",
            code,
            "",
            "",
            user=user.name,
            page=page,
            status=status,
            decided_by=visible(str(told.get("by") or ""), 200),
            why=visible(str(told.get("why") or ""), 300),
            again=again,
            denied=code.authenticated_at is None,  # its state is "spent" meanwhile
        )

    # Signing in

    def _sign_in_page(self, request: Request, problem: Problem | None) -> Response:
        cookie = browser_cookie(request.cookies.get(COOKIE))
        options = None
        if self._keys.usable:
            challenge = self._keys.challenge(_SIGN_IN + cookie)
            options = self._keys.request_options(challenge)
        answer = self._views.page(
            "approve-sign-in",
            problem,
            action=f"{PATH}/{visible(request.path_params['id'], 80)}",
            options=options,
            script=SCRIPT_PATH,
        )
        _set_cookie(answer, cookie)
        return _scripted(answer)

    async def _sign_in(
        self,
        way: Callable[[Request, Mapping[str, str]], Awaitable[User]],
        request: Request,
    ) -> Response:
        form = await page_form(request)
        try:
            user = await way(request, form)
        except TenantRefusedError as error:
            self._refused(request, error)
            return self._page(request, None, _problem(error))
        # A new value: whoever planted the one before is not signed in with it.
        cookie = secrets.token_urlsafe(32)
        now = self._parts.clock.now().timestamp()
        store = self._parts.store
        store.change("DELETE FROM page_sessions WHERE expires_at < ?", now)
        store.insert(
            "page_sessions",
            cookie_hash=sha256_hex(cookie),
            sub=user.sub,
            expires_at=now + SESSION_SECONDS,
        )
        answer = _back(request)
        _set_cookie(answer, cookie)
        return answer

    async def _password(self, request: Request, form: Mapping[str, str]) -> User:
        user = await self._parts.sign_in.password(
            form.get("user", ""),
            form.get("password", ""),
            self._parts.sign_in.lanes.origin(request),
        )
        self._parts.journal.signed_in(request, user, None, mfa=False)
        return user

    async def _passkey(self, request: Request, form: Mapping[str, str]) -> User:
        cookie = request.cookies.get(COOKIE, "")
        answer, sign_in = form.get("credential", ""), self._parts.sign_in
        counted = sign_in.charge_passkey(
            self._keys.named_in(answer), sign_in.lanes.origin(request)
        )
        passkey = self._keys.signed_in(answer, _SIGN_IN + cookie)
        sign_in.lockouts.clear(counted, "code")
        user = self._parts.people.find(passkey.sub)
        if user is None or user.blocked:
            raise TenantRefusedError("blocked", "This user is blocked.")
        self._parts.journal.signed_in(request, user, None, mfa=True)
        return user

    async def _leave(self, request: Request) -> Response:
        """Sign this browser out."""
        cookie = request.cookies.get(COOKIE, "")
        self._parts.store.delete("page_sessions", cookie_hash=sha256_hex(cookie))
        return _back(request)

    def _user(self, request: Request) -> User | None:
        """Return who is signed in at this browser."""
        cookie = request.cookies.get(COOKIE, "")
        row = self._parts.store.find("page_sessions", cookie_hash=sha256_hex(cookie))
        now = self._parts.clock.now().timestamp()
        # Not one whose end is further away than any: the clock was set back.
        if row is None or not now < row["expires_at"] <= now + SESSION_SECONDS:
            return None
        user = self._parts.people.find(row["sub"])
        return None if user is None or user.blocked else user

    # Deciding

    async def _submitted(self, act: _Act, request: Request) -> Response:
        """Act on a form if it is about what waits now, and shown to this person."""
        fields, user = await page_form(request), self._user(request)
        stepup_id = request.path_params["id"]
        known = user and self._may_see(user) and _STEPUP.fullmatch(stepup_id)
        code = self._parts.codes.by_stepup(stepup_id) if known else None
        page = None if code is None else code.page
        if user is None or code is None or page is None:
            return self._page(request, user)
        sent, token = fields.get("form_token", ""), self._form_token(request, page)
        if not self._parts.codes.open(code):
            return self._page(request, user)
        if fields.get("digest", "") != page.digest:
            return self._page(request, user, _CHANGED)
        if not hmac.compare_digest(sent.encode(), token.encode()):
            return self._page(request, user, _STALE)
        try:
            await act(_Submitted(request, user, code, page, fields))
        except TenantRefusedError as error:
            self._refused(request, error, user)
            return self._page(request, user, _problem(error))
        return _back(request)

    async def _by_passkey(self, form: _Submitted) -> None:
        self._check_may(form)
        passkey = self._keys.verify(
            form.fields.get("credential", ""), _challenge(form.page), form.user.sub
        )
        now = int(self._parts.clock.now().timestamp())
        self._approve(form, now, passkey.amr)

    async def _by_factors(self, form: _Submitted) -> None:
        self._check_may(form)
        if self._passkey_only(form.code):
            raise TenantRefusedError(
                "passkey_needed", "This needs a passkey ([stepup] passkey_only)."
            )
        sign_in = self._parts.sign_in
        origin = sign_in.lanes.origin(form.request)
        password, otp = (form.fields.get(name, "") for name in ("password", "otp"))
        await sign_in.password(form.user.name, password, origin)
        now = sign_in.one_time_code(form.user, otp, origin)
        self._approve(form, now, ("mfa", "pwd", "otp"))

    async def _repeat(self, form: _Submitted) -> None:
        """Have the broker ask anew, for as many as the person chose.

        It approves nothing: the broker answers with another digest, over action and
        repeat, and the page of that one takes the second factor.
        """
        self._check_may(form)
        chosen = AskedRepeat.chosen(form.fields)
        wanted = None if chosen is None else to_builtins(chosen)
        if not self._parts.codes.ask_instead(form.code, form.user.sub, wanted):
            raise TenantRefusedError(_OVER.code, _OVER.text)

    async def _deny(self, form: _Submitted) -> None:
        if not self._may_deny(form.user):
            raise TenantRefusedError("not_yours", "Your role may look, and not deny.")
        if not self._parts.codes.deny(form.code, form.user.sub):
            raise TenantRefusedError(_OVER.code, _OVER.text)
        _log.info("step-up denied by %s", form.user.sub)

    def _approve(self, form: _Submitted, at: int, amr: tuple[str, ...]) -> None:
        # The first decision wins: a statement that changes a row that waits.
        sid = secrets.token_urlsafe(24)
        code = self._parts.codes.by_stepup(form.page.id)
        if code is None or code.page is None:
            raise TenantRefusedError(_OVER.code, _OVER.text)
        if code.page.digest != form.page.digest:
            raise TenantRefusedError(_CHANGED.code, _CHANGED.text)
        if not self._parts.codes.approve(code, form.user.sub, sid, at, amr):
            raise TenantRefusedError(_OVER.code, _OVER.text)
        client = self._parts.clients.by_key(form.code.client)
        self._parts.journal.signed_in(form.request, form.user, client, mfa=True)
        _log.info("step-up confirmed by %s", form.user.sub)

    def _refused(
        self, request: Request, error: TenantRefusedError, user: User | None = None
    ) -> None:
        """Note it in the log; as the broker's client's, where it must reach the audit.

        What strangers can cause alone is nobody's there.
        """
        broker = None
        if user is not None or isinstance(error, CounterError):
            broker = self._parts.clients.find(self._parts.run.client_id)
        self._parts.journal.sign_in_refused(request, error, user, broker)

    # Who may

    def _check_may(self, form: _Submitted) -> None:
        if why := self._why_not(form.user, form.page):
            raise TenantRefusedError("not_yours", why)

    def _why_not(self, user: User, page: PageDetails) -> str | None:
        """Say why *user* may not approve; the broker judges it again."""
        if page.body is not None and page.body.lost:
            return "Its body is lost: this request can only be denied."
        if not self._approver(user):
            return "Your account may not approve."
        if user.sub in {sub for sub, _ in page.by}:
            return "You have approved this. Another person has to as well."
        if words(user) & set(page.not_by):
            return "This is your own request. Another person has to approve."
        if not all(_names(user, names) for names in page.only_by):
            return "Only people whom a rule names for such requests may approve it."
        return None

    def _may(self, user: User, page: PageDetails) -> bool:
        return not user.blocked and self._why_not(user, page) is None

    def _approver(self, user: User) -> bool:
        listed = self._settings.approvers
        return _names(user, listed) if listed else user.approver

    def _may_see(self, user: User) -> bool:
        """Tell whether *user* has a role here: agents have users of their own."""
        return bool(user.roles) or self._approver(user)

    def _may_deny(self, user: User) -> bool:
        return bool({"operator", "approver"} & set(user.roles)) or self._approver(user)

    def _passkey_only(self, code: StoredDeviceCode) -> bool:
        high = code.details is not None and code.details.risk.value == "high"
        return self._settings.passkey_only and high

    def _form_token(self, request: Request, page: PageDetails) -> str:
        """Return what shows that a form is from this session's page of this digest."""
        about = f"{request.cookies.get(COOKIE, '')} {page.id} {page.digest}"
        return hmac.new(self._form_key, about.encode(), "sha256").hexdigest()


class RegistrationPages:
    """``/passkey/TOKEN``: good once, for whoever the owner of the home gave it to."""

    def __init__(self, parts: Parts, views: Views, keys: Passkeys) -> None:
        self._parts = parts
        self._views = views
        self._keys = keys

    def routes(self) -> list[BaseRoute]:
        """Return the routes."""
        return [
            Route("/passkey/{token}", self._show),
            Route("/passkey/{token}", self._register, methods=["POST"]),
        ]

    async def _show(self, request: Request) -> Response:
        return self._page(request)

    def _page(self, request: Request, problem: Problem | None = None) -> Response:
        token = request.path_params["token"]
        user = self._user(token)
        if user is None:
            return self._views.page("passkey-over", _LINK_OVER)
        answer = self._views.page(
            "passkey",
            problem,
            user=user.name,
            action=f"/passkey/{token}",
            options=self._keys.creation_options(user, _about(token)),
            script=SCRIPT_PATH,
        )
        return _scripted(answer)

    async def _register(self, request: Request) -> Response:
        form, token = await page_form(request), request.path_params["token"]
        user = self._user(token)
        if user is None:
            return self._views.page("passkey-over", _LINK_OVER)
        try:
            with self._parts.store.transaction():
                # Of two brokers that are sent the same link one finds it.
                link = {"link_hash": sha256_hex(token)}
                if not self._parts.store.delete("passkey_links", **link):
                    return self._views.page("passkey-over", _LINK_OVER)
                passkey = self._keys.register(
                    user, _about(token), form.get("credential", "")
                )
        except TenantRefusedError as error:
            return self._page(request, _problem(error))
        self._parts.journal.write(
            "gd_enrollment_complete",
            request,
            user=user,
            client=self._parts.clients.find(self._parts.run.client_id),
            description=f"passkey {passkey.id[:12]} registered",
        )
        return self._views.page("passkey-done", user=user.name)

    def _user(self, token: str) -> User | None:
        """Return whose link this is, while it is good."""
        store, now = self._parts.store, self._parts.clock.now().timestamp()
        store.change("DELETE FROM passkey_links WHERE expires_at <= ?", now)
        row = store.find("passkey_links", link_hash=sha256_hex(token))
        return None if row is None else self._parts.people.find(row["sub"])


def words(user: User) -> set[str]:
    """Return what an agent's owner may be called by, case-folded."""
    called = (user.sub, user.name, user.email, user.profile.get("name"))
    return {str(one).casefold() for one in called if one}


def _masked(reason: str | None) -> dict[str, object] | None:
    """Return the agent's own words without codes and links, and what was masked."""
    if reason is None:
        return None
    masked = mask_lures(in_full(reason))
    return {"text": masked.text, "masked": masked.said}


def _about(token: str) -> str:
    return f"register {token}"


def _challenge(page: PageDetails) -> bytes:
    """Return the digest's 32 bytes: what a passkey signs is what is approved."""
    return bytes.fromhex(page.digest.removeprefix("sha256:"))


def _problem(error: TenantRefusedError) -> Problem:
    return Problem(error.error, f"{error.what} {error.remedy}".strip())


def _back(request: Request) -> Response:
    """Send the browser to the step-up's own page."""
    where = f"{PATH}/{visible(request.path_params['id'], 80)}"
    return RedirectResponse(where, 303, {"cache-control": "no-store"})


def _set_cookie(answer: Response, cookie: str) -> None:
    # Lax: a link in a chat leads here with it. Every form's origin is checked.
    answer.set_cookie(
        COOKIE,
        cookie,
        max_age=SESSION_SECONDS,
        path="/",
        secure=True,
        httponly=True,
        samesite="lax",
    )


def _scripted(answer: Response) -> Response:
    """Let a page run our one script; passkeys are asked for by script alone."""
    policy = answer.headers["content-security-policy"]
    answer.headers["content-security-policy"] = f"{policy}; script-src 'self'"
    return answer


async def _script(_: Request) -> Response:
    headers = {"cache-control": "max-age=31536000, immutable"}
    return Response(_SCRIPT, headers=headers, media_type="text/javascript")


def _names(user: User, listed: Iterable[str]) -> bool:
    """Tell whether a list of subjects and addresses names *user*."""
    email = user.email if user.email_verified else None
    known = {user.sub.casefold(), (email or user.sub).casefold()}
    return bool(known & {one.casefold() for one in listed})
