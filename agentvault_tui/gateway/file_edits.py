"""Edits of service, MCP and host files wait for an approver, where a factor is asked.

Such a file says where a secret goes, and which requests are which actions. A new text
counts once it is recorded or approved; until then the version before does, or nothing.
What is taken away counts at once, but for a host's file: the shipped one counts then.
"""

from __future__ import annotations

import json
import logging
import tomllib
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.policy_files import read_text
from agentvault_tui.broker.riders import text_change
from agentvault_tui.broker.socket_factor import asks_factor
from agentvault_tui.broker.team_copies import put
from agentvault_tui.broker.team_files import Loosens
from agentvault_tui.broker.usecases.changes import Asker, Wanted, ask
from agentvault_tui.errors import AgentVaultError, LedgerError
from agentvault_tui.gateway.config_folder import ConfigFolder
from agentvault_tui.ledger import Meta
from agentvault_tui.model import Actor, ActorKind, ChangedText, sha256_hex
from agentvault_tui.text import visible

log = logging.getLogger("agentvault.gateway")

EDIT: Final = "EDIT file"
"""Names the carrier of such a change, beside those of calls."""
_FILE: Final = Actor(ActorKind.SYSTEM, "file", "file")
_KIND: Final = "edited file"


class FileEdits:
    """Decides which texts of the gateway's files count."""

    def __init__(
        self,
        broker: Broker,
        folders: tuple[ConfigFolder[Any], ...],
        recorded: str,
        read_again: Callable[[], Awaitable[None]],
    ) -> None:
        """Admit every text until `look` is called.

        Args:
            broker: the broker.
            folders: whose files.
            recorded: the name in the ledger of the digests of what counted last.
            read_again: reads all files, and records those that count.
        """
        self._broker, self._folders = broker, folders
        self._recorded, self._read_again = recorded, read_again
        self._approved: set[tuple[str, str]] = set()
        """Path and SHA-256 of a text while its approved change is carried out."""
        self._asks = False
        for folder in folders:
            folder.admits = self._admits
        broker.states[_KIND] = self._on_disk
        broker.carriers[EDIT] = self._carry
        if broker.files is not None:
            names = (folder.name for folder in folders)
            broker.files.judges.update(dict.fromkeys(names, self._judge))

    async def look(self) -> None:
        """See whether new texts have to wait now, before files are read.

        In a team the store's texts count, and an edit waits before it is the store's
        (`team_edits`).
        """
        broker = self._broker
        known = broker.files is None and self._recorded in broker.kept
        if known and any(folder.changed() for folder in self._folders):
            self._asks = await asks_factor(broker)

    async def ask(self) -> None:
        """Ask a person about each text that waits."""
        for folder in self._folders:
            for path, text in folder.held.items():
                before, after = self._known.get(path), sha256_hex(text)
                wanted = Wanted(
                    ("services",),
                    f"edited on the broker's machine: {path}",
                    path,
                    (f"{_KIND}:{path}",),
                    (ChangedText(path, before, after),),
                    {"origin": _origin(text)},
                )
                request = {"path": {}, "body": {"file": path, "sha256": after}}
                asker = Asker(_FILE, _FILE)
                try:
                    await ask(self._broker, EDIT, request, wanted, asker)
                except AgentVaultError as error:  # the next look asks again
                    log.warning("an edit of %s waits: %s", path, error.what)

    @property
    def notices(self) -> list[str]:
        """Say which edits wait, or were not approved."""
        return [
            f"An edit of {path} counts only once an approver has proven a factor for"
            " it: agentvault stepup list"
            for path in self._held()
        ]

    async def forget(self) -> None:
        """Forget what counted before the ledger was a team's: its rows count now."""
        if self._recorded in self._broker.kept:
            with suppress(LedgerError):  # or at the next start
                await self._broker.record(changes=[Meta(self._recorded, None)])
                put(self._broker.kept, self._recorded, None)

    def _held(self) -> list[str]:
        files = self._broker.files
        held = [path for folder in self._folders for path in folder.held]
        return held + sorted(files.waiting if files is not None else ())

    def _judge(
        self, path: str, before: str | None, after: str | None
    ) -> Loosens | None:
        """Judge an edit of a team's file.

        What is taken away loosens nothing, but for a host's file: the shipped one
        counts then. Nor does a file that counted before the ledger was a team's.
        """
        if after is None and not path.startswith("hosts/"):
            return None
        if before is None and after and self._known.get(path) == sha256_hex(after):
            return None
        return Loosens(("services",), {"origin": _origin(after or "")})

    @property
    def _known(self) -> dict[str, str]:
        known: dict[str, str] = json.loads(self._broker.kept.get(self._recorded, "{}"))
        return known

    def _admits(self, path: str, sha256: str) -> bool:
        if not self._asks or (path, sha256) in self._approved:
            return True
        return self._known.get(path) == sha256

    def _on_disk(self, path: str) -> str:
        text = read_text(self._broker.home.config / path, self._broker.home.config)
        return f"{text_change(path, None, text).after} {self._known.get(path)}"

    async def _carry(self, request: Mapping[str, Any], _: Actor) -> bytes:
        approved = str(request["body"].get("file")), str(request["body"]["sha256"])
        self._approved.add(approved)
        try:
            for folder in self._folders:
                folder.parse_again()
            await self._read_again()
        finally:
            # Once: a text that is replaced and comes back is another change.
            self._approved.discard(approved)
        return b"{}"


def _origin(text: str) -> str:
    """Return where a file sends requests, for the person who approves it."""
    table = tomllib.loads(text)
    return visible(str(table.get("origin") or table.get("url") or "nowhere"), 200)
