"""The text index: trigrams in a file of its own, which only shortens searches.

Every hit is checked against the event's text, and events not indexed yet are scanned.
Events missing from an index cannot be noticed: so an orderly stop stores the file's
SHA-256 with the ledger's head, and a file with another one, or none, is built again.
"""

# ruff: noqa: S608 - statements are put together from constants; values are bound

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agentvault_tui.home import Home, private_file
from agentvault_tui.ledger import schema
from agentvault_tui.ledger.schema import StoreConnection, transaction

_STEP: Final = 1024
"""Events indexed at a time while commits flow, and never fewer: each time writes whole
pages. Those not indexed yet are scanned, which takes about a millisecond."""
_IDLE_STEP: Final = 4096
_REST: Final = 20.0
"""How many times its own working time the indexer rests while commits flow."""
_SHORT_REST: Final = 4.0
"""The same once so much is unindexed that searches would feel it."""
_MUCH: Final = 20_000
_CHECKPOINT_EVERY: Final = 32
_LOOK: Final = 0.5
"""Seconds between looks for new events."""
_EXAMINED_EVERY: Final = 20.0
"""Seconds between looks whether another process changed the index."""
_MOST_TRIGRAMS: Final = 24
_PROBE: Final = 100
_ANSWERS: Final = 500
_LEAP: Final = 16
_SCHEMA: Final = """
CREATE VIRTUAL TABLE words USING fts5(
  text, content='', detail=none, columnsize=0, tokenize='trigram case_sensitive 1');
CREATE TABLE progress (ledger TEXT NOT NULL, upto INTEGER NOT NULL, hash BLOB NOT NULL);
"""


def index_path(home: Home) -> Path:
    """Return where the index is; its folder is the database's."""
    return home.database.with_name("index.db")


def index_digest(home: Home) -> str | None:
    """Return the SHA-256 of the index; None when there is none, or it has a log."""
    path = index_path(home)
    log = Path(f"{path}-wal")
    try:
        if log.exists() and log.stat().st_size:
            return None
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def open_searcher(home: Home) -> sqlite3.Connection:
    """Open a connection that reads the ledger, and the index if there is one."""
    db = schema.open_reader(home.database)
    with contextlib.suppress(sqlite3.Error):
        uri = f"{index_path(home).absolute().as_uri()}?mode=ro"
        db.execute("ATTACH ? AS idx", (uri,))
    return db


def indexed_upto(db: sqlite3.Connection) -> int:
    """Return the last event the index holds; 0 when there is no index."""
    try:
        row = db.execute("SELECT upto FROM idx.progress").fetchone()
    except sqlite3.Error:
        return 0
    return 0 if row is None else int(row[0])


@dataclass(frozen=True, slots=True)
class Match:
    """How to ask the index for a text, and how far apart its answers will be."""

    expression: str | None
    """None when some part of the text is in no event."""
    gap: float
    """Events between two answers, by the nearest ones."""

    def reach(self, window: int) -> int:
        """Return how many events to ask about, where *window* would be scanned."""
        if self.expression is None:
            return int(self.gap) + 1
        return min(max(window, int(self.gap * _ANSWERS)), window * _LEAP)


def plan(
    db: sqlite3.Connection, needle: str, low: int, high: int, *, descending: bool
) -> Match | None:
    """Choose the index terms for *needle*; None when it is too short for it.

    Asks for the two rarest trigrams, by their nearest hundred hits: the list of a
    common one costs more than it saves.
    """
    last = len(needle) - 3
    if last < 0 or low > high:
        return None
    count = min(_MOST_TRIGRAMS, last + 1)
    starts = {round(i * last / max(count - 1, 1)) for i in range(count)}
    order = "DESC" if descending else "ASC"
    sql = (
        "SELECT min(r), max(r), count(*) FROM (SELECT rowid AS r FROM idx.words"
        f" WHERE words MATCH ? AND rowid BETWEEN ? AND ? ORDER BY rowid {order}"
        f" LIMIT {_PROBE})"
    )
    gaps: list[tuple[float, str]] = []
    for part in sorted({needle[start : start + 3] for start in starts}):
        term = '"' + part.replace('"', '""') + '"'
        first, final, hits = db.execute(sql, (term, low, high)).fetchone()
        if not hits:
            return Match(None, high - low + 1)
        reach = final - low + 1 if not descending else high - first + 1
        gaps.append(((reach if hits == _PROBE else high - low + 1) / hits, term))
    rarest = sorted(gaps, reverse=True)[:2]
    return Match(" AND ".join(term for _, term in rarest), rarest[0][0])


