"""AuthZEN Authorization API 1.0: evaluations in, decisions out; nothing is issued."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, assert_never

from agentvault_tui.broker.agents_api.action import unknown_scope
from agentvault_tui.broker.agents_api.replies import OAuthError, malformed
from agentvault_tui.broker.answers import (
    POLL_INTERVAL,
    Denied,
    Escalated,
    Permitted,
)
from agentvault_tui.model import Action, Agent, Outcome
from agentvault_tui.policy.catalogue import Catalogue
from agentvault_tui.policy.resources import canonical_resource

EVALUATION: Final = "/access/v1/evaluation"
EVALUATIONS: Final = "/access/v1/evaluations"
MOST: Final = 64
"""Evaluations in one request."""
_STOPS: Final = {
    "execute_all": None,
    "deny_on_first_deny": False,
    "permit_on_first_permit": True,
}
"""The decision after which an ``evaluations_semantic`` (section 7.1.2) stops."""
_WAIT: Final = re.compile(rb'(?:^|,)\s*wait\s*=\s*"?([0-9]{1,6})"?\s*(?:$|[,;])')


def pdp_metadata(issuer: str) -> dict[str, object]:
    """Return the metadata of the policy decision point at *issuer* (section 9)."""
    return {
        "policy_decision_point": issuer,
        "access_evaluation_endpoint": issuer + EVALUATION,
        "access_evaluations_endpoint": issuer + EVALUATIONS,
    }


def read_evaluation(
    body: Mapping[str, Any], caller: Agent, catalogue: Catalogue
) -> Action:
    """Return the action that an evaluation asks about (section 6.1).

    The subject is the caller; it may be left out. Further members of a subject, an
    action or a resource are ignored.

    Raises:
        OAuthError: 400 for malformed requests and for an unknown scope, 403 for another
            subject than the caller.
    """
    subject = _object(body, "subject")
    if subject is not None:
        _text(subject, "subject", "type")
        if _text(subject, "subject", "id") != caller.client_id:
            text = "the subject is not the caller: an agent asks about itself alone"
            raise OAuthError(403, "access_denied", text)
    action, resource = _object(body, "action"), _object(body, "resource")
    if action is None or resource is None:
        raise malformed("action and resource are needed, each an object")
    scope = _text(action, "action", "name")
    if scope not in catalogue:
        raise unknown_scope(scope, scope, catalogue)
    kind, name = (_text(resource, "resource", one) for one in ("type", "id"))
    reason = (_object(body, "context") or {}).get("reason")
    if reason is not None and not isinstance(reason, str):
        raise malformed("context.reason must be a string")
    return Action(
        (scope,),
        scope,
        canonical_resource(f"{kind}:{name}"),
        _object(action, "properties") or {},
        reason or None,
    )


def read_batch(form: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], bool | None]:
    """Return the evaluations of a request, and the decision after which to stop.

    Members that an evaluation omits are next to the array (section 7.1.1).

    Raises:
        OAuthError: the request as a whole makes no sense.
    """
    options = _object(form, "options") or {}
    semantic = options.get("evaluations_semantic", "execute_all")
    if not isinstance(semantic, str) or semantic not in _STOPS:
        raise malformed(f"evaluations_semantic must be one of {', '.join(_STOPS)}")
    many = form.get("evaluations", [])
    if not isinstance(many, list) or len(many) > MOST:
        raise malformed(f"evaluations must be an array of at most {MOST}")
    if not all(isinstance(one, dict) for one in many):
        raise malformed("each evaluation must be an object")
    defaults = {
        name: form[name]
        for name in ("subject", "action", "resource", "context")
        if name in form
    }
    return [defaults | one for one in many], _STOPS[semantic]


def decision_of(answer: Permitted | Denied | Escalated) -> dict[str, object]:
    """Return the decision (section 6.2) of an answer."""
    context: dict[str, object] = {"decision_id": answer.decision_id}
    if isinstance(answer, Denied) and answer.retry_after is not None:
        context["retry_after"] = answer.retry_after
    match answer:
        case Permitted():
            outcome, reason = Outcome.ALLOWED, answer.reason
        case Denied():
            outcome, reason = Outcome.DENIED, answer.reason
        case Escalated():
            outcome, reason = Outcome.ESCALATED, "stepup_required"
            context |= {
                "auth_req_id": answer.stepup.id,
                "expires_in": answer.expires_in,
                "interval": POLL_INTERVAL,
            }
        case _:
            assert_never(answer)
    context |= {"outcome": outcome, "reason": reason, "message": answer.message}
    return {"decision": outcome is Outcome.ALLOWED, "context": context}


def fault_of(fault: OAuthError) -> dict[str, object]:
    """Return the decision for one evaluation of several that makes no sense (7.2.1)."""
    error = {"status": fault.status, "message": fault.text}
    return {"decision": False, "context": {"reason": fault.error, "error": error}}


def wait_of(prefer: bytes) -> float:
    """Return how long a client wants to wait for a person (RFC 7240 section 4.3)."""
    match = _WAIT.search(prefer.lower())
    return float(match[1]) if match else 0.0


def _object(table: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    value = table.get(name)
    if value is None or isinstance(value, dict):
        return value
    raise malformed(f"{name} must be an object")


def _text(table: Mapping[str, Any], of: str, name: str) -> str:
    value = table.get(name)
    if not isinstance(value, str) or not value:
        raise malformed(f"{of}.{name} is missing, or no string")
    return value
