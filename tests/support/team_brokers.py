"""Several brokers in one process, on one team's store, and the agents' HTTP of each."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from support.agents_http import CIBA
from support.bench import OPERATOR, PAYMENT, Bench
from support.manual_clock import ManualClock
from support.stepups import details_of

from agentvault_tui.broker.agents_api import AgentsApi
from agentvault_tui.broker.authority import Sessions
from agentvault_tui.broker.operators_api import operators_app
from agentvault_tui.broker.usecases.register import register
from agentvault_tui.clock import Clock
from agentvault_tui.home import Home
from agentvault_tui.ledger import verify_ledger
from agentvault_tui.model import Agent
from agentvault_tui.operator_api.requests import AgentRequest
from agentvault_tui.settings import Settings

ISSUER = "http://127.0.0.1:7717"


class Broker:
    """One broker of the team, and the agents' HTTP of it."""

    def __init__(self, bench: Bench, secrets: dict[str, str]) -> None:
        self.bench, self.secrets = bench, secrets
        bench.listen_as_served()
        core = bench.broker
        app = httpx.ASGITransport(AgentsApi(core, ISSUER))
        self.http = httpx.AsyncClient(transport=app, base_url=ISSUER)
        api = operators_app(core, bench.feed, Sessions(core))

        async def by_operator(scope: Any, receive: Any, send: Any) -> None:
            await api({**scope, "state": {"operator": OPERATOR}}, receive, send)

        self.operator = httpx.AsyncClient(
            transport=httpx.ASGITransport(by_operator), base_url="http://broker"
        )

    async def agent(self, name: str, *scopes: str, **more: Any) -> Agent:
        wanted = AgentRequest(
            name=name, owner="olga", purpose="tests", scopes=scopes, **more
        )
        made = await register(self.bench.broker, wanted, OPERATOR)
        self.secrets[made.agent.id] = made.client_secret or ""
        return made.agent

    async def post(self, agent: Agent, path: str, **form: str) -> httpx.Response:
        auth = (agent.id, self.secrets[agent.id])
        return await self.http.post(path, data=form, auth=auth)

    async def token(self, agent: Agent, scope: str, **more: str) -> httpx.Response:
        asked = {"grant_type": "client_credentials", "scope": scope, **more}
        return await self.post(agent, "/oauth/token", **asked)

    async def pay(self, agent: Agent, resource: str = "stripe:acct_42") -> str:
        """Ask for a payment; return the step-up's id."""
        action = details_of(PAYMENT)[0] | {"resource": resource}
        details = json.dumps([action])
        reply = await self.token(agent, "send:payment", authorization_details=details)
        return str(reply.json().get("auth_req_id", reply.json().get("reason")))

    async def poll(self, agent: Agent, auth_req_id: str) -> httpx.Response:
        asked = {"grant_type": CIBA, "auth_req_id": auth_req_id}
        return await self.post(agent, "/oauth/token", **asked)

    async def active(self, server: Agent, token: str) -> bool:
        reply = await self.post(server, "/oauth/introspect", token=token)
        return bool(reply.json()["active"])

    async def aclose(self) -> None:
        await self.http.aclose()
        await self.operator.aclose()


@asynccontextmanager
async def brokers_of(
    folder: Path,
    clocks: Sequence[Clock],
    settings: Sequence[Settings],
    limits: str = "",
) -> AsyncIterator[list[Broker]]:
    """Open a broker for each of *clocks* and *settings*, in homes ``a``, ``b``, …

    Their ledgers are verified at the end.
    """
    for clock in clocks:
        # What a clock far behind the store's issues is over there, and pruned.
        if isinstance(clock, ManualClock):
            behind = datetime.now(UTC) - clock.now()
            clock.advance(max(behind.total_seconds(), 0))
    made, secrets = list[Broker](), dict[str, str]()
    async with AsyncExitStack() as stack:
        for name, clock, own in zip("abc", clocks, settings, strict=False):
            home = Home(folder / name, folder / name)
            home.prepare()
            home.limits_file.write_text(limits)
            bench = await Bench.open(home, clock, settings=own)  # type: ignore[arg-type]
            stack.push_async_callback(bench.close)
            made.append(Broker(bench, secrets))
            stack.push_async_callback(made[-1].aclose)
        yield made
    # A writer that had a quiet moment has pruned what these clocks have passed.
    now = max(datetime.now(UTC), *(clock.now() for clock in clocks))
    reports = [verify_ledger(one.bench.home, now=now) for one in made]
    assert all(one.ok for one in reports), reports


async def known(brokers: Sequence[Broker]) -> None:
    """Let each broker know what all have recorded."""
    for one in brokers:
        await one.bench.ledger.confirm()
