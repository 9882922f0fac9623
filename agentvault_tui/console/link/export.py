"""Exports the events that a filter matches to a new private file.

JSON Lines can be verified: see ``docs/ledger-format.md``.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import os
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final

from msgspec import to_builtins
from msgspec.structs import replace

from agentvault_tui.console.link.link import BrokerLink
from agentvault_tui.csvrows import COLUMNS, cells
from agentvault_tui.errors import UsageError
from agentvault_tui.home import private_draft
from agentvault_tui.operator_api.history import EventInfo
from agentvault_tui.operator_api.requests import LinksQuery
from agentvault_tui.operator_api.selection import (
    export_header,
    export_line,
    link_queries,
)
from agentvault_tui.presenters.filters import Filter
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
        """The newest event when it began: later ones are not in it."""
        self.looked = 0
        self.written = 0

    async def run(self, path: Path) -> None:
        """Write to *path*, which must not exist yet; when cut short, leave nothing."""
        try:
            with private_draft(path, replace=False) as draft:
                await self._write(draft, csv_form=path.suffix == ".csv")
                draft.flush()
                await asyncio.to_thread(os.fsync, draft.fileno())
        except OSError as error:
            raise UsageError(f"cannot write there ({error.strerror})") from error

    async def _write(self, draft: BinaryIO, *, csv_form: bool) -> None:
        if csv_form:
            file = io.TextIOWrapper(draft, encoding="utf-8", newline="")
            rows = csv.writer(file, lineterminator="\r\n")
            rows.writerow(COLUMNS)
            async for event in self._matching():
                self.written += 1
                rows.writerow(cells(to_builtins(event)))
            file.detach()
            return
        seqs: Sequence[int] = range(1, self.upto + 1)
        if self._filter:
            seqs = [event.seq async for event in self._matching()]
        head = await self._link.link_list(LinksQuery(seq=str(self.upto)))
        chosen = str(self._filter) if self._filter else None
        draft.write(export_header(head, len(seqs), self._now, chosen))
        for query in link_queries(seqs):
            links = await self._link.link_list(query)
            draft.writelines(map(export_line, links.links))
            self.written += len(links.links)
            self.looked = max(self.looked, links.links[-1].seq)

    async def _matching(self) -> AsyncIterator[EventInfo]:
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
                    yield event
            self.looked = self.upto if after is None else after

    def _matches(self, event: EventInfo) -> bool:
        mirror = self._link.mirror
        return self._filter.event(mirror.intake.event(event), mirror, self._now)


def suggestion(now: datetime, room: int = LONGEST) -> str:
    """Return the path: a name with its content and time.

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
