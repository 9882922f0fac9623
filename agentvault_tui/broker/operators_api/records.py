"""``/api/audit``, ``/api/events``, ``/api/status`` and ``/api/policy``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Final

from msgspec import UNSET
from msgspec.structs import asdict, replace
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from agentvault_tui.broker.authority import Authority, Need
from agentvault_tui.broker.core import Broker, decide_anew
from agentvault_tui.broker.feed import Feed
from agentvault_tui.broker.operators_api.changes import How, Loosening
from agentvault_tui.broker.operators_api.presence import Presence, seated
from agentvault_tui.broker.operators_api.streams import EventStreams
from agentvault_tui.broker.operators_api.wire import (
    body_of,
    integer_of,
    listing,
    moment_of,
    operator_of,
    query_of,
    route,
    word_of,
)
from agentvault_tui.broker.riders import policy_changes, policy_kinds
from agentvault_tui.broker.shapes import event_info, shape_from
from agentvault_tui.broker.status import status_info
from agentvault_tui.broker.surroundings import LOCAL, plain_address
from agentvault_tui.broker.usecases.changes import Wanted
from agentvault_tui.broker.usecases.decide import foresee_at
from agentvault_tui.broker.usecases.policy_apply import (
    apply_policy,
    check_gone,
    check_rules,
    preview,
    reset_policy,
)
from agentvault_tui.broker.usecases.register import check_scopes
from agentvault_tui.errors import NotFoundError, PolicyError, UsageError
from agentvault_tui.ledger import EventQuery, Link
from agentvault_tui.ledger.query import read_story
from agentvault_tui.ledger.texts import read_texts
from agentvault_tui.model import (
    Action,
    Actor,
    Agent,
    AgentId,
    ChangedText,
    Event,
    EventType,
    Money,
    Outcome,
    Verdict,
)
from agentvault_tui.operator_api import calls, history, planning, shapes
from agentvault_tui.operator_api import requests as asks
from agentvault_tui.policy import (
    Catalogue,
    Environment,
    PolicyTexts,
    differences,
    only_tightens,
)
from agentvault_tui.policy.texts import FILES

_NAMES: Final = dict(zip(FILES, PolicyTexts._fields, strict=True))
"""The member of `PolicyTexts` of each of the policy's files."""
_POLICY: Final[tuple[str, ...]] = ("policy",)


def routes(
    broker: Broker, feed: Feed, presence: Presence, authority: Authority
) -> list[Route]:
    """Return the routes about records, status and policy."""
    streams = EventStreams()

    async def audit(request: Request) -> Response:
        """Return a page of events."""
        page = await broker.ledger.events(_query(request))
        more: dict[str, object] = {"next": page.next}
        return await listing(request, "events", map(event_info, page.events), more)

    async def events(request: Request) -> Response:
        """Stream the events, as server-sent events."""
        raw = request.headers.get("last-event-id")
        otherwise = "Last-Event-ID is not a sequence number"
        frames = feed.stream(None if raw is None else integer_of(raw, otherwise))
        face = query_of(request, asks.StreamQuery).face
        stream = StreamingResponse(
            seated(request, presence, face, frames),
            media_type="text/event-stream",
            headers={"X-Accel-Buffering": "no"},
        )
        seat = operator_of(request).id
        return streams.bounded(stream, seat, authority.standing(seat).role)

    async def status(_: Request) -> shapes.StatusInfo:
        """Return the broker's status."""
        return status_info(broker)

    return [
        route(calls.AUDIT, audit),
        Route(calls.EVENTS_PATH, events, methods=["GET"]),
        route(calls.STATUS, status),
        *_policy_routes(broker, authority),
    ]


