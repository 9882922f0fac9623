"""A broker in process, its embedded tenant on a real socket, an agent at both."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from auth0_double.faults import Faults
from support.bench import OPERATOR, Bench
from support.manual_clock import ManualClock
from support.tenant_admin import Admin
from support.tenant_admin import Agent as AtTenant

from agentvault_tui.broker.upstream.access import DONE, Tried
from agentvault_tui.broker.upstream.tenant_log import MARK, TenantLog
from agentvault_tui.broker.usecases.connect import account_draft
from agentvault_tui.broker.usecases.disconnect import join_accounts
from agentvault_tui.broker.usecases.revoke import revoke_agent
from agentvault_tui.broker.vault_access import VaultUser
from agentvault_tui.home import Home
from agentvault_tui.ledger import DropAccount
from agentvault_tui.model import Account, Agent, EventType, new_id
from agentvault_tui.vault import ClientSecret, Secret
from agentvault_tui.vault.kept_clients import ClientSecretsFile


class Site:
    """One broker on one home, and what its agents have at the tenant."""

    def __init__(self, admin: Admin, home: Home, clock: ManualClock) -> None:
        self.admin, self.home, self.clock = admin, home, clock
        self.tenant = admin.tenant
        self.bench: Bench
        self.disconnected: list[Account] = []

    async def start(self) -> None:
        self.bench = await Bench.open(self.home, self.clock, self.tenant.issuer)
        run = self.tenant.run
        access = self.bench.broker.reaching.access
        secret = Secret(run.management_secret)
        access.given = ClientSecret(run.management_id, secret)
        join_accounts(self.bench.broker)
        access.holdings.disconnect = self._disconnect

    async def close(self) -> None:
        self.fault()
        await self.bench.broker.reaching.tenant.aclose()
        await self.bench.close()

    async def restart(self) -> None:
        await self.close()
        await self.start()

    def fault(self, **members: Any) -> None:
        """Let the tenant fail so from now on; without members, not at all."""
        self.tenant.faults.now = replace(Faults(), **members)

    async def agent(self, *, shared: bool = False) -> tuple[Agent, AtTenant, str]:
        """Register an agent with a client, a vault user and a refresh token there."""
        agent = await self.bench.agent(new_id("bot").replace("_", "-"))
        there = AtTenant(self.admin, agent.name)
        kept = ClientSecretsFile(self.home, self.tenant.issuer)
        secret = Secret(there.client["client_secret"])
        kept.keep(f"agents/{agent.id}", there.client["client_id"], secret)
        token = there.tokens()["refresh_token"]
        user = VaultUser(
            there.user["user_id"], "Ursula", Secret(token), there.client["client_id"]
        )
        self.bench.broker.reaching.vault.users.keep(agent.id, user)
        account = Account(
            agent_id=agent.id,
            connection="workspace",
            id="cac_1",
            issuer=self.tenant.issuer,
            user=user.sub,
            user_name=user.name,
            scopes=(),
            since=self.clock.now(),
        )
        await self.connect(account)
        if shared:
            other = await self.bench.agent(new_id("bot").replace("_", "-"))
            await self.connect(replace(account, agent_id=other.id))
        return agent, there, token

    async def connect(self, account: Account) -> None:
        """Have an account, as once a person connected it."""
        broker = self.bench.broker
        draft = account_draft(EventType.CONNECTION_ADDED, account, OPERATOR)
        await broker.record(draft, changes=[account])
        broker.registry.accounts.put(account)

    async def revoke(self, agent: Agent) -> None:
        await revoke_agent(self.bench.broker, agent.id, "test", OPERATOR)

    async def work(self) -> None:
        """Do all that is due."""
        while await self.bench.broker.reaching.outbox.work():
            pass

    def steps(self, agent: Agent) -> dict[str, str]:
        steps = self.bench.broker.registry.steps_of(agent.id)
        return {step.step: step.status for step in steps}

    async def _disconnect(self, account: Account) -> Tried:
        """Forget the account, as the broker does once it is gone, or leave it."""
        broker, where = self.bench.broker, (account.agent_id, account.connection)
        if any(broker.registry.accounts.in_use(account)):
            return Tried("another uses it", over="left")
        self.disconnected.append(account)
        broker.registry.accounts.drop(*where)
        await broker.record_cut(changes=[DropAccount(*where)])
        return DONE


def follower(site: Site, **more: Any) -> TenantLog:
    """Return a reader of the tenant's log, at the place that was kept."""
    broker = site.bench.broker
    mark = broker.recording.meta.get(MARK, "")
    issuer = more.pop("issuer", site.tenant.issuer)
    return TenantLog(
        site.clock, issuer, broker.reaching.access, broker.record, mark=mark, **more
    )


async def told(site: Site) -> list[tuple[str | None, str | None]]:
    """Return whose each told row is, and its code."""
    events = await site.bench.events("tenant.log")
    return [(event.agent_id, event.action) for event in events]
