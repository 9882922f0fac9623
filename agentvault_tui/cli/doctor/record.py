"""The doctor on the ledger, and on the clock that its times come from."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from typing import Final

from agentvault_tui.cli.session import Session, lazy_room
from agentvault_tui.clock import SystemClock, iso, parse_iso
from agentvault_tui.model.finding import Finding, fault, ok, warning

_TAIL: Final = 1000
_JITTER: Final = timedelta(seconds=5)
_ODD_YEAR: Final = 2026
"""No clock of a machine that runs this can be before its first release."""


def check_ledger(session: Session) -> Iterator[Finding]:
    """Check the end of the chain, and the head kept outside the database."""
    home = session.home
    if not home.database.exists():
        yield ok("not made yet")
        return
    schema, opening = lazy_room("ledger.schema"), lazy_room("ledger.opening")
    verify = lazy_room("ledger.verify")
    with (
        opening.foreseen(home.database),
        closing(schema.open_reader(home.database)) as db,
    ):
        schema.check_schema(db, home.database)
        ledger_id = opening.read_ledger_id(db, home.database)
        # The head kept outside is read first: beside a broker it can only be behind.
        outside = lazy_room("ledger.headfile").read_witness(home.head_file)
        bad = verify.check_tail(db, ledger_id, _TAIL)
        head = _head(db)
        held = None if outside is None else _hash_at(db, outside.head.seq)
    if bad is not None:
        yield fault(f"{bad}", "agentvault audit verify names all that is wrong")
        return
    yield ok(f"{head} events; the last {min(head, _TAIL)} follow from each other")
    if outside is None and head:
        yield fault(
            f"the head kept outside the database, {home.head_file}, is missing",
            "agentvault audit verify; then agentvault audit accept --reason R",
        )
    elif outside is not None and (outside.ledger != ledger_id or held is None):
        yield fault(
            f"the ledger ends before event {outside.head.seq}, which was recorded",
            "put the newest copy back, or agentvault audit accept --reason R",
        )
    elif outside is not None and f"sha256:{held}" != outside.head.hash and held:
        yield fault(
            f"event {outside.head.seq} is not the one that was recorded",
            "agentvault audit verify, and find out who changed it",
        )
    elif outside is not None:
        yield ok(f"it holds the head kept outside the database ({outside.head.seq})")


def check_clock(session: Session) -> Iterator[Finding]:
    """Compare the clock with the last time that was recorded."""
    now = SystemClock().now()
    if now.year < _ODD_YEAR:
        yield fault(f"the clock says {iso(now)}", "set it: timedatectl")
        return
    last = _last_time(session)
    if last is not None and last > now + _JITTER:
        yield warning(
            f"the clock says {iso(now)}, before the last recorded event ({iso(last)})",
            "one of the two was wrong: check time synchronisation (timedatectl)",
        )
    else:
        yield ok(f"{iso(now)}, not before anything recorded")


def _head(db: sqlite3.Connection) -> int:
    (head,) = db.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()
    return int(head)


def _hash_at(db: sqlite3.Connection, seq: int) -> str | None:
    if seq == 0:
        return ""
    row = db.execute("SELECT hash FROM events WHERE seq = ?", (seq,)).fetchone()
    return None if row is None else bytes(row[0]).hex()


def _last_time(session: Session) -> datetime | None:
    home = session.home
    if not home.database.exists():
        return None
    schema, opening = lazy_room("ledger.schema"), lazy_room("ledger.opening")
    with (
        opening.foreseen(home.database),
        closing(schema.open_reader(home.database)) as db,
    ):
        row = db.execute("SELECT time FROM events ORDER BY seq DESC LIMIT 1").fetchone()
    return None if row is None else parse_iso(row[0])
