"""Audit ``show``: one event in full, computed again here, with its neighbours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import click
from msgspec import to_builtins
from msgspec.structs import replace

from agentvault_tui.cli.framework import command, pass_session
from agentvault_tui.cli.output import Cell, Output
from agentvault_tui.cli.session import CliSession
from agentvault_tui.clock import parse_iso, span
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.history import EventInfo, EventProofInfo, StoryInfo
from agentvault_tui.operator_api.proof import Proof

_THEIRS = ("agent_says", "other_details", "parameters", "resource_indicator")
"""Members an agent writes: what looks like a code or a link in them is masked."""
_TEXTS = ("action", "resource", "outcome", "reason", "rule", "decision_id")


@command("show", example="agentvault audit show 1842", prints_data=True)
@click.argument("seq", type=click.IntRange(1))
@pass_session
def show(session: CliSession, seq: int) -> int:
    """Print event SEQ in full: its story, its exact body, and whether the hash holds.

    The link of the chain is computed here, from the body. Exits 1 if it does not hold.
    """
    found = session.client.call(calls.EVENT, seq=seq)
    story = session.client.call(calls.STORY, seq=seq)
    proof = Proof.read(replace(found, seq=seq), found.ledger)
    problem = proof.problem()
    shown, told = to_builtins(found.event), proof.event() or {}
    if not problem and {name: told.get(name) for name in shown} != shown:
        problem = "the body tells another event than the broker shows"
    if session.json:
        session.out.json(
            {
                **to_builtins(found),
                "verified": not problem,
                "problem": problem,
                "story": story.events,
                "story_complete": story.complete,
            }
        )
    else:
        _print(session.out, found, story, problem)
    return 1 if problem else 0


def _print(out: Output, found: EventProofInfo, story: StoryInfo, problem: str) -> None:
    out.fields(_fields(out, found.event))
    out.line("")
    if len(story.events) > 1:
        more = "" if story.complete else ", and more"
        out.line(Cell(out.shown(f"story of {len(story.events)} events{more}"), "quiet"))
        for row in _story(out, story.events, found.event.seq):
            out.row(*row)
        out.line("")
    out.fields(
        [
            ("hash", found.hash),
            ("previous", found.previous_hash),
            ("computed", out.word("fault") if problem else out.word("ok")),
            *([("problem", problem)] if problem else []),
        ]
    )
    out.line("")
    out.line(Cell(out.shown(found.body, 100_000)))


def _fields(out: Output, event: EventInfo) -> Iterator[tuple[str, Cell | object]]:
    """Yield every member that says something; an agent's own words are masked."""
    actor = event.actor
    yield "event", event.seq
    yield "time", event.time
    yield "type", event.type
    yield "actor", f"{actor.name} ({actor.kind}, {actor.id})"
    yield "agent", event.agent_id
    for name in _TEXTS:
        if (text := getattr(event, name)) is None:
            continue
        if name == "reason" and actor.kind == "agent":
            text = out.own_words(text, 2000)
        yield name.replace("_", " "), text
    for name, value in event.detail.items():
        own = name in _THEIRS
        yield out.shown(name, 30), out.own_words(value, 2000) if own else value


def _story(
    out: Output, events: Iterable[EventInfo], here: int
) -> Iterator[tuple[tuple[int, Cell], ...]]:
    before = None
    for event in events:
        moment = parse_iso(event.time)
        gap = "" if before is None else f"+{span((moment - before).total_seconds())}"
        before = moment
        mark = "*" if event.seq == here else " "
        yield (
            (9, Cell(out.shown(f"{mark}{event.seq}"), "quiet")),
            (12, out.cell(gap or f"{event.time[11:23]}Z", "quiet")),
            (20, out.cell(event.type)),
            (10, out.word(event.outcome or " ")),
            (0, out.cell(event.actor.name, "strong")),
        )
