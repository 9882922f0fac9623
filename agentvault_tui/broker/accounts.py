"""Which accounts at providers agents may use, and who shares one with whom."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from agentvault_tui.model import Account, AgentId


@dataclass(frozen=True, slots=True)
class Prospect:
    """What a revocation of its agent would do to an account at the provider."""

    known: bool = False
    """Whether anything is known that revokes there."""
    kept_for: tuple[AgentId, ...] = ()
    """Agents that use the same person's account there. A provider's grant is a
    person's, to one application: it would end for all of them, so it is left."""
    may_cut: tuple[AgentId, ...] = ()
    """Agents of whose accounts nobody knows whether they are the same person's; of
    many, some."""


class Accounts:
    """One account an agent and connection; their tokens are in Token Vault alone."""

    def __init__(self) -> None:
        """Start with none."""
        self._of: dict[AgentId, dict[str, Account]] = defaultdict(dict)
        self._users: dict[tuple[str, str, str], set[AgentId]] = defaultdict(set)
        """By tenant, vault user and connection."""
        self._owners: dict[str, dict[str, set[AgentId]]] = defaultdict(dict)
        """By connection and who the owner is at the provider."""

    def take_over(self, accounts: Iterable[Account]) -> None:
        """Know what the last process knew."""
        for account in accounts:
            self.put(account)

    def put(self, account: Account) -> None:
        """Remember *account*, in place of what the agent had connected there."""
        self.drop(account.agent_id, account.connection)
        self._of[account.agent_id][account.connection] = account
        self._users[_user(account)].add(account.agent_id)
        owners = self._owners[account.connection]
        owners.setdefault(account.provider_user, set()).add(account.agent_id)

    def drop(self, agent_id: AgentId, connection: str) -> None:
        """Forget the agent's account there, if there is one."""
        account = self._of[agent_id].pop(connection, None)
        if account is not None:
            self._users[_user(account)].discard(agent_id)
            self._owners[connection][account.provider_user].discard(agent_id)

    def get(self, agent_id: AgentId, connection: str) -> Account | None:
        """Return the agent's account there."""
        return self._of[agent_id].get(connection)

    def of(self, agent_id: AgentId) -> tuple[Account, ...]:
        """Return the agent's accounts, oldest first."""
        accounts = self._of.get(agent_id)
        if not accounts:
            return ()
        return tuple(sorted(accounts.values(), key=lambda one: one.since))

    def all(self) -> list[Account]:
        """Return every account, oldest first."""
        every = (one for accounts in self._of.values() for one in accounts.values())
        return sorted(every, key=lambda one: one.since)

    def sharing(self, account: Account) -> tuple[AgentId, ...]:
        """Return the other agents that deleting it cuts too, served or revoked."""
        others = (one for one in self._tokenset(account) if _is_same(one, account))
        return tuple(sorted({one.agent_id for one in others} - {account.agent_id}))

    def rivals(self, account: Account) -> tuple[Account, ...]:
        """Return the other accounts of the same vault user there.

        Token Vault gives a token of the one that was connected last, whichever agent
        asks for it.
        """
        found = self._tokenset(account)
        return tuple(one for one in found if not _is_same(one, account))

    def owned(self, connection: str, provider_user: str) -> Iterator[Account]:
        """Yield the accounts there of one owner at the provider.

        Of an unknown one, these are those nobody asked about.
        """
        for agent_id in sorted(self._owners[connection].get(provider_user, ())):
            yield self._of[agent_id][connection]

    def at(self, connection: str) -> Iterator[Account]:
        """Yield every account there."""
        for provider_user in self._owners[connection]:
            yield from self.owned(connection, provider_user)

    def _tokenset(self, account: Account) -> Iterator[Account]:
        """Yield what agents have of one vault user there."""
        for agent_id in self._users[_user(account)]:
            yield self._of[agent_id][account.connection]


def _is_same(one: Account, other: Account) -> bool:
    """Tell whether two of one vault user are the same person's at the provider.

    Whether a tenant gives an account that is connected anew another id is written
    nowhere; whose it is at the provider is told by the provider.
    """
    owner = one.provider_user
    return one.id == other.id or (owner != "" and owner == other.provider_user)


def _user(account: Account) -> tuple[str, str, str]:
    return account.issuer, account.user, account.connection
