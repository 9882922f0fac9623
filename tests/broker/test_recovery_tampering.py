"""Every column of every state row: changed, it is found and not served."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from support.bench import OPERATOR, PAYMENT, Bench
from support.stepups import approve, ask, hold

from agentvault_tui.broker.answers import Granted
from agentvault_tui.broker.recovery import trusted
from agentvault_tui.broker.usecases.redeem import introspect, poll, revoke_token
from agentvault_tui.broker.usecases.request import request_token
from agentvault_tui.broker.usecases.revoke import lift_panic, panic, revoke_agent
from agentvault_tui.broker.usecases.scopes import change_scopes
from agentvault_tui.broker.usecases.stepup_end import deny
from agentvault_tui.clock import Clock
from agentvault_tui.ledger import OutboxStep, verify_ledger
from agentvault_tui.ledger.state import live_token_rows, load
from agentvault_tui.ledger.verify_state import FullStateCheck, diverged
from agentvault_tui.model import (
    Account,
    Action,
    Agent,
    Draft,
    EventType,
    IssuedProviderToken,
    Lease,
    sha256_hex,
)

CALENDAR = Action(scopes=("write:calendar",), action="write:calendar")
NONE: frozenset[str] = frozenset()
TABLES = ("agents", "tokens", "dropped", "voided", "stepups", "outbox", "meta")
UNBOUND = ("ledger", "app:", "jti:")


async def furnish(bench: Bench) -> None:
    """A home with every kind of state: live, waiting, ended and decided."""
    broker = bench.broker
    dead = await bench.agent("stopped before")
    await ask(bench, dead, CALENDAR)
    await panic(broker, "drill", OPERATOR)
    await lift_panic(broker, OPERATOR)
    server = await bench.agent("server", resource_server=True)
    payer, held = await hold(bench)
    await approve(bench, held)
    delivered = await poll(broker, payer, held.id)
    assert isinstance(delivered, Granted)
    assert (await introspect(broker, server, delivered.access_token)).token
    _, approved = await hold(bench, "approved")
    await approve(bench, approved)
    other, waiting = await hold(bench, "delivered")
    await approve(bench, waiting)
    assert isinstance(await poll(broker, other, waiting.id), Granted)
    _, refused = await hold(bench, "refused")
    await deny(broker, refused.id, "no", OPERATOR)
    caller, _ = await hold(bench, "waits")
    live = await ask(bench, caller, CALENDAR)
    ended = await ask(bench, caller, CALENDAR)
    assert isinstance(live, Granted)
    await revoke_token(broker, caller, ended.access_token)
    await request_token(broker, caller, CALENDAR, resource="urn:a", details=None)
    await change_scopes(broker, caller.id, frozenset({"read:email"}), NONE, OPERATOR)
    cut = await bench.agent("cut")
    await ask(bench, cut, CALENDAR)
    await revoke_agent(broker, cut.id, "", OPERATOR)
    narrowed = await bench.agent("narrowed")
    await ask(bench, narrowed, CALENDAR)
    gone = frozenset(CALENDAR.scopes)
    await change_scopes(broker, narrowed.id, NONE, gone, OPERATOR)
    await elsewhere(bench, caller, cut)


async def elsewhere(bench: Bench, agent: Agent, cut: Agent) -> None:
    """An account at a provider, what was given of it, and a step to be done there."""
    now = bench.clock.now()
    account = Account(
        agent.id, "google", "cac_1", "https://t", "sub", "Ann", ("mail",), now
    )
    lease = Lease(
        agent.id,
        "google",
        (IssuedProviderToken("cac_1", "ab", now + timedelta(hours=1)),),
    )
    step = OutboxStep(f"{cut.id}/vault grant", cut.id, "vault grant", now)
    for kind, change in (
        (EventType.CONNECTION_ADDED, account),
        (EventType.TOKEN_EXCHANGED, lease),
        (EventType.UPSTREAM_REVOCATION, step),
    ):
        draft = Draft(kind, OPERATOR, agent_id=change.agent_id)
        await bench.broker.record(draft, changes=[change])


def leaves(value: Any) -> Iterator[Any]:
    """Every version of a JSON value in which one part is another."""
    if isinstance(value, dict):
        for name, member in value.items():
            yield from ({**value, name: other} for other in leaves(member))
    elif isinstance(value, list):
        for place, member in enumerate(value):
            for other in leaves(member):
                yield [*value[:place], other, *value[place + 1 :]]
        yield [*value, "more"]
    elif isinstance(value, bool) or value is None:
        yield "x" if value is None else not value
    elif isinstance(value, int | float):
        yield value + 1
    else:
        yield {"active": "revoked", "revoked": "active"}.get(value, f"{value}x")


def others(column: Any) -> Iterator[Any]:
    """Every way to change a column: as text, and each part of a document."""
    if isinstance(column, str) and column.startswith(("[", "{")):
        for changed in leaves(json.loads(column)):
            yield json.dumps(changed, separators=(",", ":"))
    elif isinstance(column, int):
        yield from (column - 1, column + 1000)
    else:
        yield "x" if column is None else f"{column}x"


def changes(
    db: sqlite3.Connection, clock: Clock
) -> Iterator[tuple[str, str, tuple[Any, ...]]]:
    """Every change of a column, and every removal, as a statement and its meaning."""
    for table in TABLES:
        names = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
        key = next(n for n in names if n in {"n", "key", "id", "agent_id"})
        key = "n" if table == "tokens" else key
        live = {row[1] for row in live_token_rows(db, clock)}
        for row in db.execute(f"SELECT * FROM {table}").fetchall():
            if table == "tokens" and row[1] not in live:
                continue  # nothing brings it back, whatever its row says
            where = row[names.index(key)]
            if table == "meta" and where.startswith(UNBOUND):
                continue
            yield table, f"DELETE FROM {table} WHERE {key} = ?", (where,)
            for name, column in zip(names, row, strict=True):
                for other in others(column):
                    sql = f"UPDATE OR REPLACE {table} SET {name} = ? WHERE {key} = ?"
                    yield table, sql, (other, where)


def state_problems(bench: Bench, db: sqlite3.Connection) -> list[str]:
    """What `verify` says of the rows, the events being right."""
    check = FullStateCheck(bench.home.database, bench.clock.now())
    check.begin(db)
    for seq, body in db.execute("SELECT seq, body FROM events ORDER BY seq"):
        check.learn(seq, json.loads(body))
    return check.problems(db)


def served(bench: Bench, db: sqlite3.Connection) -> tuple[set[Any], bool]:
    """What a start on these rows would serve, and whether it tells of a difference."""
    loaded = load(db, bench.clock)
    found = diverged(db, loaded, bench.clock)
    kept = trusted(bench.broker, loaded, found)
    rights: set[Any] = {repr(a) for a in kept.agents if a.status == "active"}
    if kept.panic is None:
        rights |= {repr(token) for token in kept.tokens}
        rights |= {repr(s) for s in kept.stepups if s.status.open}
        minted = {token.stepup_id for token in kept.tokens}
        approved = [s for s in kept.stepups if s.status == "approved"]
        rights |= {repr(s) for s in approved if s.id in minted}
    rights |= {repr(account) for account in kept.accounts}
    rights |= {
        f"free {agent.id}"
        for agent in kept.agents
        if agent.status == "active" and not _cooling(kept, agent)
    }
    return rights, bool(found)


def _cooling(kept: Any, agent: Agent) -> bool:
    return any(one.requester == agent.id for one in kept.cooldowns)


@pytest.mark.slow
async def test_no_change_of_a_row_goes_unseen_or_is_served(bench: Bench) -> None:
    """`verify` tells each one; a start serves nothing that the original did not."""
    await furnish(bench)
    found = verify_ledger(bench.home, now=bench.clock.now())
    assert (found.ok, found.problem) == (True, None)
    with closing(sqlite3.connect(bench.home.database)) as db, db:
        original, told = served(bench, db)
        assert not told
        unseen, given = [], []
        for table, sql, values in changes(db, bench.clock):
            copy = sqlite3.connect(":memory:", isolation_level=None)
            db.backup(copy)
            try:
                copy.execute(sql, values)
                problems = state_problems(bench, copy)
            except (ValueError, TypeError, LookupError, AttributeError) as error:
                problems = [repr(error)]  # refused at a start: `storage_errors`
            if not problems:
                unseen.append((table, sql, values))
            try:
                rights, told = served(bench, copy)
            except (ValueError, TypeError, LookupError, AttributeError):
                rights, told = set(), True
            if more := rights - original:
                given.append((sql, values, more))
            copy.close()
    db.close()
    assert unseen == []
    assert given == []


async def test_a_token_that_expires_during_a_start_is_no_damage(bench: Bench) -> None:
    """With many tokens some do, between the reading of the rows and their check."""
    await ask(bench, await bench.agent(), CALENDAR)
    await bench.close()
    db = sqlite3.connect(bench.home.database)
    loaded = load(db, bench.clock)
    (token,) = loaded.tokens
    bench.clock.advance(token.expires.remaining(bench.clock) + 1)
    assert not diverged(db, loaded, bench.clock)
    db.close()


async def test_a_second_row_of_an_expired_token_is_not_served(bench: Bench) -> None:
    """The row that is bound vouches for itself alone, also once it has expired."""
    await ask(bench, await bench.agent(), CALENDAR)
    await bench.close()
    db = sqlite3.connect(bench.home.database, isolation_level=None)
    (token,) = load(db, bench.clock).tokens
    left = token.expires.remaining(bench.clock) + 1
    bench.clock.advance(left)
    bench.clock.jump_wall(-left)
    later = str(token.expires.boot + 9000)
    db.execute(
        "INSERT INTO tokens SELECT 1, id, agent_id, expires,"
        " replace(doc, ?, ?), seq FROM tokens",
        (str(token.expires.boot), later),
    )
    loaded = load(db, bench.clock)
    found = diverged(db, loaded, bench.clock)
    assert trusted(bench.broker, loaded, found).tokens == ()
    db.close()


@pytest.mark.parametrize("table", ["dropped", "voided"])
async def test_removed_ends_revive_no_token(bench: Bench, table: str) -> None:
    """What was revoked or used stays so, is dropped again, recorded and told."""
    await furnish(bench)
    before = {t.id for a in bench.broker.registry.agents() for t in tokens(bench, a)}
    await bench.close()
    db = sqlite3.connect(bench.home.database)
    db.execute(f"DELETE FROM {table}")
    db.commit()
    db.close()
    again = await Bench.open(bench.home, bench.clock)
    try:
        registry = again.broker.registry
        assert {t.id for a in registry.agents() for t in tokens(again, a)} == before
        (event,) = await again.events("audit.ambiguous")
        assert event.reason == "state_changed"
        assert event.detail["tokens"]
    finally:
        await again.close()


def tokens(bench: Bench, agent: Agent) -> list[Any]:
    return bench.broker.registry.tokens_of(agent.id)


async def test_a_changed_secret_does_not_authenticate(bench: Bench) -> None:
    """Who puts a secret of their own in an agent's row gets no agent."""
    agent = await bench.agent()
    await bench.close()
    db = sqlite3.connect(bench.home.database)
    forged = json.dumps(sha256_hex("mine"))
    db.execute(
        "UPDATE agents SET doc = json_set(doc, '$.secret_sha256', json(?))", (forged,)
    )
    db.commit()
    db.close()
    again = await Bench.open(bench.home, bench.clock)
    try:
        found = again.broker.registry.agent(agent.id)
        assert not again.broker.registry.serves(agent.id)
        assert found.credential.secret_sha256 is None
        assert verify_ledger(bench.home, now=bench.clock.now()).ok
    finally:
        await again.close()


async def test_a_denied_agent_waits_though_its_row_is_gone(bench: Bench) -> None:
    """The denial's event tells how long."""
    agent, stepup = await hold(bench)
    await deny(bench.broker, stepup.id, "no", OPERATOR)
    await bench.close()
    db = sqlite3.connect(bench.home.database)
    assert db.execute("DELETE FROM meta WHERE key LIKE 'cooldown:%'").rowcount
    db.commit()
    db.close()
    again = await Bench.open(bench.home, bench.clock)
    try:
        assert again.broker.stepups.cooldowns.remaining(agent.id) == 30.0
        answer = await ask(again, agent, PAYMENT)
        assert answer.reason == "cooling_down"
    finally:
        await again.close()
