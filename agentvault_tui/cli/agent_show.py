"""One agent for a person's eyes: what it may do, holds, did; what a revoke ends."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Final

from agentvault_tui.cli.output import Cell, Output
from agentvault_tui.clock import SystemClock, parse_iso
from agentvault_tui.console.draw.glyphs import (
    ASCII_LEVELS,
    UNICODE_LEVELS,
    bars,
    fold_for,
    folded,
)
from agentvault_tui.console.state.moments import plural
from agentvault_tui.console.state.records import QUARTERS
from agentvault_tui.operator_api.history import (
    ActivityInfo,
    QuartersInfo,
    RevokedInfo,
    RevokeForecast,
    ScopeUseInfo,
)
from agentvault_tui.operator_api.shapes import (
    OUTCOMES,
    AccountInfo,
    AgentInfo,
    AgentRef,
    RevokeAnswer,
    ScopeInfo,
    StepInfo,
    TokenInfo,
)

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
    if activity.scopes:
        _scopes(out, activity.scopes, catalogue)
    _day(out, activity.quarters)
    if activity.denials:
        out.line()
        out.table(
            ("DENIED FOR", "TIMES", "LAST"),
            [
                [
                    out.cell(denial.reason),
                    out.cell(denial.count),
                    out.cell(denial.last_at),
                ]
                for denial in activity.denials
            ],
        )
    if agent.listed_tokens:
        _tokens(out, agent.listed_tokens)


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
            *revoking(agent, activity),
            *at_tenant(agent),
        ]
    )


def serving(agent: AgentInfo) -> list[tuple[str, object]]:
    """Return which tokens a resource server sees; nothing of any other agent."""
    if not agent.resource_server:
        return []
    serves = " ".join(agent.serves) or "every scope"
    resources = " ".join(agent.resources) or "every resource"
    return [("serves", serves), ("serves on", resources)]


def revoking(agent: AgentInfo, activity: ActivityInfo) -> list[tuple[str, object]]:
    """Return what a revoke would cut now; of one that is revoked, what that cut."""
    if agent.status != "revoked":
        cut = activity.revoke
        elevated = f" ({cut.elevated} elevated)" if cut.elevated else ""
        return [("a revoke cuts", f"{_ended(cut, elevated)}, now")]
    was = activity.revoked
    if was is None:
        return [("revoked at", f"{agent.revoked_at}; its record follows")]
    fields: list[tuple[str, object]] = [
        ("revoked at", agent.revoked_at),
        ("revoked by", was.by),
    ]
    if was.reason:
        fields.append(("reason", was.reason))
    return [*fields, ("that cut", _ended(was))]


def _ended(cut: RevokeForecast | RevokedInfo, elevated: str = "") -> str:
    tokens, stepups = plural(cut.tokens, "token"), plural(cut.stepups, "step-up")
    return f"{tokens}{elevated} and {stepups}"


def at_tenant(agent: AgentInfo) -> list[tuple[str, object]]:
    """Return what it has at the tenant, what ends there, and what works outside.

    Labels and values for `Output.fields`, which makes them safe to print.
    """
    fields: list[tuple[str, object]] = []
    if accounts := agent.connections:
        names = ", ".join(one.connection for one in accounts)
        fields.append(("accounts", names))
    if others := agent.shared_with:
        fields.append(("shared with", _named(others)))
    if agent.status != "revoked" and agent.at_tenant:
        fields.append(("at the tenant", f"ends {', '.join(agent.at_tenant)}"))
    if agent.status != "revoked":
        fields += [
            ("at the provider", told)
            for one in agent.connections
            for told in at_provider(one)
        ]
    steps = [one for one in agent.upstream if one.status != "withdrawn"]
    fields += [(step_named(step)[0], _step(step)) for step in steps]
    if agent.status == "revoked" and not steps:
        fields.append(("at the tenant", "it held nothing there"))
    if agent.outside_until:
        fields.append(("outside until", agent.outside_until))
    return fields


def _step(step: StepInfo) -> str:
    """Say how a step stands; of one that is not done also how often it was tried."""
    took = f" in {step.ms:.0f} ms" if step.status == "confirmed" else ""
    tried = step.attempts if step.status == "pending" else 0
    often = f" after try {tried}" if tried else ""
    again = f", again at {step.next_at}" if tried and step.next_at else ""
    why = f": {step.problem}" if step.problem else ""
    return f"{step_named(step)[1]} {step.status}{took}{often}{again}{why}"


def print_elsewhere(out: Output, revoked: RevokeAnswer) -> None:
    """Print what a revocation began at tenant and providers, and what is left there."""
    steps = [one for one in revoked.upstream if one.status != "withdrawn"]
    for step in steps:
        where, what = step_named(step)
        line: list[Cell | str] = [
            f"{where}: ",
            out.cell(what),
            " ",
            out.cell(step.status),
        ]
        if step.problem:
            line += [": ", out.cell(step.problem, limit=200)]
        out.line(*line)
    agent = revoked.agent
    if not agent:
        return  # everything is stopped, which ends nothing elsewhere
    for account in agent.connections:
        if others := account.shared_with:
            uses = " uses too" if len(others) == 1 else " use too"
            name = out.cell(account.connection)
            out.line("left there: ", name, ", which ", out.cell(_named(others)), uses)
    if until := agent.outside_until:
        left = max(parse_iso(until) - SystemClock().now(), timedelta())
        out.line(
            "outside: the last token handed out before ends at ",
            f"{until}, {timedelta(seconds=left // timedelta(seconds=1))} from now",
        )
        if any(step.connection for step in steps):
            out.line("or once the provider has revoked it: `agentvault agents show`")
    else:
        out.line("outside: no token handed out before works any more")


def step_named(step: StepInfo) -> tuple[str, str]:
    """Return where a step of a revocation is done, and what it ends there."""
    if connection := step.connection:
        return "at the provider", f"{connection} token"
    return "at the tenant", step.step


def at_provider(account: AccountInfo) -> list[str]:
    """Say what a revocation does to an account at its provider."""
    name, ahead = account.connection, account.at_provider
    if not ahead:
        return []  # a broker of an earlier version does not say
    if not ahead.known:
        return [f"{name}: nothing revokes there, tokens work until they end"]
    if ahead.kept_for:
        return [f"{name}: left, {_named(ahead.kept_for)} would lose it too"]
    if ahead.may_cut:
        names = _named(ahead.may_cut)
        return [f"revokes the {name} token, for {names} too if the same person's"]
    return [f"revokes the {name} token"]


def _named(agents: Iterable[AgentRef]) -> str:
    return ", ".join(one.name for one in agents)


def _scopes(
    out: Output, scopes: Iterable[ScopeUseInfo], catalogue: dict[str, ScopeInfo]
) -> None:
    out.line()
    rows: list[list[Cell]] = []
    for use in scopes:
        known = catalogue.get(use.scope)
        words = known.description if known else None
        words = words if use.granted else "not granted"
        rows.append(
            [
                out.cell(use.scope),
                out.word(known.risk if known else None),
                out.cell(use.uses),
                out.cell(use.denied),
                out.cell(use.escalated),
                out.cell(use.last_used_at or "never"),
                out.cell(words),
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


def _tokens(out: Output, tokens: Iterable[TokenInfo]) -> None:
    out.line()
    out.table(
        ("TOKEN", "KIND", "EXPIRES", "SCOPE"),
        [
            [
                out.cell(token.id),
                out.cell(token.kind),
                out.cell(token.expires_at),
                out.cell(token.scope),
            ]
            for token in tokens
        ],
    )
