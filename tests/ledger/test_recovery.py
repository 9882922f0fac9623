"""Faults of the real kind: kill -9, a full disk, a locked database, a lost reply."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import ledger_writer
from support.forked import Process
from support.ledger_kit import agent, decision, note, token
from support.manual_clock import ManualClock
from support.small_disk import disk_of

from agentvault_tui.clock import Clock, SystemClock
from agentvault_tui.errors import LedgerDamagedError, LedgerUnwritableError
from agentvault_tui.home import Home
from agentvault_tui.ledger import EventQuery, Ledger, Recovery, opening, verify_ledger
from agentvault_tui.ledger.batch import Batch, Job, Tip, build, read_tip, write
from agentvault_tui.ledger.headfile import Witness, write_witness
from agentvault_tui.ledger.records import Attempt, Change
from agentvault_tui.ledger.recovery import DoubtfulBatch, note_path
from agentvault_tui.ledger.schema import StoreConnection, open_writer, set_up_writer
from agentvault_tui.ledger.sqlite_store import LedgerFile, SqliteStore
from agentvault_tui.ledger.state import Statement
from agentvault_tui.ledger.writer import Listeners, Writer
from agentvault_tui.model import Draft, Event, EventType

KILLS = int(os.environ.get("AGENTVAULT_TEST_KILLS", "15"))
"""200 before a release."""


@pytest.mark.slow
def test_no_acknowledged_commit_is_lost_by_kill_9(tmp_path: Path) -> None:
    """Killed at random moments, again and again: all that was acknowledged is there."""
    home = Home(tmp_path, tmp_path)
    chance = random.Random(7)  # noqa: S311 - moments, not secrets
    acknowledged: dict[int, str] = {}
    names: dict[int, str] = {}
    for run in range(KILLS):
        reading, writing = os.pipe()
        with os.fdopen(reading, "rb") as told:
            write_on = (ledger_writer.run, str(tmp_path), str(run))
            streams = (reading, writing, 2)
            writer = Process(*write_on, env=os.environ, streams=streams)
            os.close(writing)
            first = told.readline()
            time.sleep(chance.random() * 0.08)  # the moment is the point
            writer.kill()
            writer.wait()
            rest = told.read()
        # A line cut short by the kill was not acknowledged.
        for line in (first + rest).splitlines(keepends=True):
            if line.endswith(b"\n"):
                seq, digest, name = line.decode().split()
                assert acknowledged.setdefault(int(seq), digest) == digest
                names[int(seq)] = name
    report = verify_ledger(home)
    assert report.ok, report
    assert len(acknowledged) > KILLS
    db = sqlite3.connect(home.database)
    stored = dict(db.execute("SELECT seq, 'sha256:' || lower(hex(hash)) FROM events"))
    tokens = {row[0] for row in db.execute("SELECT id FROM tokens")}
    db.close()
    assert acknowledged.items() <= stored.items()
    assert set(names.values()) <= tokens


@pytest.fixture
def small_disk() -> Iterator[Path]:
    with disk_of(3 * 2**20) as path:
        yield path


async def fill_until_latched(ledger: Ledger, clock: Clock) -> int:
    """Commit until one is refused; return how many were acknowledged."""
    for count in range(20_000):
        try:
            await ledger.commit(
                decision(fill="x" * 4000), changes=[token(clock, f"tok_{count}")]
            )
        except LedgerUnwritableError:
            return count
    raise AssertionError("the disk never filled")


async def recovered(ledger: Ledger) -> Recovery:
    """Wait for the next recovery, and commit in it as the broker does."""
    future: asyncio.Future[Recovery] = asyncio.get_running_loop().create_future()

    async def heard(recovery: Recovery) -> None:
        # It may commit: that is what it is for.
        await ledger.commit(note(EventType.AGENT_REVOKED), urgent=True)
        future.set_result(recovery)

    ledger.listeners.recovered.append(heard)
    return await future


async def test_a_full_disk_latches_and_recovers(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full: every commit refused at once, nothing lost; space again: it goes on."""
    monkeypatch.setattr(opening, "RESERVE", 0)  # filled up faster than anyone looks
    clock = SystemClock()
    home = Home(small_disk, small_disk)
    ledger = await Ledger.open(home, clock=clock)
    states: list[bool] = []
    ledger.listeners.state.append(lambda: states.append(ledger.writable))
    waiting = asyncio.ensure_future(recovered(ledger))
    count = await fill_until_latched(ledger, clock)
    assert not ledger.writable
    assert "cannot be written" in (ledger.problem or "")
    with pytest.raises(LedgerUnwritableError):
        await ledger.commit(note(), urgent=True)
    await asyncio.to_thread(
        subprocess.run,
        ["/bin/mount", "-o", "remount,size=64m", str(small_disk)],
        check=True,
    )
    recovery = await waiting
    assert ledger.writable
    assert recovery.event.type is EventType.AUDIT_AMBIGUOUS
    assert recovery.event.detail["voided"] == [f"tok_{count}"]
    await ledger.commit(decision())
    loaded = await ledger.load()
    assert (states[0], states[-1]) == (False, True)  # one that is closed takes none
    await ledger.close()
    assert {found.id for found in loaded.tokens} == {f"tok_{n}" for n in range(count)}
    report = verify_ledger(home)
    assert report.ok, report
    assert report.events == count + 3 + recovery.committed


