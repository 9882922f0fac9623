"""Sums up the events since the operator's last key."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from agentvault_tui.clock import Clock
from agentvault_tui.console.state.mirror import Mirror
from agentvault_tui.presenters.outcomes import ROUTINE, event_phrase, reason_words
from agentvault_tui.presenters.records import EventRow

IDLE_S: Final = 60.0
"""Seconds without a key after which an operator counts as absent."""
_SHOWN_S: Final = 120.0
"""Seconds for which the sum stays after the key that ends an absence."""
_MOST: Final = 50
"""Different things that are counted."""
_NOISE: Final = frozenset({"tenant.log", "state.recorded"})
_FIRST: Final = ("panic.on", "agent.revoked", "policy.changed", "audit.ambiguous")


class Absence:
    """Counts the important events since the operator's last key."""

    def __init__(self, clock: Clock) -> None:
        """Start to count now, as if a key had been pressed."""
        self._clock = clock
        self._since: datetime | None = None
        """The last key before the absence that is summed up."""
        self._key_at = clock.boot()
        self._until = float("-inf")
        self._seq = 0
        self._counts: dict[tuple[int, str], int] = {}
        """How often each thing happened, by its rank and words."""

    def press(self) -> None:
        """Note a key: one after an absence keeps the sum on the screen."""
        now = self._clock.boot()
        if now - self._key_at >= IDLE_S:
            self._until = now + _SHOWN_S
        elif now >= self._until:
            self._begin()
        self._key_at = now

    def _begin(self) -> None:
        self._counts.clear()
        self._since = self._clock.now()

    def take(self, mirror: Mirror) -> None:
        """Count the events that have come since the last look."""
        if self._since is None:
            self._begin()
            self._seq = mirror.last_seq if mirror.loaded else 0
        if not self._seq:
            self._seq = mirror.last_seq if mirror.loaded else 0
            return
        for row in reversed(mirror.events):
            if row.seq <= self._seq:
                break
            self._count(row, mirror)
        self._seq = mirror.last_seq

    def _count(self, row: EventRow, mirror: Mirror) -> None:
        if row.word in ROUTINE or row.type in _NOISE or row.word == "waiting":
            return
        key = _worded(row, mirror)
        if key in self._counts or len(self._counts) < _MOST:
            self._counts[key] = self._counts.get(key, 0) + 1

    @property
    def away(self) -> bool:
        """Whether no key was pressed for so long that the operator counts as absent."""
        return self._clock.boot() - self._key_at >= IDLE_S

    def parts(self) -> tuple[datetime, list[str]] | None:
        """Return the start, and the events, the gravest first; None if present."""
        if self._since is None or not (self.away or self._clock.boot() < self._until):
            return None
        counts = sorted(self._counts.items())
        return self._since, [_counted(words, n) for (_, words), n in counts]


def _worded(row: EventRow, mirror: Mirror) -> tuple[int, str]:
    """Return the rank of an event, and its name."""
    if row.word == "changed":
        who = mirror.agent_name(row.agent_id) if row.agent_id else ""
        named = f"{who}: " if who and who != row.actor.name else ""
        text = f"{named}{event_phrase(row.type)} by {row.actor.name}"
        return (0 if row.type in _FIRST else 4), text
    if row.type == "stepup.expired":
        return 1, f"# {reason_words('stepup_expired')}"
    return {"unknown": 2, "failed": 2, "cut": 2}.get(row.word, 3), f"# {row.word}"


def _counted(words: str, count: int) -> str:
    if words.startswith("# "):
        return f"{count:,} {words[2:]}"
    return words if count == 1 else f"{words} \u00d7{count:,}"
