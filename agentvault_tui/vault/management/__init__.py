"""Auth0's Management API: one client, and a module of calls for each kind of object.

Every call is a function whose first argument is the client; it has Auth0's statuses,
names the scope it needs, and returns what the tenant sent without secrets in it.
"""

from agentvault_tui.vault.management.management import Management, audience

__all__ = ["Management", "audience"]
