"""Alerts of a broker in process, and an HTTP server that stands in for sinks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from support.bench import Bench
from support.gateway_stand import Received, Upstream
from support.patience import PATIENT

from agentvault_tui.errors import NotFoundError
from agentvault_tui.origins import ServerOrigin
from agentvault_tui.settings import Settings
from agentvault_tui.vault import Secret
from agentvault_tui.watch import LedgerWatch
from agentvault_tui.watch.alerts import Alerts
from agentvault_tui.watch.outbox import Follower

WEBHOOK_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class AlertStand:
    """Alerts of one broker, whose secrets are those of a test."""

    def __init__(self, bench: Bench, server: Upstream) -> None:
        self.bench, self.server = bench, server
        self.secrets = {"hook": WEBHOOK_SECRET}
        self.watch = LedgerWatch(bench.broker, self.secret)
        bench.broker.extensions.watch = self.watch

    @property
    def alerts(self) -> Alerts:
        return self.watch.alerts

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    def secret(self, name: str, _: Sequence[ServerOrigin] | None) -> Secret:
        if name not in self.secrets:
            raise NotFoundError(f"there is no secret {name}", "set it")
        return Secret(self.secrets[name])

    def write(self, routes: str, *, sinks: str = "") -> None:
        """Write alerts.toml: the sink ``hook``, more *sinks*, and *routes*."""
        hook = (
            f'[sinks.hook]\nkind = "webhook"\nurl = "{self.url}/in"\n'
            'secret = "hook"\nallow_private = true\n'
        )
        self.bench.home.alerts_file.write_text(f"{hook}{sinks}\n[[routes]]\n{routes}\n")

    async def start(self, routes: str, *, sinks: str = "") -> None:
        self.write(routes, sinks=sinks)
        await self.watch.start()
        await self.bench.record_start()

    @property
    def received(self) -> list[dict[str, Any]]:
        return [json.loads(one.body) for one in self.server.received]

    @property
    def kinds(self) -> list[str]:
        return [one["type"] for one in self.received]

    async def until(self, done: Callable[[], bool]) -> None:
        """Look, as upkeep does, until *done*."""
        async with asyncio.timeout(PATIENT):
            while not done():
                await self.watch.look()
                await asyncio.sleep(0.001)

    @property
    def followers(self) -> list[Follower[Any]]:
        """Return the followers of all sinks."""
        destinations = self.alerts.destinations
        return [one for key in destinations for one in destinations.followers(key)]

    async def settle(self) -> None:
        """Look until every sink has seen the whole chain or waits to try again."""

        def done() -> bool:
            return not any(one.due for one in self.followers)

        await self.until(done)

    @asynccontextmanager
    async def restarted(
        self,
        *,
        killed: bool = False,
        edit: Callable[[], object] = lambda: None,
        settings: Settings | None = None,
    ) -> AsyncIterator[AlertStand]:
        """Run the alerts of another process on the same home, in place of these.

        Args:
            killed: whether these end without a stop.
            edit: called while no process runs.
            settings: of the other process.
        """
        if not killed:
            await self.watch.aclose()
        async with self.bench.restarted(settings, edit) as bench:
            again = AlertStand(bench, self.server)
            again.secrets = self.secrets
            await again.watch.start()
            await bench.record_start()
            yield again
            await again.watch.aclose()


def answering(*statuses: int, headers: str = "") -> Callable[..., Any]:
    """Answer each request with the next status; the last one stays."""
    left = list(statuses)

    async def answer(_: Received, writer: asyncio.StreamWriter) -> None:
        status = left.pop(0) if len(left) > 1 else left[0]
        head = f"HTTP/1.1 {status} Word\r\nContent-Length: 0\r\n{headers}\r\n"
        writer.write(head.encode())

    return answer
