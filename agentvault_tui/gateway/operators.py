"""The gateway's routes for operators: services, trying them, and secrets."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import partial
from itertools import chain
from typing import Any, Final, Protocol

import msgspec
from msgspec import UNSET, structs
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agentvault_tui import strict_json
from agentvault_tui.broker.authority import Authority, Need
from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.operators_api.changes import How, Loosening
from agentvault_tui.broker.operators_api.records import explained
from agentvault_tui.broker.operators_api.wire import (
    body_of,
    local_operator_of,
    operator_of,
    route,
)
from agentvault_tui.broker.usecases.changes import Wanted
from agentvault_tui.broker.usecases.policy_change import reload_policy
from agentvault_tui.broker.usecases.stepup import known_stepup
from agentvault_tui.clock import iso
from agentvault_tui.encoder import to_json
from agentvault_tui.errors import (
    ConflictError,
    NotFoundError,
    UnreadableRequestError,
    UsageError,
)
from agentvault_tui.gateway.body import read_apart, referent_key, weight
from agentvault_tui.gateway.calls import Calls
from agentvault_tui.gateway.past_calls import unlisted
from agentvault_tui.gateway.probe import METHODS, UNREAD, probe
from agentvault_tui.gateway.refusals import CallRefusedError
from agentvault_tui.gateway.request import read_body, read_head
from agentvault_tui.gateway.secret_origins import SecretOrigins
from agentvault_tui.gateway.secret_staging import SecretChange
from agentvault_tui.gateway.secrets import RecordsChange, Secrets
from agentvault_tui.gateway.services import Service, ServiceHealth, Services
from agentvault_tui.gateway.team_calls import TeamCalls
from agentvault_tui.gateway.templates import ServiceRoute
from agentvault_tui.ledger import EventQuery, Meta
from agentvault_tui.model import Actor, Agent, Draft, EventType, Outcome
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.gateway import (
    CallInfo,
    CallList,
    HeldBody,
    RouteInfo,
    SecretList,
    ServiceCredentialInfo,
    ServiceInfo,
    ServiceList,
    ServiceProbe,
    TryInfo,
    UnlistedInfo,
)
from agentvault_tui.operator_api.requests import (
    SecretNameRequest,
    SecretRequest,
    TryRequest,
    WireRequest,
)
from agentvault_tui.operator_api.stepups import MoneyInfo
from agentvault_tui.origins import NOWHERE
from agentvault_tui.text import visible

_REMOVED_FROM: Final = "destinations of secret"
"""The kind of state that a secret's removal rests on: who stops getting alerts."""
_PAGES: Final = 5
"""Of a thousand events of each type, for the headers and types that a service's file
does not list."""


class Configured(Protocol):
    """A gateway, as these routes use it."""

    broker: Broker
    services: Services
    secrets: Secrets
    origins: SecretOrigins
    calls: Calls
    team_calls: TeamCalls | None
    health: dict[str, ServiceHealth]

    async def look(self) -> None:
        """Read changed files, so that a fresh edit counts."""

    async def held_body(self, stepup_id: str) -> bytes | None:
        """Return the body of a held call, while it is in a broker's memory."""


def routes(gateway: Configured, authority: Authority) -> list[Route]:
    """Return the routes about services, secrets and calls."""
    return [
        *_service_routes(gateway),
        *_probe_routes(gateway, authority),
        *_secret_routes(gateway, authority),
        _removal_route(gateway, authority),
        *_call_routes(gateway, authority),
    ]


