"""The agents' rights at providers: accounts, leases, and tokens in memory.

Accounts say which agents may use which and who shares one with whom. Leases say until
when provider tokens that were handed out can still be used: only the provider can end
one before its time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from agentvault_tui.clock import Clock, Deadline
from agentvault_tui.model import (
    Account,
    AgentId,
    IssuedProviderToken,
    Lease,
    sha256_hex,
)
from agentvault_tui.vault import ProviderToken, Secret

SHARERS_SHOWN: Final = 100
"""Agents named of those that use one account; there may be thousands."""


@dataclass(frozen=True, slots=True)
class ProviderForecast:
    """The effect of revoking its agent on an account at the provider."""

    revocable: bool = False
    """Whether anything is known that revokes there."""
    kept_for: tuple[AgentId, ...] = ()
    """Some agents that use the same person's account: it is left for them."""
    may_cut: tuple[AgentId, ...] = ()
    """Some agents whose accounts may belong to the same person."""


class Accounts:
    """Keeps one account an agent and connection, and indexes those in use.

    An account is in use while its agent is served and it is not being removed.
    """

    def __init__(self, serves: Callable[[AgentId], bool] = lambda _: True) -> None:
        """Start with none; *serves* tells whether an agent is served."""
        self._serves = serves
        self._of: dict[AgentId, dict[str, Account]] = {}
        self._users: dict[tuple[str, str, str], dict[AgentId, bool]] = defaultdict(dict)
        """By tenant, vault user and connection: whether the agent's is in use."""
        self._owners: dict[str, dict[str, dict[AgentId, None]]] = defaultdict(dict)
        """Agents with an account in use, by connection and owner there."""

    def put(self, account: Account) -> None:
        """Remember *account*, in place of the agent's earlier one there."""
        agent_id, connection = account.agent_id, account.connection
        self.drop(agent_id, connection)
        self._of.setdefault(agent_id, {})[connection] = account
        used = self._serves(agent_id) and not account.removing
        self._users[_user(account)][agent_id] = used
        if used:
            owners = self._owners[connection]
            owners.setdefault(account.provider_user, {})[agent_id] = None

    def drop(self, agent_id: AgentId, connection: str) -> None:
        """Forget the agent's account there, if there is one."""
        account = self._of.get(agent_id, {}).pop(connection, None)
        if account is not None and self._users[_user(account)].pop(agent_id):
            del self._owners[connection][account.provider_user][agent_id]

    def get(self, agent_id: AgentId, connection: str) -> Account | None:
        """Return the agent's account there."""
        return self._of.get(agent_id, {}).get(connection)

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
        agents = self._users[_user(account)]
        return tuple(sorted(self._same(account, agents)))

    def in_use(self, account: Account) -> Iterator[AgentId]:
        """Yield the other agents that use it too: a revoked one uses nothing."""
        agents = self._users[_user(account)].items()
        return self._same(account, (agent_id for agent_id, used in agents if used))

    def rivals(self, account: Account) -> tuple[Account, ...]:
        """Return the other accounts of the same vault user there.

        Token Vault always returns a token of the account that was connected last.
        """
        accounts = (
            self._of[agent_id][account.connection]
            for agent_id in self._users[_user(account)]
        )
        return tuple(one for one in accounts if not _is_same(one, account))

    def owned(self, connection: str, provider_user: str) -> Iterator[AgentId]:
        """Yield the agents that use an account there of one owner at the provider."""
        yield from self._owners[connection].get(provider_user, ())

    def at(self, connection: str) -> Iterator[AgentId]:
        """Yield every agent that uses an account there."""
        for agents in self._owners[connection].values():
            yield from agents

    def _same(self, account: Account, agents: Iterable[AgentId]) -> Iterator[AgentId]:
        for agent_id in agents:
            if agent_id != account.agent_id and _is_same(
                self._of[agent_id][account.connection], account
            ):
                yield agent_id


def _is_same(one: Account, other: Account) -> bool:
    """Check whether two of one vault user are the same person's at the provider.

    Whether an account connected again gets another id is not documented.
    """
    owner = one.provider_user
    return one.id == other.id or (owner != "" and owner == other.provider_user)


def _user(account: Account) -> tuple[str, str, str]:
    return account.issuer, account.user, account.connection


