"""The doctor on the ledger, and on the clock that its times come from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from typing import Final

from agentvault_tui.cli.session import CliSession, lazy_room
from agentvault_tui.clock import SystemClock, iso, parse_iso
from agentvault_tui.model.finding import Finding, fault, ok, warning

_TAIL: Final = 1000
_JITTER: Final = timedelta(seconds=5)
_ODD_YEAR: Final = 2026
"""No clock of a machine that runs this can be before its first release."""


def check_ledger(session: CliSession) -> Iterator[Finding]:
    """Check the end of the chain, and the head kept outside the database."""
    home = session.home
    if not home.database.exists():
        yield ok("not made yet")
        return
    schema, opening = lazy_room("ledger.schema"), lazy_room("ledger.opening")
    with (
        opening.foreseen(home.database),
        closing(schema.open_reader(home.database)) as db,
    ):
        schema.check_schema(db, home.database)
        ledger_id = opening.read_ledger_id(db, home.database)
        # The head kept outside is read first: beside a broker it can only be behind.
        outside = lazy_room("ledger.headfile").read_witness(home.head_file)
        head = lazy_room("ledger.batch").read_tip(db, ledger_id).head
        bad = lazy_room("ledger.verify").check_tail(db, ledger_id, _TAIL)
        if bad is not None:
            yield fault(bad, "agentvault audit verify names all that is wrong")
            return
        seen = min(head.seq, _TAIL)
        yield ok(f"{head.seq} events; the last {seen} follow from each other")
        opening.compare(db, outside, ledger_id, head)
    if outside is not None:
        yield ok(f"it holds the head kept outside the database ({outside.head.seq})")


def check_clock(session: CliSession) -> Iterator[Finding]:
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


def _last_time(session: CliSession) -> datetime | None:
    home = session.home
    if not home.database.exists():
        return None
    schema, opening = lazy_room("ledger.schema"), lazy_room("ledger.opening")
    with (
        opening.foreseen(home.database),
        closing(schema.open_reader(home.database)) as db,
    ):
        places = lazy_room("ledger.places")
        head = places.head_seq(db)
        return parse_iso(places.time_at(db, head)) if head else None
