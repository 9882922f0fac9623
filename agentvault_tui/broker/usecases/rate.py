"""Bound how many permitted decisions one agent may have a second."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.usecases.decide import rate_of
from agentvault_tui.broker.usecases.revoke import FAILED, record_change
from agentvault_tui.broker.usecases.scopes import changed_draft
from agentvault_tui.errors import ConflictError
from agentvault_tui.model import Actor, Agent, Draft

_RATE = "decisions_a_second"


def raises_rate(broker: Broker, agent: Agent, wanted: int | None) -> bool:
    """Check whether an agent may have more a second afterwards.

    Args:
        broker: the broker.
        agent: the agent.
        wanted: see `change_rate`.

    Returns:
        whether it may; then a request may be permitted that was refused.
    """
    before = rate_of(broker, agent.decisions_a_second)
    after = rate_of(broker, wanted)
    return before != 0 and (after == 0 or after > before)


async def change_rate(
    broker: Broker,
    agent_id: str,
    wanted: int | None,
    operator: Actor,
    *,
    may_raise: bool = True,
) -> Agent:
    """Set how many decisions that need no person an agent is permitted a second.

    Args:
        broker: the broker.
        agent_id: the agent.
        wanted: how many; 0 for no bound, None for as many as the settings say.
        operator: who decided.
        may_raise: whether it may have more afterwards; others may have lowered it.

    Returns:
        the changed agent.

    Raises:
        NotFoundError: no such agent.
        ConflictError: it was revoked meanwhile, or would have more and may not.
        LedgerUnwritableError: it could not be recorded, and stays as it was.
    """
    async with broker.registry.changing[broker.registry.agent(agent_id).id]:
        await broker.recording.cuts.record_missed()
        agent = broker.registry.agent(agent_id)
        if not may_raise and raises_rate(broker, agent, wanted):
            raise ConflictError(
                "its rate was lowered meanwhile", "look, and set it again"
            )
        after = replace(agent, decisions_a_second=wanted)
        draft = _draft(operator, after, [_RATE])
        stays = partial(_draft, operator, changed=[], reason=FAILED)
        await record_change(broker, agent, after, draft, stays)
        current = broker.registry.agent(agent.id)
        after = replace(current, decisions_a_second=wanted)
        broker.registry.put_agent(after)
        return after


def _draft(
    operator: Actor, agent: Agent, changed: list[str], reason: str | None = None
) -> Draft:
    draft = changed_draft(operator, agent, changed, reason)
    draft.detail[_RATE] = agent.decisions_a_second
    return draft
