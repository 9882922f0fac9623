"""Registers the demo's clients, runs the agents, and waits for them to finish."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Final

import httpx

from agentvault_tui.demo import people, workspace
from agentvault_tui.demo.agents import ExampleAgent
from agentvault_tui.demo.client import OAuthClient
from agentvault_tui.demo.operator import AgentCredentials, Operator, Record
from agentvault_tui.demo.processes import Ready, ask, write_private
from agentvault_tui.demo.roles import (
    ROLES,
    booking,
    bulk_mail,
    deletion,
    download,
    lookup,
    mail,
    named_roles,
    payment,
    search,
)
from agentvault_tui.demo.workspace import OwnersGuard, WorkspaceStore
from agentvault_tui.errors import AgentVaultError, ConflictError, UnreachableError

_LIMITS: Final = httpx.Limits(max_connections=64, max_keepalive_connections=64)


@dataclass(frozen=True, slots=True)
class Company:
    """The agents of this demo, by agent id."""

    agents: dict[str, ExampleAgent]
    store: WorkspaceStore
    stopping: asyncio.Event
    home: Path
    operator: Operator
    problems: list[str]
    """The problem that left the rest as it should be."""

    async def work(self, rate: float) -> None:
        """Run agents and scenario, *rate* ordinary decisions a second in all."""
        total = sum(agent.role.weight for agent in self.agents.values())
        async with asyncio.TaskGroup() as life:
            for agent in self.agents.values():
                life.create_task(agent.live(rate * agent.role.weight / total))
            life.create_task(_play_scenario(list(self.agents.values())))
        await asyncio.gather(*(agent.finish() for agent in self.agents.values()))

    async def connect(self, after_s: float = 0.0) -> None:
        """Connect the owners' accounts, some seconds later if so, or at the end.

        A command under way is never cancelled: it would still write to the home.
        """
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), after_s)
        self.problems.extend(
            await people.connect(self.home, self.operator, self.agents.items())
        )

    def compare(self, record: Record) -> None:
        """Compare the answers that each agent saw with the ledger's events."""
        for agent in self.agents.values():
            for decision_id, sent in agent.client.decided.items():
                held = record.decisions.get(decision_id, set())
                if not held or (sent and "allowed" not in held):
                    raise AgentVaultError(
                        f"{agent.name} saw the decision {decision_id}"
                        f"{' allowed' * sent}, and the ledger holds it as "
                        f"{sorted(held) or 'nothing'}"
                    )


async def register(
    home: Path, operator: Operator, count: int
) -> dict[str, AgentCredentials]:
    """Register *count* agents; those of an earlier run stay."""
    file = home / "demo" / "clients.json"
    credentials: dict[str, AgentCredentials] = {}
    if file.exists():
        stored = json.loads(file.read_text())
        credentials = {
            name: AgentCredentials(**fields) for name, fields in stored.items()
        }
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
    for name, description in wanted.items():
        if name in credentials:
            continue
        if name in taken:
            raise ConflictError(
                f"this home has an agent {name} that the demo did not register",
                "give the demo a home of its own",
            )
        credentials[name] = await operator.register(description)
    write_private(
        file, json.dumps({name: asdict(entry) for name, entry in credentials.items()})
    )
    return {name: credentials[name] for name in wanted}


_CONTACTS: Final = """\
# What is asked there is asked with the token of the agent's connected account.
origin = "{origin}"
allow_http = true
allow_private = true

[credential]
kind = "connection"
connection = "workspace"

[[routes]]
method = "GET"
path = "/contacts"
scope = "read:contacts"
resource = "contacts"
"""


_ALERTS: Final = """\
# Every event as an OCSF record a line, in the home; docs/alerts.md has other sinks.
[sinks.events]
kind = "file"
path = "events.jsonl"
"""

_CEILINGS: Final = """\
# How much may be done in rolling windows: docs/limits.md. The first burst of meetings
# stays below this one, the next goes over it.
[[limits]]
id = "bookings-an-hour"
scopes = ["write:calendar"]
per = "agent"
within = "1h"
count = 80
over = "deny"

# Payments of all services together, in dollars and not in cents: the workspace's file
# states that it writes cents.
[[limits]]
id = "payments-a-day"
scopes = ["send:payment"]
per = "all"
within = "24h"
amount_major = 500
currency = "USD"
"""


_STRICTER: Final = """
@id("mails-to-several-need-step-up")
@why("It reaches more than one person.")
@obligation("step_up")
permit (principal, action == Action::"send:email", resource)
when { context has recipients && context.recipients > 1 };
"""


async def set_shadow_policy(home: Path) -> None:
    """Let a stricter policy decide next to the one in effect, which answers."""
    file = home / "demo" / "stricter.cedar"
    if not file.exists():
        text = (await ask(home, "policy", "show"))["text"]
        write_private(file, text + _STRICTER)
        await ask(home, "policy", "shadow", str(file))


def write_limits_and_sinks(home: Path) -> None:
    """Write them before the broker starts: new limits would void waiting requests."""
    for name, text in (("alerts.toml", _ALERTS), ("limits.toml", _CEILINGS)):
        if not (home / name).exists():
            write_private(home / name, text)


