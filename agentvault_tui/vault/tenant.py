"""One tenant: how it is reached, where its endpoints are, how its clock runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from agentvault_tui.clock import Clock
from agentvault_tui.errors import TenantError
from agentvault_tui.model.claims import EXTENSIONS_PATH
from agentvault_tui.vault.discovery import Metadata, read_details_types, read_metadata
from agentvault_tui.vault.egress import route
from agentvault_tui.vault.issuer import check_issuer
from agentvault_tui.vault.refreshed import CachedDocument
from agentvault_tui.vault.reply import TenantReply
from agentvault_tui.vault.wire import Wire

Sleep = Callable[[float], Awaitable[None]]
"""Waits so many seconds; tests move a clock instead."""


class Tenant(Wire):
    """A tenant's HTTP, its metadata and its clock, shared by all clients of it."""

    def __init__(
        self,
        issuer: str,
        clock: Clock,
        *,
        local: str | None = None,
        timeout: float = 10.0,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """Name the tenant; nothing is sent yet.

        Args:
            issuer: as its discovery document has it, with or without the slash.
            clock: the only source of now.
            local: where on loopback it answers for *issuer*, if it does.
            timeout: seconds for each exchange, from the first byte to the last.
            sleep: how to wait.

        Raises:
            SettingsError: *issuer* is not one we may talk to.
        """
        self.issuer: Final = check_issuer(issuer)
        super().__init__(self.issuer, timeout, local=local)
        self.clock: Final = clock
        self.sleep: Final = sleep
        self.skew: float | None = None
        """Seconds by which the tenant's clock was ahead, at its last answer."""
        self._metadata = CachedDocument(self._fetch_metadata, clock)
        self._details_types = CachedDocument(self._fetch_details_types, clock)

    @property
    def way(self) -> str:
        """How this process reaches it: proxy and certificate authorities."""
        try:
            return str(route(self.local or self.issuer))
        except TenantError as error:
            return f"not at all: {error.what}"

    async def metadata(self) -> Metadata:
        """Return the endpoints, at most a day old.

        Raises:
            TenantError: the discovery document cannot be had or trusted.
        """
        return await self._metadata.get()

    async def details_types(self) -> frozenset[str]:
        """Return the types of details that its device flow shows, at most a day old.

        Raises:
            TenantError: the tenant cannot be asked.
        """
        return await self._details_types.get()

    async def probe(self) -> bool:
        """Fetch the discovery document; tell whether that worked."""
        try:
            await self._fetch_metadata()
        except TenantError:
            return False
        return True

    def _note(self, reply: TenantReply) -> None:
        super()._note(reply)
        if reply.date is not None:
            self.skew = (reply.date - self.clock.now()).total_seconds()

    async def _fetch_metadata(self) -> Metadata:
        url = f"{self.issuer}.well-known/openid-configuration"
        return read_metadata(await self.send("GET", url), self.issuer)

    async def _fetch_details_types(self) -> frozenset[str]:
        url = f"{self.issuer}{EXTENSIONS_PATH.removeprefix('/')}"
        return read_details_types(await self.send("GET", url), self.issuer)
