"""The Auth0 wire, client side: device flow, ID tokens, and their uses.

A `Tenant` is how one is reached. `TenantClient` signs people in, `Management`
administers it (its calls are the modules of `vault.management`), `TokenVault` exchanges
tokens, `MyAccountApi` connects accounts. `wire` alone knows HTTP, and the code never
asks for the product of a tenant.
"""

from agentvault_tui.vault.budget import Budget, Priority
from agentvault_tui.vault.client import TenantClient
from agentvault_tui.vault.code_flow import SigningIn, begin_sign_in, finish_sign_in
from agentvault_tui.vault.credentials import (
    ClientSecret,
    PrivateKey,
    RegisteredClient,
    Secret,
    SigningKey,
)
from agentvault_tui.vault.device import (
    DeviceFlow,
    FlowDenied,
    FlowExpired,
    FlowFailed,
    FlowTokens,
)
from agentvault_tui.vault.identity import Identity, is_approver
from agentvault_tui.vault.management import Management
from agentvault_tui.vault.my_account import (
    ConnectedAccount,
    MyAccountApi,
    PendingConnection,
)
from agentvault_tui.vault.tenant import Tenant
from agentvault_tui.vault.token_vault import Cause, NoToken, ProviderToken, TokenVault
from agentvault_tui.vault.tokens import (
    AccessToken,
    FixedToken,
    RefreshedToken,
    TokenSource,
    probe_refresh_token,
    revoke_token,
)

__all__ = [
    "AccessToken",
    "Budget",
    "Cause",
    "ClientSecret",
    "ConnectedAccount",
    "DeviceFlow",
    "FixedToken",
    "FlowDenied",
    "FlowExpired",
    "FlowFailed",
    "FlowTokens",
    "Identity",
    "Management",
    "MyAccountApi",
    "NoToken",
    "PendingConnection",
    "Priority",
    "PrivateKey",
    "ProviderToken",
    "RefreshedToken",
    "RegisteredClient",
    "Secret",
    "SigningIn",
    "SigningKey",
    "Tenant",
    "TenantClient",
    "TokenSource",
    "TokenVault",
    "begin_sign_in",
    "finish_sign_in",
    "is_approver",
    "probe_refresh_token",
    "revoke_token",
]
