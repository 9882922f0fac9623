"""A broker whose agents use accounts at a provider, and the tenant that keeps them."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
from support.agents_http import Caller, Live, live_broker
from support.bench import Bench
from support.exchanges import answer
from support.rogue_tenant import TOKEN, Answer, RogueTenant

from agentvault_tui.broker.vault_access import VaultAccess, VaultUser
from agentvault_tui.model import Account
from agentvault_tui.settings import ConnectionSettings
from agentvault_tui.vault import Secret
from agentvault_tui.vault.kept_clients import ClientSecretsFile
from agentvault_tui.web.tls import ServerTls

VAULT = (
    "urn:auth0:params:oauth:grant-type:token-exchange:federated-connection-access-token"
)
TO_PROVIDER = "http://auth0.com/oauth/token-type/federated-connection-access-token"
GOOGLE = "google-oauth2"
BANK = "bank"
CONNECTIONS = {
    GOOGLE: ConnectionSettings(("read:calendar", "write:calendar")),
    BANK: ConnectionSettings(("read:finance", "send:payment")),
}
SCOPES = ("read:calendar", "write:calendar", "read:finance", "send:payment")
REFRESH = "v1.refresh-token-of-the-vault-user"


class Vaulted(Live):
    """A broker with its agents' HTTP, and Token Vault behind it."""

    def __init__(self, live: Live, tenant: RogueTenant) -> None:
        super().__init__(live.bench, live.http)
        self.auth0 = tenant
        self.broker = live.bench.broker

    async def connected(
        self,
        name: str = "agent",
        *scopes: str,
        connections: Any = (GOOGLE, BANK),
        **more: Any,
    ) -> Caller:
        """Return an agent that has its client, vault user and accounts."""
        caller = await self.caller(name, *(scopes or SCOPES), **more)
        agent_id = caller.agent.id
        kept = ClientSecretsFile(self.bench.home, self.auth0.issuer)
        kept.keep(f"agents/{agent_id}", f"app-{name}", Secret(f"secret-of-{name}"))
        user = VaultUser("auth0|ursula", "Ursula", Secret(REFRESH))
        self.broker.reaching.vault.users.keep(agent_id, user)
        for connection in connections:
            account = Account(
                agent_id=agent_id,
                connection=connection,
                id=f"cac_{connection}",
                issuer=self.auth0.issuer,
                user="auth0|ursula",
                user_name="Ursula",
                scopes=("calendar",),
                since=self.bench.clock.now(),
            )
            await self.broker.record(changes=[account])
            self.broker.registry.accounts.put(account)
        return caller

    def answers(self, *answers: Answer) -> None:
        """Let the tenant answer exchanges with each in turn; the last one stays."""
        self.auth0.script(TOKEN, *answers)

    @property
    def exchanges(self) -> int:
        """How often the tenant was asked."""
        return self.auth0.asked(TOKEN)


def recorded(name: str, **members: Any) -> Answer:
    """Return what Auth0 answers an exchange, as recorded."""
    found = answer("token_vault", name)
    return replace(found, body={**found.body, **members}) if members else found


async def exchange(
    caller: Caller, connection: str | None = GOOGLE, **members: Any
) -> httpx.Response:
    """Ask as Auth0's Python SDK does: JSON, the secret in the body."""
    body = {
        "client_id": caller.agent.client_id,
        "grant_type": VAULT,
        "subject_token_type": "urn:ietf:params:oauth:token-type:refresh_token",
        "subject_token": "what an agent says here is not looked at",
        "requested_token_type": TO_PROVIDER,
        "connection": connection,
        "client_secret": caller.secret,
        **members,
    }
    return await caller.http.post("/oauth/token", json=body)


@asynccontextmanager
async def vaulted(
    bench: Bench,
    tenant: RogueTenant,
    tls: ServerTls | None = None,
    trust: ssl.SSLContext | None = None,
) -> AsyncIterator[Vaulted]:
    """Serve *bench*, with *tenant* as its Token Vault."""
    broker = bench.broker
    broker.settings = replace(broker.settings, connections=CONNECTIONS)
    broker.reaching.vault = VaultAccess(bench.home, tenant.issuer, bench.clock)
    async with live_broker(bench, tls=tls, verify=trust or True) as live:
        try:
            yield Vaulted(live, tenant)
        finally:
            await broker.reaching.vault.aclose()
