"""The Auth0 wire, client side: device flow, ID tokens, and what comes to use them.

`wire` is HTTP, `discovery` what the tenant publishes, `client` what the broker calls.
"""

from agentvault_tui.vault.client import SCOPE, TenantClient
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

__all__ = [
    "SCOPE",
    "Cancelled",
    "Denied",
    "DeviceFlow",
    "End",
    "Expired",
    "Failed",
    "Identity",
    "Pending",
    "Poll",
    "SlowDown",
    "TenantClient",
    "Tokens",
    "Unavailable",
    "is_approver",
]
