"""Open a ledger: check that the file is the one the last process left, and whole."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import sqlite3
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from agentvault_tui.clock import Clock
from agentvault_tui.errors import (
    HomeInUseError,
    LedgerDamagedError,
    LedgerUnwritableError,
    RefusedError,
)
from agentvault_tui.home import Home, private_file, put_private
from agentvault_tui.ledger import schema, uses
from agentvault_tui.ledger.batch import Tip, read_tip
from agentvault_tui.ledger.chain import written
from agentvault_tui.ledger.headfile import Witness, read_witness
from agentvault_tui.ledger.places import hash_at
from agentvault_tui.ledger.records import Head
from agentvault_tui.ledger.recovery import settle_note
from agentvault_tui.ledger.schema import storage_errors
from agentvault_tui.ledger.state import last_n
from agentvault_tui.ledger.verify import check_tail

RESERVE: Final = 64 * 1024 * 1024
"""Bytes that grants leave free, for revocations and the ledger's log."""
_FILES: Final = 256
"""Free inodes that grants leave, likewise."""
_SHARE: Final = 8
"""Of a small file system an eighth is reserved."""
_MIB: Final = 1024 * 1024
START: Final = _MIB
"""Bytes that opening the stores takes, reserved in a file."""


def shortage(folder: Path, *, before: bool = False) -> str | None:
    """Word the shortage in the file system of *folder*; None if there is none.

    One that was short *before* needs a tenth more, so that it does not change with
    every file.
    """
    stats = os.statvfs(folder)
    factor = 1.1 if before else 1.0
    free = stats.f_bavail * stats.f_frsize
    reserve = min(RESERVE, stats.f_blocks * stats.f_frsize // _SHARE)
    if free < reserve * factor:
        return (
            f"only {free // _MIB} MiB of disk are free: the last {reserve // _MIB} MiB "
            "are kept for revocations"
        )
    if stats.f_files and stats.f_favail < min(_FILES, stats.f_files // _SHARE) * factor:
        return f"only {stats.f_favail} more files can be made on the disk"
    return None


def make_room(home: Home) -> None:
    """Free the space that is reserved for a start, if the disk is full."""
    with suppress(OSError):
        if _free(home.data) < START:
            home.start_space.unlink()


def keep_room(home: Home) -> None:
    """Take the space for a start on a full disk, once there is plenty."""
    with suppress(OSError):
        if not home.start_space.exists() and _free(home.data) >= 8 * START:
            put_private(home.start_space, bytes(START), replace=False)


def _free(folder: Path) -> int:
    stats = os.statvfs(folder)
    return stats.f_bavail * stats.f_frsize


class HomeLock:
    """Holds the home's lock file until released, or until the process is gone."""

    def __init__(self, path: Path) -> None:
        """Take the lock; HomeInUseError: another process has it, and which."""
        private_file(path)
        self._descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            pid, home = _holder(self._descriptor), path.parent.parent
            os.close(self._descriptor)
            raise HomeInUseError(
                f"a broker, process {pid}, uses the home directory {home}",
                "stop it, use its console, or choose another --home",
            ) from error
        os.ftruncate(self._descriptor, 0)
        with suppress(OSError):  # a full disk: it holds all the same
            os.pwrite(self._descriptor, json.dumps({"pid": os.getpid()}).encode(), 0)

    def release(self) -> None:
        """Let the next process in; releasing twice does nothing."""
        if self._descriptor >= 0:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = -1


def _holder(descriptor: int) -> str:
    try:
        return str(json.loads(os.pread(descriptor, 200, 0))["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return "unknown"


CHECKED_AT_START: Final = 256
"""Events whose links and columns are checked at every start."""
PLACE: Final = "ledger copy"
"""The key in `meta` of how far a copy of a team's store goes; no other file has it."""
_ACCEPT: Final = (
    "put the newest copy back, or accept this one, on the record: "
    "agentvault audit accept --reason WHY"
)


@dataclass(frozen=True, slots=True)
class Opened:
    """A start's data about the file."""

    ledger_id: str
    tip: Tip
    last_n: int
    index: str | None
    """The digest of the text index when the last process stopped, if it left one."""
    recounted: bool = False
    """Whether the uses of limits were not as events say, and were derived again."""


def create_file(home: Home) -> None:
    """Make the folders and the database file, private under any umask."""
    try:
        home.prepare()
        private_file(home.database)
        for suffix in ("-wal", "-shm"):
            beside = Path(f"{home.database}{suffix}")
            if beside.exists():
                beside.chmod(0o600)
    except OSError as error:
        raise LedgerUnwritableError(
            f"cannot use {home.database} ({error.strerror})",
            "check the folder's owner, mode and free space",
        ) from error


def refuse_copied(home: Home, *, again: bool) -> None:
    """Refuse a home whose ledger was copied elsewhere, or, once, use it *again*.

    Raises:
        RefusedError: it was copied.
    """
    if again:
        home.copied_file.unlink(missing_ok=True)
    with suppress(FileNotFoundError):
        note = json.loads(home.copied_file.read_bytes())
        raise RefusedError(*copied_elsewhere(note["to"]))


def refuse_copy(db: sqlite3.Connection, *, again: bool) -> None:
    """Refuse the copy of a team's store as a ledger of its own, unless *again*.

    Raises:
        RefusedError: it is one: the store would lack the brokers' writes.
    """
    sql = "FROM meta WHERE key = ?"
    if again:
        db.execute(f"DELETE {sql}", (PLACE,))
    elif db.execute(f"SELECT 1 {sql}", (PLACE,)).fetchone():
        raise RefusedError(
            "this home's ledger is the copy of a team's store",
            "set store.url and team.name; to go on from the copy alone all the same:"
            " agentvault serve --again",
        )


def copied_elsewhere(to: str) -> tuple[str, str]:
    """Return the problem of a store that was copied, and the remedy."""
    return (
        f"this store was copied to {to:.200}",
        "use that one; to go on from this one all the same: agentvault serve --again",
    )


def open_alone(
    db: sqlite3.Connection, home: Home, clock: Clock, *, again: bool
) -> Opened:
    """Open the ledger of one broker, and settle the doubts that the last process left.

    Args:
        db: the connection that will write.
        home: the home.
        clock: the clock.
        again: whether a ledger is used that was copied elsewhere, or is a copy.

    Returns:
        the start's data about the file.

    Raises:
        LedgerDamagedError: the file is not the one the last process left.
        LedgerUnwritableError: it cannot be opened now.
        RefusedError: it was copied, or is a copy.
    """
    refuse_copied(home, again=again)
    opened = open_checked(db, home, trust=False)
    with storage_errors(home.database):
        refuse_copy(db, again=again)
        tip = settle_note(db, home.database, opened.ledger_id, opened.tip, clock)
        return replace(opened, tip=tip, last_n=last_n(db))


def open_checked(
    db: sqlite3.Connection, home: Home, *, trust: bool, ledger_id: str | None = None
) -> Opened:
    """Set the writing connection up and check as much as a start can.

    With *trust* the head file is not asked: for `accept_rollback`, and for the copy of
    a team's store, which can be made up again. A new file is of *ledger_id*, if given.
    """
    with storage_errors(home.database):
        schema.set_up_writer(db)
        witness = None if trust else read_witness(home.head_file)
        fresh = witness.ledger if witness and witness.head.seq == 0 else None
        fresh = ledger_id or fresh or secrets.token_hex(16)
        schema.prepare_schema(db, home.database, fresh)
        ledger_id = read_ledger_id(db, home.database)
        tip = read_tip(db, ledger_id)
        problem = check_tail(db, ledger_id, CHECKED_AT_START)
        if problem:
            raise LedgerDamagedError(
                f"{home.database}: {problem}",
                "run agentvault audit verify; keep the file as evidence and restore"
                " the newest copy",
            )
        if not trust:
            compare(db, witness, ledger_id, tip.head)
        if recounted := not uses.is_derived(db):
            with schema.transaction(db, "BEGIN IMMEDIATE"):
                uses.rebuild(db)
        index = None if witness is None else witness.index
        return Opened(ledger_id, tip, last_n(db), index, recounted)


def read_ledger_id(db: sqlite3.Connection, path: Path) -> str:
    """Return the ledger's own random name, which its genesis hash is made from."""
    row = db.execute("SELECT value FROM meta WHERE key = 'ledger'").fetchone()
    if row is None or type(row[0]) is not str:
        raise LedgerDamagedError(f"{path} has lost its ledger id", _ACCEPT)
    return row[0]


def compare(
    db: sqlite3.Connection, witness: Witness | None, ledger_id: str, head: Head
) -> None:
    """Compare the database with the head stored outside it."""
    if witness is None:
        if head.seq == 0:
            return
        raise LedgerDamagedError(
            f"the ledger has {head.seq} events, but its head kept outside is gone",
            f"find out who removed it; {_ACCEPT}",
        )
    witnessed = witness.head
    if witness.ledger != ledger_id:
        raise LedgerDamagedError(
            f"this is another ledger than the one that ended at event {witnessed.seq}",
            _ACCEPT,
        )
    # Anyone can compute the hash of an event that follows from the last one. A process
    # that was killed may have written some after it last wrote the head file.
    if witness.index is not None and head.seq > witnessed.seq:
        raise LedgerDamagedError(
            f"the ledger ends at event {head.seq}, but ended at {witnessed.seq} when"
            " the last broker stopped: events were appended since",
            f"find out who wrote them; {_ACCEPT}",
        )
    if head.seq < witnessed.seq:
        raise LedgerDamagedError(
            f"the ledger ends at event {head.seq}, but it had reached {witnessed.seq}:"
            " the last events were cut off, or this is an older copy",
            _ACCEPT,
        )
    recorded = hash_at(db, ledger_id, witnessed.seq)
    if recorded is None or written(recorded) != witnessed.hash:
        raise LedgerDamagedError(
            f"event {witnessed.seq} is not the one that was recorded:"
            " the ledger was rewritten, or this is another copy",
            _ACCEPT,
        )
