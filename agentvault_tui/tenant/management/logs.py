"""``/logs``: by checkpoint, with a ``Link``, or searched by some fields."""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import urlencode

from agentvault_tui.tenant.journal import FIELDS, Journal
from agentvault_tui.tenant.management import paging
from agentvault_tui.tenant.management.api import Answer, Call, Endpoint
from agentvault_tui.tenant.management.problems import bad_query, not_found

_TERM: Final = re.compile(r'([a-z_]+):("([^"\\]{0,300})"|[^\s"\\]{1,300})')
_TERMS: Final = 10
_LONGEST: Final = 2000


class LogCalls:
    """The calls about the tenant's log."""

    def __init__(self, journal: Journal) -> None:
        """Read *journal*."""
        self._journal = journal

    def endpoints(self) -> list[Endpoint]:
        """Return the calls."""
        read = ("read:logs", "read:logs_users")
        return [
            Endpoint("GET", "/logs", ("read:logs",), "Search log events", self._list),
            Endpoint("GET", "/logs/{id}", read, "Get a log event by id", self._get),
            Endpoint("GET", "/users/{id}/logs", read, "Get user's log events",
                     self._of_user),
        ]  # fmt: skip

    def _list(self, call: Call) -> Answer:
        if "from" in call.query or "take" in call.query:
            return self._after(call)
        return Answer(200, self._page(call, self._search(call)))

    def _after(self, call: Call) -> Answer:
        """Return rows newer than a checkpoint; everything else said is ignored."""
        take = max(paging.number(call.query, "take", 50, 100), 1)
        after = call.query.get("from", "")
        rows = self._journal.after(after, take)
        last = rows[-1]["log_id"] if rows else after
        query = urlencode({"from": last, "take": take})
        return Answer(200, rows, {"link": f'<{call.url}?{query}>; rel="next"'})

    def _search(self, call: Call) -> list[dict[str, Any]]:
        order = call.query.get("sort", "date:-1")
        if order not in {"date:1", "date:-1"}:
            raise bad_query("sort", "Must be date:1 or date:-1")
        terms = _terms(call.query.get("q", ""))
        return self._journal.search(terms, newest_first=order == "date:-1")

    def _of_user(self, call: Call) -> Answer:
        rows = self._journal.search([("user_id", call.path["id"])])
        return Answer(200, self._page(call, rows))

    def _page(self, call: Call, rows: list[dict[str, Any]]) -> Any:
        page = paging.by_offset(call.query, "logs", rows, length=True)
        return paging.chosen(call.query, page, "logs")

    def _get(self, call: Call) -> Answer:
        row = self._journal.one(call.path["id"])
        if row is None:
            raise not_found("Log not found.", "inexistent_log")
        return Answer(200, row)


def _terms(query: str) -> list[tuple[str, str]]:
    """Read the part of Lucene's language that is searched here: ``a:b AND c:"d"``.

    Raises:
        ApiError: it is beyond that part.
    """
    if len(query) > _LONGEST:
        raise bad_query("q", "The query is too long")
    found: list[tuple[str, str]] = []
    for piece in re.split(r"\s+AND\s+", query.strip()) if query.strip() else ():
        term = _TERM.fullmatch(piece)
        if term is None or term[1] not in FIELDS or len(found) >= _TERMS:
            raise bad_query("q", "Here field:value terms joined by AND are searched")
        found.append((term[1], term[2] if term[3] is None else term[3]))
    return found
