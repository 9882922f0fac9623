"""The Auth0 wire, client side: device flow, ID tokens, and what comes to use them.

A `Tenant` is how one is reached. `TenantClient` signs people in, `Management`
administers it (its calls are the modules of `vault.management`), `TokenVault`
exchanges tokens, `MyAccount` connects accounts. `wire` alone knows HTTP, and nobody
asks which product a tenant is.
"""

from agentvault_tui.vault.api import Api
from agentvault_tui.vault.budget import Budget, Priority
from agentvault_tui.vault.client import SCOPE, TenantClient
from agentvault_tui.vault.code_flow import (
    SignedIn,
    SigningIn,
    begin_sign_in,
    finish_sign_in,
)
from agentvault_tui.vault.credentials import (
    ClientSecret,
    PrivateKey,
    RegisteredClient,
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
from agentvault_tui.vault.my_account import ConnectedAccount, Connecting, MyAccount
from agentvault_tui.vault.reply import Json, Reply
from agentvault_tui.vault.retries import Patience
from agentvault_tui.vault.secret import Secret
from agentvault_tui.vault.tenant import Tenant
from agentvault_tui.vault.token_vault import Cause, NoToken, ProviderToken, TokenVault
from agentvault_tui.vault.tokens import (
    Access,
    ClientCredentials,
    FixedToken,
    RefreshedToken,
    TokenSource,
    revoke_token,
    still_taken,
)

__all__ = [
    "SCOPE",
    "Access",
    "Api",
    "Budget",
    "Cancelled",
    "Cause",
    "ClientCredentials",
    "ClientSecret",
    "ConnectedAccount",
    "Connecting",
    "Denied",
    "DeviceFlow",
    "End",
    "Expired",
    "Failed",
    "FixedToken",
    "Identity",
    "Json",
    "Management",
    "MyAccount",
    "NoToken",
    "Patience",
    "Pending",
    "Poll",
    "Priority",
    "PrivateKey",
    "ProviderToken",
    "RefreshedToken",
    "RegisteredClient",
    "Reply",
    "Secret",
    "SignedIn",
    "SigningIn",
    "SigningKey",
    "SlowDown",
    "Tenant",
    "TenantClient",
    "TokenSource",
    "TokenVault",
    "Tokens",
    "Unavailable",
    "begin_sign_in",
    "finish_sign_in",
    "is_approver",
    "path",
    "revoke_token",
    "still_taken",
]
