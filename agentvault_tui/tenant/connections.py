"""Connections: where users sign in, and the providers whose tokens the vault keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from agentvault_tui.model import new_id
from agentvault_tui.tenant.clients import Client
from agentvault_tui.tenant.objects import Document, Objects
from agentvault_tui.tenant.people import CONNECTION
from agentvault_tui.tenant.store import Store

WORKSPACE: Final = "workspace"
_SEEDED: Final = "connections_seeded"
_LIFETIME: Final = 600
"""Seconds that the built-in provider's access tokens live, unless its options say."""
_LONGEST: Final = 86_400


class Connections:
    """The connections of one store; the tenant itself is each one's provider."""

    def __init__(self, store: Store) -> None:
        self.objects = Objects(store, "connection")
        if store.fact(_SEEDED) is None:
            with store.transaction():
                self.add({"name": CONNECTION, "strategy": "auth0"})
                self.add(
                    {
                        "name": WORKSPACE,
                        "strategy": "oauth2",
                        "display_name": "Workspace",
                        "options": {"token_lifetime": _LIFETIME},
                        "connected_accounts": {"active": True},
                    }
                )
                store.remember(_SEEDED, 1)

    def add(self, doc: Mapping[str, Any]) -> Document:
        """Keep a new connection.

        Raises:
            ConflictError: there is one of that name.
        """
        made: Document = {
            "id": new_id("con"),
            "options": {},
            "enabled_clients": [],
            "is_domain_connection": False,
            "realms": [doc["name"]],
            "connected_accounts": {"active": False},
            **doc,
        }
        self.objects.add(made["id"], made["name"], made)
        return made

    def for_vault(self, name: str, client: Client) -> Document | None:
        """Return the connection if the vault may be used through it by *client*."""
        doc = self.objects.named(name)
        if doc is None or not doc["connected_accounts"].get("active"):
            return None
        return doc if client.client_id in doc["enabled_clients"] else None

    @staticmethod
    def token_lifetime(doc: Document) -> float:
        """Return how long the provider's access tokens live, in seconds."""
        said = doc["options"].get("token_lifetime")
        whole = isinstance(said, int) and not isinstance(said, bool)
        return float(said) if whole and 0 < said <= _LONGEST else float(_LIFETIME)
