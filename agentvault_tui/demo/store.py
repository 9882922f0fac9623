"""What the workspace holds: bookings, mails, payments, records and files, in memory."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

PEOPLE: Final = ("ada", "ben", "chris", "dana", "elif", "femi", "grace", "hugo")
"""Whom the company deals with."""
_KEPT: Final = 2_000
"""Entries of a kind that stay; a demo may run for days."""


class WorkspaceStore:
    """A small company's workspace."""

    def __init__(self) -> None:
        self.bookings: deque[dict[str, Any]] = deque(maxlen=_KEPT)
        self.mails: deque[dict[str, Any]] = deque(maxlen=_KEPT)
        self.payments: deque[dict[str, Any]] = deque(maxlen=_KEPT)
        self.files: dict[str, str] = {
            "forecast.csv": "month,amount\n2026-12,81200\n",
            "minutes.md": "# Minutes\n",
            "market.md": "# Market notes\n",
        }
        self.records: dict[str, dict[str, Any]] = {
            str(number): {"id": str(number), "customer": f"Customer {number}"}
            for number in range(1, 201)
        }
        self.lists: Mapping[str, int] = {"customers": 500, "newsletter": 1_840}
        """Mailing lists and how many people each one reaches."""
        self.contacts = [
            {"name": name.title(), "address": f"{name}@acme.test"} for name in PEOPLE
        ]
        self._numbers = itertools.count(1)

    def book(self, calendar: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Put a meeting into *calendar*."""
        return self._add(self.bookings, {"calendar": calendar, **body})

    def send(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send a mail, to addresses or to a mailing list."""
        return self._add(self.mails, dict(body))

    def pay(self, account: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send money from *account*."""
        return self._add(self.payments, {"account": account, **body})

    def _add(
        self, where: deque[dict[str, Any]], what: dict[str, Any]
    ) -> dict[str, Any]:
        entry = {"number": next(self._numbers), **what}
        where.append(entry)
        return entry


def latest(entries: Iterable[dict[str, Any]], count: int = 10) -> list[dict[str, Any]]:
    """Return the last *count* of *entries*."""
    return list(deque(entries, maxlen=count))
