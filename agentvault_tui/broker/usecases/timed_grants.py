"""Grant scopes for a time: each ends by itself, over restarts and at every broker."""

from __future__ import annotations

import logging
from collections import defaultdict
from contextlib import suppress
from datetime import timedelta
from typing import Final

from agentvault_tui.broker.core import SYSTEM, Broker, decide_anew
from agentvault_tui.broker.team_copies import put
from agentvault_tui.broker.usecases.scopes import (
    ChangedRights,
    change_scopes,
    scopes_draft,
)
from agentvault_tui.clock import iso, parse_iso
from agentvault_tui.errors import LedgerError, NotFoundError, UsageError
from agentvault_tui.ledger import Meta
from agentvault_tui.model import Actor, Agent, AgentId

log = logging.getLogger("agentvault.grants")

ENDS: Final = "grant_ends:"
"""Of the small values with the end of a scope: its agent and the scope follow."""
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

    The end is recorded before the scope is given: no crash in between makes a scope
    last that was to end. Without *seconds* an end that a scope had is taken away.

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
    if seconds is None:
        await _forget(broker, AgentId(agent_id), scopes)
    else:
        await decide_anew(lambda: _end(broker, agent_id, scopes, operator, seconds))
    changed = await change_scopes(broker, agent_id, scopes, ungrant, operator)
    with suppress(LedgerError):  # what was taken away has ended
        await _forget(broker, changed.agent.id, ungrant)
    return changed


async def _end(
    broker: Broker,
    agent_id: str,
    scopes: frozenset[str],
    operator: Actor,
    seconds: int,
) -> None:
    agent = await broker.known(lambda: broker.registry.agent(agent_id))
    if agent.template:
        raise UsageError(
            "a template's scopes are taken over for good by agents made from it",
            "give the scope to such an agent, or leave out --for",
        )
    async with broker.registry.changing[agent.id]:
        agent = broker.registry.agent(agent_id)
        until = iso(broker.clock.now() + timedelta(seconds=seconds))
        draft = scopes_draft(operator, agent, reason="granted for a time")
        draft.detail.update(ends=sorted(scopes), until=until)
        rows = [Meta(_key(agent.id, one), until) for one in sorted(scopes)]
        await broker.record(draft, changes=[agent, *rows])
        for row in rows:
            put(broker.kept, row.key, row.value)


async def _forget(broker: Broker, agent_id: AgentId, scopes: frozenset[str]) -> None:
    keys = [key for one in scopes if (key := _key(agent_id, one)) in broker.kept]
    if keys:
        await broker.record(changes=[Meta(key, None) for key in keys])
        for key in keys:
            put(broker.kept, key, None)


def ends_of(broker: Broker, agent: Agent) -> dict[str, str]:
    """Return when scopes of an agent end that were granted for a time.

    Args:
        broker: the broker.
        agent: whose scopes.

    Returns:
        the time (RFC 3339), by scope.
    """
    rows = broker.kept
    return {
        scope: rows[key]
        for scope in agent.scopes
        if (key := _key(agent.id, scope)) in rows
    }


async def end_due(broker: Broker) -> None:
    """Remove the scopes whose time is over, as an operator does."""
    now, due = broker.clock.now(), defaultdict[str, set[str]](set)
    for key, until in broker.kept.items():
        if key.startswith(ENDS) and parse_iso(until) <= now:
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


def _key(agent_id: str, scope: str) -> str:
    return f"{ENDS}{agent_id}:{scope}"
