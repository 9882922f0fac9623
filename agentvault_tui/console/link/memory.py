"""Persists the last ledger head seen of each broker.

The broker's database and the head next to it can be replaced together; a console's
memory elsewhere still shows a missing tail or an older copy in its place.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

import platformdirs
from msgspec import Struct

from agentvault_tui.console.state.mirror import Mirror
from agentvault_tui.errors import SettingsError
from agentvault_tui.home import private_file, private_folder
from agentvault_tui.operator_api.async_client import AsyncOperatorClient
from agentvault_tui.operator_api.calls import AUDIT
from agentvault_tui.operator_api.requests import AuditQuery

if TYPE_CHECKING:
    from agentvault_tui.operator_api.remote import BrokerAddress


class SeenHead(Struct, frozen=True):
    """One head of the chain, as it was seen."""

    seq: int
    hash: str


class HeadStore:
    """The last head seen of one broker, by its socket or its URL."""

    def __init__(self, broker: BrokerAddress, folder: Path | None = None) -> None:
        self._socket = (
            str(broker.absolute()) if isinstance(broker, Path) else broker.url
        )
        self._folder = folder or platformdirs.user_state_path("agentvault") / "console"
        key = hashlib.sha256(self._socket.encode()).hexdigest()[:16]
        self._file = self._folder / f"{key}.json"
        self._stored: SeenHead | None = None

    def recall(self) -> SeenHead | None:
        """Return the last head; None when the file cannot be read."""
        try:
            data = json.loads(self._file.read_bytes())
            return SeenHead(int(data["seq"]), str(data["hash"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep(self, head: SeenHead) -> bool:
        """Write the head, if it is another; return False where that failed."""
        if head == self._stored:
            return True
        data = {"socket": self._socket, "seq": head.seq, "hash": head.hash}
        new = self._file.with_suffix(".new")
        try:
            private_folder(self._folder)
            private_file(new)
            new.write_text(json.dumps(data))
            new.replace(self._file)  # whole or not at all, should we be killed
        except (OSError, SettingsError):
            return False
        self._stored = head
        return True

    def tidy(self) -> None:
        """Delete the heads of sockets in removed folders."""
        for file in self._folder.glob("*.json"):
            try:
                named = str(json.loads(file.read_bytes())["socket"])
                local = not named.startswith("https:")
                if local and not Path(named).parent.exists():
                    file.unlink()
            except (OSError, ValueError, KeyError, TypeError):
                continue


_LEDGER: Final = "ledger"


class SeenLedger:
    """Persist the last head, and warn when the ledger no longer has it."""

    def __init__(
        self, mirror: Mirror, memory: HeadStore, client: AsyncOperatorClient
    ) -> None:
        self._mirror = mirror
        self._memory = memory
        self._client = client

    def tidy(self) -> None:
        """Delete the heads of sockets in removed folders."""
        self._memory.tidy()

    async def compare(self, head: int) -> None:
        """Compare the broker's ledger with the last head seen here."""
        seen = self._memory.recall()
        if self._mirror.last_hash:
            mine = SeenHead(self._mirror.last_seq, self._mirror.last_hash)
            seen = mine if seen is None or mine.seq >= seen.seq else seen
        if seen is None or not seen.seq or _LEDGER in self._mirror.warnings:
            return
        if head < seen.seq:
            self.warn_replaced(f"it ends at {head:,}, and {seen.seq:,} was seen here")
            return
        query = AuditQuery(after=seen.seq - 1, limit=1)
        events = (await self._client.call(AUDIT, query)).events
        if not events or events[0].hash != seen.hash:
            self.warn_replaced(f"event {seen.seq:,} is not the one that was seen here")

    def warn_replaced(self, what: str) -> None:
        """Warn that the ledger is another one; stays until accepted."""
        self._mirror.versions.ledger += 1
        self._mirror.warn(
            _LEDGER,
            f"LEDGER CHANGED: {what}. Records are missing, or an older copy replaced"
            " them. Remedy: agentvault audit verify",
        )

    def accept(self) -> None:
        """Take the ledger as it is for the true one, by the operator's word."""
        self._mirror.unwarn(_LEDGER)
        self.keep()

    def keep(self) -> None:
        mirror = self._mirror
        if _LEDGER in mirror.warnings or not mirror.last_hash:
            return
        self._memory.keep(SeenHead(mirror.last_seq, mirror.last_hash))
