"""How the broker administers its tenant: credentials kept in the home, read anew."""

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
        """Return what *error* means for a step: it is worth another try."""
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
        found = [part for part in open_ones if part.over == over]
        if found:
            break
    problems = dict.fromkeys(part.problem or "" for part in open_ones)
    return Tried("; ".join(problems), max(one.wait for one in found), found[0].over)


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
    """Return whose refresh tokens its client may have, also without an account."""
    signed_in = holdings.signed_in(agent_id)
    return tuple(dict.fromkeys((*held.users, *([signed_in] if signed_in else ()))))


_AGENTS: Final = "agents/"

Disconnect = Callable[[Account], Awaitable[Tried]]
EndToken = Callable[[AgentId], Awaitable[Tried]]


class TenantAccess:
    """The Management API as the client that ``auth0 apply`` made for the broker.

    The credentials are read each time, for ``apply`` may run beside the broker; the
    client they belong to is kept, and with it its budget and its token.
    """

    def __init__(
        self, tenant: Tenant, rate: float, vault: VaultAccess, registry: Registry
    ) -> None:
        """Administer *tenant* with what *vault* keeps, *rate* requests a second."""
        self._tenant = tenant
        self._kept = vault.clients
        self._budget = Budget(tenant.clock, rate=rate, sleep=tenant.sleep)
        self._known: tuple[str, Management] | None = None
        self.given: RegisteredClient | None = None
        """The embedded tenant's credential for this run, which may create objects."""
        self.holdings: Final = Holdings(vault, registry)

    @property
    def management(self) -> Management | None:
        """The Management API, when there is a credential for it."""
        credential = self.given or self._credential()
        if credential is None:
            return None
        if self._known is None or self._known[0] != credential.client_id:
            api = Management(self._tenant, credential, budget=self._budget)
            self._known = credential.client_id, api
        return self._known[1]

    def _credential(self) -> RegisteredClient | None:
        client_id = self._kept.client_id("management")
        if not client_id or not self._kept.has_secret("management", client_id):
            return None
        return ClientSecret(client_id, self._kept.secret("management"))


class Holdings:
    """What agents have at the tenant, as far as this home knows."""

    def __init__(self, vault: VaultAccess, registry: Registry) -> None:
        """Read clients and users from *vault*, accounts from *registry*."""
        self._kept = vault.clients
        self._users = vault.users
        self._issuer = vault.issuer
        self._accounts = registry.accounts
        self._seen: tuple[int, ...] | None = ()
        self._known: dict[str, tuple[str, bool]] = {}
        self.disconnect: Disconnect = _cannot
        """Deletes a connected account as its user."""
        self.end_token: EndToken = _nothing_held
        """Ends the refresh token kept for the agent."""

    def of(self, agent_id: AgentId) -> Holding | None:
        """Return what the agent has there; nothing when it has no client."""
        return self._of(agent_id, self._clients())

    def signed_in(self, agent_id: AgentId) -> str | None:
        """Return the vault user of the agent, also where no account tells of them."""
        return self._users.sub_of(agent_id)

    def holds_token(self, agent_id: AgentId) -> bool:
        """Tell whether the agent's refresh token is kept here, and opens."""
        return self._users.of(agent_id) is not None

    def now(self) -> Callable[[AgentId], tuple[Holding | None, str | None]]:
        """Read once what all agents have there; return `of` and `signed_in` by it."""
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
        """Keep the new secret of the agent's client, for when it is restored."""
        key = f"{_AGENTS}{agent_id}"
        self._kept.keep(key, self._kept.client_id(key), secret)

    def clients(self) -> dict[str, AgentId | None]:
        """Return our clients at the tenant, and whose each is."""
        return {
            client_id: AgentId(key.removeprefix(_AGENTS))
            if key.startswith(_AGENTS)
            else None
            for key, (client_id, _) in self._clients().items()
        }

    def users(self) -> dict[str, AgentId | None]:
        """Return the vault users, and whose each is: nobody's alone if shared."""
        found: dict[str, AgentId | None] = {}
        for agent_id in self.clients().values():
            for account in self._accounts_of(agent_id) if agent_id else ():
                whose = found.setdefault(account.user, agent_id)
                found[account.user] = agent_id if whose == agent_id else None
        return found

    def _clients(self) -> dict[str, tuple[str, bool]]:
        """Return what the file says, read again when it is another: asked for often."""
        seen = file_stamp(self._kept.path)
        if seen != self._seen:
            self._known = self._kept.known()
            self._seen = seen
        return self._known


async def _cannot(_: Account) -> Tried:
    raise AgentVaultError("the account's user is not known here")


async def _nothing_held(_: AgentId) -> Tried:
    return DONE