def _service_routes(gateway: Configured) -> list[Route]:
    async def listing(_: Request) -> ServiceList:
        await gateway.look()
        services = sorted(gateway.services, key=lambda service: service.name)
        return ServiceList(
            services=tuple(service_info(gateway, one) for one in services),
            problems=dict(gateway.services.problems),
        )

    async def show(request: Request) -> ServiceInfo:
        info = service_info(gateway, await _named(gateway, request.path_params["name"]))
        headers_refused = unlisted(info.name, await _last_day(gateway.broker))
        info.unlisted = tuple(UnlistedInfo(**one._asdict()) for one in headers_refused)
        return info

    async def attempt(request: Request) -> TryInfo:
        """Return the action of a request; its body may be longer than other members."""
        try:
            wanted = msgspec.convert(
                strict_json.loads(await request.body()), TryRequest
            )
            body = base64.b64decode(wanted.body or "", validate=True)
        except (msgspec.ValidationError, binascii.Error, ValueError) as error:
            raise UsageError(f"the body is wrong: {error}") from None
        agent = gateway.broker.registry.agent(wanted.agent_id)
        service = await _named(gateway, wanted.service)
        by = operator_of(request)
        return await _tried(gateway, agent, service, wanted, body=body, by=by)

    return [
        route(calls.SERVICES, listing),
        route(calls.TRY, attempt),
        route(calls.SERVICE, show),
    ]


async def _last_day(broker: Broker) -> list[dict[str, Any]]:
    """Return ``detail`` of the calls of a day, of the latest if there are many."""
    details: list[dict[str, Any]] = []
    since = broker.clock.now() - timedelta(days=1)
    for kind in (
        EventType.GATEWAY_ATTEMPT,
        EventType.GATEWAY_REFUSED,
        EventType.GATEWAY_HELD,
    ):
        before: int | None = None
        for _ in range(_PAGES):
            query = EventQuery(type=kind, since=since, before=before, limit=1000)
            page = await broker.ledger.events(query)
            details += [event.detail for event in page.events]
            if (before := page.next) is None:
                break
    return details


def _probe_routes(gateway: Configured, authority: Authority) -> list[Route]:
    async def probing(request: Request) -> ServiceProbe:
        """Probe a service, for an operator who may change the agents' services."""
        operator = local_operator_of(request)
        service = await _named(gateway, request.path_params["name"])
        actor = await authority.actor(operator, Need.GIVE, f"service {service.name}")

        async def record(reason: str, detail: dict[str, object]) -> None:
            kind, file = EventType.SERVICE_PROBED, f"services/{service.name}.toml"
            draft = Draft(kind, actor, resource=file, reason=reason, detail=detail)
            await gateway.broker.record(draft)

        await record("begun", {"origin": str(service.origin), "methods": METHODS})
        result = await probe(service)
        outcomes = {one.method: one.outcome for one in result.probes}
        await record(UNREAD if result.leaves_unread else "nothing_shown", {**outcomes})
        return result

    return [route(calls.PROBE, probing)]


async def _named(gateway: Configured, name: str) -> Service:
    await gateway.look()
    service = gateway.services.get(name)
    if service is None:
        raise NotFoundError(f"there is no service {name}", "agentvault services list")
    return service


async def _tried(
    gateway: Configured,
    agent: Agent,
    service: Service,
    wanted: TryRequest,
    *,
    body: bytes,
    by: Actor,
) -> TryInfo:
    """Read a request as the gateway does, and return policy's answer.

    The body is read in the worker processes, with the operator's share of them.
    """
    try:
        received = [
            (name.lower().encode(), value.encode())
            for name, value in wanted.headers.items()
        ]
        head = read_head(
            service,
            wanted.method,
            wanted.path.encode(),
            received,
            has_body=bool(body),
        )
        too_large = len(body) > head.rule.max_bytes
        reading = None
        if not too_large:
            reading = await read_apart(by.id, weight(body), read_body, head.job(), body)
    except UnreadableRequestError as error:
        return TryInfo(route=None, error=error.code, description=error.what)
    except CallRefusedError as error:
        return TryInfo(route=None, error=error.error, description=str(error))
    if reading is None:
        return TryInfo(route=None, error="body_too_large", description="")
    head = head.read_as(reading.case)
    route_match, (action, *_) = head.match, (actions := head.actions(reading))
    decisions = [explained(gateway.broker, agent, one) for one in actions]
    return TryInfo(
        route=None if route_match.route is None else _route_info(route_match.route),
        error=None,
        scope=action.action,
        resource=", ".join(one.resource or "" for one in actions),
        parameters=action.parameters,
        money=msgspec.convert(action.money, MoneyInfo | None, from_attributes=True),
        decision=max(decisions, key=lambda one: Outcome(one.decision).strictness),
    )


