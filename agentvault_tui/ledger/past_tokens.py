"""Which tokens lived at a moment: issued before it, not over, and not cut off since.

An agent may hold any number of them, so standard tokens are counted in the index and
only the soonest to end are read.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from agentvault_tui.clock import Deadline, parse_iso
from agentvault_tui.ledger.chain import read_event
from agentvault_tui.ledger.past_agents import Roster, events_of, is_void
from agentvault_tui.ledger.past_counts import Tallies
from agentvault_tui.ledger.past_spans import TOKENS, Span, spans
from agentvault_tui.model import (
    AgentCounts,
    AgentId,
    Event,
    EventType,
    StepUpId,
    Token,
    TokenId,
    TokenKind,
)

_BUDGET: Final = 1_600
"""Tokens listed in all; at least `_LEAST` and at most `_MOST` of each agent."""
_LEAST: Final = 8
_MOST: Final = 100
_CHUNK: Final = 256
_EDGE: Final = 2
"""Read beyond what is listed: those at the edge may be over."""
_COUNT: Final = (
    "SELECT j.key, (SELECT count(*) FROM events e WHERE e.agent_id = j.key"
    " AND e.type = 'token.decision' AND e.outcome = 'allowed'"
    " AND e.seq > j.value AND e.seq <= ?2) FROM json_each(?1) j"
)
_READ: Final = (
    "SELECT seq, time, json_extract(body, '$.detail.token_id'),"
    " json_extract(body, '$.detail.scope'), json_extract(body, '$.detail.expires_at')"
    " FROM events WHERE agent_id = ? AND type = 'token.decision'"
    " AND outcome = 'allowed' AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
)
_APPROVALS: Final = 500
"""Approvals looked at: more within the ten minutes that matter, no people give."""


@dataclass(slots=True)
class Holding:
    """An agent's live tokens."""

    live: int = 0
    soonest: list[Token] = field(default_factory=list)
    """The soonest to end, in that order."""


