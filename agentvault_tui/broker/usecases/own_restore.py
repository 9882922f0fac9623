"""Which agent an operator elsewhere may restore without an approver's factor."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.usecases.revoke import TEMPLATE_REVOKED
from agentvault_tui.errors import RefusedError
from agentvault_tui.ledger import EventQuery
from agentvault_tui.model import Actor, Agent, AgentId, Event, EventType

OWN: Final = timedelta(minutes=10)
"""How long an operator elsewhere may restore an agent that they revoked themselves."""
_REVOKED_AT_MOST: Final = 100


async def check_own(broker: Broker, operator: Actor, agent: Agent) -> None:
    """Refuse to restore *agent* unless *operator* alone revoked it, and just now.

    Args:
        broker: the broker.
        operator: who is signed in.
        agent: revoked.

    Raises:
        RefusedError: somebody or something else has revoked it since it was served
            last (a signal, its end, its template, panic), or it is too long ago by the
            wall clock or the boot clock, or this process started since.
    """
    refused = RefusedError(
        "only an approver may restore this agent",
        f"for {OWN.seconds // 60} minutes you may restore one that you alone revoked",
    )
    lifetimes = broker.registry.lifetimes
    ended = agent.until is not None and agent.until.passed(broker.clock)
    late = not lifetimes.revoked_within(agent.id, OWN.total_seconds())
    origin = agent.from_template and broker.registry.find_agent(agent.from_template)
    stopped = broker.registry.revocations.panic is not None
    if ended or late or stopped or (origin and origin.revoked_at):
        raise refused
    await broker.ledger.confirm()

    async def newest(kind: EventType, after: int, of: AgentId | None) -> list[Event]:
        query = EventQuery(type=kind, agent=of, limit=_REVOKED_AT_MOST)
        page = await broker.ledger.events(query)
        if page.next is not None and all(one.seq > after for one in page.events):
            raise refused  # there may be more: unknown makes an answer stricter
        return [one for one in page.events if one.seq > after]

    served = await broker.ledger.events(
        EventQuery(type=EventType.AGENT_RESTORED, agent=agent.id, limit=1)
    )
    if not served.events and served.next is not None:
        raise refused
    last = served.events[0].seq if served.events else 0
    cuts = await newest(EventType.AGENT_REVOKED, last, agent.id)
    if not cuts or cuts[-1].time < broker.clock.now() - OWN:
        raise refused
    mine = all(
        one.actor.id == operator.id and one.reason != TEMPLATE_REVOKED for one in cuts
    )
    since = cuts[-1].seq
    if not mine or await newest(EventType.PANIC_ON, since, None):
        raise refused
    # Of an agent that was revoked already, the template's end is no event of its own.
    template = agent.from_template
    if template and await newest(EventType.AGENT_REVOKED, since, template):
        raise refused
