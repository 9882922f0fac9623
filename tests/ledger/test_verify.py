"""Verification: whatever was done to a store or an export, the first bad event."""

from __future__ import annotations

import asyncio
import csv
import itertools
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support import independent_verifier
from support.ledger_kit import decision, manual_clock, note, token, unguarded
from support.manual_clock import ManualClock
from support.patience import until

from agentvault_tui.csvrows import safe_cell
from agentvault_tui.errors import NotFoundError, UsageError
from agentvault_tui.home import Home
from agentvault_tui.ledger import (
    DropToken,
    Ledger,
    Meta,
    export_ledger,
    verify_export,
    verify_ledger,
)
from agentvault_tui.ledger.activity import count_new
from agentvault_tui.model import EventType

_COUNT = 40
_REST = "time, type, agent_id, outcome, text, body, hash FROM events"


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A closed ledger of forty events, to be copied before tampering."""
    path = tmp_path_factory.mktemp("stored")
    home = Home(path, path)
    asyncio.run(fill(home))
    return home


async def fill(home: Home) -> None:
    clock = manual_clock()
    ledger = await Ledger.open(home, clock=clock)
    for number in range(_COUNT):
        clock.advance(1)
        draft = note() if number % 5 == 0 else decision(f"agt_{number % 3}", n=number)
        await ledger.commit(draft)
    await ledger.close()
    with closing(sqlite3.connect(home.database, isolation_level=None)) as db:
        count_new(db)


def tampered(stored: Home, change: Callable[[sqlite3.Connection], object]) -> Home:
    """Return a copy of *stored* that *change* was made to, its triggers as before."""
    path = stored.data.with_name(stored.data.name + "-copy")
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(stored.data, path)
    home = Home(path, path)
    db = sqlite3.connect(home.database, isolation_level=None)
    with unguarded(db):
        change(db)
    db.close()
    return home


def tampered_for_good(
    stored: Home, change: Callable[[sqlite3.Connection], object]
) -> Home:
    """Return a copy of *stored* that *change* was made to, and nothing mended."""
    home = tampered(stored, lambda _: None)
    db = sqlite3.connect(home.database, isolation_level=None)
    change(db)
    db.close()
    return home


def test_a_good_store_verifies(stored: Home) -> None:
    """Everything is right, and all of it was checked."""
    report = verify_ledger(stored)
    assert (report.ok, report.events, report.head.seq) == (True, _COUNT, _COUNT)


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        (
            "DROP TRIGGER events_are_not_changed",
            "the trigger events_are_not_changed is gone",
        ),
        (
            "CREATE TRIGGER quiet AFTER INSERT ON events BEGIN SELECT 1; END",
            "the trigger quiet was added",
        ),
        ("DROP INDEX events_by_type", "the index events_by_type is gone"),
        ("ALTER TABLE outbox ADD COLUMN x", "the table outbox was changed"),
    ],
)
@pytest.mark.parametrize("bad", [None, 7])
def test_changed_tables_and_triggers_are_named_and_the_chain_still_checked(
    stored: Home, sql: str, told: str, bad: int | None
) -> None:
    """What is gone, changed or added is named, and with it the first bad event."""

    def change(db: sqlite3.Connection) -> None:
        db.execute("UPDATE events SET body = body || ' ' WHERE seq = ?", (bad,))

    home = tampered(stored, change)
    db = sqlite3.connect(home.database, isolation_level=None)
    db.execute(sql)
    db.close()
    report = verify_ledger(home)
    assert (report.ok, report.first_bad) == (False, bad)
    assert report.events == (_COUNT if bad is None else bad - 1)
    assert told in (report.problem or "")
    assert report.ledger == verify_ledger(stored).ledger


def test_all_triggers_gone_and_no_events_table_are_told(stored: Home) -> None:
    """Many changes are counted, and a store without events is no traceback."""

    def change(db: sqlite3.Connection) -> None:
        db.execute("DROP TABLE events")
        for number in range(9):
            db.execute(f"CREATE TABLE extra_{number} (x)")

    report = verify_ledger(tampered_for_good(stored, change))
    assert (report.ok, report.first_bad, report.events) == (False, 1, 0)
    assert "no such table: events" in (report.problem or "")
    assert " more" in (report.problem or "")


def test_no_store_is_no_traceback(tmp_path: Path) -> None:
    """A home without a ledger, and a file that is not there, are told as such."""
    with pytest.raises(NotFoundError):
        verify_ledger(Home(tmp_path, tmp_path))
    with pytest.raises(NotFoundError):
        verify_export(tmp_path / "none.jsonl")
    with pytest.raises(NotFoundError):
        export_ledger(
            Home(tmp_path, tmp_path), tmp_path / "x", now=manual_clock().now()
        )


_places = st.integers(1, _COUNT)
_many = settings(
    max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.slow
@_many
@given(_places, st.sampled_from(["body", "hash"]), st.integers(0, 10_000))
def test_any_flipped_bit_is_named(
    stored: Home, seq: int, column: str, place: int
) -> None:
    """One bit of a body or a hash changed: verify names exactly that event."""

    def flip(db: sqlite3.Connection) -> None:
        sql = f"SELECT CAST({column} AS BLOB) FROM events WHERE seq = ?"
        (value,) = db.execute(sql, (seq,)).fetchone()
        bit = place % (8 * len(value))
        changed = bytearray(value)
        changed[bit // 8] ^= 1 << bit % 8
        cast = "CAST(? AS TEXT)" if column == "body" else "?"
        db.execute(
            f"UPDATE events SET {column} = {cast} WHERE seq = ?", (bytes(changed), seq)
        )

    report = verify_ledger(tampered(stored, flip))
    assert (report.ok, report.first_bad) == (False, seq)
    assert report.events == seq - 1


@pytest.mark.slow
@_many
@given(
    _places,
    st.sampled_from(["time", "type", "agent_id", "outcome", "text"]),
    st.sampled_from(["x", "", None, 7, b"x", "denied", "agent.revoked"]),
)
def test_any_changed_column_is_named(
    stored: Home, seq: int, column: str, value: object
) -> None:
    """A column that filters use, changed alone, is named although the chain holds."""

    def change(db: sqlite3.Connection) -> None:
        sql = f"UPDATE OR IGNORE events SET {column} = ? WHERE seq = ?"
        (before,) = db.execute(
            f"SELECT {column} FROM events WHERE seq = ?", (seq,)
        ).fetchone()
        db.execute(sql, (value, seq))
        (after,) = db.execute(
            f"SELECT {column} FROM events WHERE seq = ?", (seq,)
        ).fetchone()
        changed.append(before != after)

    changed: list[bool] = []
    report = verify_ledger(tampered(stored, change))
    assert report.first_bad == (seq if changed[0] else None)
    assert report.ok is not changed[0]


@pytest.mark.slow
@_many
@given(_places, _places)
def test_deleted_swapped_and_doubled_events_are_named(
    stored: Home, one: int, other: int
) -> None:
    """Deleting, swapping and copying events is named at the first place it shows."""
    low, high = sorted((one, other))
    gone = verify_ledger(
        tampered(stored, lambda db: db.execute(f"DELETE FROM events WHERE seq = {one}"))
    )
    assert (gone.ok, gone.first_bad) == (False, one)
    if low == high:
        return
    moves = (
        f"UPDATE events SET seq = -1 WHERE seq = {low}",
        f"UPDATE events SET seq = {low} WHERE seq = {high}",
        f"UPDATE events SET seq = {high} WHERE seq = -1",
    )
    swapped = verify_ledger(
        tampered(stored, lambda db: [db.execute(move) for move in moves])
    )
    assert (swapped.ok, swapped.first_bad) == (False, low)
    doubled = verify_ledger(
        tampered(
            stored,
            lambda db: db.execute(
                f"REPLACE INTO events SELECT {high}, {_REST} WHERE seq = {low}"
            ),
        )
    )
    assert (doubled.ok, doubled.first_bad) == (False, high)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE tally SET events = events + 1",
        "UPDATE activity SET events = events + 1",
        "UPDATE activity SET last = '2000-01-01T00:00:00.000000Z'",
        "DELETE FROM activity WHERE facet = 'quarter'",
        "DELETE FROM eras",
        "UPDATE meta SET value = 'x' WHERE key = 'ledger'",
        f"INSERT INTO events SELECT seq + 1, {_REST} WHERE seq = {_COUNT}",
        "CREATE TABLE more (x)",
    ],
)
def test_what_stands_beside_the_events_is_checked(stored: Home, statement: str) -> None:
    """Counts, eras, the ledger's name, an added event and another table all show."""
    report = verify_ledger(tampered(stored, lambda db: db.execute(statement)))
    assert not report.ok
    assert report.problem


