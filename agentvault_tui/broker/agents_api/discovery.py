"""What the broker says about itself (RFC 8414): nothing it does not do."""

from __future__ import annotations

from typing import Any, Final

from agentvault_tui.broker.agents_api.assertion import ALGORITHMS
from agentvault_tui.broker.agents_api.client_auth import METHODS
from agentvault_tui.model import DETAIL_TYPE
from agentvault_tui.policy.catalogue import Catalogue
from agentvault_tui.vault.credentials import VAULT_GRANT

CLIENT_CREDENTIALS: Final = "client_credentials"
CIBA: Final = "urn:openid:params:grant-type:ciba"
AUTHORIZE: Final = "/authorize"
TOKEN: Final = "/oauth/token"  # noqa: S105 - a path
INTROSPECT: Final = "/oauth/introspect"
REVOKE: Final = "/oauth/revoke"
BACKCHANNEL: Final = "/bc-authorize"
NO_RESPONSE: Final = "none"
"""OAuth 2.0 Multiple Response Type Encoding Practices, section 4."""


def metadata(issuer: str, catalogue: Catalogue, *, vault: bool) -> dict[str, Any]:
    """Return the metadata of the authorization server at *issuer*.

    With *vault* there are connections whose tokens can be exchanged for.
    There is no ``jwks_uri``: tokens are opaque, so nothing is signed.

    No client may use the authorization endpoint. It is named because MCP's official
    client takes no metadata without one; RFC 8414 section 2 then wants response types,
    and section 3.2 no empty list. ``none`` is the registered one that gives nothing.
    """
    metadata: dict[str, Any] = {
        "issuer": issuer,
        "authorization_endpoint": issuer + AUTHORIZE,
        "token_endpoint": issuer + TOKEN,
        "introspection_endpoint": issuer + INTROSPECT,
        "revocation_endpoint": issuer + REVOKE,
        "backchannel_authentication_endpoint": issuer + BACKCHANNEL,
        "backchannel_token_delivery_modes_supported": ["poll"],
        "backchannel_user_code_parameter_supported": False,
        "grant_types_supported": [
            CLIENT_CREDENTIALS,
            CIBA,
            *([VAULT_GRANT] if vault else ()),
        ],
        "response_types_supported": [NO_RESPONSE],
        "scopes_supported": [scope.name for scope in catalogue],
        "authorization_details_types_supported": [DETAIL_TYPE],
    }
    for endpoint in ("token", "introspection", "revocation"):
        name = f"{endpoint}_endpoint_auth"
        metadata[f"{name}_methods_supported"] = list(METHODS)
        metadata[f"{name}_signing_alg_values_supported"] = list(ALGORITHMS)
    return metadata