def _policy_routes(broker: Broker, authority: Authority) -> list[Route]:
    async def policy(request: Request) -> planning.PolicyInfo:
        """Give the policy in effect, or one that was, and its catalogue of scopes."""
        version = query_of(request, asks.PolicyQuery).version
        return await _policy_of(broker, version) if version else _in_force(broker)

    async def explain(request: Request) -> planning.ExplainInfo:
        """Decide a request without issuing anything, and say why."""
        return _explained(broker, await body_of(request, asks.ExplainRequest))

    async def do_reset(
        body: asks.ResetRequest, operator: Actor, _: object
    ) -> planning.PolicyInfo:
        await decide_anew(lambda: reset_policy(broker, operator, body.gone))
        return _in_force(broker)

    async def reset(request: Request) -> Response:
        """Let the shipped files count in the place of those that are gone."""
        body = await body_of(request, asks.ResetRequest)
        seat, kinds = operator_of(request), _POLICY
        texts: list[ChangedText] = []
        summary, about = "the shipped policy decides again", "the shipped policy"
        if by_factor := await authority.by_factor(seat):
            await authority.actor(seat, Need.GIVE, about)
            gone = check_gone(broker, body.gone)  # what cannot be is refused at once
            # A change that waits is for these, whatever is gone once it is approved.
            body = replace(body, gone=gone)
            summary = f"{summary}, for {' and '.join(gone)}"
            now = broker.deciding.policy.texts
            names = dict.fromkeys(_NAMES[one] for one in gone)
            texts = policy_changes(now, now._replace(**names))
            kinds = policy_kinds(texts) or _POLICY
        wanted = Wanted(kinds, summary, about, ("policy",), (*texts,))
        return await resetting.settle(request, body, wanted, by_factor=by_factor)

    async def do_apply(
        body: asks.ApplyRequest, operator: Actor, how: How
    ) -> planning.PolicyInfo:
        call = broker, _texts(body), operator, body.plan, body.reason
        await decide_anew(lambda: apply_policy(*call, may_loosen=how.loosens))
        return _in_force(broker, map(str, broker.deciding.policy.problems()))

    async def apply(request: Request) -> Response:
        """Replace the home's policy file and put it in effect, with who and why."""
        body = await body_of(request, asks.ApplyRequest, deep=True)
        wanted = await _wanted(broker, body)
        return await applying.settle(request, body, wanted, local=Need.GIVE)

    resetting = Loosening(authority, calls.RESET_POLICY, asks.ResetRequest, do_reset)
    apply_call = calls.APPLY_POLICY, asks.ApplyRequest
    applying = Loosening(authority, *apply_call, do_apply, ("policy", "limits"))

    return [
        route(calls.APPLY_POLICY, apply),
        route(calls.POLICY, policy),
        route(calls.EXPLAIN, explain),
        route(calls.RESET_POLICY, reset),
    ]


def _texts(body: asks.ApplyRequest) -> dict[str, str]:
    limits = {} if body.limits is None else {"limits": body.limits}
    return {"policy": body.policy, **limits}


async def _wanted(broker: Broker, body: asks.ApplyRequest) -> Wanted:
    """Return the loosening of a policy to be applied."""
    _, policy = await preview(broker, _texts(body), body.plan)
    await check_rules(broker, policy, strict=body.strict)
    active = broker.deciding.policy
    texts = policy_changes(active.texts, policy.texts)
    kinds, named = policy_kinds(texts), " and ".join(one.name for one in texts)
    return Wanted(
        () if only_tightens(active, policy) else kinds or _POLICY,
        f"replace {named or 'the policy'}: version {active.version} becomes"
        f" {policy.version}",
        named or "policy.cedar",
        ("policy",),
        (*texts,),
        {**differences(active, policy), "plan": body.plan or None},
        body.reason,
    )


def _in_force(broker: Broker, warnings: Iterable[str] = ()) -> planning.PolicyInfo:
    deciding = broker.deciding
    return planning.PolicyInfo(
        warnings=tuple(warnings),
        version=deciding.policy.version,
        source=deciding.policy.source,
        text=deciding.policy.text,
        problem=deciding.state.problem,
        shadow=deciding.state.shadow,
        catalogue=_catalogue(deciding.policy.catalogue),
    )


async def _policy_of(broker: Broker, version: str) -> planning.PolicyInfo:
    """Return the policy of *version*, also if it could not be active today."""
    texts = await broker.ledger.read(read_texts, version)
    problem = None
    try:
        catalogue = _catalogue(PolicyTexts(**texts).catalogue())
    except PolicyError as error:
        catalogue, problem = {}, error.diagnosis()
    return planning.PolicyInfo(
        version=version,
        source="kept",
        text=texts["policy"],
        problem=problem,
        catalogue=catalogue,
        texts=texts,
    )


def _catalogue(catalogue: Catalogue) -> dict[str, shapes.ScopeInfo]:
    return {
        scope.name: shapes.ScopeInfo(
            description=scope.description,
            risk=scope.risk.value,
            revoking=scope.revoking,
        )
        for scope in catalogue
    }


def _query(request: Request) -> EventQuery:
    query = query_of(request, asks.AuditQuery)
    if query.after is not UNSET and query.before is not UNSET:
        raise UsageError("give 'after' or 'before', not both")
    return EventQuery(
        after=None if query.after is UNSET else query.after,
        before=None if query.before is UNSET else query.before,
        since=moment_of(query.since, "since"),
        until=moment_of(query.until, "until"),
        agent=None if query.agent is None else AgentId(query.agent),
        outcome=word_of(Outcome, query.outcome, "outcome"),
        type=word_of(EventType, query.type, "type"),
        q=query.q or None,
        limit=query.limit,
    )


