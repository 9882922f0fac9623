"""Policy texts by version: kept once, read back, and compared with their events."""

from __future__ import annotations

import sqlite3

import pytest
from support.bench import Bench

from agentvault_tui.broker.usecases.policy_change import reload_policy
from agentvault_tui.errors import LedgerDamagedError, NotFoundError
from agentvault_tui.ledger import verify_ledger
from agentvault_tui.ledger.texts import read_texts
from agentvault_tui.model import Actor, ActorKind, Draft, EventType
from agentvault_tui.policy import shipped_policy

NARROW = (
    shipped_policy()
    + '\n@id("no-mail") @why("None.")\nforbid (\
principal, action == Action::"send:email", resource);\n'
)
OLD = Actor(ActorKind.SYSTEM, "broker", "broker")


async def change(bench: Bench, text: str) -> str:
    """Put *text* in force; return its version."""
    bench.home.policy_file.write_text(text)
    await reload_policy(bench.broker)
    return bench.broker.deciding.policy.version


async def test_every_policy_that_was_in_force_is_read_back(bench: Bench) -> None:
    """The shipped one and each file after it are there under their versions."""
    shipped, narrow = await bench.record_start(), await change(bench, NARROW)
    assert shipped != narrow
    assert (await bench.ledger.read(read_texts, shipped))["policy"] == shipped_policy()
    found = await bench.ledger.read(read_texts, narrow)
    assert found["policy"] == NARROW
    assert '[scopes."send:email"]' in found["scopes"]
    # The catalogue is the same text twice, and is there once.
    db = sqlite3.connect(bench.home.database)
    assert db.execute("SELECT count(*) FROM texts").fetchone() == (3,)
    db.close()
    assert verify_ledger(bench.home).ok


async def test_versions_from_before_texts_were_kept_are_told_as_such(
    bench: Bench,
) -> None:
    """An old start names no texts; another version was never in force."""
    detail = {"policy_version": "0123456789ab", "policy_sha256": "00"}
    await bench.ledger.commit(Draft(EventType.BROKER_STARTED, OLD, detail=detail))
    with pytest.raises(NotFoundError, match="before AgentVault kept them"):
        await bench.ledger.read(read_texts, "0123456789ab")
    with pytest.raises(NotFoundError, match="no policy of version nonsense"):
        await bench.ledger.read(read_texts, "nonsense")


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("UPDATE texts SET text = text || ' '", "not one that an event names"),
        ("DELETE FROM texts", "gone though its event is there"),
        ("INSERT INTO texts VALUES ('ab', 'x', 1)", "not one that an event names"),
    ],
)
async def test_a_changed_text_is_found(bench: Bench, sql: str, told: str) -> None:
    """A text that is changed, gone or added by hand fails verification."""
    version = await bench.record_start()
    db = sqlite3.connect(bench.home.database)
    db.execute(sql)
    db.commit()
    db.close()
    found = verify_ledger(bench.home)
    assert not found.ok
    assert told in str(found.problem)
    if not sql.startswith("INSERT"):
        with pytest.raises(LedgerDamagedError, match="gone or changed"):
            await bench.ledger.read(read_texts, version)
