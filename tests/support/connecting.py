"""A broker in process, the embedded tenant on a socket, and people with browsers."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from auth0_double.faults import Faults
from support.agents_http import Caller, Live
from support.bench import OPERATOR, Bench
from support.tenant_admin import PASSWORD, Admin, Person, query_of

from agentvault_tui.broker.upstream.providers import STEP
from agentvault_tui.broker.usecases.connect import begin, proceed
from agentvault_tui.broker.usecases.disconnect import join_accounts
from agentvault_tui.broker.usecases.revoke import revoke_agent
from agentvault_tui.broker.vault_access import Flow
from agentvault_tui.home import Home
from agentvault_tui.ledger import OutboxStep
from agentvault_tui.model import Account, Agent, new_id
from agentvault_tui.operator_api.requests import ConnectRequest
from agentvault_tui.settings import ConnectionSettings
from agentvault_tui.tenant.accounts import where
from agentvault_tui.vault import ClientSecret, Secret, TenantClient
from agentvault_tui.vault.provider import Endpoints

BACK = "http://127.0.0.1:7719/callback"
WORKSPACE = "workspace"
CONNECTIONS = {WORKSPACE: ConnectionSettings(("read:calendar", "write:calendar"))}


async def at_once(_: float) -> None:
    """Try again without a pause: no clock moves but by the test's own hand."""
    await asyncio.sleep(0)


class Office:
    """One broker whose agents get accounts at the embedded tenant's own provider."""

    def __init__(self, admin: Admin, bench: Bench) -> None:
        self.admin, self.bench = admin, bench
        self.tenant, self.broker = admin.tenant, bench.broker

    async def restart(self) -> None:
        """Give the home to another process, which knows what is on disk."""
        await self.close()
        again = await Office.open(self.admin, self.bench.home)
        self.bench, self.broker = again.bench, again.broker

    @classmethod
    async def open(cls, admin: Admin, home: Home) -> Office:
        tenant = admin.tenant
        bench = await Bench.open(home, tenant.clock, tenant.issuer)
        broker, run = bench.broker, tenant.run
        broker.settings = replace(broker.settings, connections=CONNECTIONS)
        broker.reaching.tenant = TenantClient(
            tenant.issuer, run.client_id, tenant.clock, sleep=at_once
        )
        secret = Secret(run.management_secret)
        broker.reaching.access.given = ClientSecret(run.management_id, secret)
        for name, at in where(tenant.issuer).items():
            places = at["revocation_endpoint"], at["userinfo_endpoint"]
            broker.reaching.outlook.give(name, Endpoints(*places))
        join_accounts(broker)
        return cls(admin, bench)

    async def close(self) -> None:
        self.fault()
        await self.broker.reaching.tenant.aclose()
        await self.broker.reaching.vault.aclose()
        await self.broker.reaching.providers.aclose()
        await self.bench.tenant.aclose()
        await self.bench.close()

    def fault(self, **members: Any) -> None:
        """Let the tenant fail so from now on; without members, not at all."""
        self.tenant.faults.now = replace(Faults(), **members)

    async def work(self) -> None:
        """Do all that is due at the tenant."""
        while await self.broker.reaching.outbox.work():
            pass

    def steps(self, agent: Agent) -> dict[str, str]:
        """Return how far each step of a revocation is."""
        steps = self.broker.registry.steps_of(agent.id)
        return {step.step: step.status for step in steps}

    def person(self, name: str = "") -> Person:
        """Return a new user of the tenant's, in a browser of their own."""
        name = name or new_id("user").replace("_", "-")
        self.admin.user(name)
        return Person(self.tenant, name, PASSWORD)

    async def begin(self, agent: Agent, *scopes: str, **changes: Any) -> Flow:
        given = {"agent_id": agent.id, "connection": WORKSPACE, "redirect_uri": BACK}
        wanted = ConnectRequest(**{**given, "scopes": scopes, **changes})
        return await begin(self.broker, wanted)

    async def visit(self, flow: Flow, person: Person) -> str:
        """Let *person* say yes at the flow's page; return where the browser ended."""
        path = flow.at.page.removeprefix(self.tenant.issuer).partition("?")[0]
        query = query_of(flow.at.page)
        found = await asyncio.to_thread(person.allow, path, **query)
        return f"{BACK}?{urlencode(found)}"

    async def proceed(self, flow: Flow, address: str) -> Flow | Account:
        return await proceed(self.broker, flow.id, address, OPERATOR)

    async def connect(self, agent: Agent, person: Person, *scopes: str) -> Account:
        """Walk the whole way."""
        reached: Flow | Account = await self.begin(agent, *scopes)
        while isinstance(reached, Flow):
            reached = await self.proceed(reached, await self.visit(reached, person))
        return reached

    async def share(self, *agents: Agent) -> Account:
        """Give each of *agents* the account of one person; return the last one's."""
        person = self.person()
        return [await self.connect(one, person, "calendar.read") for one in agents][-1]

    async def revoke(self, agent: Agent) -> None:
        await revoke_agent(self.broker, agent.id, "test", OPERATOR)

    async def cut(self, agent: Agent) -> None:
        """Revoke *agent*, and do all that is due at the tenant."""
        await self.revoke(agent)
        await self.work()

    def step(self, agent: Agent, step: str = STEP) -> OutboxStep:
        """Return the agent's step of that name, as it stands."""
        rows = self.broker.registry.steps_of(agent.id)
        return next(row for row in rows if row.step == step)

    def accounts_at_tenant(self, user: str) -> list[str]:
        """Return the ids of the accounts that the tenant keeps of *user*."""
        path = f"users/{user.replace('|', '%7C')}/connected-accounts"
        listed = self.admin.call("GET", path).json()["connected_accounts"]
        return [one["id"] for one in listed]

    def provider_says(self, token: str) -> dict[str, Any]:
        """Ask the provider what a token of its is good for."""
        answer = self.tenant.http.get(
            f"{self.tenant.issuer}agentvault/workspace/tokeninfo",
            headers={"authorization": f"Bearer {token}"},
        )
        return dict(answer.json())


async def caller(live: Live, name: str = "") -> Caller:
    """Register an agent that may use the calendar."""
    return await live.caller(
        name or new_id("bot").replace("_", "-"), "read:calendar", "write:calendar"
    )
