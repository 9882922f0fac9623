"""Alerts, exports, metrics and advice of one broker, as `serve` composes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

from msgspec import to_builtins
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agentvault_tui.broker.authority import Authority, Need
from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.operators_api.changes import How, Loosening
from agentvault_tui.broker.operators_api.long_work import while_connected
from agentvault_tui.broker.operators_api.wire import (
    body_of,
    moment_of,
    operator_of,
    query_of,
    route,
)
from agentvault_tui.broker.policy_files import read_texts
from agentvault_tui.broker.riders import policy_changes
from agentvault_tui.broker.secret_uses import OpenSecret
from agentvault_tui.broker.usecases.changes import Wanted
from agentvault_tui.errors import NotFoundError
from agentvault_tui.model import Actor, AgentId, ChangedText, Event
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.advice import (
    AdviceInfo,
    AdviceList,
    AdviceQuery,
    ApplyAdviceRequest,
)
from agentvault_tui.operator_api.planning import (
    PlanInfo,
    PlanRequest,
    ShadowAnswer,
    ShadowRequest,
)
from agentvault_tui.operator_api.requests import WireRequest
from agentvault_tui.text import visible
from agentvault_tui.watch import metrics
from agentvault_tui.watch.alerts import Alerts
from agentvault_tui.watch.jobs import AdviceJob, Jobs, PlanJob
from agentvault_tui.watch.shadow import Shadow
from agentvault_tui.watch.trials import Trials
from agentvault_tui.web import Listener, Server

_WINDOWS: Final = 8
"""Windows whose advice can be decided about, at most."""

_Listed = dict[int, dict[str, AdviceInfo]]
"""The last list for each window, by its seconds."""


class LedgerWatch:
    """Alerts, exports and metrics of one broker; see `Extension`."""

    def __init__(self, broker: Broker, secret: OpenSecret) -> None:
        """Read nothing yet; *secret* opens a sealed one by its name."""
        self.broker = broker
        self.alerts = Alerts(broker, secret)
        broker.extensions.secret_uses.append(self.alerts.secret_uses)
        broker.extensions.name_uses.append(self.alerts.name_uses)
        self._jobs = Jobs(broker)
        self._shadow = Shadow(broker)
        self.trials = Trials(broker)

    @property
    def warnings(self) -> list[str]:
        """Warn of inactive files, and of failing sinks."""
        return self.alerts.warnings

    async def start(self) -> None:
        """Read the home's files, and the last process's stored state."""
        await self.alerts.start()
        self._shadow.restore()
        await self.trials.restore()

    async def listen(self, server: Server, agents: Listener) -> Mapping[str, object]:
        """Serve metrics on loopback too, where the settings say so."""
        del agents
        return await metrics.listen(self.broker, server)

    async def look(self) -> None:
        """Read changed files and new events, and send the due alerts."""
        await self.alerts.look()
        await self._shadow.look()

    def committed(self, events: Sequence[Event]) -> None:
        """Take events that have just become durable; see `WatchRoom`."""
        self.alerts.committed(events)

    def operator_routes(self, authority: Authority) -> list[Route]:
        """Return its routes of the operators' HTTP."""
        return [
            metrics.route(self.broker),
            *self.alerts.routes(authority),
            *_policy_routes(self.broker, authority, self._jobs, self._shadow),
            *_advice_routes(self.broker, authority, self._jobs, self.trials),
        ]

    async def aclose(self) -> None:
        """End requests under way."""
        await self.alerts.aclose()
        await self._shadow.aclose()


def _policy_routes(
    broker: Broker, authority: Authority, jobs: Jobs, shadow: Shadow
) -> list[Route]:
    """Return the routes about policies that are tried."""

    async def plan(request: Request) -> PlanInfo:
        """Decide the recorded history by another policy; nothing is put in effect."""
        body = await body_of(request, PlanRequest, deep=True)
        since = moment_of(body.since or None, "since")
        texts = read_texts(broker.home)._replace(policy=body.policy)
        lasts = broker.settings.stepup.expires_in
        job = PlanJob(texts, broker.deciding.policy.version, lasts, since)
        work = jobs.run(job, PlanInfo, operator_of(request).id)
        return await while_connected(request, work)

    async def change(request: Request) -> ShadowAnswer:
        """Let another policy decide next to the one in effect, or none any more."""
        body = await body_of(request, ShadowRequest, deep=True)
        # It answers nothing, so that it loosens nothing.
        await authority.actor(operator_of(request), Need.OWN, "a shadow policy")
        await shadow.set(body.policy, body.limits)
        return ShadowAnswer(shadow=broker.deciding.state.shadow)

    return [route(calls.PLAN, plan), route(calls.SHADOW, change)]


def _keep(listed: _Listed, window: int, advice: list[AdviceInfo]) -> None:
    """Note the list for *window* now; advice of other windows can be named still."""
    listed.pop(window, None)
    listed[window] = {one.id: one for one in advice}
    if len(listed) > _WINDOWS:
        del listed[next(iter(listed))]


