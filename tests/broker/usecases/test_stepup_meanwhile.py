"""What happens while a record is being written is not undone by what it records."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.bench import OPERATOR, Bench
from support.stepups import Gate, hold, latched

from agentvault_tui.broker.usecases.revoke import (
    lift_panic,
    panic,
    restore_agent,
    revoke_agent,
)
from agentvault_tui.broker.usecases.scopes import change_scopes, change_served
from agentvault_tui.broker.usecases.stepup_end import deny
from agentvault_tui.errors import ConflictError, LedgerUnwritableError
from agentvault_tui.model import AgentStatus, EventType, StepUpStatus

NONE: frozenset[str] = frozenset()


async def test_a_stop_while_a_lift_is_recorded_holds(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who lifts hears of it, nothing is served, and the chain's last word is so."""
    agent = await bench.agent()
    await panic(bench.broker, "first", OPERATOR)
    gate = Gate(bench, monkeypatch, EventType.PANIC_OFF)
    lifting = asyncio.create_task(lift_panic(bench.broker, OPERATOR))
    await gate.reached.wait()
    await panic(bench.broker, "again", OPERATOR)
    gate.open.set()
    with pytest.raises(ConflictError):
        await lifting
    assert not bench.broker.registry.serves(agent.id)
    told = [event.type.value for event in await bench.events()]
    assert told[-1] == "panic.on"
    loaded = await bench.ledger.load()
    assert loaded.panic is not None


async def test_nothing_is_given_beside_a_cut_that_is_not_on_disk(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cut's late record would take back what was written before it."""
    agent = await bench.agent("bot", "write:calendar")
    commit, tries = bench.ledger.commit, 0

    async def once_latched(*drafts: Any, **more: Any) -> Any:
        nonlocal tries
        tries += 1
        return await (latched if tries == 1 else commit)(*drafts, **more)

    monkeypatch.setattr(bench.ledger, "commit", once_latched)
    grant, ungrant = frozenset({"read:calendar"}), frozenset({"write:calendar"})
    with pytest.raises(LedgerUnwritableError):
        await change_scopes(bench.broker, agent.id, grant, ungrant, OPERATOR)
    assert bench.broker.registry.agent(agent.id).scopes == ()


async def test_changes_of_one_agent_at_once_are_all_made(bench: Bench) -> None:
    """None writes over another's, in memory or on disk: each writes the whole row."""
    agent = await bench.agent("bot", "write:calendar", resource_server=True)
    await revoke_agent(bench.broker, agent.id, "", OPERATOR)
    await asyncio.gather(
        *(
            change_scopes(bench.broker, agent.id, frozenset({one}), NONE, OPERATOR)
            for one in ("read:calendar", "send:payment")
        ),
        restore_agent(bench.broker, agent.id, OPERATOR),
        change_served(bench.broker, agent.id, ["send:payment"], [], OPERATOR),
    )
    changed = bench.broker.registry.agent(agent.id)
    assert changed.scopes == ("read:calendar", "send:payment", "write:calendar")
    assert changed.serves == ("send:payment",)
    assert changed.status is AgentStatus.ACTIVE
    assert (await bench.ledger.load()).agents == (changed,)


async def test_a_denial_is_in_force_before_its_record(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Revoked while the denial is being recorded, the step-up is and stays denied."""
    agent, stepup = await hold(bench)
    gate = Gate(bench, monkeypatch, EventType.STEPUP_DENIED)
    denying = asyncio.create_task(deny(bench.broker, stepup.id, "no", OPERATOR))
    await gate.reached.wait()
    registry = bench.broker.registry
    assert registry.stepups.get(stepup.id).status is StepUpStatus.DENIED
    await revoke_agent(bench.broker, agent.id, "", OPERATOR)
    gate.open.set()
    denied, _ = await denying
    assert denied.status is StepUpStatus.DENIED
    assert registry.stepups.get(stepup.id).status is StepUpStatus.DENIED
