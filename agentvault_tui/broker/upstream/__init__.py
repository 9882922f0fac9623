"""The slower half of a revocation: elsewhere, durable, and told as it is.

`steps` is what is done there and in which order, `outbox` does it until it is
confirmed or given up, `holdings` is what an agent has at the tenant, `access` the
credential to change it, `tenant_log` brings the tenant's own log into the audit.
`providers` revokes what was handed out at the provider itself, `outlook` says where
that can be, and whom else it would cut off.
"""

from agentvault_tui.broker.upstream.access import TenantAccess
from agentvault_tui.broker.upstream.attempts import Attempts
from agentvault_tui.broker.upstream.holdings import Account, Holding, Holdings
from agentvault_tui.broker.upstream.outbox import Outbox
from agentvault_tui.broker.upstream.outlook import Outlook
from agentvault_tui.broker.upstream.providers import Providers
from agentvault_tui.broker.upstream.tenant_log import TenantLog

__all__ = [
    "Account",
    "Attempts",
    "Holding",
    "Holdings",
    "Outbox",
    "Outlook",
    "Providers",
    "TenantAccess",
    "TenantLog",
]
