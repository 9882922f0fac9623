"""``/logs`` searched by some fields, and rows that come late or are not kept."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from agentvault_tui.clock import Clock
from agentvault_tui.tenant.journal import Journal
from agentvault_tui.tenant.management import wire
from agentvault_tui.tenant.management.api import ManagementCall
from agentvault_tui.tenant.management.calls import CALLS
from agentvault_tui.tenant.management.wire import bad_query
from agentvault_tui.tenant.store import Store
from auth0_double.calls import Answer, Call, Endpoint
from auth0_double.faults import FaultSwitch

FIELDS = frozenset(
    (
        "type", "client_id", "client_name", "user_id", "user_name", "connection",
        "connection_id", "ip", "date", "description", "hostname", "log_id",
        "organization_id", "strategy", "strategy_type", "user_agent",
    )
)  # fmt: skip
_TERM = re.compile(r'([a-z_]+):("([^"\\]{0,300})"|[^\s"\\]{1,300})')
_REACHABLE = 1000
_TERMS, _LONGEST = 10, 2000
_by_place = next(call.act for call in CALLS if call.path == "/logs")


class DelayedJournal(Journal):
    """Rows are read some time after they were written, and dropped after another."""

    def __init__(
        self, store: Store, clock: Clock, host: str, faults: FaultSwitch
    ) -> None:
        super().__init__(store, clock, host)
        self._faults = faults
        self._late: list[tuple[float, str, str, str]] = []

    def keep(self, log_id: str, kind: str, at: float, doc: str) -> None:
        if delay := self._faults.now.log_delay:
            self._late.append((at + delay, log_id, kind, doc))
        else:
            super().keep(log_id, kind, at, doc)

    def _next_id(self, now: datetime) -> str:
        fresh = super()._next_id(now)
        late = max((row[1] for row in self._late), default="")
        return fresh if fresh > late else str(int(late) + 1)

    def _rows(self, where: str, *values: object) -> list[dict[str, Any]]:
        now = self._clock.now().timestamp()
        late, self._late = self._late, []
        for at, log_id, kind, doc in late:
            if at > now:
                self._late.append((at, log_id, kind, doc))
            else:
                super().keep(log_id, kind, at, doc)
        if kept := self._faults.now.log_kept:
            self._store.change("DELETE FROM journal WHERE visible_at < ?", now - kept)
        return super()._rows(where, *values)

    def search(self, terms: list[tuple[str, str]], order: str) -> list[dict[str, Any]]:
        """Return rows that have each field of *terms*; a star stands for any end."""
        where, wanted = ["TRUE"], []
        for name, value in terms:
            column = f"coalesce(json_extract(doc, '$.{name}'), '')"
            if value.endswith("*"):
                where.append(f"substr({column}, 1, {len(value) - 1}) = ?")
            else:
                where.append(f"{column} = ?")
            wanted.append(value.removesuffix("*"))
        condition = " AND ".join(where)
        return self._rows(
            f"{condition} ORDER BY log_id {order} LIMIT {_REACHABLE}", *wanted
        )


class LogCalls:
    def __init__(self, journal: DelayedJournal) -> None:
        self._journal = journal

    def endpoints(self) -> list[ManagementCall]:
        read = ("read:logs", "read:logs_users")
        return [
            ManagementCall(
                "GET", "/logs", ("read:logs",), "Search log events", self._list
            ),
            Endpoint("GET", "/users/{id}/logs", read, "Get user's log events",
                     self._of_user),
        ]  # fmt: skip

    def _list(self, parts: Any, call: Call) -> Any:
        if "from" in call.query or "take" in call.query:
            return _by_place(parts, call)
        order = call.query.get("sort", "date:-1")
        if order not in {"date:1", "date:-1"}:
            raise bad_query("sort", "Must be date:1 or date:-1")
        terms = _terms(call.query.get("q", ""))
        rows = self._journal.search(terms, "ASC" if order == "date:1" else "DESC")
        return Answer(200, self._page(call, rows))

    def _of_user(self, call: Call) -> Answer:
        rows = self._journal.search([("user_id", call.path["id"])], "DESC")
        return Answer(200, self._page(call, rows))

    def _page(self, call: Call, rows: list[dict[str, Any]]) -> Any:
        page = wire.by_offset(call.query, "logs", rows, length=True)
        return wire.chosen(call.query, page, "logs")


def _terms(query: str) -> list[tuple[str, str]]:
    """Read the part of Lucene's language that is searched here: ``a:b AND c:"d"``."""
    if len(query) > _LONGEST:
        raise bad_query("q", "The query is too long")
    found: list[tuple[str, str]] = []
    for piece in re.split(r"\s+AND\s+", query.strip()) if query.strip() else ():
        term = _TERM.fullmatch(piece)
        if term is None or term[1] not in FIELDS or len(found) >= _TERMS:
            raise bad_query("q", "Here field:value terms joined by AND are searched")
        found.append((term[1], term[2] if term[3] is None else term[3]))
    return found
