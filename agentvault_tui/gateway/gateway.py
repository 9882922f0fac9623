"""The data plane of one broker: what is configured, and what it adds to operators."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any, Final

from starlette.routing import Route

from agentvault_tui.broker.authority import Authority
from agentvault_tui.broker.core import SYSTEM, Broker
from agentvault_tui.errors import LedgerError
from agentvault_tui.gateway import operators
from agentvault_tui.gateway.config_folder import ConfigFolder
from agentvault_tui.gateway.secrets import Secrets
from agentvault_tui.gateway.services import ServiceHealth, Services
from agentvault_tui.ledger import Meta
from agentvault_tui.model import Draft, EventType

log = logging.getLogger("agentvault.gateway")

_RECORDED: Final = "gateway_files"


class Gateway:
    """Agents act through it; it asks the broker's use-cases."""

    def __init__(self, broker: Broker) -> None:
        """Serve what the home of *broker* describes; nothing is read yet."""
        self.broker = broker
        self.services = Services(broker.home, lambda: broker.policy.catalogue)
        self.secrets = Secrets(broker.home, broker.clock)
        self.health: dict[str, ServiceHealth] = {}
        """By service; a call that ends says so here."""
        self._folders: tuple[ConfigFolder[Any], ...] = (self.services,)
        self._catalogue = broker.policy.catalogue.version
        self._told: list[str] = []

    @property
    def warnings(self) -> list[str]:
        """Say which files are not in force as they stand, and why."""
        return [one for folder in self._folders for one in folder.warnings]

    async def start(self) -> None:
        """Read all files and record those that are not what the ledger knows."""
        for folder in self._folders:
            folder.reload()
        await self._record()

    async def look(self) -> None:
        """Put changed files in force, also where another catalogue changed them."""
        version = self.broker.policy.catalogue.version
        if version != self._catalogue:
            self._catalogue = version
            for folder in self._folders:
                folder.parse_again()
        for folder in self._folders:
            if folder.changed():
                # In a thread: hundreds of routes take longer than a call may wait.
                await asyncio.to_thread(folder.reload)
        await self._record()
        if self.warnings != self._told:
            self._told = self.warnings
            for warning in self._told:
                log.warning("%s", warning)
            self.broker.on_status()

    def operator_routes(self, authority: Authority) -> list[Route]:
        """Return what it adds to the operators' HTTP."""
        return operators.routes(self, authority)

    async def _record(self) -> None:
        """Record which files are in force now and were not, over restarts too."""
        known: dict[str, str] = json.loads(self.broker.kept.get(_RECORDED, "{}"))
        now = {key: sha for folder in self._folders for key, sha in folder.digests()}
        drafts = [
            _changed(file, known.get(file), now.get(file))
            for file in sorted(known.keys() | now.keys())
            if known.get(file) != now.get(file)
        ]
        if not drafts:
            return
        kept = json.dumps(now)
        try:
            await self.broker.record(*drafts, changes=[Meta(_RECORDED, kept)])
        except LedgerError as error:
            log.warning("changed files are recorded later: %s", error.what)
        else:
            self.broker.kept[_RECORDED] = kept


def _changed(file: str, before: str | None, after: str | None) -> Draft:
    word = "added" if before is None else "changed" if after else "removed"
    return Draft(
        EventType.SERVICE_CHANGED,
        SYSTEM,
        resource=file,
        reason=word,
        detail={"file": file, "before": before, "after": after},
    )
