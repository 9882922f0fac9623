"""Copies of a store: whole or unusable, and never two ledgers that both serve."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import pytest
from support.bench import OPERATOR
from support.ledger_kit import agent, manual_clock, note
from support.postgres import TEAM, Database
from support.postgres_relay import Relay

from agentvault_tui.errors import LedgerError, RefusedError
from agentvault_tui.home import Home
from agentvault_tui.ledger import CutJournal, Ledger
from agentvault_tui.ledger.store_copying import copy_to_home, copy_to_store
from agentvault_tui.settings import Settings
from agentvault_tui.store_connection import Connector

CLOCK = manual_clock()


@pytest.fixture
async def home(short: Path) -> Home:
    """A home with a ledger of its own."""
    home = Home(short / "home", short / "home")
    home.prepare()
    ledger = await Ledger.open(home, clock=CLOCK)
    await ledger.commit(note(), changes=[agent()])
    await ledger.close()
    return home


async def serves(home: Home, settings: Settings | None = None) -> bool:
    """Tell whether a broker that opens it would grant."""
    try:
        ledger = await Ledger.open(home, clock=CLOCK, settings=settings)
    except RefusedError:
        return False
    try:
        return ledger.writable
    finally:
        await ledger.close()


@pytest.mark.parametrize("lose", ["request", "answer"])
@pytest.mark.parametrize(
    "word", [b"SET ledger", b"COMMIT", b"agentvault.append", b"SET fault"]
)
async def test_a_copy_that_breaks_off_leaves_no_two_ledgers_that_serve(
    *,
    home: Home,
    short: Path,
    store: Database,
    relay: Relay,
    word: bytes,
    lose: Literal["request", "answer"],
) -> None:
    """Whichever statement the connection dies at, before or after the server ran it."""
    relay.word, relay.lose = word, lose
    url = store.url_at(short / "relay")
    with pytest.raises((LedgerError, RefusedError)):
        await copy_to_store(home, Connector(url, TEAM), url, OPERATOR)
    team = Home(short / "team", short / "team")
    team.prepare()
    there = await serves(team, store.settings)
    assert not (await serves(home) and there and await _filled(store))


async def _filled(store: Database) -> bool:
    return store.run("SELECT revision FROM agentvault.head") != [(0,)]


async def test_a_refused_copy_changes_nothing_in_the_target(
    home: Home, short: Path, store: Database
) -> None:
    """People and signing keys go there after all that could refuse it."""
    asked = list[str]()
    connector = Connector(store.url, TEAM)
    people = lambda: asked.append("people")  # noqa: E731
    store.run("UPDATE agentvault.head SET revision = 7")
    with pytest.raises(RefusedError, match="not empty"):
        await copy_to_store(home, connector, "there", OPERATOR, copy_tenant=people)
    assert asked == []
    assert await serves(home)
    store.run("UPDATE agentvault.head SET revision = 0")
    with pytest.raises(RefusedError, match="is there"):
        await copy_to_home(connector, home, OPERATOR, CLOCK, copy_tenant=people)
    assert asked == []
    await copy_to_store(home, connector, "there", OPERATOR, copy_tenant=people)
    assert asked == ["people"]
    assert json.loads(home.copied_file.read_bytes())["to"] == "there"


async def test_a_store_copied_back_has_a_journal_of_its_own(
    home: Home, short: Path, store: Database
) -> None:
    """Else the chain, which tells of one, would have the next start stop everything."""
    connector = Connector(store.url, TEAM)
    await copy_to_store(home, connector, "there", OPERATOR)
    back = Home(short / "back", short / "back")
    back.prepare()
    await copy_to_home(connector, back, OPERATOR, CLOCK)
    ledger = await Ledger.open(back, clock=CLOCK)
    ledger_id = ledger.ledger_id
    await ledger.close()
    journal = CutJournal.open(back, ledger_id, expected=True, fresh=False)
    assert journal.problem is None
