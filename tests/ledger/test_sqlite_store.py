"""The log of the database stays small, whoever reads it."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from support.ledger_kit import decision, token
from support.manual_clock import ManualClock

from agentvault_tui.home import Home
from agentvault_tui.ledger import Ledger, sqlite_store
from agentvault_tui.ledger.sqlite_store import _checkpoint


def log_size(home: Home) -> int:
    return Path(f"{home.database}-wal").stat().st_size


@pytest.mark.slow
async def test_the_log_stays_small_while_readers_always_read(
    home: Home, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers that take turns never let go of it at once; it is emptied anyhow."""
    monkeypatch.setattr(sqlite_store, "_CHECKPOINT_BYTES", 64 * 1024)
    monkeypatch.setattr(sqlite_store, "_LARGE_BYTES", 256 * 1024)
    reading, sizes = True, []

    def read() -> None:
        db = sqlite3.connect(home.database, isolation_level=None)
        while reading:
            db.execute("BEGIN")
            db.execute("SELECT max(seq) FROM events").fetchone()
            time.sleep(0.005)
            db.execute("COMMIT")
        db.close()

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for n in range(80):
            await asyncio.gather(
                *(ledger.commit(decision(n=n, text="x" * 500)) for _ in range(32))
            )
            sizes.append(log_size(home))
    finally:
        reading = False
        for reader in readers:
            reader.join()
    assert max(sizes) < 6 * 256 * 1024


@pytest.mark.slow
async def test_a_reader_that_goes_on_holds_up_writing_once(
    home: Home, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is waited for when the log is large, and then not before it is much larger."""
    monkeypatch.setattr(sqlite_store, "_CHECKPOINT_BYTES", 64 * 1024)
    monkeypatch.setattr(sqlite_store, "_LARGE_BYTES", 256 * 1024)
    monkeypatch.setattr(sqlite_store, "_READERS_MS", 1)
    done: list[str] = []
    with closing(sqlite3.connect(home.database, isolation_level=None)) as db:
        db.execute("BEGIN")
        db.execute("SELECT max(seq) FROM events").fetchone()
        connection = ledger._store.file.connection
        await connection.run(lambda own: own.set_trace_callback(done.append))
        for n in range(80):
            await asyncio.gather(
                *(ledger.commit(decision(n=n, text="x" * 500)) for _ in range(32))
            )
        size = log_size(home)
        await connection.run(lambda own: own.set_trace_callback(None))
    waited = sum("TRUNCATE" in statement for statement in done)
    assert size > 2 * 256 * 1024
    assert 1 <= waited <= size // (256 * 1024)


async def test_the_log_is_measured_by_what_is_left_to_move(
    home: Home, ledger: Ledger, clock: ManualClock
) -> None:
    """All of it after a commit, nothing after a checkpoint."""
    await ledger.commit(decision(), changes=[token(clock)])
    log = ledger._store.file.log
    assert log.to_move() == log_size(home) - 32
    await ledger._store.file.connection.run(_checkpoint, home.database, 0)
    assert log.to_move() == 0
