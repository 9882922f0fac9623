"""Exports: JSON Lines that verify anywhere, and CSV for people and spreadsheets."""

from __future__ import annotations

import csv
import io
import json
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final, Literal

from agentvault_tui.clock import iso
from agentvault_tui.csvrows import COLUMNS, cells
from agentvault_tui.errors import NotFoundError, UsageError
from agentvault_tui.home import Home, private_draft
from agentvault_tui.ledger import schema
from agentvault_tui.ledger.batch import read_tip
from agentvault_tui.ledger.chain import written
from agentvault_tui.ledger.opening import read_ledger_id
from agentvault_tui.ledger.places import hash_at
from agentvault_tui.ledger.records import Head
from agentvault_tui.ledger.schema import storage_errors
from agentvault_tui.ledger.verify import FORMAT, lines_of

_OTHER_NAME: Final = "choose another name, or --force to replace it"


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export holds."""

    ledger: str
    count: int
    first: Head
    """The link before the first event."""
    head: Head


def export_ledger(
    home: Home,
    target: Path,
    *,
    form: Literal["jsonl", "csv"] = "jsonl",
    after: int = 0,
    replace: bool = False,
    now: datetime,
) -> Exported:
    """Write every event behind *after* to *target*, mode 0600, whole or not at all.

    Works beside a running broker: it exports up to the head found at the start.

    Args:
        home: whose ledger.
        target: the file to write.
        form: JSON Lines, which can be verified, or CSV.
        after: the sequence number of the last event to leave out.
        replace: whether a file that is there is replaced; never one of the home.
        now: the time of the export, for its header.

    Returns:
        how many events there were, and where the chain ended.

    Raises:
        NotFoundError: there is no ledger, or it does not reach *after*.
        UsageError: the target is there and not to be replaced, or cannot be written.
        LedgerDamagedError: the store cannot be read.
    """
    if not home.database.exists():
        raise NotFoundError(f"there is no ledger at {home.database}")
    if os.path.lexists(target):
        if not replace:
            raise UsageError(f"{target} is there already", _OTHER_NAME)
        folder = target.parent.resolve()
        own = (home.data.resolve(), home.config.resolve())
        if any(map(folder.is_relative_to, own)):
            # The database, the head file, keys, the policy: an export replaces none.
            raise UsageError(f"{target} is a file of the home", "choose another folder")
    with storage_errors(home.database):
        db = schema.open_reader(home.database)
        try:
            schema.check_schema(db, home.database)
            exported = _extent(db, read_ledger_id(db, home.database), after)
            try:
                with private_draft(target, replace=replace) as file:
                    lines = lines_of(db, after, exported.head.seq)
                    if form == "jsonl":
                        _write_lines(file, lines, exported, now)
                    else:
                        _write_csv(file, lines)
            except FileExistsError as error:
                raise UsageError(f"{target} is there already", _OTHER_NAME) from error
            except OSError as error:
                raise UsageError(
                    f"cannot write {target} ({error.strerror})", "choose another file"
                ) from error
        finally:
            db.close()
    return exported


def _extent(db: sqlite3.Connection, ledger_id: str, after: int) -> Exported:
    head = read_tip(db, ledger_id).head
    first = hash_at(db, ledger_id, after)
    if first is None or after > head.seq:
        raise NotFoundError(f"the ledger has no event {after}")
    return Exported(ledger_id, head.seq - after, Head(after, written(first)), head)


def _write_lines(
    file: BinaryIO, lines: Iterator[bytes], exported: Exported, now: datetime
) -> None:
    header = {
        "format": FORMAT,
        "ledger": exported.ledger,
        "from": {"seq": exported.first.seq, "hash": exported.first.hash},
        "to": {"seq": exported.head.seq, "hash": exported.head.hash},
        "count": exported.count,
        "exported_at": iso(now),
    }
    file.write(json.dumps(header).encode() + b"\n")
    file.writelines(lines)


def _write_csv(file: BinaryIO, lines: Iterator[bytes]) -> None:
    text = io.TextIOWrapper(file, "utf-8", newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    writer.writerows(cells(json.loads(line)) for line in lines)
    text.detach()
