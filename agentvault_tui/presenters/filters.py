"""The one filter language: ``status:active scope:payment -outcome:allowed "text"``.

A filter is terms joined by blanks, which must all hold: ``key:value``, ``word``,
``"several words"``, each with ``-`` before it for the opposite.
A term with a known key looks at that member, any other is looked for everywhere.
A key that says nothing about a kind of row (``status`` of an event) leaves it alone.

Every pane, screen and command reads typed filters by `Filter.parse`; `Filter.query` is
the part that the broker can search itself.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from agentvault_tui.clock import iso
from agentvault_tui.model import EventType
from agentvault_tui.operator_api.requests import AuditQuery
from agentvault_tui.operator_api.shapes import OUTCOMES, CountsInfo
from agentvault_tui.presenters.directory import Directory
from agentvault_tui.presenters.moments import FORMS, read_moment
from agentvault_tui.presenters.outcomes import (
    EVENT_PHRASES,
    OUTCOME_WORDS,
    event_phrase,
)
from agentvault_tui.presenters.records import RISKS, AgentRow, EventRow
from agentvault_tui.text import visible

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
    "until",
)
STATUSES: Final = ("active", "revoked", "template", "waiting")
# The Kelvin sign is a k in lower case, and would else make a key of what was none.
_TERM: Final = re.compile(r'(-)?(?:([A-Za-z\u212a]+):)?(?:"([^"]*)("?)|(\S*))')
_KEYED: Final = re.compile(r"[A-Za-z\u212a]+:")
_BLANK_OR_DASH: Final = re.compile(r"\s|^-")
ANSWERS: Final = (*OUTCOMES, *(one for one in OUTCOME_WORDS if one not in OUTCOMES))
"""The recorded answers of decisions, and outcome words of all other events."""
_FIXED: Final = {"outcome": ANSWERS, "risk": RISKS, "status": STATUSES}
_ANY_DAY: Final = datetime(2026, 11, 24, tzinfo=UTC)
_NEAR: Final = 0.75
"""How alike two keys are before one is taken for a slip: `event` is no `agent`."""


@dataclass(frozen=True, slots=True)
class Term:
    """One condition, or with `negated` its opposite."""

    key: str
    """One of `KEYS`; empty for a word that is looked for everywhere."""
    value: str
    """In lower case."""
    negated: bool = False
    at: int = field(default=0, compare=False)
    """Its start in the typed text."""

    def __str__(self) -> str:
        value = self.value
        misread = not self.key and _KEYED.match(value)
        # A value that holds a quote was typed without any, and reads back so.
        if '"' not in value and (misread or _BLANK_OR_DASH.search(value)):
            value = f'"{value}"'
        return f"{'-' * self.negated}{self.key}{':' * bool(self.key)}{value}"


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of the typed text that is, or is becoming, a term."""

    start: int
    end: int
    negated: bool
    key: str
    """As typed, without the colon; any word may stand there."""
    value: str
    """As typed, without quotes."""
    quoted: bool
    closed: bool
    """Whether its quote is closed; true when it has none."""
    value_at: int


def pieces(text: str) -> Iterator[Piece]:
    """Cut *text* into pieces; any text is accepted."""
    for match in _TERM.finditer(text):
        if match.end() == match.start():
            continue
        minus, key, quoted, closing, plain = match.groups()
        yield Piece(
            match.start(),
            match.end(),
            negated=minus is not None,
            key=key or "",
            value=plain if quoted is None else quoted,
            quoted=quoted is not None,
            closed=quoted is None or bool(closing),
            value_at=match.start(5) if quoted is None else match.start(3) - 1,
        )