@pytest.mark.slow
def test_a_limit_on_file_size_latches_like_a_full_disk(tmp_path: Path) -> None:
    """The same without root, in a process of its own: EFBIG for a while, then none."""
    script = (
        "import asyncio, resource, signal, sys\n"
        "sys.path[:0] = sys.argv[2:4]\n"
        "from pathlib import Path\n"
        "from support.ledger_kit import decision\n"
        "from agentvault_tui.clock import SystemClock\n"
        "from agentvault_tui.errors import LedgerUnwritableError\n"
        "from agentvault_tui.home import Home\n"
        "from agentvault_tui.ledger import Ledger, verify_ledger\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "async def main(home):\n"
        "    ledger = await Ledger.open(home, clock=SystemClock())\n"
        "    back = asyncio.Event()\n"
        "    async def heard(recovery): back.set()\n"
        "    ledger.listeners.recovered.append(heard)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, -1))\n"
        "    count = 0\n"
        "    try:\n"
        "        while True:\n"
        "            await ledger.commit(decision(fill='x' * 4000))\n"
        "            count += 1\n"
        "    except LedgerUnwritableError:\n"
        "        assert not ledger.writable\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))\n"
        "    await back.wait()\n"
        "    await ledger.commit(decision())\n"
        "    await ledger.close()\n"
        "    report = verify_ledger(home)\n"
        "    assert report.ok, report\n"
        "    assert report.events in (count + 2, count + 3)\n"
        "    print('recovered after', count)\n"
        "path = Path(sys.argv[1])\n"
        "asyncio.run(main(Home(path, path)))\n"
    )
    tests = Path(ledger_writer.__file__).parent.parent
    ran = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), str(tests), str(tests.parent)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "recovered after" in ran.stdout, ran.stderr


@pytest.mark.slow
async def test_a_locked_database_latches_and_recovers(
    home: Home, ledger: Ledger
) -> None:
    """Another program's lock: refused, not waited for; the loop stays free; back."""
    await ledger.commit(decision())
    waiting = asyncio.ensure_future(recovered(ledger))
    other = sqlite3.connect(home.database, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0.01)
            beats += 1

    beating = asyncio.ensure_future(beat())
    with pytest.raises(LedgerUnwritableError, match="locked"):
        async with asyncio.timeout(30):
            await ledger.commit(decision())
    assert beats > 1
    assert not ledger.writable
    assert (await ledger.load()).agents == ()
    other.execute("COMMIT")
    other.close()
    recovery = await waiting
    beating.cancel()
    assert recovery.committed is False
    assert (recovery.event.seq, recovery.event.reason) == (2, "batch_not_found")
    assert recovery.attempts[0].drafts[0].type is EventType.TOKEN_DECISION
    (event,) = await ledger.commit(decision())
    assert event.seq == 4
    assert verify_ledger(home).ok


