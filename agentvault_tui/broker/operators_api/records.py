"""``/api/audit``, ``/api/events``, ``/api/status`` and ``/api/policy``."""

from __future__ import annotations

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from agentvault_tui.broker.authority import Authority, Need
from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.feed import Feed
from agentvault_tui.broker.operators_api.seats import face_of, seated
from agentvault_tui.broker.operators_api.wire import (
    answer,
    body_of,
    integer_of,
    limit_of,
    listing,
    moment_of,
    operator_of,
    strings_of,
    text_of,
    whole,
)
from agentvault_tui.broker.presence import Presence
from agentvault_tui.broker.shapes import event_shape
from agentvault_tui.broker.status import status_shape
from agentvault_tui.broker.usecases.policy_change import reset_policy
from agentvault_tui.broker.usecases.register import check_scopes
from agentvault_tui.errors import UsageError
from agentvault_tui.ledger import EventQuery
from agentvault_tui.model import Action, AgentId, EventType, Outcome

_PAGE: Final = 100
_MOST: Final = 1000
_QUESTION: Final = ("agent_id", "scope", "scopes", "action", "resource", "parameters")


def routes(
    broker: Broker, feed: Feed, presence: Presence, authority: Authority
) -> list[Route]:
    """Return the routes about records, status and policy."""

    async def audit(request: Request) -> Response:
        page = await broker.ledger.events(_query(request))
        return await listing("events", map(event_shape, page.events), next=page.next)

    async def events(request: Request) -> Response:
        raw = request.headers.get("last-event-id")
        otherwise = "Last-Event-ID is not a sequence number"
        frames = feed.stream(None if raw is None else whole(raw, otherwise))
        return StreamingResponse(
            seated(request, presence, face_of(request), frames),
            media_type="text/event-stream",
            headers={"X-Accel-Buffering": "no"},
        )

    async def status(_: Request) -> Response:
        return answer(status_shape(broker))

    return [
        Route("/api/audit", audit, methods=["GET"]),
        Route("/api/events", events, methods=["GET"]),
        Route("/api/status", status, methods=["GET"]),
        *_policy_routes(broker, authority),
    ]


def _policy_routes(broker: Broker, authority: Authority) -> list[Route]:
    async def policy(_: Request) -> Response:
        """Give the policy in force, as text, and the catalogue of scopes."""
        return answer(
            {
                "version": broker.policy.version,
                "source": broker.policy.source,
                "text": broker.policy.text,
                "problem": broker.policy_problem,
                "catalogue": {
                    scope.name: {
                        "description": scope.description,
                        "risk": scope.risk.value,
                        "revoking": scope.revoking,
                    }
                    for scope in broker.policy.catalogue
                },
            }
        )

    async def explain(request: Request) -> Response:
        body = await body_of(request, _QUESTION)
        return answer(_explained(broker, body))

    async def reset(request: Request) -> Response:
        """Let the shipped files count in the place of those that are gone."""
        await body_of(request, ())
        who = operator_of(request)
        operator = await authority.actor(who, Need.GIVE, "the shipped policy")
        await reset_policy(broker, operator)
        return await policy(request)

    return [
        Route("/api/policy", policy, methods=["GET"]),
        Route("/api/policy/explain", explain, methods=["POST"]),
        Route("/api/policy/reset", reset, methods=["POST"]),
    ]


def _query(request: Request) -> EventQuery:
    after, before = integer_of(request, "after"), integer_of(request, "before")
    if after is not None and before is not None:
        raise UsageError("give 'after' or 'before', not both")
    query = request.query_params
    return EventQuery(
        after=after,
        before=before,
        since=moment_of(request, "since"),
        until=moment_of(request, "until"),
        agent=AgentId(query["agent"]) if "agent" in query else None,
        outcome=_word(Outcome, query.get("outcome"), "outcome"),
        type=_word(EventType, query.get("type"), "type"),
        q=query.get("q") or None,
        limit=limit_of(request, _PAGE, _MOST),
    )


def _word(kind: Any, value: str | None, name: str) -> Any:
    if value is None:
        return None
    try:
        return kind(value)
    except ValueError as error:
        words = ", ".join(member.value for member in kind)
        raise UsageError(f"unknown {name}", f"one of {words}") from error


def _explained(broker: Broker, body: dict[str, Any]) -> dict[str, Any]:
    action = text_of(body, "action", required=False)
    scopes = strings_of(body, "scopes") or tuple(
        text_of(body, "scope", required=False).split()
    )
    scopes = scopes or ((action,) if action else ())
    if not scopes:
        raise UsageError("nothing to explain", "give 'action' or 'scope'")
    check_scopes(broker, (*scopes, action) if action else scopes)
    parameters = body.get("parameters", {})
    if not isinstance(parameters, dict):
        raise UsageError("'parameters' must be an object")
    agent = broker.registry.agent(text_of(body, "agent_id"))
    question = Action(
        scopes,
        action or scopes[0],
        text_of(body, "resource", required=False) or None,
        parameters,
        named=bool(action) or len(scopes) == 1,
    )
    explanation = broker.policy.explain(agent, question)
    verdict = explanation.verdict
    return {
        "decision": verdict.outcome.value,
        "reason": verdict.reason,
        "rule": verdict.rule,
        "why": verdict.why,
        "risk": verdict.risk.value,
        "message": verdict.message,
        "policy_version": verdict.policy_version,
        "rule_text": explanation.source,
        "rule_line": explanation.line,
        "would_change": list(explanation.would_change),
    }