def _problem(piece: Piece, *, last: bool) -> str:
    """Word the fault of a piece, and its place."""
    key, value = piece.key.lower(), piece.value.lower()
    what = ""
    if not key:
        return ""
    if key not in KEYS:
        # Loaded when someone mistypes: the first frame does without it.
        import difflib  # noqa: PLC0415

        near = "".join(difflib.get_close_matches(key, KEYS, n=1, cutoff=_NEAR))
        if not near and not value:
            return ""  # it may still become any word
        what = f"no key {visible(key, 12)}:, "
        what += f"did you mean {near}:" if near else "so it is looked for as text"
    elif not value:
        what = "" if last else f"{key}: has no value; write it right after the colon"
    elif key in {"since", "until"}:
        valid = read_moment(value, _ANY_DAY) is not None
        what = "" if valid else f"{key} takes {FORMS}"
    elif key in _FIXED and not any(word.startswith(value) for word in _FIXED[key]):
        *words, last_word = _FIXED[key]
        listed = f"{', '.join(words)} or {last_word}"
        what = f"{key} is {listed}, never {visible(value, 12)}"
    return f"at {piece.start + 1}: {what}" if what else ""


_EARLIEST: Final = datetime.min.replace(tzinfo=UTC)
_LATEST: Final = datetime.max.replace(tzinfo=UTC)
_INDEXED: Final = re.compile(r"(?=.*[a-df-z])[a-z0-9_:.@/-]{3,}")
"""Words that stand in the ledger's text as they do on the screen."""
_SPELLED: Final = re.compile(r"[0-9a-f]{3,6}")
"""May be part of how a hidden character is spelled out here, and only here."""
TYPES: Final = tuple(map(str, EventType))
_OURS: Final = (
    *("recipients", "items", *ANSWERS, *TYPES),
    *(phrase.lower() for phrase in EVENT_PHRASES.values()),
)
"""The text of an event that is searched here and that the ledger's text lacks."""


@dataclass(frozen=True, slots=True)
class Filter:
    """A parsed filter; the empty one matches everything."""

    terms: tuple[Term, ...] = ()
    problem: str = field(default="", compare=False)
    """The unknown parts, their places, and the remedy; in our own words."""

    @classmethod
    def parse(cls, text: str, texts: Collection[str] = ()) -> Filter:
        """Read the typed text: any text is a filter.

        Half a word is no error: a key without a value asks for nothing yet. Nor is the
        part of *texts* before a colon, such as the ``send`` of ``send:payment``.
        """
        terms: list[Term] = []
        problem = ""
        for piece in pieces(text):
            key, value = piece.key.lower(), piece.value.lower()
            if key not in texts:
                problem = problem or _problem(piece, last=piece.end == len(text))
            if key not in KEYS and value:
                key, value = "", f"{key}:{value}" if key else value
            if value:
                terms.append(Term(key, value, piece.negated, piece.start))
        return cls(tuple(terms), problem)

    def __bool__(self) -> bool:
        return bool(self.terms)

    def __str__(self) -> str:
        """Write it so that it reads back as the same."""
        return " ".join(str(term) for term in self.terms)

    def agent(
        self,
        row: AgentRow,
        directory: Directory,
        waiting: Collection[str],
        counts: CountsInfo,
    ) -> bool:
        """Check whether an agent is asked for.

        Args:
            row: the agent.
            directory: has its grants.
            waiting: ids of agents with a step-up.
            counts: how it was answered.
        """
        return all(
            (holds := _of_agent(term, row, directory, waiting, counts)) is None
            or holds is not term.negated
            for term in self.terms
        )

    def event(
        self, row: EventRow, directory: Directory, now: datetime | None = None
    ) -> bool:
        """Check whether an event is asked for; *now* is the directory's by default."""
        return all(
            (holds := _of_event(term, row, directory, now)) is None
            or holds is not term.negated
            for term in self.terms
        )

    def query(
        self, agents: Mapping[str, AgentRow], now: datetime, *, text: bool = False
    ) -> AuditQuery:
        """Return the part that the broker can search itself, for ``GET /api/audit``.

        It may give more than is asked for, never less: `event` sifts the answer.
        With *text* also a word, if one is in the ledger's text as it does on the
        screen; a page may then end early and says in ``next`` where to go on.
        """
        query = AuditQuery()
        since, until = _EARLIEST, _LATEST
        for term in self.terms:
            if term.negated:
                continue
            key, value = term.key, term.value
            if key == "outcome":
                query.outcome = _recorded(value) or query.outcome
            elif key == "type" and value in TYPES:
                query.type = value
            elif key == "agent":
                named = [
                    row.id
                    for row in agents.values()
                    if value in row.name.lower() or value == row.id
                ]
                query.agent = named[0] if len(named) == 1 else query.agent
            elif key in {"since", "until"} and (moment := read_moment(value, now)):
                since = max(since, moment) if key == "since" else since
                until = min(until, moment) if key == "until" else until
        if since > _EARLIEST:
            query.since = iso(since)
        if until < _LATEST:
            query.until = iso(until)
        if text and (word := max(self._indexed(agents), key=len, default="")):
            query.q = word
        return query

    def _indexed(self, agents: Mapping[str, AgentRow]) -> Iterator[str]:
        """Yield the words that the ledger's own text must hold for an event to match.

        Not those that may be only in texts that this console adds: names of agents an
        event is about, types, sums.
        """
        for term in self.terms:
            value = term.value
            indexed = _INDEXED.fullmatch(value) and not _SPELLED.fullmatch(value)
            if term.negated or not indexed:
                continue
            if term.key in {"action", "scope", "resource"}:
                yield value
            elif not term.key and not any(value in ours for ours in _OURS):
                rows = agents.values()
                if not any(value in a.name.lower() or value in a.id for a in rows):
                    yield value


