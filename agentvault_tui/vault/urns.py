"""The identifiers OAuth and Auth0 give to grants and kinds of token."""

from __future__ import annotations

from typing import Final

DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
"""RFC 8628 section 3.4."""
VAULT_GRANT: Final = (
    "urn:auth0:params:oauth:grant-type:token-exchange:federated-connection-access-token"
)
"""Token Vault: a token of the user's for another provider's API."""
TYPE_REFRESH: Final = "urn:ietf:params:oauth:token-type:refresh_token"
"""RFC 8693 section 3."""
TYPE_PROVIDER: Final = (
    "http://auth0.com/oauth/token-type/federated-connection-access-token"
)
"""What an exchange gives; http, for it is a name and no address."""
