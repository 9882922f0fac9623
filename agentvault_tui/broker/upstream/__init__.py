"""The slower half of a revocation: at the tenant, durable, and told as it is.

`steps` is what is done there and in which order, `outbox` does it until it is
confirmed or given up, `holdings` is what an agent has at the tenant, `access` the
credential to change it, `tenant_log` brings the tenant's own log into the audit.
"""

from agentvault_tui.broker.upstream.access import TenantAccess
from agentvault_tui.broker.upstream.holdings import Account, Holding, Holdings
from agentvault_tui.broker.upstream.outbox import Outbox
from agentvault_tui.broker.upstream.tenant_log import TenantLog

__all__ = ["Account", "Holding", "Holdings", "Outbox", "TenantAccess", "TenantLog"]
