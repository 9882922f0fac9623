"""``/api/limits``: the limits and their uses."""

from __future__ import annotations

from typing import Any, Final

from starlette.requests import Request
from starlette.routing import Route

from agentvault_tui.broker.callouts import HOOK_FAILED
from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.limit_uses import WindowStanding
from agentvault_tui.broker.operators_api.wire import route
from agentvault_tui.clock import iso
from agentvault_tui.model import Agent, Outcome
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.limits import (
    CallOutInfo,
    LimitInfo,
    LimitList,
    LimitUseInfo,
)
from agentvault_tui.policy import Limit
from agentvault_tui.policy.limits import HookTable

_MOST: Final = 1000
"""Windows in one answer: those with the least left."""
_NEAR: Final = 20
"""And of one agent."""


def routes(broker: Broker) -> list[Route]:
    """Return the route about limits."""
    deciding = broker.deciding

    async def limits(_: Request) -> LimitList:
        """Return the limits in effect, and the windows that hold something."""
        policy_limits = deciding.policy.limits
        uses = sorted(
            await deciding.limits.all(),
            key=lambda use: (use.left / use.limit.most, use.key),
        )
        return LimitList(
            limits=tuple(map(limit_info, policy_limits.limits)),
            uses=tuple(_use_info(broker, use) for use in uses[:_MOST]),
            hooks=tuple(
                CallOutInfo(
                    id=one.id,
                    url=one.url,
                    scopes=tuple(one.scopes),
                    budget_ms=one.budget_ms,
                    signed=bool(one.secret),
                    **_health(broker, one),
                )
                for one in policy_limits.hooks
            ),
            problem=deciding.state.problem,
        )

    return [route(calls.LIMITS, limits)]


def _health(broker: Broker, hook: HookTable) -> dict[str, Any]:
    """Return how a call-out answered last, if it was asked as it is now."""
    last = broker.deciding.callouts.last.get(hook.id)
    if last is None or last.answer.hook != hook:
        return {}
    failed = last.answer.reason == HOOK_FAILED
    return {
        "asked_at": iso(last.at),
        "answers": not failed,
        "ms": last.answer.ms,
        "problem": last.answer.why if failed else None,
    }


async def near_the_end(broker: Broker, agent: Agent) -> LimitList:
    """Return the windows of which an agent has at most a fifth left, and their limits.

    Of a limit a resource, all windows.
    """
    names = {agent.id, agent.name}
    uses = sorted(
        (
            use
            for use in await broker.deciding.limits.all()
            if use.left * 5 <= use.limit.most
            and not use.limit.scopes.isdisjoint(agent.scopes)
            and not (use.limit.agents and use.limit.agents.isdisjoint(names))
            and (use.limit.per != "agent" or use.key == agent.id)
        ),
        key=lambda use: (use.left / use.limit.most, use.limit.id, use.key),
    )[:_NEAR]
    limits = {use.limit.id: use.limit for use in uses}
    return LimitList(
        limits=tuple(map(limit_info, limits.values())),
        uses=tuple(_use_info(broker, use) for use in uses),
        hooks=(),
        problem=None,
    )


def limit_info(limit: Limit) -> LimitInfo:
    """Return a limit as operators see it."""
    return LimitInfo(
        id=limit.id,
        scopes=tuple(sorted(limit.scopes)),
        agents=tuple(sorted(limit.agents)),
        per=limit.per,
        within=limit.span,
        most=limit.most,
        currency=limit.currency,
        in_major=limit.in_major,
        over="deny" if limit.over is Outcome.DENIED else "step_up",
    )


def _use_info(broker: Broker, use: WindowStanding) -> LimitUseInfo:
    agent_id = use.key if use.limit.per == "agent" else None
    agent = broker.registry.find_agent(agent_id or "")
    return LimitUseInfo(
        limit=use.limit.id,
        agent_id=agent_id,
        agent_name=agent.name if agent else agent_id,
        resource=use.key if use.limit.per == "resource" else None,
        used=use.used,
        left=use.left,
        frees_at=iso(use.frees_at) if use.frees_at else None,
    )
