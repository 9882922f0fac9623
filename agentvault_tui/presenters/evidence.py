"""One event in full: its verification, its story, and their rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from agentvault_tui.amounts import shown_parameters
from agentvault_tui.clock import span
from agentvault_tui.model import Money
from agentvault_tui.operator_api.history import EventInfo
from agentvault_tui.operator_api.proof import Proof
from agentvault_tui.operator_api.shapes import Json
from agentvault_tui.presenters import event_words
from agentvault_tui.presenters.directory import Directory
from agentvault_tui.presenters.lines import EMPTY, Pen, Row, cells
from agentvault_tui.presenters.moments import plural
from agentvault_tui.presenters.records import EventRow
from agentvault_tui.text import in_full, visible_lines

_WHOLE: Final = 100_000
_LINES: Final = 40
"""Rows one member may take; the raw body has no such bound but its own."""
_RAW_LINES: Final = 400
_LABELS: Final[Mapping[str, str]] = {
    "agent_says": "It says",
    "amr": "Factors",
    "asked_scope": "Asked for",
    "auth_time": "Verified at",
    "client_id": "Client",
    "date": "Logged at",
    "decision_id": "Decision",
    "id_token_sha256": "ID token",
    "ip": "From",
    "log_id": "Log row",
    "message": "Told it",
    "other_details": "Also",
    "parameters": "With",
    "policy_version": "Policy",
    "stepup_id": "Step-up",
    "stepups_cancelled": "Cancelled",
    "token_fetch_before": "Fetch by",
    "token_id": "Token",
    "tokens_revoked": "Cut tokens",
    "user_id": "User",
}
_THEIRS: Final = frozenset(
    {"agent_says", "other_details", "parameters", "resource_indicator"}
)
"""Members an agent writes: look-alikes of codes or links in them are masked."""


@dataclass(frozen=True, slots=True)
class EventEvidence:
    """One event's proof and related events, and up to which event they hold."""

    proof: Proof | None
    story: tuple[EventRow, ...]
    complete: bool
    upto: int

    def grows_by(self, row: EventRow) -> bool:
        """Check whether a later event may belong to the story."""
        ids = {each.decision_id for each in self.story if each.decision_id}
        agents = {each.agent_id for each in self.story if each.agent_id}
        cuts = row.type in {"agent.revoked", "token.revoked", "token.redeemed"}
        return row.decision_id in ids or (cuts and row.agent_id in agents)


def evidence(
    pen: Pen,
    directory: Directory,
    row: EventRow,
    evidence_of_row: EventEvidence | None,
    problem: str | None,
    *,
    width: int,
    raw: bool,
    raw_key: str,
) -> list[Row]:
    """Write everything about an event: its members, story, link and body.

    Lures in an agent's words are masked; *raw_key* is the key that shows them as
    recorded.
    """
    event = (
        evidence_of_row.proof.event()
        if evidence_of_row and evidence_of_row.proof
        else None
    )
    rows = list(_members(pen, directory, row, event, width, raw_key=raw_key))
    if evidence_of_row is None:
        return [*rows, EMPTY, (("Reading its story and its body.", pen.palette.muted),)]
    rows += [EMPTY, *_story(pen, row, evidence_of_row, width)]
    if evidence_of_row.proof is not None:
        rows += [EMPTY, *_chain(pen, evidence_of_row.proof, problem, width)]
        rows += _body(pen, evidence_of_row.proof, width, None if raw else raw_key)
    return rows


def _members(
    pen: Pen,
    directory: Directory,
    row: EventRow,
    event: EventInfo | None,
    width: int,
    *,
    raw_key: str,
) -> Iterator[Row]:
    p, shown = pen.palette, directory.intake.shown
    ago = (directory.clock.now() - row.time).total_seconds()
    when = f"{row.time:%Y-%m-%d %H:%M:%S.%f}Z"
    yield pen.fact("When", (when, p.text), (f"  {_ago(ago)}", p.muted))
    word, style = row.word, event_words.style(p, row)
    yield pen.fact("What", (row.type, p.text), (f"  {word}", style))
    kind = shown(event.actor.kind, 20) if event else ""
    who = shown(event.actor.id, 200) if event else ""
    names = dict.fromkeys(part for part in (kind, row.actor.name, who) if part)
    yield from pen.facts("Who", " ".join(names), width, 3)[0]
    if row.agent_id and row.agent_id != who:
        name = directory.agent_name(row.agent_id)
        yield from pen.facts("Agent", f"{name} {row.agent_id}", width, 3)[0]
    action, resource = (event.action, event.resource) if event else (None, None)
    for label, text in (("Action", action), ("On", resource)):
        if text:
            yield from pen.facts(label, shown(text, _WHOLE), width, _LINES)[0]
    if row.rule:
        yield from pen.facts("Rule", row.rule, width, 3)[0]
    theirs = kind == "agent" and not row.outcome
    why = row.reason if theirs else event_words.why(directory, row) or row.reason
    if why and why != row.rule:
        key = raw_key if theirs else ""
        label = "Means" if row.type == "tenant.log" else "Why"
        yield from _text(pen, label, shown(why, _WHOLE), width, key)
    if row.decision_id:
        yield from pen.facts("Decision", row.decision_id, width, 2)[0]
    if event:
        yield from _detail(pen, directory, event.detail, width, raw_key)


