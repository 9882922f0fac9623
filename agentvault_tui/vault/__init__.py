"""The Auth0 wire, client side: device flow, ID tokens, and what comes to use them.

A `Tenant` is how one is reached; `TenantClient` signs people in; `Management`
administers it. `wire` alone knows HTTP, and nobody asks which product a tenant is.
"""

from agentvault_tui.vault.api import Api
from agentvault_tui.vault.budget import Budget, Priority
from agentvault_tui.vault.client import SCOPE, TenantClient
from agentvault_tui.vault.credentials import (
    ClientSecret,
    Credential,
    PrivateKey,
    PublicClient,
    SigningKey,
)
from agentvault_tui.vault.device import (
    Cancelled,
    Denied,
    DeviceFlow,
    End,
    Expired,
    Failed,
    Pending,
    Poll,
    SlowDown,
    Tokens,
    Unavailable,
)
from agentvault_tui.vault.identity import Identity, is_approver
from agentvault_tui.vault.issuer import path
from agentvault_tui.vault.management import Management
from agentvault_tui.vault.reply import Json, Reply
from agentvault_tui.vault.retries import Patience
from agentvault_tui.vault.secret import Secret
from agentvault_tui.vault.tenant import Tenant
from agentvault_tui.vault.tokens import (
    Access,
    ClientCredentials,
    FixedToken,
    RefreshedToken,
    TokenSource,
)

__all__ = [
    "SCOPE",
    "Access",
    "Api",
    "Budget",
    "Cancelled",
    "ClientCredentials",
    "ClientSecret",
    "Credential",
    "Denied",
    "DeviceFlow",
    "End",
    "Expired",
    "Failed",
    "FixedToken",
    "Identity",
    "Json",
    "Management",
    "Patience",
    "Pending",
    "Poll",
    "Priority",
    "PrivateKey",
    "PublicClient",
    "RefreshedToken",
    "Reply",
    "Secret",
    "SigningKey",
    "SlowDown",
    "Tenant",
    "TenantClient",
    "TokenSource",
    "Tokens",
    "Unavailable",
    "is_approver",
    "path",
]
