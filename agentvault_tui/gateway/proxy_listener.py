"""Where the forward proxy listens: always, or only while an operator runs something."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterable, Mapping
from typing import Final

from agentvault_tui.broker.core import Broker
from agentvault_tui.errors import ConflictError
from agentvault_tui.gateway.admission import Admission
from agentvault_tui.gateway.app import misdirected
from agentvault_tui.gateway.calls import Calls
from agentvault_tui.gateway.forward import Forwarder
from agentvault_tui.gateway.proxy import LIMITS, Proxy, ProxyAcceptor
from agentvault_tui.gateway.runs import CommandRun, Runs
from agentvault_tui.gateway.services import Service
from agentvault_tui.model import AgentId
from agentvault_tui.origins import parse_listen
from agentvault_tui.web import Listener, Server, loopback_pair
from agentvault_tui.web.local_ca import ProxyAuthority
from agentvault_tui.web.port_holder import port_holder

log = logging.getLogger("agentvault.gateway")

USUAL: Final = ("127.0.0.1", 7718)
"""Its place, unless the settings say another one."""


class ProxyListener:
    """The forward proxy of one broker, and the runs that use it."""

    def __init__(
        self,
        broker: Broker,
        forwarder: Forwarder,
        admission: Admission,
        calls: Calls,
        services: Iterable[Service],
    ) -> None:
        """Listen nowhere yet; see `Proxy` for the others."""
        self._broker = broker
        self._parts = forwarder, admission, calls, services
        self.runs = Runs(broker, self._run_ended)
        self.proxy: Proxy | None = None
        self._server: Server | None = None
        self._agents: Listener | None = None
        self._listener: Listener | None = None
        self._turn = asyncio.Lock()
        self.notices: list[str] = []
        """Notices for operators: which process has the usual port."""

    async def serve(self, server: Server, agents: Listener) -> Mapping[str, object]:
        """Listen on *server*, where the settings say so.

        Args:
            server: of this process.
            agents: where the broker itself is reached.

        Returns:
            its members of the first line of ``serve``.

        Raises:
            ConflictError: its port is taken.
            SettingsError: its authority cannot be written.
        """
        self._server, self._agents = server, agents
        if not self._broker.settings.gateway.proxy:
            return {"proxy_url": None, "ca_file": None}
        url, authority = await self.open()
        return {"proxy_url": url, "ca_file": str(authority.published)}

    async def open(self) -> tuple[str, ProxyAuthority]:
        """Listen, if that is not so yet; return the URL, and who vouches for services.

        Raises:
            ConflictError: its port is taken, or this broker serves nothing.
            SettingsError: its authority cannot be written.
        """
        async with self._turn:
            broker = self._broker
            if self._server is None or self._agents is None:
                raise ConflictError("this broker does not serve")
            if self.proxy is None:
                self.proxy = Proxy(
                    *self._parts,
                    self.runs,
                    agents=self._agents,
                    authority=ProxyAuthority(broker.home, broker.clock),
                    pass_through=broker.settings.gateway.passed,
                )
            if self._listener is None:
                proxy = self.proxy
                # In a thread: it may look at each process of this machine.
                bound, held = await asyncio.to_thread(self._socket)
                self._listener = await self._server.listen(
                    proxy,
                    bound,
                    limits=LIMITS,
                    shape=misdirected,
                    held=held,
                    acceptor=lambda listener, at: ProxyAcceptor(proxy, listener, at),
                )
            return self._listener.url, self.proxy.authority

    def _socket(self) -> tuple[socket.socket, socket.socket | None]:
        settings = self._broker.settings
        wanted = settings.gateway.proxy
        if wanted not in {"", "auto"}:
            host, port = parse_listen(wanted)
            try:
                return loopback_pair(host, port)
            except ConflictError as error:
                held = f"{error.what}, by {port_holder(port)}"
                raise ConflictError(held, error.remedy) from error
        self.notices = []
        if wanted == "auto" and settings.broker.address[1]:
            try:
                return loopback_pair(*USUAL)
            except ConflictError:
                notice = (
                    f"The forward proxy's port {USUAL[1]} is taken by"
                    f" {port_holder(USUAL[1])}: it listens at another port, and what is"
                    " sent there reaches that process."
                )
                log.warning("%s", notice)
                self.notices.append(notice)
        return loopback_pair(USUAL[0], 0)

    async def look(self) -> None:
        """End abandoned runs; close a proxy that only they needed."""
        await self.runs.look()
        async with self._turn:
            listener, server = self._listener, self._server
            if listener is None or server is None or any(self.runs):
                return
            if not self._broker.settings.gateway.proxy:
                self._listener, self.notices = None, []
                await server.drop(listener)

    def cut(self, agent_id: AgentId | None, scopes: frozenset[str] | None) -> None:
        """Close tunnels and end runs; where scopes changed, runs get a token again."""
        self.runs.cut(agent_id, scopes)
        if scopes is None and self.proxy is not None:
            self.proxy.cut(agent_id)

    def _run_ended(self, run: CommandRun) -> None:
        if self.proxy is not None:
            self.proxy.cut_run(run)
