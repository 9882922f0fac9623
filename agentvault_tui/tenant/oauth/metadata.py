"""What the tenant says about itself (OpenID Connect Discovery), in Auth0's words."""

from __future__ import annotations

from typing import Any, Final

from agentvault_tui.model.extensions import DETAILS_TYPES
from agentvault_tui.tenant import details

INBOX: Final = "/agentvault/inbox"
"""Where people find what Auth0 would have mailed them."""


def discovery(issuer: str) -> dict[str, Any]:
    """Return the document with the members Auth0's has, and no other.

    Like Auth0's it lists no ``none`` among the authentication methods, although native
    clients have no secret, no grant types, and no introspection. Endpoints that this
    tenant does not serve are named as well, and answer as at a tenant where the feature
    is not switched on.
    """
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}authorize",
        "token_endpoint": f"{issuer}oauth/token",
        "device_authorization_endpoint": f"{issuer}oauth/device/code",
        "userinfo_endpoint": f"{issuer}userinfo",
        "mfa_challenge_endpoint": f"{issuer}mfa/challenge",
        "jwks_uri": f"{issuer}.well-known/jwks.json",
        "registration_endpoint": f"{issuer}oidc/register",
        "revocation_endpoint": f"{issuer}oauth/revoke",
        "end_session_endpoint": f"{issuer}oidc/logout",
        "backchannel_authentication_endpoint": f"{issuer}bc-authorize",
        "backchannel_token_delivery_modes_supported": ["poll"],
        "global_token_revocation_endpoint": (
            f"{issuer}oauth/global-token-revocation/connection/{{connectionName}}"
        ),
        "global_token_revocation_endpoint_auth_methods_supported": [
            "global-token-revocation+jwt"
        ],
        "scopes_supported": [
            "openid", "profile", "offline_access", "name", "given_name", "family_name",
            "nickname", "email", "email_verified", "picture", "created_at",
            "identities", "phone", "address",
        ],
        "response_types_supported": [
            "code", "token", "id_token", "code token", "code id_token",
            "token id_token", "code token id_token",
        ],
        "response_modes_supported": ["query", "fragment", "form_post"],
        "code_challenge_methods_supported": ["S256", "plain"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["HS256", "RS256", "PS256"],
        "token_endpoint_auth_methods_supported": [
            "client_secret_basic", "client_secret_post", "private_key_jwt",
            "tls_client_auth", "self_signed_tls_client_auth",
        ],
        "token_endpoint_auth_signing_alg_values_supported": [
            "RS256", "RS384", "PS256",
        ],
        "claims_supported": [
            "aud", "auth_time", "created_at", "email", "email_verified", "exp",
            "family_name", "given_name", "iat", "identities", "iss", "name",
            "nickname", "phone_number", "picture", "sub",
        ],
        "request_uri_parameter_supported": False,
        "request_parameter_supported": True,
        "tls_client_certificate_bound_access_tokens": True,
        "backchannel_logout_supported": True,
    }  # fmt: skip


def extensions(issuer: str) -> dict[str, Any]:
    """Return what is here and is not Auth0's, at a place that is not Auth0's either."""
    return {
        "issuer": issuer,
        "kind": "embedded",
        DETAILS_TYPES: [details.TYPE],
        "inbox": f"{issuer}{INBOX.lstrip('/')}",
        "workspace_authorization_server": f"{issuer}agentvault/workspace",
    }
