"""``agentvault limits``: what is used of limits, what is left, when it frees."""

from __future__ import annotations

from agentvault_tui.cli.framework import command, pass_session
from agentvault_tui.cli.session import CliSession
from agentvault_tui.clock import SystemClock, parse_iso, span
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.limits import CallOutInfo, LimitInfo, LimitUseInfo


@command("limits", example="agentvault limits")
@pass_session
def limits(session: CliSession) -> None:
    """Show what is used of each limit in force, what is left, and when some frees.

    `agentvault policy check limits.toml` checks a file before it is put in place.
    """
    out, found = session.out, session.client.call(calls.LIMITS)
    if out.print_json(found):
        return
    if found.problem:
        out.line(out.word("fault"), " ", out.cell(found.problem, limit=400))
    if not found.limits:
        out.line("no limits: limits.toml in the home would have them")
    rows = []
    for limit in found.limits:
        uses = [use for use in found.uses if use.limit == limit.id]
        rows += [_row(limit, use) for use in uses] or [_row(limit, None)]
    if rows:
        headers = ("LIMIT", "FOR", "USED", "LEFT", "OF", "FREES IN", "BEYOND")
        cells = [[out.cell(text) for text in row] for row in rows]
        out.table(headers, cells, keep=("LIMIT", "FOR", "USED", "LEFT"))
    if found.hooks:
        out.line()
        hooks = [
            [out.cell(text) for text in (one.id, one.url, f"{one.budget_ms} ms")]
            + [out.cell(_answers(one), limit=200)]
            for one in found.hooks
        ]
        columns = ("CALL-OUT", "URL", "BUDGET", "ASKED LAST")
        out.table(columns, hooks, keep=("CALL-OUT", "ASKED LAST"))


def _answers(hook: CallOutInfo) -> str:
    """Say whether a call-out answered when it was asked last."""
    if hook.asked_at is None:
        return "not asked yet"
    told = hook.problem or f"answered in {hook.ms} ms"
    return f"{hook.asked_at[:19]}Z: {told}"


def _row(limit: LimitInfo, use: LimitUseInfo | None) -> tuple[str, ...]:
    whose, frees = "everyone" if limit.per == "all" else "-", "-"
    if use is not None:
        if limit.per == "resource":
            whose = use.resource or "no resource"
        whose = use.agent_name or whose
        if use.frees_at is not None:
            left = parse_iso(use.frees_at) - SystemClock().now()
            frees = span(max(1, round(left.total_seconds())))
    unit = f" {limit.currency}" if limit.currency else ""
    return (
        limit.id,
        whose,
        str(use.used if use else 0),
        str(use.left if use else limit.most),
        f"{limit.most}{unit} in {limit.within}",
        frees,
        "a person" if limit.over == "step_up" else "denied",
    )
