"""Reads single windows of limits in the event loop, a seek or two at a time."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from agentvault_tui.clock import parse_iso
from agentvault_tui.ledger.schema import open_reader, storage_errors
from agentvault_tui.ledger.uses import MODULUS, WindowKey, micros, window_id

_BUSY_MS = 20
"""How long a call may wait: with a write-ahead log, readers hardly ever wait."""


class StoredWindow(NamedTuple):
    """One window as the store has it."""

    id: int
    at: int
    """The time of its last use, in microseconds."""
    total: int


class UsesReader:
    """Reads windows of limits up to an event that each call names.

    A use is on disk shortly before its event is published. Until then it counts as
    reserved in memory; reading it from disk as well would count it twice.

    Every method raises LedgerError where the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        """Open the database for this thread."""
        self._path = path
        self._db = open_reader(path)
        self._db.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")

    def latest(self) -> int:
        """Return the latest time that the ledger has seen, in microseconds."""
        # Time never goes back inside an era: its last event has its latest time.
        (latest,) = self._one(
            "SELECT max(time) FROM events WHERE seq IN (SELECT first_seq - 1 FROM eras"
            " UNION ALL SELECT max(seq) FROM events)"
        )
        return 0 if latest is None else micros(parse_iso(latest))

    def window(self, window: WindowKey, seq: int) -> StoredWindow | None:
        """Return a window with its last use; None if it has none up to *seq*."""
        with storage_errors(self._path):
            number = window_id(self._db, window)
        row = number is not None and self._one(
            "SELECT at, total FROM uses WHERE window = ? AND seq <= ?"
            " ORDER BY at DESC, seq DESC LIMIT 1",
            *(number, seq),
        )
        return StoredWindow(number or 0, *row) if row else None

    def uses(
        self, window: int, after: int, seq: int, most: int
    ) -> list[tuple[int, int]]:
        """Return (time, total before it) for the first uses after a time."""
        sql = (
            f"SELECT at, (total - units + {MODULUS}) % {MODULUS} FROM uses"  # noqa: S608 - of constants
            " WHERE window = ? AND at > ? AND seq <= ? ORDER BY at, seq LIMIT ?"
        )
        with storage_errors(self._path):
            return self._db.execute(sql, (window, after, seq, most)).fetchall()

    def reached_at(self, window: int, before: int, units: int, last: int) -> int:
        """Return when the uses since the total *before* reached *units*, by bisection.

        Args:
            window: its number.
            before: the total before the first of them.
            units: no more than those of all uses up to *last*.
            last: the time of the last use.

        Returns:
            the time of the use that reached it, in microseconds.
        """
        low, high = 0, last
        while low < high:
            middle = (low + high) // 2
            row = self._one(
                "SELECT total FROM uses WHERE window = ? AND at <= ?"
                " ORDER BY at DESC, seq DESC LIMIT 1",
                *(window, middle),
            )
            # Below the window's first use the difference wraps to a large number.
            units_by = (row[0] - before) % MODULUS if row else 0
            if units <= units_by < MODULUS // 2:
                high = middle
            else:
                low = middle + 1
        return high

    def close(self) -> None:
        """Close the connection."""
        with suppress(sqlite3.Error):
            self._db.close()

    def _one(self, sql: str, *values: object) -> Any:
        with storage_errors(self._path):
            return self._db.execute(sql, values).fetchone()
