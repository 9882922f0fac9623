"""Starting: a lost tail, an older copy and a damaged file are told, never served."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.ledger_kit import decision, fill, make_older, tamper
from support.manual_clock import ManualClock

from agentvault_tui.errors import LedgerDamagedError
from agentvault_tui.home import Home
from agentvault_tui.ledger import EventQuery, Ledger, schema, verify_ledger
from agentvault_tui.ledger.schema import read_home


def overwrite(path: Path, data: bytes) -> None:
    """Put *data* in the place of the file."""
    path.write_bytes(data)


async def refused(home: Home, clock: ManualClock) -> str:
    """Open, expect a refusal that says what to do, and return it."""
    with pytest.raises(LedgerDamagedError) as caught:
        await Ledger.open(home, clock=clock)
    assert caught.value.remedy
    return caught.value.diagnosis()


async def test_an_older_copy_is_told(home: Home, clock: ManualClock) -> None:
    """Yesterday's database in today's place is refused, with both numbers."""
    await fill(home, clock)
    copy = home.data / "copy"
    shutil.copy(home.database, copy)
    await fill(home, clock, 3)
    shutil.copy(copy, home.database)
    said = await refused(home, clock)
    assert "ends at event 5" in said
    assert "had reached 8" in said
    report = verify_ledger(home)
    assert (report.ok, report.first_bad) == (False, 6)


@pytest.mark.parametrize("task", ["writer", "space", "indexer"])
async def test_an_open_that_fails_late_leaves_no_thread_and_no_lock(
    home: Home, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    """Each connection has a thread, and a process with one left would not end."""
    spawn, before = Ledger._spawn, set(threading.enumerate())

    def failing(self: Ledger, work: Any, name: str) -> None:
        if name == task:
            work.close()
            raise RuntimeError("no task today")
        spawn(self, work, name)

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "_spawn", failing)
        with pytest.raises(RuntimeError):
            await Ledger.open(home, clock=clock)
    for thread in set(threading.enumerate()) - before:
        if not thread.name.startswith("uvloop"):  # the loop's own
            thread.join(10)
            assert not thread.is_alive()
    await fill(home, clock)


async def test_a_missing_tail_is_told(home: Home, clock: ManualClock) -> None:
    """Rows deleted from the end leave a perfect chain, and are still noticed."""
    await fill(home, clock)
    tamper(home, "DELETE FROM events WHERE seq > 3")
    assert "ends at event 3" in await refused(home, clock)


async def test_a_deleted_database_is_told(home: Home, clock: ManualClock) -> None:
    """With the whole file gone, a start does not quietly begin anew."""
    await fill(home, clock)
    home.database.unlink()
    assert "another ledger" in await refused(home, clock)


async def test_a_missing_or_unreadable_head_file_is_told(
    home: Home, clock: ManualClock
) -> None:
    """Whoever removes the witness does not remove the question."""
    await fill(home, clock)
    good = home.head_file.read_text()
    home.head_file.unlink()
    assert "head kept outside is gone" in await refused(home, clock)
    for bad in ("", "{}", "[]", "\x00", good.replace("sha256:", "md5:")):
        home.head_file.write_text(bad)
        assert "unreadable" in await refused(home, clock)
    home.head_file.write_text(good)
    await (await Ledger.open(home, clock=clock)).close()


async def test_a_rewritten_ledger_is_told(home: Home, clock: ManualClock) -> None:
    """A whole new chain of the same length does not match the head outside."""
    await fill(home, clock)
    other = Home(home.data / "o", home.data / "o")
    await fill(other, clock)
    value = json.loads(other.head_file.read_text())
    witness = json.loads(home.head_file.read_text())
    shutil.copy(other.database, home.database)
    assert "another ledger" in await refused(home, clock)
    home.head_file.write_text(json.dumps(witness | {"ledger": value["ledger"]}))
    assert "rewritten" in await refused(home, clock)


async def test_a_head_behind_the_database_is_no_alarm(
    home: Home, clock: ManualClock
) -> None:
    """A crash between commit and head file leaves the file behind, which is fine."""
    await fill(home, clock)
    behind = json.loads(home.head_file.read_text())
    await fill(home, clock)
    del behind["index"]  # as it stands while a broker runs
    home.head_file.write_text(json.dumps(behind))
    assert verify_ledger(home).ok
    ledger = await Ledger.open(home, clock=clock)
    assert ledger.head.seq == 10
    await ledger.close()


async def test_events_appended_after_an_orderly_stop_are_told(
    home: Home, clock: ManualClock
) -> None:
    """They follow from the last one, which anyone can compute: nobody was to write."""
    await fill(home, clock)
    stopped = home.head_file.read_text()
    await fill(home, clock)
    home.head_file.write_text(stopped)
    assert "events were appended since" in await refused(home, clock)


async def test_a_crash_before_the_first_head_file_is_no_alarm(
    home: Home, clock: ManualClock
) -> None:
    """An empty ledger needs no witness, and a witness of nothing needs no ledger."""
    await fill(home, clock, 0)
    home.head_file.unlink()
    await fill(home, clock, 0)
    home.database.unlink()
    await fill(home, clock, 1)
    assert verify_ledger(home).ok


async def test_a_changed_last_event_is_told_at_the_start(
    home: Home, clock: ManualClock
) -> None:
    """The newest events are checked at every start, columns included."""
    await fill(home, clock)
    tamper(home, "UPDATE events SET outcome = 'denied' WHERE seq = 5")
    assert "event 5: its column outcome" in await refused(home, clock)


async def test_missing_triggers_are_told(home: Home, clock: ManualClock) -> None:
    """A file whose protection was taken away is not written to."""
    await fill(home, clock)
    db = sqlite3.connect(home.database, isolation_level=None)
    db.execute("DROP TRIGGER events_are_not_deleted")
    db.close()
    assert "trigger events_are_not_deleted is gone" in await refused(home, clock)
    assert not verify_ledger(home).ok


@pytest.mark.parametrize("keep", [0, 1, 16, 100, 4096, 9000, 15_000])
async def test_a_file_of_rubbish_is_told(
    home: Home, clock: ManualClock, keep: int
) -> None:
    """Random bytes from any point on end in a diagnosis, and harm nothing further."""
    await fill(home, clock)
    data = home.database.read_bytes()
    rubbish = data[:keep] + os.urandom(len(data) - keep)
    home.database.write_bytes(rubbish)
    assert str(home.database) in await refused(home, clock)
    report = verify_ledger(home)
    assert not report.ok
    assert report.problem


@pytest.mark.parametrize("keep", [1, 50, 512, 4096, 8192, 20_000])
async def test_a_cut_file_is_told(home: Home, clock: ManualClock, keep: int) -> None:
    """A database cut short anywhere ends in a diagnosis."""
    await fill(home, clock, 40)
    with home.database.open("r+b") as file:
        file.truncate(keep)
    await refused(home, clock)
    assert not verify_ledger(home).ok


async def test_a_newer_schema_is_told(home: Home, clock: ManualClock) -> None:
    """A downgrade is refused and says which side is newer."""
    await fill(home, clock)
    db = sqlite3.connect(home.database)
    db.execute("PRAGMA user_version = 99")
    db.close()
    assert "newer AgentVault" in await refused(home, clock)


@pytest.mark.parametrize("version", sorted(schema.UPGRADED))
async def test_a_start_brings_an_older_file_up_to_date(
    home: Home, clock: ManualClock, version: int
) -> None:
    """What it recorded stays, verifies and is gone on from; reading waits."""
    await fill(home, clock, 3)
    make_older(home, version)
    with pytest.raises(LedgerDamagedError, match="older AgentVault"), read_home(home):
        pass
    ledger = await Ledger.open(home, clock=clock)
    await ledger.commit(decision())
    page = await ledger.events(EventQuery(after=0))
    await ledger.close()
    assert [event.seq for event in page.events] == [1, 2, 3, 4]
    assert verify_ledger(home).ok
    with closing(sqlite3.connect(home.database)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (6,)


async def test_a_changed_file_of_version_4_is_not_upgraded(
    home: Home, clock: ManualClock
) -> None:
    """A table that version 4 did not have is told, and the version stays."""
    await fill(home, clock)
    make_older(home, 4)
    tamper(home, "CREATE TABLE other (x)")
    assert "the table other was added" in await refused(home, clock)
    with closing(sqlite3.connect(home.database)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (4,)


async def test_another_programs_database_is_told(
    home: Home, clock: ManualClock
) -> None:
    """Some other SQLite file in the ledger's place is left alone."""
    home.prepare()
    db = sqlite3.connect(home.database)
    db.execute("CREATE TABLE other (x)")
    db.commit()
    db.close()
    assert "not an AgentVault ledger" in await refused(home, clock)


async def test_a_damaged_index_is_rebuilt(home: Home, clock: ManualClock) -> None:
    """The text index is only a shortcut: rubbish in its place is replaced."""
    await fill(home, clock)
    overwrite(home.database.with_name("index.db"), os.urandom(20_000))
    ledger = await Ledger.open(home, clock=clock)
    await ledger.commit(decision())
    await ledger.close()
    db = sqlite3.connect(home.database.with_name("index.db"))
    assert db.execute("SELECT ledger FROM progress").fetchone() == (ledger.ledger_id,)
    db.close()
