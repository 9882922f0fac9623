"""Exports the events a filter matches to a new private file."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import os
from datetime import datetime
from pathlib import Path
from typing import Final

from msgspec import to_builtins
from msgspec.structs import replace

from agentvault_tui.console.link.link import BrokerLink
from agentvault_tui.console.state.filters import Filter
from agentvault_tui.csvrows import COLUMNS, cells
from agentvault_tui.errors import UsageError
from agentvault_tui.home import private_draft
from agentvault_tui.operator_api.codec import encode
from agentvault_tui.operator_api.history import EventInfo
from agentvault_tui.text import visible

_PAGE: Final = 250
"""So few that keys are answered while pages are written."""
LONGEST: Final = 400
"""Cells of a path that is typed."""
_FORMS: Final = (".jsonl", ".csv")


class Export:
    """Export the events a filter matches, with progress."""

    def __init__(self, link: BrokerLink, wanted: Filter) -> None:
        self._link = link
        self._filter = wanted
        self._now = link.mirror.clock.now()
        self.upto = link.mirror.last_seq
        """The newest event when it began: what comes later is not in it."""
        self.looked = 0
        self.written = 0

    async def run(self, path: Path) -> None:
        """Write to *path*, which must not exist yet; when cut short, leave nothing."""
        try:
            with private_draft(path, replace=False) as draft:
                file = io.TextIOWrapper(draft, encoding="utf-8", newline="")
                await self._write(file, csv_form=path.suffix == ".csv")
                file.detach()
                draft.flush()
                await asyncio.to_thread(os.fsync, draft.fileno())
        except OSError as error:
            raise UsageError(f"cannot write there ({error.strerror})") from error

    async def _write(self, file: io.TextIOBase, *, csv_form: bool) -> None:
        rows = csv.writer(file, lineterminator="\r\n")
        if csv_form:
            rows.writerow(COLUMNS)
        mirror = self._link.mirror
        query = self._filter.query(mirror.agents, self._now, text=True)
        after: int | None = 0
        while after is not None and after < self.upto:
            page = await self._link.audit_page(replace(query, after=after, limit=_PAGE))
            after = page.next
            for event in page.events:
                if event.seq > self.upto:
                    after = None
                elif not self._filter or self._matches(event):
                    self.written += 1
                    if csv_form:
                        rows.writerow(cells(to_builtins(event)))
                    else:
                        # As `audit search --json` writes them: pure ASCII.
                        file.write(f"{encode(event).decode()}\n")
            self.looked = self.upto if after is None else after

    def _matches(self, event: EventInfo) -> bool:
        mirror = self._link.mirror
        return self._filter.event(mirror.intake.event(event), mirror, self._now)


def suggestion(now: datetime, room: int = LONGEST) -> str:
    """Return where to write: a name that tells what it is and when it was made.

    In the working folder, which is left out where it could not be shown as it is, or
    would leave no room of *room* cells for the name.
    """
    name = f"agentvault-audit-{now:%Y%m%dT%H%M%SZ}.jsonl"
    with contextlib.suppress(OSError):  # the folder is gone
        path = str(Path.cwd() / name)
        if visible(path, min(room, LONGEST)) == path:
            return path
    return name


def read_path(text: str) -> Path:
    """Read where to write."""
    if not text.strip():
        raise UsageError("name a file", "its end says how: .jsonl or .csv")
    try:
        path = Path(text.strip()).expanduser().absolute()
        if path.suffix not in _FORMS:
            raise UsageError("the name ends in neither .jsonl nor .csv", "name one")
        if not path.parent.is_dir():
            raise UsageError(
                "there is no such folder", "make it first, or name another"
            )
        if path.exists() or path.is_symlink():
            raise UsageError("that file is there already", "name another")
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError("that is no name of a file", "name another") from error
    return path
