"""How the database file of an older version becomes one of this version."""

# ruff: noqa: S608 - statements are put together from constants; values are bound

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from typing import Any, Final

from agentvault_tui.clock import Clock
from agentvault_tui.errors import LedgerDamagedError
from agentvault_tui.ledger import activity, docs, state
from agentvault_tui.ledger.batch import Job, build, read_tip
from agentvault_tui.ledger.bindings import LASTING_TYPES, LEDGER, bindings
from agentvault_tui.ledger.chain import prepare
from agentvault_tui.ledger.past_agents import Rosters
from agentvault_tui.ledger.records import Attempt, DropToken
from agentvault_tui.model import (
    AgentStatus,
    Draft,
    EventType,
    StepUp,
    StepUpStatus,
    TokenId,
)

TOKENS: Final = """\
CREATE TABLE tokens (
  n INTEGER PRIMARY KEY, id TEXT NOT NULL, agent_id TEXT NOT NULL,
  expires TEXT NOT NULL, doc TEXT NOT NULL, seq INTEGER NOT NULL
)"""
"""*seq* is the event that binds the row."""
STEPUPS: Final = (
    """\
CREATE TABLE stepups (
  id TEXT PRIMARY KEY, status TEXT NOT NULL, agent_id TEXT NOT NULL,
  action TEXT NOT NULL, decided TEXT, doc TEXT NOT NULL, n INTEGER NOT NULL
) WITHOUT ROWID""",
    "CREATE INDEX stepups_by_status ON stepups (status, n)",
    "CREATE INDEX stepups_by_kind ON stepups (agent_id, action, decided)",
)
"""What is decided about one agent and one action is read in one stretch, by time."""
_ADOPTED: Final = 64
"""Rows an event of the upgrade binds."""


def _stepups_by_kind(db: sqlite3.Connection, _: Clock) -> None:
    """Version 3: a step-up's agent, action and decision get columns of their own."""
    rows = db.execute("SELECT id, status, doc, n FROM stepups").fetchall()
    db.execute("DROP TABLE stepups")
    for statement in STEPUPS:
        db.execute(statement)
    for stepup_id, status, doc, n in rows:
        value = json.loads(doc)
        kind = (value["agent_id"], value["action"], value["decided_at"])
        db.execute(
            "INSERT INTO stepups VALUES (?, ?, ?, ?, ?, ?, ?)",
            (stepup_id, status, *kind, doc, n),
        )


