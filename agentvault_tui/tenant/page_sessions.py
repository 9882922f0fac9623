"""Who is signed in at a browser, on the pages where people approve."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.model import sha256_hex
from agentvault_tui.tenant.oauth.wire import page_form
from agentvault_tui.tenant.parts import Parts
from agentvault_tui.tenant.passkeys import CounterError, Passkeys
from agentvault_tui.tenant.row_time import row_time
from agentvault_tui.tenant.users import User
from agentvault_tui.tenant.views import Problem, Views, browser_cookie
from agentvault_tui.text import visible
from agentvault_tui.web.sockets import tcp_user

PATH: Final = "/approve"
SESSION_SECONDS: Final = 12 * 3600
"""NIST SP 800-63B-4, AAL3: at most 12 hours. It shows and denies, and approves
nothing."""
_COOKIE: Final = "agentvault_session"
_SCRIPT: Final = (Path(__file__).parent / "static" / "passkey.js").read_bytes()
SCRIPT_PATH: Final = f"/passkey/{hashlib.sha256(_SCRIPT).hexdigest()[:16]}.js"
_SIGN_IN: Final = "sign-in "

_Way = Callable[[Request, Mapping[str, str]], Awaitable[User]]


class PageSessions:
    """Sign-ins by password or passkey, below the page that a person wanted to see."""

    def __init__(
        self,
        parts: Parts,
        views: Views,
        keys: Passkeys,
        show: Callable[[Request, Problem | None], Awaitable[Response]],
    ) -> None:
        """Use *show* to answer a sign-in that was refused."""
        self._parts, self._views, self._keys = parts, views, keys
        self._show = show

    def routes(self, below: str) -> list[BaseRoute]:
        """Return the routes of the forms of a page at *below*."""
        ways: dict[str, _Way] = {
            "sign-in": self._password,
            "passkey-sign-in": self._passkey,
        }
        return [
            Route(f"{below}/leave", self._leave, methods=["POST"]),
            *(
                Route(f"{below}/{name}", partial(self._sign_in, way), methods=["POST"])
                for name, way in ways.items()
            ),
        ]

    def sign_in_page(self, request: Request, problem: Problem | None) -> Response:
        """Return the page on which a person signs in, to see another."""
        cookie = browser_cookie(request.cookies.get(_cookie_name(request)))
        options = None
        if self._keys.usable:
            challenge = self._keys.challenge(_SIGN_IN + cookie)
            options = self._keys.request_options(challenge)
        answer = self._views.page(
            "approve-sign-in",
            problem,
            action=where(request).rstrip("/"),
            options=options,
            script=SCRIPT_PATH,
        )
        _set_cookie(request, answer, cookie)
        return scripted(answer)

    def user(self, request: Request) -> User | None:
        """Return who is signed in at this browser."""
        store = self._parts.store
        row = store.find("page_sessions", cookie_hash=_key(request))
        if row is None:
            return None
        now = row_time(store, self._parts.clock)
        # Not one whose end is further away than any: the clock was set back.
        if not now < row["expires_at"] <= now + SESSION_SECONDS:
            return None
        user = self._parts.people.find(row["sub"])
        return None if user is None or user.blocked else user

    def refused(
        self, request: Request, error: TenantRefusedError, user: User | None = None
    ) -> None:
        """Note it in the log; as the broker's client's, where it must reach the audit.

        Failures that strangers can cause have no person there.
        """
        broker = None
        if user is not None or isinstance(error, CounterError):
            broker = self._parts.clients.find(self._parts.run.client_id)
        self._parts.journal.sign_in_refused(request, error, user, broker)

    async def _sign_in(self, way: _Way, request: Request) -> Response:
        form = await page_form(request)
        try:
            user = await way(request, form)
        except TenantRefusedError as error:
            self.refused(request, error)
            return await self._show(request, problem_of(error))
        # A new value: whoever planted the one before is not signed in with it.
        cookie = secrets.token_urlsafe(32)
        store = self._parts.store
        now = row_time(store, self._parts.clock)
        store.change("DELETE FROM page_sessions WHERE expires_at < ?", now)
        store.insert(
            "page_sessions",
            cookie_hash=_key(request, cookie),
            sub=user.sub,
            expires_at=now + SESSION_SECONDS,
        )
        answer = back(request)
        _set_cookie(request, answer, cookie)
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
        cookie = request.cookies.get(_cookie_name(request), "")
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
        self._parts.store.delete("page_sessions", cookie_hash=_key(request))
        return back(request)


def cookie_of(request: Request) -> str:
    """Return the browser's cookie; empty without one."""
    return request.cookies.get(_cookie_name(request), "")


def where(request: Request) -> str:
    """Return the path of the page that a form belongs to."""
    stepup_id = request.path_params.get("id")
    return "/" if stepup_id is None else f"{PATH}/{visible(stepup_id, 80)}"


def back(request: Request) -> Response:
    """Send the browser to the page that a form belongs to."""
    return RedirectResponse(where(request), 303, {"cache-control": "no-store"})


def problem_of(error: TenantRefusedError) -> Problem:
    """Return a refusal as a page shows it."""
    return Problem(error.error, f"{error.what} {error.remedy}".strip())


def scripted(answer: Response) -> Response:
    """Let a page run our one script, which asks our own pages alone."""
    policy = answer.headers["content-security-policy"]
    more = "script-src 'self'; connect-src 'self'"
    answer.headers["content-security-policy"] = f"{policy}; {more}"
    return answer


async def script(_: Request) -> Response:
    """Return the script; its name changes with its content."""
    headers = {"cache-control": "max-age=31536000, immutable"}
    return Response(_SCRIPT, headers=headers, media_type="text/javascript")


def _is_secure(request: Request) -> bool:
    return request.url.scheme == "https"


def _cookie_name(request: Request) -> str:
    # Browsers take a Secure cookie, which the prefix demands, over TLS alone.
    return f"__Host-{_COOKIE}" if _is_secure(request) else _COOKIE


def _key(request: Request, cookie: str | None = None) -> str:
    """Return the store's name of a browser's session.

    Cookies do not separate ports: another server on localhost may be sent ours. So
    there a session is good for processes of one user of this machine alone.
    """
    cookie = cookie_of(request) if cookie is None else cookie
    client, server = request.client, request.scope.get("server")
    if _is_secure(request) or client is None or server is None:
        return sha256_hex(cookie)
    uid = tcp_user((client.host, client.port), (server[0], server[1]))
    return sha256_hex(f"uid {uid} {cookie}")


def _set_cookie(request: Request, answer: Response, cookie: str) -> None:
    # Lax: a link in a chat leads here with it. Every form's origin is checked.
    answer.set_cookie(
        _cookie_name(request),
        cookie,
        max_age=SESSION_SECONDS,
        path="/",
        secure=_is_secure(request),
        httponly=True,
        samesite="lax",
    )