async def _doubtful(
    home: Home, clock: ManualClock, *drafts: Draft, changes: tuple[Change, ...]
) -> tuple[StoreConnection, Batch, str]:
    """Open a ledger's file as the writer does, with a batch on the way."""
    ledger = await Ledger.open(home, clock=clock)
    await ledger.commit(decision())
    ledger_id = ledger.ledger_id
    head = ledger.head
    await ledger.close()
    write_witness(home.head_file, Witness(ledger_id, head))  # as while a broker runs
    db = await StoreConnection.open(lambda: open_writer(home.database))
    await db.run(set_up_writer)
    tip: Tip = await db.run(read_tip, ledger_id)
    job = Job.of(drafts, changes, itertools.count(10))
    return db, build(tip, [job], clock), ledger_id


@pytest.mark.parametrize("arrived", [True, False])
@pytest.mark.parametrize("events", [True, False])
async def test_a_doubtful_batch_is_found_or_found_missing(
    home: Home, clock: ManualClock, *, arrived: bool, events: bool
) -> None:
    """After a doubtful error the store says what happened; its tokens are void."""
    drafts = (decision(),) if events else ()
    changes = (agent(), token(clock))
    db, batch, ledger_id = await _doubtful(home, clock, *drafts, changes=changes)
    if arrived:
        await db.run(write, batch.statements)
    tip, recovery = await DoubtfulBatch(batch, ledger_id, "I/O error").settle(db, clock)
    await db.close()
    assert recovery.committed is arrived
    assert recovery.event.detail["voided"] == ["tok_1"]
    assert recovery.attempts == (Attempt(drafts, changes),)
    before = 2 + (len(batch.events[0]) if arrived else 0)
    assert recovery.event.seq == tip.seq == before
    ledger = await Ledger.open(home, clock=clock)
    loaded = await ledger.load()
    await ledger.close()
    assert loaded.tokens == ()
    assert len(loaded.agents) == int(arrived)
    assert verify_ledger(home).ok


def _flush_fails(monkeypatch: pytest.MonkeyPatch, *, arrives: bool = True) -> None:
    """Let each transaction fail, also if it *arrives*; nothing can be opened again."""

    def arrive(db: sqlite3.Connection, statements: list[Statement]) -> None:
        if arrives:
            write(db, statements)
        raise sqlite3.OperationalError("disk I/O error")

    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr("agentvault_tui.ledger.sqlite_store.write", arrive)
    monkeypatch.setattr("agentvault_tui.ledger.schema.reopen", fail)


async def _after_start(home: Home, clock: ManualClock) -> tuple[list[Event], int]:
    """Return the events after the first two, and the number of live tokens."""
    ledger = await Ledger.open(home, clock=clock)
    page = await ledger.events(EventQuery(after=2, limit=10))
    tokens = len((await ledger.load()).tokens)
    await ledger.close()
    assert verify_ledger(home).ok
    return list(page.events), tokens


@pytest.mark.parametrize("arrives", [True, False])
async def test_a_stop_during_recovery_leaves_a_batch_for_the_next_start(
    home: Home, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, *, arrives: bool
) -> None:
    """A decision that was answered as failed is void, and one event says so, once."""
    ledger = await Ledger.open(home, clock=clock)
    await ledger.commit(decision())
    _flush_fails(monkeypatch, arrives=arrives)
    with pytest.raises(LedgerUnwritableError):
        await ledger.commit(decision(), changes=[token(clock)])
    await ledger.close()
    monkeypatch.undo()
    events, tokens = await _after_start(home, clock)
    voided = [(one.reason, one.detail["voided"]) for one in events]
    assert voided == ([("batch_found", ["tok_1"])] if arrives else [])
    assert tokens == 0
    assert await _after_start(home, clock) == (events, 0)


def _answered_and_killed(folder: Path) -> None:
    """Commit under a disk that fails to flush; report the refusal, and hang."""

    async def commit() -> None:
        clock = SystemClock()
        ledger = await Ledger.open(Home(folder, folder), clock=clock)
        await ledger.commit(decision())
        _flush_fails(pytest.MonkeyPatch())
        with pytest.raises(LedgerUnwritableError):
            await ledger.commit(decision(), changes=[token(clock)])
        print("refused", flush=True)
        await asyncio.Event().wait()

    asyncio.run(commit())


