"""Plain data of provisioning: the needs, the survey, and the scopes.

`SecretStore` is where secrets go that the tenant gives.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Protocol

from agentvault_tui.vault.credentials import Secret
from agentvault_tui.vault.reply import Json


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
    """With any: it is a privileged worker of Token Vault, limited to these."""


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
    token_limits: bool = False
    """Whether the Action that limits tokens of applications is bound."""


@dataclass(frozen=True, slots=True)
class Systems:
    """Auth0's own APIs on this tenant, as it lists them."""

    management: str
    """Identifier of the Management API."""
    offered: frozenset[str]
    """The scopes it has; empty when the tenant does not say."""
    my_account: str = ""
    """Identifier of the My Account API; empty until it is activated."""


class SecretStore(Protocol):
    """Where secrets go the moment the tenant gives them, and where they are known."""

    def client_id(self, key: str) -> str:
        """Return the client stored under *key*, or ``""``."""
        ...

    def has_secret(self, key: str, client_id: str) -> bool:
        """Check whether the secret of *client_id* is stored under *key*."""
        ...

    def keep(self, key: str, client_id: str, secret: Secret | None) -> None:
        """Store a client, and its secret if it has one; on disk when this returns."""
        ...

    def worker_key(self, key: str) -> str:
        """Return the tenant's id of the worker's key stored under *key*, or ``""``."""
        ...

    def keep_worker_key(self, key: str, identity: str, pem: Secret) -> None:
        """Store a worker's private key, and the *identity* of its public part."""
        ...


@dataclass(slots=True)
class TenantSurvey:
    """One reading of the tenant, which `survey` fills."""

    systems: Systems
    objects: dict[str, Json] = field(default_factory=dict)
    """Address to the object, brought to the members that rules name."""
    ids: dict[str, str] = field(default_factory=dict)
    """Address to its id on the tenant."""
    marked: dict[str, str] = field(default_factory=dict)
    """Address of every client with our mark to its name, wanted or not."""
    by_hand: dict[str, str] = field(default_factory=dict)
    """The steps for a person there: from address to step."""
    lacking: dict[str, str] = field(default_factory=dict)
    """From the address of a factor that the tenant's plan has no more to its answer."""
    remembering: tuple[str, ...] = ()
    """Names of others' Actions in the login that let a browser be remembered."""
    misfiled: dict[str, str] = field(default_factory=dict)
    """Address of a grant that represents another kind of subject: for which."""
    adopted: dict[str, str] = field(default_factory=dict)
    """Address of a client that is ours by its mark alone to its id.

    An editor of one application of the tenant can give it that mark.
    """

    def add(self, address: str, row: Json | None, key: str = "id") -> None:
        """Note that the object of *address* exists, as *found*."""
        if row is None:
            return
        self.objects[address] = row
        if isinstance(row.get(key), str):
            self.ids[address] = row[key]


READING_SCOPES: Final = (
    "read:actions", "read:client_grants", "read:clients", "read:connections",
    "read:guardian_factors", "read:mfa_policies", "read:prompts",
    "read:resource_servers", "read:roles", "read:tenant_settings",
)  # fmt: skip
"""The scopes of plan and doctor."""
_WRITING: Final = (
    "create:actions", "create:client_grants", "create:clients", "create:roles",
    "delete:client_grants", "update:actions", "update:client_grants",
    "update:client_keys", "update:clients", "update:connections",
    "update:guardian_factors", "update:roles", "update:tenant_settings",
)  # fmt: skip
_WORKERS: Final = (
    "create:client_credentials", "update:client_token_vault_privileged_access",
)  # fmt: skip


def writing_scopes(needs: Needs) -> tuple[str, ...]:
    """Return the scopes that apply takes on top, and no more."""
    workers = any(agent.pins for agent in needs.agents)
    policy = ["update:mfa_policies"] if needs.change_mfa_policy else []
    return (*_WRITING, *(_WORKERS if workers else ()), *policy)


def lacking_scopes(wanted: tuple[str, ...], held: frozenset[str]) -> tuple[str, ...]:
    """Return each scope of *wanted* that is not *held*.

    If a tenant does not state the granted scopes, nothing counts as lacking, and the
    call that needs a scope names it.
    """
    if not held:
        return ()
    return tuple(sorted({scope for scope in wanted if scope not in held}))
