"""``agentvault calls``: what agents do through the gateway right now."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import click

from agentvault_tui.cli.framework import command, pass_session
from agentvault_tui.cli.output import Output
from agentvault_tui.cli.session import CliSession
from agentvault_tui.clock import SystemClock, parse_iso
from agentvault_tui.operator_api import calls as api
from agentvault_tui.operator_api.gateway import CallInfo, broker_names

_HEADERS = ("CALL", "AGENT", "STATE", "SERVICE", "REQUEST", "AGE", "IN", "OUT")


@command("calls", example="agentvault calls --follow")
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens next.")
@click.option("--cut", metavar="ID", help="Cut this call at once.")
@pass_session
def calls(session: CliSession, *, follow: bool, cut: str | None) -> None:
    """List calls in flight and held; with --follow each change, until told to stop."""
    client, out = session.client, session.out
    status = client.call(api.STATUS)
    names = broker_names(status.team.brokers if status.team else ())
    if cut is not None:
        _print(out, client.call(api.CUT_CALL, id=cut), names)
        return
    found = client.call(api.IN_FLIGHT)
    if not follow:
        if out.print_json(found):
            return
        if not found.calls:
            out.line("no call is in flight")
            return
        now = SystemClock().now()
        rows = [
            [out.cell(text) for text in _texts(one, now, names)] for one in found.calls
        ]
        headers = (*_HEADERS, "BROKER") if names else _HEADERS
        out.table(headers, rows, keep=("CALL", "AGENT", "REQUEST"))
        return
    for one in found.calls:
        _print(out, one, names)
    for event in client.events(status.ledger.head):
        if isinstance(event, CallInfo):
            _print(out, event, names)


def _print(out: Output, one: CallInfo, names: Mapping[str, str]) -> None:
    """Print a call as it stands now, on a line of its own."""
    if out.json_mode:
        out.json(one)
        return
    widths = (22, 20, 10, 14, 44, 7, 9, 9, 20)
    texts = _texts(one, SystemClock().now(), names)
    out.row(
        *((w, out.cell(t)) for w, t in zip(widths, texts, strict=False)),
        (0, out.word(one.ended or " ")),
    )


def _texts(one: CallInfo, now: datetime, names: Mapping[str, str]) -> tuple[str, ...]:
    """Return the columns of a call: one more where several brokers have *names*."""
    age = max((now - parse_iso(one.started_at)).total_seconds(), 0.0)
    return (
        one.id,
        one.agent_name,
        one.state if one.status is None else f"{one.state} {one.status}",
        one.service,
        f"{one.method} {one.path}",
        f"{age:.0f} s",
        str(one.bytes_in),
        str(one.bytes_out),
        *((names.get(one.broker or "", one.broker or "-"),) if names else ()),
    )
