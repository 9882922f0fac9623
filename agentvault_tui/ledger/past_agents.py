"""The agents at an event, their state, and the revocations."""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from agentvault_tui.clock import Deadline, parse_iso
from agentvault_tui.ledger.canonical import text_or_start
from agentvault_tui.ledger.chain import read_event
from agentvault_tui.ledger.records import Panic
from agentvault_tui.model import Agent, AgentId, AgentStatus, Event, EventType

_TYPES: Final = (
    EventType.AGENT_REGISTERED,
    EventType.AGENT_REVOKED,
    EventType.AGENT_RESTORED,
    EventType.AGENT_SCOPES_CHANGED,
    EventType.AGENT_CHANGED,
    EventType.PANIC_ON,
    EventType.PANIC_OFF,
    EventType.CLOCK_JUMP,
    EventType.AUDIT_AMBIGUOUS,
)


@dataclass(frozen=True, slots=True)
class ScopeCut:
    """Scopes taken from an agent: its older tokens that carry one of them ended."""

    seq: int
    scopes: frozenset[str]


@dataclass(slots=True)
class Roster:
    """The state of agents and the panic switch that follows from the events."""

    agents: dict[AgentId, Agent] = field(default_factory=dict)
    panic: Panic | None = None
    all_ended_seq: int = 0
    """The last event that ended every token there was."""
    valid_from_seq: dict[AgentId, int] = field(default_factory=dict)
    """The last event that cut an agent off or let it back in.

    No token issued before it lives: either it was revoked, or it was recorded while its
    agent was revoked, and then it was never delivered.
    """
    scope_cuts: dict[AgentId, list[ScopeCut]] = field(
        default_factory=lambda: defaultdict(list)
    )
    jumps: dict[int, timedelta] = field(default_factory=dict)
    """By how much the wall clock was set, by event."""
    peaks: dict[int, datetime] = field(default_factory=dict)
    """The wall clock's latest time when it was set back, by event."""
    void: tuple[range, ...] = ()
    """Batches that were found although they failed by their callers' answers."""
    unsure: list[str] = field(default_factory=list)

    def valid_from(self, agent_id: AgentId) -> int | None:
        """Return the event after which its tokens live; None if none does."""
        agent = self.agents.get(agent_id)
        if self.panic is not None or agent is None:
            return None
        if agent.status is AgentStatus.REVOKED:
            return None
        return max(self.all_ended_seq, self.valid_from_seq.get(agent_id, 0))

    def set_back_since(self, seq: int) -> timedelta:
        """Return how far the wall clock was set back after an event, as less than 0."""
        moved = (jump for at, jump in self.jumps.items() if at > seq)
        return min(sum(moved, timedelta()), timedelta())


