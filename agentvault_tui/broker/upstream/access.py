"""The broker's access to its tenant: credentials stored in the home, read again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal

from agentvault_tui.broker.registry import Registry
from agentvault_tui.broker.vault_access import VaultAccess
from agentvault_tui.errors import AgentVaultError, TenantBusyError
from agentvault_tui.home import file_stamp
from agentvault_tui.ledger import Change
from agentvault_tui.model import Account, AgentId
from agentvault_tui.vault import (
    Budget,
    ClientSecret,
    Management,
    RegisteredClient,
    Secret,
    Tenant,
)


@dataclass(frozen=True, slots=True)
class Tried:
    """How one try of a step went."""

    problem: str | None
    """Why it is not done; None when it is."""
    wait: float = 0.0
    """Seconds before another try."""
    over: Literal["confirmed", "failed", "left"] | None = None
    """How it ended, where another try would change nothing."""
    changes: tuple[Change, ...] = ()

    @classmethod
    def of(cls, error: AgentVaultError) -> Tried:
        """Return the meaning of *error* for a step: it is worth another try."""
        wait = error.retry_after if isinstance(error, TenantBusyError) else None
        return cls(error.diagnosis(), wait or 0.0)


DONE: Final = Tried(None)
NOT_YET: Final = Tried("accepted, and not true yet")


def combine_attempts(parts: Iterable[Tried]) -> Tried:
    """Return the outcome of a step made of *parts*: the least complete one wins."""
    open_ones = [part for part in parts if part.problem is not None]
    if not open_ones:
        return DONE
    for over in (None, "failed", "left"):
        same_over = [part for part in open_ones if part.over == over]
        if same_over:
            break
    problems = dict.fromkeys(part.problem or "" for part in open_ones)
    return Tried(
        "; ".join(problems), max(one.wait for one in same_over), same_over[0].over
    )


@dataclass(frozen=True, slots=True)
class Holding:
    """One agent at the tenant."""

    client_id: str
    has_secret: bool
    """Whether its client authenticates with a secret, which can be rotated."""
    accounts: tuple[Account, ...] = ()

    @property
    def users(self) -> tuple[str, ...]:
        """The vault users whose refresh tokens its client may have."""
        return tuple(dict.fromkeys(account.user for account in self.accounts))


def users_of(holdings: Holdings, agent_id: AgentId, held: Holding) -> tuple[str, ...]:
    """Return the users of the refresh tokens for its client, also without account."""
    signed_in = holdings.signed_in(agent_id)
    return tuple(dict.fromkeys((*held.users, *([signed_in] if signed_in else ()))))


_AGENTS: Final = "agents/"

Disconnect = Callable[[Account], Awaitable[Tried]]
EndToken = Callable[[AgentId], Awaitable[Tried]]


class TenantAccess:
    """The Management API as the client that ``auth0 apply`` made for the broker.

    The credentials are read each time, because ``apply`` may run next to the broker;
    the client is cached, and with it its budget and its token.
    """

    def __init__(
        self, tenant: Tenant, rate: float, vault: VaultAccess, registry: Registry
    ) -> None:
        """Administer *tenant* with *vault*'s credentials, *rate* requests a second."""
        self._tenant = tenant
        self._clients_file = vault.clients
        self._budget = Budget(tenant.clock, rate=rate, sleep=tenant.sleep)
        self._cached: tuple[str, Management] | None = None
        self.given: RegisteredClient | None = None
        """The embedded tenant's credential for this run, which may create objects."""
        self.holdings: Final = Holdings(vault, registry)

    @property
    def management(self) -> Management | None:
        """The Management API, when there is a credential for it."""
        credential = self.given or self._credential()
        if credential is None:
            return None
        if self._cached is None or self._cached[0] != credential.client_id:
            api = Management(self._tenant, credential, budget=self._budget)
            self._cached = credential.client_id, api
        return self._cached[1]

    def _credential(self) -> RegisteredClient | None:
        client_id = self._clients_file.client_id("management")
        if not client_id or not self._clients_file.has_secret("management", client_id):
            return None
        return ClientSecret(client_id, self._clients_file.secret("management"))


class Holdings:
    """The agents' rights at the tenant, as far as this home knows."""

    def __init__(self, vault: VaultAccess, registry: Registry) -> None:
        """Read clients and users from *vault*, accounts from *registry*."""
        self._clients_file = vault.clients
        self._users = vault.users
        self._issuer = vault.issuer
        self._accounts = registry.accounts
        self._seen: tuple[int, ...] | None = ()
        self._cached: dict[str, tuple[str, bool]] = {}
        self.disconnect: Disconnect = _cannot
        """Deletes a connected account as its user."""
        self.end_token: EndToken = _nothing_held
        """Ends the agent's stored refresh token."""

    def of(self, agent_id: AgentId) -> Holding | None:
        """Return the agent's rights there; nothing without a client."""
        return self._of(agent_id, self._clients())

    def signed_in(self, agent_id: AgentId) -> str | None:
        """Return the vault user of the agent, also where no account tells of them."""
        return self._users.sub_of(agent_id)

    def holds_token(self, agent_id: AgentId) -> bool:
        """Check whether the agent's refresh token is stored here, and opens."""
        return self._users.of(agent_id) is not None

    def now(self) -> Callable[[AgentId], tuple[Holding | None, str | None]]:
        """Read once all agents' rights there; return `of` and `signed_in` by it."""
        clients, signed_in = self._clients(), self._users.subs()
        return lambda agent_id: (self._of(agent_id, clients), signed_in(agent_id))

    def _of(
        self, agent_id: AgentId, clients: dict[str, tuple[str, bool]]
    ) -> Holding | None:
        client_id, has_secret = clients.get(f"{_AGENTS}{agent_id}", ("", False))
        if not client_id:
            return None
        return Holding(client_id, has_secret, self._accounts_of(agent_id))

    def _accounts_of(self, agent_id: AgentId) -> tuple[Account, ...]:
        accounts = self._accounts.of(agent_id)
        return tuple(one for one in accounts if one.issuer == self._issuer)

    def keep_secret(self, agent_id: AgentId, secret: Secret) -> None:
        """Store the new secret of the agent's client, for a restore."""
        key = f"{_AGENTS}{agent_id}"
        self._clients_file.keep(key, self._clients_file.client_id(key), secret)

    def clients(self) -> dict[str, AgentId | None]:
        """Return our clients at the tenant, and their agents."""
        return {
            client_id: AgentId(key.removeprefix(_AGENTS))
            if key.startswith(_AGENTS)
            else None
            for key, (client_id, _) in self._clients().items()
        }

    def users(self) -> dict[str, AgentId | None]:
        """Return the vault users, and the agent of each: none if shared."""
        holders: dict[str, AgentId | None] = {}
        for agent_id in self.clients().values():
            for account in self._accounts_of(agent_id) if agent_id else ():
                whose = holders.setdefault(account.user, agent_id)
                holders[account.user] = agent_id if whose == agent_id else None
        return holders

    def _clients(self) -> dict[str, tuple[str, bool]]:
        """Return the file's content, read again when it changed: called often."""
        seen = file_stamp(self._clients_file.path)
        if seen != self._seen:
            self._cached = self._clients_file.listed()
            self._seen = seen
        return self._cached


async def _cannot(_: Account) -> Tried:
    raise AgentVaultError("the account's user is not known here")


async def _nothing_held(_: AgentId) -> Tried:
    return DONE
