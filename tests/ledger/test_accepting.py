"""Going on from a ledger that is not the last one seen: explicit, and recorded."""

from __future__ import annotations

import pytest
from support.bench import OPERATOR, Bench
from support.ledger_kit import SYSTEM, fill, tamper
from support.manual_clock import ManualClock
from support.stepups import hold

from agentvault_tui.broker.usecases.revoke import panic
from agentvault_tui.clock import Deadline, iso
from agentvault_tui.errors import LedgerDamagedError
from agentvault_tui.home import Home
from agentvault_tui.ledger import Cooldown, Ledger, accept_rollback, verify_ledger
from agentvault_tui.model import Account, Draft, EventType


async def test_accepting_a_rollback_is_explicit_and_on_the_record(
    home: Home, clock: ManualClock
) -> None:
    """After accepting, the ledger opens, verifies, and says who accepted what."""
    await fill(home, clock)
    tamper(
        home,
        "DELETE FROM events WHERE seq > 3",
        "UPDATE tally SET events = 3",
        "UPDATE activity SET events = 3",
    )
    event = await accept_rollback(home, clock=clock, actor=SYSTEM, reason="restored")
    assert (event.seq, event.type) == (4, EventType.AUDIT_AMBIGUOUS)
    assert event.actor == SYSTEM
    assert event.detail["reason"] == "restored"
    assert event.detail["found"]["seq"] == 3
    assert event.detail["expected"]["seq"] == 5
    assert verify_ledger(home).ok
    ledger = await Ledger.open(home, clock=clock)
    assert ledger.head.hash == event.hash
    await ledger.close()


async def test_accepting_does_not_accept_a_broken_chain(
    home: Home, clock: ManualClock
) -> None:
    """What is broken stays refused, also when someone accepts it."""
    await fill(home, clock)
    tamper(home, "UPDATE events SET body = body || ' ' WHERE seq = 4")
    with pytest.raises(LedgerDamagedError):
        await accept_rollback(home, clock=clock, actor=SYSTEM, reason="x")


async def test_accepting_puts_columns_right_by_the_bodies(
    home: Home, clock: ManualClock
) -> None:
    """The chain covers the bodies, so what stands beside them follows from them."""
    await fill(home, clock)
    tamper(home, "UPDATE events SET outcome = 'denied', text = 'x' WHERE seq > 3")
    assert not verify_ledger(home).ok
    event = await accept_rollback(home, clock=clock, actor=SYSTEM, reason="mended")
    assert event.detail["columns"] == 2
    assert verify_ledger(home).ok


async def test_accepting_records_rows_that_are_gone(
    home: Home, clock: ManualClock
) -> None:
    """An agent, a step-up and an account that were removed are a fault no more."""
    bench = await Bench.open(home, clock)
    agent, stepup = await hold(bench)
    account = Account(agent.id, "google", "cac_1", "i", "u", "n", (), clock.now())
    await bench.broker.record(changes=[account])
    await bench.close()
    tamper(
        home,
        f"DELETE FROM agents WHERE id = '{agent.id}'",
        f"DELETE FROM stepups WHERE id = '{stepup.id}'",
        "DELETE FROM meta WHERE key LIKE 'account:%'",
    )
    assert "is gone" in (verify_ledger(home).problem or "")
    event = await accept_rollback(home, clock=clock, actor=SYSTEM, reason="I know")
    key = f"account:{agent.id} google"
    assert event.detail["gone"] == sorted([agent.id, stepup.id, key])
    found = verify_ledger(home, now=clock.now())
    assert (found.ok, found.problem) == (True, None)
    bench = await Bench.open(home, clock)
    assert bench.broker.registry.agents() == []
    await bench.broker.record(changes=[account])
    await bench.close()
    assert verify_ledger(home, now=clock.now()).ok


async def test_accepting_hides_no_row_that_a_start_puts_right(
    home: Home, clock: ManualClock
) -> None:
    """A panic, a wait after a denial and a step at the tenant are still in force."""
    bench = await Bench.open(home, clock)
    agent = await bench.agent("cut")
    until = Deadline.after(clock, 600)
    denied = Draft(
        EventType.STEPUP_DENIED,
        SYSTEM,
        agent_id=agent.id,
        detail={"denials": 2, "cooling_until": iso(until.wall)},
    )
    await bench.ledger.commit(denied, changes=[Cooldown(agent.id, 2, until)])
    await panic(bench.broker, "", OPERATOR)
    await bench.close()
    tamper(home, "DELETE FROM meta WHERE key = 'panic' OR key LIKE 'cooldown:%'")
    event = await accept_rollback(home, clock=clock, actor=SYSTEM, reason="I know")
    assert "gone" not in event.detail
    bench = await Bench.open(home, clock)
    assert bench.broker.registry.revocations.panic is not None
    assert bench.broker.stepups.cooldowns.remaining(agent.id) > 0
    await bench.close()
    assert verify_ledger(home, now=clock.now()).ok