async def test_verify_works_beside_a_writing_broker(home: Home, ledger: Ledger) -> None:
    """A verification while tokens come and go is right, and they keep doing so."""
    done = asyncio.Event()
    clock = manual_clock()

    async def write() -> None:
        for number in itertools.count():
            if done.is_set():
                return
            issued = token(clock, f"tok_{number}")
            await ledger.commit(decision(), changes=[issued])
            if number % 2:
                gone = note(EventType.TOKEN_REVOKED)
                await ledger.commit(gone, changes=[DropToken(issued.id)])

    writing = asyncio.ensure_future(write())
    await ledger.commit(decision())
    for _ in range(5):
        report = await asyncio.to_thread(verify_ledger, home, now=clock.now())
        assert report.ok, report
    done.set()
    await writing


@pytest.mark.slow
def test_a_verifier_ends_with_the_broker_that_started_it(home: Home) -> None:
    """Its stdin ends then, and it says nothing more, however much is to be read."""

    async def write() -> None:
        ledger = await Ledger.open(home, clock=manual_clock())
        for _ in range(8):
            await ledger.commit(*(decision() for _ in range(2_000)))
        await ledger.close()

    asyncio.run(write())
    argv = [sys.executable, "-P", "-m", "agentvault_tui.ledger", "--home", home.data]
    ended = subprocess.run(argv, input=b"", capture_output=True, check=False)
    assert ended.returncode == 1
    assert b'"ok"' not in ended.stdout


