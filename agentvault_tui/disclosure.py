"""Selects the public part of an event if no details are wanted.

An agent chooses the words of many members: its reason, parameters, queries, headers,
names of tools, and quotes of them in messages. So nothing is withheld by name: of
events that agents cause, only the members listed here leave. Action, resource and the
agent's name always leave, since they are an event's subject.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_OURS: Final = frozenset(
    (
        *("panic", "agent", "policy", "change", "config", "advice", "service"),
        *("secret", "connection", "upstream", "operator", "broker", "ledger"),
        *("state", "audit", "store", "alert", "export", "clock"),
    )
)
"""Families of events in which only operators and the broker write."""
_CODES: Final = frozenset({"token", "access", "gateway", "mcp", "run", "tenant"})
"""Families of events with a stable code as the reason, or a sentence of the broker."""
_DECIDED: Final = frozenset(
    (
        *("stepup.authorizing", "stepup.not_approved", "stepup.confirmed"),
        *("stepup.repeat_ended", "stepup.denied", "stepup.expired"),
        "stepup.cancelled",
    )
)
"""Events of step-ups with a reason of the broker, or of the person who decided."""
_MEMBERS: Final = frozenset(
    (
        # Ids, hashes and versions.
        *("token_id", "parent_token_id", "stepup_id", "call_id", "for", "log_id"),
        *("digest", "nonce", "body_sha256", "arguments_sha256", "token_sha256"),
        *("id_token_sha256", "policy_version", "chain", "pass_on_to", "broker"),
        *("money", "account", "repeat_of", "client_id", "user_id", "sub", "user"),
        # Scopes and names of the catalogue, the settings and the service files.
        *("scope", "asked_scope", "provider_scope", "risk", "service", "server"),
        # Codes, and what a parser with a fixed vocabulary read.
        *("verdict", "hooks", "status", "ended", "method", "error", "type", "change"),
        # Numbers, truth values and times.
        *("count", "need", "have", "ttl", "retry_after", "expires_at", "expires_in"),
        *("single_use", "evaluation", "fresh", "tool_error", "token_lacks_scope"),
        *("token_narrowed", "run_id", "layers", "weaker", "seen", "more"),
        *("bytes", "bytes_in", "bytes_out", "body_bytes", "port", "ms", "date"),
        *("cooling_until", "denials", "repeat", "repeat_left", "took_effect_at"),
        *("token_fetch_before", "auth_time", "seconds", "issuer", "ip", "roles"),
        # People, and what vouched for them or for the agent.
        *("by", "decided_by", "amr", "cut_by", "asked_by", "authenticated_as"),
        "agent",
    )
)
_BODY: Final = ("body_bytes", "body_sha256")
"""Members of a held call that leave; its URL, headers and types do not."""


def public_reason(event: Mapping[str, Any]) -> str | None:
    """Return an event's reason, unless it may be an agent's words.

    Args:
        event: the event, with `type`, `actor` and `reason` as the operators' API
            writes them.

    Returns:
        the reason; None if there is none, or it may be an agent's.
    """
    kind, by = event["type"], event["actor"]["kind"]
    family = kind.partition(".")[0]
    asked_by_person = kind == "stepup.requested" and by == "operator"
    public = family in _OURS | _CODES or kind in _DECIDED or asked_by_person
    return event["reason"] if public else None


def public_detail(kind: str, detail: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of an event's detail that hold no words of an agent.

    Args:
        kind: the type of the event.
        detail: its detail.

    Returns:
        those members.
    """
    if kind.partition(".")[0] in _OURS:
        return dict(detail)
    public = {name: value for name, value in detail.items() if name in _MEMBERS}
    if isinstance(request := detail.get("request"), Mapping):
        public |= {name: request[name] for name in _BODY if name in request}
    return public
