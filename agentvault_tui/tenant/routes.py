"""The endpoints of one tenant and their paths."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route

from agentvault_tui.model.extensions import EXTENSIONS_PATH
from agentvault_tui.tenant.clients import (
    AUTHORIZATION_CODE,
    CLIENT_CREDENTIALS,
    DEVICE_CODE,
    REFRESH_TOKEN,
    TOKEN_VAULT,
)
from agentvault_tui.tenant.management.actions import ActionCalls
from agentvault_tui.tenant.management.api import Endpoint, ManagementApi, Surface
from agentvault_tui.tenant.management.clients import ClientCalls
from agentvault_tui.tenant.management.connections import ConnectionCalls
from agentvault_tui.tenant.management.credentials import CredentialCalls
from agentvault_tui.tenant.management.grants import ClientGrantCalls, UserGrantCalls
from agentvault_tui.tenant.management.logs import LogCalls
from agentvault_tui.tenant.management.refresh_tokens import RefreshTokenCalls
from agentvault_tui.tenant.management.resource_servers import ApiCalls
from agentvault_tui.tenant.management.roles import RoleCalls
from agentvault_tui.tenant.management.sessions import SessionCalls
from agentvault_tui.tenant.management.settings import SettingsCalls
from agentvault_tui.tenant.management.tokensets import TokensetCalls
from agentvault_tui.tenant.management.users import UserCalls
from agentvault_tui.tenant.my_account import MyAccount
from agentvault_tui.tenant.oauth.codes import CodeGrant
from agentvault_tui.tenant.oauth.device import DeviceFlow
from agentvault_tui.tenant.oauth.endpoints import TokenEndpoint, UserInfo
from agentvault_tui.tenant.oauth.grants import Grant, MachineGrant, RefreshGrant
from agentvault_tui.tenant.oauth.metadata import discovery, extensions
from agentvault_tui.tenant.oauth.wire import reply
from agentvault_tui.tenant.parts import Parts
from agentvault_tui.tenant.vault.exchange import VaultGrant
from agentvault_tui.tenant.vault.provider_api import PATH as PROVIDER
from agentvault_tui.tenant.vault.provider_api import ProviderApi

DEVICE_PATH = "/oauth/device/code"
MANAGEMENT_PATH = "/api/v2"


def protocol(parts: Parts, codes: CodeGrant, device_code_ttl: int) -> list[BaseRoute]:
    """Return the Authentication API."""
    device = DeviceFlow(parts, device_code_ttl)
    grants = {
        AUTHORIZATION_CODE: Grant(codes, "seacft", "feacft"),
        DEVICE_CODE: Grant(device.poll, "sede", "fede"),
        CLIENT_CREDENTIALS: Grant(
            MachineGrant(parts.apis, parts.tokens), "seccft", "feccft"
        ),
        REFRESH_TOKEN: Grant(
            RefreshGrant(parts.apis, parts.tokens, parts.refresh, parts.people),
            "sertft",
            "fertft",
        ),
        TOKEN_VAULT: Grant(VaultGrant(parts), "seta", "feta"),
    }
    endpoint = TokenEndpoint(parts, grants)
    userinfo = UserInfo(parts.tokens, parts.access, parts.people, parts.apis.userinfo)
    return [
        *_documents(parts),
        Route(DEVICE_PATH, device.start, methods=["POST"]),
        Route("/oauth/token", endpoint.token, methods=["POST"]),
        Route("/oauth/revoke", endpoint.revoke, methods=["POST"]),
        Route("/userinfo", userinfo.answer, methods=["GET", "POST"]),
    ]


def apis(parts: Parts) -> list[BaseRoute]:
    """Return the tenant's own APIs, and what stands in for a provider."""
    management = ManagementApi(endpoints(parts), parts)
    account = MyAccount(parts)
    provider = ProviderApi(parts.provider)
    return [
        Mount(MANAGEMENT_PATH, management.app()),
        Mount("/me/v1", account.app()),
        Route(f"{PROVIDER}/tokeninfo", provider.token_info),
        Route(f"{PROVIDER}/revoke", provider.revoke, methods=["POST"]),
    ]


def endpoints(parts: Parts) -> list[Endpoint]:
    """Return every call of the Management API."""
    surfaces: list[Surface] = [
        ClientCalls(parts),
        CredentialCalls(parts.clients, parts.credentials, parts.clock),
        UserGrantCalls(parts.consents, parts.refresh, parts.apis),
        ClientGrantCalls(parts.apis, parts.clients),
        RefreshTokenCalls(parts.refresh, parts.apis.userinfo),
        UserCalls(parts),
        SessionCalls(parts.people, parts.refresh),
        ConnectionCalls(parts.connections, parts.clients),
        ApiCalls(parts.apis),
        ActionCalls(parts.store, parts.clock),
        RoleCalls(parts.store, parts.people),
        SettingsCalls(parts.settings),
        LogCalls(parts.journal),
        *([TokensetCalls(parts.people, parts.accounts)]
          if parts.run.legacy_tokensets else []),
    ]  # fmt: skip
    return [endpoint for surface in surfaces for endpoint in surface.endpoints()]


def _documents(parts: Parts) -> list[BaseRoute]:
    async def metadata(_: Request) -> Response:
        return reply(200, discovery(parts.issuer))

    async def more(_: Request) -> Response:
        return reply(200, extensions(parts.issuer))

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
