"""What was decided before about the same agent and action: from the ledger, by time."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.bench import OPERATOR, PAYMENT, Bench
from support.manual_clock import ManualClock
from support.stepups import details_of

from agentvault_tui.broker.answers import Escalated
from agentvault_tui.broker.usecases.redeem import introspect, poll
from agentvault_tui.broker.usecases.request import request_token
from agentvault_tui.broker.usecases.stepup import begin_approval
from agentvault_tui.broker.usecases.stepup_end import deny, expire_due
from agentvault_tui.clock import iso
from agentvault_tui.home import Home
from agentvault_tui.ledger.state import read_stepup
from agentvault_tui.model import Action, Agent, StepUp, StepUpStatus


async def ask(bench: Bench, agent: Agent, amount: int, action: Action = PAYMENT) -> Any:
    wanted = replace(action, parameters={"amount": amount, "currency": "USD"})
    held = await request_token(
        bench.broker, agent, wanted, resource=None, details=details_of(wanted)
    )
    assert isinstance(held, Escalated), held
    return held.stepup


async def refuse(bench: Bench, agent: Agent, amount: int) -> StepUp:
    """Ask, deny, and wait until the agent may ask again."""
    asked = await ask(bench, agent, amount)
    denied, _ = await deny(bench.broker, asked.id, "no", OPERATOR)
    bench.clock.advance(1000)
    return denied


async def amounts(bench: Bench, stepup: StepUp, query: str = "") -> list[Any]:
    answer = await bench.read(f"/api/agents/stepup/{stepup.id}/before{query}")
    assert answer.status_code == 200, answer.text
    return [each["parameters"]["amount"] for each in answer.json()["stepups"]]


async def test_the_last_five_of_this_agent_and_action(bench: Bench) -> None:
    """Latest first, at most five, of no other agent, action or undecided request."""
    agent, other = await bench.agent("payer"), await bench.agent("other")
    for amount in range(100, 107):
        await refuse(bench, agent, amount)
    await refuse(bench, other, 999)
    first, asked = await ask(bench, agent, 1), await ask(bench, agent, 2)
    assert await amounts(bench, asked) == [106, 105, 104, 103, 102]
    assert await amounts(bench, asked, "?limit=2") == [106, 105]
    await deny(bench.broker, first.id, "", OPERATOR)
    assert (await amounts(bench, asked))[0] == 1


async def test_it_says_how_each_ended_and_when_its_token_was_used(bench: Bench) -> None:
    """Approved, used, denied and expired, each with its times, by whom."""
    agent = await bench.agent("payer")
    server = await bench.agent("bank", "read:calendar", resource_server=True)
    asked = await ask(bench, agent, 1)
    await begin_approval(bench.broker, asked.id, asked.digest, OPERATOR)
    begun = bench.clock.now()
    bench.tenant.approve()
    registry = bench.broker.registry
    await bench.until(lambda: registry.stepups.get(asked.id).status == "approved")
    granted: Any = await poll(bench.broker, agent, asked.id)
    bench.clock.advance(7)
    await introspect(bench.broker, server, granted.access_token)
    used = bench.clock.now()
    await ask(bench, agent, 2)
    bench.clock.advance(400)
    await expire_due(bench.broker)
    latest = await ask(bench, agent, 3)
    answer = await bench.read(f"/api/agents/stepup/{latest.id}/before")
    expired, redeemed = answer.json()["stepups"]
    assert (expired["status"], expired["decided_by"]) == ("expired", None)
    assert redeemed["status"] == "redeemed"
    assert redeemed["decided_by"]["name"] == "alice"
    assert redeemed["begun_at"] == iso(begun)
    assert redeemed["redeemed_at"] == iso(used)


async def test_of_a_decided_request_it_is_what_was_known_then(bench: Bench) -> None:
    """Looking back at a decision shows what had been decided before it, not after."""
    agent = await bench.agent("payer")
    decided = [await refuse(bench, agent, amount) for amount in (1, 2, 3)]
    assert await amounts(bench, decided[1]) == [1]


@pytest.mark.slow
async def test_a_restart_forgets_nothing(tmp_path: Path, clock: ManualClock) -> None:
    """Both calls read what no longer is in memory, however long ago it was."""
    home = Home.locate(tmp_path / "home")
    bench = await Bench.open(home, clock)
    agent = await bench.agent("payer", "send:payment")
    for number in range(60):
        await bench.ledger.commit(
            changes=[
                replace(
                    await _made(bench, agent),
                    id=f"sup_{number}",
                    status=StepUpStatus.DENIED,
                    parameters_json=f'{{"amount":{number}}}',
                    decided_at=clock.now(),
                )
            ]
        )
        clock.advance(1)
    await bench.close()
    bench = await Bench.open(home, clock)
    try:
        gone = await bench.read("/api/agents/stepup/sup_3")
        assert gone.json()["parameters"] == {"amount": 3}
        old = await bench.ledger.read(read_stepup, gone.json()["id"])
        assert old is not None
        assert await amounts(bench, old) == [2, 1, 0]
    finally:
        await bench.close()


async def _made(bench: Bench, agent: Agent) -> StepUp:
    """One step-up to copy from, asked for once."""
    waiting = bench.broker.stepups.open(agent.id)
    made: StepUp = waiting[0] if waiting else await ask(bench, agent, 0)
    return made


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("sup_none/before", 404),
        ("sup_none", 404),
        ("%ED%A0%80", 404),
        ("{id}/before?limit=0", 400),
        ("{id}/before?limit=51", 400),
        ("{id}/before?limit=x", 400),
    ],
)
async def test_bad_questions_are_refused(bench: Bench, path: str, status: int) -> None:
    """An unknown id is 404, a senseless limit 400."""
    asked = await ask(bench, await bench.agent("payer"), 1)
    answer = await bench.read(f"/api/agents/stepup/{path.format(id=asked.id)}")
    assert answer.status_code == status


async def test_decisions_before_are_read_from_one_range_of_an_index(
    bench: Bench,
) -> None:
    """However many step-ups there are, only those it answers with are read."""
    agent = await bench.agent("payer")
    await refuse(bench, agent, 1)
    db = sqlite3.connect(bench.home.database)
    plan = db.execute(
        "EXPLAIN QUERY PLAN SELECT doc FROM stepups WHERE agent_id = ? AND action = ?"
        " AND decided < ? AND id <> ? ORDER BY decided DESC LIMIT ?",
        ("a", "b", "c", "d", 5),
    ).fetchall()
    db.close()
    assert len(plan) == 1
    assert (
        "USING INDEX stepups_by_kind (agent_id=? AND action=? AND decided<?)"
        in (plan[0][3])
    )
