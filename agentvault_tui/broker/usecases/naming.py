"""Rename an agent, and remove a revoked one from the lists of agents."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.usecases.register import check_name, registering
from agentvault_tui.broker.usecases.revoke import FAILED, record_change
from agentvault_tui.broker.usecases.scopes import changed_draft
from agentvault_tui.errors import ConflictError
from agentvault_tui.ledger import Meta
from agentvault_tui.lookalikes import fold_text
from agentvault_tui.model import Actor, Agent, AgentStatus
from agentvault_tui.text import visible

_PLACES: Final = "applied_files"
"""The name in the ledger of the files that were applied, with their agents' names."""


async def rename_agent(
    broker: Broker, agent_id: str, name: str, operator: Actor
) -> Agent:
    """Give an agent another name; its id, tokens and history stay.

    Args:
        broker: the broker.
        agent_id: the agent.
        name: the new one.
        operator: who decided.

    Returns:
        the renamed agent.

    Raises:
        NotFoundError: no such agent.
        UsageError: the name cannot be one of an agent.
        ConflictError: the name is taken, or a file that was applied has the agent; or
            it was revoked meanwhile.
        LedgerUnwritableError: it could not be recorded, and stays as it was.
    """
    async with broker.registry.changing[broker.registry.agent(agent_id).id]:
        await broker.recording.cuts.record_missed()
        agent = broker.registry.agent(agent_id)
        check_rename(broker, agent, name)
        after = replace(agent, name=name)
        draft = changed_draft(operator, after, ["name"])
        draft.detail["name_before"] = agent.name
        stays = partial(changed_draft, operator, changed=[], reason=FAILED)
        # A change of case alone keeps the folded name, which is its own.
        others = [after] if fold_text(name) != fold_text(agent.name) else []
        with registering(broker, *others):
            await record_change(broker, agent, after, draft, stays)
            after = replace(broker.registry.agent(agent.id), name=name)
            broker.registry.put_agent(after)
        return after


def check_rename(broker: Broker, agent: Agent, name: str) -> None:
    """Refuse a name that an agent cannot have, and a rename that `apply` would undo.

    Args:
        broker: the broker.
        agent: the agent.
        name: the new name.

    Raises:
        UsageError: the name cannot be one of an agent.
        ConflictError: the agent was removed; or a file that was applied, or a rule,
            names it.
    """
    check_name(name)
    if agent.removed_at is not None:
        raise ConflictError(f"{visible(agent.name, 60)} was removed")
    _check_in_no_file(broker, agent, "rename")
    if places := list(_rules_of(broker, agent.name)):
        raise ConflictError(
            f"{visible(agent.name, 60)} is named in {', '.join(places)}, whose rules"
            " would not apply to it any more",
            f"write its id there, {agent.id}, then rename the agent",
        )


def _check_in_no_file(broker: Broker, agent: Agent, verb: str) -> None:
    """Refuse to *verb* an agent that a file has which was applied.

    Raises:
        ConflictError: names the file.
    """
    for file, names in _places(broker).items():
        if agent.name in names:
            raise ConflictError(
                f"{visible(agent.name, 60)} is in the file {visible(file, 200)}, which"
                " apply would register again under that name",
                f"take it out of that file and apply the file, then {verb} the agent",
            )


def _rules_of(broker: Broker, name: str) -> Iterator[str]:
    """Yield the places whose rules name an agent, and not its id."""
    if any(name in rule.agents for rule in broker.settings.stepup.rules):
        yield "[[stepup.rules]] of config.toml"
    if any(name in limit.agents for limit in broker.deciding.policy.limits.limits):
        yield "limits.toml"
    text = broker.deciding.policy.text
    if "principal.name" in text and json.dumps(name, ensure_ascii=False) in text:
        yield "policy.cedar"
    for uses in broker.extensions.name_uses:
        yield from uses(name)


def check_unclaimed(broker: Broker, name: str) -> None:
    """Refuse a name that a file has, or a removed agent had.

    A person who applies the file, or knew that agent, would grant to another one.

    Args:
        broker: the broker.
        name: of an agent that an operator without a grant registers.

    Raises:
        ConflictError: it is one of these names.
    """
    shown, folded = visible(name, 60), fold_text(name)
    remedy = "choose another name, or have an approver register it with its scopes"
    if folded in map(fold_text, _names_in(_places(broker))):
        raise ConflictError(f"a file that was applied has the name {shown}", remedy)
    if broker.registry.lifetimes.removed.has_name(name):
        raise ConflictError(f"a removed agent had the name {shown}", remedy)


async def remove_agent(broker: Broker, agent_id: str, operator: Actor) -> Agent:
    """Take a revoked agent out of all lists, for good; its history stays.

    A person who may grant may give its name to another agent afterwards.

    Args:
        broker: the broker.
        agent_id: the agent.
        operator: who decided.

    Returns:
        the agent, as it is recorded last.

    Raises:
        NotFoundError: no such agent.
        ConflictError: it is not revoked, its revocation is not finished, or a file that
            was applied has it.
        LedgerUnwritableError: it could not be recorded, and stays as it was.
    """
    async with broker.registry.changing[broker.registry.agent(agent_id).id]:
        await broker.recording.cuts.record_missed()
        agent = broker.registry.agent(agent_id)
        if agent.removed_at is not None:
            return agent
        shown = visible(agent.name, 60)
        if agent.status is not AgentStatus.REVOKED:
            raise ConflictError(
                f"{shown} is not revoked", f"agentvault revoke {shown}, then remove it"
            )
        if any(one.status == "pending" for one in broker.registry.steps_of(agent.id)):
            raise ConflictError(
                f"the revocation of {shown} is not finished at the tenant",
                "agentvault agents show has what is left; remove it afterwards",
            )
        _check_in_no_file(broker, agent, "remove")
        # Key and subject stay, so that no other agent gets them unnoticed.
        public = replace(agent.credential, secret_sha256=None)
        now = broker.clock.now()
        after = replace(agent, removed_at=now, credential=public, delegates=())
        draft = changed_draft(operator, after, ["removed"])
        stays = partial(changed_draft, operator, changed=[], reason=FAILED)
        await record_change(broker, agent, after, draft, stays)
        broker.registry.put_agent(after)
        return after


def changed_places(broker: Broker, places: Mapping[str, Sequence[str]]) -> Meta | None:
    """Return the row of the files' agents, if files name others than those before.

    Args:
        broker: the broker.
        places: the names of the agents in each file that is applied.

    Returns:
        what `check_rename` and `remove_agent` compare with once it is recorded and in
        `Broker.meta`; None: the names are the same, whichever files have them.
    """
    # A file that is not applied this time says what it said before, as far as no other
    # file has its agents by now.
    before = _places(broker)
    moved = _names_in(places)
    now = {
        file: [name for name in names if name not in moved]
        for file, names in before.items()
    } | {file: sorted(names) for file, names in places.items()}
    if _names_in(before) == _names_in(now):
        return None
    occupied = {file: names for file, names in sorted(now.items()) if names}
    return Meta(_PLACES, json.dumps(occupied, ensure_ascii=False))


def _names_in(places: Mapping[str, Sequence[str]]) -> set[str]:
    return {name for names in places.values() for name in names}


def _places(broker: Broker) -> dict[str, list[str]]:
    places: dict[str, list[str]] = json.loads(broker.recording.meta.get(_PLACES, "{}"))
    return places
