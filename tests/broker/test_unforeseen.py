"""Faults nobody foresaw, at the operators' door."""

from __future__ import annotations

import logging
import sqlite3

import pytest
from support.bench import OPERATOR, Bench
from support.stepups import hold, start

from agentvault_tui.broker.authority import Sessions


async def test_a_fault_of_ours_is_a_problem_document_and_logged_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer follows RFC 9457 and tells no detail; the log has the traceback."""

    async def broken(*_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(bench.ledger, "events", broken)
    with caplog.at_level(logging.ERROR):
        answer = await bench.read("/api/audit")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == 500
    assert "secret" not in answer.text
    assert len(caplog.records) == 1
    assert caplog.records[0].exc_info


async def test_damage_is_a_problem_document_that_says_so(bench: Bench) -> None:
    """A hash that is text is damage of the ledger, with a remedy."""
    await bench.agent()
    db = sqlite3.connect(bench.home.database)
    db.execute("DROP TRIGGER events_are_not_changed")
    db.execute("UPDATE events SET hash = 'text'")
    db.commit()
    db.close()
    answer = await bench.read("/api/audit")
    assert answer.status_code == 500
    assert answer.json()["error"] == "LedgerDamagedError"
    assert answer.json()["title"] == "Internal Server Error"
    assert answer.json()["detail"]
    assert answer.json()["remedy"]


async def test_an_approval_that_breaks_waits_again_with_a_word(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is granted, nobody waits for a dead flow, and the log has why."""

    async def broken(*_: object, **__: object) -> None:
        raise UnicodeEncodeError("utf-8", "secret detail", 0, 1, "no")

    monkeypatch.setattr(bench.tenant, "verify_id_token", broken)
    _, stepup = await hold(bench)
    await start(bench, stepup)
    bench.tenant.approve()
    registry = bench.broker.registry
    await bench.until(lambda: registry.stepups.get(stepup.id).status.value == "pending")
    problem = registry.stepups.get(stepup.id).problem
    assert problem == "this is our fault, see the log (UnicodeEncodeError)"
    assert registry.elevated(stepup.id) is None
    assert len([one for one in caplog.records if one.exc_info]) == 1
    await start(bench, stepup)  # and another try begins another flow
    assert len(bench.tenant.flows) == 2


async def test_a_sign_in_that_breaks_says_so(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever signs in is told, and is not signed in."""

    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(bench.tenant, "verify_id_token", broken)
    sessions = Sessions(bench.broker)
    await sessions.login(OPERATOR)
    bench.tenant.approve()
    await bench.until(lambda: not sessions.pending(OPERATOR.id))
    problem = sessions.problem(OPERATOR.id)
    assert problem == "this is our fault, see the log (RuntimeError)"
    assert sessions.of(OPERATOR.id) is None


@pytest.mark.parametrize("path", ["/api/agents/agt_nobody", "/api/nothing"])
async def test_the_title_of_a_refusal_is_its_status_and_the_detail_says_why(
    bench: Bench, path: str
) -> None:
    """With the type about:blank RFC 9457 section 4.2.1 leaves the title no choice."""
    told = (await bench.read(path)).json()
    assert (told["type"], told["status"]) == ("about:blank", 404)
    assert told["title"] == "Not Found"
    assert told["detail"]
