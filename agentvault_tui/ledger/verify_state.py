"""Is the state the broker starts from the one its events tell of?

State rows are outside the chain, so whoever can write the file can change them. What
events say can be rebuilt, and is compared: who is served, which scopes are granted,
the panic switch, and which tokens were issued. Secrets' hashes and public keys are in
no event, nor are deadlines, cool-downs and drops of tokens: those cannot be.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from agentvault_tui.errors import LedgerError
from agentvault_tui.home import Home
from agentvault_tui.ledger import docs, schema, state
from agentvault_tui.ledger.opening import foreseen
from agentvault_tui.ledger.past_agents import Roster, Rosters
from agentvault_tui.ledger.places import head_seq
from agentvault_tui.ledger.records import Loaded, Panic
from agentvault_tui.ledger.verify import Verification, verify_ledger
from agentvault_tui.model import (
    Agent,
    AgentId,
    AgentStatus,
    EventType,
    Token,
    TokenId,
    TokenKind,
)

_BESIDES: Final = "; besides, "
_CUT: Final = '{"$cut"'
_ISSUES: Final = (
    (EventType.TOKEN_DELIVERED, TokenKind.ELEVATED, "outcome IS NULL"),
    (EventType.STEPUP_APPROVED, TokenKind.ELEVATED, "outcome IS NULL"),
    (EventType.TOKEN_DECISION, TokenKind.STANDARD, "outcome = 'allowed'"),
)
"""The events that issue a token, of what kind."""
_ISSUED: Final = (
    "SELECT agent_id, json_extract(body, '$.detail.token_id'),"
    " json_extract(body, '$.detail.scope')"
    " FROM events WHERE type = ? AND {} ORDER BY seq DESC"
)


class _Issued(NamedTuple):
    """What an event and a row must say alike of a token."""

    agent_id: AgentId
    scope: str
    kind: TokenKind


@dataclass(frozen=True, slots=True)
class Astray:
    """What is served by the rows although events say otherwise."""

    agents: tuple[Agent, ...] = ()
    """Those served though revoked or never registered, as they must be: revoked."""
    panic: Panic | None = None
    """The panic that no row tells of."""
    tokens: tuple[Token, ...] = ()
    """Elevated ones that no approval gave life to."""

    def __bool__(self) -> bool:
        """Tell whether there is anything."""
        return bool(self.agents or self.panic or self.tokens)


def verify_home(home: Home) -> Verification:
    """Check a home's ledger, and that its state is what its events tell of.

    Raises:
        NotFoundError: there is no ledger.
    """
    found = verify_ledger(home)
    if not found.ok:
        return found
    try:
        with foreseen(home.database):
            db = schema.open_reader(home.database)
            try:
                problems = _problems(db)
            finally:
                db.close()
    except LedgerError as error:
        problems = [f"its state cannot be read ({error.what})"]
    if not problems:
        return found
    return replace(found, ok=False, problem=_BESIDES.join(problems))


def astray(db: sqlite3.Connection, loaded: Loaded) -> Astray:
    """Compare what was loaded with the events, before anything is served.

    Only the few events about agents and approvals are read, so that a start is quick.
    """
    roster = Rosters().at(db, head_seq(db))
    elevated = {t.id: _told(t) for t in loaded.tokens if t.kind is TokenKind.ELEVATED}
    foreign = dict(_not_issued(db, elevated, _ISSUES[:2]))
    return Astray(
        agents=tuple(
            replace(
                agent,
                status=AgentStatus.REVOKED,
                revoked_at=known.revoked_at if known else agent.created_at,
            )
            for agent in loaded.agents
            for known in (roster.agents.get(agent.id),)
            if agent.status is AgentStatus.ACTIVE and not _active(known)
        ),
        panic=roster.panic if loaded.panic is None else None,
        tokens=tuple(token for token in loaded.tokens if token.id in foreign),
    )


def _problems(db: sqlite3.Connection) -> list[str]:
    """Return the first thing of each kind that is not as the events say."""
    db.execute("BEGIN")
    try:
        roster = Rosters().at(db, head_seq(db))
        firsts: dict[str, str] = {}
        for kind, problem in (*_wrong_agents(db, roster), *_wrong_tokens(db)):
            firsts.setdefault(kind, problem)
        if roster.panic is not None and not _stopped(db):
            firsts["panic"] = "the panic is gone though no event lifted it"
        return list(firsts.values())
    finally:
        db.execute("COMMIT")


def _wrong_agents(db: sqlite3.Connection, roster: Roster) -> Iterator[tuple[str, str]]:
    for row_id, doc in db.execute("SELECT id, doc FROM agents ORDER BY id"):
        agent = docs.read_agent(doc)
        known = roster.agents.get(agent.id)
        if not row_id == agent.id == agent.client_id:
            yield "id", f"the row of agent {row_id} is another agent's"
        elif known is None:
            yield "unknown", f"agent {row_id} is there though no event registered it"
        elif agent.status is AgentStatus.ACTIVE and not _active(known):
            yield "revoked", f"agent {row_id} is active though it was revoked"
        # Lists too long for an event cannot be compared.
        elif not roster.unsure and (more := set(agent.scopes) - set(known.scopes)):
            yield "scope", f"agent {row_id} has {min(more)}, which nobody granted"


def _wrong_tokens(db: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    rows: dict[TokenId, _Issued] = {}
    for row_id, agent_id, doc in db.execute("SELECT id, agent_id, doc FROM tokens"):
        token = docs.read_token(row_id, agent_id, doc)
        told = _told(token)
        if rows.setdefault(token.id, told) != told:
            yield "twice", f"token {token.id} has rows that differ"
    for token_id, known in _not_issued(db, rows, _ISSUES):
        if known is None:
            yield "issued", f"token {token_id} is there though no event issued it"
        else:
            yield "token", f"token {token_id} is not as its event says"


def _not_issued(
    db: sqlite3.Connection,
    rows: dict[TokenId, _Issued],
    issues: Iterable[tuple[EventType, TokenKind, str]],
) -> Iterator[tuple[TokenId, _Issued | None]]:
    """Yield the tokens no event issued, and what it says where it says otherwise."""
    wanted = dict(rows)
    for kind, makes, condition in issues:
        if not wanted:
            return
        for agent, name, scope in db.execute(_ISSUED.format(condition), (kind,)):
            row = wanted.pop(name, None)
            if row is None:
                continue
            told = _Issued(agent, _scope(scope, row), makes)
            if told != row:
                yield name, told
            if not wanted:
                return
    for token_id in wanted:
        yield token_id, None


def _scope(told: Any, row: _Issued) -> str:
    """Return the scope an event tells; the row's where it was too long for one."""
    return row.scope if str(told).startswith(_CUT) else str(told)


def _told(token: Token) -> _Issued:
    return _Issued(token.agent_id, token.scope, token.kind)


def _active(agent: Agent | None) -> bool:
    return agent is not None and agent.status is AgentStatus.ACTIVE


def _stopped(db: sqlite3.Connection) -> bool:
    panic = state.read_panic(db)
    return panic is not None and panic.on
