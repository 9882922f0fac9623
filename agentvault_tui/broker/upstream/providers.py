"""Revoke at providers the tokens that an agent was given.

It takes a token, and none is retained longer than a lease. So the last one of an agent
is retained when it is revoked, or one is requested from Token Vault while the agent's
grant exists: in memory alone. Without one a person has to do it, and the step says so.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from datetime import datetime
from itertools import chain, islice
from typing import Final

from agentvault_tui.broker.accounts import (
    SHARERS_SHOWN,
    HeldProviderToken,
    ProviderForecast,
)
from agentvault_tui.broker.registry import Registry
from agentvault_tui.broker.upstream.access import Tried
from agentvault_tui.broker.upstream.steps import Step
from agentvault_tui.clock import Clock
from agentvault_tui.ledger import OutboxStep
from agentvault_tui.model import Account, AgentId
from agentvault_tui.settings import ConnectionSettings
from agentvault_tui.text import visible
from agentvault_tui.vault import Cause, NoToken, ProviderToken
from agentvault_tui.vault.provider import (
    PRESETS,
    Endpoints,
    ProviderClient,
    ProviderRevoked,
    RevocationPending,
    endpoints,
)

_SOME: Final = 6
"""Agents named in `ProviderForecast.may_cut`."""


class ProviderAccounts:
    """Knows the connections' providers, and agents that share an account."""

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
        self._endpoints: dict[str, Endpoints] = dict(PRESETS)
        self._cache: dict[str, tuple[ConnectionSettings, Endpoints]] = {}

    def give(self, connection: str, at: Endpoints) -> None:
        """Take a provider's place from the tenant."""
        self._endpoints[connection] = at
        self._cache.clear()

    def at(self, connection: str) -> Endpoints:
        """Return where the connection's provider is reached."""
        configured = self._connections().get(connection)
        if configured is None:
            return Endpoints()
        cached = self._cache.get(connection)
        if cached is None or cached[0] is not configured:
            chosen = configured.revocation_endpoint, configured.userinfo_endpoint
            cached = configured, endpoints(connection, *chosen, self._endpoints)
            self._cache[connection] = cached
        return cached[1]

    def endpoint(self, account: Account) -> str:
        """Return where a token of *account* is revoked; empty if that is not known."""
        ours = account.issuer == self._issuer
        return self.at(account.connection).revocation if ours else ""

    def kept_for(self, account: Account) -> tuple[AgentId, ...]:
        """Return the agents for whom *account* is left as it is at the provider."""
        return tuple(self._same(account, self.endpoint(account)))

    def of(self, account: Account) -> ProviderForecast:
        """Return the effect of revoking the agent on *account* at its provider."""
        endpoint = self.endpoint(account)
        kept_for = tuple(islice(self._same(account, endpoint), SHARERS_SHOWN))
        if not endpoint or kept_for:
            return ProviderForecast(bool(endpoint), kept_for)
        others = self._perhaps(account, endpoint)
        return ProviderForecast(revocable=True, may_cut=tuple(islice(others, _SOME)))

    def _same(self, account: Account, endpoint: str) -> Iterator[AgentId]:
        """Yield once each other agent that uses the same owner's account there."""
        if not endpoint:
            return
        accounts = self._registry.accounts
        others = [accounts.in_use(account)]  # one set of tokens
        if account.provider_user:
            others += [
                accounts.owned(connection, account.provider_user)
                for connection in self._alike(endpoint)
            ]
        yield from _once(account, others)

    def _perhaps(self, account: Account, endpoint: str) -> Iterator[AgentId]:
        """Yield once each other agent whose account's owner there may be the same."""
        accounts, alike = self._registry.accounts, self._alike(endpoint)
        if account.provider_user:
            return _once(account, (accounts.owned(name, "") for name in alike))
        return _once(account, map(accounts.at, alike))

    def _alike(self, endpoint: str) -> list[str]:
        connections = self._connections()
        return [name for name in connections if self.at(name).revocation == endpoint]


