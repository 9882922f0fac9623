"""The tenant's own log in the audit: what happened to our clients, agents and users.

Read forward from a row one has seen. The place and the events it led to are written in
one transaction, so that a restart neither repeats a row nor loses one; what may be lost
because the tenant keeps its log for a time only is an event as well.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from agentvault_tui.broker.upstream.attempts import Access
from agentvault_tui.broker.upstream.log_place import Place
from agentvault_tui.broker.upstream.log_rows import drafts
from agentvault_tui.clock import Clock
from agentvault_tui.errors import (
    LedgerError,
    SettingsError,
    TenantBusyError,
    TenantError,
)
from agentvault_tui.ledger import Meta
from agentvault_tui.model import Draft, sha256_hex
from agentvault_tui.vault import Management, Priority
from agentvault_tui.vault.management import logs

log = logging.getLogger("agentvault.tenant_log")

MARK: Final = "tenant_log"
"""The name the place is kept under."""
_NOTED: Final = timedelta(hours=1)
"""After so long it is noted anew when the log was read, though nothing came."""
_EVERY: Final = 10.0
_LONGEST: Final = 300.0

Record = Callable[[Iterable[Draft], Meta], Awaitable[None]]


class TenantLog:
    """Follows the log while there is a credential that may read it."""

    def __init__(
        self,
        clock: Clock,
        issuer: str,
        access: Access,
        record: Record,
        *,
        console: str = "",
        mark: str = "",
        on_problem: Callable[[str | None], None] = lambda _: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Follow the log of *issuer*.

        Args:
            clock: says when it was read.
            issuer: the tenant; a place at another one is none here.
            access: how it is reached, and what of it is ours.
            record: writes events, and the place they lead to, in one transaction.
            console: the client that operators sign in with.
            mark: the place as it was kept.
            on_problem: told why it cannot be read, displayable, and when it can again.
            sleep: waits between two readings.
        """
        self._clock = clock
        self._issuer = issuer
        self._access = access
        self._record = record
        # A tenant that treats the id as a secret logs a part of its hash.
        alias = f"run_{sha256_hex(console)[:16]}"
        self._consoles = (console, alias) if console else ()
        self._place = self._kept = Place.read(mark, issuer)
        self._sleep = sleep
        self._on_problem = on_problem
        self._problem: str | None = None
        self._take = logs.MOST
        """Rows to ask for: fewer while a page cannot be had, since rows may be large
        and a page that is larger than we read would end the reading for good."""

    async def run(self) -> None:
        """Read until cancelled."""
        pause = 0.0  # at once: what happens from here on is told
        while True:
            await self._sleep(pause)
            try:
                full = await self.read()
            except (TenantError, LedgerError, SettingsError) as error:
                self._failed(error.diagnosis())
                wait = error.retry_after if isinstance(error, TenantBusyError) else 0.0
                pause = min(max(pause * 2, _EVERY, wait), _LONGEST)
            except Exception as error:
                # One odd row must not end the reading, nor pass unseen.
                log.exception("a row of the tenant's log could not be read")
                self._failed(f"a row cannot be read ({type(error).__name__})")
                pause = _LONGEST
            else:
                self._tell(None)
                pause = 0.0 if full else _EVERY

    async def read(self) -> bool:
        """Read one page; tell whether another waits.

        Raises:
            TenantError: the tenant does not let us.
            LedgerError: it could not be recorded; the same rows are read again.
        """
        management = self._access.management
        if management is None:
            return False
        api = management.at(Priority.BACKGROUND)
        place, now = self._place, self._clock.now()
        if place is None:
            # Behind the newest row: what was before us is not ours to tell.
            newest = await logs.latest(api)
            await self._go(Place.of(self._issuer, newest.rows, newest.resume, now))
            return False
        take = self._take
        self._take = max(take // 2, 1)
        page, gap = await self._next(api, place, now, take)
        self._take = min(take * 2, logs.MOST)
        rows = [row for row in page.rows if str(row["log_id"]) > place.row]
        events = drafts(rows, self._access.holdings, self._consoles)
        if rows:
            place = Place.of(self._issuer, page.rows, page.resume, now)
        await self._go(replace(place, read_at=now), *([gap] if gap else []), *events)
        return bool(rows) and len(page.rows) >= take

    async def _next(
        self, api: Management, place: Place, now: datetime, take: int
    ) -> tuple[logs.LogPage, Draft | None]:
        """Return the rows after *place*, and the event about those that may be gone.

        What a checkpoint answers whose row the tenant dropped is written nowhere, so
        such a one is not asked from: reading begins anew at the oldest row there is.
        """
        there = bool(place.row)
        if there and place.aged(now):
            there = await logs.has(api, place.row)
        if not there:
            page = await logs.earliest(api)
            if not page.rows or page.resume > place.row:
                return page, place.gap(page.rows[0] if page.rows else None, now)
            # Older rows are there still, so none was dropped since.
        return await logs.after(api, place.row, take), None

    async def _go(self, place: Place, *events: Draft) -> None:
        """Record what was read, with the place it leads to."""
        kept = self._kept
        if (
            events
            or kept is None
            or kept.row != place.row
            or place.read_at - kept.read_at >= _NOTED
        ):
            await self._record(events, Meta(MARK, place.text()))
            self._kept = place
        self._place = place

    def _failed(self, problem: str) -> None:
        if problem != self._problem:
            log.warning("the tenant's log cannot be read: %s", problem)
        self._tell(problem)

    def _tell(self, problem: str | None) -> None:
        if problem != self._problem:
            self._problem = problem
            self._on_problem(problem)