def _call_routes(gateway: Configured, authority: Authority) -> list[Route]:
    async def listing(_: Request) -> CallList:
        if (team := gateway.team_calls) and (
            calls_of_team := await team.all()
        ) is not None:
            return CallList(calls=tuple(calls_of_team))
        own = tuple(gateway.calls.info(call) for call in gateway.calls)
        return CallList(calls=own, stale=True if team else UNSET)

    async def cancel(request: Request) -> CallInfo:
        call_id = request.path_params["id"]
        operator = await authority.actor(operator_of(request), Need.REVOKE, call_id)
        try:
            return gateway.calls.info(gateway.calls.cut_one(call_id, operator))
        except NotFoundError:
            if gateway.team_calls is None:
                raise
        return await gateway.team_calls.cut(call_id, operator)

    async def body(request: Request) -> HeldBody:
        """Return the content of a decision, byte for byte, while it is in memory."""
        stepup = await known_stepup(gateway.broker, request.path_params["id"])
        described = stepup.request or {}
        keys: list[str] = [stepup.id]
        keys += [
            referent_key(stepup.id, place)
            for place, _ in enumerate(described.get("references", ()))
        ]
        held, *documents = [
            await gateway.held_body(key) if stepup.status.open else None for key in keys
        ]
        return HeldBody(
            sha256=described.get("body_sha256"),
            bytes=described.get("body_bytes"),
            base64=_encoded(held),
            documents=tuple(map(_encoded, documents)),
        )

    return [
        route(calls.IN_FLIGHT, listing),
        route(calls.CUT_CALL, cancel),
        route(calls.STEPUP_BODY, body),
    ]


def _encoded(content: bytes | None) -> str | None:
    return None if content is None else base64.b64encode(content).decode()


def _secret_routes(gateway: Configured, authority: Authority) -> list[Route]:
    async def change(prepare: Callable[[], SecretChange]) -> SecretList:
        return await _change(gateway, prepare, gateway.broker.record)

    async def actor(request: Request, need: Need, about: str) -> Actor:
        return await authority.actor(operator_of(request), need, about)

    async def listing(_: Request) -> SecretList:
        await _look(gateway)
        return gateway.origins.listing()

    async def do_keep(body: SecretRequest, who: Actor, _: object) -> SecretList:
        origins = gateway.origins.choose(body.name, body.value, body.for_)
        return await change(
            lambda: gateway.secrets.set(body.name, body.value, who, origins)
        )

    async def keep(request: Request) -> Response:
        body = await body_of(request, SecretRequest)
        await _look(gateway)
        origins = gateway.origins.choose(body.name, body.value, body.for_)
        # A change that waits is for these, whatever files say once it is approved.
        body = structs.replace(body, for_=origins or (NOWHERE,))
        return await keeping.settle(request, body, _setting(body))

    async def rotate(request: Request) -> SecretList:
        await body_of(request, WireRequest)
        who = await actor(request, Need.OWN, "the secrets' key")
        return await change(lambda: gateway.secrets.rotate_key(who))

    def secret_now(name: str) -> str:
        row = gateway.secrets.row(name)
        return str(row.version) if row else ""

    gateway.broker.extensions.states["secret"] = secret_now
    set_call = calls.SET_SECRET, SecretRequest
    keeping = Loosening(authority, *set_call, do_keep, ("value",))
    return [
        route(calls.SECRETS, listing),
        route(calls.SET_SECRET, keep),
        route(calls.ROTATE_KEY, rotate),
    ]


async def _change(
    gateway: Configured, prepare: Callable[[], SecretChange], record: RecordsChange
) -> SecretList:
    await gateway.secrets.change(prepare, record)
    gateway.broker.health.changed()
    return gateway.origins.listing()


