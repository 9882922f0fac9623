"""A home opens as a copy of the team's store, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.ledger_kit import agent, decision, note
from support.manual_clock import ManualClock
from support.patience import until
from support.postgres import Database
from support.postgres_relay import Relay

from agentvault_tui.errors import LedgerUnwritableError, RefusedError
from agentvault_tui.home import Home
from agentvault_tui.ledger import Ledger


@pytest.fixture
def place(short: Path) -> Home:
    return Home(short / "a", short / "a")


async def test_a_start_without_the_store_reads_and_grants_nothing(
    place: Home, relay: Relay, short: Path, store: Database, clock: ManualClock
) -> None:
    """The copy is there; a home without one cannot start."""
    settings = store.settings_at(short / "relay")
    team = await Ledger.open(place, clock=clock, settings=settings)
    await team.commit(note(), changes=[agent()])
    await team.close()
    relay.away = True
    relay.cut()
    new = Home(short / "new", short / "new")
    with pytest.raises(LedgerUnwritableError, match="no copy of the team's store yet"):
        await Ledger.open(new, clock=clock, settings=settings)
    again = await Ledger.open(place, clock=clock, settings=settings)
    assert not again.writable
    assert (await again.load()).agents == (agent(),)
    with pytest.raises(LedgerUnwritableError):
        again.commit(decision())
    relay.away = False
    await until(lambda: again.writable)
    await again.commit(decision())
    await again.close()


async def test_a_copy_is_no_ledger_of_its_own(
    place: Home, store: Database, clock: ManualClock
) -> None:
    """Without store.url its broker does not start, unless that is said."""
    team = await Ledger.open(place, clock=clock, settings=store.settings)
    await team.commit(note())
    await team.close()
    with pytest.raises(RefusedError, match="the copy of a team's store"):
        await Ledger.open(place, clock=clock)
    alone = await Ledger.open(place, clock=clock, again=True)
    await alone.commit(note())
    await alone.close()
    await (await Ledger.open(place, clock=clock)).close()
