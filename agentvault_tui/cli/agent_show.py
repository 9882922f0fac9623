"""Prints one agent: scopes, tokens, activity, and what a revocation ends."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from agentvault_tui.cli.output import Output
from agentvault_tui.clock import SystemClock
from agentvault_tui.console.draw.glyphs import (
    ASCII_LEVELS,
    UNICODE_LEVELS,
    bars,
    fold_for,
    folded,
)
from agentvault_tui.console.state.intake import Intake
from agentvault_tui.console.state.moments import plural
from agentvault_tui.console.state.records import QUARTERS
from agentvault_tui.console.state.revocations import elsewhere, forecast
from agentvault_tui.operator_api.history import (
    ActivityInfo,
    QuartersInfo,
    RevokedInfo,
    RevokeForecast,
    ScopeUseInfo,
)
from agentvault_tui.operator_api.shapes import OUTCOMES, AgentInfo, ScopeInfo

_BESIDE: Final = 24
"""Cells beside the bars of a day: the word, and the largest number."""


def print_agent(
    out: Output,
    agent: AgentInfo,
    activity: ActivityInfo,
    catalogue: dict[str, ScopeInfo],
) -> None:
    """Print everything that is known of one agent."""
    _identity(out, agent, activity)
    if agent.status == "revoked":
        print_elsewhere(out, agent)
    else:
        intake, cut = Intake(ascii_only=out.ascii_only), activity.revoke
        intake.learn(catalogue)
        elevated = f" ({cut.elevated} elevated)" if cut.elevated else ""
        row, now = intake.agent(agent), SystemClock().now()
        for line in forecast(row, _ended(cut, elevated), now):
            out.line(line)
    if activity.scopes:
        _scopes(out, activity.scopes, catalogue)
    _day(out, activity.quarters)
    if activity.denials:
        out.line()
        rows = [(one.reason, one.count, one.last_at) for one in activity.denials]
        out.table(("DENIED FOR", "TIMES", "LAST"), rows)
    if agent.listed_tokens:
        out.line()
        tokens = [(t.id, t.kind, t.expires_at, t.scope) for t in agent.listed_tokens]
        out.table(("TOKEN", "KIND", "EXPIRES", "SCOPE"), tokens)


def _identity(out: Output, agent: AgentInfo, activity: ActivityInfo) -> None:
    counts = agent.counts
    out.fields(
        [
            ("agent", out.cell(agent.name, "strong")),
            ("id", agent.id),
            ("owner", agent.owner),
            ("purpose", agent.purpose),
            ("status", out.word(agent.status)),
            ("registered", agent.created_at),
            ("last seen", agent.last_seen_at),
            (
                "answers",
                ", ".join(f"{getattr(counts, word)} {word}" for word in OUTCOMES),
            ),
            ("live tokens", agent.live_tokens),
            *serving(agent),
            *(_revoked(agent, activity) if agent.status == "revoked" else ()),
        ]
    )


def serving(agent: AgentInfo) -> list[tuple[str, object]]:
    """Return what a resource server serves; nothing for other agents."""
    if not agent.resource_server:
        return []
    serves = " ".join(agent.serves) or "every scope"
    resources = " ".join(agent.resources) or "every resource"
    return [("serves", serves), ("serves on", resources)]


def _revoked(agent: AgentInfo, activity: ActivityInfo) -> list[tuple[str, object]]:
    """Return who revoked it, why, and what that ended."""
    was = activity.revoked
    if was is None:
        return [("revoked at", f"{agent.revoked_at}; its record follows")]
    fields: list[tuple[str, object]] = [
        ("revoked at", agent.revoked_at),
        ("revoked by", was.by),
    ]
    if was.reason:
        fields.append(("reason", was.reason))
    return [*fields, ("that ended", _ended(was))]


def _ended(cut: RevokeForecast | RevokedInfo, elevated: str = "") -> str:
    tokens, stepups = plural(cut.tokens, "token"), plural(cut.stepups, "step-up")
    return f"{tokens}{elevated}, {stepups}"


def print_elsewhere(out: Output, agent: AgentInfo) -> None:
    """Print how far the tenant and providers are with an agent that was revoked."""
    row = Intake(ascii_only=out.ascii_only).agent(agent)
    for line in elsewhere(row, SystemClock().now()):
        out.line(line.strip())


def _scopes(
    out: Output, scopes: Iterable[ScopeUseInfo], catalogue: dict[str, ScopeInfo]
) -> None:
    out.line()
    rows: list[list[object]] = []
    for use in scopes:
        known = catalogue.get(use.scope)
        words = known.description if known else None
        words = words if use.granted else "not granted"
        rows.append(
            [
                use.scope,
                out.word(known.risk if known else None),
                *(use.uses, use.denied, use.escalated),
                use.last_used_at or "never",
                words,
            ]
        )
    out.table(
        ("SCOPE", "RISK", "USED", "DENIED", "ESCALATED", "LAST USED", "LETS IT"),
        rows,
        keep=("SCOPE", "LAST USED"),
    )


def _day(out: Output, day: QuartersInfo) -> None:
    """Print the last 24 hours, a row an outcome, folded to the terminal's width."""
    fold = fold_for((out.width or QUARTERS + _BESIDE) - _BESIDE)
    levels = ASCII_LEVELS if out.ascii_only else UNICODE_LEVELS
    out.line()
    minutes = fold * day.seconds // 60
    out.line(
        out.cell(
            f"last 24 hours, {minutes} min a mark, from {day.start[:16]}Z", "quiet"
        )
    )
    for word in OUTCOMES:
        numbers = folded(getattr(day, word), fold)
        total = f"  {sum(numbers)}, at most {max(numbers)}" if any(numbers) else "  0"
        out.line(
            out.cell(word.ljust(9), "quiet"),
            "  ",
            bars(numbers, levels),
            out.cell(total),
        )
