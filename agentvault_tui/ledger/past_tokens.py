"""Which tokens lived at a moment: issued before it, not expired, and not revoked.

An agent may hold any number of them, so standard tokens are counted in the index and
only the soonest to end are read.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any, Final

from agentvault_tui.clock import Deadline, parse_iso
from agentvault_tui.ledger.past_agents import Roster, events_of, is_void
from agentvault_tui.ledger.past_spans import TOKENS, Span, Tallies, spans
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

_MOST_ROWS: Final = 60_000
"""Tokens cached, some twenty megabytes."""
_READ: Final = (
    "SELECT seq, time, agent_id, json_extract(body, '$.detail.token_id'),"
    " json_extract(body, '$.detail.scope'), json_extract(body, '$.detail.expires_at'),"
    " json_extract(body, '$.detail.stepup_id')"
    " FROM events WHERE seq IN (SELECT value FROM json_each(?))"
)


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A token, as one event tells of it."""

    seq: int
    time: datetime
    agent: AgentId
    id: str
    scope: str
    expires_at: datetime | None
    elevated: bool


class TokenRows:
    """Reads each such event once, as long as there is room."""

    def __init__(self) -> None:
        self._rows: dict[int, TokenRow | None] = {}

    def read(self, db: sqlite3.Connection, seqs: Sequence[int]) -> list[TokenRow]:
        """Return the tokens of the events *seqs*, in that order, if they have one."""
        missing = [seq for seq in seqs if seq not in self._rows]
        if len(self._rows) + len(missing) > _MOST_ROWS:
            self._rows.clear()
            missing = list(seqs)
        for row in db.execute(_READ, (json.dumps(missing),)) if missing else ():
            self._rows[row[0]] = _row(row)
        return [row for seq in seqs if (row := self._rows[seq]) is not None]


def _row(row: tuple[Any, ...]) -> TokenRow | None:
    seq, time, agent, token_id, scope, ends, stepup = row
    if not isinstance(token_id, str) or agent is None:
        return None
    return TokenRow(
        seq,
        parse_iso(time),
        AgentId(agent),
        token_id,
        scope if isinstance(scope, str) else "",
        parse_iso(ends) if isinstance(ends, str) else None,
        stepup is not None,
    )


_BUDGET: Final = 1_600
"""Tokens listed in all; of each agent the soonest to end, and at most `_MOST`."""
_MOST: Final = 100
_CHUNK: Final = 256
_EDGE: Final = 4
"""Tokens read beyond those listed, as some may have expired."""
_MANY: Final = 20_000
"""Revoked and redeemed tokens that are looked at one by one."""
_SOME: Final = 32
"""Of more than that, as many are read of each agent; the rest is counted."""
_COUNT: Final = (
    "SELECT j.key, (SELECT count(*) FROM events e WHERE e.agent_id = j.key"
    " AND e.type = 'token.decision' AND e.outcome = 'allowed'"
    " AND e.seq > j.value AND e.seq <= ?2) FROM json_each(?1) j"
)
_ISSUED: Final = (
    "SELECT seq FROM events WHERE agent_id = ? AND type = 'token.decision'"
    " AND outcome = 'allowed' AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
)
_GIVEN_BACK: Final = (
    "SELECT seq FROM events WHERE type IN ('token.revoked', 'token.redeemed')"
    " AND outcome IS NULL AND seq BETWEEN ? AND ? LIMIT ?"
)
_GIVEN_BACK_BY: Final = (
    "SELECT {} FROM events WHERE agent_id = ?"
    " AND type IN ('token.revoked', 'token.redeemed')"
    " AND outcome IS NULL AND seq > ? AND seq <= ?"
)
_APPROVALS: Final = 500
"""Approvals read; more than people give in ten minutes."""


@dataclass(slots=True)
class PastHolding:
    """An agent's live tokens."""

    live: int = 0
    soonest: list[Token] = field(default_factory=list)
    """The soonest to end, in that order."""


@dataclass(slots=True)
class PastCache:
    """The state cached from look to look."""

    tallies: Tallies = field(default_factory=Tallies)
    issued: Tallies = field(default_factory=lambda: Tallies(f"('{TOKENS.type}')"))
    rows: TokenRows = field(default_factory=TokenRows)


