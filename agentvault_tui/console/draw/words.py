"""The console's own words for the broker's codes, short and without blame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agentvault_tui.console.state.mirror import Mirror
from agentvault_tui.console.state.moments import plural
from agentvault_tui.console.state.records import AT, EventRow

if TYPE_CHECKING:
    from rich.style import Style

    from agentvault_tui.console.draw.theme import Palette

_REFUSALS: Final = {
    "agent_revoked": "this agent is revoked",
    "already_used": "its approval was used already",
    "ambiguous_body": "its body can be read in two ways",
    "ambiguous_headers": "its headers can be read in two ways",
    "ambiguous_query": "its query can be read in two ways",
    "ask_at_the_gateway": "its token does not state all that it sends",
    "bad_path": "its path can be read in two ways",
    "bad_query": "its query cannot be decoded",
    "body_too_large": "its body is too large",
    "cooling_down": "asked again too soon after a denial",
    "digest_mismatch": "it is not what was approved",
    "header_not_listed": "it has a header that its route does not list",
    "hook_denied": "a call-out denied it",
    "hook_failed": "a call-out did not answer as it must",
    "insufficient_scope": "its token lacks the scope",
    "limit_reached": "a limit is reached",
    "on_trial": "taken away on trial, and can be given back",
    "method_override": "it names another method",
    "no_route": "no route or tool of its file matches it",
    "not_connected": "no account is connected",
    "panic": "everything is stopped",
    "parameter_required": "it lacks a value that its route requires",
    "policy_forbids": "policy forbids it",
    "scope_not_granted": "not granted",
    "stepup_denied": "a person denied it",
    "too_many_pending": "too many requests wait already",
    "too_many_tokens": "it holds too many tokens already",
    "unexpected_body": "its route takes no body",
    "unknown_connection": "nobody said what that connection is for",
    "unknown_service": "no file describes that service",
    "unreadable_body": "its body cannot be read",
    "unsupported_body": "its route takes no such body",
}
_ENDINGS: Final = {
    "allowed_by_policy": "policy alone allowed it",
    "handed back": "",  # RETURNED says it
    "policy_changed": "the policy changed",
}
"""What a token was used up or ended for, where no person said it in words."""
_LOUD: Final = frozenset(
    {
        "agent.flooding",
        "agent.revoked",
        "alert.dead",
        "audit.ambiguous",
        "clock.jump",
        "export.skipped",
        "panic.on",
        "tenant.away",
        "tenant.log_gap",
        "tenant.user_changed",
    }
)


_WAITING: Final = frozenset({"stepup.authorizing", "stepup.requested"})
_DECIDED: Final = frozenset(
    {
        "advice.applied",
        "advice.dismissed",
        "advice.given_back",
        "agent.changed",
        "agent.restored",
        "agent.scopes_changed",
        "change.applied",
        "config.applied",
        "panic.off",
        "policy.changed",
        "secret.changed",
        "service.changed",
        "service.probed",
        "stepup.approved",
        "stepup.confirmed",
        "stepup.denied",
        "stepup.not_approved",
        "stepup.repeat_ended",
        "token.not_exchanged",
    }
)
"""What a person decided, and what did not come about."""
_DAILY: Final = frozenset(
    {
        "gateway.result",
        "gateway.tunnel",
        "token.delegated",
        "token.exchanged",
        "token.revoked",
        "token.used",
    }
)
"""As frequent as what is allowed, and as quiet; a cut has an event of its own."""


_UNDECIDED: Final = {
    "gateway.attempt": "a tunnel",
    "gateway.refused": "a call",
    "gateway.tunnel": "a tunnel",
}
"""What is no action of policy's: its name would be cut where actions stand."""


def population(mirror: Mirror) -> str:
    """Say how many agents and resource servers there are."""
    servers = len(mirror.servers)
    told = plural(len(mirror.agents) - servers, "agent")
    return f"{told} and {plural(servers, 'resource server')}" if servers else told


def refusal(reason: str) -> str:
    """Say what a reason of refusals means; one that is not ours stands for itself."""
    return _REFUSALS.get(reason, reason)


def loud(event: EventRow) -> bool:
    """Tell whether an event without an outcome should catch the eye."""
    return event.type in _LOUD


def deed(event: EventRow) -> str:
    """Say what was done; of a row of the tenant's log what its code means.

    The code itself stands in the event in full.
    """
    means = event.reason if event.type == "tenant.log" else ""
    undecided = _UNDECIDED.get(event.type)
    if undecided and not event.action:
        return event.note or undecided
    return means or event.action or event.type


def note(event: EventRow) -> str:
    """Say how much it moves; empty where that is the deed itself."""
    return "" if event.note == deed(event) else event.note


def style(palette: Palette, event: EventRow) -> Style:
    """Return how an event's word is written: what matters more shines more."""
    if event.outcome:
        return palette.outcome(event.outcome)
    if event.type in _WAITING:
        return palette.waiting
    if event.type in _DECIDED:
        return palette.strong
    if event.type == "gateway.result" and not event.reason.startswith(("2", "3")):
        return palette.waiting
    if event.type in _DAILY:
        return palette.allowed
    return palette.danger if loud(event) else palette.text


def place(event: EventRow) -> str:
    """Say on what something was done; how much of it is the event's note."""
    at = event.resource.startswith(AT)
    return f"at {event.resource.removeprefix(AT)}" if at else event.resource


def beside(event: EventRow, said: str) -> list[str]:
    """Return what stands beside the deed: on what, then what is *said* of it."""
    on = " ".join(part for part in (note(event), place(event)) if part)
    parts = (on, "" if said == deed(event) else said)
    return [part for part in parts if part]


def came(event: EventRow) -> str:
    """Say what came of a call, beside its word; empty for any other event."""
    return event.reason.partition(" ")[2] if event.type == "gateway.result" else ""


def why(mirror: Mirror, event: EventRow) -> str:
    """Say why an event turned out as it did; empty when it needs no word."""
    if event.outcome == "denied":
        text = _REFUSALS.get(event.reason, event.reason)
        agent = mirror.agents.get(event.agent_id)
        if event.reason == "scope_not_granted" and agent:
            granted = ", ".join(scope.name for scope in agent.scopes) or "nothing"
            text = f"{text}; granted: {granted}"
        elif event.rule and event.reason == "policy_forbids":
            text = f"{text}: {event.rule}"
        return text
    if event.type == "stepup.requested":
        # It loads rich, which no command's help is to wait for.
        from agentvault_tui.console.draw.lines import masked  # noqa: PLC0415

        return masked(event.reason).text  # the agent's own words
    if event.outcome == "escalated":
        return event.rule
    return "" if event.outcome else _ENDINGS.get(event.reason, event.reason)