class Indexer:
    """Feeds the index, slowly while the writer is busy."""

    def __init__(self, db: StoreConnection | None, indexed: int, path: Path) -> None:
        self.indexed = indexed
        self._db = db
        self._path = path
        self._working = asyncio.Lock()
        """Held while this one writes: the file is another one then."""
        self._left: tuple[object, ...] | None = None
        """The file as this one left it."""
        self._stopped = asyncio.Event()

    @classmethod
    async def open(cls, home: Home, ledger_id: str, left: str | None) -> Indexer:
        """Open the index, or build an empty one when it is not as it was *left*."""
        path = index_path(home)
        digest = await asyncio.to_thread(index_digest, home)
        usable = digest is not None and digest == left
        for fresh in (False, True) if usable else (True,):
            db = None
            try:
                if fresh:
                    _remove(path)
                private_file(path)
                db = await StoreConnection.open(
                    lambda: _open_index(path, home.database)
                )
                indexed = await db.run(_check, ledger_id)
            except (sqlite3.Error, OSError, TypeError, ValueError):
                if db is not None:
                    with contextlib.suppress(sqlite3.Error):
                        await db.close()
            else:
                made = cls(db, indexed, path)
                await made._note()
                return made
        return cls(None, 0, path)

    async def is_changed(self, *, wait: bool = False) -> bool:
        """Check whether another process changed the index, or replaced its file.

        While it is being written that is not known before, which *wait* waits for.

        Another connection's writes by SQLite show in ``data_version``
        (sqlite.org/pragma.html), and other writes in the file's status.
        """
        db = self._db
        if db is None or (self._working.locked() and not wait):
            return False
        async with self._working:
            try:
                changed = await db.run(_examine, self._path)
            except (sqlite3.Error, OSError):
                return True
            return changed != self._left

    async def _note(self) -> None:
        if self._db is not None:
            self._left = await self._db.run(_examine, self._path)

    async def run(self, head: Callable[[], int], changed: Callable[[], None]) -> None:
        """Index the committed events, until another process *changed* the index."""
        seen, steps = head(), 0
        db, loop = self._db, asyncio.get_running_loop()
        examined = loop.time()
        while db is not None and not self._stopped.is_set():
            if loop.time() - examined >= _EXAMINED_EVERY:
                examined = loop.time()
                if await self.is_changed():
                    changed()
                    return
            busy, seen = head() != seen, head()
            if self.indexed >= seen or (busy and seen - self.indexed < _STEP):
                await self._rest(_LOOK)
                continue
            started = loop.time()
            step = _STEP if busy else _IDLE_STEP
            steps += 1
            due = not busy or steps % _CHECKPOINT_EVERY == 0
            if not await self._work(db, step, checkpoint=due):
                # Searches scan instead; a full disk may pass.
                await self._rest(_LOOK * 10)
                continue
            spent = loop.time() - started
            factor = _REST if seen - self.indexed < _MUCH else _SHORT_REST
            await self._rest(spent * factor if busy else 0.001)

    async def _work(self, db: StoreConnection, step: int, *, checkpoint: bool) -> bool:
        """Index some events, unless another process changed the index before.

        That it did is seen the next time: this one's later writes count as well.
        """
        async with self._working:
            try:
                same = await db.run(_examine, self._path) == self._left
                upto = await db.run(_feed, self.indexed, step)
                if checkpoint:
                    await db.run(_checkpoint)
                left = await db.run(_examine, self._path)
                # Its own writing changes the file, and no ``data_version``.
                if same and self._left and left[0] == self._left[0]:
                    self._left = left
            except (sqlite3.Error, OSError, ValueError):
                return False
            self.indexed = upto
        return True

    def stop(self) -> None:
        """Stop soon."""
        self._stopped.set()

    async def close(self) -> None:
        """Close the index."""
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                await db.close()

    async def _rest(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopped.wait(), seconds)