def holdings(
    db: sqlite3.Connection, seq: int, moment: datetime, roster: Roster, cache: PastCache
) -> tuple[dict[AgentId, PastHolding], list[str]]:
    """Return each agent's tokens after event *seq*, and the gaps."""
    valid_from = {
        agent: since
        for agent in roster.agents
        if (since := roster.valid_from(agent)) is not None
    }
    holdings_of: dict[AgentId, PastHolding] = defaultdict(PastHolding)
    stretches = spans(db, seq, moment, TOKENS, roster)
    certain = [span for span in stretches if span.exact]
    look = _StandardTokens(db, (seq, moment), roster, cache, certain)
    listed = min(max(_BUDGET // max(len(valid_from), 1), 1), _MOST)
    for agent, counts in look.counts(valid_from).items():
        holdings_of[agent] = look.holding(agent, valid_from[agent], counts, listed)
    for token in _elevated(db, seq, moment, roster):
        holdings_of[token.agent_id].live += 1
        holdings_of[token.agent_id].soonest.append(token)
    for holding in holdings_of.values():
        holding.soonest.sort(key=lambda token: token.expires.wall)
        del holding.soonest[listed:]
    unsure = [
        f"Events {span.low} to {span.high} do not say when their tokens ended:"
        " those that lived are left out."
        for span in stretches
        if not span.exact
    ]
    if look.rough:
        unsure.append(
            f"More than {_MANY:,} tokens were handed back or used up while others"
            " lived: the numbers of live ones are not exact."
        )
    return {agent: held for agent, held in holdings_of.items() if held.live > 0}, unsure


class _StandardTokens:
    """The standard tokens of the stretches in which those that live were issued."""

    def __init__(
        self,
        db: sqlite3.Connection,
        at: tuple[int, datetime],
        roster: Roster,
        cache: PastCache,
        stretches: list[Span],
    ) -> None:
        self._db = db
        self._seq, self._moment = at
        self._roster = roster
        self._cache = cache
        self._spans = stretches
        low = stretches[0].low if stretches else self._seq
        rows = db.execute(_GIVEN_BACK, (low, self._seq, _MANY + 1)).fetchall()
        self.rough = len(rows) > _MANY
        """Whether too many were revoked or redeemed to look at each."""
        self._given_back: dict[AgentId, set[str]] = defaultdict(set)
        if not self.rough:
            self._keep_given_back([row[0] for row in rows])

    def counts(
        self, valid_from: Mapping[AgentId, int]
    ) -> dict[AgentId, dict[Span, int]]:
        """Count each agent's decisions in each stretch since its tokens are valid."""
        by_agent: dict[AgentId, dict[Span, int]] = defaultdict(dict)
        tallies, none = self._cache.issued, AgentCounts()
        for span in self._spans:
            inside = {
                agent: first for agent, first in valid_from.items() if first >= span.low
            }
            keys = (json.dumps(inside), span.high)
            counted = dict(self._db.execute(_COUNT, keys).fetchall())
            upto = tallies.at(self._db, span.high)
            before = tallies.at(self._db, span.low - 1)
            for agent in valid_from:
                count = counted.get(agent)
                if count is None:
                    count = upto.get(agent, none).allowed
                    count -= before.get(agent, none).allowed
                if count:
                    by_agent[agent][span] = count
        return by_agent

    def holding(
        self, agent: AgentId, since: int, counts: Mapping[Span, int], listed: int
    ) -> PastHolding:
        """Return the live part of the counted tokens, and read the soonest to end."""
        ended, more = self._ended(agent, since)
        held = PastHolding(live=sum(counts.values()) - len(ended) - more)
        for span in counts if held.live else ():
            after, few = max(since, span.low - 1), listed + _EDGE
            walk = self._walk(agent, after, span.high, few)
            for token in islice(walk, _SOME if self.rough else None):
                if self._over(token, span):
                    held.live -= 1  # counted by mistake, for the edge is not sharp
                elif token.id not in ended:
                    held.soonest.append(_token(token))
                if len(held.soonest) >= min(listed, held.live):
                    break
        return held

    def _ended(self, agent: AgentId, since: int) -> tuple[set[str], int]:
        """Return those of the counted that ended early; how many more are not named."""
        ended = set[str]()
        more = self._roughly(agent, since) if self.rough else 0
        for span in self._spans:
            after = max(since, span.low - 1)
            given_back = self._given_back.get(agent, set())
            if not span.shift:
                # Given back, so alive then: issued since its tokens are valid.
                ended |= given_back
            elif given_back:
                ended |= given_back & self._ids(agent, after, span)
            for scope_cut in self._roster.scope_cuts.get(agent, ()):
                for token in self._walk(agent, after, min(span.high, scope_cut.seq)):
                    if scope_cut.scopes & set(token.scope.split()):
                        ended |= set() if self._over(token, span) else {token.id}
            for batch in self._roster.void:
                low, high = max(after, batch.start - 1), min(span.high, batch.stop - 1)
                for token in self._walk(agent, low, high):
                    ended |= set() if self._over(token, span) else {token.id}
        return ended, more

    def _roughly(self, agent: AgentId, first: int) -> int:
        """Read some that the agent handed back; return how many others there are."""
        after = max(first, self._spans[0].low - 1) if self._spans else first
        keys = (agent, after, self._seq)
        sql = _GIVEN_BACK_BY.format("count(*)")
        (count,) = self._db.execute(sql, keys).fetchone()
        sql = _GIVEN_BACK_BY.format("seq") + f" ORDER BY seq LIMIT {_SOME}"
        self._keep_given_back([row[0] for row in self._db.execute(sql, keys)])
        return max(int(count) - _SOME, 0)

    def _keep_given_back(self, seqs: list[int]) -> None:
        """Remember those that would live, had their agents not ended them."""
        for row in self._cache.rows.read(self._db, seqs):
            behind = row.seq > (self._roster.valid_from(row.agent) or 0)
            lived = row.expires_at is None or row.expires_at > self._moment
            if lived and behind and not row.elevated:
                self._given_back[row.agent].add(row.id)

    def _ids(self, agent: AgentId, after: int, span: Span) -> set[str]:
        walk = self._walk(agent, after, span.high)
        return {token.id for token in walk if not self._over(token, span)}

    def _over(self, token: TokenRow, span: Span) -> bool:
        ends = token.expires_at
        return ends is None or ends + span.shift <= self._moment

    def _walk(
        self, agent: AgentId, after: int, upto: int, chunk: int = _CHUNK
    ) -> Iterator[TokenRow]:
        """Read an agent's tokens in the order they were issued, *chunk* at a time."""
        while after < upto:
            keys = (agent, after, upto, chunk)
            seqs = [row[0] for row in self._db.execute(_ISSUED, keys)]
            yield from self._cache.rows.read(self._db, seqs)
            if len(seqs) < chunk:
                return
            after, chunk = seqs[-1], min(2 * chunk, _CHUNK)


def _elevated(
    db: sqlite3.Connection, seq: int, moment: datetime, roster: Roster
) -> list[Token]:
    """Return the live tokens for one action: people approved them, so they are few."""
    latest: dict[str, tuple[int, Token]] = {}
    kinds = (EventType.STEPUP_APPROVED, EventType.TOKEN_DELIVERED)
    for event in events_of(db, kinds, 0, seq, _APPROVALS):
        if not is_void(roster.void, event.seq) and (token := _elevated_token(event)):
            latest[token.id] = event.seq, token
    lived = {
        token.id: (at, token)
        for at, token in latest.values()
        if token.expires.wall + roster.set_back_since(at) > moment
        and at
        > (first if (first := roster.valid_from(token.agent_id)) is not None else seq)
        and not any(
            scope_cut.seq > at and scope_cut.scopes & set(token.scope.split())
            for scope_cut in roster.scope_cuts.get(token.agent_id, ())
        )
    }
    low = min((at for at, _ in lived.values()), default=seq)
    ends = (EventType.TOKEN_REDEEMED, EventType.TOKEN_REVOKED)
    for event in events_of(db, ends, low, seq):
        lived.pop(TokenId(str(event.detail.get("token_id"))), None)
    return [token for _, token in lived.values()]


def _elevated_token(event: Event) -> Token | None:
    """Return the elevated token an event gives life to, or a new end."""
    detail = event.detail
    if "repeat_of" in detail:
        return None  # its decision is counted
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


def _token(row: TokenRow) -> Token:
    return Token(
        id=TokenId(row.id),
        sha256="",
        agent_id=row.agent,
        scope=row.scope,
        kind=TokenKind.STANDARD,
        issued_at=row.time,
        expires=Deadline(row.expires_at or row.time, 0.0, ""),
    )
