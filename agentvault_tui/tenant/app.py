"""The tenant's routes: its grants, Management API calls and pages, as one app."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Self

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route

from agentvault_tui.errors import AgentVaultError
from agentvault_tui.model.claims import (
    CONFIRM_PATH,
    DETAILS_TYPES,
    EXTENSIONS_PATH,
    KEY_PATH,
    OUTCOME_PATH,
)
from agentvault_tui.settings import StepUpSettings
from agentvault_tui.tenant import details
from agentvault_tui.tenant.activation import ActivationPages
from agentvault_tui.tenant.approve import ApprovalPages
from agentvault_tui.tenant.clients import (
    AUTHORIZATION_CODE,
    CLIENT_CREDENTIALS,
    DEVICE_CODE,
    REFRESH_TOKEN,
    TOKEN_VAULT,
)
from agentvault_tui.tenant.desk import DeskConfirmation
from agentvault_tui.tenant.login import PATH as LOGIN_PATH
from agentvault_tui.tenant.login import LoginPages
from agentvault_tui.tenant.management.api import ManagementApi, ManagementCall
from agentvault_tui.tenant.management.calls import CALLS
from agentvault_tui.tenant.management.wire import BODY_CAP as MANAGEMENT_BODY_CAP
from agentvault_tui.tenant.my_account import MyAccount
from agentvault_tui.tenant.oauth import grants as grant
from agentvault_tui.tenant.oauth.device import DeviceGrant
from agentvault_tui.tenant.oauth.grants import GrantType, OAuthEndpoints
from agentvault_tui.tenant.oauth.wire import AWAY, away, reply
from agentvault_tui.tenant.page_sessions import PATH as APPROVE_PATH
from agentvault_tui.tenant.parts import Parts
from agentvault_tui.tenant.passkeys import Passkeys
from agentvault_tui.tenant.registration import RegistrationPages
from agentvault_tui.tenant.views import Views
from agentvault_tui.web import BODY_CAP, App, Receive, RequestGuard, Scope, Send
from agentvault_tui.web.places import Limits
from agentvault_tui.web.reply import oauth_error
from agentvault_tui.web.strangers import StrangersGuard

DEVICE_PATH: Final = "/oauth/device/code"
MANAGEMENT_PATH: Final = "/api/v2"
_PAGES: Final = (
    *("/activate", f"{LOGIN_PATH}/", f"{APPROVE_PATH}/", "/passkey/"),
    *("/sign-in", "/passkey-sign-in"),
)
_DEVICE_BODY_CAP: Final = 8 * BODY_CAP
"""Room for the largest request of a broker: an agent's body comes here as JSON in a
form. "é", two bytes, is %5Cu00e9; 1e15 is 1000000000000000.0: up to four and a half
times as long, and then the agent's name, the policy's why, and the rest."""


@dataclass(slots=True, eq=False)
class Surface:
    """The routes of one tenant, open to additions until it is an app."""

    parts: Parts
    grants: dict[str, GrantType]
    calls: list[ManagementCall]
    routes: list[BaseRoute]
    local: list[Route]
    """On loopback alone, as the Management API is."""

    @classmethod
    def of(cls, parts: Parts, settings: StepUpSettings) -> Self:
        """Return the routes of an embedded tenant."""
        device = DeviceGrant(parts, settings.device_code_ttl)
        views = Views(parts.issuer)
        grants = {
            AUTHORIZATION_CODE: GrantType(grant.authorization_code, "seacft", "feacft"),
            DEVICE_CODE: GrantType(device.poll, "sede", "fede"),
            CLIENT_CREDENTIALS: GrantType(grant.client_credentials, "seccft", "feccft"),
            REFRESH_TOKEN: GrantType(grant.refresh_token, "sertft", "fertft"),
            TOKEN_VAULT: GrantType(grant.token_vault, "seta", "feta"),
        }
        routes: list[BaseRoute] = [
            *_documents(parts),
            Route(DEVICE_PATH, device.start, methods=["POST"]),
            *ActivationPages(parts, views).routes(),
            *LoginPages(parts, views).routes(),
            *parts.provider.routes(),
            Mount("/me/v1", MyAccount(parts).app()),
        ]
        keys = None
        if parts.pages is not None:
            keys = Passkeys(parts.store, parts.seal, parts.clock, parts.pages)
            routes += ApprovalPages(parts, views, keys, settings).routes()
            if keys.usable:
                routes += RegistrationPages(parts, views, keys).routes()
        desk = DeskConfirmation(parts, settings, keys)
        local = [
            Route(OUTCOME_PATH, device.outcome, methods=["POST"]),
            Route(CONFIRM_PATH, desk.confirm, methods=["POST"]),
            Route(KEY_PATH, desk.challenge, methods=["POST"]),
        ]
        return cls(parts, grants, list(CALLS), routes, local)

    def app(self) -> App:
        """Return the app for loopback, behind its guard, until the store is closed.

        The broker names the issuer's host there, and this machine's people loopback's.
        """
        management = Mount(MANAGEMENT_PATH, ManagementApi(self.parts, self.calls).app())
        urls = {self.parts.local, self.parts.issuer}
        if self.parts.pages is not None:
            urls.add(self.parts.pages.url)
        return self._guarded([management, *self.local], urls)

    def public_app(self) -> App:
        """Return the app for phones: the same without the Management API."""
        return self._guarded([], {self.parts.issuer})

    def _guarded(self, more: list[BaseRoute], urls: set[str]) -> App:
        endpoint = OAuthEndpoints(self.parts, self.grants)
        app = Starlette(
            routes=[
                Route("/oauth/token", endpoint.token, methods=["POST"]),
                Route("/oauth/revoke", endpoint.revoke, methods=["POST"]),
                Route("/userinfo", endpoint.user_info, methods=["GET", "POST"]),
                *more,
                *self.routes,
            ],
            exception_handlers={HTTPException: _http_error, **AWAY},
        )
        app.router.redirect_slashes = False
        guarded = _guarded(app, frozenset(url.split("/")[2].encode() for url in urls))
        return StrangersGuard(guarded, Limits().connections, _waits, oauth_error)


class Opening:
    """A tenant that is made once its store is there, and answers 503 until then."""

    def __init__(
        self, make: Callable[[], Surface], keys: Callable[[], Hashable] = lambda: None
    ) -> None:
        """Serve the result of *make* once there is a key to open it with.

        It is made again once *keys* returns something else.
        """
        self._keys = keys
        self._made: Final = lru_cache(maxsize=1)(lambda _: make())

    def surface(self) -> Surface:
        """Return the routes, with the keys that are there now."""
        return self._made(self._keys())

    def app(self, served: Callable[[Surface], App]) -> App:
        """Return the app that *served* makes of the tenant, at the first request."""
        made = lru_cache(maxsize=1)(served)

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                app = made(self.surface())
            except AgentVaultError as error:
                app = await away(Request(scope, receive), error)
            await app(scope, receive, send)

        return answer


def is_urgent(scope: Scope) -> bool:
    """Check whether a request denies something: such have connections of their own."""
    path: str = scope["path"]
    denies = path.startswith(APPROVE_PATH) and path.endswith(("/deny", "/stop"))
    return scope["method"] == "POST" and (denies or path == "/activate/cancel")


def _waits(scope: Scope) -> bool:
    """Check whether anybody may send a request that may wait.

    A factor is checked in turn, and a device code is stored.
    """
    path: str = scope["path"]
    return (
        scope["method"] == "POST"
        and (path == DEVICE_PATH or path.startswith(_PAGES))
        and not is_urgent(scope)
    )


def _guarded(app: App, hosts: frozenset[bytes]) -> App:
    """Put the request guard before *app*; two paths take larger bodies."""
    usual = RequestGuard(app, hosts=hosts, navigable=True)
    device = RequestGuard(app, hosts=hosts, navigable=True, body_cap=_DEVICE_BODY_CAP)
    management = RequestGuard(app, hosts=hosts, body_cap=MANAGEMENT_BODY_CAP)

    async def by_path(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        guard = usual
        if path in {DEVICE_PATH, OUTCOME_PATH}:
            guard = device
        elif path.startswith(MANAGEMENT_PATH):
            guard = management
        await guard(scope, receive, send)

    return by_path


def _documents(parts: Parts) -> list[BaseRoute]:
    async def metadata(_: Request) -> Response:
        return reply(200, discovery(parts.issuer))

    async def more(_: Request) -> Response:
        """Return the embedded tenant's own metadata, at a path that Auth0 lacks."""
        metadata = {
            "issuer": parts.issuer,
            "kind": "embedded",
            DETAILS_TYPES: [details.TYPE],
            "workspace_authorization_server": f"{parts.issuer}agentvault/workspace",
        }
        return reply(200, metadata)

    async def jwks(_: Request) -> Response:
        answer = reply(200, parts.keys.public())
        answer.headers["cache-control"] = "public, max-age=300"
        return answer

    return [
        Route("/.well-known/openid-configuration", metadata),
        Route("/.well-known/oauth-authorization-server", metadata),
        Route("/.well-known/jwks.json", jwks),
        Route(EXTENSIONS_PATH, more),
    ]


