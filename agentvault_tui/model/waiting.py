"""The states of requests that wait for a person, and repeats approved with one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple

from agentvault_tui.clock import Deadline

UNSEEN_PARTS: Final = (
    "This approves a token for the action above. The content, query and headers of the "
    "request it is used for are not shown: the gateway opens only requests that say no "
    "more."
)
"""The warning where a token is approved, and not one request."""
CHANGE_KINDS: Final = (
    *("policy", "limits", "services", "secrets", "issuers", "connections", "rules"),
    *("alerts", "agents", "panic", "tokens", "team", "people"),
)
"""The subjects of a change; ``[[changes.rules]]`` names them."""
CHANGE_ID: Final = "chg"
"""Prefix of the ids of changes that wait, which are step-ups otherwise."""


class StepUpStatus(StrEnum):
    """The state of a step-up."""

    PENDING = "pending"
    AUTHORIZING = "authorizing"
    APPROVED = "approved"
    REDEEMED = "redeemed"
    DENIED = "denied"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    APPLIED = "applied"
    """Of a change: it was approved, and carried out."""

    @property
    def open(self) -> bool:
        """Check whether a decision is still possible."""
        return self in {StepUpStatus.PENDING, StepUpStatus.AUTHORIZING}


class ParameterBound(NamedTuple):
    """The largest value of a parameter that a repeat may have."""

    name: str
    most: int


BOUNDED: Final = ("amount", "count", "recipients")
"""Parameters that a repeat may bound: amounts and counts only."""


def repeat_words(count: int, within: int, bounds: Mapping[str, int]) -> str:
    """Word the repeats that are approved with a request, the same on every face.

    Args:
        count: how often more.
        within: for how many seconds.
        bounds: the largest value of each parameter that may differ.

    Returns:
        words for the middle of a sentence.
    """
    least = "".join(f", {n} up to {bounds[n]:,}" for n in BOUNDED if n in bounds)
    return f"the next {count} like it within {within:,} s{least}"


@dataclass(frozen=True, slots=True)
class Repeat:
    """How often more, and for how long, the same is approved with one proof."""

    count: int
    within: int
    """Seconds, from the proof."""
    bounds: tuple[ParameterBound, ...] = ()
    """Sorted; every other parameter has to be the same."""
    left: int = 0
    """How often it still replaces a person; 0 before the approval."""
    expires: Deadline | None = None
    """Set by the approval."""

    @property
    def request(self) -> dict[str, Any]:
        """Return the subject of the decision, as digest, events and pages have it."""
        bounds = {bound.name: {"max": bound.most} for bound in self.bounds}
        return {"count": self.count, "within": self.within, "bounds": bounds}
