"""How the broker administers its tenant: credentials kept in the home, read anew."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

from agentvault_tui.broker.upstream.holdings import Account, Holding, Holdings
from agentvault_tui.broker.upstream.tried import DONE, Tried
from agentvault_tui.errors import AgentVaultError
from agentvault_tui.home import Home
from agentvault_tui.model import AgentId
from agentvault_tui.vault import (
    Budget,
    ClientSecret,
    Management,
    RegisteredClient,
    Secret,
    Tenant,
)
from agentvault_tui.vault.kept_clients import KeptClients

_AGENTS: Final = "agents/"

AccountsOf = Callable[[AgentId], tuple[Account, ...]]
SignedIn = Callable[[AgentId], tuple[str, ...]]
Disconnect = Callable[[AgentId, Account], Awaitable[Tried]]
EndToken = Callable[[AgentId], Awaitable[Tried]]


class TenantAccess:
    """The Management API as the client that ``auth0 apply`` made for the broker.

    The credentials are looked for each time, for ``apply`` may run beside the broker;
    the client they belong to is kept, and with it its budget and its token.
    """

    def __init__(self, home: Home, tenant: Tenant, rate: float) -> None:
        """Administer *tenant* with what *home* keeps, *rate* requests a second."""
        self._tenant = tenant
        self._kept = KeptClients(home, tenant.issuer)
        self._budget = Budget(tenant.clock, rate=rate, sleep=tenant.sleep)
        self._known: tuple[str, Management] | None = None
        self.given: RegisteredClient | None = None
        """What may make objects there too: the embedded tenant's, for this run."""
        self.holdings: Holdings = KeptHoldings(self._kept)

    def give(self, credential: RegisteredClient) -> None:
        """Use *credential*, which the embedded tenant made for this run."""
        self.given = credential

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


class KeptHoldings:
    """What agents have at the tenant, as far as this home knows."""

    def __init__(self, kept: KeptClients) -> None:
        """Read clients from *kept*; the rest comes from whoever connects accounts."""
        self._kept = kept
        self._seen: tuple[int, ...] | None = None
        self._known: dict[str, tuple[str, bool]] = {}
        self.accounts_of: AccountsOf = lambda _: ()
        self.disconnecting: Disconnect = _cannot
        self.signed_in: SignedIn = lambda _: ()
        self.holds_token: Callable[[AgentId], bool] = lambda _: False
        self.ending: EndToken = _nothing_held

    def of(self, agent_id: AgentId) -> Holding | None:
        """Return what the agent has there; nothing when it has no client."""
        client_id, has_secret = self._clients().get(f"{_AGENTS}{agent_id}", ("", False))
        if not client_id:
            return None
        return Holding(client_id, has_secret, self.accounts_of(agent_id))

    def keep_secret(self, agent_id: AgentId, secret: Secret) -> None:
        """Keep the new secret of the agent's client, for when it is restored."""
        key = f"{_AGENTS}{agent_id}"
        self._kept.keep(key, self._kept.client_id(key), secret)

    async def disconnect(self, agent_id: AgentId, account: Account) -> Tried:
        """Delete a connected account as its user; tell how that went."""
        return await self.disconnecting(agent_id, account)

    async def end_token(self, agent_id: AgentId) -> Tried:
        """End the refresh token kept for the agent; tell how that went."""
        return await self.ending(agent_id)

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
            for account in self.accounts_of(agent_id) if agent_id else ():
                whose = found.setdefault(account.user_id, agent_id)
                found[account.user_id] = agent_id if whose == agent_id else None
        return found

    def _clients(self) -> dict[str, tuple[str, bool]]:
        """Return what the file says, read again when it is another: asked for often."""
        seen: tuple[int, ...] = ()
        with contextlib.suppress(OSError):
            stat = self._kept.path.stat()
            seen = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if seen != self._seen:
            self._known = self._kept.known()
            self._seen = seen
        return self._known


async def _cannot(_agent_id: AgentId, _account: Account) -> Tried:
    raise AgentVaultError("the account's user is not known here")


async def _nothing_held(_agent_id: AgentId) -> Tried:
    return DONE
