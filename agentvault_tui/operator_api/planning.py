"""The operators' wire about the answers of policy, to requests and to the history."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType, field

from agentvault_tui.operator_api.requests import WireRequest
from agentvault_tui.operator_api.shapes import Moment, ScopeInfo, WireShape


class ExplainedLimit(WireShape, kw_only=True):
    """A limit of the request that was asked about, before it."""

    id: str
    used: int
    left: int
    allows: str
    standing: str = ""
    """Used and left, in words: the numbers may be ten-thousandths of a currency."""


class ExplainInfo(WireShape, kw_only=True):
    """Policy's answer, its rule, and the changes that would alter it."""

    decision: str
    reason: str
    rule: str
    why: str
    risk: str
    message: str
    policy_version: str
    rule_text: str | None
    rule_line: int | None
    would_change: tuple[str, ...]
    limits: tuple[ExplainedLimit, ...] = ()


class AmountSpanInfo(WireShape, kw_only=True):
    """The least and the largest amount of some decisions, in one currency."""

    currency: str
    """Empty where it is unknown."""
    unit_known: bool
    """Whether the amounts are in major units; otherwise their unit is unknown."""
    least: str
    most: str


class PlannedChangeInfo(WireShape, kw_only=True):
    """Decisions that another policy would have answered otherwise."""

    agent: str
    """The agent's id."""
    scope: str
    was: str = field(name="from")
    """The recorded outcome."""
    to: str
    """The outcome there would have been."""
    reason: str | UnsetType = UNSET
    """The reason, if policy itself would not give it: ``insufficient_scope``, of a call
    whose token lacks a scope that the other policy issues tokens for."""
    count: int = 0
    examples: list[int] = field(default_factory=list)
    """Events that are such decisions, oldest first."""
    amounts: list[AmountSpanInfo] = field(default_factory=list)
    """Their amounts, by currency."""


class MismatchInfo(WireShape, kw_only=True):
    """A record that does not follow from its own facts."""

    seq: int
    fact: str
    """The member that does not: ``rule``, ``outcome`` or ``reason``."""
    recorded: str | None
    decided: str


class ReplayInfo(WireShape, kw_only=True):
    """The result of deciding the recorded history again."""

    decisions: int = 0
    """Records that were decided again."""
    mismatches: int = 0
    first: MismatchInfo | None = None
    made: int = 0
    """Answers that were made; the others met the same facts again."""
    apart: dict[str, int] = field(default_factory=dict)
    """Records that cannot be decided again, by the reason why."""


class PromptsInfo(WireShape, kw_only=True):
    """Step-ups asked a day; requests that repeat one that waits count once."""

    now: float
    """As recorded."""
    then: float
    """As there would have been."""


class PlanInfo(WireShape, kw_only=True):
    """A candidate's answers to the recorded history."""

    digest: str
    """Over the candidate's texts and the version in effect, for ``policy apply``."""
    decisions: int
    mismatches: int
    """Records that do not follow from their own facts; see ``policy replay``."""
    changes: list[PlannedChangeInfo]
    prompts_per_day: PromptsInfo
    days: float
    """The span of the history, at least one."""
    made: int
    """Answers of the candidate that were made; the others met the same facts again."""
    apart: dict[str, int]
    """Records that the plan leaves out, or could not compare, by the reason why."""


class ShadowInfo(WireShape, kw_only=True):
    """A policy that decides next to the one in effect, and answers nothing."""

    version: str
    since: Moment
    decisions: int = 0
    differences: int = 0
    by: list[PlannedChangeInfo] = field(default_factory=list)


class PolicyInfo(WireShape, kw_only=True):
    """The policy in effect and the catalogue of scopes, by name."""

    version: str
    source: str = ""
    text: str
    problem: str | None = None
    warnings: tuple[str, ...] = ()
    """The report of ``policy check`` on the active policy, without refusing it."""
    shadow: ShadowInfo | None = None
    catalogue: dict[str, ScopeInfo]
    texts: dict[str, str] | UnsetType = UNSET
    """The texts of the requested version: policy, scopes and others."""


class PlanRequest(WireRequest, kw_only=True):
    """A policy to try against the recorded history; nothing is put in effect."""

    policy: Annotated[str, Meta(min_length=1)]
    """The text of the file."""
    since: str = ""
    """Leave out earlier records."""


class ShadowRequest(WireRequest, kw_only=True):
    """A policy to decide next to the one in effect from now on."""

    policy: str = ""
    """The text of the file; empty: none decides next to it any more."""
    limits: str | None = None
    """The text of limits that go with it; left out: those in effect, as they stand."""


class ShadowAnswer(WireShape, kw_only=True):
    """The shadow next to the active policy."""

    shadow: ShadowInfo | None