def _named(listed: _Listed, advice_id: str) -> AdviceInfo | None:
    listings = (one[advice_id] for one in reversed(listed.values()) if advice_id in one)
    return next(listings, None)


def _advice_routes(
    broker: Broker, authority: Authority, jobs: Jobs, trials: Trials
) -> list[Route]:
    """Return the routes about advice."""
    listed: _Listed = {}

    async def read(request: Request, window: int) -> list[AdviceInfo]:
        """Find the history's advice now; shown advice can be decided about."""
        until = broker.clock.now()
        job = AdviceJob(
            broker.deciding.policy.texts, until - timedelta(seconds=window), until
        )
        work = jobs.run(job, AdviceList, operator_of(request).id)
        advice = (await while_connected(request, work)).advice
        _keep(listed, window, advice)
        return advice

    async def named(request: Request) -> AdviceInfo:
        advice_id = request.path_params["id"]
        if _named(listed, advice_id) is None:
            await read(request, broker.settings.policy.advice_window)
        if (advice := _named(listed, advice_id)) is None:
            raise NotFoundError(
                f"there is no advice {advice_id[:80]}", "agentvault advise lists it"
            )
        return advice

    async def actor(request: Request, need: Need) -> Actor:
        about = f"advice {request.path_params['id'][:80]}"
        return await authority.actor(operator_of(request), need, about)

    async def show(request: Request) -> AdviceList:
        """Return the unneeded permissions, with evidence, and their count."""
        query = query_of(request, AdviceQuery)
        window = query.window or broker.settings.policy.advice_window
        advice = trials.merge(await read(request, window), every=query.all)
        shown = [one for one in advice if query.agent in ("", one.agent_id)]
        return AdviceList(advice=shown, hit_rate=trials.hits, window=window)

    async def apply(request: Request) -> AdviceInfo:
        """Remove the advised permissions, on trial: nothing is granted."""
        body = await body_of(request, ApplyAdviceRequest)
        operator = await actor(request, Need.REVOKE)
        return await trials.apply(await named(request), operator, body.seconds)

    async def dismiss(request: Request) -> AdviceInfo:
        """Leave it as it is, until it is used and then unused again."""
        await body_of(request, WireRequest)
        operator = await actor(request, Need.REVOKE)
        return await trials.dismiss(await named(request), operator)

    return [
        route(calls.ADVICE, show),
        route(calls.APPLY_ADVICE, apply),
        route(calls.DISMISS_ADVICE, dismiss),
        _give_back_route(broker, authority, trials),
    ]


def _give_back_route(broker: Broker, authority: Authority, trials: Trials) -> Route:
    async def do_give_back(_: WireRequest, operator: Actor, how: How) -> AdviceInfo:
        return await trials.give_back(how.path["id"], operator)

    async def give_back(request: Request) -> Response:
        """Restore the removed permissions, and end the trial."""
        body = await body_of(request, WireRequest)
        advice_id = request.path_params["id"]
        about = f"advice {visible(advice_id, 80)}"
        summary, subjects = f"give back what {about} took", [f"advice:{advice_id}"]
        wanted = Wanted(("agents",), summary, about, (*subjects,))
        await trials.check_removed_by_trial(advice_id)
        by_factor = await authority.by_factor(operator_of(request))
        if (taken := taken_by(advice_id)) is not None:
            # Of whoever is revoked again, or narrowed, meanwhile, nothing comes back.
            subjects += [f"agent:{taken.agent_id}"] if taken.agent_id else []
            subjects += ["policy"] if taken.change.rule else []
            kinds = ("policy",) if taken.change.rule else ("agents",)
            agent = broker.registry.find_agent(AgentId(taken.agent_id))
            summary += f" from {visible(agent.name, 60)}" if agent else ""
            details = {"agent": taken.agent_id, **to_builtins(taken.change)}
            texts = list[ChangedText]()
            if (text := trials.without_rule(advice_id)) is not None:
                # The rule as it is now, which need not be the advised one.
                now = broker.deciding.policy.texts
                texts = policy_changes(now, now._replace(policy=text))
            shown = (*subjects,), (*texts,), details
            wanted = Wanted(kinds, summary, about, *shown)
        elif by_factor:
            await authority.actor(operator_of(request), Need.GIVE, about)
            raise NotFoundError(f"nothing was taken away by {about}")
        return await giving_back.settle(request, body, wanted, by_factor=by_factor)

    def taken_by(advice_id: str) -> AdviceInfo | None:
        trials_taken = trials.merge([], every=True)
        return next((one for one in trials_taken if one.id == advice_id), None)

    def advice_now(advice_id: str) -> str:
        taken = taken_by(advice_id)
        return taken.status if taken else ""

    broker.extensions.states["advice"] = advice_now
    giving_back = Loosening(authority, calls.GIVE_BACK, WireRequest, do_give_back)
    return route(calls.GIVE_BACK, give_back)
