"""The data plane of one broker: its configuration, and its routes for operators."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Final

from starlette.routing import Route

from agentvault_tui.authorities import file_digest
from agentvault_tui.broker.audience import PREFIX as MCP_PREFIX
from agentvault_tui.broker.audience import hosts_of
from agentvault_tui.broker.authority import Authority
from agentvault_tui.broker.core import SYSTEM, Broker
from agentvault_tui.broker.extensions import CallsCut
from agentvault_tui.broker.riders import riding
from agentvault_tui.broker.team import Team
from agentvault_tui.broker.team_authorities import TeamAuthorities
from agentvault_tui.broker.team_copies import put
from agentvault_tui.broker.team_files import file_draft
from agentvault_tui.errors import LedgerError
from agentvault_tui.gateway import hooks, operators, runs_api
from agentvault_tui.gateway.admission import Admission
from agentvault_tui.gateway.agents_hooks import PREFIX as HOOKS
from agentvault_tui.gateway.agents_hooks import AgentsHooks
from agentvault_tui.gateway.app import PREFIX, GatewayApp, misdirected
from agentvault_tui.gateway.applied import APPLYING, AppliedServices
from agentvault_tui.gateway.body import WORKERS
from agentvault_tui.gateway.call import Call
from agentvault_tui.gateway.calls import Calls
from agentvault_tui.gateway.config_folder import ConfigFolder
from agentvault_tui.gateway.credentials import Credentials
from agentvault_tui.gateway.file_edits import RECORDED, FileEdits
from agentvault_tui.gateway.forward import Forwarder
from agentvault_tui.gateway.mcp import METADATA, McpApp, McpProcesses, McpServers
from agentvault_tui.gateway.mcp.servers import other_tool
from agentvault_tui.gateway.proxy_listener import ProxyListener
from agentvault_tui.gateway.refusals import lease_over
from agentvault_tui.gateway.routes import other_reading
from agentvault_tui.gateway.same_as import beginnings_of
from agentvault_tui.gateway.secret_origins import SecretOrigins
from agentvault_tui.gateway.secrets import Secrets
from agentvault_tui.gateway.services import Service, ServiceHealth, Services
from agentvault_tui.gateway.spool import SpoolRoom
from agentvault_tui.gateway.team_calls import TeamCalls
from agentvault_tui.gateway.tools import ToolMaps
from agentvault_tui.gateway.upstream import IdleConnections, Upstream
from agentvault_tui.ledger import Change, Meta
from agentvault_tui.ledger.store_calls import StoreCalls
from agentvault_tui.model import (
    Action,
    Actor,
    AgentId,
    Draft,
    EventType,
    TokenId,
    sha256_hex,
)
from agentvault_tui.operator_api.shapes import WireShape
from agentvault_tui.web import Listener, Server
from agentvault_tui.web.guard import StreamingApp
from agentvault_tui.web.places import file_limit
from agentvault_tui.web.service_connection import UpstreamError

log = logging.getLogger("agentvault.gateway")


_FILES: Final = 2_048
"""Connections: those of agents, and as many to services."""


class Gateway:
    """Agents act through it; it asks the broker's use-cases."""

    def __init__(
        self,
        broker: Broker,
        tell: Callable[[str, Callable[[], WireShape]], None] | None = None,
    ) -> None:
        """Serve the files in the home of *broker*; nothing is read yet.

        Args:
            broker: the broker that decides and records.
            tell: sends events that are in no ledger to the listening consoles.
        """
        self.broker, deciding = broker, broker.deciding
        self.services = Services(broker.home, lambda: deciding.policy.catalogue)
        self.mcp_servers = McpServers(broker.home, lambda: deciding.policy.catalogue)
        self.secrets = _secrets_of(broker)
        used_by = self.services, self.mcp_servers
        self.origins = SecretOrigins(broker, self.secrets, *used_by)
        self.health: dict[str, ServiceHealth] = {}
        """By service; a call that ends says so here."""
        self.calls = Calls(broker, tell, self._note_health)
        self.admission = Admission(broker, self.calls)
        self._upstreams: dict[tuple[str, AgentId | None], Upstream] = {}
        self._idle = IdleConnections()
        reached = self.origins.check, self.upstream
        self.credentials = Credentials(broker, self.secrets, *reached)
        self.forwarder = Forwarder(
            self.calls,
            self.admission,
            self.services,
            self.credentials,
            upstream=self.upstream,
            spools=SpoolRoom(broker.home.run, broker.settings.gateway.hold_bytes),
        )
        acting = self.forwarder, self.admission, self.calls, self.services
        self.proxy = ProxyListener(broker, *acting)
        self.calls.observe = self.proxy.runs.observe
        self.tools = ToolMaps(broker.home, lambda: deciding.policy.catalogue)
        self._mcp_processes = McpProcesses(broker.clock)
        self._mcp = McpApp(
            broker,
            calls=self.calls,
            admission=self.admission,
            servers=self.mcp_servers,
            processes=self._mcp_processes,
            credentials=self.credentials,
            upstream=self.upstream,
        )
        self._folders: tuple[ConfigFolder[Any], ...]
        self._folders = self.services, self.tools, self.mcp_servers
        self._edits = FileEdits(broker, self._folders, self.look)
        self.admission.readings += self._readings()
        self._catalogue = deciding.policy.catalogue.version
        self._reported: list[str] = []
        self._turn, self._reading = asyncio.Lock(), asyncio.Lock()
        """`_reading` is held while files are read, never while one is recorded."""
        self._applied = AppliedServices(broker, self.services)
        self.team_calls: TeamCalls | None = None
        """The calls of all brokers of a team, where this is one."""
        self._telling: asyncio.Task[None] | None = None
        self._join_team(tell)

    def _readings(self) -> list[Callable[[Action, object], str | None]]:
        """Return the function that finds another request of an approved action."""
        return [
            partial(other_reading, self.services),
            partial(other_tool, self.mcp_servers),
        ]

    def _join_team(
        self, tell: Callable[[str, Callable[[], WireShape]], None] | None
    ) -> None:
        broker = self.broker
        self._authorities = TeamAuthorities(broker, "services")
        if broker.team.key is not None:
            broker.team.key.seals_anew.append(self._seal_anew)
        if (files := broker.team.files) is not None:
            for folder in self._folders:
                folder.follow(files)
            self.secrets.follow(files)
            files.on_change.append(self._read)
        team, shared = broker.team.brokers, broker.ledger.shared
        if isinstance(team, Team) and shared is not None:
            store = StoreCalls(shared, team.run_id)
            self.team_calls = TeamCalls(broker, team, store, self.calls, tell)
            shared.on_asked = self.team_calls.wake

    @property
    def warnings(self) -> list[str]:
        """Say which files are not in effect, and which secrets may not be sent."""
        problems = [one for folder in self._folders for one in folder.warnings]
        return [*problems, *self.secrets.warnings, *self.origins.warnings]

    @property
    def notices(self) -> list[str]:
        """Notices for operators, such as which process has the forward proxy's port."""
        return [*self.proxy.notices, *self._edits.notices]

    @property
    def in_flight(self) -> int:
        """How many calls are under way."""
        return sum(1 for _ in self.calls)

    async def start(self) -> None:
        """Read all files and record those that differ from the ledger's record."""
        file_limit(_FILES)
        await self._applied.finish()
        await self.secrets.finish(self.broker.ledger)
        await asyncio.to_thread(self._applied.renew)
        await self.broker.team.look_at_files()
        await self._read()
        await self._record()
        await self.origins.look()
        await self.calls.recover()
        if self.team_calls is not None:
            self._telling = asyncio.create_task(self.team_calls.run())

    async def look(self) -> None:
        """Put changed files in effect, also where another catalogue changed them."""
        async with self._turn:
            await self._look()

    async def _read(self) -> None:
        """Put the files' present texts in effect."""
        async with self._reading:
            version = self.broker.deciding.policy.catalogue.version
            team = self.broker.team.files
            if version != self._catalogue:
                self._catalogue = version
                if team is not None:
                    team.copies.check_again()
                for folder in self._folders:
                    folder.parse_again()
            await self._edits.look()
            for folder in self._folders:
                if folder.changed():
                    # In a thread: hundreds of routes take longer than a call may wait.
                    await asyncio.to_thread(folder.reload)
            self.broker.deciding.same_as.put(
                (beginnings_of(one.name, one.resources), one.same_as)
                for one in self.services
            )

    async def _look(self) -> None:
        await self.broker.team.look_at_files()
        await self._read()
        await self._record()
        await self.origins.look()
        self._mcp_processes.keep(frozenset(one.name for one in self.mcp_servers))
        if self.warnings != self._reported:
            self._reported = self.warnings
            for warning in self._reported:
                log.warning("%s", warning)
            self.broker.health.changed()
        await self.calls.look()
        await self.proxy.look()
        await self._mcp.record()

    async def listen(self, server: Server, agents: Listener) -> Mapping[str, object]:
        """Serve the forward proxy; see `ProxyListener.serve`."""
        return await self.proxy.serve(server, agents)

    @property
    def _hooks(self) -> hooks.HookDecider:
        parts = self.tools, self.mcp_servers, self.calls
        return hooks.HookDecider(self.broker, *parts)

    def streaming_apps(self) -> Mapping[bytes, StreamingApp]:
        """Return its apps at the agents' listener."""
        return {
            PREFIX: StreamingApp(
                GatewayApp(
                    self.forwarder,
                    self.broker.deciding.surroundings.source_of,
                    lambda: hosts_of(self.broker.admitting.url),
                ),
                misdirected,
            ),
            HOOKS: StreamingApp(
                AgentsHooks(
                    self._hooks, self.admission, self.broker.deciding.surroundings
                ),
                misdirected,
            ),
            MCP_PREFIX.encode(): StreamingApp(self._mcp, misdirected),
            f"{METADATA}{MCP_PREFIX}".encode(): StreamingApp(
                self._mcp.metadata, misdirected
            ),
        }

    def cut(
        self,
        agent_id: AgentId | None,
        scopes: frozenset[str] | None = None,
        by: Actor | None = None,
    ) -> CallsCut:
        """Cancel calls in flight, and forget tokens that were fetched for the agent."""
        cancelled = self.calls.cut(agent_id, scopes, by)
        self.proxy.cut(agent_id, scopes)
        if scopes is None:
            self.credentials.drop(agent_id)
            self._mcp.cut(agent_id)
            self._idle.close_of(agent_id)
            for key in list(self._upstreams):
                if key[1] is not None and agent_id in {None, key[1]}:
                    self._upstreams.pop(key).retire()
        return cancelled

    def end_lease(self) -> None:
        """End all calls in flight; see `DataPlane.end_lease`."""
        self.calls.stop(lease_over().text)

    def over(self, call_id: str) -> None:
        """End one call, without a record; see `DataPlane.over`."""
        self.calls.over(call_id)

    def cut_tokens(self, tokens: Collection[TokenId]) -> CallsCut:
        """Cut calls in flight made with one of *tokens*, which have ended."""
        self._mcp.cut_tokens()
        return self.calls.cut_tokens(tokens)

    def service_texts(self) -> dict[str, str]:
        """Return the texts of the service files in effect, by name."""
        return self._applied.texts()

    async def changed_services(
        self, wanted: Mapping[str, str]
    ) -> dict[str, str | None]:
        """Return the texts before of service files that would change, by name."""
        return await self._applied.changed(wanted)

    @asynccontextmanager
    async def put_services(
        self, texts: Mapping[str, str], operator: Actor, digest: str
    ) -> AsyncIterator[tuple[list[Draft], list[Change]]]:
        """Write service files when a block ends that records the yielded rows."""
        if (team := self.broker.team.files) is not None:
            files = {f"services/{name}.toml": text for name, text in texts.items()}
            yield team.change(files, operator, applied=digest)
            await team.tell()
            await team.look()  # which writes this home's copies
            return
        async with self._turn:
            stored = self.broker.recording.meta.get(RECORDED, "{}")
            recorded: dict[str, str] = json.loads(stored)
            now = self._applied.digests(texts)
            drafts = [
                file_draft(file, recorded.get(file), after, operator, applied=digest)
                for file, after in sorted(now.items())
            ]
            encoded = json.dumps(recorded | now)
            yield drafts, [Meta(RECORDED, encoded), self._applied.mark(texts)]
            self.broker.recording.meta[RECORDED] = encoded
            await asyncio.to_thread(self._applied.write, texts)
            await self._look()
            await self.broker.record(changes=[Meta(APPLYING, None)])

    async def held_body(self, stepup_id: str) -> bytes | None:
        """Return the body of a held call; see `DataPlane.held_body`."""
        held = self.calls.bodies.of(stepup_id)
        if held is None and self.team_calls is not None:
            held = await self.team_calls.body(stepup_id)
        return held

    async def aclose(self) -> None:
        """End the calls in flight, and every connection to a service."""
        await self.calls.aclose()
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.gather(self._telling, return_exceptions=True)
        await self._mcp_processes.aclose()
        with suppress(LedgerError):
            await self._mcp.record(ending=True)
        for upstream in self._upstreams.values():
            await upstream.aclose()
        await asyncio.to_thread(WORKERS.close)

    async def _seal_anew(self) -> None:
        await self.secrets.change(
            lambda: self.secrets.seal_anew(SYSTEM), self.broker.record
        )

    def upstream(self, service: Service, agent_id: AgentId | None) -> Upstream:
        """Return how *service* is reached, as its file is now.

        Args:
            service: the service.
            agent_id: the agent of the credential, if it is one's own.

        Raises:
            UpstreamError: the system's authorities cannot be read.
        """
        key = service.name, agent_id
        upstream = self._upstreams.get(key)
        if upstream is None or upstream.service is not service:
            if upstream is not None:
                upstream.retire()
            try:
                upstream = self._upstreams[key] = Upstream(
                    service, idle=self._idle, pace=self.admission.pace_slow
                )
            except OSError:
                text = "the service's certificate authorities cannot be read"
                raise UpstreamError(502, "upstream_unreachable", text) from None
        return upstream

    def _note_health(self, call: Call) -> None:
        """Note how the last call to a service went."""
        if call.result is not EventType.GATEWAY_RESULT:
            return
        problem = call.problem if call.ended in {"failed", "unknown"} else None
        self.health[call.service] = ServiceHealth(self.broker.clock.now(), problem)

    def operator_routes(self, authority: Authority) -> list[Route]:
        """Return its routes of the operators' HTTP."""

        def service_now(name: str) -> str:
            return sha256_hex(self.service_texts().get(name, ""))

        base = self.broker.home.config
        states = self.broker.extensions.states
        states["service"] = service_now
        states["ca_file"] = lambda path: file_digest(Path(path), base)
        return [
            *operators.routes(self, authority),
            *hooks.routes(self._hooks, authority),
            *runs_api.routes(
                self.broker, self.proxy, self.services, authority, self.look
            ),
        ]

    async def _record(self) -> None:
        """Record which files are in effect now and were not, over restarts too."""
        if self.broker.team.files is not None:
            # Whoever changed one has recorded it, but for this machine's authorities.
            folders = (folder.texts().items() for folder in self._folders)
            await self._authorities.look(dict(chain.from_iterable(folders)))
            return
        recording = self.broker.recording
        recorded: dict[str, str] = json.loads(recording.meta.get(RECORDED, "{}"))
        await self._edits.ask()
        held = {path for folder in self._folders for path in folder.held}
        now = {path: recorded[path] for path in held & recorded.keys()}
        now |= {key: sha for folder in self._folders for key, sha in folder.digests()}
        rider = riding()
        actor = rider.actor if rider else SYSTEM
        drafts = [
            file_draft(file, recorded.get(file), now.get(file), actor, opens=opens)
            for file in sorted(recorded.keys() | now.keys())
            if recorded.get(file) != now.get(file)
            for opens in [self._edits.opened_by(file) is not None]
        ]
        rows = self._edits.rows()
        # An empty list too: from then on a new file is an edit (`FileEdits.look`).
        if not drafts and not rows and RECORDED in recording.meta:
            return
        rows.append(Meta(RECORDED, json.dumps(now)))
        try:
            await self.broker.record(*drafts, changes=rows)
        except LedgerError as error:
            log.warning("changed files are recorded later: %s", error.what)
        else:
            for row in rows:
                put(recording.meta, row.key, row.value)


def _secrets_of(broker: Broker) -> Secrets:
    """Return the sealed secrets of a broker, which opens them for its rooms."""
    shared = broker.team.key is not None
    secrets = Secrets(
        broker.home, broker.clock, shared=shared, cached=broker.recording.meta
    )
    broker.deciding.callouts.open_secret = secrets.open
    return secrets