async def _http_error(_: Request, error: Exception) -> Response:
    """Answer an unknown path or method as JSON."""
    if not isinstance(error, HTTPException):
        raise error
    codes = {404: "not_found", 405: "method_not_allowed"}
    answer = reply(
        error.status_code, {"error": codes.get(error.status_code, "invalid_request")}
    )
    answer.headers.update(error.headers or {})
    return answer


def discovery(issuer: str) -> dict[str, object]:
    """Return the provider metadata (RFC 8414 section 2): the served routes, no more."""
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}authorize",
        "token_endpoint": f"{issuer}oauth/token",
        "device_authorization_endpoint": f"{issuer}oauth/device/code",
        "userinfo_endpoint": f"{issuer}userinfo",
        "jwks_uri": f"{issuer}.well-known/jwks.json",
        "revocation_endpoint": f"{issuer}oauth/revoke",
        "scopes_supported": ["openid", "profile", "email", "offline_access"],
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": [
            AUTHORIZATION_CODE, CLIENT_CREDENTIALS, DEVICE_CODE, REFRESH_TOKEN,
            TOKEN_VAULT,
        ],
        "code_challenge_methods_supported": ["S256"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "token_endpoint_auth_methods_supported": [
            "client_secret_basic", "client_secret_post", "none",
        ],
        "claims_supported": [
            "aud", "auth_time", "email", "email_verified", "exp", "iat", "iss", "name",
            "nickname", "sub",
        ],
    }  # fmt: skip
