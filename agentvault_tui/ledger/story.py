"""One decision's story: the events that share its ids, found by the text index.

The index only proposes: an agent may write any id it likes into its own words, so an
event belongs to a story by the members that the broker fills in, and by nothing else.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from typing import Any, Final

from agentvault_tui.ledger.chain import read_event
from agentvault_tui.ledger.places import head_seq
from agentvault_tui.ledger.records import Story
from agentvault_tui.ledger.search import indexed_upto
from agentvault_tui.model import Event, EventType

_MOST_IDS: Final = 8
_NEAREST: Final = 1_000
"""Events looked at on each side, should someone have scattered an id about."""
_UNINDEXED: Final = 50_000
"""Events looked through on each side where the index does not reach."""
_TRIGRAMS: Final = 4
"""Of an id's: together they stand in next to no other event."""


def read_story(db: sqlite3.Connection, anchor: Event) -> Story:
    """Return what shares a decision, step-up or token with *anchor*, oldest first."""
    found = {anchor.seq: anchor}
    wanted, asked, complete = _ids(anchor), set[str](), True
    while missing := sorted(wanted - asked):
        if len(asked) == _MOST_IDS:
            complete = False
            break
        name = missing[0]
        asked.add(name)
        for seqs, whole in _mentions(db, name, anchor.seq):
            complete &= whole
            found |= {e.seq: e for e in _events(db, seqs) if _carries(e, name)}
        for event in found.values():
            wanted |= _links(event)
    return Story(tuple(found[seq] for seq in sorted(found)), complete)


def _mentions(
    db: sqlite3.Connection, name: str, seq: int
) -> Iterator[tuple[list[int], bool]]:
    """Yield places where an id may stand, the nearest to *seq*, and if these are all.

    First from the index, later and earlier, then from what it does not hold yet.
    """
    upto = indexed_upto(db)
    needle = name.casefold()
    if len(needle) < 3:
        upto = 0
    if upto:
        sql = "SELECT rowid FROM idx.words WHERE words MATCH ?"
        for side in (
            "AND rowid > ? ORDER BY rowid LIMIT ?",
            "AND rowid < ? ORDER BY rowid DESC LIMIT ?",
        ):
            rows = db.execute(f"{sql} {side}", (_terms(needle), seq, _NEAREST))
            seqs = [row[0] for row in rows]
            yield seqs, len(seqs) < _NEAREST
    head = head_seq(db)
    low = max(upto + 1, seq - _UNINDEXED)
    high = min(head, max(seq, upto) + _UNINDEXED)
    rows = db.execute(
        "SELECT seq FROM events WHERE seq BETWEEN ? AND ? AND instr(text, ?) LIMIT ?",
        (low, high, needle, _NEAREST),
    )
    seqs = [row[0] for row in rows]
    whole = low == upto + 1 and high == head and len(seqs) < _NEAREST
    yield seqs, whole


def _terms(needle: str) -> str:
    """Return what to ask the index for; not the start, that all ids of a kind share."""
    last = len(needle) - 3
    first = min(needle.find("_") + 1, last)
    steps = range(_TRIGRAMS)
    starts = {first + round(i * (last - first) / steps[-1]) for i in steps}
    parts = (needle[start : start + 3].replace('"', '""') for start in sorted(starts))
    return " AND ".join(f'"{part}"' for part in parts)


def _events(db: sqlite3.Connection, seqs: list[int]) -> Iterator[Event]:
    rows = db.execute(
        "SELECT body, hash FROM events WHERE seq IN (SELECT value FROM json_each(?))",
        (json.dumps(seqs),),
    )
    return (read_event(*row) for row in rows)


def _carries(event: Event, name: str) -> bool:
    cut = event.detail.get("tokens")
    return name in _ids(event) or (
        # What a revocation cut is told as a list; it leads to no further event.
        event.type is EventType.AGENT_REVOKED and isinstance(cut, list) and name in cut
    )


def _links(event: Event) -> set[str]:
    """Return the ids that lead from an event of the story to others.

    A request that was merely repeated has a decision of its own, and no more events.
    """
    ids = _ids(event)
    if event.type is EventType.TOKEN_DECISION and event.decision_id:
        ids.discard(event.decision_id)
    return ids


def _ids(event: Event) -> set[str]:
    members: tuple[Any, ...] = (
        event.decision_id,
        event.detail.get("stepup_id"),
        event.detail.get("token_id"),
    )
    return {each for each in members if isinstance(each, str) and each}
