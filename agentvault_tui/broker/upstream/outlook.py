"""What a revocation would do at providers: where it is possible, and whom it cuts too.

A provider's grant is one owner's, to one application: what ends it for one agent ends
it for all that use the same owner's account, whoever the tenant takes them for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Final

from agentvault_tui.broker.accounts import Prospect
from agentvault_tui.broker.registry import Registry
from agentvault_tui.model import Account, AgentId, AgentStatus
from agentvault_tui.settings import ConnectionSettings
from agentvault_tui.vault.provider import KNOWN, Endpoints, endpoints

_SOME: Final = 6
"""Of agents that may be cut too; there may be thousands."""


class Outlook:
    """Knows the providers of the connections, and who uses whose account there."""

    def __init__(
        self,
        registry: Registry,
        issuer: str,
        connections: Callable[[], Mapping[str, ConnectionSettings]],
    ) -> None:
        """Look at the accounts of *registry* that the tenant *issuer* keeps."""
        self._registry = registry
        self._issuer = issuer
        self._connections = connections
        self._known: dict[str, Endpoints] = dict(KNOWN)
        self._cache: dict[str, tuple[ConnectionSettings, Endpoints]] = {}

    def give(self, connection: str, at: Endpoints) -> None:
        """Know where a provider is that the tenant has told of."""
        self._known[connection] = at
        self._cache.clear()

    def at(self, connection: str) -> Endpoints:
        """Return where the connection's provider is reached.

        Raises:
            SettingsError: its settings name what no token may be sent to.
        """
        said = self._connections().get(connection)
        if said is None:
            return Endpoints()
        known = self._cache.get(connection)
        if known is None or known[0] is not said:
            chosen = said.revocation_endpoint, said.userinfo_endpoint
            known = said, endpoints(connection, *chosen, self._known)
            self._cache[connection] = known
        return known[1]

    def endpoint(self, account: Account) -> str:
        """Return where a token of *account* is revoked; empty if that is not known."""
        ours = account.issuer == self._issuer
        return self.at(account.connection).revocation if ours else ""

    def kept_for(self, account: Account) -> tuple[AgentId, ...]:
        """Return the agents for whom *account* is left as it is at the provider."""
        endpoint = self.endpoint(account)
        if not endpoint:
            return ()
        return tuple(self._in_use(account, self._same(account, endpoint)))

    def of(self, account: Account) -> Prospect:
        """Say what revoking the agent would do to *account* at its provider."""
        endpoint, kept_for = self.endpoint(account), self.kept_for(account)
        if not endpoint or kept_for:
            return Prospect(bool(endpoint), kept_for)
        others = self._in_use(account, self._perhaps(account, endpoint))
        return Prospect(known=True, may_cut=tuple(islice(others, _SOME)))

    def _same(self, account: Account, endpoint: str) -> Iterator[Account]:
        """Yield accounts of the same owner there, by what is known."""
        accounts = self._registry.accounts
        for agent_id in accounts.sharing(account):  # one set of tokens
            if one := accounts.get(agent_id, account.connection):
                yield one
        if account.provider_user:
            for connection in self._alike(endpoint):
                yield from accounts.owned(connection, account.provider_user)

    def _perhaps(self, account: Account, endpoint: str) -> Iterator[Account]:
        """Yield accounts whose owner there may be the same."""
        accounts = self._registry.accounts
        for connection in self._alike(endpoint):
            if account.provider_user:
                yield from accounts.owned(connection, "")
            else:
                yield from accounts.at(connection)

    def _in_use(self, account: Account, others: Iterable[Account]) -> Iterator[AgentId]:
        """Yield once each agent, other than the account's, that is served by one."""
        seen = {account.agent_id}
        for one in others:
            if one.agent_id not in seen and not one.removing:
                seen.add(one.agent_id)
                agent = self._registry.agent(one.agent_id)
                if agent.status is AgentStatus.ACTIVE:
                    yield agent.id

    def _alike(self, endpoint: str) -> list[str]:
        """Return the connections whose provider is the one at *endpoint*."""
        known = self._connections()
        return [name for name in known if self.at(name).revocation == endpoint]
