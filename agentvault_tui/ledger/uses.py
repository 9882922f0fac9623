"""Uses of limits: rolling windows, derived from the events that count.

An event with ``detail.counted`` adds one row to each window that it counts in: of its
agents, of its resource, and of all. `total` is the running sum of a window: the units
between two moments are the difference of two rows, however many lie between.
The rows follow from the events alone and are written in the transaction of their event.
A start derives those of the last events again, `verify` all of them.
"""

# ruff: noqa: S608 - statements are put together from constants; values are bound

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from agentvault_tui.clock import parse_iso
from agentvault_tui.model import Event

MODULUS: Final = 2**62
"""Totals wrap here, below SQLite's largest integer; differences stay exact."""
CHECKED_EVENTS: Final = 1024
"""Events that `is_derived` checks at a start."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_CHUNK: Final = 24
"""Rows a statement may have: few enough sizes for SQLite to cache all prepared."""
_FLUSHED: Final = 50_000
"""Rows that `rebuild` inserts at a time, each window's together."""

WindowKey: TypeAlias = tuple[str, str, str, str]
"""A limit's id, the currency or nothing, `Limit.per`, and the key by that."""
Kind: TypeAlias = tuple[str, str, str, int]
"""The first three of these, and the time after which uses are in the windows."""
Statement: TypeAlias = tuple[str, tuple[object, ...]]

TABLES: Final = """
CREATE TABLE windows (
  id INTEGER PRIMARY KEY, name TEXT NOT NULL, currency TEXT NOT NULL,
  per TEXT NOT NULL, key TEXT NOT NULL, UNIQUE (name, currency, per, key)
);
CREATE TABLE uses (
  window INTEGER NOT NULL, at INTEGER NOT NULL, seq INTEGER NOT NULL,
  units INTEGER NOT NULL, total INTEGER NOT NULL, PRIMARY KEY (window, at, seq)
) WITHOUT ROWID;
"""
_WINDOWS: Final = (
    "INSERT INTO windows (name, currency, per, key) VALUES {} ON CONFLICT DO NOTHING"
)
# A use counts no earlier than the one before it: the window ends at the latest time
# that the ledger has seen.
_USES: Final = (
    "WITH new (name, currency, per, key, at, seq, units, sum) AS (VALUES {})"
    " INSERT INTO uses SELECT w.id, max(new.at, coalesce(l.at, new.at)), new.seq,"
    f" new.units, (coalesce(l.total, 0) + new.sum) % {MODULUS} FROM new"
    " CROSS JOIN windows w USING (name, currency, per, key)"
    " LEFT JOIN uses l ON l.window = w.id AND (l.at, l.seq) = (SELECT at, seq FROM uses"
    " WHERE window = w.id ORDER BY at DESC, seq DESC LIMIT 1)"
)
_MAY_COUNT: Final = "instr(body, '\"counted\":{') > 0"
"""An agent's own text may look alike; `_COUNTED` tells."""


class _CountedDetail(msgspec.Struct):
    counted: dict[str, Any] | None = None


class _CountedBody(msgspec.Struct):
    detail: _CountedDetail
    time: str
    agent_id: str | None = None


_COUNTED: Final = msgspec.json.Decoder(_CountedBody)


def micros(moment: datetime) -> int:
    """Return a time in microseconds, as the rows have it."""
    return (moment - _EPOCH) // _MICROSECOND


def moment(at: int) -> datetime:
    """Return the time of microseconds; see `micros`."""
    return _EPOCH + timedelta(microseconds=at)


def units_of(agent_id: str | None, counted: Mapping[str, Any]) -> dict[WindowKey, int]:
    """Return the units that an event adds to each window.

    Args:
        agent_id: the agent of the event.
        counted: its ``detail.counted``.

    Returns:
        the units, by window.
    """
    by_window: dict[WindowKey, int] = {}
    for part in (counted, *counted.get("others", ())):
        resource = part.get("resource") or ""
        for name, used in part.get("limits", {}).items():
            currency = used.get("currency") or ""
            units = used["amount" if currency else "count"]
            agents = dict.fromkeys(used.get("agents", (agent_id or "",)))
            for per, key in (
                *(("agent", one) for one in agents),
                ("resource", resource),
                ("all", ""),
            ):
                window = name, currency, per, key
                by_window[window] = by_window.get(window, 0) + units
    return by_window


