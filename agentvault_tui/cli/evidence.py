"""Audit ``show``: one event in full, computed again here, with its neighbours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import click

from agentvault_tui.cli.framework import command, pass_session
from agentvault_tui.cli.output import Cell, Output
from agentvault_tui.cli.session import Session
from agentvault_tui.clock import parse_iso, span
from agentvault_tui.proof import Proof

_THEIRS = ("agent_says", "other_details", "parameters", "resource_indicator")
"""Members an agent writes: what looks like a code or a link in them is masked."""
_TEXTS = ("action", "resource", "outcome", "reason", "rule", "decision_id")


@command("show", example="agentvault audit show 1842", prints_data=True)
@click.argument("seq", type=click.IntRange(1))
@pass_session
def show(session: Session, seq: int) -> int:
    """Print event SEQ in full: its story, its exact body, and whether the hash holds.

    The link of the chain is computed here, from the body. Exits 1 if it does not hold.
    """
    found = session.client.get(f"/api/audit/{seq}")
    story = session.client.get(f"/api/audit/{seq}/story")
    proof = Proof.read({**found, "seq": seq}, found["ledger"])
    problem = proof.problem()
    if not problem and proof.event() != found["event"]:
        problem = "the body tells another event than the broker shows"
    if session.json:
        session.out.json(
            {
                **found,
                "verified": not problem,
                "problem": problem,
                "story": story["events"],
                "story_complete": story["complete"],
            }
        )
    else:
        _print(session.out, found, story, problem)
    return 1 if problem else 0


def _print(
    out: Output, found: dict[str, Any], story: dict[str, Any], problem: str
) -> None:
    out.fields(_fields(out, found["event"]))
    out.line("")
    if len(story["events"]) > 1:
        more = "" if story["complete"] else ", and more"
        out.line(
            Cell(out.shown(f"story of {len(story['events'])} events{more}"), "quiet")
        )
        for row in _story(out, story["events"], found["event"]["seq"]):
            out.row(*row)
        out.line("")
    out.fields(
        [
            ("hash", found["hash"]),
            ("previous", found["previous_hash"]),
            ("computed", out.word("fault") if problem else out.word("ok")),
            *([("problem", problem)] if problem else []),
        ]
    )
    out.line("")
    out.line(Cell(out.shown(found["body"], 100_000)))


def _fields(out: Output, event: dict[str, Any]) -> Iterator[tuple[str, Cell | object]]:
    """Yield every member that says something; an agent's own words are masked."""
    actor = event["actor"]
    yield "event", event["seq"]
    yield "time", event["time"]
    yield "type", event["type"]
    yield "actor", f"{actor['name']} ({actor['kind']}, {actor['id']})"
    yield "agent", event["agent_id"]
    for name in _TEXTS:
        if event[name] is None:
            continue
        own = name == "reason" and actor["kind"] == "agent"
        text = out.own_words(event[name], 2000) if own else event[name]
        yield name.replace("_", " "), text
    for name, value in event["detail"].items():
        own = name in _THEIRS
        yield out.shown(name, 30), out.own_words(value, 2000) if own else value


def _story(
    out: Output, events: Iterable[dict[str, Any]], here: int
) -> Iterator[tuple[tuple[int, Cell], ...]]:
    before = None
    for event in events:
        moment = parse_iso(event["time"])
        gap = "" if before is None else f"+{span((moment - before).total_seconds())}"
        before = moment
        mark = "*" if event["seq"] == here else " "
        yield (
            (9, Cell(out.shown(f"{mark}{event['seq']}"), "quiet")),
            (12, out.cell(gap or f"{event['time'][11:23]}Z", "quiet")),
            (20, out.cell(event["type"])),
            (10, out.word(event["outcome"] or " ")),
            (0, out.cell(event["actor"]["name"], "strong")),
        )
