"""A denied agent waits: by its own record, which nothing pushes out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.bench import OPERATOR, Bench
from support.manual_clock import ManualClock
from support.stepups import approve, ask, hold, latched, start

from agentvault_tui.broker import stepups as stepups_module
from agentvault_tui.broker.answers import Denied, Escalated
from agentvault_tui.broker.recovery import recover
from agentvault_tui.broker.stepups import FIRST, LONGEST, Cooldowns
from agentvault_tui.broker.usecases.stepup_end import deny
from agentvault_tui.errors import LedgerUnwritableError
from agentvault_tui.ledger import Attempt, Recovery
from agentvault_tui.model import Agent, AgentId, Draft, Event, EventType

AGENT = AgentId("agt_1")
START = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)


async def denied_once(bench: Bench, name: str = "payer") -> Agent:
    agent, stepup = await hold(bench, name)
    await deny(bench.broker, stepup.id, "no", OPERATOR)
    return agent


async def cools(bench: Bench, agent: Agent) -> bool:
    answer = await ask(bench, agent)
    return isinstance(answer, Denied) and answer.reason == "cooling_down"


async def test_decisions_about_others_do_not_end_a_cool_down(
    bench: Bench, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many others were decided since, and restarted, the denied one waits."""
    monkeypatch.setattr(stepups_module, "KEPT_DECIDED", 1)
    monkeypatch.setattr("agentvault_tui.ledger.state._LATEST", 1)
    agent = await denied_once(bench)
    for number in range(3):
        await denied_once(bench, f"other-{number}")
    clock.advance(FIRST - 1)
    list(bench.broker.registry.sweep())
    assert await cools(bench, agent)
    async with bench.restarted() as again:
        assert await cools(again, agent)
        clock.advance(1)
        answer = await ask(again, agent)
        assert isinstance(answer, Escalated)
        await deny(again.broker, answer.stepup.id, "still no", OPERATOR)
        assert again.broker.stepups.cooldowns.remaining(agent.id) == 2 * FIRST


async def test_an_approval_starts_the_count_anew(
    bench: Bench, clock: ManualClock
) -> None:
    """After a yes the next no costs the first wait again, also after a restart."""
    agent = await denied_once(bench)
    clock.advance(FIRST)
    held = await ask(bench, agent)
    assert isinstance(held, Escalated)
    await approve(bench, held.stepup)
    async with bench.restarted() as again:
        held = await ask(again, agent)
        assert isinstance(held, Escalated)
        await deny(again.broker, held.stepup.id, "no", OPERATOR)
        assert again.broker.stepups.cooldowns.remaining(agent.id) == FIRST


async def test_what_was_not_recorded_never_shortens_a_cool_down(
    bench: Bench, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A denial counts though the ledger refused it, an approval does not."""
    agent = await denied_once(bench)
    clock.advance(FIRST)
    held = await ask(bench, agent)
    assert isinstance(held, Escalated)
    stepup, cooldowns = held.stepup, bench.broker.stepups.cooldowns
    before = cooldowns.of(agent.id)
    with monkeypatch.context() as patch:
        patch.setattr(bench.ledger, "commit", latched)
        await deny(bench.broker, stepup.id, "no", OPERATOR)
    assert cooldowns.of(agent.id).denials == before.denials + 1
    clock.advance(LONGEST)
    held = await ask(bench, agent)
    assert isinstance(held, Escalated)
    stepup, before = held.stepup, cooldowns.of(agent.id)
    commit = bench.ledger.commit

    async def refuses(*drafts: Draft, **more: Any) -> tuple[Event, ...]:
        if drafts and drafts[0].type is EventType.STEPUP_APPROVED:
            raise LedgerUnwritableError("no space left")
        return await commit(*drafts, **more)

    monkeypatch.setattr(bench.ledger, "commit", refuses)
    await start(bench, stepup)
    bench.tenant.approve()
    await bench.until(lambda: stepup.id not in bench.broker.stepups.flows)
    assert cooldowns.of(agent.id).denials == before.denials


async def test_a_denial_found_after_an_outage_is_written_as_memory_has_it(
    bench: Bench, clock: ManualClock
) -> None:
    """Told that it failed, then found on disk: the agent does not wait for it."""
    agent, stepup = await hold(bench)
    waits = Cooldowns(clock).denied(agent.id)
    await bench.ledger.commit(changes=[waits])
    event = (await bench.events())[-1]
    attempt = Attempt((), (stepup, waits))
    await recover(bench.broker, Recovery(True, (attempt,), event))
    assert (await bench.ledger.load()).cooldowns == ()


def test_no_setting_of_the_clock_shortens_or_lengthens_a_wait() -> None:
    """Set forward or back, an agent waits as long as the boot clock says."""
    for jump in (-86_400, 86_400):
        clock = ManualClock(START)
        cooldowns = Cooldowns(clock)
        cooldowns.denied(AGENT)
        clock.jump_wall(jump)
        clock.advance(FIRST - 1)
        assert cooldowns.remaining(AGENT) == 1
        clock.advance(1)
        assert cooldowns.remaining(AGENT) == 0


def test_after_a_reboot_the_wall_clock_counts_within_reason() -> None:
    """Rebooted, the wall clock tells; set back, nobody waits longer than at first."""
    clock = ManualClock(START)
    cooldowns = Cooldowns(clock)
    cooldowns.denied(AGENT)
    clock.advance(10)
    clock.reboot("b1")
    assert cooldowns.remaining(AGENT) == FIRST - 10
    clock.jump_wall(-86_400)
    assert cooldowns.remaining(AGENT) == FIRST


@pytest.mark.slow
@given(st.integers(1, 2000))
def test_a_wait_grows_and_is_bounded(denials: int) -> None:
    """Each denial costs at least as much as the last, never more than the longest."""
    cooldowns = Cooldowns(ManualClock(START))
    waits = []
    for _ in range(denials):
        cooldowns.denied(AGENT)
        waits.append(cooldowns.remaining(AGENT))
    assert waits == sorted(waits)
    assert waits[0] == FIRST
    assert waits[-1] <= LONGEST
    assert cooldowns.of(AGENT).denials == denials