@pytest.mark.slow
@_many
@given(st.integers(0, _COUNT), st.data())
def test_an_export_verifies_elsewhere_and_any_change_is_named(
    stored: Home, after: int, data: st.DataObject
) -> None:
    """Our verifier and the independent one agree on whole, partial, changed files."""
    target = stored.data.with_name("export.jsonl")
    now = manual_clock().now()
    done = export_ledger(stored, target, after=after, replace=True, now=now)
    report = verify_export(target)
    assert (report.ok, report.events) == (True, done.count)
    assert (report.head.seq, report.head.hash) == (done.last.seq, done.last.hash)
    assert independent_verifier.verify(target) == (done.last.seq, done.last.hash)
    if not done.count:
        return
    lines = target.read_bytes().splitlines(keepends=True)
    place = data.draw(st.integers(1, done.count))
    kind = data.draw(st.sampled_from(["flip", "drop", "double"]))
    if kind == "flip":
        line = bytearray(lines[place])
        bit = data.draw(st.integers(0, 8 * len(line) - 9))
        line[bit // 8] ^= 1 << bit % 8
        lines[place] = bytes(line)
    elif kind == "drop":
        del lines[place]
    else:
        lines.insert(place, lines[place])
    target.write_bytes(b"".join(lines))
    changed = verify_export(target)
    assert not changed.ok
    expected = after + place + (kind == "double")
    assert changed.first_bad == expected
    with pytest.raises(ValueError, match=r"."):
        independent_verifier.verify(target)


def test_an_export_is_events_one_a_line(stored: Home, tmp_path: Path) -> None:
    """Each line parses as an API event, the file is 0600, no part is left."""
    target = tmp_path / "out.jsonl"
    target.write_text("old")
    export_ledger(stored, target, replace=True, now=manual_clock().now())
    header, *events = map(json.loads, target.read_text().splitlines())
    assert header["format"] == "agentvault-ledger/1"
    assert header["count"] == len(events) == _COUNT
    assert events[4]["seq"] == 5
    assert events[-1]["hash"] == header["to"]["hash"]
    assert target.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]
    with pytest.raises(UsageError):
        export_ledger(stored, tmp_path / "no" / "x", now=manual_clock().now())


