"""What events tell of single tokens, remembered from look to look: they never change.

Looking back goes in small steps, and each sees nearly the same tokens as the last.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from agentvault_tui.clock import parse_iso
from agentvault_tui.model import AgentId

_MOST: Final = 60_000
"""Tokens remembered, some twenty megabytes."""
_READ: Final = (
    "SELECT seq, time, agent_id, json_extract(body, '$.detail.token_id'),"
    " json_extract(body, '$.detail.scope'), json_extract(body, '$.detail.expires_at'),"
    " json_extract(body, '$.detail.stepup_id')"
    " FROM events WHERE seq IN (SELECT value FROM json_each(?))"
)


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A token, as one event tells of it."""

    seq: int
    time: datetime
    agent: AgentId
    id: str
    scope: str
    expires_at: datetime | None
    elevated: bool


class TokenRows:
    """Reads each such event once, as long as there is room."""

    def __init__(self) -> None:
        self._known: dict[int, TokenRow | None] = {}

    def read(self, db: sqlite3.Connection, seqs: Sequence[int]) -> list[TokenRow]:
        """Return what the events *seqs* tell, in that order, where they tell of one."""
        missing = [seq for seq in seqs if seq not in self._known]
        if len(self._known) + len(missing) > _MOST:
            self._known.clear()
            missing = list(seqs)
        for row in db.execute(_READ, (json.dumps(missing),)) if missing else ():
            self._known[row[0]] = _row(row)
        return [row for seq in seqs if (row := self._known[seq]) is not None]


def _row(row: tuple[Any, ...]) -> TokenRow | None:
    seq, time, agent, token_id, scope, ends, stepup = row
    if not isinstance(token_id, str) or agent is None:
        return None
    return TokenRow(
        seq,
        parse_iso(time),
        AgentId(agent),
        token_id,
        scope if isinstance(scope, str) else "",
        parse_iso(ends) if isinstance(ends, str) else None,
        stepup is not None,
    )
