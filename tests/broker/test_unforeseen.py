"""Faults nobody foresaw, at the operators' door."""

from __future__ import annotations

import logging
import sqlite3

import httpx
import pytest
from support.bench import Bench

from agentvault_tui.broker.operators_api import operators_app


async def read(bench: Bench, path: str) -> httpx.Response:
    transport = httpx.ASGITransport(operators_app(bench.broker, bench.feed))
    async with httpx.AsyncClient(transport=transport, base_url="http://b") as client:
        return await client.get(path)


async def test_a_fault_of_ours_is_a_problem_document_and_logged_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer follows RFC 9457 and tells no detail; the log has the traceback."""

    async def broken(*_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(bench.ledger, "events", broken)
    with caplog.at_level(logging.ERROR):
        answer = await read(bench, "/api/audit")
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
    answer = await read(bench, "/api/audit")
    assert answer.status_code == 500
    assert answer.json()["error"] == "LedgerDamagedError"
    assert answer.json()["detail"]
