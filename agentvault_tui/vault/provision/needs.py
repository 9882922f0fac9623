"""What a vault needs from a tenant, plain data, and what keeps its secrets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from agentvault_tui.vault.secret import Secret


@dataclass(frozen=True, slots=True)
class Pin:
    """A connection, and the provider's scopes an agent may use there at most."""

    connection: str
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AgentNeed:
    """An agent that is served; its name is untrusted text."""

    id: str
    name: str
    pins: tuple[Pin, ...] = ()
    """With any: it uses Token Vault as a privileged worker, held to these."""


@dataclass(frozen=True, slots=True)
class Needs:
    """Everything the desired state depends on besides the tenant itself."""

    agents: tuple[AgentNeed, ...] = ()
    connections: tuple[str, ...] = ()
    """Connections whose accounts agents may use through Token Vault."""
    sign_in: tuple[str, ...] = ()
    """Connections by which operators sign in."""
    worker_ips: tuple[str, ...] = ()
    """Addresses from which privileged workers may exchange."""
    client_id: str = ""
    """The console's client where one is named already."""
    change_mfa_policy: bool = False
    """Whether the policy of the whole tenant may be changed."""
    remove_unused: bool = False
    """Whether what earlier versions made, and nothing uses, may be deleted."""


@dataclass(frozen=True, slots=True)
class Systems:
    """Auth0's own APIs on this tenant, as it lists them."""

    management: str
    """Identifier of the Management API."""
    offered: frozenset[str]
    """The scopes it has; empty when the tenant does not say."""
    my_account: str = ""
    """Identifier of the My Account API; empty until it is activated."""


class Keeper(Protocol):
    """Where secrets go the moment the tenant gives them, and where they are known."""

    def client_id(self, key: str) -> str:
        """Return the client kept under *key*, or ``""``."""
        ...

    def has_secret(self, key: str, client_id: str) -> bool:
        """Tell whether the secret of *client_id* is kept under *key*."""
        ...

    def keep(self, key: str, client_id: str, secret: Secret | None) -> None:
        """Keep a client, and its secret if it has one; on disk when this returns."""
        ...

    def forget(self, key: str) -> None:
        """Let go of the client kept under *key*, and of its secret."""
        ...

    def worker_key(self, key: str) -> str:
        """Return the name of the worker's key kept under *key*, or ``""``."""
        ...

    def new_worker_key(self, key: str) -> tuple[str, str]:
        """Make and keep a worker's key; return its name and public part in PEM."""
        ...
