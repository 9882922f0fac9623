"""The claims our post-login Action sets, named once for all who write or read them."""

from __future__ import annotations

from typing import Final

MFA_AT: Final = "https://agentvault.dev/mfa_at"
"""When the second factor of this very sign-in was proved, in seconds since 1970.

Auth0's device flow gives no ``auth_time``, and an Action cannot set reserved names.
"""
ROLES: Final = "https://agentvault.dev/roles"
"""The person's roles: a list of ``viewer``, ``operator``, ``approver``."""

GROUPS: Final = ("groups", "https://agentvault.dev/groups")
"""The groups of the person: a list of names, or one. A tenant sets either of them."""

STEPUP: Final = "https://agentvault.dev/stepup"
"""The decided step-up and the decision: ``{"digest", "decision"}``, the decision
``approve``, ``deny``, or ``repeat`` with ``repeat``: they want to approve the next ones
like it too (null: only this one). Of the embedded tenant's approval page."""

EXTENSIONS_PATH: Final = "/agentvault/metadata"
"""Below the issuer. Auth0 has nothing there, and its own document has none of this."""
PASSKEY_COPIED: Final = "passkey_copied"
"""The embedded tenant's log entry for a passkey whose counter did not grow."""
OUTCOME_PATH: Final = "/oauth/device/outcome"
"""The embedded tenant gets the result of a step-up here, on loopback."""
CONFIRM_PATH: Final = "/oauth/device/confirm"
"""Where the broker sends the embedded tenant a one-time code that was typed at a
console, or the assertion of a security key there, on loopback."""
KEY_PATH: Final = "/oauth/device/key"
"""Where the broker asks the embedded tenant for a challenge for a security key at a
console, on loopback."""
SIGN_IN_FRESH_S: Final = 8 * 3600
"""Seconds for which a sign-in with both factors represents the password there."""
DETAILS_TYPES: Final = "authorization_details_types_supported"
"""Seconds for which a sign-in with both factors replaces the password there. Auth0 has
such details elsewhere, and not in this flow."""
