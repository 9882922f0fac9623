"""Agents wait while an operator cuts one off."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.agents_http import Live
from support.bench import OPERATOR

from agentvault_tui.broker.usecases.revoke import panic, revoke_agent


@pytest.mark.parametrize("everything", [False, True])
async def test_nothing_begins_while_a_revocation_is_recorded(
    live: Live, monkeypatch: pytest.MonkeyPatch, *, everything: bool
) -> None:
    """No request is looked at meanwhile, whoever sends it: the record goes first."""
    victim, other = await live.caller("victim"), await live.caller("other")
    door = await live.caller("door", resource_server=True)
    token = (await victim.token()).json()["access_token"]
    broker, may_write = live.bench.broker, asyncio.Event()
    commit = broker.ledger.commit

    async def slowly(*drafts: Any, **more: Any) -> Any:
        await may_write.wait()
        return await commit(*drafts, **more)

    monkeypatch.setattr(broker.ledger, "commit", slowly)
    monkeypatch.setattr("agentvault_tui.broker.cuts._LEDGER_WAIT", 60)
    cutting = asyncio.create_task(
        panic(broker, "", OPERATOR)
        if everything
        else revoke_agent(broker, victim.agent.id, "", OPERATOR)
    )
    await asyncio.sleep(0)
    asking = [
        asyncio.create_task(other.token()),
        asyncio.create_task(live.http.post("/oauth/introspect", json={})),
        asyncio.create_task(live.http.get("/healthz")),
    ]
    looking = asyncio.create_task(door.introspect(token))
    await live.bench.until(
        lambda: (
            broker.admitting.requests.waiting == 1
            and broker.admitting.others.waiting == 3
        )
    )
    may_write.set()
    assert (await cutting).recorded
    assert await looking == {"active": False}
    statuses = [answer.status_code for answer in await asyncio.gather(*asking)]
    assert statuses == [403 if everything else 200, 401, 200]
