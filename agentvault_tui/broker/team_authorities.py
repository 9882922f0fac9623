"""Record each ``ca_file`` of a team's machine that changes.

The files that name one are the store's, but its certificates are of each machine, and
active there at once. So a change of them is recorded as one of a setting is.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping

from agentvault_tui.authorities import split_source
from agentvault_tui.broker.core import SYSTEM, Broker
from agentvault_tui.broker.riders import by_file
from agentvault_tui.broker.team_copies import put
from agentvault_tui.errors import LedgerError
from agentvault_tui.ledger import Meta
from agentvault_tui.model import ChangedText, Draft, EventType, sha256_hex

log = logging.getLogger("agentvault.team")


class TeamAuthorities:
    """The certificates that one room's files name, as they were recorded last."""

    def __init__(self, broker: Broker, kind: str) -> None:
        """Record nothing yet; *kind* is of `CHANGE_KINDS`, and names the room."""
        self._broker, self._kind = broker, kind
        self._recorded: Mapping[str, str] | None = None

    async def look(self, sources: Mapping[str, str]) -> None:
        """Record changes since the last look, over restarts too; none without a team.

        Args:
            sources: the active files with their ``ca_file`` (`authorities`), by path.
        """
        shared = self._broker.ledger.shared
        if shared is None or sources == self._recorded:
            return
        now = {
            f"{name} of {path}": sha256_hex(pem)
            for path, source in sources.items()
            for name, pem in split_source(source)[1].items()
        }
        key = f"authorities {self._kind} {shared.broker_id}"
        before: dict[str, str] = json.loads(self._broker.recording.meta.get(key, "{}"))
        row = Meta(key, json.dumps(now))
        # A file that names another one is a change of that file.
        texts = [
            ChangedText(name, before[name], sha256)
            for name, sha256 in now.items()
            if before.get(name, sha256) != sha256
        ]
        draft = Draft(
            EventType.CHANGE_APPLIED,
            SYSTEM,
            resource="ca_file",
            detail=by_file((self._kind,), *texts),
        )
        if now != before:
            try:
                drafts = [draft] if texts else []
                await self._broker.record(*drafts, changes=[row])
            except LedgerError as error:  # with a later look
                log.warning("a changed ca_file is recorded later: %s", error.what)
                return
            put(self._broker.recording.meta, key, row.value)
        self._recorded = dict(sources)
