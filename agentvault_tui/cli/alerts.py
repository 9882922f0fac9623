"""``agentvault alerts``: where alerts and events go, and undelivered ones."""

from __future__ import annotations

import click

from agentvault_tui.cli.framework import group, pass_session
from agentvault_tui.cli.output import short_time
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
    out, listing = session.out, session.client.call(calls.ALERTS)
    if out.print_json(listing):
        return
    if not listing.sinks:
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
        for one in listing.sinks
    ]
    headers = ("SINK", "KIND", "EVENTS", "BEHIND", "HELD", "DEAD", "STATE")
    out.table(headers, rows, keep=("SINK", "STATE"))


@alerts.command("dead", example="agentvault alerts dead")
@pass_session
def dead(session: CliSession) -> None:
    """List alerts that their destination did not accept for a day, oldest first."""
    out, dead_alerts = session.out, session.client.call(calls.ALERTS).dead
    if session.json:
        for one in dead_alerts:
            out.json(one)
        return
    if not dead_alerts:
        out.line("no alert was given up")
        return
    rows = [
        [
            one.id,
            out.cell(one.sink),
            short_time(one.at),
            out.cell(one.title, limit=60),
            out.cell(one.problem, limit=60),
        ]
        for one in dead_alerts
    ]
    out.table(("ALERT", "SINK", "OF", "TITLE", "PROBLEM"), rows)


@alerts.command("test", example="agentvault alerts test ops")
@click.argument("sink")
@pass_session
def try_sink(session: CliSession, sink: str) -> int:
    """Send a test to SINK now; exits 1 if it did not arrive."""
    body = TestSinkRequest(sink=sink)
    return _print_sent(session, session.client.call(calls.TEST_SINK, body))


@alerts.command("retry", example="agentvault alerts retry msg_1f0c")
@click.argument("alert_id", metavar="ID")
@pass_session
def retry(session: CliSession, alert_id: str) -> int:
    """Resend an alert that was given up; exits 1 if it did not arrive."""
    body = RetryAlertRequest(id=alert_id)
    return _print_sent(session, session.client.call(calls.RETRY_ALERT, body))


def _print_sent(session: CliSession, sent: AlertSentInfo) -> int:
    out = session.out
    if not out.print_json(sent):
        outcome = f"taken in {sent.ms:.0f} ms" if sent.ok else sent.problem
        out.line(out.cell(sent.sink, "strong"), ": ", out.cell(outcome, limit=200))
    return 0 if sent.ok else 1
