"""Which accounts at providers agents may use, and who shares one with whom."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from agentvault_tui.model import Account, AgentId


class Accounts:
    """One account an agent and connection; their tokens are in Token Vault alone."""

    def __init__(self) -> None:
        """Start with none."""
        self._of: dict[AgentId, dict[str, Account]] = defaultdict(dict)
        self._sharing: dict[tuple[str, str, str], set[AgentId]] = defaultdict(set)

    def take_over(self, accounts: Iterable[Account]) -> None:
        """Know what the last process knew."""
        for account in accounts:
            self.put(account)

    def put(self, account: Account) -> None:
        """Remember *account*, in place of what the agent had connected there."""
        self.drop(account.agent_id, account.connection)
        self._of[account.agent_id][account.connection] = account
        self._sharing[_tokenset(account)].add(account.agent_id)

    def drop(self, agent_id: AgentId, connection: str) -> None:
        """Forget the agent's account there, if there is one."""
        account = self._of[agent_id].pop(connection, None)
        if account is not None:
            self._sharing[_tokenset(account)].discard(agent_id)

    def get(self, agent_id: AgentId, connection: str) -> Account | None:
        """Return the agent's account there."""
        return self._of[agent_id].get(connection)

    def of(self, agent_id: AgentId) -> tuple[Account, ...]:
        """Return the agent's accounts, oldest first."""
        return tuple(sorted(self._of[agent_id].values(), key=lambda one: one.since))

    def all(self) -> list[Account]:
        """Return every account, oldest first."""
        every = (one for accounts in self._of.values() for one in accounts.values())
        return sorted(every, key=lambda one: one.since)

    def sharing(self, account: Account) -> tuple[AgentId, ...]:
        """Return the other agents whom deleting *account* at the tenant cuts too."""
        return tuple(sorted(self._sharing[_tokenset(account)] - {account.agent_id}))


def _tokenset(account: Account) -> tuple[str, str, str]:
    return account.issuer, account.user, account.connection