class Leases:
    """Keeps one lease an agent and connection, recorded with the delivery's event.

    Memory goes first and the record follows, so that a revocation which comes
    meanwhile counts the token that is on its way.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._of: dict[AgentId, dict[str, Lease]] = defaultdict(dict)

    def take_over(self, leases: Iterable[Lease]) -> None:
        """Take over the state of the last process."""
        for lease in leases:
            self._of[lease.agent_id][lease.connection] = lease

    def note(self, account: Account, thumbprint: str, until: datetime) -> Lease:
        """Note that a token of *account* is issued; return the record of it."""
        given = self._outside(account.agent_id, account.connection, thumbprint)
        given.append(IssuedProviderToken(account.id, thumbprint, until))
        return self._open_lease(account, given)

    def ended(self, account: Account, thumbprint: str, *, all_of_it: bool) -> Lease:
        """Note that the provider ended a token, or *all_of_it*: of the account."""
        given = self._outside(account.agent_id, account.connection, thumbprint)
        if all_of_it:
            given = [one for one in given if one.account_id != account.id]
        return self._open_lease(account, given)

    def of(self, agent_id: AgentId, connection: str) -> Lease | None:
        """Return the lease of the agent there, over or not."""
        return self._of.get(agent_id, {}).get(connection)

    def outside_until(self, agent_id: AgentId) -> datetime | None:
        """Return when the last live provider token of the agent ends, if any."""
        return max(
            (
                one.until
                for connection in self._of.get(agent_id, ())
                for one in self._outside(agent_id, connection)
            ),
            default=None,
        )

    def _outside(
        self, agent_id: AgentId, connection: str, but: str = ""
    ) -> list[IssuedProviderToken]:
        """Return the live tokens outside, *but* the one of a thumbprint."""
        lease, now = self.of(agent_id, connection), self._clock.now()
        given = lease.given if lease else ()
        return [one for one in given if one.until > now and one.thumbprint != but]

    def _open_lease(self, account: Account, given: list[IssuedProviderToken]) -> Lease:
        lease = Lease(account.agent_id, account.connection, tuple(given))
        self._of[account.agent_id][account.connection] = lease
        return lease


@dataclass(frozen=True, slots=True)
class HeldProviderToken:
    """A provider's token as Token Vault gave it."""

    account: Account
    token: Secret
    scope: str
    thumbprint: str
    """The beginning of its SHA-256: names it in the audit, and nothing more."""
    until: datetime
    """When it ends at the provider, whatever is done here."""
    lease: Deadline = field(repr=False)
    """When it is forgotten here: the vault is asked again, and may say no."""

    @classmethod
    def of(
        cls, clock: Clock, account: Account, exchanged: ProviderToken, longest: float
    ) -> HeldProviderToken:
        """Return the vault's token for *account*, for *longest* seconds."""
        return cls(
            account=account,
            token=exchanged.access_token,
            scope=" ".join(exchanged.scopes),
            thumbprint=sha256_hex(exchanged.access_token.reveal())[:16],
            until=clock.now() + timedelta(seconds=exchanged.expires_in),
            lease=Deadline.after(clock, min(exchanged.expires_in, longest)),
        )


class ProviderTokens:
    """At most one for each agent and connection; cut with the agent's own tokens."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._of: dict[AgentId, dict[str, HeldProviderToken]] = defaultdict(dict)

    def get(self, account: Account) -> HeldProviderToken | None:
        """Return the cached token of exactly this account, if its lease lasts."""
        held = self._of[account.agent_id].get(account.connection)
        if held is None or held.account != account or held.lease.passed(self._clock):
            self._of[account.agent_id].pop(account.connection, None)
            return None
        return held

    def put(self, held: HeldProviderToken) -> None:
        """Cache *held* for its lease."""
        self._of[held.account.agent_id][held.account.connection] = held

    def of(self, agent_id: AgentId) -> tuple[HeldProviderToken, ...]:
        """Return all of the agent's that are not forgotten yet."""
        return tuple(self._of.get(agent_id, {}).values())

    def drop(self, agent_id: AgentId) -> None:
        """Forget all of the agent's."""
        self._of.pop(agent_id, None)

    def drop_all(self) -> None:
        """Forget every agent's."""
        self._of.clear()

    def sweep(self) -> None:
        """Forget expired ones."""
        for held_by in self._of.values():
            for connection in [
                name for name, held in held_by.items() if held.lease.passed(self._clock)
            ]:
                del held_by[connection]
