"""Drafts, tokens, agents and step-ups for tests of the ledger; nothing clever."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import rfc8785
from support.manual_clock import ManualClock

from agentvault_tui.clock import Clock, Deadline
from agentvault_tui.encoder import to_json
from agentvault_tui.home import Home
from agentvault_tui.ledger import Head
from agentvault_tui.ledger.activity import count_new
from agentvault_tui.ledger.chain import genesis, link, written
from agentvault_tui.ledger.headfile import Witness, write_witness
from agentvault_tui.model import (
    Actor,
    ActorKind,
    Agent,
    AgentId,
    Credential,
    DecisionId,
    Draft,
    EventType,
    Evidence,
    Outcome,
    Risk,
    StepUp,
    StepUpId,
    StepUpStatus,
    Token,
    TokenId,
    TokenKind,
)

START = datetime(2026, 11, 24, 10, 0, 0, 123456, tzinfo=UTC)
SYSTEM = Actor(ActorKind.SYSTEM, "test", "test")


@contextmanager
def unguarded(db: sqlite3.Connection) -> Iterator[None]:
    """Take the triggers away for a block, as who can write the file can, unseen."""
    triggers = db.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY name"
    ).fetchall()
    for name, _ in triggers:
        db.execute(f"DROP TRIGGER {name}")
    yield
    for _, sql in triggers:
        db.execute(sql)
    db.commit()


def manual_clock() -> ManualClock:
    return ManualClock(START)


def decision(
    agent: str = "agt_1",
    outcome: Outcome = Outcome.ALLOWED,
    *,
    name: str = "calendar-agent",
    resource: str | None = "calendar:primary",
    **detail: Any,
) -> Draft:
    return Draft(
        EventType.TOKEN_DECISION,
        Actor(ActorKind.AGENT, agent, name),
        AgentId(agent),
        "write:calendar",
        resource,
        outcome,
        "granted",
        "low-risk",
        DecisionId(f"dec_{agent}"),
        detail,
    )


def note(kind: EventType = EventType.AGENT_REGISTERED, agent: str = "agt_1") -> Draft:
    return Draft(kind, SYSTEM, AgentId(agent), reason="by hand")


def token(clock: Clock, name: str = "tok_1", agent: str = "agt_1") -> Token:
    return Token(
        TokenId(name),
        "ab" * 32,
        AgentId(agent),
        "write:calendar",
        TokenKind.STANDARD,
        clock.now(),
        Deadline.after(clock, 3600),
        authorization_details=to_json(
            [{"type": "x", "odd": "\ud800\x00", "n": [1.5, None]}]
        ),
        resource="calendar:\ud83d",
        stepup_id=StepUpId("sup_1"),
    )


def agent(name: str = "agt_1", **changes: Any) -> Agent:
    made = Agent(
        AgentId(name),
        name,
        "bot\x1b[31m\udfff",
        "alice@acme.test",
        "",
        ("read:mail", "write:calendar"),
        START,
        credential=Credential(secret_sha256="cd" * 32),
    )
    return replace(made, **changes)


def stepup(clock: Clock, name: str = "sup_1", **changes: Any) -> StepUp:
    made = StepUp(
        StepUpId(name),
        AgentId("agt_1"),
        "bot",
        "send:payment",
        "send:payment",
        None,
        to_json({"amount": 4200.5, "to": "\ud800"}),
        None,
        "payments-need-step-up",
        "why",
        Risk.HIGH,
        "v1",
        "nonce",
        "sha256:" + "7f" * 32,
        DecisionId("dec_1"),
        300,
        clock.now(),
        Deadline.after(clock, 300),
        authorization_details=to_json(
            [{"type": "x", "odd": "\ud800", "n": [1.5, None]}]
        ),
        resource_indicator="stripe:\ud83d",
    )
    return replace(made, **changes)


def decided(clock: Clock, name: str = "sup_2") -> StepUp:
    return stepup(
        clock,
        name,
        status=StepUpStatus.APPROVED,
        decided_by=Evidence("auth0|1", "Alice", ("mfa", "otp"), clock.now()),
        decided_at=clock.now(),
    )


def make_older(home: Home, version: int) -> None:
    """Take the hashes of state rows out of a file's events, as before version 4.

    The chain is computed anew, and the head kept outside with it; what else an older
    version had otherwise is the caller's to change.
    """
    db = sqlite3.connect(home.database, isolation_level=None)
    count_new(db)
    db.executescript(
        "DROP TABLE counted; ALTER TABLE tokens RENAME TO newer;"
        " CREATE TABLE tokens (\n  n INTEGER PRIMARY KEY, id TEXT NOT NULL,"
        " agent_id TEXT NOT NULL,\n  expires TEXT NOT NULL, doc TEXT NOT NULL\n);"
        " INSERT INTO tokens SELECT n, id, agent_id, expires, doc FROM newer;"
        " DROP TABLE newer;"
    )
    (ledger_id,) = db.execute("SELECT value FROM meta WHERE key = 'ledger'").fetchone()
    hashed, seq = genesis(ledger_id), 0
    with unguarded(db):
        for seq, body in db.execute("SELECT seq, body FROM events").fetchall():
            value = json.loads(body)
            value.pop("state", None)
            older = rfc8785.dumps(value)
            hashed = link(hashed, seq, older)
            db.execute(
                "UPDATE events SET body = ?, hash = ? WHERE seq = ?",
                (older.decode(), hashed, seq),
            )
        db.execute(f"PRAGMA user_version = {version}")
    db.close()
    write_witness(home.head_file, Witness(ledger_id, Head(seq, written(hashed))))
