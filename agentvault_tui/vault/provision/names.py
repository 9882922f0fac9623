"""The names of AgentVault's objects on a tenant, in one place."""

from __future__ import annotations

from typing import Final

MARK: Final = "agentvault"
"""The key in a client's metadata by which we know our own, whatever its name."""
MARK_AGENT: Final = "agentvault_agent"
"""The key in a client's metadata with the agent's id."""
CONSOLE: Final = "console"
MANAGEMENT: Final = "management"
AGENT: Final = "agent"

ROLE_PREFIX: Final = "agentvault-"
"""Before a role's name, so that another application's "operator" is none of ours."""
ROLES: Final = {
    "viewer": "Sees AgentVault's console, and decides nothing.",
    "operator": "May deny and revoke in AgentVault's console.",
    "approver": "May approve step-ups in AgentVault, with a second factor each time.",
}
APPROVER: Final = "approver"

FACTORS: Final = ("otp", "webauthn-roaming", "webauthn-platform")
"""Second factors that prove presence; the Actions ask for these alone."""

CALLBACK: Final = "http://127.0.0.1:7719/callback"
"""Where a browser comes back to when an account is connected for an agent.

The port is fixed because Auth0 compares a confidential client's callbacks whole.
"""
WORKER: Final = "token_vault_privileged_access"
"""The member of a client that lets it exchange without a signed-in user."""