def _removal_route(gateway: Configured, authority: Authority) -> Route:
    def destinations(name: str) -> list[str]:
        uses = (one for one in gateway.origins.uses() if one.secret == name)
        return sorted({one.name for one in uses if one.kind == "sink"})

    async def do_remove(body: SecretNameRequest, who: Actor, how: How) -> SecretList:
        def record(*drafts: Draft, changes: Sequence[Meta] = ()) -> Awaitable[object]:
            # In the turn that places the record: files may have changed since it was
            # judged. An approved removal is checked by its rider (`_REMOVED_FROM`).
            if not how.loosens and (now := destinations(body.name)):
                raise ConflictError(
                    f"the destination {visible(now[0], 60)} needs it by now",
                    "ask again: its removal then waits for an approver",
                )
            return gateway.broker.record(*drafts, changes=changes)

        prepare = partial(gateway.secrets.remove, body.name, who)
        return await _change(gateway, prepare, record)

    async def remove(request: Request) -> Response:
        """Remove a secret; without that of a destination its alerts stop."""
        body = await body_of(request, SecretNameRequest)
        await gateway.broker.ledger.confirm()
        await _look(gateway)
        wanted = _removing(body.name, destinations(body.name))
        return await removing.settle(request, body, wanted)

    gateway.broker.extensions.states[_REMOVED_FROM] = lambda name: to_json(
        destinations(name)
    )
    removing = Loosening(authority, calls.REMOVE_SECRET, SecretNameRequest, do_remove)
    return route(calls.REMOVE_SECRET, remove)


async def _look(gateway: Configured) -> None:
    """Read changed files, so that a fresh edit counts."""
    broker = gateway.broker
    await reload_policy(broker)
    for extension in broker.extensions.rooms:
        await extension.look()


def _setting(body: SecretRequest) -> Wanted:
    """Return the loosening that setting a secret for its origins is."""
    listed = list(body.for_ or (NOWHERE,))
    name, shown = visible(body.name, 63), visible(", ".join(listed), 300)
    return Wanted(
        ("secrets",),
        f"set the secret {name} for {shown}",
        f"secret {name}",
        (f"secret:{body.name}",),
        details={"for": listed},
    )


def _removing(name: str, destinations: list[str]) -> Wanted:
    """Return the loosening by removing a secret: it silences alert destinations."""
    shown = visible(name, 63)
    return Wanted(
        ("alerts",) if destinations else (),
        f"remove the secret {shown} of alert destinations",
        f"secret {shown}",
        (f"secret:{name}", f"{_REMOVED_FROM}:{name}"),
        details={"name": name, "destinations": destinations},
    )


def service_info(gateway: Configured, service: Service) -> ServiceInfo:
    """Return the operators' view of a service, with the results of its last calls."""
    seen = gateway.health.get(service.name)
    problem = gateway.services.problems.get(f"{service.name}.toml")
    problem = problem or gateway.origins.problem(service)
    health = "broken" if problem else "unused" if seen is None else "ok"
    if not problem and seen is not None and seen.problem:
        health, problem = "failing", seen.problem
    credential = service.credential
    return ServiceInfo(
        name=service.name,
        origin=str(service.origin),
        unmatched=service.unmatched,
        allow_private=service.allow_private,
        credential=ServiceCredentialInfo(
            kind=credential.kind,
            secret=credential.secret or None,
            connection=credential.connection or None,
        ),
        routes=tuple(chain.from_iterable(map(_route_infos, service.routes))),
        health=health,
        problem=problem,
        last_used_at=None if seen is None else iso(seen.last_used),
    )


def _route_infos(route: ServiceRoute) -> list[RouteInfo]:
    """Return a route after its cases, in the order in which they count."""
    cases = [
        _route_info(case.route, " and ".join(map(str, case.conditions)))
        for case in route.cases
    ]
    return [*cases, _route_info(route)]


def _route_info(one: ServiceRoute, when: str = "") -> RouteInfo:
    also = (
        "".join(str(p) if n % 2 == 0 else f"{{{p}}}" for n, p in enumerate(parts))
        for parts in one.also
    )
    return RouteInfo(
        method=one.method,
        path=one.path,
        scope=one.scope,
        resource=one.resource,
        parameters={
            name: " + ".join(map(str, sources))
            for name, sources in one.parameters.items()
        },
        unit=one.amounts.unit,
        when=when,
        also=tuple(also),
    )
