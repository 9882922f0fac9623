"""This home's copy of a team's log: the same events and rows, in its own SQLite file.

All reads use it. Its position is stored next to the rows, in the same transaction, so
that a process that ends at any moment continues from there.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from agentvault_tui.clock import iso
from agentvault_tui.encoder import to_json
from agentvault_tui.ledger.batch import read_tip
from agentvault_tui.ledger.chain import read_event, search_text
from agentvault_tui.ledger.opening import PLACE
from agentvault_tui.ledger.records import Change
from agentvault_tui.ledger.shared_log import Followed, StoreHead
from agentvault_tui.ledger.state import (
    TABLES,
    Statement,
    change_of,
    event_row,
    event_statements,
    last_n,
    state_statements,
)
from agentvault_tui.ledger.uses import use_statements
from agentvault_tui.model import Event

Systems = list[tuple[str, int]]


def read_place(db: sqlite3.Connection, ledger_id: str) -> tuple[StoreHead, Systems]:
    """Return the head that the copy was made up to, and the servers it came from.

    A file that was no copy yet has revision 0: then all rows are read again.
    """
    row = db.execute("SELECT value FROM meta WHERE key = ?", (PLACE,)).fetchone()
    place = json.loads(row[0] if row else '{"revision":0,"batch":"","systems":[]}')
    tip = read_tip(db, ledger_id)
    head = StoreHead(tip, place["revision"], place["batch"], last_n(db))
    return head, [(name, timeline) for name, timeline in place["systems"]]


def place_statement(head: StoreHead, systems: Systems) -> Statement:
    """Return the record of the copy's position, *head*."""
    place = {"revision": head.revision, "batch": head.batch, "systems": systems}
    return "INSERT OR REPLACE INTO meta VALUES (?, ?, 0)", (PLACE, to_json(place))


def followed_statements(
    before: StoreHead, followed: Followed, events: Sequence[Event], systems: Systems
) -> list[Statement]:
    """Return the statements that bring the copy from *head* to the followed head."""
    rows, eras = [], []
    last = before.tip.time
    for (seq, body, digest), event in zip(followed.events, events, strict=True):
        place, text = (seq, iso(event.time)), search_text(event)
        rows.append((*event_row(place, event, text, body.decode()), digest))
        if last is None or event.time < last:
            eras.append(("INSERT INTO eras VALUES (?)", (seq,)))
        last = event.time
    statements = [*event_statements(rows), *eras, *use_statements(events)]
    if followed.complete:
        if not before.revision:
            emptied = (f"DELETE FROM {one}" for one in TABLES if one != "meta")  # noqa: S608
            statements += [(sql, ()) for sql in emptied]
            statements.append(("DELETE FROM meta WHERE key <> 'ledger'", ()))
        statements += state_statements(followed.rows)
        statements.append(place_statement(followed.head, systems))
    return statements


def followed_events(followed: Followed) -> tuple[Event, ...]:
    """Return the events that were followed; ValueError: one is none."""
    return tuple(read_event(body, digest) for _, body, digest in followed.events)


def followed_changes(followed: Followed) -> Sequence[Change]:
    """Return the changes whose rows were followed."""
    return [change_of(table, row) for table, row in followed.rows]
