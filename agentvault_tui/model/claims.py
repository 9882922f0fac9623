"""The names of our own claims, as the tenant sets them and everyone reads them."""

from __future__ import annotations

from typing import Final

MFA_AT: Final = "https://agentvault.dev/mfa_at"
"""When the person used their second factor, in epoch seconds."""
ROLES: Final = "https://agentvault.dev/roles"
"""Which of ``viewer``, ``operator`` and ``approver`` the person is."""