def _examine(db: sqlite3.Connection, path: Path) -> tuple[object, ...]:
    """Return a value that changes with another process's write to the index."""
    (version,) = db.execute("PRAGMA main.data_version").fetchone()
    status = path.stat()
    return version, status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns


def index_problem(home: Home, ledger_id: str) -> Callable[[sqlite3.Connection], str]:
    """Read up to the index's end, and return the comparison with a ledger.

    The index is written after the events that it names. One that knows of more than
    the ledger has, or of others, shows that the ledger was changed.
    """
    path, progress = index_path(home), None
    with contextlib.suppress(sqlite3.Error):
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as db:
            progress = db.execute("SELECT * FROM progress").fetchone()

    def compare(db: sqlite3.Connection) -> str:
        """Return the index's difference from the ledger; empty if none."""
        if progress is None or progress[0] != ledger_id or not progress[1]:
            return ""
        sql = "SELECT hash FROM events WHERE seq = ?"
        row = db.execute(sql, (progress[1],)).fetchone()
        if row is None:
            return f"the text index has event {progress[1]}, which the ledger lacks"
        if row[0] != progress[2]:
            return f"the text index has another event {progress[1]} than the ledger"
        return ""

    return compare


def _open_index(path: Path, ledger: Path) -> sqlite3.Connection:
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=schema.BUSY_SECONDS,
        isolation_level=None,
    )
    try:
        schema.harden(db)
        db.execute("PRAGMA journal_mode = WAL")
        # After a power cut the file is not the one an orderly stop told of, see
        # `index_digest`: it is built anew, so nothing waits for the disk.
        db.execute("PRAGMA synchronous = OFF")
        db.execute("PRAGMA wal_autocheckpoint = 0")
        db.execute("PRAGMA secure_delete = OFF")
        db.execute("ATTACH ? AS ledger", (f"{ledger.absolute().as_uri()}?mode=ro",))
    except BaseException:
        db.close()
        raise
    return db


def _check(db: sqlite3.Connection, ledger_id: str) -> int:
    """Return how far the index got; raise when it is about something else."""
    (tables,) = db.execute("SELECT count(*) FROM main.sqlite_master").fetchone()
    if not tables:
        db.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
        db.execute("INSERT INTO progress VALUES (?, 0, x'')", (ledger_id,))
        return 0
    ledger, upto, digest = db.execute("SELECT * FROM main.progress").fetchone()
    row = db.execute("SELECT hash FROM ledger.events WHERE seq = ?", (upto,)).fetchone()
    if ledger != ledger_id or (upto and (row is None or row[0] != digest)):
        raise sqlite3.DatabaseError("the index is of another ledger")
    return int(upto)


def _feed(db: sqlite3.Connection, start: int, step: int) -> int:
    """Index up to *step* events after *start*; return the last one."""
    row = db.execute(
        "SELECT seq, hash FROM ledger.events WHERE seq <= ? ORDER BY seq DESC LIMIT 1",
        (start + step,),
    ).fetchone()
    if row is None or row[0] <= start:
        return start
    upto, digest = row
    with transaction(db):
        db.execute(
            "INSERT INTO main.words (rowid, text)"
            " SELECT seq, text FROM ledger.events WHERE seq > ? AND seq <= ?",
            (start, upto),
        )
        db.execute("UPDATE main.progress SET upto = ?, hash = ?", (upto, digest))
    return int(upto)


def _checkpoint(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA main.wal_checkpoint(PASSIVE)").fetchone()


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
