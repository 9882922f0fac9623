"""The operators' wire about authority that agents do not need."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType, field

from agentvault_tui.operator_api.planning import AmountSpanInfo
from agentvault_tui.operator_api.requests import WireRequest
from agentvault_tui.operator_api.shapes import Json, Moment, WireShape


class AdviceEvidence(WireShape, kw_only=True):
    """The recorded history's evidence for a piece of advice."""

    since: Moment
    until: Moment
    count: int = 0
    """Uses in that time."""
    last_used_at: Moment | None = None
    """In the whole history."""
    rhythm: str = "none"
    """By the median gap between days of use, over the whole history: ``daily``,
    ``weekly``, ``monthly`` or ``none``."""
    would_have_refused: int = 0
    """Requests in that time that were not denied and would have been."""
    refused: list[int] = field(default_factory=list)
    """Events that are such requests, at most 20."""
    prompts_saved: int = 0
    amounts: list[AmountSpanInfo] = field(default_factory=list)
    """Of the requests that a person approved, by currency."""


class AdvisedChange(WireShape, kw_only=True, omit_defaults=True):
    """The advice; exactly one member is present."""

    ungrant: list[str] | UnsetType = UNSET
    rule: str | UnsetType = UNSET
    """Cedar."""
    limit: Json | UnsetType = UNSET
    """A table for ``limits.toml``."""
    revoke: bool | UnsetType = UNSET


class AdviceInfo(WireShape, kw_only=True):
    """One piece of advice."""

    id: str
    kind: str
    """``unused_scope``, ``narrower_resource``, ``lower_limit``, ``idle_agent``,
    ``rule_never_matched``, ``always_approved`` or ``growth``."""
    agent_id: str
    """Empty where it is about the policy."""
    scope: str
    evidence: AdviceEvidence
    change: AdvisedChange
    status: str = "open"
    """``open``, ``on_trial``, ``kept``, ``given_back`` or ``dismissed``."""
    trial_ends_at: Moment | None = None


class HitRateInfo(WireShape, kw_only=True):
    """How often advice was taken, and taken back."""

    applied: int = 0
    given_back: int = 0


class AdviceList(WireShape, kw_only=True):
    """Advice, trials first."""

    advice: list[AdviceInfo]
    hit_rate: HitRateInfo
    window: int = 0
    """Seconds of the history that counted as now."""


class AdviceQuery(WireRequest, kw_only=True):
    """Which advice."""

    agent: str = ""
    window: Annotated[int, Meta(ge=0, le=10 * 366 * 86_400)] = 0
    """Seconds of the history that count as now; 0 for ``policy.advice_window``."""
    all: bool = False
    """Also advice that was kept, given back or dismissed."""


class ApplyAdviceRequest(WireRequest, kw_only=True):
    """Apply advice, on trial."""

    seconds: Annotated[int, Meta(ge=1, le=366 * 86_400)] = 7 * 86_400
    """How long the trial lasts."""
