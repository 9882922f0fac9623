"""The remaining steps of a revocation elsewhere, durable, with their state.

`steps` has the tenant's steps and their order, `outbox` does them until they are
confirmed or given up, `access` has an agent's rights there and the credential to change
them, `tenant_log` brings the tenant's own log into the audit, `providers` revokes
issued tokens at the provider, `reaching` makes them all.
"""

from agentvault_tui.broker.upstream.access import TenantAccess
from agentvault_tui.broker.upstream.outbox import Outbox
from agentvault_tui.broker.upstream.providers import ProviderAccounts, Providers
from agentvault_tui.broker.upstream.reaching import Reaching
from agentvault_tui.broker.upstream.tenant_log import TenantLog

__all__ = [
    "Outbox",
    "ProviderAccounts",
    "Providers",
    "Reaching",
    "TenantAccess",
    "TenantLog",
]
