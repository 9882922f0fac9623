"""``agentvault alerts``: where alerts and events go, and what did not arrive."""

from __future__ import annotations

import click

from agentvault_tui.cli.framework import group, pass_session
from agentvault_tui.cli.session import CliSession
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.alerts import (
    AlertSentInfo,
    RetryAlertRequest,
    TestSinkRequest,
)


@group("alerts", example="agentvault alerts list")
def alerts() -> None:
    """List and test the destinations in alerts.toml, and resend failed alerts."""


@alerts.command("list", example="agentvault alerts list")
@pass_session
def list_sinks(session: CliSession) -> None:
    """List the destinations: their alerts, progress and faults."""
    out, found = session.out, session.client.call(calls.ALERTS)
    if out.print_json(found):
        return
    if not found.sinks:
        out.line("no destinations: write alerts.toml, see docs/alerts.md")
        return
    rows = [
        [
            out.cell(one.name, "strong"),
            one.kind,
            out.cell(", ".join(one.events) or "every event"),
            str(one.behind),
            str(one.held),
            str(one.dead),
            out.cell(one.problem or "ok", limit=60),
        ]
        for one in found.sinks
    ]
    headers = ("SINK", "KIND", "EVENTS", "BEHIND", "HELD", "DEAD", "STATE")
    out.table(headers, rows, keep=("SINK", "STATE"))


@alerts.command("dead", example="agentvault alerts dead")
@pass_session
def dead(session: CliSession) -> None:
    """List alerts that their destination did not accept for a day, oldest first."""
    out, found = session.out, session.client.call(calls.ALERTS).dead
    if session.json:
        for one in found:
            out.json(one)
        return
    if not found:
        out.line("no alert was given up")
        return
    rows = [
        [
            one.id,
            out.cell(one.sink),
            out.cell(one.at[:19]),
            out.cell(one.title, limit=60),
            out.cell(one.problem, limit=60),
        ]
        for one in found
    ]
    out.table(("ALERT", "SINK", "OF", "TITLE", "PROBLEM"), rows, keep=("ALERT",))


@alerts.command("test", example="agentvault alerts test ops")
@click.argument("sink")
@pass_session
def try_sink(session: CliSession, sink: str) -> int:
    """Send a test to SINK now; exits 1 if it did not arrive."""
    asked = TestSinkRequest(sink=sink)
    return _told(session, session.client.call(calls.TEST_SINK, asked))


@alerts.command("retry", example="agentvault alerts retry msg_1f0c")
@click.argument("alert_id", metavar="ID")
@pass_session
def retry(session: CliSession, alert_id: str) -> int:
    """Resend an alert that was given up; exits 1 if it did not arrive."""
    asked = RetryAlertRequest(id=alert_id)
    return _told(session, session.client.call(calls.RETRY_ALERT, asked))


def _told(session: CliSession, sent: AlertSentInfo) -> int:
    out = session.out
    if not out.print_json(sent):
        said = f"taken in {sent.ms:.0f} ms" if sent.ok else sent.problem
        out.line(out.cell(sent.sink, "strong"), ": ", out.cell(said, limit=200))
    return 0 if sent.ok else 1