def counted_at(counted: Mapping[str, Any], recorded: datetime) -> int:
    """Return the time from which an event counts, in microseconds."""
    return micros(parse_iso(counted["at"]) if "at" in counted else recorded)


def _counted(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    counted = body["detail"].get("counted")
    return counted if isinstance(counted, dict) else None


def use_statements(events: Iterable[Event]) -> Iterator[Statement]:
    """Yield the statements that add the uses of events, in the order of the chain."""
    rows: list[tuple[object, ...]] = []
    latest: dict[WindowKey, tuple[int, int]] = {}
    for event in events:
        counted = event.detail.get("counted")
        if not isinstance(counted, Mapping):
            continue
        at = counted_at(counted, event.time)
        for window, units in units_of(event.agent_id, counted).items():
            before, total = latest.get(window, (at, 0))
            latest[window] = max(at, before), (total + units) % MODULUS
            rows.append((*window, latest[window][0], event.seq, units, total + units))
        if len(rows) >= _CHUNK:
            yield from _statements(rows)
            rows.clear()
            latest.clear()
    yield from _statements(rows)


def _statements(rows: Sequence[tuple[object, ...]]) -> Iterator[Statement]:
    if not rows:
        return
    windows = tuple(dict.fromkeys(row[:4] for row in rows))
    for sql, listed in ((_WINDOWS, windows), (_USES, rows)):
        row = f"({','.join('?' * len(listed[0]))})"
        yield sql.format(",".join([row] * len(listed))), sum(listed, ())


class _Derived:
    """Derives the rows of events, one event after another, from the first one on."""

    def __init__(self) -> None:
        self.last: dict[WindowKey, tuple[int, int]] = {}
        """Time and total of the last row of each window."""

    def rows(
        self, agent_id: str | None, time: str, counted: Mapping[str, Any]
    ) -> Iterator[tuple[WindowKey, int, int, int]]:
        """Yield window, time, units and total of each row of an event."""
        at = counted_at(counted, parse_iso(time))
        for window, units in units_of(agent_id, counted).items():
            before, total = self.last.get(window, (at, 0))
            last = self.last[window] = max(at, before), (total + units) % MODULUS
            yield window, last[0], units, last[1]


def rebuild(db: sqlite3.Connection) -> None:
    """Derive all rows again from the events, inside of a transaction."""
    db.execute("DELETE FROM uses")
    db.execute("DELETE FROM windows")
    ids: dict[WindowKey, int] = {}
    rows: list[tuple[int, int, int, int, int]] = []
    derived = _Derived()
    sql = f"SELECT seq, body FROM events WHERE {_MAY_COUNT} ORDER BY seq"

    def flush() -> None:
        rows.sort()
        db.executemany("INSERT INTO uses VALUES (?, ?, ?, ?, ?)", rows)
        rows.clear()

    for seq, text in db.execute(sql):
        body = _COUNTED.decode(text)
        if (counted := body.detail.counted) is None:
            continue
        for window, *row in derived.rows(body.agent_id, body.time, counted):
            at, units, total = row
            rows.append((ids.setdefault(window, len(ids) + 1), at, seq, units, total))
        if len(rows) >= _FLUSHED:
            flush()
    flush()
    db.executemany(
        "INSERT INTO windows VALUES (?, ?, ?, ?, ?)",
        ((number, *window) for window, number in ids.items()),
    )


def is_derived(db: sqlite3.Connection, events: int = CHECKED_EVENTS) -> bool:
    """Check whether the rows of the last *events* are those that follow from them.

    Where that is the whole chain, also whether there are no others.
    """
    (head,) = db.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()
    start, distance = max(head - events, 0), 0
    windows: dict[WindowKey, list[tuple[int, int, int]]] = {}
    sql = f"SELECT seq, body FROM events WHERE seq > ? AND {_MAY_COUNT} ORDER BY seq"
    for seq, text in db.execute(sql, (start,)):
        body = _COUNTED.decode(text)
        counted = body.detail.counted or {}
        at = counted_at(counted, parse_iso(body.time))
        for window, units in units_of(body.agent_id, counted).items():
            windows.setdefault(window, []).append((seq, at, units))
            distance += 1
    if not all(_ends_with(db, window, start, rows) for window, rows in windows.items()):
        return False
    counts = "SELECT (SELECT count(*) FROM windows), (SELECT count(*) FROM uses)"
    return bool(start) or db.execute(counts).fetchone() == (len(windows), distance)


def _ends_with(
    db: sqlite3.Connection,
    window: WindowKey,
    start: int,
    derived: list[tuple[int, int, int]],
) -> bool:
    """Check whether a window's rows behind event *start* are as *derived*."""
    stored: list[tuple[int, int, int, int]] = []
    before, total = 0, 0
    for row in db.execute(
        "SELECT at, seq, units, total FROM uses WHERE window = (SELECT id FROM windows"
        " WHERE (name, currency, per, key) = (?, ?, ?, ?)) ORDER BY at DESC, seq DESC",
        window,
    ):
        if row[1] <= start:
            before, total = row[0], row[3]
            break
        stored.append(row)
    expected = []
    for seq, at, units in derived:
        before, total = max(at, before), (total + units) % MODULUS
        expected.append((before, seq, units, total))
    return stored[::-1] == expected


class UsesCheck:
    """Compare every row with the result of the events; see `verify`."""

    def __init__(self) -> None:
        """Start before the first event."""
        self._derived = _Derived()
        self._ids: dict[WindowKey, int | None] = {}
        self._rows = 0
        self.wrong: int | None = None
        """The first event with a row that is not as it says."""

    def learn(self, db: sqlite3.Connection, body: Mapping[str, Any]) -> None:
        """Compare the rows of the next event, whose link was found right."""
        if (counted := _counted(body)) is None:
            return
        derived = self._derived.rows(body["agent_id"], body["time"], counted)
        for window, at, units, total in derived:
            if window not in self._ids:
                self._ids[window] = window_id(db, window)
            self._rows += 1
            row = db.execute(
                "SELECT units, total FROM uses WHERE window = ? AND at = ? AND seq = ?",
                (self._ids[window], at, body["seq"]),
            ).fetchone()
            if row != (units, total) and self.wrong is None:
                self.wrong = body["seq"]

    def problem(self, db: sqlite3.Connection) -> str | None:
        """Word the fault, in a snapshot that ends with the last event learned."""
        counts = "SELECT (SELECT count(*) FROM windows), (SELECT count(*) FROM uses)"
        if self.wrong is not None:
            return f"what limits count is not what event {self.wrong} says"
        if db.execute(counts).fetchone() != (len(self._ids), self._rows):
            return "limits count what no event says"
        return None


def window_id(db: sqlite3.Connection, window: WindowKey) -> int | None:
    """Return the number of a window, if it has ever been used."""
    row = db.execute(
        "SELECT id FROM windows WHERE (name, currency, per, key) = (?, ?, ?, ?)", window
    ).fetchone()
    return None if row is None else int(row[0])


class StoredUse(NamedTuple):
    """The stored use of one window between two moments."""

    key: str
    used: int
    first: int
    """The time of the oldest use in it."""


def read_windows(
    db: sqlite3.Connection,
    kinds: Sequence[Kind],
    seq: int,
) -> list[list[StoredUse]]:
    """Read the windows of limits that hold something.

    Args:
        db: a reader.
        kinds: the limits.
        seq: the last event that counts.

    Returns:
        the windows of each limit.
    """
    one = "(SELECT at, seq FROM uses WHERE window = w.id AND {} ORDER BY {} LIMIT 1)"
    first = one.format("at > ?4 AND seq <= ?5", "at, seq")
    last = one.format("seq <= ?5", "at DESC, seq DESC")
    sql = (
        f"SELECT w.key, (l.total - f.total + f.units + {MODULUS}) % {MODULUS}, f.at"
        f" FROM windows w JOIN uses f ON f.window = w.id AND (f.at, f.seq) = {first}"
        f" JOIN uses l ON l.window = w.id AND (l.at, l.seq) = {last}"
        " WHERE w.name = ?1 AND w.currency = ?2 AND w.per = ?3"
    )
    return [
        [StoredUse(*row) for row in db.execute(sql, (*kind, seq)) if row[1]]
        for kind in kinds
    ]
