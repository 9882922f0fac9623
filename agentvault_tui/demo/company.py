"""Registers the demo's clients, runs the agents, and waits for them to finish."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Final

import httpx

from agentvault_tui.demo import people, workspace
from agentvault_tui.demo.agents import ExampleAgent
from agentvault_tui.demo.client import OAuthClient
from agentvault_tui.demo.operator import AgentCredentials, Operator, Record
from agentvault_tui.demo.processes import Ready, write_private
from agentvault_tui.demo.roles import (
    ROLES,
    booking,
    bulk_mail,
    deletion,
    lookup,
    mail,
    named_roles,
    payment,
)
from agentvault_tui.demo.workspace import OwnersGuard, TokenGuard, WorkspaceStore
from agentvault_tui.errors import AgentVaultError, ConflictError, UnreachableError

WORKSPACE: Final = "workspace"
_LIMITS: Final = httpx.Limits(max_connections=64, max_keepalive_connections=64)
_OPENED: Final = 2.0
"""Seconds that a console takes to open, at most: people sign in after that, for the
first screen to come as soon as it can."""


@dataclass(frozen=True, slots=True)
class Company:
    """The agents of this demo, by agent id."""

    agents: dict[str, ExampleAgent]
    store: WorkspaceStore
    stopping: asyncio.Event
    home: Path
    operator: Operator
    problems: list[str]
    """What went wrong and left the rest as it should be."""

    async def work(self, rate: float) -> None:
        """Run agents and scenario, *rate* ordinary decisions a second in all."""
        total = sum(agent.role.weight for agent in self.agents.values())
        async with asyncio.TaskGroup() as life:
            for agent in self.agents.values():
                life.create_task(agent.live(rate * agent.role.weight / total))
            life.create_task(_play_scenario(list(self.agents.values())))
            life.create_task(self._connect())
        await asyncio.gather(*(agent.finish() for agent in self.agents.values()))

    async def _connect(self) -> None:
        """Connect the owners' accounts, once the console is open."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), _OPENED)
        # Never cancelled: a command under way would still write to the home.
        self.problems.extend(
            await people.connect(self.home, self.operator, self.agents.items())
        )

    def compare(self, record: Record) -> None:
        """Hold what each agent saw answered against what the ledger holds."""
        for agent_id, agent in self.agents.items():
            held = record.answers(agent_id)
            for outcome in ("allowed", "denied", "escalated"):
                seen = getattr(agent.client.tally, outcome)
                if held[outcome] != seen:
                    raise AgentVaultError(
                        f"{agent.name} saw {seen} answers {outcome} and the ledger "
                        f"holds {held[outcome]} "
                        f"({agent.client.tally.unheard} answers never arrived)"
                    )


async def register(
    home: Path, operator: Operator, count: int
) -> dict[str, AgentCredentials]:
    """Register the workspace and *count* agents; those of an earlier run are kept."""
    file = home / "demo" / "clients.json"
    known: dict[str, AgentCredentials] = {}
    if file.exists():
        kept = json.loads(file.read_text())
        known = {name: AgentCredentials(**fields) for name, fields in kept.items()}
    taken = set((await operator.names()).values())
    wanted: dict[str, dict[str, object]] = {
        name: {
            "name": name,
            "owner": role.owner,
            "purpose": role.purpose,
            "scopes": list(role.scopes),
        }
        for name, role in named_roles(count)
    }
    wanted[WORKSPACE] = {
        "name": WORKSPACE,
        "owner": "it@acme.test",
        "purpose": "The workspace API, which asks about the agents' tokens",
        "scopes": [],
        "resource_server": True,
        "serves": sorted({operation.scope for operation in workspace.OPERATIONS}),
    }
    for name, description in wanted.items():
        if name in known:
            continue
        if name in taken:
            raise ConflictError(
                f"this home has an agent {name} that the demo did not register",
                "give the demo a home of its own",
            )
        known[name] = await operator.register(description)
    write_private(
        file, json.dumps({name: asdict(entry) for name, entry in known.items()})
    )
    return {name: known[name] for name in wanted}


@contextlib.asynccontextmanager
async def open_company(
    home: Path,
    ready: Ready,
    clients: dict[str, AgentCredentials],
    operator: Operator,
    *,
    seed: int,
) -> AsyncIterator[Company]:
    """Serve the workspace and create its agents."""
    broker = ready.agents_url
    stopping = asyncio.Event()
    store = WorkspaceStore()
    door = clients[WORKSPACE]
    async with httpx.AsyncHTTPTransport(limits=_LIMITS) as outward, _http() as inward:
        guard = TokenGuard(broker, door.client_id, door.client_secret, inward)
        owners = OwnersGuard(await _provider(ready.tenant, inward), inward)
        async with (
            workspace.serving(workspace.application(guard, owners, store)) as url,
            _http(url) as desk,
        ):
            agents = {
                clients[name].agent_id: ExampleAgent(
                    name,
                    role,
                    OAuthClient(
                        broker,
                        clients[name].client_id,
                        clients[name].client_secret,
                        outward,
                    ),
                    desk,
                    # Reproducible, and no secret depends on it.
                    random=Random(f"{seed}:{name}"),  # noqa: S311 - same
                    stopping=stopping,
                )
                for name, role in named_roles(len(clients) - 1)
            }
            yield Company(agents, store, stopping, home, operator, [])