def _detail(
    pen: Pen, directory: Directory, detail: Json, width: int, raw_key: str
) -> Iterator[Row]:
    shown = directory.intake.shown
    for name, value in detail.items():
        # What the tenant says of a row of its log.
        if name == "details" and isinstance(value, dict):
            yield from _detail(pen, directory, value, width, raw_key)
            continue
        written = value
        if name == "parameters" and isinstance(value, dict):
            written = shown_parameters(value, Money.read(detail.get("money")))
        label = _LABELS.get(name) or shown(name, 11).replace("_", " ").capitalize()
        text = written if isinstance(written, str) else _json(written)
        key = raw_key if name in _THEIRS else ""
        yield from _text(pen, label, shown(text, _WHOLE), width, key)


def _text(pen: Pen, label: str, text: str, width: int, raw_key: str) -> list[Row]:
    """Write a member; with a *raw_key* it is an agent's own words: marked, masked."""
    style, masked = pen.palette.text, ""
    if raw_key:
        text, masked = pen.masked(pen.clip(text, _WHOLE))
        style = pen.palette.unverified
    rows = pen.facts(label, text, width, _LINES, style)[0]
    if masked:
        rows.append(
            pen.fact("", (f"{masked}; {raw_key} shows it raw", pen.palette.waiting))
        )
    return rows


def _story(
    pen: Pen, row: EventRow, evidence_of_row: EventEvidence, width: int
) -> Iterator[Row]:
    p, events = pen.palette, evidence_of_row.story
    if len(events) < 2:
        yield pen.fact("Story", ("no other event shares its decision", p.muted))
        return
    took = span((events[-1].time - events[0].time).total_seconds())
    more = "" if evidence_of_row.complete else ", and there may be more"
    text = f"{plural(len(events), 'event')} in {took}{more}"
    yield pen.fact("Story", (text, p.strong if evidence_of_row.complete else p.waiting))
    before = None
    for event in events:
        here = event.seq == row.seq
        gap = "" if before is None else span((event.time - before.time).total_seconds())
        before = event
        left: Row = (
            (pen.glyphs.cursor if here else " ", p.accent),
            (
                f"{'+' if gap else ''}{gap or f'{event.time:%H:%M:%S}'}".rjust(11),
                p.muted,
            ),
            (f"  {event.word:<8}", event_words.style(p, event)),
            (f" {pen.clip(event_words.deed(event), 24):<24}", p.text),
            (f" {pen.clip(event.actor.name, 24)}", p.text),
            (f"  {event.reason}" if event.type == "agent.revoked" else "", p.muted),
        )
        right: Row = ((f"{event.seq:,}", p.muted),)
        yield pen.spread(pen.cut(left, width - cells(right) - 1), right, width)


def _chain(pen: Pen, proof: Proof, problem: str | None, width: int) -> Iterator[Row]:
    p, g, shown = pen.palette, pen.glyphs, pen.clip
    if problem is None:
        verdict = ("not checked", p.muted)
    elif problem:
        verdict = (f"{g.failed} does not match: {problem}", p.danger)
    else:
        text = "verified here: computed again from the recorded body"
        verdict = (f"{g.done} {text}", p.accent)
    yield from pen.facts("Link", verdict[0], width, 3, verdict[1])[0]
    yield from pen.facts("Hash", shown(proof.hash, 80), width, 2, p.muted)[0]
    yield from pen.facts("Previous", shown(proof.previous, 80), width, 2, p.muted)[0]


def _body(pen: Pen, proof: Proof, width: int, raw_key: str | None) -> Iterator[Row]:
    """Write the body as it was hashed, or by which key it is shown."""
    p, size = pen.palette, len(proof.body.encode("utf-8", "replace"))
    if raw_key is not None:
        yield pen.fact(
            "Raw body",
            (f"{size:,} bytes, as hashed; ", p.muted),
            (raw_key, p.key),
            (" shows it", p.muted),
        )
        return
    text = f"{size:,} bytes, as hashed; nothing in it is masked"
    yield pen.fact("Raw body", (text, p.waiting))
    body, plain = in_full(proof.body), pen.glyphs.ascii_only
    for line in visible_lines(body, max(width, 8), _RAW_LINES, ascii_only=plain):
        yield ((line, p.text),)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(", ", ": "))


def _ago(seconds: float) -> str:
    return f"{span(seconds)} ago" if seconds >= 10 else "just now"
