"""Where the reading of the tenant's log stands, and what may be missing before it.

A tenant keeps its log for a day on the smallest plan, and says nowhere what became of
the rows that a reader was too late for.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Final, Self

from agentvault_tui.clock import iso, parse_iso
from agentvault_tui.model import Actor, ActorKind, Draft, EventType
from agentvault_tui.vault.reply import Json

KEPT: Final = timedelta(days=1)
"""For so long every plan keeps a row."""


@dataclass(frozen=True, slots=True)
class Place:
    """The last row that was read, at one tenant."""

    issuer: str
    row: str
    """Its ``log_id``; empty when the log was."""
    dated: datetime
    """When it happened, by the tenant's clock and never after ours."""
    read_at: datetime
    """When the log was last read to its end or a page of it, by our clock."""

    @classmethod
    def of(cls, issuer: str, rows: tuple[Json, ...], row: str, now: datetime) -> Self:
        """Return the place at *row*, which is one of *rows* if there are any."""
        dates = [date(one, now) for one in rows if one.get("log_id") == row]
        return cls(issuer, row, dates[-1] if dates else now, now)

    @classmethod
    def read(cls, text: str, issuer: str) -> Self | None:
        """Read what `text` wrote; another tenant's place is none here."""
        try:
            said = json.loads(text)
            place = cls(
                str(said["issuer"]),
                str(said["row"]),
                parse_iso(said["dated"]),
                parse_iso(said["read_at"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
        return place if place.issuer == issuer else None

    def text(self) -> str:
        """Return it as one line, to be kept."""
        times = {"dated": iso(self.dated), "read_at": iso(self.read_at)}
        return json.dumps(asdict(self) | times)

    def aged(self, now: datetime) -> bool:
        """Tell whether the tenant may have dropped the row by now."""
        return now - self.dated >= KEPT

    def gap(self, earliest: Json | None, now: datetime) -> Draft | None:
        """Return the event that says what may be missing, now that the row is gone.

        Nothing is while this was read within the time every plan keeps a row, for
        then a quiet tenant dropped a row that we had; nor when what it still has
        begins before we last read.

        Args:
            earliest: the oldest row that the tenant still has.
            now: by our clock.
        """
        until = date(earliest, now) if earliest else now
        if now - self.read_at < KEPT or until <= self.read_at:
            return None
        since, then = f"{iso(self.read_at)[:19]}Z", f"{iso(until)[:19]}Z"
        return Draft(
            EventType.TENANT_LOG_GAP,
            Actor(ActorKind.SYSTEM, "broker", "broker"),
            reason=(
                f"the tenant's log from {since} to {then} was not read and rows may "
                "be missing: the last one read is no longer kept there"
            ),
            detail={"from": since, "to": then, "last_row": self.row or None},
        )


def date(row: Json, now: datetime) -> datetime:
    """Return when a row happened; one that is undated or ahead of us happened now."""
    try:
        return min(parse_iso(str(row.get("date"))), now)
    except (ValueError, OverflowError):
        return now
