"""The scopes of the Management API."""

from __future__ import annotations

from typing import Final

_ALL_VERBS: Final = (
    "client_grants", "clients", "connections", "resource_servers", "users",
    "actions", "client_credentials", "roles",
)  # fmt: skip
SCOPES: Final = (
    *(f"{verb}:{what}" for what in _ALL_VERBS
      for verb in ("create", "read", "update", "delete")),
    "read:client_keys", "update:client_keys",
    "update:client_token_vault_privileged_access",
    "read:grants", "delete:grants",
    "read:refresh_tokens", "delete:refresh_tokens",
    "read:federated_connections_tokens", "delete:federated_connections_tokens",
    "read:device_credentials", "delete:device_credentials",
    "read:sessions", "delete:sessions",
    "read:guardian_factors", "update:guardian_factors",
    "read:mfa_policies", "update:mfa_policies",
    "read:tenant_settings", "update:tenant_settings",
    "read:prompts",
    "read:logs", "read:logs_users",
)  # fmt: skip
