"""The applications AgentVault needs on a tenant, field by field, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from agentvault_tui.text import visible
from agentvault_tui.vault.provision import names
from agentvault_tui.vault.provision.needs import AgentNeed, Needs, Systems
from agentvault_tui.vault.provision.rules import AtLeast, Is, Rule, SameSet
from agentvault_tui.vault.urns import DEVICE_GRANT, VAULT_GRANT

_NAME: Final = 80


@dataclass(frozen=True, slots=True)
class Application:
    """One client of ours: its name, and what must be true of it."""

    key: str
    name: str
    fields: Mapping[str, Rule]


def console() -> Application:
    """Return the console's client: public, for the device flow and nothing else.

    Auth0 gives the device flow to native applications without a secret alone, and
    Token Vault to confidential ones alone, so no client can be both.
    """
    return Application(
        "console",
        "AgentVault console",
        {
            **_ours("AgentVault console", names.CONSOLE, "none"),
            "app_type": Is("native"),
            "grant_types": SameSet((DEVICE_GRANT,)),
            "known": Is(True),
        },
    )


def management() -> Application:
    """Return the client by which the broker revokes and reads the tenant's log."""
    return Application(
        "management",
        "AgentVault management",
        {
            **_ours("AgentVault management", names.MANAGEMENT, "client_secret_post"),
            "app_type": Is("non_interactive"),
            "grant_types": SameSet(("client_credentials",)),
            "kept": Is(True),
        },
    )


def agent(one: AgentNeed, needs: Needs, systems: Systems) -> Application:
    """Return the confidential client by which the broker exchanges for one agent."""
    name = f"AgentVault agent {_plain(one.name)}"
    fields: dict[str, Rule] = {
        **_ours(name, names.AGENT, "client_secret_post"),
        f"client_metadata.{names.MARK_AGENT}": Is(one.id),
        "app_type": Is("regular_web"),
        "grant_types": SameSet(("authorization_code", "refresh_token", VAULT_GRANT)),
        "callbacks": AtLeast((names.CALLBACK,)),
        # A rotating token is spent by the first exchange; Token Vault refuses it.
        "refresh_token.rotation_type": Is("non-rotating"),
        "refresh_token.expiration_type": Is("non-expiring"),
        "kept": Is(True),
    }
    if systems.my_account:
        # Without this policy no refresh token becomes one for the My Account API.
        policy = {
            "audience": systems.my_account,
            "scope": list(names.CONNECTED_ACCOUNTS),
        }
        fields["refresh_token.policies"] = AtLeast((policy,), key="audience")
    if one.pins:
        fields[f"{names.WORKER}.ip_allowlist"] = SameSet(needs.worker_ips)
        fields[f"{names.WORKER}.grants"] = SameSet(
            tuple(
                {"connection": pin.connection, "scopes": sorted(pin.scopes)}
                for pin in one.pins
            )
        )
        fields["worker_key"] = Is(True)
    return Application(f"agents/{one.id}", name, fields)


def _ours(name: str, mark: str, method: str) -> dict[str, Rule]:
    """Return what every client of ours has in common."""
    return {
        "name": Is(name),
        f"client_metadata.{names.MARK}": Is(mark),
        "is_first_party": Is(True),
        # Clients made through the Management API are not, unless they say so.
        "oidc_conformant": Is(True),
        "token_endpoint_auth_method": Is(method),
        "jwt_configuration.alg": Is("RS256"),
    }


def _plain(name: str) -> str:
    """Make an agent's name one Auth0 takes: it refuses angle brackets."""
    return visible(name, _NAME, ascii_only=True).translate({60: "(", 62: ")"})
