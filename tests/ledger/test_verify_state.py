"""State rows changed by whoever can write the file: named, and not served."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from support.bench import OPERATOR, Bench
from support.stepups import approve, ask, hold

from agentvault_tui.broker.usecases.revoke import (
    lift_panic,
    panic,
    restore_agent,
    revoke_agent,
)
from agentvault_tui.broker.usecases.scopes import change_scopes
from agentvault_tui.ledger import verify_ledger
from agentvault_tui.model import Action, Agent

CALENDAR = Action(scopes=("write:calendar",), action="write:calendar")
NONE: frozenset[str] = frozenset()
_UNREVOKE = """UPDATE agents SET doc = replace(doc, '"revoked"', '"active"')"""


async def furnish(bench: Bench) -> Agent:
    """A live store with all there is: grants, cuts, tokens of both kinds."""
    payer, stepup = await hold(bench)
    await approve(bench, stepup)
    await ask(bench, payer, CALENDAR)
    cut = await bench.agent("cut")
    await ask(bench, cut, CALENDAR)
    more = frozenset({"read:email"})
    await change_scopes(bench.broker, cut.id, more, NONE, OPERATOR)
    gone = frozenset({"write:calendar"})
    await change_scopes(bench.broker, cut.id, NONE, gone, OPERATOR)
    await revoke_agent(bench.broker, cut.id, "", OPERATOR)
    return cut


def change(bench: Bench, sql: str, *values: Any) -> None:
    db = sqlite3.connect(bench.home.database)
    assert db.execute(sql, values).rowcount
    db.commit()
    db.close()


async def test_what_the_broker_wrote_verifies(bench: Bench) -> None:
    """Revoked, restored, stopped, lifted, granted, approved: all as events say."""
    cut = await furnish(bench)
    assert verify_ledger(bench.home).ok
    await restore_agent(bench.broker, cut.id, OPERATOR)
    await panic(bench.broker, "", OPERATOR)
    assert verify_ledger(bench.home).ok
    await lift_panic(bench.broker, OPERATOR)
    await ask(bench, await bench.agent("third"), CALENDAR)
    found = verify_ledger(bench.home)
    assert (found.ok, found.problem) == (True, None)


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        (_UNREVOKE, "is not as its event says"),
        (
            "UPDATE agents SET doc = replace(doc, 'read:email', 'read:all')",
            "is not as its event says",
        ),
        (
            """INSERT INTO agents
            SELECT 'agt_x', replace(doc, id, 'agt_x'), n FROM agents LIMIT 1""",
            "agent agt_x is there though no event tells of it",
        ),
        (
            "UPDATE agents SET id = 'agt_x' WHERE id = (SELECT min(id) FROM agents)",
            "agent agt_x is there though no event tells of it",
        ),
        (
            """INSERT INTO tokens
            SELECT max(n) + 1, 'tok_x', agent_id, expires, doc, seq FROM tokens""",
            "token tok_x is there though no event issued it",
        ),
        (
            "UPDATE tokens SET doc = replace(doc, '\"standard\"', '\"elevated\"')",
            "is not as its event says",
        ),
        (
            "UPDATE tokens SET doc = replace(doc, 'calendar', 'all')",
            "is not as its event says",
        ),
        ("UPDATE tokens SET agent_id = 'agt_x'", "is not as its event says"),
        ("UPDATE agents SET doc = '[]'", "is not as its event says"),
        ("UPDATE agents SET n = 1e400", "out of range"),
        ("UPDATE meta SET n = 'x'", "out of range"),
    ],
)
async def test_a_changed_row_is_damage_by_name(
    bench: Bench, sql: str, told: str
) -> None:
    """Though the chain is whole, each kind of change is told."""
    await furnish(bench)
    change(bench, sql)
    found = verify_ledger(bench.home)
    assert not found.ok
    assert told in (found.problem or "")


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM meta WHERE key = 'panic'",
        "UPDATE meta SET value = replace(value, 'true', 'false') WHERE key = 'panic'",
    ],
)
async def test_a_panic_that_is_gone_is_damage(bench: Bench, sql: str) -> None:
    """Besides other damage too: each kind is named."""
    await furnish(bench)
    await panic(bench.broker, "", OPERATOR)
    change(bench, sql)
    change(bench, _UNREVOKE)
    problem = verify_ledger(bench.home).problem or ""
    assert "value panic" in problem
    assert "agent" in problem
