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
from typing import Any, Final

from agentvault_tui.broker.upstream.attempts import Access
from agentvault_tui.broker.upstream.holdings import Holdings
from agentvault_tui.broker.upstream.log_codes import meaning
from agentvault_tui.broker.upstream.log_place import Place
from agentvault_tui.clock import Clock
from agentvault_tui.errors import (
    LedgerError,
    SettingsError,
    TenantBusyError,
    TenantError,
)
from agentvault_tui.ledger import Meta
from agentvault_tui.model import (
    Actor,
    ActorKind,
    AgentId,
    Draft,
    EventType,
    sha256_hex,
)
from agentvault_tui.text import visible
from agentvault_tui.vault import Management, Priority
from agentvault_tui.vault.management import logs

log = logging.getLogger("agentvault.tenant_log")

MARK: Final = "tenant_log"
"""The name the place is kept under."""
_NOTED: Final = timedelta(hours=1)
"""After so long it is noted anew when the log was read, though nothing came."""
_EVERY: Final = 10.0
_LONGEST: Final = 300.0
_TEXT: Final = 300
_TOLD: Final = (
    "scope",
    "failure_reason",
    "audit_context",
    "subject_token_type",
    "is_privileged_worker",
    "expires_at",
    "token_thumbprint",
    "error",
)
"""Of a row's details: what says who got what, and why not. None holds a secret."""

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

    async def run(self) -> None:
        """Read until cancelled."""
        pause = _EVERY
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
        page, gap = await self._next(api, place, now)
        rows = [row for row in page.rows if str(row["log_id"]) > place.row]
        drafts = self._drafts(rows, self._access.holdings)
        if rows:
            place = Place.of(self._issuer, page.rows, page.resume, now)
        await self._go(replace(place, read_at=now), *([gap] if gap else []), *drafts)
        return len(page.rows) >= logs.MOST

    async def _next(
        self, api: Management, place: Place, now: datetime
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
        return await logs.after(api, place.row), None

    async def _go(self, place: Place, *drafts: Draft) -> None:
        """Record what was read, with the place it leads to."""
        kept = self._kept
        if (
            drafts
            or kept is None
            or kept.row != place.row
            or place.read_at - kept.read_at >= _NOTED
        ):
            await self._record(drafts, Meta(MARK, place.text()))
            self._kept = place
        self._place = place

    def _drafts(self, rows: list[dict[str, Any]], holdings: Holdings) -> list[Draft]:
        clients, users = holdings.clients(), holdings.users()
        clients.update(dict.fromkeys(self._consoles))
        found = []
        for row in rows:
            client_id, user_id = _name(row, "client_id"), _name(row, "user_id")
            # What a client did is that client's alone, whoever signed in there.
            if client_id in clients:
                found.append(_draft(row, clients[client_id]))
            elif not client_id and user_id in users:
                found.append(_draft(row, users[user_id]))
        return found

    def _failed(self, problem: str) -> None:
        if problem != self._problem:
            log.warning("the tenant's log cannot be read: %s", problem)
        self._tell(problem)

    def _tell(self, problem: str | None) -> None:
        if problem != self._problem:
            self._problem = problem
            self._on_problem(problem)


def _draft(row: dict[str, Any], agent_id: AgentId | None) -> Draft:
    """Write a row as an event of the tenant's; every text of it is untrusted."""
    kind = visible(str(row.get("type") or "?"), 60)
    details = row.get("details")
    told = {
        name: details[name] if isinstance(details[name], bool) else _text(details[name])
        for name in _TOLD
        if isinstance(details, dict) and details.get(name) not in (None, "")
    }
    named = {
        name: _text(row[name])
        for name in ("log_id", "date", "client_id", "user_id", "connection", "ip")
        if row.get(name)
    }
    description = row.get("description")
    means = meaning(kind, _text(description) if description else "")
    return Draft(
        EventType.TENANT_LOG,
        Actor(ActorKind.TENANT, "tenant", "tenant"),
        agent_id=agent_id,
        action=kind,
        resource=named.get("connection"),
        reason=means and visible(means, _TEXT),
        detail={"type": kind, **named, **({"details": told} if told else {})},
    )


def _name(row: dict[str, Any], member: str) -> str:
    value = row.get(member)
    return value if isinstance(value, str) else ""


def _text(value: object) -> str:
    return visible(value if isinstance(value, str) else str(value), _TEXT)