def _of_agent(
    term: Term,
    row: AgentRow,
    directory: Directory,
    waiting: Collection[str],
    counts: CountsInfo,
) -> bool | None:
    """Check whether a term holds for an agent; None where its key says nothing."""
    value, grants = term.value, directory.intake.grants(row)
    match term.key:
        case "":
            scopes = (scope.name for scope in grants)
            texts = (row.name, row.owner, row.id, row.purpose, *scopes)
            return value in " ".join(texts).lower()
        case "agent":
            return value in row.name.lower() or value == row.id
        case "owner":
            return value in row.owner.lower()
        case "scope":
            return any(value in scope.name.lower() for scope in grants)
        case "risk":
            return any(scope.risk.startswith(value) for scope in grants)
        case "status":
            status = "template" if row.template else "active"
            status = "waiting" if row.id in waiting else status
            return ("revoked" if row.revoked else status).startswith(value)
        case "outcome":
            words = [word for word in OUTCOMES if word.startswith(value)]
            return any(getattr(counts, word) > 0 for word in words) if words else None
    return None


def _recorded(value: str) -> str | None:
    """Return the recorded answer that *value* begins, if no other word does too."""
    words = [word for word in ANSWERS if word.startswith(value)]
    return words[0] if len(words) == 1 and words[0] in OUTCOMES else None


def _answer(row: EventRow) -> str:
    """Return a decision's recorded answer, or the outcome word of another event."""
    return row.outcome or (row.word if row.word not in OUTCOMES else "")


def _of_event(
    term: Term, row: EventRow, directory: Directory, now: datetime | None
) -> bool | None:
    """Check whether a term holds for an event; None where its key says nothing."""
    value = term.value
    match term.key:
        case "":
            phrase = event_phrase(row.type)
            what = (row.type, phrase, row.word, row.action, row.resource, row.note)
            why = (row.outcome, row.reason, row.rule, row.agent_id, row.decision_id)
            texts = (directory.agent_name(row.agent_id), row.actor.name, *what, *why)
            return value in " ".join(texts).lower()
        case "agent":
            name = directory.agent_name(row.agent_id).lower()
            return value in name or value == row.agent_id
        case "owner":
            agent = directory.agents.get(row.agent_id)
            return value in (agent.owner.lower() if agent else "")
        case "scope" | "action":
            return value in row.action.lower()
        case "resource":
            return value in row.resource.lower()
        case "outcome" | "type" as key:
            has = row.type if key == "type" else _answer(row)
            return has.startswith(value) and bool(has)
        case "risk":
            risk = directory.intake.scope(row.action).risk if row.action else ""
            return risk.startswith(value)
        case "since" | "until":
            moment = read_moment(value, now or directory.clock.now())
            if moment is None:
                return None  # hides nothing: the filter's problem says so
            return (row.time >= moment) is (term.key == "since")
    return None