@pytest.mark.parametrize(
    "rubbish",
    [b"", b"\n", b"[]\n", b"{}\n", b"\xff\xfe", b"[" * 50_000, b"x" * 100_000],
)
def test_a_file_that_is_no_export_is_refused(tmp_path: Path, rubbish: bytes) -> None:
    """A file of another format is no fault of the ledger, and is refused as such."""
    path = tmp_path / "rubbish"
    path.write_bytes(rubbish)
    with pytest.raises(UsageError, match="is no export"):
        verify_export(path)


def selection(stored: Home, whole: Path, seqs: list[int], to: int = _COUNT) -> bytes:
    """Return the file of a selection, of the lines of a whole export."""
    export_ledger(stored, whole, replace=True, now=manual_clock().now())
    first, *lines = whole.read_bytes().splitlines(keepends=True)
    header = json.loads(first)
    del header["from"]
    digest = json.loads(lines[to - 1])["hash"]
    chosen = {"selection": {"filter": "x"}, "count": len(seqs)}
    header |= {**chosen, "to": {"seq": to, "hash": digest}}
    text = json.dumps(header).encode() + b"\n"
    return text + b"".join(lines[seq - 1] for seq in seqs)


@pytest.mark.slow
@_many
@given(st.data())
def test_a_selection_is_right_only_if_each_event_is_in_the_ledger(
    stored: Home, data: st.DataObject
) -> None:
    """A home directory and a whole export tell every change of it, and alone none."""
    folder = stored.data.parent
    whole, chosen = folder / "whole.jsonl", folder / "chosen.jsonl"
    seqs = sorted(data.draw(st.sets(st.integers(1, _COUNT))))
    content = selection(stored, whole, seqs)
    chosen.write_bytes(content)
    assert not verify_export(chosen).ok
    for against in (whole, stored.data):
        report = verify_export(chosen, against=against)
        assert (report.ok, report.selection) == (True, True)
        assert (report.events, report.head.seq) == (len(seqs), _COUNT)
    if not seqs:
        return
    lines = content.splitlines(keepends=True)
    place = data.draw(st.integers(1, len(seqs)))
    kind = data.draw(st.sampled_from(["flip", "drop", "double", "swap"]))
    if kind == "flip":
        line = bytearray(lines[place])
        bit = data.draw(st.integers(0, 8 * len(line) - 9))
        line[bit // 8] ^= 1 << bit % 8
        lines[place] = bytes(line)
    elif kind == "drop":
        del lines[place]
    elif kind == "double" or len(seqs) == 1:
        lines.insert(place, lines[place])
    else:
        lines[1:] = lines[:0:-1]
    chosen.write_bytes(b"".join(lines))
    for against in (whole, stored.data):
        assert not verify_export(chosen, against=against).ok


def test_a_selection_is_compared_with_its_own_whole_ledger(
    stored: Home, tmp_path: Path
) -> None:
    """A changed, shorter or foreign ledger, and another selection, prove nothing."""
    whole, chosen = tmp_path / "whole.jsonl", tmp_path / "chosen.jsonl"
    chosen.write_bytes(selection(stored, whole, [2, 3]))
    with pytest.raises(UsageError, match="selection too"):
        verify_export(chosen, against=chosen)
    lines = whole.read_bytes().splitlines(keepends=True)
    whole.write_bytes(b"".join([*lines[:5], *lines[6:]]))
    assert "is not right" in str(verify_export(chosen, against=whole).problem)
    header = json.loads(lines[0]) | {"ledger": "0" * 32}
    whole.write_bytes(json.dumps(header).encode() + b"\n" + b"".join(lines[1:]))
    assert not verify_export(chosen, against=whole).ok
    short = selection(stored, whole, [2], to=5)
    header = json.loads(short.splitlines()[0])
    header["to"]["seq"] = 6
    chosen.write_bytes(json.dumps(header).encode() + b"\n" + short.splitlines(True)[1])
    report = verify_export(chosen, against=whole)
    assert (report.ok, report.first_bad) == (False, 6)


async def test_csv_is_inert(home: Home, clock: ManualClock, tmp_path: Path) -> None:
    """No cell is a formula or an escape sequence, and every row keeps its columns."""
    ledger = await Ledger.open(home, clock=clock)
    for name in ("=1+1", "+1", "-1", "@x", "\t=1", "a\x1b]0;x\x07", 'q",\n', " =x"):
        await ledger.commit(decision(name=name, resource=name, p=name))
    await ledger.close()
    target = tmp_path / "out.csv"
    export_ledger(home, target, form="csv", now=clock.now())
    text = target.read_bytes().decode()
    assert "\x1b" not in text
    rows = list(csv.DictReader(text.splitlines()))
    assert len(rows) == 8
    assert rows[0]["actor_name"] == "'=1+1"
    assert all(row["hash"].startswith("sha256:") for row in rows)


@given(st.text())
@example("=1")
@example(" =1")
@example("\t=1")
@example("\uff1d1")
def test_no_cell_starts_a_formula(value: str) -> None:
    """Whatever the value, no spreadsheet takes its cell for a formula."""
    cell = safe_cell(value)
    assert cell.lstrip()[:1] not in set("=+-@＝＋－＠")
    assert cell.isprintable()


def test_the_independent_verifier_runs_alone(stored: Home, tmp_path: Path) -> None:
    """The second verifier runs isolated, with nothing of ours, and finds the head."""
    target = tmp_path / "out.jsonl"
    done = export_ledger(stored, target, now=manual_clock().now())
    script = independent_verifier.__file__
    ran = subprocess.run(
        [sys.executable, "-I", script, str(target)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.split() == [str(_COUNT), done.last.hash]


async def test_a_text_index_that_knows_more_than_the_ledger_is_a_fault(
    stored: Home, tmp_path: Path
) -> None:
    """It is written after the events that it names: an older ledger was put back."""
    home = Home(tmp_path / "home", tmp_path / "home")
    shutil.copytree(stored.data, home.data)
    assert verify_ledger(home).ok
    names = (home.database.name, home.head_file.relative_to(home.data))
    older = {name: (home.data / name).read_bytes() for name in names}
    ledger = await Ledger.open(home, clock=manual_clock())
    await ledger.commit(note())
    await until(lambda: not ledger.index_lag)
    await ledger.close()
    assert verify_ledger(home).ok
    for name, content in older.items():
        (home.data / name).write_bytes(content)
    report = verify_ledger(home)
    assert not report.ok
    assert "the text index has event" in str(report.problem)


LISTED = [
    *("secret_origins", "secret_for:stripe", "grant_ends:agt_1:send:payment"),
    *("gateway_text:hosts/claude-code.toml", "alerts_replaced:ops!1f"),
]


@pytest.mark.parametrize(
    "key",
    [
        *("policy", "policy_checked", "tenant_log", "agent_shares_user"),
        *("approver_existed", "gateway_files", "alerts_file", *LISTED),
        *("settings_recorded", "applied_files"),
    ],
)
@pytest.mark.parametrize("change", ["UPDATE meta SET value = 'x'", "DELETE FROM meta"])
async def test_a_small_record_that_decides_is_compared_with_its_event(
    tmp_path: Path, key: str, change: str
) -> None:
    """Such as the active policy, where a secret may go, and when a grant ends."""
    home = Home(tmp_path, tmp_path)
    home.prepare()
    ledger = await Ledger.open(home, clock=manual_clock())
    await ledger.commit(note(), changes=[Meta(key, "1")])
    await ledger.commit(changes=[Meta(key, "2"), Meta("another", "3")])
    await ledger.close()
    assert verify_ledger(home).ok
    with closing(sqlite3.connect(home.database)) as db, db:
        db.execute(f"{change} WHERE key = 'app:{key}'")
    report = verify_ledger(home)
    assert not report.ok
    assert f"app:{key}" in str(report.problem)


@pytest.mark.parametrize("key", LISTED)
async def test_a_small_record_that_no_event_tells_of_is_a_fault(
    tmp_path: Path, key: str
) -> None:
    """If it was put there, a secret would be sent to a place that nobody chose."""
    home = Home(tmp_path, tmp_path)
    home.prepare()
    ledger = await Ledger.open(home, clock=manual_clock())
    await ledger.commit(note(), changes=[Meta("another", "3")])
    await ledger.close()
    with closing(sqlite3.connect(home.database)) as db, db:
        db.execute("INSERT INTO meta VALUES (?, '[]', 99)", (f"app:{key}",))
    report = verify_ledger(home)
    assert not report.ok
    assert f"app:{key}" in str(report.problem)
