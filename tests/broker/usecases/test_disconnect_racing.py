"""An account is taken away and connected anew at once: what is new stays whole."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.agents_http import Live
from support.bench import OPERATOR
from support.connecting import WORKSPACE, Office, caller
from support.stepups import Gate
from support.tenant_admin import Person
from support.token_vault import exchange

from agentvault_tui.broker.usecases import disconnect as disconnecting
from agentvault_tui.broker.usecases.disconnect import Removed, disconnect
from agentvault_tui.errors import ConflictError
from agentvault_tui.model import Account, Agent, EventType


class Held:
    """A call of the use-case's that has come back, and is not told of it yet."""

    def __init__(self, call: Callable[..., Awaitable[Any]]) -> None:
        self._call = call
        self.done, self.go_on = asyncio.Event(), asyncio.Event()

    async def __call__(self, *args: Any) -> Any:
        answer = await self._call(*args)
        self.done.set()
        await self.go_on.wait()
        return answer


async def overtaken(
    office: Office,
    agent: Agent,
    person: Person,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
) -> Removed:
    """Remove the account, and connect it anew while *call* is under way."""
    held = Held(getattr(disconnecting, call))
    monkeypatch.setattr(disconnecting, call, held)
    removing = asyncio.create_task(
        disconnect(office.broker, agent.id, WORKSPACE, OPERATOR, shared=False)
    )
    await held.done.wait()
    await office.connect(agent, person, "calendar.read")
    held.go_on.set()
    return await removing


@pytest.mark.slow
@pytest.mark.parametrize("call", ["_delete", "revoke_token"])
async def test_an_account_connected_while_another_is_removed_stays(
    office: Office, live: Live, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Here, on disk, and with the vault user that uses it: else nobody could end it."""
    agent = await caller(live)
    person = office.person()
    old = await office.connect(agent.agent, person, "calendar.read")
    removed = await overtaken(office, agent.agent, person, monkeypatch, call)
    assert removed.account.id == old.id
    (new,) = office.broker.registry.accounts.of(agent.agent.id)
    assert new.id != old.id
    assert (await office.bench.ledger.load()).accounts == (new,)
    assert office.broker.reaching.vault.users.of(agent.agent.id) is not None
    assert (await exchange(agent, WORKSPACE)).status_code == 200


@pytest.mark.slow
async def test_a_consent_that_outlives_its_sign_in_connects_nothing(
    office: Office, live: Live
) -> None:
    """With the last account its vault user went: an account of theirs would be dead."""
    agent, person = await caller(live), office.person()
    await office.connect(agent.agent, person, "calendar.read")
    flow = await office.begin(agent.agent)
    address = await office.visit(flow, person)
    await disconnect(office.broker, agent.agent.id, WORKSPACE, OPERATOR, shared=False)
    with pytest.raises(ConflictError, match="changed meanwhile"):
        await office.proceed(flow, address)
    assert office.broker.registry.accounts.of(agent.agent.id) == ()
    assert await office.connect(agent.agent, person, "calendar.read")


@pytest.mark.slow
async def test_a_token_overtaken_while_it_is_recorded_is_revoked_at_the_provider(
    office: Office, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody was given it, and it works there: so it is shown to be revoked."""
    agent, made = await caller(live), []
    await office.connect(agent.agent, office.person(), "calendar.read")
    ask = office.broker.reaching.vault.exchange

    async def asked(account: Account) -> Any:
        made.append(await ask(account))
        return made[-1]

    monkeypatch.setattr(office.broker.reaching.vault, "exchange", asked)
    gate = Gate(office.bench, monkeypatch, EventType.TOKEN_EXCHANGED)
    exchanging = asyncio.create_task(exchange(agent, WORKSPACE))
    await gate.reached.wait()
    await office.revoke(agent.agent)
    gate.open.set()
    assert (await exchanging).status_code == 403
    # The vault gives no other one for it: the agent's client is gone, say.
    office.broker.reaching.vault.users.forget(agent.agent.id)
    await office.work()
    assert office.step(agent.agent).status == "confirmed"
    assert office.provider_says(made[0].access_token.reveal())["active"] is False
