"""The operators' HTTP about commands that they run as agents."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.routing import Route

from agentvault_tui.broker.answers import Granted
from agentvault_tui.broker.authority import Authority, Need
from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.operators_api.wire import body_of, operator_of, route
from agentvault_tui.broker.socket_factor import note_shared_user
from agentvault_tui.errors import NotFoundError, SettingsError, UsageError
from agentvault_tui.gateway.proxy_listener import ProxyListener
from agentvault_tui.gateway.runs import CommandRun
from agentvault_tui.gateway.services import Services
from agentvault_tui.model import Actor, ActorKind, Draft, EventType, Outcome
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.access import (
    AttemptEntry,
    AttemptsRequest,
    ConfinedRequest,
    RecordedInfo,
    RunInfo,
    RunNewsInfo,
    RunRequest,
)
from agentvault_tui.settings import PassThrough
from agentvault_tui.text import visible

_LONGEST_NAME: Final = 253
"""Of a name that a command tried to reach, in characters."""


def routes(
    broker: Broker,
    proxy: ProxyListener,
    services: Services,
    authority: Authority,
    look: Callable[[], Awaitable[None]],
) -> list[Route]:
    """Return the routes that `agentvault run` asks at; *look* reads changed files."""

    async def start(request: Request) -> RunInfo:
        """Start a run for an operator who may give its agent a token."""
        body = await body_of(request, RunRequest)
        operator = await authority.actor(
            operator_of(request), Need.GIVE, f"run as {body.agent_id}"
        )
        agent = broker.registry.agent(body.agent_id)
        await note_shared_user(broker, operator_of(request))
        await look()
        for name in body.services:
            if services.get(name) is None:
                raise NotFoundError(
                    f"there is no service {visible(name, 80)}",
                    "agentvault services list",
                )
        try:
            passed = tuple(map(PassThrough, body.pass_through))
        except SettingsError as error:
            raise UsageError(error.what, error.remedy) from None
        url, ca = await proxy.open()
        named = frozenset(body.services)
        run, key, granted = await proxy.runs.start(agent.id, operator, named, passed)
        reached = [one for one in services if not named or one.name in named]
        return RunInfo(
            id=run.id,
            key=key,
            proxy_url=url,
            ca=ca.pem.decode(),
            agents_url=broker.admitting.url,
            services={
                one.name: f"{broker.admitting.url}/gw/{one.name}" for one in reached
            },
            access_token=granted.access_token,
            expires_in=granted.expires_in,
        )

    async def news(request: Request) -> RunNewsInfo:
        run = proxy.runs.get(request.path_params["id"])
        return _news(run, await proxy.runs.wait(run))

    async def end(request: Request) -> RunNewsInfo:
        run = proxy.runs.get(request.path_params["id"])
        await proxy.runs.finish(run)
        return _news(run, None)

    return [
        route(calls.RUN, start),
        route(calls.RUN_NEWS, news),
        route(calls.END_RUN, end),
        *_confinement_routes(broker, proxy),
    ]


def _confinement_routes(broker: Broker, proxy: ProxyListener) -> list[Route]:
    async def confined(request: Request) -> RecordedInfo:
        """Record that a command begins confined, before it does."""
        run = proxy.runs.get(request.path_params["id"])
        body = await body_of(request, ConfinedRequest)
        given = msgspec.structs.asdict(body).items()
        detail = {name: [*v] if isinstance(v, tuple) else v for name, v in given}
        detail["run_id"] = run.id
        kind = EventType.RUN_CONFINED
        draft = Draft(kind, run.operator, run.agent_id, detail=detail)
        events = await broker.record(draft)
        return RecordedInfo(events=len(events))

    async def attempts(request: Request) -> RecordedInfo:
        """Record the attempts of a confined command to leave; no policy is asked."""
        run = proxy.runs.get(request.path_params["id"])
        body = await body_of(request, AttemptsRequest)
        agent = broker.registry.agent(run.agent_id)
        actor = Actor(ActorKind.AGENT, agent.id, agent.name)
        drafts = [_attempt_draft(run, actor, one) for one in body.attempts]
        return RecordedInfo(events=len(await broker.record(*drafts)))

    return [route(calls.CONFINED, confined), route(calls.ATTEMPTS, attempts)]


def _attempt_draft(run: CommandRun, actor: Actor, entry: AttemptEntry) -> Draft:
    detail: dict[str, object] = {"run_id": run.id}
    if entry.kind == "more":
        detail["more"] = entry.count
        where = "other destinations"
    else:
        name = "host" if entry.host else "address"
        where = visible(entry.host or entry.address, _LONGEST_NAME)
        detail |= {"kind": entry.kind, name: where, "count": entry.count}
        if entry.port is not None:
            detail["port"] = entry.port
            where = f"[{where}]" if ":" in where else where
            where = f"{where}:{entry.port}"
    return Draft(
        EventType.RUN_REFUSED,
        actor,
        run.agent_id,
        resource=f"{entry.kind}:{where}",
        outcome=Outcome.DENIED,
        reason="outside",
        detail=detail,
    )


def _news(run: CommandRun, granted: Granted | None) -> RunNewsInfo:
    return RunNewsInfo(
        ended=run.ended,
        why=run.why,
        access_token=granted.access_token if granted else None,
        expires_in=granted.expires_in if granted else None,
        calls=run.counts["calls"],
        tunnels=run.counts["tunnels"],
        held=run.counts["held"],
        refused=run.counts["refused"],
    )