def holdings(
    db: sqlite3.Connection,
    seq: int,
    moment: datetime,
    roster: Roster,
    tallies: Tallies,
) -> tuple[dict[AgentId, Holding], list[str]]:
    """Return what each agent held after event *seq*, and what is unsure of it."""
    doors = {
        agent: door
        for agent in roster.agents
        if (door := roster.door(agent)) is not None
    }
    found: dict[AgentId, Holding] = defaultdict(Holding)
    stretches = spans(db, seq, moment, TOKENS, roster)
    shelf = _Shelf(db, moment, roster, [span for span in stretches if span.known], seq)
    listed = min(max(_BUDGET // max(len(doors), 1), _LEAST), _MOST)
    for agent, counts in shelf.counts(doors, tallies).items():
        found[agent] = shelf.holding(agent, doors[agent], counts, listed)
    for token in _elevated(db, seq, moment, roster):
        found[token.agent_id].live += 1
        found[token.agent_id].soonest.append(token)
    for holding in found.values():
        holding.soonest.sort(key=lambda token: token.expires.wall)
        del holding.soonest[listed:]
    unsure = [
        f"Events {span.low} to {span.high} do not say when their tokens ended:"
        " those that lived are left out."
        for span in stretches
        if not span.known
    ]
    return {agent: held for agent, held in found.items() if held.live}, unsure


@dataclass(frozen=True, slots=True)
class _Issued:
    """One standard token, as its decision tells it."""

    id: str
    scope: str
    issued_at: datetime
    expires_at: datetime


class _Shelf:
    """The standard tokens of the stretches in which those that live were issued."""

    def __init__(
        self,
        db: sqlite3.Connection,
        moment: datetime,
        roster: Roster,
        stretches: list[Span],
        seq: int,
    ) -> None:
        self._db = db
        self._moment = moment
        self._roster = roster
        self._spans = stretches
        self._given_back = self._read_given_back(seq) if stretches else {}

    def counts(
        self, doors: Mapping[AgentId, int], tallies: Tallies
    ) -> dict[AgentId, dict[Span, int]]:
        """Count each agent's decisions in each stretch, behind its door."""
        found: dict[AgentId, dict[Span, int]] = defaultdict(dict)
        for span in self._spans:
            inside = {agent: door for agent, door in doors.items() if door >= span.low}
            keys = (json.dumps(inside), span.high)
            counted = dict(self._db.execute(_COUNT, keys).fetchall())
            upto = tallies.at(self._db, span.high)
            before = tallies.at(self._db, span.low - 1)
            for agent in doors:
                count = counted.get(agent)
                if count is None:
                    none = AgentCounts()
                    count = upto.get(agent, none).allowed
                    count -= before.get(agent, none).allowed
                if count:
                    found[agent][span] = count
        return found

    def holding(
        self, agent: AgentId, door: int, counts: Mapping[Span, int], listed: int
    ) -> Holding:
        """Return what lives of what was counted, and read the soonest to end."""
        ended = self._ended(agent, door)
        held = Holding(live=sum(counts.values()) - len(ended))
        for span in counts:
            after, few = max(door, span.low - 1), listed + _EDGE
            for token in self._walk(agent, after, span.high, few):
                if self._over(token, span):
                    held.live -= 1  # read by mistake for the edge is not sharp
                elif token.id not in ended:
                    held.soonest.append(_token(agent, token))
                if len(held.soonest) >= listed:
                    break
        return held

    def _ended(self, agent: AgentId, door: int) -> set[str]:
        """Return those of the counted ones that ended early, and not by the door."""
        ended = set[str]()
        given_back = self._given_back.get(agent, frozenset())
        cuts = self._roster.scope_cuts.get(agent, [])
        batches = self._roster.void
        for span in self._spans:
            after = max(door, span.low - 1)
            if not span.shift:
                # Given back, so alive then: issued since the door last moved.
                ended |= given_back
            elif given_back:
                ended |= given_back & self._ids(agent, after, span)
            for cut in cuts:
                for token in self._walk(agent, after, min(span.high, cut.seq)):
                    if cut.scopes & set(token.scope.split()):
                        ended |= set() if self._over(token, span) else {token.id}
            for batch in batches:
                low, high = max(after, batch.start - 1), min(span.high, batch.stop - 1)
                for token in self._walk(agent, low, high):
                    ended |= set() if self._over(token, span) else {token.id}
        return ended

    def _ids(self, agent: AgentId, after: int, span: Span) -> set[str]:
        walk = self._walk(agent, after, span.high)
        return {token.id for token in walk if not self._over(token, span)}

    def _over(self, token: _Issued, span: Span) -> bool:
        return token.expires_at + span.shift <= self._moment

    def _walk(
        self, agent: AgentId, after: int, upto: int, chunk: int = _CHUNK
    ) -> Iterator[_Issued]:
        """Read an agent's tokens in the order they were issued, *chunk* at a time."""
        while after < upto:
            rows = self._db.execute(_READ, (agent, after, upto, chunk)).fetchall()
            for seq, time, token_id, scope, ends in rows:
                after = seq
                if token_id and ends:
                    issued, expires = parse_iso(time), parse_iso(ends)
                    yield _Issued(token_id, scope or "", issued, expires)
            if len(rows) < chunk:
                return

    def _read_given_back(self, seq: int) -> dict[AgentId, frozenset[str]]:
        """Return the ids of those that would live, had their agents not ended them."""
        found: dict[AgentId, set[str]] = defaultdict(set)
        low = self._spans[0].low
        for event in events_of(self._db, [EventType.TOKEN_REVOKED], low, seq):
            name, ends = event.detail.get("token_id"), event.detail.get("expires_at")
            behind = event.seq > (self._roster.door(event.agent_id or AgentId("")) or 0)
            lived = not isinstance(ends, str) or parse_iso(ends) > self._moment
            if isinstance(name, str) and lived and behind and not _is_elevated(event):
                found[event.agent_id or AgentId("")].add(name)
        return {agent: frozenset(names) for agent, names in found.items()}


def _elevated(
    db: sqlite3.Connection, seq: int, moment: datetime, roster: Roster
) -> list[Token]:
    """Return the live tokens for one action: people approved them, so they are few."""
    found: dict[str, tuple[int, Token]] = {}
    for event in _approvals(db, seq):
        if not is_void(roster.void, event.seq) and (token := _once(event)):
            found[token.id] = event.seq, token
    lived = {
        token.id: (at, token)
        for at, token in found.values()
        if token.expires.wall + roster.set_back_since(at) > moment
        and at > (door if (door := roster.door(token.agent_id)) is not None else seq)
        and not any(
            cut.seq > at and cut.scopes & set(token.scope.split())
            for cut in roster.scope_cuts.get(token.agent_id, ())
        )
    }
    low = min((at for at, _ in lived.values()), default=seq)
    ends = (EventType.TOKEN_REDEEMED, EventType.TOKEN_REVOKED)
    for event in events_of(db, ends, low, seq):
        lived.pop(TokenId(str(event.detail.get("token_id"))), None)
    return [token for _, token in lived.values()]


def _approvals(db: sqlite3.Connection, seq: int) -> list[Event]:
    """Return the latest approvals and deliveries, oldest first."""
    found = [
        read_event(*row)
        for kind in (EventType.STEPUP_APPROVED, EventType.TOKEN_DELIVERED)
        for row in db.execute(
            "SELECT body, hash FROM events WHERE type = ? AND outcome IS NULL"
            " AND seq <= ? ORDER BY seq DESC LIMIT ?",
            (kind.value, seq, _APPROVALS),
        )
    ]
    found.sort(key=lambda event: event.seq)
    return found


def _once(event: Event) -> Token | None:
    """Return the elevated token an event gives life to, or a new end."""
    detail = event.detail
    ends = detail.get("expires_at") or detail.get("token_fetch_before")
    name = detail.get("token_id")
    if event.agent_id is None or not isinstance(name, str) or not isinstance(ends, str):
        return None
    return Token(
        id=TokenId(name),
        sha256="",
        agent_id=event.agent_id,
        scope=str(detail.get("scope") or event.action or ""),
        kind=TokenKind.ELEVATED,
        issued_at=event.time,
        expires=Deadline(parse_iso(ends), 0.0, ""),
        stepup_id=StepUpId(str(detail.get("stepup_id"))),
    )


def _token(agent: AgentId, told: _Issued) -> Token:
    return Token(
        id=TokenId(told.id),
        sha256="",
        agent_id=agent,
        scope=told.scope,
        kind=TokenKind.STANDARD,
        issued_at=told.issued_at,
        expires=Deadline(told.expires_at, 0.0, ""),
    )


def _is_elevated(event: Event) -> bool:
    return "stepup_id" in event.detail
