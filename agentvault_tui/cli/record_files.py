"""Audit ``export``, ``verify`` and ``accept``: on files, with or without a broker."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import click

from agentvault_tui.cli.framework import command, pass_session
from agentvault_tui.cli.session import CliSession, lazy_room
from agentvault_tui.clock import SystemClock
from agentvault_tui.errors import UsageError
from agentvault_tui.home import user_name
from agentvault_tui.model import Actor, ActorKind


@command("export", example="agentvault audit export events.jsonl", prints_data=True)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(["jsonl", "csv"]),
    default="jsonl",
    show_default=True,
    help="Only JSON Lines can be verified.",
)
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@pass_session
def export(session: CliSession, file: Path, form: str, force: bool) -> None:
    """Write every event to FILE, mode 0600; needs no broker.

    An existing FILE is kept unless --force is given; a file of the home always is.
    """
    if file.is_dir():
        raise UsageError(f"{file} is a folder", "name a file")
    export_ledger = lazy_room("ledger").export_ledger
    done = export_ledger(
        session.home,
        file.absolute(),
        form=form,
        replace=force,
        now=SystemClock().now(),
    )
    out = session.out
    if session.json:
        out.json(
            {
                "file": str(file),
                "format": form,
                "ledger": done.ledger,
                "events": done.count,
                "head": done.head.seq,
                "hash": done.head.hash,
            }
        )
        return
    out.line(f"{done.count} events up to {done.head.seq} in ", out.cell(file))
    if form == "jsonl":
        out.line("check it anywhere: agentvault audit verify ", out.cell(file))


@command("verify", example="agentvault audit verify events.jsonl", prints_data=True)
@click.argument("file", required=False, type=click.Path(path_type=Path))
@pass_session
def verify(session: CliSession, file: Path | None) -> int:
    """Check the ledger, or an export in FILE, and name the first bad event.

    Of the ledger also that agents, scopes, panic and tokens are as its events say.

    Needs no broker. Exits 1 when the record is not the one that was written.
    """
    ledger = lazy_room("ledger")
    if file is None:
        found = ledger.verify_home(session.home)
    else:
        found = ledger.verify_export(file)
    out = session.out
    if session.json:
        out.json(
            {
                "ok": found.ok,
                "events": found.events,
                "head": found.head.seq,
                "hash": found.head.hash,
                "ledger": found.ledger,
                "first_bad": found.first_bad,
                "problem": found.problem,
            }
        )
    elif found.ok:
        out.line(out.word("ok"), f": {found.events} events, head {found.head.seq}")
        out.line(out.cell(found.head.hash, "quiet"))
    else:
        _print_bad(session, found)
    return 0 if found.ok else 1


@command(
    "accept",
    example="agentvault audit accept --reason 'restored the backup of Monday'",
    prints_data=True,
)
@click.option("--reason", required=True, help="Why; it is recorded.")
@pass_session
def accept(session: CliSession, reason: str) -> None:
    """Go on from an older copy of the ledger that was put back on purpose.

    What is lost stays lost; that it was accepted, by whom and why, is recorded.
    """
    if not reason.strip():
        raise UsageError("accepting is recorded with a reason", "give --reason R")
    uid = os.getuid()
    actor = Actor(ActorKind.OPERATOR, f"uid:{uid}", user_name(uid))
    accept_rollback = lazy_room("ledger").accept_rollback
    event = asyncio.run(
        accept_rollback(session.home, clock=SystemClock(), actor=actor, reason=reason)
    )
    if session.json:
        session.out.json({"head": event.seq, "hash": event.hash})
    else:
        session.out.line(f"accepted, and recorded as event {event.seq}")


def _print_bad(session: CliSession, found: Any) -> None:
    out = session.out
    where = "the ledger" if found.first_bad is None else f"event {found.first_bad}"
    out.line(out.word("fault"), f": {where}: ", out.cell(found.problem, limit=500))
    out.line(f"right up to event {found.head.seq}, {found.events} checked")
