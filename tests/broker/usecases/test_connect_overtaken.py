"""A flow that connects an account ends once its basis has changed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import product
from typing import Final

import pytest
from support.agents_http import Live
from support.bench import OPERATOR
from support.connecting import WORKSPACE, Office, caller

from agentvault_tui.broker.riders import Rider, record_of, ride
from agentvault_tui.broker.usecases.disconnect import disconnect
from agentvault_tui.broker.usecases.revoke import lift_panic, panic, restore_agent
from agentvault_tui.broker.vault_access import Flow
from agentvault_tui.errors import ConflictError, NotFoundError
from agentvault_tui.model import Account, Agent

APPROVER: Final = "agentvault|ann"
OTHER: Final = "agentvault|other"


async def revoked(office: Office, agent: Agent) -> None:
    await office.revoke(agent)
    await restore_agent(office.broker, agent.id, OPERATOR)


async def stopped(office: Office, _: Agent) -> None:
    await panic(office.broker, "stop", OPERATOR)
    await lift_panic(office.broker, OPERATOR)


async def disconnected(office: Office, agent: Agent) -> None:
    await disconnect(office.broker, agent.id, WORKSPACE, OPERATOR, shared=False)


async def without_approver(office: Office, _: Agent) -> None:
    now = office.broker.clock.now()
    office.broker.reaching.people.note(APPROVER, "removed", now)


CASES: Final = [
    *product([revoked, stopped, without_approver], [0, 1]),
    # With an account, the person is signed in: only the second page is left.
    (disconnected, 0),
]
"""Each end, and how many pages are answered before it."""


async def approved(office: Office, agent: Agent) -> Flow:
    """Begin a flow as the change that two people have approved carries it out."""
    by = [{"sub": one} for one in (OTHER, APPROVER)]
    detail = record_of(["connections"], "connect", (), None, proof="factor", by=by)
    with ride(Rider(OPERATOR, detail)):
        return await office.begin(agent, "calendar.read")


@pytest.mark.slow
@pytest.mark.parametrize(("end", "pages"), CASES)
async def test_an_approved_flow_ends_with_its_basis(
    office: Office,
    live: Live,
    end: Callable[[Office, Agent], Awaitable[None]],
    pages: int,
) -> None:
    """At each page: nothing is connected after the end, though that was undone."""
    agent, person = (await caller(live)).agent, office.person()
    if end is disconnected:
        await office.connect(agent, person, "calendar.read")
    flow = await approved(office, agent)
    for _ in range(pages):
        reached = await office.proceed(flow, await office.visit(flow, person))
        assert isinstance(reached, Flow)
        flow = reached
    address = await office.visit(flow, person)
    await end(office, agent)
    with pytest.raises(ConflictError, match="changed meanwhile"):
        await office.proceed(flow, address)
    with pytest.raises(NotFoundError):
        await office.proceed(flow, address)
    assert office.broker.registry.accounts.of(agent.id) == ()


@pytest.mark.slow
async def test_a_flow_goes_on_if_another_person_or_agent_changes(
    office: Office, live: Live
) -> None:
    """A revocation of another agent and another person's password end no flow."""
    agent, other = (await caller(live)).agent, (await caller(live)).agent
    person = office.person()
    flow = await approved(office, agent)
    await office.revoke(other)
    now = office.broker.clock.now()
    office.broker.reaching.people.note("agentvault|vic", "password", now)
    reached: Flow | Account = flow
    while isinstance(reached, Flow):
        reached = await office.proceed(reached, await office.visit(reached, person))
    assert office.broker.registry.accounts.of(agent.id) == (reached,)


async def test_ended_flows_take_no_place(office: Office, live: Live) -> None:
    """After a panic, the flows of before do not count among those under way."""
    agent = (await caller(live)).agent
    for _ in range(32):
        await office.begin(agent)
    with pytest.raises(ConflictError, match="32 connections"):
        await office.begin(agent)
    await stopped(office, agent)
    assert await office.begin(agent)