async def test_a_kill_after_a_failed_flush_leaves_no_allowed_decision(
    tmp_path: Path,
) -> None:
    """If the process that answered 503 is killed, the next start voids the token."""
    home = Home(tmp_path, tmp_path)
    reading, writing = os.pipe()
    streams = (reading, writing, 2)
    broker = Process(_answered_and_killed, tmp_path, env=os.environ, streams=streams)
    os.close(writing)
    with os.fdopen(reading) as lines:
        assert lines.readline() == "refused\n"
        broker.kill()
        broker.wait()
    ledger = await Ledger.open(home, clock=SystemClock())
    page = await ledger.events(EventQuery(after=2, limit=10))
    tokens = (await ledger.load()).tokens
    await ledger.close()
    assert [one.reason for one in page.events] == ["batch_found"]
    assert tokens == ()
    assert verify_ledger(home).ok


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff", b'{"ledger": 1}'])
async def test_a_note_that_cannot_be_read_stops_no_start(
    home: Home, clock: ManualClock, content: bytes
) -> None:
    """A process was killed while it wrote the note: no caller had an answer yet."""
    await (await Ledger.open(home, clock=clock)).close()
    note_path(home.database).write_bytes(content)
    ledger = await Ledger.open(home, clock=clock)
    await ledger.close()
    assert ledger.head.seq == 0
    assert not note_path(home.database).exists()


async def test_the_event_about_a_doubtful_batch_is_written_once(
    home: Home, clock: ManualClock
) -> None:
    """When even the recording of the doubt is in doubt, it is recognised later."""
    db, batch, ledger_id = await _doubtful(home, clock, decision(), changes=())
    doubt = DoubtfulBatch(batch, ledger_id, "I/O error")
    first = await doubt.settle(db, clock)
    assert await doubt.settle(db, clock) == first
    await db.close()


async def test_a_ledger_somebody_else_wrote_to_is_not_continued(
    home: Home, clock: ManualClock
) -> None:
    """If the chain ends where this process never wrote, it does not go on."""
    db, batch, ledger_id = await _doubtful(home, clock, decision(), changes=())
    stranger = Job.of([note()], [], itertools.count())
    other = build(batch.before, [stranger], clock)
    await db.run(write, other.statements)
    with pytest.raises(LedgerDamagedError):
        await DoubtfulBatch(batch, ledger_id, "I/O error").settle(db, clock)
    await db.close()


async def test_a_file_that_may_not_be_ours_is_not_tidied(
    home: Home, clock: ManualClock
) -> None:
    """Once track of the ledger was lost, not even an expired token is pruned."""
    db, batch, ledger_id = await _doubtful(home, clock, changes=(token(clock),))
    await db.run(write, batch.statements)
    clock.advance(7200)
    writer = Writer(batch.after, 10, Listeners(lambda *_: None))
    store = SqliteStore(writer, LedgerFile(db, home.database, ledger_id, clock))

    async def tokens_after_chores(problem: str | None) -> int:
        writer.problem = problem
        await store.maintain(idle=True)
        row = await db.run(lambda raw: raw.execute("SELECT count(*) FROM tokens"))
        return int((await db.run(lambda _: row.fetchone()))[0])

    try:
        assert await tokens_after_chores("a stranger wrote to it") == 1
        assert await tokens_after_chores(None) == 0
    finally:
        await db.close()


@pytest.mark.slow
async def test_a_head_file_that_cannot_be_written_is_told(
    home: Home, ledger: Ledger
) -> None:
    """Without the witness commits go on, and the problem is there to be shown."""
    told = asyncio.Event()
    ledger.listeners.state.append(told.set)
    home.head_file.unlink()
    home.head_file.mkdir()
    await ledger.commit(decision())
    await told.wait()
    assert ledger.writable
    assert "head file" in (ledger.problem or "")
    told.clear()
    home.head_file.rmdir()
    await ledger.commit(decision())
    await told.wait()
    assert ledger.problem is None
