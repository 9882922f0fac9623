"""How the broker reaches Token Vault for an agent: as its client, for its vault user.

Exchanges have a pool of connections, a number of places and a deadline of their own:
a slow tenant delays them, and neither approvals nor anything agents ask for besides.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from agentvault_tui.broker.vault_users import VaultUsers
from agentvault_tui.clock import Clock, Deadline
from agentvault_tui.errors import AgentVaultError, NotFoundError, TenantError
from agentvault_tui.home import Home
from agentvault_tui.model import Account, AgentId
from agentvault_tui.vault import (
    Cause,
    ClientSecret,
    NoToken,
    ProviderToken,
    Tenant,
    TokenVault,
)
from agentvault_tui.vault.kept_clients import KeptClients

log = logging.getLogger("agentvault.vault")

DEADLINE: Final = 4.0
"""Seconds an exchange may take: Auth0's SDKs hang up on us after five."""
_REST: Final = 2.0
_LONGEST_REST: Final = 60.0
"""Seconds in which a no is repeated and the tenant not asked again about an account:
an agent in a loop would spend the rate limit that approvals need as well."""
_PLACES: Final = 8
"""Exchanges at the tenant at once, as many as it is asked over connections."""


class CrowdedError(Exception):
    """Too many requests wait for the same account."""


class VaultAccess:
    """Token Vault of one tenant, for every agent that has a vault user there."""

    def __init__(
        self, home: Home, issuer: str, clock: Clock, *, deadline: float = DEADLINE
    ) -> None:
        """Reach the tenant *issuer* with what *home* keeps for it."""
        self._tenant = Tenant(issuer, clock, timeout=deadline)
        self._apart = Tenant(issuer, clock, timeout=deadline)
        self.issuer: Final = self._tenant.issuer
        self.users: Final = VaultUsers(home, self.issuer)
        self.clients: Final = KeptClients(home, self.issuer)
        self._clock = clock
        self._deadline = deadline
        self._resting: dict[Account, tuple[Deadline, NoToken]] = {}
        self._places = asyncio.Semaphore(_PLACES)
        self._turns: dict[tuple[AgentId, str], asyncio.Lock] = defaultdict(asyncio.Lock)

    def credential(self, agent_id: AgentId) -> ClientSecret:
        """Return how the agent's own client authenticates at the tenant.

        Raises:
            NotFoundError: it has none, or its secret is not in this home.
        """
        key = f"agents/{agent_id}"
        client_id = self.clients.client_id(key)
        if not client_id:
            raise NotFoundError(
                "the agent has no application at the tenant", "agentvault auth0 apply"
            )
        return ClientSecret(client_id, self.clients.secret(key))

    @asynccontextmanager
    async def turn(self, account: Account) -> AsyncIterator[None]:
        """Let one request at a time ask about an account: the next finds its token.

        Raises:
            CrowdedError: those before took too long.
        """
        lock = self._turns[account.agent_id, account.connection]
        try:
            async with asyncio.timeout(self._deadline):
                await lock.acquire()
        except TimeoutError:
            raise CrowdedError from None
        try:
            yield
        finally:
            lock.release()

    async def exchange(self, account: Account) -> ProviderToken | NoToken:
        """Have the provider's token of *account*, as its agent's own client."""
        until, refusal = self._resting.get(account, (None, None))
        if until and refusal and not until.passed(self._clock):
            return refusal
        found = await self._asked(account, self._tenant, self._places)
        self._rest(account, found)
        return found

    async def exchange_apart(self, account: Account) -> ProviderToken | NoToken:
        """Have a token that no agent gets: to ask the provider, or to revoke there.

        Over connections of its own, without a place or a rest: no agent that asks for
        tokens can delay it.
        """
        return await self._asked(account, self._apart, asyncio.Semaphore())

    def _rest(self, account: Account, found: ProviderToken | NoToken) -> None:
        """Keep a no for a moment, and let go of those whose moment is over."""
        self._resting = {
            one: kept
            for one, kept in self._resting.items()
            if one != account and not kept[0].passed(self._clock)
        }
        if isinstance(found, NoToken):
            pause = min(max(found.retry_after or 0.0, _REST), _LONGEST_REST)
            self._resting[account] = Deadline.after(self._clock, pause), found

    async def _asked(
        self, account: Account, tenant: Tenant, places: asyncio.Semaphore
    ) -> ProviderToken | NoToken:
        try:
            async with asyncio.timeout(self._deadline), places:
                return await self._exchange(account, tenant)
        except TimeoutError:
            return _unavailable(f"the tenant took longer than {self._deadline:g} s")
        except TenantError as error:
            return _unavailable(error.what)
        except NotFoundError as error:
            return NoToken(Cause.OTHER, "server_error", error.what, error.remedy)
        except AgentVaultError as error:
            # Ours to mend: its words may name files of this machine, and agents read
            # what comes of this.
            log.warning("no token of %s: %s", account.agent_id, error.diagnosis())
            return _unavailable("the broker cannot use what it keeps for this account")

    async def _exchange(
        self, account: Account, tenant: Tenant
    ) -> ProviderToken | NoToken:
        user = self.users.of(account.agent_id)
        whose = (account.issuer, account.user)
        if user is None or whose != (self.issuer, user.sub):
            return NoToken(
                Cause.SUBJECT_REFUSED,
                "invalid_grant",
                "the agent's vault user is not signed in at this tenant",
                "agentvault connections add",
            )
        vault = TokenVault(tenant, self.credential(account.agent_id))
        found = await vault.for_refresh_token(user.refresh_token, account.connection)
        if isinstance(found, ProviderToken) and not found.expires_in:
            # What ends nobody knows when cannot be said to be over after a revocation.
            return _unavailable("the tenant does not say how long the token lives")
        return found

    async def aclose(self) -> None:
        """Close the connections."""
        await self._tenant.aclose()
        await self._apart.aclose()


def _unavailable(what: str) -> NoToken:
    return NoToken(Cause.UNAVAILABLE, "temporarily_unavailable", what, "ask again")
