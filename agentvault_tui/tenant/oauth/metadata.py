"""The tenant's metadata: OpenID Connect Discovery, RFC 8414, and its extensions."""

from __future__ import annotations

from typing import Any

from agentvault_tui.model.claims import DETAILS_TYPES
from agentvault_tui.tenant import details
from agentvault_tui.tenant.clients import (
    AUTHORIZATION_CODE,
    CLIENT_CREDENTIALS,
    DEVICE_CODE,
    REFRESH_TOKEN,
    TOKEN_VAULT,
)


def discovery(issuer: str) -> dict[str, Any]:
    """Return the provider metadata (RFC 8414 section 2): what is served, no more."""
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


def extensions(issuer: str) -> dict[str, Any]:
    """Return what only the embedded tenant has, at a path that Auth0 does not have."""
    return {
        "issuer": issuer,
        "kind": "embedded",
        DETAILS_TYPES: [details.TYPE],
        "workspace_authorization_server": f"{issuer}agentvault/workspace",
    }