async def put_behind_the_gateway(home: Path, origin: str) -> None:
    """Write the service files of the workspace at *origin*."""
    folder = home / "services"
    if not folder.exists():
        folder.mkdir(mode=0o700)
    write_private(folder / "contacts.toml", _CONTACTS.format(origin=origin))
    line = ("services", "import", "workspace", "--origin", origin, "--force")
    await ask(home, *line)


@contextlib.asynccontextmanager
async def open_workspace() -> AsyncIterator[Workspace]:
    """Serve the workspace, which takes a key that only the gateway has."""
    place = Workspace(secrets.token_urlsafe(), WorkspaceStore())
    async with _http() as inward:
        owners = OwnersGuard(lambda: place.provider, inward)
        app = workspace.application(place.key, owners, place.store)
        async with workspace.serving(app) as place.url:
            yield place


@dataclass(slots=True)
class Workspace:
    """The API of this demo."""

    key: str = field(repr=False)
    store: WorkspaceStore
    url: str = ""
    provider: str = ""
    """The provider whose tokens it takes for owners' accounts, once that is known."""


@contextlib.asynccontextmanager
async def open_company(
    home: Path,
    ready: Ready,
    place: Workspace,
    clients: dict[str, AgentCredentials],
    operator: Operator,
    *,
    seed: int,
) -> AsyncIterator[Company]:
    """Give the gateway the workspace's key, and create the agents."""
    stopping = asyncio.Event()
    async with _http() as inward:
        place.provider = await _provider(ready.tenant, inward)
    await operator.keep_secret("workspace", place.key)
    if (asks := clients.get(_ASKS)) and (helper := clients.get(_HELPS)):
        await operator.delegate(asks.agent_id, helper.agent_id, _SEARCHES)
    async with httpx.AsyncHTTPTransport(limits=_LIMITS) as outward:
        agents = {
            clients[name].agent_id: ExampleAgent(
                name,
                role,
                OAuthClient(
                    ready.agents_url,
                    clients[name].client_id,
                    clients[name].client_secret,
                    outward,
                ),
                # Reproducible, and no secret depends on it.
                random=Random(f"{seed}:{name}"),  # noqa: S311 - same
                stopping=stopping,
            )
            for name, role in named_roles(len(clients))
        }
        yield Company(agents, place.store, stopping, home, operator, [])


async def _provider(issuer: str, http: httpx.AsyncClient) -> str:
    """Return the provider that the tenant names."""
    try:
        reply = await http.get(f"{issuer}agentvault/metadata")
        return str(reply.json()["workspace_authorization_server"])
    except (httpx.TransportError, ValueError, KeyError) as error:
        raise UnreachableError("the demo's tenant does not answer") from error


def _http() -> httpx.AsyncClient:
    # No proxy from the environment: everything here is on loopback. Waiting for a
    # free connection is not a fault, so it has no time limit.
    return httpx.AsyncClient(
        trust_env=False,
        timeout=httpx.Timeout(30.0, pool=None),
        limits=_LIMITS,
    )


_FIRST_INVOICE: Final = 1881
_EPISODE: Final = 75.0
"""Seconds from one unusual thing to the next, once the first minute is over."""
_ASKS, _HELPS, _SEARCHES = "calendar-agent", "research-agent", "read:calendar"
"""The delegations: from, to, and the scope."""
_SEARCH: Final = 30.0
"""Seconds from one search by another to the next."""
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
            ("research-agent", _research_agent_takes_everything),
        ):
            if agent := cast.get(name):
                scenes.create_task(scene(agent))
        if (asks := cast.get(_ASKS)) and (helper := cast.get(_HELPS)):
            scenes.create_task(_search_by_another(asks, helper))
        for role in ROLES:
            if role.connection and (agent := cast.get(role.name)):
                scenes.create_task(_looks_people_up(agent))


async def _looks_people_up(agent: ExampleAgent) -> None:
    """Use the connected account now and then."""
    if not await agent.connected():
        return
    while not agent.stopping:
        await agent.run(lookup())
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
    """Request 42.00 USD, which a person decides; later invoices follow."""
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


async def _research_agent_takes_everything(agent: ExampleAgent) -> None:
    """Ask to send mail, which it may not; then download all there is, which it may."""
    await agent.rest(12.0)
    await agent.run(mail(agent.random))
    await agent.rest(6.0)
    await agent.run(download())
    while await _another_episode(agent):
        await agent.run(mail(agent.random))
        if agent.waiting == 0:
            await agent.run(download())


async def _search_by_another(agent: ExampleAgent, helper: ExampleAgent) -> None:
    """Have another agent look through the calendar, with a token for that alone."""
    await agent.rest(20.0)
    while not agent.stopping:
        await agent.have_done(helper, search(), _SEARCHES)
        await agent.rest(_SEARCH * agent.random.uniform(0.7, 1.6))


async def _another_episode(agent: ExampleAgent) -> bool:
    """Wait for the next episode; False when the demo stops."""
    await agent.rest(_EPISODE * agent.random.uniform(0.7, 1.6))
    return not agent.stopping
