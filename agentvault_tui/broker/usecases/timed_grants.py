"""Grant scopes for a time: each ends by itself, over restarts and at every broker."""

from __future__ import annotations

import logging
from collections import defaultdict
from contextlib import suppress
from datetime import datetime
from typing import Final

import msgspec

from agentvault_tui.broker.core import SYSTEM, Broker
from agentvault_tui.broker.team_copies import put
from agentvault_tui.broker.usecases.scopes import (
    ChangedRights,
    Timing,
    change_scopes,
)
from agentvault_tui.clock import Deadline, as_set_now, iso, parse_iso
from agentvault_tui.encoder import to_json
from agentvault_tui.errors import LedgerError, NotFoundError, UsageError
from agentvault_tui.ledger import Meta
from agentvault_tui.model import Actor, Agent, AgentId

log = logging.getLogger("agentvault.grants")

ENDS: Final = "grant_ends:"
"""Of the small values with the end of a scope: its agent and the scope follow."""
_BOOT: Final = "grant_boot:"
"""The same end on the boot clock, a `Deadline`; brokers of 0.9.0 read `ENDS` alone."""
_NONE: Final = frozenset[str]()


async def grant(
    broker: Broker,
    agent_id: str,
    scopes: frozenset[str],
    ungrant: frozenset[str],
    operator: Actor,
    *,
    seconds: int | None,
) -> ChangedRights:
    """Give and take scopes; those that are given end after *seconds*, if any.

    The end is in the record of the grant, and so is that a scope which had an end lasts
    without *seconds*.

    Args:
        broker: the broker.
        agent_id: the agent.
        scopes: scopes to give.
        ungrant: scopes to take away.
        operator: who decided.
        seconds: how long the given scopes last; None for good.

    Returns:
        the result of `change_scopes`.

    Raises:
        UsageError: the agent is a template, whose scopes its copies have for good.
        LedgerError: it could not be recorded.
    """
    if seconds is not None:
        agent = await broker.look_up(lambda: broker.registry.agent(agent_id))
        if agent.template:
            raise UsageError(
                "a template's scopes are taken over for good by agents made from it",
                "give the scope to such an agent, or leave out --for",
            )

    def timing(agent: Agent) -> Timing | None:
        if seconds is None:
            return _lasting(broker, agent, scopes)
        return _ending(broker, agent, scopes, seconds)

    change = broker, agent_id, scopes, ungrant, operator
    changed = await change_scopes(*change, timing=timing)
    _deadlines(broker)  # it ends by this boot's clock too
    with suppress(LedgerError):  # what was taken away has ended
        await _forget(broker, changed.agent.id, ungrant)
    return changed


def _ending(
    broker: Broker, agent: Agent, scopes: frozenset[str], seconds: int
) -> Timing:
    """Return the ends of scopes that are granted for a time."""
    ends = Deadline.after(broker.clock, seconds)
    until, boot = iso(ends.wall), to_json(ends)
    rows = [
        Meta(_key(agent.id, one, prefix), value)
        for one in sorted(scopes)
        for prefix, value in ((ENDS, until), (_BOOT, boot))
    ]
    detail = {"ends": sorted(scopes), "until": until}
    return Timing(rows, detail, "granted for a time")


def _lasting(broker: Broker, agent: Agent, scopes: frozenset[str]) -> Timing | None:
    """Return the ends that do not count any more, of granted scopes."""
    rows = [Meta(key, None) for key in _rows(broker, agent.id, scopes)]
    if not rows:
        return None
    lasting = sorted(scopes & ends_of(broker, agent).keys())
    if not lasting:  # the agent has none of them: they are of grants before
        return Timing(rows, {}, None)
    return Timing(rows, {"lasting": lasting}, "granted without an end")


async def _forget(broker: Broker, agent_id: AgentId, scopes: frozenset[str]) -> None:
    if keys := _rows(broker, agent_id, scopes):
        await broker.record(changes=[Meta(key, None) for key in keys])
        for key in keys:
            put(broker.recording.meta, key, None)


def _rows(broker: Broker, agent_id: AgentId, scopes: frozenset[str]) -> list[str]:
    """Return the keys of the ends of scopes that are recorded."""
    keys = (_key(agent_id, one, prefix) for one in scopes for prefix in (ENDS, _BOOT))
    return [key for key in keys if key in broker.recording.meta]


def ends_of(broker: Broker, agent: Agent) -> dict[str, str]:
    """Return when scopes of an agent end that were granted for a time.

    Args:
        broker: the broker.
        agent: whose scopes.

    Returns:
        the time (RFC 3339), by scope.
    """
    rows = broker.recording.meta
    return {
        scope: rows[key]
        for scope in agent.scopes
        if (key := _key(agent.id, scope)) in rows
    }


async def end_due(broker: Broker, latest: datetime | None = None) -> None:
    """Remove the scopes whose time is over by either clock, as an operator does.

    Args:
        broker: the broker.
        latest: at a start the time of the ledger's last event: it is not earlier now.
    """
    due = defaultdict[str, set[str]](set)
    for key, ends in _deadlines(broker, latest).items():
        if ends.passed(broker.clock):
            agent_id, _, scope = key.removeprefix(ENDS).partition(":")
            due[agent_id].add(scope)
    for agent_id, scopes in due.items():
        try:
            held = scopes.intersection(broker.registry.agent(agent_id).scopes)
            if held:
                await change_scopes(broker, agent_id, _NONE, frozenset(held), SYSTEM)
        except NotFoundError:
            pass  # its row is of another ledger
        try:
            await _forget(broker, AgentId(agent_id), frozenset(scopes))
        except LedgerError as error:
            log.warning("ended scopes are forgotten later: %s", error.what)


def ends_as_set_now(broker: Broker) -> list[Meta]:
    """Return ends that would be later by a wall clock that was set back.

    Each as the clock is set now, as with `Lifetimes.as_set_now`.
    """
    recording = broker.recording
    ends = as_set_now(broker.clock)
    moved = {
        key: iso(wall)
        for key, deadline in _deadlines(broker).items()
        if (wall := ends(deadline)) < deadline.wall
    }
    for key, until in moved.items():
        deadline = recording.grant_ends[key][1]._replace(wall=parse_iso(until))
        recording.grant_ends[key] = until, deadline
        put(recording.meta, key, until)
    return [Meta(key, until) for key, until in moved.items()]


def _deadlines(broker: Broker, latest: datetime | None = None) -> dict[str, Deadline]:
    """Return the end of each scope, by its row; new rows are of another broker."""
    recording = broker.recording
    now, ends = latest or broker.clock.now(), dict[str, tuple[str, Deadline]]()
    for key, until in recording.meta.items():
        if not key.startswith(ENDS):
            continue
        row, deadline = recording.grant_ends.get(key, ("", None))
        if deadline is None or row != until:
            deadline = _stored(broker, key).loaded(broker.clock, now)
        ends[key] = until, deadline
    recording.grant_ends = ends
    return {key: deadline for key, (_, deadline) in ends.items()}


def _stored(broker: Broker, key: str) -> Deadline:
    wall = parse_iso(broker.recording.meta[key])
    with suppress(KeyError, msgspec.MsgspecError):  # of 0.9.0, or changed
        boot = broker.recording.meta[_BOOT + key.removeprefix(ENDS)]
        ends = msgspec.json.decode(boot, type=Deadline)
        if ends.wall >= wall:  # which is earlier if the clock was set since
            return ends._replace(wall=wall)
    return Deadline(wall, 0.0, "")


def _key(agent_id: str, scope: str, prefix: str = ENDS) -> str:
    return f"{prefix}{agent_id}:{scope}"