STEP: Final = "provider token"
"""The step's name; a row has the connection besides."""
_CALLS: Final = 8
"""Calls to one provider at a time."""
_RESTARTED: Final = "the broker was restarted, and keeps no token"

Exchange = Callable[[Account], Awaitable[ProviderToken | NoToken]]
_Key = tuple[AgentId, str]


def _once(account: Account, agents: Iterable[Iterable[AgentId]]) -> Iterator[AgentId]:
    seen = {account.agent_id}
    for agent_id in chain.from_iterable(agents):
        if agent_id not in seen:
            seen.add(agent_id)
            yield agent_id


class Providers:
    """Tokens of agents that were cut off, and the providers that revoke them."""

    def __init__(
        self,
        clock: Clock,
        registry: Registry,
        outlook: ProviderAccounts,
        exchange: Exchange,
    ) -> None:
        """Revoke as *outlook* says, with tokens from *exchange*."""
        self._clock = clock
        self._registry = registry
        self._outlook = outlook
        self._exchange = exchange
        self._reached: dict[tuple[str, Endpoints], ProviderClient] = {}
        self._places: dict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(_CALLS)
        )
        """By endpoint: a provider that hangs delays no other."""
        self._held: dict[_Key, HeldProviderToken] = {}
        self._refused: dict[_Key, str] = {}
        """Why the tenant gives no token."""
        self._missed: dict[_Key, str] = {}
        """Why the last try had no token."""

    def rows(
        self, agent_id: AgentId, held: Iterable[HeldProviderToken]
    ) -> tuple[OutboxStep, ...]:
        """Return the steps that revoke the agent's rights at providers.

        Tokens *held* for it until now are retained to be shown there.
        """
        now = self._clock.now()
        rows = [
            OutboxStep(_row_id(key), agent_id, STEP, now, connection=key[1])
            for account in self._registry.accounts.of(agent_id)
            if self._outlook.endpoint(account) and not self._is_done(account)
            for key in [(agent_id, account.connection)]
        ]
        mine = {row.connection for row in rows}
        for one in held:
            if one.account.connection in mine:
                self._held[agent_id, one.account.connection] = one
        return tuple(rows)

    def keep_undelivered(self, held: HeldProviderToken) -> None:
        """Retain an undelivered token, if a revocation still needs it."""
        key = held.account.agent_id, held.account.connection
        row = self._registry.step(key[0], _row_id(key))
        if row is not None and row.status == "pending":
            self._held.setdefault(key, held)

    def forget(self, row: OutboxStep) -> None:
        """Forget the token of a step that is over."""
        key = row.agent_id, row.connection
        for cache in (self._held, self._refused, self._missed):
            cache.pop(key, None)

    def lacking(self, agent_id: AgentId) -> list[Account]:
        """Return the accounts for which a token can and should still be asked."""
        grant = self._registry.step(agent_id, f"{agent_id}/{Step.VAULT_GRANT.value}")
        if grant is None or grant.status != "pending":
            return []
        return [
            account
            for row in self._registry.steps_of(agent_id)
            if is_providers(row) and row.status == "pending"
            for key in [(agent_id, row.connection)]
            if key not in self._held and key not in self._refused
            if (account := self._registry.accounts.get(*key)) is not None
            and self._outlook.endpoint(account)
            and not self._outlook.kept_for(account)
        ]

    def holds(self, row: OutboxStep) -> bool:
        """Check whether there is a token to show for *row*."""
        return (row.agent_id, row.connection) in self._held

    def ready(self, row: OutboxStep) -> bool:
        """Check whether `do` can do anything about *row*: no token is to come."""
        lacking = self.lacking(row.agent_id)
        return all(account.connection != row.connection for account in lacking)

    async def ask(self, agent_id: AgentId) -> None:
        """Request from Token Vault the tokens that `lacking` names, all at once."""
        accounts = self.lacking(agent_id)
        for account, exchanged in zip(
            accounts,
            await asyncio.gather(*(self._exchange(one) for one in accounts)),
            strict=True,
        ):
            key = agent_id, account.connection
            if isinstance(exchanged, ProviderToken):
                self.keep_undelivered(
                    HeldProviderToken.of(self._clock, account, exchanged, 0.0)
                )
            elif exchanged.cause is Cause.UNAVAILABLE:
                self._missed[key] = f"no token was given in time ({exchanged.message})"
            else:
                self._refused[key] = f"the tenant gives no token ({exchanged.error})"

    async def do(self, row: OutboxStep) -> Tried:
        """Revoke *row*'s account at the provider; return the result."""
        held = self._held.get((row.agent_id, row.connection))
        current = self._registry.accounts.get(row.agent_id, row.connection)
        account = held.account if held else current
        if account is None:
            return self._by_hand(row, _RESTARTED)
        if kept_for := self._outlook.kept_for(account):
            names = self._registry.named(kept_for)
            why = f"{names} would lose the account too; revoke at {row.connection}"
            return Tried(f"{why} by hand if it must end for all", over="left")
        if not self._outlook.endpoint(account):
            return self._by_hand(row, "its endpoint is not known any more")
        if held is None:
            key = row.agent_id, row.connection
            missed = self._missed.get(key, _RESTARTED)
            return self._by_hand(row, self._refused.get(key, missed))
        if held.until <= self._clock.now():
            why = f"not before its token ended ({row.problem or 'not tried'})"
            return self._by_hand(row, why)
        return await self._revoked(row, held)

    async def whose(self, account: Account) -> str:
        """Ask the provider for the account's owner there; empty without an answer."""
        at = self._outlook.at(account.connection)
        if not at.revocation or not at.userinfo:
            return ""  # nobody needs to know
        exchanged = await self._exchange(account)
        if isinstance(exchanged, NoToken):
            return ""
        return await self._provider(account.connection, at).whose(
            exchanged.access_token
        )

    async def aclose(self) -> None:
        """Close the connections, and forget every token."""
        self._held.clear()
        for provider in self._reached.values():
            await provider.aclose()
        self._reached.clear()

    async def _revoked(self, row: OutboxStep, held: HeldProviderToken) -> Tried:
        at = self._outlook.at(row.connection)
        provider = self._provider(row.connection, at)
        async with self._places[at.revocation]:
            if self._registry.step(row.agent_id, row.id) is not row:
                return Tried("overtaken while it waited for a place")
            reply = await provider.revoke(held.token)
        if isinstance(reply, RevocationPending):
            return Tried(reply.problem, reply.wait)
        if not isinstance(reply, ProviderRevoked):
            return self._by_hand(row, reply.problem)
        ended = self._registry.leases.ended(
            held.account, held.thumbprint, all_of_it=at.ends_all
        )
        return Tried(None, over="confirmed", changes=(ended,))

    def _by_hand(self, row: OutboxStep, why: str) -> Tried:
        """Give up: a person has to revoke it at the provider."""
        until = self._outside_until(row.agent_id, row.connection)
        ends = f", or wait until {until:%H:%M} UTC" if until else ""
        problem = f"revoke at {visible(row.connection, 60)} by hand{ends}: {why}"
        return Tried(problem, over="failed")

    def _provider(self, name: str, at: Endpoints) -> ProviderClient:
        key = name, at
        if key not in self._reached:
            self._reached[key] = ProviderClient(at, name)
        return self._reached[key]

    def _is_done(self, account: Account) -> bool:
        """Check whether it was revoked there, and nothing came of it since."""
        key = account.agent_id, account.connection
        row = self._registry.step(key[0], _row_id(key))
        if row is None or row.status != "confirmed" or account.since > row.begun_at:
            return False
        return self._outside_until(*key) is None

    def _outside_until(self, agent_id: AgentId, connection: str) -> datetime | None:
        lease = self._registry.leases.of(agent_id, connection)
        until = lease.until if lease else None
        return until if until and until > self._clock.now() else None


def is_providers(row: OutboxStep) -> bool:
    """Check whether *row* is done at a provider, not at the tenant."""
    return row.step == STEP


def _row_id(key: _Key) -> str:
    return f"{key[0]}/{STEP}/{key[1]}"
