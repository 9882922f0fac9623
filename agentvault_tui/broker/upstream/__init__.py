"""What a revocation still has to do elsewhere, durable, and told as it stands.

`steps` is what is done at the tenant and in which order, `outbox` does it until it is
confirmed or given up, `access` is what an agent has there and the credential to change
it, `tenant_log` brings the tenant's own log into the audit, `providers` revokes at the
provider what was handed out.
"""

from agentvault_tui.broker.upstream.access import TenantAccess
from agentvault_tui.broker.upstream.outbox import Outbox
from agentvault_tui.broker.upstream.providers import ProviderAccounts, Providers
from agentvault_tui.broker.upstream.tenant_log import TenantLog

__all__ = [
    "Outbox",
    "ProviderAccounts",
    "Providers",
    "TenantAccess",
    "TenantLog",
]
