"""``agentvault audit export`` and ``verify``: evidence that others can check."""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from agentvault_tui.cli.event_search import EventFilter, search_options
from agentvault_tui.cli.framework import FILE, command, pass_session
from agentvault_tui.cli.session import CliSession
from agentvault_tui.clock import SystemClock
from agentvault_tui.errors import UsageError
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.history import LinkInfo
from agentvault_tui.operator_api.requests import LinksQuery
from agentvault_tui.operator_api.selection import (
    export_header,
    export_line,
    link_queries,
)

if TYPE_CHECKING:
    from agentvault_tui.ledger.verify import EventHash, Verification
    from agentvault_tui.operator_api.history import LinkList


@command("export", example="agentvault audit export events.jsonl")
@click.argument("file", type=FILE)
@click.option(
    "--format",
    "form",
    type=click.Choice(["jsonl", "csv", "ocsf"]),
    default="jsonl",
    show_default=True,
    help="Only JSON Lines can be verified.",
)
@click.option(
    "--after",
    metavar="SEQ",
    type=click.IntRange(0),
    default=0,
    help="Only events after this number; verification starts there.",
)
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@search_options
@pass_session
def export(
    session: CliSession,
    /,
    *,
    file: Path,
    form: Literal["jsonl", "csv", "ocsf"],
    after: int,
    force: bool,
    **given: Any,
) -> None:
    """Write events to FILE, mode 0600: all of them, or those that match a filter.

    Without a filter it needs no broker. A filter has the options and TEXT of `audit
    search`; verify such a selection with: audit verify FILE --against HOME. An existing
    FILE is replaced only with --force, and never a file of the home directory.
    """
    if file.is_dir():
        raise UsageError(f"{file} is a folder", "name a file")
    if any(given.values()) or session.remote:
        _export_chosen(
            session, file.absolute(), given, form=form, after=after, force=force
        )
        return
    from agentvault_tui.ledger import export_ledger

    done = export_ledger(
        *(session.home, file.absolute()),
        form=form,
        after=after,
        replace=force,
        now=SystemClock().now(),
    )
    _print_exported(
        session, file, form=form, ledger=done.ledger, head=done.last, count=done.count
    )


def _export_chosen(
    session: CliSession,
    file: Path,
    given: dict[str, Any],
    *,
    form: Literal["jsonl", "csv", "ocsf"],
    after: int,
    force: bool,
) -> None:
    """Export a filter's events, or all events of a remote broker."""
    chosen = any(given.values()) or after > 0
    wanted = EventFilter.of(session.client, session.out, **given) if chosen else None
    head, count = _write_chosen(
        session, file, wanted, form=form, after=after, force=force
    )
    _print_exported(
        session,
        file,
        form=form,
        ledger=head.ledger,
        head=head.links[0],
        count=count,
        chosen=chosen,
    )


def _write_chosen(
    session: CliSession,
    file: Path,
    wanted: EventFilter | None,
    *,
    form: Literal["jsonl", "csv", "ocsf"],
    after: int,
    force: bool,
) -> tuple[LinkList, int]:
    """Write a broker's events that match a filter; None: all.

    Returns:
        the link of its head, and how many events there are.
    """
    from agentvault_tui.ledger.export import write_export

    client = session.client
    head_seq = client.call(calls.STATUS).ledger.head
    head = client.call(calls.LINKS, LinksQuery(seq=str(head_seq)))
    seqs: list[int] | range = range(1, head_seq + 1)
    words = None
    if wanted is not None:
        events = wanted.oldest_first(client, after)
        seqs = [event.seq for event in events if event.seq <= head_seq]
        described = wanted.described, f"after:{after}" * (after > 0)
        words = " ".join(filter(None, described))
    now = SystemClock().now()
    lines = (
        export_line(link)
        for query in link_queries(seqs)
        for link in client.call(calls.LINKS, query).links
    )
    header = export_header(head, len(seqs), now, words)
    write_export(session.home, file, header, lines, form=form, replace=force)
    return head, len(seqs)


def _print_exported(
    session: CliSession,
    file: Path,
    *,
    form: str,
    ledger: str,
    head: EventHash | LinkInfo,
    count: int,
    chosen: bool = False,
) -> None:
    out = session.out
    summary = {"file": str(file), "format": form, "ledger": ledger, "events": count}
    summary |= {"head": head.seq, "hash": head.hash, "selection": chosen}
    if out.print_json(summary):
        return
    of = f" of {head.seq}" if chosen else f" up to {head.seq}"
    out.line(f"{count} events{of} in ", out.cell(file))
    if form == "jsonl":
        home = "HOME" if session.remote else shlex.quote(str(session.home.data))
        against = f" --against {home}" if chosen else ""
        line = f"agentvault audit verify {shlex.quote(str(file))}{against}"
        out.line("verify it: ", out.cell(line, limit=2000))


def _verify_elsewhere(session: CliSession) -> Verification:
    """Check all events of a broker elsewhere, as it has them now."""
    from agentvault_tui.ledger import verify_export

    with tempfile.TemporaryDirectory(prefix="agentvault-") as folder:
        file = Path(folder) / "ledger.jsonl"
        _write_chosen(session, file, None, form="jsonl", after=0, force=False)
        return verify_export(file)


@command("verify", example="agentvault audit verify events.jsonl")
@click.argument("file", required=False, type=FILE)
@click.option(
    "--against",
    type=FILE,
    metavar="HOME|FILE",
    help="A home directory or a whole export that a selection is compared with.",
)
@pass_session
def verify(session: CliSession, file: Path | None, against: Path | None) -> int:
    """Check the ledger, or an export in FILE, and name the first bad event.

    For the ledger, it also compares agents, scopes, panic and tokens with the events.
    With --connect, it reads a remote broker's events and checks them here. A selection
    is compared with a ledger, which is checked first.

    Needs no broker. Exits 1 if the record was changed or a selection was not compared,
    and 2 if FILE is not an export.
    """
    from agentvault_tui.ledger import verify_export, verify_ledger

    if file is None:
        if against is not None:
            raise UsageError("--against is for an export", "name its FILE")
        result = (
            _verify_elsewhere(session)
            if session.remote
            else verify_ledger(session.home)
        )
    else:
        result = verify_export(file, against=against)
    out = session.out
    summary = {
        "ok": result.ok,
        "events": result.events,
        "head": result.head.seq,
        "hash": result.head.hash,
        "ledger": result.ledger,
        "first_bad": result.first_bad,
        "problem": result.problem,
        "selection": result.selection,
    }
    if out.print_json(summary):
        return 0 if result.ok else 1
    if result.ok and result.selection:
        events = f"selection of {result.events:,} events, each in the ledger up to"
        out.line(out.word("ok"), f": {events} {result.head.seq:,}")
        out.line(out.cell(result.head.hash, "quiet"))
    elif result.ok:
        out.line(out.word("ok"), f": {result.events} events, head {result.head.seq}")
        out.line(out.cell(result.head.hash, "quiet"))
    elif result.selection and result.first_bad is None and against is None:
        out.line(f"selection of {result.events:,} events, not compared with a ledger")
        out.note("compare it: --against HOME, or --against FILE with a whole export")
    else:
        where = (
            "the ledger" if result.first_bad is None else f"event {result.first_bad}"
        )
        out.line(out.word("fault"), f": {where}: ", out.cell(result.problem, limit=500))
        if result.selection:
            checked = f"{result.events:,} of {result.count:,} events"
            out.line(f"{checked} checked before the fault")
        else:
            out.line(f"right up to event {result.head.seq}, {result.events} checked")
    return 0 if result.ok else 1
