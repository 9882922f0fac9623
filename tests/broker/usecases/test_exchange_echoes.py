"""A tenant that quotes what it was shown gives none of it to agent or record."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from support.bench import Bench
from support.rogue_tenant import TOKEN, Answer, Request, rogue_tenant
from support.token_vault import REFRESH, Vaulted, exchange, vaulted


@pytest.fixture
async def vault(bench: Bench) -> AsyncIterator[Vaulted]:
    async with rogue_tenant() as tenant, vaulted(bench, tenant) as vault:
        yield vault


@pytest.mark.parametrize("member", ["error", "error_description"])
async def test_a_refusal_that_quotes_secrets_hands_none_on(
    vault: Vaulted, caplog: pytest.LogCaptureFixture, member: str
) -> None:
    """Not to the agent, whose vault user and client they are, nor to ledger and log."""
    caplog.set_level("DEBUG")
    agent = await vault.connected("bot")

    def quotes(request: Request) -> Answer:
        shown = f"{request.form['subject_token']} {request.form['client_secret']}"
        return Answer({"error": "odd", member: shown}, 400)

    vault.auth0.script(TOKEN, quotes)
    answer = await exchange(agent)
    assert answer.status_code == 403
    assert "hidden" in answer.text
    told = [(event.reason, event.detail) for event in await vault.bench.events()]
    everywhere = f"{answer.text} {told} {caplog.text}"
    assert "hidden" in str(told)
    assert REFRESH not in everywhere
    assert "secret-of-bot" not in everywhere


async def test_a_fault_of_ours_tells_an_agent_nothing_of_this_machine(
    vault: Vaulted, caplog: pytest.LogCaptureFixture
) -> None:
    """Which file cannot be read is for the log: an agent is to ask again."""
    agent = await vault.connected("bot")
    vault.bench.home.vault_users.write_text("no JSON")
    answer = await exchange(agent)
    assert answer.status_code == 503
    told = [(event.reason, event.detail) for event in await vault.bench.events()]
    where = str(vault.bench.home.data)
    assert where not in f"{answer.text} {told}"
    assert where in caplog.text