class Rosters:
    """Reads each of these events once: they are few, and never change."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._upto = 0
        self._last: tuple[int, Roster] = 0, Roster()
        """How many events were applied, and the state after them."""

    def at(self, db: sqlite3.Connection, seq: int) -> Roster:
        """Return the state after event *seq*."""
        if seq > self._upto:
            self._events += events_of(db, _TYPES, self._upto + 1, seq)
            self._upto = seq
        count = bisect_right(self._events, seq, key=lambda event: event.seq)
        if count != self._last[0]:
            earlier = self._events[:count]
            roster = Roster(void=tuple(_void(earlier)))
            for event in earlier:
                _apply(roster, event)
            self._last = count, roster
        return self._last[1]


def events_of(
    db: sqlite3.Connection,
    types: Iterable[EventType],
    low: int,
    high: int,
    latest: int = -1,
) -> list[Event]:
    """Read the events of some types between two places, both included, in order.

    Of each type only the *latest*, if that is given.
    """
    events = [
        read_event(*row)
        for kind in types
        for row in db.execute(
            "SELECT body, hash FROM events WHERE type = ? AND outcome IS NULL"
            " AND seq BETWEEN ? AND ? ORDER BY seq DESC LIMIT ?",
            (kind.value, low, high, latest),
        )
    ]
    events.sort(key=lambda event: event.seq)
    return events


def is_void(void: tuple[range, ...], seq: int) -> bool:
    """Check whether the event was in a batch that was reported as failed."""
    return any(seq in batch for batch in void)


def ends_everything(event: Event) -> bool:
    """Check whether the broker started with its clock set back: nothing lived on."""
    return event.type is EventType.CLOCK_JUMP and "tokens_revoked" in event.detail


def _void(events: list[Event]) -> Iterable[range]:
    for event in events:
        if event.type is EventType.AUDIT_AMBIGUOUS and event.reason == "batch_found":
            first, last = event.detail.get("first_seq"), event.detail.get("last_seq")
            if isinstance(first, int) and isinstance(last, int):
                yield range(first, last + 1)


def _apply(roster: Roster, event: Event) -> None:
    failed = is_void(roster.void, event.seq)
    match event.type:
        case EventType.PANIC_ON:
            since = event.detail.get("since")
            began = parse_iso(since) if isinstance(since, str) else event.time
            roster.panic = Panic(True, began, event.actor.name, event.reason or "")
            roster.all_ended_seq = event.seq
        case EventType.PANIC_OFF if not failed:
            roster.panic = None
            roster.all_ended_seq = event.seq
        case EventType.CLOCK_JUMP if ends_everything(event):
            roster.all_ended_seq = event.seq
        case EventType.CLOCK_JUMP:
            moved = clock_moved(event.detail)
            roster.jumps[event.seq] = moved
            if moved < timedelta():
                roster.peaks[event.seq] = event.time - moved
        case EventType.AGENT_REGISTERED:
            _register(roster, event, failed=failed)
        case _ if event.agent_id in roster.agents:
            _change(roster, event, roster.agents[event.agent_id], failed=failed)


def _register(roster: Roster, event: Event, *, failed: bool) -> None:
    if event.agent_id is None:
        return
    detail = event.detail
    origin = detail.get("from_template")
    agent = Agent(
        id=event.agent_id,
        client_id=event.agent_id,
        name=text_or_start(detail.get("agent")),
        owner=text_or_start(detail.get("owner")),
        purpose=text_or_start(detail.get("purpose")),
        scopes=_scopes(detail, "scopes", roster, event) or (),
        created_at=event.time,
        resource_server=detail.get("resource_server") is True,
        serves=_texts(detail.get("serves")),
        resources=_texts(detail.get("resources")),
        until=_until(event),
        template=detail.get("template") is True,
        from_template=AgentId(str(origin)) if origin else None,
    ).restored()
    # Told that it failed, nobody holds its secret: it came back revoked.
    roster.agents[agent.id] = agent.revoked(event.time) if failed else agent


def _until(event: Event) -> Deadline | None:
    until = event.detail.get("until")
    return Deadline(parse_iso(until), 0.0, "") if isinstance(until, str) else None


def _texts(value: object) -> tuple[str, ...]:
    listed = value if isinstance(value, list) else []
    return tuple(item for item in listed if isinstance(item, str))


def _change(roster: Roster, event: Event, agent: Agent, *, failed: bool) -> None:
    match event.type:
        case EventType.AGENT_REVOKED:
            agent = agent.revoked(event.time)
            roster.valid_from_seq[agent.id] = event.seq
        case EventType.AGENT_RESTORED if not failed:
            agent = replace(agent.restored(), until=_until(event) or agent.until)
            roster.valid_from_seq[agent.id] = event.seq
        case EventType.AGENT_CHANGED if not failed:
            agent = replace(
                agent,
                name=text_or_start(event.detail.get("agent")),
                removed_at=event.time if _is_removed(event) else None,
                owner=text_or_start(event.detail.get("owner")),
                purpose=text_or_start(event.detail.get("purpose")),
                resource_server=event.detail.get("resource_server") is True,
                until=_until(event) or agent.until,
            )
        case EventType.AGENT_SCOPES_CHANGED:
            taken = _scopes(event.detail, "ungranted", roster, event)
            if taken:
                ended = ScopeCut(event.seq, frozenset(taken))
                roster.scope_cuts[agent.id].append(ended)
            if "serves" in event.detail and not failed:
                agent = replace(
                    agent,
                    serves=_texts(event.detail["serves"]),
                    resources=_texts(event.detail.get("resources")),
                )
    scopes = _scopes(event.detail, "scopes", roster, event)
    if scopes is not None:
        given = _scopes(event.detail, "granted", roster, event) or ()
        remaining = [s for s in scopes if not (failed and s in given)]
        agent = replace(agent, scopes=tuple(remaining))
    roster.agents[agent.id] = agent


def _is_removed(event: Event) -> bool:
    changed = event.detail.get("changed")
    return isinstance(changed, list) and "removed" in changed


def _scopes(
    detail: dict[str, object], name: str, roster: Roster, event: Event
) -> tuple[str, ...] | None:
    """Return a list of scopes; None where the event has none, or it was cut short."""
    value = detail.get(name)
    if isinstance(value, list):
        return tuple(str(scope) for scope in value)
    if value is not None:
        roster.unsure.append(f"Event {event.seq} was too long to hold all scopes.")
    return None


def clock_moved(detail: dict[str, object]) -> timedelta:
    """Return by how much a clock was set, as its event's detail says; 0 if unsaid."""
    try:
        return timedelta(seconds=float(str(detail.get("seconds"))))
    except (ValueError, OverflowError):
        return timedelta()
