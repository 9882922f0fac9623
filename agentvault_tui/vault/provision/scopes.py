"""Which rights of the Management API provisioning takes, and which are lacking."""

from __future__ import annotations

from typing import Final

from agentvault_tui.vault.provision.needs import Needs

READING: Final = (
    "read:actions",
    "read:client_grants",
    "read:clients",
    "read:connections",
    "read:guardian_factors",
    "read:mfa_policies",
    "read:prompts",
    "read:resource_servers",
    "read:roles",
    "read:tenant_settings",
)
"""What plan and doctor take."""
_WRITING: Final = (
    "create:actions",
    "create:client_grants",
    "create:clients",
    "create:roles",
    "delete:client_grants",
    "update:actions",
    "update:client_grants",
    "update:client_keys",
    "update:clients",
    "update:connections",
    "update:guardian_factors",
    "update:roles",
    "update:tenant_settings",
)
_REMOVAL: Final = ("delete:clients", "delete:resource_servers")
_WORKERS: Final = (
    "create:client_credentials",
    "read:client_credentials",
    "update:client_token_vault_privileged_access",
)


def reading(needs: Needs) -> tuple[str, ...]:
    """Return the scopes that plan and doctor take."""
    workers = any(agent.pins for agent in needs.agents)
    return (*READING, *(["read:client_credentials"] if workers else []))


def writing(needs: Needs) -> tuple[str, ...]:
    """Return the scopes that apply takes on top, and no more."""
    workers = any(agent.pins for agent in needs.agents)
    policy = ["update:mfa_policies"] if needs.change_mfa_policy else []
    removal = _REMOVAL if needs.remove_unused else ()
    return (*_WRITING, *(_WORKERS if workers else ()), *policy, *removal)


def lacking(wanted: tuple[str, ...], held: frozenset[str]) -> tuple[str, ...]:
    """Return each scope of *wanted* that is not *held*.

    A tenant that does not say what it gave is not guessed at: nothing is lacking,
    and the call that needs a scope names it.
    """
    if not held:
        return ()
    return tuple(sorted({scope for scope in wanted if scope not in held}))
