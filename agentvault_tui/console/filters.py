"""The one filter language: ``status:active scope:payment outcome:denied "text"``.

Words joined by spaces must all hold.
A word with a known key looks at that member, any other is looked for everywhere.
A key that says nothing about a kind of row (``outcome`` of a step-up) leaves it alone.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from agentvault_tui.clock import iso
from agentvault_tui.console.records import AgentRow, Counts, EventRow

_WORD: Final = re.compile(r'(?:([A-Za-z]+):)?(?:"([^"]*)"?|(\S+))')
_SPAN: Final = re.compile(r"^(\d{1,6})([smhd])$")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
KEYS: Final = (
    "action",
    "agent",
    "outcome",
    "owner",
    "resource",
    "risk",
    "scope",
    "since",
    "status",
    "type",
)


@dataclass(frozen=True, slots=True)
class AgentFacts:
    """What a filter may look at beside the agent itself."""

    counts: Counts
    status: str
    """``active``, ``waiting`` or ``revoked``."""


@dataclass(frozen=True, slots=True)
class Filter:
    """What is asked for; the empty one holds for everything."""

    words: tuple[str, ...] = ()
    """Looked for everywhere, in lower case."""
    terms: tuple[tuple[str, str], ...] = ()
    """Key and value, in lower case."""
    problem: str = ""
    """What was not understood, and what to do; in our own words."""

    @classmethod
    def parse(cls, text: str) -> Filter:
        """Read what was typed; half a word is no error."""
        words: list[str] = []
        terms: list[tuple[str, str]] = []
        problem = ""
        for key, quoted, plain in _WORD.findall(text):
            value = (quoted or plain).lower()
            if not value:
                continue
            if key.lower() in KEYS:
                terms.append((key.lower(), value))
                continue
            if key and (near := difflib.get_close_matches(key.lower(), KEYS, n=1)):
                problem = f"did you mean {near[0]}:"
            words.append(f"{key}:{value}".lower() if key else value)
        for key, value in terms:
            if key == "since" and not _SPAN.match(value):
                problem = "since takes a span: 30s, 10m, 2h, 1d"
        return cls(tuple(words), tuple(terms), problem)

    def __bool__(self) -> bool:
        """Tell whether anything is asked for."""
        return bool(self.words or self.terms)

    def agent(self, row: AgentRow, facts: Callable[[AgentRow], AgentFacts]) -> bool:
        """Tell whether an agent is asked for."""
        if not self:
            return True
        text = " ".join(
            (row.name, row.owner, row.id, row.purpose, *(s.name for s in row.scopes))
        ).lower()
        return all(word in text for word in self.words) and all(
            _AGENT[key](row, facts(row), value)
            for key, value in self.terms
            if key in _AGENT
        )

    def event(self, row: EventRow, name: str, now: datetime) -> bool:
        """Tell whether an event is asked for; *name* is its agent's."""
        if not self:
            return True
        what = (row.type, row.action, row.resource, row.outcome, row.note)
        why = (row.reason, row.rule, row.agent_id, row.decision_id)
        text = " ".join((name, row.actor, *what, *why)).lower()
        return all(word in text for word in self.words) and all(
            _EVENT[key](row, name, value)
            if key in _EVENT
            else key != "since" or row.time >= _since(value, now)
            for key, value in self.terms
        )

    def query(self, agents: Mapping[str, AgentRow], now: datetime) -> dict[str, Any]:
        """Return what of it the broker can look for itself, for ``GET /api/audit``.

        It may give more than is asked for, never less: `event` sifts the answer.
        """
        found: dict[str, Any] = {}
        for key, value in self.terms:
            if key == "outcome" and value in {"allowed", "denied", "escalated"}:
                found["outcome"] = value
            elif key == "since":
                found["since"] = iso(_since(value, now))
            elif key == "agent":
                named = [a.id for a in agents.values() if value in a.name.lower()]
                if len(named) == 1:
                    found["agent"] = named[0]
        return found


def _since(value: str, now: datetime) -> datetime:
    if match := _SPAN.match(value):
        return now - timedelta(seconds=int(match[1]) * _UNITS[match[2]])
    return datetime.min.replace(tzinfo=now.tzinfo)


_AGENT: Final[dict[str, Callable[[AgentRow, AgentFacts, str], bool]]] = {
    "agent": lambda row, _, value: value in row.name.lower() or value == row.id,
    "owner": lambda row, _, value: value in row.owner.lower(),
    "scope": lambda row, _, value: any(value in s.name.lower() for s in row.scopes),
    "risk": lambda row, _, value: any(s.risk.startswith(value) for s in row.scopes),
    "status": lambda _, facts, value: facts.status.startswith(value),
    "outcome": lambda _, facts, value: any(
        word.startswith(value) and getattr(facts.counts, word)
        for word in ("allowed", "denied", "escalated")
    ),
}
_EVENT: Final[dict[str, Callable[[EventRow, str, str], bool]]] = {
    "agent": lambda row, name, value: value in name.lower() or value == row.agent_id,
    "scope": lambda row, _, value: value in row.action.lower(),
    "action": lambda row, _, value: value in row.action.lower(),
    "resource": lambda row, _, value: value in row.resource.lower(),
    "outcome": lambda row, _, value: (
        row.outcome.startswith(value) and row.outcome != ""
    ),
    "type": lambda row, _, value: row.type.startswith(value),
}
