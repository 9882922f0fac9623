"""Exports: JSON Lines that verify anywhere, CSV for spreadsheets, OCSF for a SIEM."""

from __future__ import annotations

import csv
import io
import json
import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final, Literal

import msgspec

from agentvault_tui import ocsf
from agentvault_tui.clock import iso
from agentvault_tui.csvrows import COLUMNS, cells
from agentvault_tui.encoder import to_json
from agentvault_tui.errors import NotFoundError, UsageError
from agentvault_tui.home import Home, private_draft
from agentvault_tui.ledger import schema
from agentvault_tui.ledger.batch import read_tip
from agentvault_tui.ledger.chain import written
from agentvault_tui.ledger.opening import read_ledger_id
from agentvault_tui.ledger.places import hash_at
from agentvault_tui.ledger.schema import storage_errors
from agentvault_tui.ledger.verify import EventHash, ExportHeader, lines_of

_OTHER_NAME: Final = "choose another name, or --force to replace it"


def export_ledger(
    home: Home,
    target: Path,
    *,
    form: Literal["jsonl", "csv", "ocsf"] = "jsonl",
    after: int = 0,
    replace: bool = False,
    now: datetime,
) -> ExportHeader:
    """Write every event behind *after* to *target*, mode 0600, whole or not at all.

    Works next to a running broker: it exports up to the head found at the start.

    Args:
        home: the home.
        target: the file to write.
        form: JSON Lines, which can be verified, CSV, or JSON Lines of OCSF records.
        after: the sequence number of the last event to leave out.
        replace: whether a file that is there is replaced; never one of the home.
        now: the time of the export, for its header.

    Returns:
        the export's header: how many events there were, and where the chain ended.

    Raises:
        NotFoundError: there is no ledger, or it does not reach *after*.
        UsageError: the target is there and not to be replaced, or cannot be written.
        LedgerDamagedError: the store cannot be read.
    """
    if not home.database.exists():
        raise NotFoundError(f"there is no ledger at {home.database}")
    with (
        storage_errors(home.database),
        closing(schema.open_reader(home.database)) as db,
    ):
        schema.check_schema(db, home.database)
        ledger_id = read_ledger_id(db, home.database)
        header = _extent(db, ledger_id, after, now)
        lines = lines_of(db, after, header.last.seq)
        first = msgspec.json.encode(header) + b"\n"
        write_export(home, target, first, lines, form=form, replace=replace)
    return header


def write_export(
    home: Home,
    target: Path,
    header: bytes,
    lines: Iterable[bytes],
    *,
    form: Literal["jsonl", "csv", "ocsf"],
    replace: bool,
) -> None:
    """Write exported events to *target*, mode 0600, whole or not at all.

    Args:
        home: no file of this home directory is replaced.
        target: the file to write.
        header: the first line, of JSON Lines alone.
        lines: the events, as JSON Lines have them.
        form: the format to write them in.
        replace: whether a file that is there is replaced.

    Raises:
        UsageError: the target is there and not to be replaced, or cannot be written.
    """
    if os.path.lexists(target):
        _check_replaced(home, target, replace=replace)
    try:
        with private_draft(target, replace=replace) as file:
            if form == "csv":
                _write_csv(file, lines)
            elif form == "ocsf":
                file.writelines(map(_ocsf_line, lines))
            else:
                file.write(header)
                file.writelines(lines)
    except FileExistsError as error:
        raise UsageError(f"{target} is there already", _OTHER_NAME) from error
    except OSError as error:
        raise UsageError(
            f"cannot write {target} ({error.strerror})", "choose another file"
        ) from error


def _check_replaced(home: Home, target: Path, *, replace: bool) -> None:
    """Refuse to replace a file unasked, and any of the home."""
    if not replace:
        raise UsageError(f"{target} is there already", _OTHER_NAME)
    folder = target.parent.resolve()
    own = (home.data.resolve(), home.config.resolve())
    if any(map(folder.is_relative_to, own)):
        # The database, the head file, keys, the policy: an export replaces none.
        raise UsageError(f"{target} is a file of the home", "choose another folder")


def _extent(
    db: sqlite3.Connection, ledger_id: str, after: int, now: datetime
) -> ExportHeader:
    head = read_tip(db, ledger_id).head
    first = hash_at(db, ledger_id, after)
    if first is None or after > head.seq:
        raise NotFoundError(f"the ledger has no event {after}")
    return ExportHeader(
        ledger=ledger_id,
        first=EventHash(after, written(first)),
        last=EventHash(head.seq, head.hash),
        count=head.seq - after,
        exported_at=iso(now),
    )


def _ocsf_line(line: bytes) -> bytes:
    return to_json(ocsf.record(json.loads(line), details=True)).encode() + b"\n"


def _write_csv(file: BinaryIO, lines: Iterable[bytes]) -> None:
    text = io.TextIOWrapper(file, "utf-8", newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    writer.writerows(cells(json.loads(line)) for line in lines)
    text.detach()
