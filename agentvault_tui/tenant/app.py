"""Composes the tenant of one home: endpoints and pages behind one guard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from argon2 import PasswordHasher
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agentvault_tui.clock import Clock
from agentvault_tui.home import Home
from agentvault_tui.tenant.faults import FaultSwitch
from agentvault_tui.tenant.guesses import Guesses
from agentvault_tui.tenant.login.errands import Errands
from agentvault_tui.tenant.login.pages import PATH, LoginPages
from agentvault_tui.tenant.management.bodies import BODY_CAP as MANAGEMENT_BODY_CAP
from agentvault_tui.tenant.oauth.codes import CodeGrant
from agentvault_tui.tenant.oauth.wire import reply
from agentvault_tui.tenant.pages import Pages
from agentvault_tui.tenant.parts import Parts, Run
from agentvault_tui.tenant.routes import DEVICE_PATH, MANAGEMENT_PATH, apis, protocol
from agentvault_tui.tenant.sealing import Seal
from agentvault_tui.tenant.sessions import Sessions
from agentvault_tui.tenant.store import Store
from agentvault_tui.tenant.users import strong_hasher
from agentvault_tui.tenant.views import STYLE_PATH, Views, stylesheet
from agentvault_tui.web import BODY_CAP, App, Receive, RequestGuard, Scope, Send

HOST: Final = "127.0.0.1"
_DEVICE_BODY_CAP: Final = 8 * BODY_CAP
"""Room for whatever a broker can hold: what an agent sent it in one body comes here
as JSON in a form. "é", two bytes, is %5Cu00e9; 1e15 is 1000000000000000.0: up to four
and a half times as long, and then the agent's name, the policy's why, and the rest."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """An open tenant; the app serves until the store is closed."""

    app: App
    issuer: str
    run: Run
    faults: FaultSwitch
    store: Store

    @classmethod
    def open(
        cls,
        store: Store,
        home: Home,
        port: int,
        clock: Clock,
        *,
        run: Run,
        device_code_ttl: int,
        faults: FaultSwitch | None = None,
        hasher: PasswordHasher | None = None,
    ) -> Self:
        """Make the tenant of *home* that is reached at *port*.

        Args:
            store: the home's, which the caller closes.
            home: where the sealing key is kept.
            port: part of the issuer's name, and so of every token.
            clock: the time.
            run: what the broker decides for this run.
            device_code_ttl: how many seconds a code lives.
            faults: what goes wrong on purpose; by default nothing.
            hasher: argon2id, by default at full cost.

        Raises:
            TenantError: store or keys cannot be used.
        """
        issuer = f"http://{HOST}:{port}/"
        switch = faults or FaultSwitch()
        parts = Parts(
            store,
            Seal.of(home),
            clock,
            issuer,
            run=run,
            faults=switch,
            hasher=hasher or strong_hasher(),
        )
        views = Views(issuer)
        pages = Pages(parts, Sessions(clock), Guesses(clock), views)
        codes = CodeGrant(parts)
        login = LoginPages(parts, codes, Errands(Seal.of(home), clock), views)
        app = Starlette(
            routes=[
                *protocol(parts, codes, device_code_ttl),
                *apis(parts),
                *_pages(pages),
                *_login(login),
            ],
            exception_handlers={HTTPException: _http_error},
        )
        app.router.redirect_slashes = False
        hosts = frozenset({f"{HOST}:{port}".encode()})
        return cls(_guarded(switch.before(app), hosts), issuer, run, switch, store)


def _guarded(app: App, hosts: frozenset[bytes]) -> App:
    """Put the guard before *app*; few paths take large bodies."""
    usual = RequestGuard(app, hosts=hosts, navigable=True)
    device = RequestGuard(app, hosts=hosts, navigable=True, body_cap=_DEVICE_BODY_CAP)
    management = RequestGuard(app, hosts=hosts, body_cap=MANAGEMENT_BODY_CAP)

    async def by_path(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        guard = usual
        if path == DEVICE_PATH:
            guard = device
        elif path.startswith(MANAGEMENT_PATH):
            guard = management
        await guard(scope, receive, send)

    return by_path


def _pages(pages: Pages) -> list[Route]:
    async def style(_: Request) -> Response:
        return stylesheet()

    steps = {
        "continue": pages.go_on,
        "sign-in": pages.sign_in,
        "one-time-code": pages.one_time_code,
        "confirm": pages.confirm,
        "cancel": pages.cancel,
    }
    routes = [
        Route("/activate", pages.start),
        Route("/activate", pages.enter_code, methods=["POST"]),
        Route(STYLE_PATH, style),
    ]
    for name, submit in steps.items():
        routes.append(Route(f"/activate/{name}", submit, methods=["POST"]))
        routes.append(Route(f"/activate/{name}", pages.again))
    return routes


def _login(pages: LoginPages) -> list[Route]:
    return [
        Route("/authorize", pages.authorize),
        Route("/connected-accounts/connect", pages.connect),
        Route(f"{PATH}/login", pages.login, methods=["POST"]),
        Route(f"{PATH}/mfa", pages.one_time_code, methods=["POST"]),
        Route(f"{PATH}/consent", pages.consent, methods=["POST"]),
        Route(f"{PATH}/cancel", pages.cancel, methods=["POST"]),
    ]


async def _http_error(_: Request, error: Exception) -> Response:
    """Answer what no route takes in the envelope of everything else."""
    if not isinstance(error, HTTPException):
        raise error
    codes = {404: "not_found", 405: "method_not_allowed"}
    answer = reply(
        error.status_code, {"error": codes.get(error.status_code, "invalid_request")}
    )
    answer.headers.update(error.headers or {})
    return answer
