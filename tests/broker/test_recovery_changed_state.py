"""A start on rows that were changed while no broker ran: the events' word holds."""

from __future__ import annotations

import sqlite3

import pytest
from support.bench import OPERATOR, Bench
from support.stepups import approve, ask, hold

from agentvault_tui.broker.answers import Denied, Expired, Granted, Spent
from agentvault_tui.broker.status import warnings
from agentvault_tui.broker.usecases.redeem import introspect, poll
from agentvault_tui.broker.usecases.revoke import panic, restore_agent, revoke_agent
from agentvault_tui.errors import LedgerDamagedError
from agentvault_tui.ledger import verify_ledger
from agentvault_tui.model import Action, Agent, AgentStatus, EventType

CALENDAR = Action(scopes=("write:calendar",), action="write:calendar")
_UNREVOKE = """UPDATE agents SET doc = replace(doc, '"revoked"', '"active"')"""


async def restarted(bench: Bench, *changes: str) -> Bench:
    await bench.close()
    db = sqlite3.connect(bench.home.database)
    for sql in changes:
        assert db.execute(sql).rowcount
    db.commit()
    db.close()
    return await Bench.open(bench.home, bench.clock)


async def told(bench: Bench) -> dict[str, object]:
    (event,) = await bench.events(EventType.AUDIT_AMBIGUOUS)
    assert event.reason == "state_changed"
    assert any("audit verify" in warning for warning in warnings(bench.broker))
    return dict(event.detail)


@pytest.mark.slow
async def test_a_revoked_agent_stays_revoked(bench: Bench) -> None:
    """Whatever its row says; it is recorded, warned of, put right, and restorable."""
    agent, other = await bench.agent("one"), await bench.agent("two")
    await revoke_agent(bench.broker, agent.id, "", OPERATOR)
    again = await restarted(bench, _UNREVOKE)
    try:
        registry = again.broker.registry
        assert not registry.serves(agent.id)
        assert registry.serves(other.id)
        assert await told(again) == {"agents": [agent.id], "panic": False}
        assert verify_ledger(again.home).ok
        await restore_agent(again.broker, agent.id, OPERATOR)
        again = await restarted(again)
        assert again.broker.registry.serves(agent.id)
        assert warnings(again.broker) == []
    finally:
        await again.close()


async def test_an_agent_no_event_registered_is_not_served(bench: Bench) -> None:
    """A forged row brings no agent in."""
    agent = await bench.agent()
    forged = f"""INSERT INTO agents
        SELECT 'agt_x', replace(doc, '{agent.id}', 'agt_x'), n + 1000 FROM agents"""
    again = await restarted(bench, forged)
    try:
        assert again.broker.registry.agent("agt_x").status is AgentStatus.REVOKED
        assert again.broker.registry.serves(agent.id)
        assert (await told(again))["agents"] == ["agt_x"]
    finally:
        await again.close()


async def test_a_panic_stays_until_it_is_lifted(bench: Bench) -> None:
    """Its row deleted, everything still stands still."""
    agent = await bench.agent()
    await panic(bench.broker, "drill", OPERATOR)
    again = await restarted(bench, "DELETE FROM meta WHERE key = 'panic'")
    try:
        assert not again.broker.registry.serves(agent.id)
        assert again.broker.registry.revocations.panic is not None
        assert again.broker.registry.revocations.panic.reason == "drill"
        assert (await told(again))["panic"] is True
        assert verify_ledger(again.home).ok
    finally:
        await again.close()


async def test_an_elevated_token_without_an_approval_is_dropped(bench: Bench) -> None:
    """One made of a standard token dies; the approved one lives on."""
    payer, stepup = await hold(bench)
    await approve(bench, stepup)
    await ask(bench, payer, CALENDAR)
    assert len(bench.broker.registry.tokens_of(payer.id)) == 2
    again = await restarted(
        bench, """UPDATE tokens SET doc = replace(doc, '"standard"', '"elevated"')"""
    )
    try:
        (left,) = again.broker.registry.tokens_of(payer.id)
        assert left.stepup_id == stepup.id
        assert len((await told(again))["tokens"]) == 1  # type: ignore[arg-type]
    finally:
        await again.close()


async def test_an_untouched_store_starts_without_a_word(bench: Bench) -> None:
    """Revoked, restored and approved as events say: nothing is recorded or warned."""
    payer, stepup = await hold(bench)
    await approve(bench, stepup)
    cut: Agent = await bench.agent("cut")
    await revoke_agent(bench.broker, cut.id, "", OPERATOR)
    again = await restarted(bench)
    try:
        assert await again.events(EventType.AUDIT_AMBIGUOUS) == []
        assert warnings(again.broker) == []
        assert len(again.broker.registry.tokens_of(payer.id)) == 1
    finally:
        await again.close()


_ELSEWHERE = {
    "pending": """UPDATE stepups SET doc = replace(doc,
        '"authorization_details":[{"type":"agentvault:action"',
        '"authorization_details":[{"parameters2":7,"type":"agentvault:action"')""",
    "approved": """UPDATE tokens SET doc = replace(doc, '"amount":4200',
        '"amount":7777777')""",
    "both": """UPDATE stepups SET doc = replace(doc, '"amount":4200',
        '"amount":7777777')""",
}


@pytest.mark.parametrize("kind", _ELSEWHERE)
async def test_what_a_digest_does_not_cover_is_never_served(
    bench: Bench, kind: str
) -> None:
    """Another amount or one member more in a row: no approval, no token, no answer."""
    payer, stepup = await hold(bench)
    if kind != "pending":
        await approve(bench, stepup)
    again = await restarted(bench, _ELSEWHERE[kind])
    try:
        answer = await poll(again.broker, payer, stepup.id)
        assert isinstance(answer, Spent | Denied | Expired)
        assert again.broker.registry.tokens_of(payer.id) == []
    finally:
        await again.close()


async def test_a_changed_token_is_not_served_once_it_was_fetched(bench: Bench) -> None:
    """The last check is before the answer to the resource server."""
    payer, stepup = await hold(bench)
    await approve(bench, stepup)
    granted = await poll(bench.broker, payer, stepup.id)
    assert isinstance(granted, Granted)
    again = await restarted(bench, _ELSEWHERE["approved"])
    try:
        server = await again.agent("api", resource_server=True)
        answer = await introspect(again.broker, server, granted.access_token)
        assert answer.token is None
        assert again.broker.registry.tokens_of(payer.id) == []
    finally:
        await again.close()


async def test_a_row_number_that_leaves_no_larger_one_is_damage(bench: Bench) -> None:
    """Else no later change of that row, such as a revocation, could be written."""
    await bench.agent()
    with pytest.raises(LedgerDamagedError, match="out of range"):
        await restarted(bench, "UPDATE agents SET n = 9223372036854775807")
