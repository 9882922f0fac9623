"""Verify the chain of a store or an export, as a stream."""

# ruff: noqa: S608 - statements are put together from constants; values are bound

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final

import msgspec
from msgspec import Meta

from agentvault_tui.errors import LedgerDamagedError, NotFoundError, UsageError
from agentvault_tui.home import Home
from agentvault_tui.ledger import activity, schema
from agentvault_tui.ledger.chain import PREFIX, genesis, link, text_of, written
from agentvault_tui.ledger.headfile import read_witness
from agentvault_tui.ledger.places import hash_at, head_seq
from agentvault_tui.ledger.records import Head
from agentvault_tui.ledger.search import index_problem
from agentvault_tui.ledger.uses import UsesCheck
from agentvault_tui.ledger.verify_state import FullStateCheck

FORMAT: Final = "agentvault-ledger/1"
LINE_START: Final = b'{"hash":"sha256:'
_HASH_END: Final = len(LINE_START) + 64
_CHUNK: Final = 10_000
"""Events read in one snapshot, so that a verification never holds up the log."""
_COLUMNS: Final = "seq, hash, CAST(body AS BLOB), time, type, agent_id, outcome, text"
_UNREADABLE: Final = (
    sqlite3.Error,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""The errors of reading a changed value: each must be a finding, and never the end of
the verification, which is then only begun again."""
_LONGEST_LINE: Final = 65_536
_LOG_CAP: Final = 128 * 1024 * 1024
"""Bytes the log may reach during one look at all pages: it cannot shrink meanwhile."""
_LOOK_EVERY: Final = 100_000
"""Steps of SQLite's between two looks at the log."""
_PAUSE: Final = 5.0


class EventHash(msgspec.Struct):
    """An event's number and hash."""

    seq: Annotated[int, Meta(ge=0)]
    hash: Annotated[str, Meta(pattern=rf"\A{PREFIX}[0-9a-f]{{64}}\Z")]

    @property
    def digest(self) -> bytes:
        """The hash as bytes."""
        return bytes.fromhex(self.hash.removeprefix(PREFIX))


class ExportHeader(msgspec.Struct, kw_only=True):
    """The first line of an export, as it is written and read."""

    format: str = FORMAT
    ledger: str
    first: EventHash = msgspec.field(name="from")
    """The event before the first one."""
    last: EventHash = msgspec.field(name="to")
    count: int
    exported_at: str


class SelectionHeader(msgspec.Struct, kw_only=True):
    """The first line of an export of chosen events."""

    format: str = FORMAT
    ledger: str
    selection: dict[str, str]
    """The filter, as it was typed."""
    last: EventHash = msgspec.field(name="to")
    """The head of the ledger at the export."""
    count: int
    exported_at: str


_HEADERS: Final[
    tuple[
        msgspec.json.Decoder[ExportHeader] | msgspec.json.Decoder[SelectionHeader], ...
    ]
] = (msgspec.json.Decoder(ExportHeader), msgspec.json.Decoder(SelectionHeader))


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of a verification."""

    ok: bool
    events: int
    """How many were checked and are right."""
    head: Head
    """The last right one."""
    ledger: str | None
    first_bad: int | None
    """The first event that is wrong; None when it is no single event."""
    problem: str | None
    selection: bool = False
    """Whether it is of chosen events, which were compared with a whole ledger."""
    count: int = 0
    """How many events the header of a selection promises."""


_Counts = tuple[
    list[int], Counter[tuple[str, str, str]], dict[activity.Key, tuple[int, str]]
]
"""Eras, counts by type, and counts by an operator's questions."""


class _BadError(Exception):
    def __init__(self, seq: int | None, problem: str) -> None:
        super().__init__(problem)
        self.seq = seq
        self.problem = problem


def verify_ledger(
    home: Home,
    *,
    now: datetime | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Verification:
    """Check a home's ledger and its state, next to a running broker or without one.

    Args:
        home: the home.
        now: by which tokens have expired; the machine's own clock if not given.
        progress: called with the number of the last event that was found right.

    Returns:
        the checked extent, and the first wrong sequence number, if any.

    Raises:
        NotFoundError: there is no ledger.
    """
    if not home.database.exists():
        raise NotFoundError(f"there is no ledger at {home.database}")
    walk = _Walk(0, bytes(32), state=FullStateCheck(home.database, now))
    try:
        witness = read_witness(home.head_file)
        with closing(schema.open_reader(home.database)) as db:
            schema.check_version(db, home.database)
            walk.changed = schema.changes(db)
            row = db.execute("SELECT value FROM meta WHERE key = 'ledger'").fetchone()
            if row is None:
                raise _BadError(None, "the ledger id is missing")  # noqa: TRY301 - one report for all
            # Before the events: what is indexed while they are read is not missing.
            compare_index = index_problem(home, str(row[0]))
            walk.start(str(row[0]), db)
            outside = None if witness is None else witness.head.seq
            at_witness = _walk_store(db, walk, outside, progress)
            if witness is not None:
                _compare(walk, witness.ledger, witness.head, at_witness)
            _check_beside(db, walk, Path(f"{home.database}-wal"))
            if problem := compare_index(db):
                raise _BadError(None, problem)  # noqa: TRY301 - one report for all
        if witness is None and walk.seq:
            raise _BadError(None, "the head kept outside the database is missing")  # noqa: TRY301 - one report for all
    except _BadError as bad:
        return walk.report(bad)
    except LedgerDamagedError as error:
        return walk.report(_BadError(None, error.what))
    except _UNREADABLE as error:
        return walk.report(_BadError(walk.seq + 1, f"it cannot be read ({error})"))
    return walk.report(None)


def verify_export(path: Path, *, against: Path | None = None) -> Verification:
    """Check an export in JSON Lines.

    A whole export needs nothing but the file. A selection is right only if each of its
    events is in the ledger that *against* holds, and if that ledger is right.

    Args:
        path: the file.
        against: a home directory, or a whole export of the same ledger.

    Returns:
        the checked extent, and the first wrong sequence number, if any.

    Raises:
        NotFoundError: there is no such file.
        UsageError: it is no export, or *against* is none.
    """
    walk = _Walk(0, bytes(32))
    try:
        with path.open("rb") as file:
            header = _read_header(path, file.readline(_LONGEST_LINE))
            if isinstance(header, SelectionHeader):
                return _verify_selection(file, header, against)
            walk = _Walk(header.first.seq, header.first.digest, header.ledger)
            if walk.seq == 0 and walk.hash != genesis(header.ledger):
                raise _BadError(None, "the header's genesis is not its ledger's")  # noqa: TRY301 - one report for all
            while line := file.readline(_LONGEST_LINE):
                _check_line(walk, line)
            last = header.last
            if (last.seq, last.digest) != (walk.seq, walk.hash):
                raise _BadError(  # noqa: TRY301 - one report for all
                    walk.seq + 1, f"the header promises events up to {last.seq}"
                )
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no file {path}") from error
    except _BadError as bad:
        return walk.report(bad)
    except OSError as error:
        return walk.report(_BadError(walk.seq + 1, f"it cannot be read ({error})"))
    return walk.report(None)


def check_tail(db: sqlite3.Connection, ledger_id: str, count: int) -> str | None:
    """Check the last *count* events; return the fault of the first bad one."""
    start = max(head_seq(db) - count, 0)
    previous = hash_at(db, ledger_id, start)
    if previous is None:
        return f"event {start} is missing"
    walk = _Walk(start, previous)
    try:
        for row in db.execute(
            f"SELECT {_COLUMNS} FROM events WHERE seq > ? ORDER BY seq", (start,)
        ):
            walk.step(*row)
    except _BadError as bad:
        return f"event {bad.seq}: {bad.problem}"
    return None


class _Walk:
    """Checks events one after another, and counts them."""

    def __init__(
        self,
        seq: int,
        digest: bytes,
        ledger: str | None = None,
        state: FullStateCheck | None = None,
    ) -> None:
        self.first = self.seq = seq
        self.hash = digest
        self.ledger = ledger
        self.state = state
        self.state_problems: list[str] = []
        self.changed: str | None = None
        """Which tables, indexes and triggers were changed, if any."""
        self.time = ""
        self.eras: list[int] = []
        self.tally: Counter[tuple[str, str, str]] = Counter()
        self.activity: dict[activity.Key, tuple[int, str]] = {}
        self.uses: tuple[sqlite3.Connection, UsesCheck] | None = None
        """Compares the uses of limits, where there is a store."""
        self.stored: _Counts | None = None
        """The counts of the store, in the snapshot of its last event."""

    def start(self, ledger: str, db: sqlite3.Connection) -> None:
        """Start from the genesis of *ledger*."""
        self.hash, self.ledger = genesis(ledger), ledger
        self.uses = db, UsesCheck()
        if self.state is not None:
            self.state.begin(db)

    def step(self, seq: Any, digest: Any, body: bytes, *columns: Any) -> None:
        """Take one link, if it follows, and its columns are those of its body."""
        expected = self.seq + 1
        if seq != expected:
            raise _BadError(expected, "it is missing")
        if link(self.hash, expected, body) != digest:
            raise _BadError(expected, "its hash does not follow from what is before it")
        if columns:
            value, fact = _check_columns(seq, body, columns)
            for key in activity.keys(fact, columns[0]):
                self.activity[key] = (self.activity.get(key, (0,))[0] + 1, columns[0])
            if self.state is not None:
                self.state.learn(seq, value)
            if self.uses is not None:
                self.uses[1].learn(self.uses[0], value)
        self.seq, self.hash = expected, digest

    def count(
        self, time: str, kind: str, agent: str | None, outcome: str | None
    ) -> None:
        """Count one event, and notice where time went back."""
        if time < self.time or not self.time:
            self.eras.append(self.seq)
        self.time = time
        self.tally[agent or "", kind, outcome or ""] += 1

    def report(self, bad: _BadError | None) -> Verification:
        """Say how far it got."""
        head = Head(self.seq, written(self.hash))
        problems = [bad.problem if bad else None, self.changed]
        if bad is None:
            problems += self.state_problems
        return Verification(
            ok=not any(problems),
            events=self.seq - self.first,
            head=head,
            ledger=self.ledger,
            first_bad=None if bad is None else bad.seq,
            problem="; besides, ".join(filter(None, problems)) or None,
        )


def _walk_store(
    db: sqlite3.Connection,
    walk: _Walk,
    witness: int | None,
    progress: Callable[[int], None],
) -> bytes | None:
    """Walk the whole store in snapshots; return the hash at place *witness*."""
    sql = f"SELECT {_COLUMNS} FROM events WHERE seq > ? ORDER BY seq LIMIT {_CHUNK}"
    at_witness = walk.hash if witness == 0 else None
    last = False
    while not last:
        db.execute("BEGIN")
        rows = db.execute(sql, (walk.seq,)).fetchall()
        last = len(rows) < _CHUNK
        if not last:
            db.execute("COMMIT")
        for row in rows:
            walk.step(*row)
            walk.count(row[3], row[4], row[5], row[6])
            if walk.seq == witness:
                at_witness = walk.hash
        progress(walk.seq)
    # This snapshot holds the end, so counts and state must be those of this walk.
    walk.stored = _stored_counts(db)
    if walk.state is not None:
        walk.state_problems = walk.state.problems(db)
    if walk.uses is not None and (problem := walk.uses[1].problem(db)):
        walk.state_problems.append(problem)
    db.execute("COMMIT")
    return at_witness


def _check_beside(db: sqlite3.Connection, walk: _Walk, log: Path) -> None:
    """Check the counts next to the events, the file's pages, and its indexes."""
    if walk.stored != (walk.eras, walk.tally, walk.activity):
        raise _BadError(None, "the counts kept beside the events are not theirs")
    problem = _check_pages(db, log)
    if problem != "ok":
        raise _BadError(None, f"the file is damaged beside its events ({problem:.200})")


def _check_pages(db: sqlite3.Connection, log: Path) -> str:
    """Have SQLite check all pages and indexes, again where its log grows too large."""

    def too_large() -> bool:
        return log.exists() and log.stat().st_size > _LOG_CAP

    db.set_progress_handler(too_large, _LOOK_EVERY)
    try:
        while True:
            try:
                (result,) = db.execute("PRAGMA integrity_check(1)").fetchone()
                return str(result)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorname != "SQLITE_INTERRUPT":
                    raise
                time.sleep(_PAUSE)
    finally:
        db.set_progress_handler(None, 0)


def _stored_counts(db: sqlite3.Connection) -> _Counts:
    """Return the counts of the tables, and of the events those do not count yet."""
    eras = [row[0] for row in db.execute("SELECT first_seq FROM eras ORDER BY 1")]
    rows = db.execute("SELECT agent_id, type, outcome, events FROM tally")
    tally = Counter({(row[0], row[1], row[2]): row[3] for row in rows})
    counted = {row[:4]: row[4:] for row in db.execute("SELECT * FROM activity")}
    new = activity.uncounted(db)
    tally.update(new.tally)
    for key, (events, last) in new.activity.items():
        counted[key] = counted.get(key, (0, ""))[0] + events, last
    return eras, tally, counted


def columns_of(value: dict[str, object]) -> tuple[object, ...]:
    """Return the columns next to a parsed body: time, type and the others."""
    indexed = (value[name] for name in ("time", "type", "agent_id", "outcome"))
    return *indexed, text_of(value)


def _check_columns(
    seq: int, body: bytes, columns: tuple[object, ...]
) -> tuple[dict[str, Any], activity.Fact]:
    """Compare the columns next to a body with it; return it parsed, and its fact."""
    try:
        value = json.loads(str(body, "utf-8"))
        as_columns = columns_of(value)
        same = value["seq"] == seq
        fact = activity.fact_of(value)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _BadError(seq, "its body is not an event's") from error
    if not same:
        raise _BadError(seq, "its body has another number")
    if as_columns != columns:
        names = ("time", "type", "agent_id", "outcome", "text")
        column = next(
            name
            for name, one, other in zip(names, as_columns, columns, strict=True)
            if one != other
        )
        raise _BadError(seq, f"its column {column} is not what its body says")
    return value, fact


def _compare(walk: _Walk, ledger: str, head: Head, stored: bytes | None) -> None:
    if ledger != walk.ledger:
        raise _BadError(None, "the head kept outside belongs to another ledger")
    if stored is None:
        raise _BadError(
            walk.seq + 1, f"it is missing: the ledger had reached event {head.seq}"
        )
    if written(stored) != head.hash:
        raise _BadError(head.seq, "it is not the event that was recorded")


def _check_line(walk: _Walk, line: bytes) -> None:
    """Check one exported event: the line is its body with the hash put in front."""
    walk.step(*_parse_line(line, walk.seq + 1))


def _parse_line(line: bytes, expected: int) -> tuple[int, bytes, bytes]:
    """Return number, hash and body of an exported event, which should be *expected*."""
    digest = line[len(LINE_START) : _HASH_END]
    if not (line.startswith(LINE_START) and line[_HASH_END : _HASH_END + 2] == b'",'):
        raise _BadError(expected, "its line is not an exported event's")
    if not line.endswith(b"}\n"):
        raise _BadError(expected, "its line is cut short")
    body = b"{" + line[_HASH_END + 2 : -1]
    try:
        seq = json.loads(body)["seq"]
        stored = bytes.fromhex(digest.decode())
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _BadError(expected, "its line is not an exported event's") from error
    if stored.hex().encode() != digest:
        raise _BadError(expected, "its hash is not written in lower case")
    if type(seq) is not int:
        raise _BadError(expected, "its line is not an exported event's")
    return seq, stored, body


def _read_header(path: Path, line: bytes) -> ExportHeader | SelectionHeader:
    """Read the first line of an export.

    Raises:
        UsageError: it is none, so that the file says nothing about a ledger.
    """
    for decoder in _HEADERS:
        with contextlib.suppress(ValueError, RecursionError):
            header = decoder.decode(line)
            if header.format == FORMAT:
                return header
    raise UsageError(
        f"{path} is no export that can be verified: its first line is no header of"
        f" {FORMAT}",
        "name a file of `agentvault audit export` or of `e` in the console",
    )


def _verify_selection(
    file: BinaryIO, header: SelectionHeader, against: Path | None
) -> Verification:
    """Compare each event of a selection with the ledger that *against* holds."""
    events, bad = 0, None
    with ExitStack() as stack:
        try:
            recorded = None
            if against is not None:
                _check_ledger(header, against)
                recorded = _recorded(stack, against)
            for _ in _compared(file, header, recorded):
                events += 1
            if events != header.count:
                raise _BadError(None, f"the header promises {header.count} events")  # noqa: TRY301 - one report for all
            if recorded is None:
                raise _BadError(None, "it was not compared with a ledger")  # noqa: TRY301 - one report for all
        except _BadError as error:
            bad = error
    return Verification(
        ok=bad is None,
        events=events,
        head=Head(header.last.seq, header.last.hash),
        ledger=header.ledger,
        first_bad=bad.seq if bad else None,
        problem=bad.problem if bad else None,
        selection=True,
        count=header.count,
    )


def _compared(
    file: BinaryIO,
    header: SelectionHeader,
    recorded: Callable[[int], bytes | None] | None,
) -> Iterator[int]:
    """Yield the number of each event of a selection that is as it was recorded.

    Raises:
        _BadError: one is not, or the ledger's head is another than the header's.
    """
    last, newest = 0, None
    while line := file.readline(_LONGEST_LINE):
        seq, _, _ = _parse_line(line, last + 1)
        if not last < seq <= header.last.seq:
            raise _BadError(last + 1, "it is not in the order of the ledger")
        if recorded is not None and recorded(seq) != line:
            raise _BadError(seq, "it is not the event that was recorded")
        last, newest = seq, line
        yield seq
    if recorded is None:
        return
    head = header.last
    at_head = newest if last == head.seq else recorded(head.seq)
    if at_head is None:
        raise _BadError(None, f"the ledger ends before event {head.seq}")
    if not at_head.startswith(b'{"hash":"%b"' % head.hash.encode()):
        raise _BadError(head.seq, "it is not the head that the header names")


def _check_ledger(header: SelectionHeader, against: Path) -> None:
    """Verify the home directory or whole export that a selection is compared with.

    Raises:
        UsageError: it is a selection as well.
        _BadError: it is not right, or another ledger.
    """
    whole = (
        verify_ledger(Home.locate(against))
        if against.is_dir()
        else verify_export(against)
    )
    if whole.selection:
        raise UsageError(f"{against} is a selection too", "name a whole export")
    if not whole.ok:
        raise _BadError(whole.first_bad, f"{against} is not right: {whole.problem}")
    if whole.ledger != header.ledger:
        raise _BadError(None, f"{against} is another ledger")


def _recorded(stack: ExitStack, against: Path) -> Callable[[int], bytes | None]:
    """Return a function that finds the exported line of an event.

    It is called with growing numbers. Of a number that the ledger lacks it returns
    None.
    """
    if against.is_dir():
        home = Home.locate(against)
        db = stack.enter_context(closing(schema.open_reader(home.database)))
        upto = head_seq(db)
        return lambda seq: next(lines_of(db, seq - 1, min(seq, upto)), None)
    file = stack.enter_context(against.open("rb"))
    header = _read_header(against, file.readline(_LONGEST_LINE))
    at = header.first.seq if isinstance(header, ExportHeader) else 0

    def find(seq: int) -> bytes | None:
        nonlocal at
        line = b""
        while at < seq:
            line, at = file.readline(_LONGEST_LINE), at + 1
        return line or None

    return find


def lines_of(db: sqlite3.Connection, after: int, upto: int) -> Iterator[bytes]:
    """Yield exported lines, in snapshots that let go of the log."""
    while after < upto:
        rows = db.execute(
            "SELECT seq, hash, CAST(body AS BLOB) FROM events"
            f" WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT {_CHUNK}",
            (after, upto),
        ).fetchall()
        if not rows:
            raise LedgerDamagedError(
                f"event {after + 1} is missing", "run agentvault audit verify"
            )
        for seq, digest, body in rows:
            yield b'%b%b",%b\n' % (LINE_START, digest.hex().encode(), body[1:])
            after = seq
