"""Who waits while an operator cuts an agent off, and who does not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.agents_http import Live
from support.bench import OPERATOR

from agentvault_tui.broker.usecases.revoke import panic, revoke_agent


@pytest.mark.parametrize("everything", [False, True])
async def test_granting_waits_while_a_revocation_is_recorded(
    live: Live, monkeypatch: pytest.MonkeyPatch, *, everything: bool
) -> None:
    """No token is decided on meanwhile; introspection answers, and says inactive."""
    victim, other = await live.caller("victim"), await live.caller("other")
    door = await live.caller("door", resource_server=True)
    token = (await victim.token()).json()["access_token"]
    broker, may_write = live.bench.broker, asyncio.Event()
    commit = broker.ledger.commit

    async def slowly(*drafts: Any, **more: Any) -> Any:
        await may_write.wait()
        return await commit(*drafts, **more)

    monkeypatch.setattr(broker.ledger, "commit", slowly)
    monkeypatch.setattr("agentvault_tui.broker.core._CUT_WAIT", 60)
    cutting = asyncio.create_task(
        panic(broker, "", OPERATOR)
        if everything
        else revoke_agent(broker, victim.agent.id, "", OPERATOR)
    )
    asking = asyncio.create_task(other.token())
    for _ in range(20):  # time enough for the request to have been decided on
        assert await door.introspect(token) == {"active": False}
    assert broker.registry.last_seen(other.agent.id) is None
    may_write.set()
    assert (await cutting).recorded
    assert (await asking).status_code == (403 if everything else 200)
