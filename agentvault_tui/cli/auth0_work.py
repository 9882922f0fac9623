"""``agentvault auth0 plan`` and ``apply``: what they do, and print."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

from agentvault_tui.cli.auth0_reach import ManagementSession, TellingClients, opened
from agentvault_tui.cli.session import CliSession
from agentvault_tui.cli.terminal import confirm
from agentvault_tui.errors import TenantScopeError, UsageError
from agentvault_tui.text import visible
from agentvault_tui.vault.provision import (
    Found,
    PlanItem,
    PlanStep,
    ProvisioningPlan,
    checks,
    scopes,
    show,
)


def show_plan(session: CliSession, **given: Any) -> None:
    """Print what apply would do."""

    async def work() -> ProvisioningPlan:
        async with opened(session, **given) as there:
            await _must_have(there, scopes.reading(there.needs))
            plan, _ = await there.provisioner.plan(there.needs)
            return plan

    plan = asyncio.run(work())
    if session.json:
        session.out.json(show.shape(plan))
    else:
        _print_plan(session, plan)


def apply(
    session: CliSession,
    *,
    asks: bool,
    print_secrets: bool,
    **given: Any,
) -> int:
    """Carry a plan out, printing each object once it has been read back."""

    async def work() -> int:
        """Plan, ask, write and print; return the exit code."""
        async with opened(session, **given) as there:
            wanted = scopes.reading(there.needs) + scopes.writing(there.needs)
            await _must_have(there, wanted)
            plan, found = await there.provisioner.plan(there.needs)
            if not session.json:
                _print_plan(session, plan)
            if not plan.writes:
                _print_end(session, there)
                return 0
            _must_know(plan, found, asks=asks)
            if asks and not await asyncio.to_thread(
                confirm, f"Do these {len(plan.writes)} on the tenant?"
            ):
                session.out.line("nothing was changed")
                return 1
            refused = False
            try:
                async with aclosing(there.provisioner.apply(plan, found)) as done:
                    async for item in done:
                        _print_done(session, item)
                        refused |= _is_missed(item)
            finally:
                # Also when it stopped half-way: what was made is made.
                if print_secrets:
                    _print_secrets(session, there.kept)
            _print_end(session, there)
            return int(refused)

    return asyncio.run(work())


def _is_missed(item: PlanItem) -> bool:
    """Tell whether it was refused and nothing works without it."""
    optional = item.wanted is not None and item.wanted.optional
    return item.step is PlanStep.REFUSED and not optional


async def _must_have(there: ManagementSession, wanted: tuple[str, ...]) -> None:
    """Refuse before the first call what would fail half-way, every scope by name.

    Raises:
        TenantScopeError: the credential lacks some.
    """
    lacks = scopes.lacking(wanted, await there.management.scopes())
    if lacks:
        raise TenantScopeError(
            "insufficient_scope",
            f"the credential lacks {', '.join(lacks)}",
            checks.GRANT_IT,
            scopes=lacks,
        )


def _must_know(plan: ProvisioningPlan, found: Found, *, asks: bool) -> None:
    """Let a person see an application that is ours by its mark alone, before it is.

    Its owner would come by every right and secret that is meant for ours.

    Raises:
        UsageError: there is such a one, and nobody is asked.
    """
    unknown = [item.address for item in plan.writes if item.address in found.adopted]
    if unknown and not asks:
        told = ", ".join(f"{one} ({found.adopted[one]})" for one in unknown)
        raise UsageError(
            f"this home did not make {told}, which the tenant marks as ours",
            "run apply once without --yes, and look at the plan",
        )


def _print_plan(session: CliSession, plan: ProvisioningPlan) -> None:
    out = session.out
    for line in show.lines(plan):
        style = {"+": "good", "~": "wait", "-": "bad", "!": "bad"}.get(line.mark, "")
        mark = out.cell(f"{line.mark:1} ", style)
        # The padding is ours; everything after it has been made displayable.
        out.line(" " * line.indent, mark, out.cell(line.text, limit=2000))
    out.line(show.summary(plan))


def _print_done(session: CliSession, item: PlanItem) -> None:
    out = session.out
    if session.json:
        note = {"note": item.note} if item.step is PlanStep.REFUSED else {}
        out.json({"step": item.step.value, "address": item.address, **note})
    elif item.step is PlanStep.REFUSED:
        word = out.word("fault" if _is_missed(item) else "warning")
        told = f": refused {visible(item.address, 120)}: {item.note}"
        out.line(word, out.cell(told, limit=500))
    else:
        out.line(out.word("ok"), f": {item.step.value} ", out.cell(item.address))


def _print_secrets(session: CliSession, kept: TellingClients) -> None:
    """Print what was asked for, this once."""
    for key, (client_id, secret) in kept.fresh.items():
        if session.json:
            shown = {"client_id": client_id, "client_secret": secret.reveal()}
            session.out.json({"application": key, **shown})
        else:
            pairs = [("client_id", client_id), ("client_secret", secret.reveal())]
            session.out.line(session.out.cell(key, "strong"))
            session.out.fields(pairs)


def _print_end(session: CliSession, there: ManagementSession) -> None:
    out, kept = session.out, there.kept
    client_id = kept.client_id("console")
    if session.json:
        out.json({"ok": True, "client_id": client_id, "kept_in": str(kept.path)})
        return
    out.line("the console's application is ", out.cell(client_id, "strong"))
    out.line("secrets are in ", out.cell(kept.path, limit=500))
