"""The first minute: a runaway, a payment, a bulk send, two that reach too far."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from agentvault_tui.demo.agents import ExampleAgent
from agentvault_tui.demo.cast import (
    ROLES,
    booking,
    bulk_mail,
    deletion,
    lookup,
    mail,
    payment,
)

_FIRST_INVOICE: Final = 1881
_EPISODE: Final = 75.0
"""Seconds from one unusual thing to the next, once the first minute is over."""
_LOOKUP: Final = 12.0
"""Seconds from one look into the owner's address book to the next."""


async def tell(agents: Sequence[ExampleAgent]) -> None:
    """Play the first minute with the six named roles, then an episode now and then."""
    cast = {agent.name: agent for agent in agents}
    async with asyncio.TaskGroup() as scenes:
        for scene in (
            _records_agent_reaches_too_far(cast.get("records-agent")),
            _payment_over_the_limit(cast.get("payments-agent")),
            _calendar_agent_runs_away(cast.get("calendar-agent")),
            _bulk_send(cast.get("email-agent")),
            _research_agent_wants_to_write(cast.get("research-agent")),
        ):
            scenes.create_task(scene)
        for role in ROLES:
            if role.connection and (agent := cast.get(role.name)):
                scenes.create_task(_looks_people_up(agent))


async def _looks_people_up(agent: ExampleAgent) -> None:
    """Use the owner's account at a provider now and then, once it is connected."""
    if not await agent.connected():
        return
    while not agent.stopping:
        await agent.run(lookup(agent.random))
        await agent.rest(_LOOKUP * agent.random.uniform(0.7, 1.6))


async def _records_agent_reaches_too_far(agent: ExampleAgent | None) -> None:
    """Ask for a deletion that was never granted, and again: it hopes."""
    if agent is None:
        return
    await agent.rest(2.0)
    for pause in (4.0, 8.0, 30.0):
        await agent.run(deletion(88))
        await agent.rest(pause)
    while await _another_episode(agent):
        await agent.run(deletion(agent.random.randint(1, 200)))


async def _payment_over_the_limit(agent: ExampleAgent | None) -> None:
    """Ask to pay 4,200 USD; a person decides. Later invoices come, one at a time."""
    if agent is None:
        return
    await agent.rest(4.0)
    invoice = _FIRST_INVOICE
    await agent.run(payment(invoice, 4_200))
    while await _another_episode(agent):
        if agent.waiting == 0:
            invoice += 1
            await agent.run(payment(invoice, agent.random.randint(2, 90) * 100))


async def _calendar_agent_runs_away(agent: ExampleAgent | None) -> None:
    """Book meeting after meeting: each allowed, and too many of them."""
    if agent is None:
        return
    await agent.rest(6.0)
    await _burst(agent, 40)
    while await _another_episode(agent):
        await _burst(agent, agent.random.randint(20, 40))


async def _burst(agent: ExampleAgent, meetings: int) -> None:
    for _ in range(meetings):
        await agent.run(booking(agent.random))
        await agent.rest(0.25)


async def _bulk_send(agent: ExampleAgent | None) -> None:
    """Write to 500 customers at once: escalated, beside mails to a few, allowed."""
    if agent is None:
        return
    await agent.rest(9.0)
    await agent.run(bulk_mail())
    while await _another_episode(agent):
        if agent.waiting == 0:
            await agent.run(bulk_mail())


async def _research_agent_wants_to_write(agent: ExampleAgent | None) -> None:
    """Ask to send mail, which it may not."""
    if agent is None:
        return
    await agent.rest(12.0)
    await agent.run(mail(agent.random))
    while await _another_episode(agent):
        await agent.run(mail(agent.random))


async def _another_episode(agent: ExampleAgent) -> bool:
    """Wait for the next unusual thing; False when the whole is stopping."""
    await agent.rest(_EPISODE * agent.random.uniform(0.7, 1.6))
    return not agent.stopping
