"""Places in the chain: its end, and the event at a place or first by a moment."""

from __future__ import annotations

import sqlite3
from bisect import bisect_left, bisect_right
from datetime import datetime
from functools import partial

from agentvault_tui.clock import iso
from agentvault_tui.ledger.chain import genesis


def head_seq(db: sqlite3.Connection) -> int:
    """Return the number of the last event; 0 when there is none."""
    (head,) = db.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()
    return int(head)


def hash_at(db: sqlite3.Connection, ledger_id: str, seq: int) -> bytes | None:
    """Return the hash of event *seq*, or the genesis at 0; None without an event."""
    if seq == 0:
        return genesis(ledger_id)
    row = db.execute("SELECT hash FROM events WHERE seq = ?", (seq,)).fetchone()
    return None if row is None else row[0]


def time_at(db: sqlite3.Connection, seq: int) -> str:
    """Return when event *seq* was recorded, as text: these sort as times do."""
    (time,) = db.execute("SELECT time FROM events WHERE seq = ?", (seq,)).fetchone()
    return str(time)


def first_at(db: sqlite3.Connection, moment: datetime, low: int, high: int) -> int:
    """Return the first place in [low, high) at *moment* or later, *high* if none is."""
    when = partial(time_at, db)
    return low + bisect_left(range(low, high), iso(moment), key=when)


def first_after(db: sqlite3.Connection, moment: datetime, low: int, high: int) -> int:
    """Return the first place in [low, high) later than *moment*, *high* if none is."""
    when = partial(time_at, db)
    return low + bisect_right(range(low, high), iso(moment), key=when)
