"""What was cut or spent stays so on disk: another process finds it, and a restore."""

from __future__ import annotations

import pytest
from support.bench import OPERATOR, Bench
from support.stepups import ask, latched, redeemable

from agentvault_tui.broker.answers import Granted
from agentvault_tui.broker.recovery import record_missed
from agentvault_tui.broker.usecases.redeem import introspect
from agentvault_tui.broker.usecases.revoke import (
    lift_panic,
    panic,
    restore_agent,
    revoke_agent,
)
from agentvault_tui.errors import LedgerUnwritableError
from agentvault_tui.model import Action

CALENDAR = Action(scopes=("write:calendar",), action="write:calendar")


@pytest.mark.parametrize("how", ["revoked", "panic"])
async def test_a_restore_brings_no_token_back(bench: Bench, how: str) -> None:
    """Revoked before a restart and let in after it: its old tokens stay dead."""
    agent = await bench.agent("bot")
    server = await bench.agent("api", resource_server=True)
    granted = await ask(bench, agent, CALENDAR)
    assert isinstance(granted, Granted)
    if how == "panic":
        await panic(bench.broker, "drill", OPERATOR)
    else:
        await revoke_agent(bench.broker, agent.id, "drill", OPERATOR)
    async with bench.restarted() as again:
        if how == "panic":
            await lift_panic(again.broker, OPERATOR)
        else:
            await restore_agent(again.broker, agent.id, OPERATOR)
        assert again.broker.registry.serves(agent.id)
        told = await introspect(again.broker, server, granted.access_token)
        assert told.token is None
        assert (await again.ledger.load()).tokens == ()


async def test_an_elevated_token_that_was_spent_unrecorded_stays_spent(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API heard of an error, and may have paid: nobody gets it a second time."""
    _, server, secret = await redeemable(bench)
    with monkeypatch.context() as patch:
        patch.setattr(bench.ledger, "commit", latched)
        with pytest.raises(LedgerUnwritableError):
            await introspect(bench.broker, server, secret)
    await record_missed(bench.broker)
    async with bench.restarted() as again:
        told = await introspect(again.broker, server, secret)
        assert told.token is None