async def _provider(issuer: str, http: httpx.AsyncClient) -> str:
    """Return the provider that the tenant names."""
    try:
        reply = await http.get(f"{issuer}agentvault/metadata")
        return str(reply.json()["workspace_authorization_server"])
    except (httpx.TransportError, ValueError, KeyError) as error:
        raise UnreachableError("the demo's tenant does not answer") from error


def _http(base_url: str = "") -> httpx.AsyncClient:
    # No proxy from the environment: everything here is on loopback. Waiting for a
    # free connection is not a fault, so it has no time limit.
    return httpx.AsyncClient(
        base_url=base_url,
        trust_env=False,
        timeout=httpx.Timeout(30.0, pool=None),
        limits=_LIMITS,
    )


_FIRST_INVOICE: Final = 1881
_EPISODE: Final = 75.0
"""Seconds from one unusual thing to the next, once the first minute is over."""
_LOOKUP: Final = 12.0
"""Seconds from one look into the owner's address book to the next."""


async def _play_scenario(agents: Sequence[ExampleAgent]) -> None:
    """Play the first minute with the six named roles, then episodes."""
    cast = {agent.name: agent for agent in agents}
    async with asyncio.TaskGroup() as scenes:
        for name, scene in (
            ("records-agent", _records_agent_reaches_too_far),
            ("payments-agent", _payment_over_the_limit),
            ("calendar-agent", _calendar_agent_runs_away),
            ("email-agent", _bulk_send),
            ("research-agent", _research_agent_wants_to_write),
        ):
            if agent := cast.get(name):
                scenes.create_task(scene(agent))
        for role in ROLES:
            if role.connection and (agent := cast.get(role.name)):
                scenes.create_task(_looks_people_up(agent))


async def _looks_people_up(agent: ExampleAgent) -> None:
    """Use the connected account now and then."""
    if not await agent.connected():
        return
    while not agent.stopping:
        await agent.run(lookup(agent.random))
        await agent.rest(_LOOKUP * agent.random.uniform(0.7, 1.6))


async def _records_agent_reaches_too_far(agent: ExampleAgent) -> None:
    """Request a deletion that was never granted, repeatedly."""
    await agent.rest(2.0)
    for pause in (4.0, 8.0, 30.0):
        await agent.run(deletion(88))
        await agent.rest(pause)
    while await _another_episode(agent):
        await agent.run(deletion(agent.random.randint(1, 200)))


async def _payment_over_the_limit(agent: ExampleAgent) -> None:
    """Request 4,200 USD, which a person decides; later invoices follow."""
    await agent.rest(4.0)
    invoice = _FIRST_INVOICE
    await agent.run(payment(invoice, 4_200))
    while await _another_episode(agent):
        if agent.waiting == 0:
            invoice += 1
            await agent.run(payment(invoice, agent.random.randint(2, 90) * 100))


async def _calendar_agent_runs_away(agent: ExampleAgent) -> None:
    """Book many meetings, each allowed."""
    await agent.rest(6.0)
    await _burst(agent, 40)
    while await _another_episode(agent):
        await _burst(agent, agent.random.randint(20, 40))


async def _burst(agent: ExampleAgent, meetings: int) -> None:
    for _ in range(meetings):
        await agent.run(booking(agent.random))
        await agent.rest(0.25)


async def _bulk_send(agent: ExampleAgent) -> None:
    """Write to 500 customers at once, which escalates."""
    await agent.rest(9.0)
    await agent.run(bulk_mail())
    while await _another_episode(agent):
        if agent.waiting == 0:
            await agent.run(bulk_mail())


async def _research_agent_wants_to_write(agent: ExampleAgent) -> None:
    """Ask to send mail, which it may not."""
    await agent.rest(12.0)
    await agent.run(mail(agent.random))
    while await _another_episode(agent):
        await agent.run(mail(agent.random))


async def _another_episode(agent: ExampleAgent) -> bool:
    """Wait for the next episode; False when the demo stops."""
    await agent.rest(_EPISODE * agent.random.uniform(0.7, 1.6))
    return not agent.stopping
