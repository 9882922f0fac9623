"""A row of the audit: the action, its object, and the reason for its outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agentvault_tui.presenters.directory import Directory
from agentvault_tui.presenters.outcomes import event_phrase, reason_words
from agentvault_tui.presenters.records import AT, EventRow

if TYPE_CHECKING:
    from rich.style import Style

    from agentvault_tui.presenters.theme import Palette

_ENDINGS: Final = {
    "allowed_by_policy": "policy alone allowed it",
    "granted": "",
    "handed back": "returned by its agent",
    "agent_revoked": "",
    "policy_changed": "the policy changed",
    "stepup_required": "",
}
"""Reasons of events that are no refusal; the outcome word says the empty ones."""
_LIMIT: Final = "limit:"
"""The beginning of the rule of an answer that a limit gave."""
_LOUD: Final = frozenset(
    {
        "agent.flooding",
        "agent.revoked",
        "alert.dead",
        "audit.ambiguous",
        "clock.jump",
        "export.skipped",
        "operator.not_signed_in",
        "operator.refused",
        "panic.on",
        "tenant.away",
        "tenant.keys_changed",
        "tenant.log_gap",
        "tenant.user_changed",
    }
)


def loud(event: EventRow) -> bool:
    """Check whether an event that is no request should catch the eye."""
    return event.type in _LOUD


def deed(event: EventRow) -> str:
    """Name the action: a scope, a method with its path, a tool, or an event.

    A row of the tenant's log is named by the meaning of its code.
    """
    if event.type == "tenant.log" and event.reason:
        return event.reason
    if event.word == "changed":
        phrase = event_phrase(event.type)
        return f"{phrase}: {event.action}" if event.action else phrase
    return event.action or event.note or event_phrase(event.type)


def note(event: EventRow) -> str:
    """Say how much it moves; empty where that names the action already."""
    return "" if event.note == deed(event) else event.note


def style(palette: Palette, event: EventRow) -> Style:
    """Return the style of an event's outcome word: important ones are brighter."""
    if event.word == "changed":
        return palette.danger if loud(event) else palette.text
    return {
        "allowed": palette.allowed,
        "done": palette.allowed,
        "waiting": palette.waiting,
        "unknown": palette.waiting,
        "cut": palette.strong,
    }.get(event.word, palette.danger)


def place(event: EventRow) -> str:
    """Word the resource of an action; the amount is in the event's note."""
    at = event.resource.startswith(AT)
    return f"at {event.resource.removeprefix(AT)}" if at else event.resource


def target(event: EventRow) -> str:
    """Name the subject: the resource, then the amount."""
    return "  ".join(part for part in (place(event), note(event)) if part)


def why(directory: Directory, event: EventRow) -> str:
    """Say why an event turned out as it did; empty when it needs no word."""
    if event.outcome == "denied":
        text = reason_words(event.reason)
        agent = directory.agents.get(event.agent_id)
        if event.reason == "scope_not_granted" and agent:
            names = [scope.name for scope in directory.intake.grants(agent)]
            text = f"{text}; granted: {', '.join(names) or 'nothing'}"
        elif event.rule and event.reason == "policy_forbids":
            text = f"{text}: {event.rule}"
        elif event.rule and event.reason == "limit_reached":
            text = f"limit {event.rule.removeprefix(_LIMIT)} is reached"
        return text
    if event.type == "stepup.requested":
        # It loads rich, which no command's help is to wait for.
        from agentvault_tui.presenters.lines import masked  # noqa: PLC0415

        return masked(event.reason).text  # the agent's own words
    if event.type == "stepup.expired":
        return reason_words("stepup_expired")
    if event.outcome == "escalated":
        return event.rule
    if event.outcome or event.type == "tenant.log":
        return ""
    return _ENDINGS.get(event.reason, event.reason)