def _explained(broker: Broker, body: asks.ExplainRequest) -> planning.ExplainInfo:
    action = body.action
    scopes = body.scopes or tuple(body.scope.split()) or ((action,) if action else ())
    if not scopes:
        raise UsageError("nothing to explain", "give 'action' or 'scope'")
    check_scopes(broker, (*scopes, action) if action else scopes)
    question = Action(
        scopes,
        action or scopes[0],
        body.resource or None,
        body.parameters,
        named=bool(action) or len(scopes) == 1,
        money=Money.of(body.unit, body.parameters),
    )
    environment = broker.deciding.surroundings.at(
        plain_address(body.source) if body.source else LOCAL,
        moment_of(body.now, "now"),
    )
    if body.country:
        environment = environment._replace(country=body.country)
    if body.depth:
        environment = environment._replace(delegated=True, depth=body.depth)
    agent = broker.registry.agent(body.agent_id)
    return explained(broker, agent, question, environment)


def explained(
    broker: Broker,
    agent: Agent,
    action: Action,
    environment: Environment | None = None,
) -> planning.ExplainInfo:
    """Return how policy would answer *action* for *agent*, by which rule."""
    at = environment or broker.deciding.surroundings.at(LOCAL)
    decide = partial(foresee_at, broker, environment=at)
    explanation = broker.deciding.policy.explain(decide, agent, action)
    verdict = explanation.verdict
    return shape_from(
        planning.ExplainInfo,
        verdict,
        decision=verdict.outcome.value,
        risk=verdict.risk.value,
        rule_text=explanation.source,
        rule_line=explanation.line,
        would_change=(
            *explanation.would_change,
            *_call_outs(broker, action, verdict.outcome),
        ),
        limits=tuple(_explained_limits(broker, verdict)),
    )


def _explained_limits(
    broker: Broker, verdict: Verdict
) -> Iterator[planning.ExplainedLimit]:
    facts: Mapping[str, Any] = verdict.facts
    for limit in broker.deciding.policy.limits.limits:
        held = facts.get("limits", {}).get(limit.attribute)
        if held and not limit.scopes.isdisjoint(facts["scopes"]):
            used, left, counted = held["count"], held["left"], limit.wording()
            words = limit.standing(used, left)
            yield planning.ExplainedLimit(
                id=limit.id, used=used, left=left, allows=counted, standing=words
            )


def _call_outs(broker: Broker, action: Action, outcome: Outcome) -> Iterator[str]:
    """Name the call-outs that the request itself would ask: explaining asks none."""
    if outcome is not Outcome.DENIED:
        for hook in broker.deciding.policy.limits.hooks_of(action):
            yield f"The call-out {hook.id} was not asked: it may make this stricter."


_MOST_LINKS: Final = 200


def event_routes(broker: Broker) -> list[Route]:
    """Return the routes about single events."""

    async def show(request: Request) -> history.EventProofInfo:
        """Return one event with its link of the chain."""
        event = await _event_asked(broker, request)
        (link,) = await broker.ledger.links([event.seq])
        return history.EventProofInfo(
            event=event_info(event),
            ledger=broker.ledger.ledger_id,
            **asdict(_link_info(link)),
        )

    async def links(request: Request) -> history.LinkList:
        """Return links of the chain by their numbers."""
        links = await broker.ledger.links(
            _numbers(query_of(request, asks.LinksQuery).seq)
        )
        return history.LinkList(
            ledger=broker.ledger.ledger_id, links=tuple(map(_link_info, links))
        )

    async def story(request: Request) -> history.StoryInfo:
        """Return the events that share a decision with one."""
        events = await broker.ledger.read(
            read_story, await _event_asked(broker, request)
        )
        return history.StoryInfo(
            events=tuple(map(event_info, events.events)), complete=events.complete
        )

    return [
        route(calls.LINKS, links),
        route(calls.EVENT, show),
        route(calls.STORY, story),
    ]


def _link_info(link: Link) -> history.LinkInfo:
    return history.LinkInfo(
        seq=link.seq, body=link.body, hash=link.hash, previous_hash=link.previous
    )


async def _event_asked(broker: Broker, request: Request) -> Event:
    event = await broker.ledger.event(request.path_params["seq"])
    if event is None:
        head = broker.ledger.head.seq
        raise NotFoundError("there is no such event", f"the last one is {head}")
    return event


def _numbers(listed: str) -> list[int]:
    parts = listed.split(",")
    if len(parts) > _MOST_LINKS:
        raise UsageError(f"'seq' may name {_MOST_LINKS} events at once")
    otherwise = "'seq' must be whole numbers with commas between them"
    return [integer_of(part, otherwise) for part in parts]
