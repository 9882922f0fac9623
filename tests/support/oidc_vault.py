"""A broker whose tenant, with its Token Vault, is an oidc-provider."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from support.agents_http import Caller, Live, live_broker
from support.bench import OPERATOR, Bench
from support.oidc_peer import CALENDAR, URSULA, Person, Provider, signed_in_at
from support.token_vault import BANK, CONNECTIONS, GOOGLE, SCOPES

from agentvault_tui.broker.usecases.disconnect import join_accounts
from agentvault_tui.broker.usecases.stepup import begin_approval
from agentvault_tui.broker.vault_access import VaultAccess, VaultUser
from agentvault_tui.model import Account, AgentId, StepUpStatus
from agentvault_tui.vault import ClientSecret, Secret, TenantClient
from agentvault_tui.web.tls import ServerTls

_LOOK = 0.05
"""Seconds between polls; the clock that the codes go by is moved by tests alone."""


class AtProvider(Live):
    """A broker with its agents' HTTP; nothing of the tenant's is ours."""

    def __init__(self, live: Live, provider: Provider) -> None:
        super().__init__(live.bench, live.http)
        self.provider, self.broker = provider, live.bench.broker

    async def connected(self, name: str) -> Caller:
        """Return an agent with an application there, for which Ursula signed in."""
        caller = await self.caller(name, *SCOPES)
        agent_id = caller.agent.id
        made = self.provider.register()
        secret = Secret(made["client_secret"])
        self.broker.reaching.vault.clients.keep(
            f"agents/{agent_id}", made["client_id"], secret
        )
        credential = ClientSecret(made["client_id"], secret)
        token = await signed_in_at(self.broker.reaching.tenant, credential)
        self.broker.reaching.vault.users.keep(
            agent_id, VaultUser(URSULA, "ursula", token)
        )
        for connection in (GOOGLE, BANK):
            await self._connect(agent_id, connection)
        return caller

    def lives(self, caller: Caller, refresh_token: str) -> bool:
        """Ask the provider whether the agent's application may still use the token."""
        key = f"agents/{caller.agent.id}"
        form = {
            "grant_type": "refresh_token",
            "refresh_token": refresh_token,
            "client_id": self.broker.reaching.vault.clients.client_id(key),
            "client_secret": self.broker.reaching.vault.clients.secret(key).reveal(),
        }
        return self.provider.http.post("oauth/token", data=form).status_code == 200

    async def _connect(self, agent_id: AgentId, connection: str) -> None:
        """Put an account there and here; it has no My Account API to do so with."""
        self.provider.tell(
            "connected", account=URSULA, connection=connection, scope=CALENDAR
        )
        account = Account(
            agent_id=agent_id,
            connection=connection,
            id=f"cac_{connection}_{agent_id}",
            issuer=self.provider.issuer,
            user=URSULA,
            user_name="ursula",
            scopes=(CALENDAR,),
            since=self.bench.clock.now(),
        )
        await self.broker.record(changes=[account])
        self.broker.registry.accounts.put(account)

    async def approve(self, auth_req_id: str) -> None:
        """Have Ursula say yes at the provider's own page."""
        stepup = self.broker.stepups.get(auth_req_id)
        begun = await begin_approval(self.broker, stepup.id, stepup.digest, OPERATOR)
        assert begun.device is not None
        async with Person(self.provider.issuer) as person:
            await person.approve(begun.device)
        done = StepUpStatus.APPROVED
        await self.bench.until(
            lambda: self.broker.stepups.get(auth_req_id).status is done
        )


@asynccontextmanager
async def vault_at(
    provider: Provider,
    bench: Bench,
    tls: ServerTls | None = None,
    trust: ssl.SSLContext | None = None,
    **tokens: Any,
) -> AsyncIterator[AtProvider]:
    """Serve *bench* with *provider* as its tenant, and ``[tokens]`` as *tokens*."""
    broker = bench.broker
    settings = broker.settings
    broker.settings = replace(
        settings, connections=CONNECTIONS, tokens=replace(settings.tokens, **tokens)
    )
    broker.reaching.tenant = TenantClient(
        provider.issuer, "console", bench.clock, sleep=lambda _: asyncio.sleep(_LOOK)
    )
    broker.reaching.vault = VaultAccess(bench.home, provider.issuer, bench.clock)
    join_accounts(broker)
    async with live_broker(bench, tls=tls, verify=trust or True) as live:
        try:
            yield AtProvider(live, provider)
        finally:
            await broker.reaching.vault.aclose()
            await broker.reaching.tenant.aclose()