def _bind_state(db: sqlite3.Connection, clock: Clock) -> None:
    """Version 4: events hold the hashes of state rows; bind those there are, once.

    Rows that older events contradict are not bound, so the start that follows finds
    them. What waits for a person is cancelled, and what was approved and not used is
    dropped: no older event holds all that such a row says.

    Raises:
        LedgerDamagedError: events of this version are there already, so the file was
            set back on purpose to have its rows bound anew.
    """
    kinds = ",".join(f"'{kind.value}'" for kind in LASTING_TYPES)
    if db.execute(
        f"SELECT 1 FROM events WHERE type IN ({kinds}) AND outcome IS NULL"
        " AND json_extract(body, '$.state') IS NOT NULL LIMIT 1"
    ).fetchone():
        raise LedgerDamagedError(
            "the file says it is of an older version than its events",
            "keep it as evidence and restore the newest copy",
        )
    row = db.execute("SELECT value FROM meta WHERE key = 'ledger'").fetchone()
    tip = read_tip(db, str(row[0]))
    cancelled, drops = list(_waiting(db, clock)), list(_unused(db))
    ended = {drop.token_id for drop in drops}
    drafts = [
        Draft(
            EventType.STEPUP_CANCELLED,
            LEDGER,
            agent_id=stepup.agent_id,
            action=stepup.action,
            reason=stepup.problem,
            detail={"stepup_id": stepup.id, "digest": stepup.digest},
        )
        for stepup in cancelled
    ]
    bound = dict(_adoptable(db, ended))
    keys = sorted(bound)
    _number_tokens(
        db, {key: tip.seq + 1 + at // _ADOPTED for at, key in enumerate(keys)}
    )
    db.execute(activity.COUNTED)
    db.execute("INSERT INTO counted VALUES (?)", (tip.seq,))
    prepared = [
        prepare(
            Draft(EventType.STATE_RECORDED, LEDGER, reason="upgraded"),
            json.dumps(
                {key: bound[key] for key in keys[start : start + _ADOPTED]},
                separators=(",", ":"),
                ensure_ascii=False,
            ),
        )
        for start in range(0, max(len(keys), 1), _ADOPTED)
    ]
    job = Job.of(drafts, [*cancelled, *drops], count(state.last_n(db) + 1))
    job = replace(job, prepared=(*prepared, *job.prepared), attempt=Attempt((), ()))
    for sql, parameters in build(tip, [job], clock).statements:
        db.execute(sql, parameters)


def _number_tokens(db: sqlite3.Connection, events: dict[str, int]) -> None:
    """Give tokens' rows the number of the event that binds them; 0 where none does."""
    rows = db.execute("SELECT * FROM tokens").fetchall()
    db.execute("DROP TABLE tokens")
    db.execute(TOKENS)
    db.executemany(
        "INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?)",
        ((*row, events.get(row[1], 0)) for row in rows),
    )


def _waiting(db: sqlite3.Connection, clock: Clock) -> Iterator[StepUp]:
    """Yield open step-ups, cancelled."""
    for (doc,) in db.execute(
        "SELECT doc FROM stepups WHERE status IN ('pending', 'authorizing')"
    ):
        yield replace(
            docs.read_stepup(doc),
            status=StepUpStatus.CANCELLED,
            problem="upgraded",
            decided_at=clock.now(),
            device=None,
        )


def _unused(db: sqlite3.Connection) -> Iterator[DropToken]:
    """Yield the ends of elevated tokens that nobody has used."""
    for token_id in db.execute(
        "SELECT DISTINCT id FROM tokens"
        " WHERE json_extract(doc, '$[2]') = 'elevated'"
        " AND id NOT IN (SELECT id FROM dropped)"
    ):
        yield DropToken(TokenId(token_id[0]))


def _adoptable(
    db: sqlite3.Connection, ended: set[TokenId]
) -> Iterator[tuple[str, str]]:
    """Yield the bindings of rows that no older event contradicts."""
    open_ones = {
        row[0]
        for row in db.execute(
            "SELECT id FROM stepups WHERE status IN ('pending', 'authorizing')"
        )
    }
    rosters = Rosters()
    (head,) = db.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()
    roster = rosters.at(db, head)
    for table in ("agents", "stepups", "outbox", "meta", "dropped", "voided"):
        for row in db.execute(f"SELECT * FROM {table}"):
            if table == "agents" and not _told(row[1], roster.agents.get(row[0])):
                continue
            if table == "stepups" and row[0] in open_ones:
                continue
            if table == "meta" and row[0] == "ledger":
                continue
            yield from bindings(table, row)
    gone = {
        row[0]
        for row in db.execute(
            "SELECT json_extract(body, '$.detail.token_id') FROM events"
            " WHERE type IN ('token.redeemed', 'token.revoked') AND outcome IS NULL"
        )
    }
    issued = {
        row[0]: row[1:]
        for row in db.execute(
            "SELECT json_extract(body, '$.detail.token_id'), seq, agent_id,"
            " json_extract(body, '$.detail.scope') FROM events"
            " WHERE type = 'token.decision' AND outcome = 'allowed'"
        )
    }
    voided = dict(db.execute("SELECT * FROM voided"))
    for row in db.execute(
        "SELECT * FROM tokens WHERE id NOT IN (SELECT id FROM dropped)"
    ).fetchall():
        if row[0] <= max(voided.get(row[2], 0), voided.get("", 0)):
            yield from bindings("tokens", row)  # ended, and so is bound that it is
            continue
        token = docs.read_token(row[1], row[2], row[4])
        seq, agent_id, scope = issued.get(token.id, (0, None, None))
        door = roster.door(token.agent_id)
        if (
            token.id not in gone | ended
            and (token.agent_id, token.scope) == (agent_id, scope)
            and door is not None
            and seq > door
            and not any(
                cut.seq > seq and cut.scopes & set(token.scope.split())
                for cut in roster.scope_cuts.get(token.agent_id, ())
            )
        ):
            yield from bindings("tokens", row)


def _told(doc: str, known: Any) -> bool:
    """Tell whether an agent's row gives it nothing that its events do not."""
    agent = docs.read_agent(doc)
    if known is None:
        return False
    active = agent.status is AgentStatus.ACTIVE
    return not (
        (active and known.status is not AgentStatus.ACTIVE)
        or set(agent.scopes) - set(known.scopes)
    )


MIGRATIONS: Final[dict[int, Callable[[sqlite3.Connection, Clock], None]]] = {
    1: activity.migrate,
    2: _stepups_by_kind,
    3: _bind_state,
}
"""From each older version to the next, run inside one transaction."""
