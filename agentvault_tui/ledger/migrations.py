"""How the database file of an older version becomes one of this version."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from typing import Final

from agentvault_tui.ledger import activity

STEPUPS: Final = (
    """\
CREATE TABLE stepups (
  id TEXT PRIMARY KEY, status TEXT NOT NULL, agent_id TEXT NOT NULL,
  action TEXT NOT NULL, decided TEXT, doc TEXT NOT NULL, n INTEGER NOT NULL
) WITHOUT ROWID""",
    "CREATE INDEX stepups_by_status ON stepups (status, n)",
    "CREATE INDEX stepups_by_kind ON stepups (agent_id, action, decided)",
)
"""What is decided about one agent and one action is read in one stretch, by time."""


def _stepups_by_kind(db: sqlite3.Connection) -> None:
    """Version 3: a step-up's agent, action and decision get columns of their own."""
    rows = db.execute("SELECT id, status, doc, n FROM stepups").fetchall()
    db.execute("DROP TABLE stepups")
    for statement in STEPUPS:
        db.execute(statement)
    for stepup_id, status, doc, n in rows:
        value = json.loads(doc)
        kind = (value["agent_id"], value["action"], value["decided_at"])
        db.execute(
            "INSERT INTO stepups VALUES (?, ?, ?, ?, ?, ?, ?)",
            (stepup_id, status, *kind, doc, n),
        )


MIGRATIONS: Final[dict[int, Callable[[sqlite3.Connection], None]]] = {
    1: activity.migrate,
    2: _stepups_by_kind,
}
"""From each older version to the next, run inside one transaction."""
