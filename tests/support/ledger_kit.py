"""Drafts, tokens, agents and step-ups for tests of the ledger; nothing clever."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from support.manual_clock import ManualClock

from agentvault_tui.clock import Clock, Deadline
from agentvault_tui.encoder import to_json
from agentvault_tui.home import Home
from agentvault_tui.ledger import Ledger, schema
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


async def fill(home: Home, clock: ManualClock, count: int = 5) -> None:
    """Write *count* events and close."""
    ledger = await Ledger.open(home, clock=clock)
    for number in range(count):
        await ledger.commit(decision(number=number))
    await ledger.close()


def tamper(home: Home, *statements: str) -> None:
    """Do what someone with the file can do: without the triggers, leaving no trace."""
    db = sqlite3.connect(home.database, isolation_level=None)
    with unguarded(db):
        for statement in statements:
            db.execute(statement)
    db.close()


def make_older(home: Home, version: int) -> None:
    """Make the file one of an older version: with its tables and indexes alone."""
    with closing(sqlite3.connect(home.database)) as db:
        wanted = schema.expected(schema.UPGRADED[version])
        for kind, name in schema.expected().keys() - wanted.keys():
            if not name.startswith("sqlite_"):
                db.execute(f"DROP {kind} IF EXISTS {name}")
        for one in wanted.keys() - schema.expected().keys():
            db.execute(wanted[one])
        db.execute(f"PRAGMA user_version = {version}")
        db.commit()
