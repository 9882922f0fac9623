"""One event of the ledger as a line: JSON for programs, columns for people."""

from __future__ import annotations

from typing import Any

from agentvault_tui.cli.output import Output


def print_event(out: Output, event: dict[str, Any]) -> None:
    """Print *event*; columns have fixed widths, because the next one is not known."""
    if out.json_mode:
        out.json(event)
        return
    subject = event["action"] or event["type"]
    about = event["resource"] or event["detail"].get("agent")
    out.row(
        (9, out.cell(event["seq"], "quiet")),
        (20, out.cell(event["time"][:19] + "Z", "quiet")),
        (10, out.word(event["outcome"] or " ")),
        (20, out.cell(event["actor"]["name"], "strong")),
        (22, out.cell(subject)),
        (30, out.cell(about or " ")),
        (0, out.cell(event["reason"] or " ", limit=120)),
    )
