"""``/api/policy/plan`` and ``/api/policy/shadow``."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.routing import Route

from agentvault_tui.broker.authority import Authority, Need
from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.operators_api.wire import (
    body_of,
    moment_of,
    operator_of,
    route,
)
from agentvault_tui.broker.policy_files import kept_policy, read_texts
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.planning import (
    PlanInfo,
    PlanRequest,
    ShadowAnswer,
    ShadowRequest,
)
from agentvault_tui.watch.jobs import Jobs, PlanJob
from agentvault_tui.watch.shadow import Shadow


def routes(
    broker: Broker, authority: Authority, jobs: Jobs, shadow: Shadow
) -> list[Route]:
    """Return the routes about policies that are tried."""

    async def plan(request: Request) -> PlanInfo:
        """Decide the recorded history by another policy; nothing is put in force."""
        asked = await body_of(request, PlanRequest, deep=True)
        since = moment_of(asked.since or None, "since")
        texts = read_texts(broker.home)._replace(policy=asked.policy)
        await asyncio.to_thread(kept_policy, broker.home, texts)  # or it is refused
        lasts = broker.settings.stepup.expires_in
        job = PlanJob(texts, broker.policy.version, lasts, since)
        return await jobs.run(job, PlanInfo)

    async def change(request: Request) -> ShadowAnswer:
        """Let another policy decide beside the one in force, or none any more."""
        asked = await body_of(request, ShadowRequest, deep=True)
        await authority.actor(operator_of(request), Need.GIVE, "a shadow policy")
        await shadow.set(asked.policy, asked.limits)
        return ShadowAnswer(shadow=broker.policy_state.shadow)

    return [route(calls.PLAN, plan), route(calls.SHADOW, change)]
