"""``/api/advice``: what agents do not need, taken away on trial and given back."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from starlette.requests import Request
from starlette.routing import Route

from agentvault_tui.broker.authority import Authority, Need
from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.operators_api.wire import (
    body_of,
    operator_of,
    query_of,
    route,
)
from agentvault_tui.errors import NotFoundError
from agentvault_tui.model import Actor
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.advice import (
    AdviceInfo,
    AdviceList,
    AdviceQuery,
    ApplyAdviceRequest,
)
from agentvault_tui.operator_api.requests import WireRequest
from agentvault_tui.watch.jobs import AdviceJob, Jobs
from agentvault_tui.watch.trials import Trials

_WINDOWS: Final = 8
"""Windows whose advice can be decided about, at most."""

_Listed = dict[int, dict[str, AdviceInfo]]
"""What was last told for each window, by its seconds."""


def _keep(listed: _Listed, window: int, found: list[AdviceInfo]) -> None:
    """Keep what was told for *window* now; that of other windows can be named still."""
    listed.pop(window, None)
    listed[window] = {one.id: one for one in found}
    if len(listed) > _WINDOWS:
        del listed[next(iter(listed))]


def _named(listed: _Listed, advice_id: str) -> AdviceInfo | None:
    told = (one[advice_id] for one in reversed(listed.values()) if advice_id in one)
    return next(told, None)


def routes(
    broker: Broker, authority: Authority, jobs: Jobs, trials: Trials
) -> list[Route]:
    """Return the routes about advice."""
    listed: _Listed = {}

    async def read(window: int) -> list[AdviceInfo]:
        """Find what the history advises now; what is shown can be decided about."""
        until = broker.clock.now()
        job = AdviceJob(broker.policy.texts, until - timedelta(seconds=window), until)
        found = (await jobs.run(job, AdviceList)).advice
        _keep(listed, window, found)
        return found

    async def named(request: Request) -> AdviceInfo:
        advice_id = request.path_params["id"]
        if _named(listed, advice_id) is None:
            await read(broker.settings.policy.advice_window)
        if (found := _named(listed, advice_id)) is None:
            raise NotFoundError(
                f"there is no advice {advice_id[:80]}", "agentvault advise lists it"
            )
        return found

    async def actor(request: Request, need: Need) -> Actor:
        about = f"advice {request.path_params['id'][:80]}"
        return await authority.actor(operator_of(request), need, about)

    async def show(request: Request) -> AdviceList:
        """Return what agents do not need, with evidence, and how often that held."""
        query = query_of(request, AdviceQuery)
        window = query.window or broker.settings.policy.advice_window
        found = trials.merge(await read(window), every=query.all)
        shown = [one for one in found if query.agent in ("", one.agent_id)]
        return AdviceList(advice=shown, hit_rate=trials.hits, window=window)

    async def apply(request: Request) -> AdviceInfo:
        """Take away what was advised, on trial: nothing is given."""
        asked = await body_of(request, ApplyAdviceRequest)
        operator = await actor(request, Need.CUT)
        return await trials.apply(await named(request), operator, asked.seconds)

    async def dismiss(request: Request) -> AdviceInfo:
        """Leave it as it is, until it is used and then unused anew."""
        await body_of(request, WireRequest)
        operator = await actor(request, Need.CUT)
        return await trials.dismiss(await named(request), operator)

    async def give_back(request: Request) -> AdviceInfo:
        """Give back what was taken away, and end the trial."""
        await body_of(request, WireRequest)
        operator = await actor(request, Need.GIVE)
        return await trials.give_back(request.path_params["id"], operator)

    return [
        route(calls.ADVICE, show),
        route(calls.APPLY_ADVICE, apply),
        route(calls.DISMISS_ADVICE, dismiss),
        route(calls.GIVE_BACK, give_back),
    ]
