"""Alerts, exports, metrics and advice of one broker, as `serve` composes them."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.routing import Route

from agentvault_tui.broker.authority import Authority
from agentvault_tui.broker.core import Broker
from agentvault_tui.watch import advice_api, metrics, policy_api
from agentvault_tui.watch.alerts import Alerts
from agentvault_tui.watch.jobs import Jobs
from agentvault_tui.watch.senders import OpenSecret
from agentvault_tui.watch.shadow import Shadow
from agentvault_tui.watch.trials import Trials
from agentvault_tui.web import Listener, Server


class LedgerWatch:
    """Alerts, exports and metrics of one broker; see `Extension`."""

    def __init__(self, broker: Broker, secret: OpenSecret) -> None:
        """Read nothing yet; *secret* opens a sealed one by its name."""
        self.broker = broker
        self.alerts = Alerts(broker, secret)
        self._jobs = Jobs(broker)
        self._shadow = Shadow(broker)
        self._trials = Trials(broker)

    @property
    def warnings(self) -> list[str]:
        """Say what is not in force as it stands, and which sinks do not work."""
        return self.alerts.warnings

    async def start(self) -> None:
        """Read the home's files, and what the last process kept."""
        await self.alerts.start()
        self._shadow.restore()
        await self._trials.restore()

    async def listen(self, server: Server, agents: Listener) -> Mapping[str, object]:
        """Serve metrics on loopback too, where the settings say so."""
        del agents
        return await metrics.listen(self.broker, server)

    async def look(self) -> None:
        """Read changed files and new events, and send what is due."""
        await self.alerts.look()
        await self._shadow.look()

    def operator_routes(self, authority: Authority) -> list[Route]:
        """Return what it adds to the operators' HTTP."""
        return [
            metrics.route(self.broker),
            *self.alerts.routes(authority),
            *policy_api.routes(self.broker, authority, self._jobs, self._shadow),
            *advice_api.routes(self.broker, authority, self._jobs, self._trials),
        ]

    async def aclose(self) -> None:
        """End what is under way."""
        await self.alerts.aclose()
        await self._shadow.aclose()
