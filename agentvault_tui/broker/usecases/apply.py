"""Put files in effect: one plan, and one commit for all of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from shlex import quote
from typing import Final

from msgspec import UNSET, UnsetType, to_builtins
from msgspec.structs import replace as replaced

from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.cuts import Kept
from agentvault_tui.broker.registry import Registry
from agentvault_tui.broker.team_copies import put
from agentvault_tui.broker.usecases.apply_doubts import AgentChange, Doubts
from agentvault_tui.broker.usecases.apply_entries import (
    agent_named,
    check_names,
    check_places,
    check_subjects,
    delegates_of,
    described,
    filled,
)
from agentvault_tui.broker.usecases.change_basis import changes_about
from agentvault_tui.broker.usecases.delegate import delegates_draft, undelegate
from agentvault_tui.broker.usecases.ending import InForce
from agentvault_tui.broker.usecases.naming import changed_places
from agentvault_tui.broker.usecases.own_restore import OWN
from agentvault_tui.broker.usecases.policy_apply import TextEdits, edits_of, putting
from agentvault_tui.broker.usecases.register import registered_draft, registering
from agentvault_tui.broker.usecases.revoke import FAILED, TEMPLATE_REVOKED, AgentEnd
from agentvault_tui.broker.usecases.scopes import (
    changed_draft,
    scopes_draft,
    ungranting,
)
from agentvault_tui.errors import ConflictError, LedgerError, OvertakenError
from agentvault_tui.ledger import Change, EventQuery, Meta
from agentvault_tui.ledger.canonical import canonical
from agentvault_tui.ledger.query import read_applied, read_unconfirmed
from agentvault_tui.model import (
    Actor,
    Agent,
    AgentId,
    AgentStatus,
    Draft,
    EventType,
    sha256_hex,
)
from agentvault_tui.operator_api.files import AgentEntry, FilesRequest
from agentvault_tui.policy import only_tightens
from agentvault_tui.text import visible

GONE: Final = "gone from the files that were applied"
"""The reason of the revocation of an agent that no file names any more."""
_A_TURN: Final = 50
"""Agents that are compared, or narrowed, in one turn of the event loop."""
_LISTED: Final = 20
"""Names in one sentence."""


@dataclass(frozen=True, slots=True)
class FilesPlan:
    """The changes that applying files would make."""

    digest: str
    changes: tuple[AgentChange, ...]
    pruned: tuple[Agent, ...]
    """Agents to be revoked, also if they are revoked already: see `_just_revoked`."""
    gone: tuple[Agent, ...]
    """Agents that came by files, are served, and stand in none any more."""
    notes: tuple[str, ...]
    edits: TextEdits
    accepted: Mapping[AgentId, str]
    """Agents that files grant to only because a person accepts them, and why."""
    names: Meta | None
    """The agents that files name, if they are others than before."""

    def __bool__(self) -> bool:
        return bool(self.changes or self.pruned or self.edits or self.names)

    @property
    def only_names(self) -> bool:
        """Whether nothing but the names in files is another."""
        return self.names is not None and not replace(self, names=None)

    @property
    def widens(self) -> bool:
        """Whether anything more may be done than before."""
        # A name that no file has may be given to another agent.
        more = bool(self.edits) or self.only_names
        return more or any(change.widens for change in self.changes)


@dataclass(frozen=True, slots=True)
class FilesApplied:
    """A plan that was carried out."""

    plan: FilesPlan
    recorded: bool


Who = Callable[[FilesPlan], Awaitable[Actor]]
"""Returns who decides on a plan, or refuses it."""


def loosened(broker: Broker, plan: FilesPlan) -> tuple[str, ...]:
    """Return which kinds of things a plan loosens.

    Args:
        broker: the broker.
        plan: the changes that applying files would make.

    Returns:
        of `CHANGE_KINDS`; none: it only tightens.
    """
    edits = plan.edits
    limits = edits.policy and not only_tightens(broker.deciding.policy, edits.policy)
    return (
        *(("services",) if edits.services else ()),
        *(("limits",) if limits else ()),
        *(("agents",) if any(one.widens for one in plan.changes) else ()),
        *(("agents",) if plan.only_names else ()),
    )


async def plan_files(
    broker: Broker, wanted: FilesRequest, came: frozenset[str], edits: TextEdits
) -> FilesPlan:
    """Compare files with the active state, in several turns of the event loop.

    Args:
        broker: the broker.
        wanted: the content of the files.
        came: the earlier applied files; see `Ledger.applied`.
        edits: the changes of limits and services.

    Returns:
        the difference.

    Raises:
        UsageError: an entry of a file is impossible.
        ConflictError: the number of agents to be revoked is another, or an agent has
            to be accepted.
    """
    options = {"plan": False, "prune": UNSET, "places": {}, "accept": ()}
    digest = sha256_hex(canonical(to_builtins(replaced(wanted, **options))))
    entries = filled(broker.registry, wanted.agents)
    check_places(wanted)
    there = {name: agent_named(broker.registry, name) for name in entries}
    check_names(broker.registry, [name for name, agent in there.items() if not agent])
    plain = await _described_all(broker, entries, there)
    changes, notes = list[AgentChange](), list[str]()
    for number, (name, entry) in enumerate(entries.items(), 1):
        if number % _A_TURN == 0:
            await asyncio.sleep(0)
        before, shown = there[name], visible(name, 60)
        after = replace(
            plain[name], delegates=delegates_of(broker, name, entry, plain, before)
        )
        if after != before:
            changes.append(AgentChange(before, after))
        if after.status is AgentStatus.REVOKED:
            notes.append(f"{shown} is revoked, and stays so")
        elif after.credential.kind == "none" and not after.template:
            command = f"agentvault agents secret new {quote(shown)}"
            notes.append(f"{shown} cannot authenticate yet: {command}")
    check_subjects(broker.registry, (one.after for one in changes))
    notes += _circle(changes, (one for one in there.values() if one))
    unconfirmed = await broker.ledger.read(read_unconfirmed) if changes else {}
    doubts = Doubts(broker.registry, unconfirmed, plain)
    accepted = doubts.accepted(changes, wanted.accept)
    notes += accepted.values()
    named = {one.id for one in plain.values()}
    gone = _gone(broker.registry, came - named)
    pruned = _pruned(gone, wanted.prune)
    _check_pruned(pruned, named)
    return FilesPlan(
        f"sha256:{digest}",
        tuple(changes),
        (*pruned, *await _just_revoked(broker, came - named, wanted.prune)),
        gone,
        tuple(notes),
        edits,
        accepted,
        changed_places(broker, wanted.places),
    )


def _check_pruned(pruned: Iterable[Agent], named: Collection[AgentId]) -> None:
    """Refuse to end an agent of a file with its template.

    Raises:
        ConflictError: one would end.
    """
    if named_elsewhere := [one for one in pruned if one.id in named]:
        raise ConflictError(
            f"{visible(named_elsewhere[0].name, 60)} is in a file, and ends with its"
            " template, which is in no file any more",
            "put the template back, or leave both out",
        )


async def _described_all(
    broker: Broker,
    entries: Mapping[str, AgentEntry],
    there: Mapping[str, Agent | None],
) -> dict[str, Agent]:
    """Return the agents that entries say, by name, but for their delegates."""
    plain = dict[str, Agent]()
    for number, (name, entry) in enumerate(entries.items(), 1):
        template = None
        if (origin := entry.from_template) is not None:
            template = plain.get(origin) or agent_named(broker.registry, origin)
        plain[name] = described(broker, name, entry, there[name], template)
        if number % _A_TURN == 0:
            await asyncio.sleep(0)
    return plain


async def apply_files(broker: Broker, wanted: FilesRequest, who: Who) -> FilesApplied:
    """Put files in effect, all of them or nothing, in one commit.

    Removed rights end in memory first, as each single command does it. Granted rights
    count once the commit is on disk. Where only something is taken away, a ledger that
    cannot write is no obstacle.

    Args:
        broker: the broker.
        wanted: the content of the files.
        who: returns who decides, or refuses.

    Returns:
        the changes, and whether they are in the ledger already.

    Raises:
        UsageError: an entry of a file is impossible.
        ConflictError: another number of agents would be revoked, or an agent was
            revoked meanwhile: it stays revoked.
        ForbiddenError: the caller may not decide that.
        OvertakenError: another broker changed something meanwhile: apply again.
        LedgerError: it could not be recorded, and nothing was given.
    """
    registry = broker.registry
    async with broker.deciding.state.applying, AsyncExitStack() as locks:
        came = await broker.ledger.read(read_applied)
        named = [agent_named(registry, name) for name in wanted.agents]
        # Whoever gives more to one of them waits; who cuts it off does not.
        there = {agent.id for agent in named if agent}
        for agent_id in sorted(there | {AgentId(one) for one in came}):
            await locks.enter_async_context(registry.changing[agent_id])
        if any(entry.subject for entry in wanted.agents.values()):
            await locks.enter_async_context(registry.giving_subject)
        edits = await edits_of(broker, wanted)
        plan = await plan_files(broker, wanted, came, edits)
        operator = await who(plan)
        if plan.widens:
            broker.ledger.check_writable()
            # A cut that is recorded after it would end what it gives.
            await broker.recording.cuts.record_missed()
        if not loosened(broker, plan):
            # Who only takes away cannot free a name, nor block one.
            plan = replace(plan, names=None)
        recorded = not plan or await _carry_out(broker, plan, operator)
        if plan.names is not None and recorded:
            put(broker.recording.meta, plan.names.key, plan.names.value)
        return FilesApplied(plan, recorded)


async def _carry_out(broker: Broker, plan: FilesPlan, operator: Actor) -> bool:
    """Cut in memory, commit, and give; return whether it is in the ledger."""
    registry = broker.registry
    new = [one.after for one in plan.changes if one.before is None]
    with registering(broker, *new):
        async with AsyncExitStack() as blocks:
            gone = {agent.id for agent in plan.pruned}
            whys = (
                TEMPLATE_REVOKED if one.from_template in gone else GONE
                for one in plan.pruned
            )
            cuts = [
                AgentEnd(broker, one.id, why, operator).begin()
                for one, why in zip(plan.pruned, whys, strict=True)
            ]
            cuts += await _narrow_all(broker, blocks, plan, operator)
            writing = putting(broker, plan.edits, operator, plan.digest)
            texts = await blocks.enter_async_context(writing)
            if cuts:
                blocks.enter_context(broker.admitting.paused())
            try:
                await _commit(broker, plan, cuts, texts, operator)
            except (LedgerError, ConflictError) as error:
                durabilities = [
                    await removal.record(broker, operator) for removal in cuts
                ]
                if isinstance(error, ConflictError | OvertakenError):
                    raise  # nothing of it was written
                if plan.widens:
                    await _undo(broker, plan, operator)
                    raise
                return set(durabilities) == {Kept.LEDGER}
            # Whoever was cut off meanwhile has a record behind this one, which counts.
            overtaken = _moved(registry, plan)
            for change in plan.changes:
                if change.after.id not in overtaken:
                    registry.put_agent(change.after)
            for removal in cuts:
                await broker.record_ended(removal.below, operator, removal.reason)
        if overtaken:
            names = registry.named(overtaken)
            raise _overtaken(f"what the files say of {names} was not applied")
        return True


async def _commit(
    broker: Broker,
    plan: FilesPlan,
    cuts: Iterable[InForce],
    texts: tuple[list[Draft], list[Change]],
    operator: Actor,
) -> None:
    """Record the plan, cuts that are in effect included, in one transaction."""
    new = {one.after.id: one.after for one in plan.changes}
    drafts = [
        Draft(
            EventType.CONFIG_APPLIED,
            operator,
            detail={
                "digest": plan.digest,
                "added": sum(one.before is None for one in plan.changes),
                "changed": sum(one.before is not None for one in plan.changes),
                "revoked": len(plan.pruned),
                "services": sorted(plan.edits.services),
                "limits": plan.edits.limits is not None,
                **({"accepted": sorted(plan.accepted)} if plan.accepted else {}),
            },
        ),
        *texts[0],
    ]
    changes: list[Change] = [*texts[1], *([plan.names] if plan.names else [])]
    for removal in cuts:
        drafts += removal.decided.drafts
        # The row of an agent that stays is written once, as it is in the end.
        rows = (
            row
            for row in removal.decided.changes
            if getattr(row, "id", None) not in new
        )
        changes += rows
    for number, change in enumerate(plan.changes, 1):
        drafts += _drafts(broker.registry, change, new, operator, plan.digest)
        changes.append(change.after)
        if number % _A_TURN == 0:
            await asyncio.sleep(0)
    if _moved(broker.registry, plan):
        raise _overtaken("what the files give was not given")
    await broker.record(*drafts, changes=changes, urgent=not plan.widens)


async def _narrow_all(
    broker: Broker, blocks: AsyncExitStack, plan: FilesPlan, operator: Actor
) -> list[InForce]:
    """Remove in memory the rights that *plan* removes, over several loop turns."""
    cuts: list[InForce] = []
    for number, change in enumerate(plan.changes, 1):
        cuts += await _narrow(broker, blocks, change, operator)
        if number % _A_TURN == 0:
            await asyncio.sleep(0)
    return cuts


async def _narrow(
    broker: Broker, blocks: AsyncExitStack, change: AgentChange, operator: Actor
) -> list[InForce]:
    """Remove in memory the rights of *change*; in *blocks* no token of it lives."""
    registry, agent_id = broker.registry, change.after.id
    before = registry.find_agent(agent_id)
    cuts: list[InForce] = []
    if before is None or before != change.before:
        return cuts  # new, or cut off while others were narrowed: see `_moved`
    for to in change.receivers():
        left = change.after.may_pass_on(to)
        if before.may_pass_on(to) - left:
            agent, other = registry.agent(agent_id), registry.agent(to)
            _, ended = undelegate(broker, agent, other, left, operator)
            cuts += [ended] if ended else []
    if gone := frozenset(before.scopes) - frozenset(change.after.scopes):
        block = ungranting(broker, registry.agent(agent_id), gone, operator)
        _, in_force = await blocks.enter_async_context(block)
        cuts += [in_force] if in_force else []
    return cuts


def _moved(registry: Registry, plan: FilesPlan) -> list[AgentId]:
    """Return the agents of *plan* that others cut off or narrowed since it was made."""
    narrowed = (one.narrowed for one in plan.changes)
    return [one.id for one in narrowed if one and registry.agent(one.id) != one]


def _overtaken(what: str) -> ConflictError:
    return ConflictError(
        f"an agent was cut off or narrowed meanwhile, and {what}",
        "see what is left: agentvault apply -f FILE --plan",
    )


def _drafts(
    registry: Registry,
    change: AgentChange,
    new: Mapping[AgentId, Agent],
    operator: Actor,
    digest: str,
) -> Iterator[Draft]:
    """Yield the events of the grants in *change*, as the single commands write them."""
    before, after = change.narrowed, change.after
    if before is None:
        draft = registered_draft(after, operator)
        draft.detail["applied"] = digest
        yield draft
    else:
        if granted := frozenset(after.scopes) - frozenset(before.scopes):
            yield scopes_draft(operator, after, granted=sorted(granted))
        if (before.serves, before.resources) != (after.serves, after.resources):
            yield scopes_draft(operator, after, served=True)
        plain = ("owner", "purpose", "resource_server", "credential", "until")
        fields = [f for f in plain if getattr(before, f) != getattr(after, f)]
        if fields:
            yield changed_draft(operator, after, fields)
    for to in change.receivers():
        scopes = before.may_pass_on(to) if before else frozenset()
        if after.may_pass_on(to) != scopes:
            other = new.get(to) or registry.agent(to)
            yield delegates_draft(operator, after, other)


async def _undo(broker: Broker, plan: FilesPlan, operator: Actor) -> None:
    """Restore agents, though a commit about them may have reached the disk."""
    drafts: list[Draft] = []
    changes: list[Change] = []
    for change in plan.changes:
        if (before := change.narrowed) is None:
            continue
        agent = broker.registry.agent(before.id)
        given = sorted(frozenset(change.after.scopes) - frozenset(before.scopes))
        drafts.append(scopes_draft(operator, agent, ungranted=given, reason=FAILED))
        changes.append(agent)
    if drafts:
        await broker.record_cut(*drafts, changes=changes)


def _circle(changes: Iterable[AgentChange], agents: Iterable[Agent]) -> list[str]:
    """Report new circles of agents that may delegate to each other."""
    if not any(one.after.delegates for one in changes):
        return []
    agents_by_id = {agent.id: agent for agent in agents}
    agents_by_id |= {one.after.id: one.after for one in changes}
    graph = {
        agent.id: [one.agent_id for one in agent.delegates]
        for agent in agents_by_id.values()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        names = " to ".join(
            visible(agents_by_id[one].name, 60) for one in error.args[1][::-1]
        )
        return [f"{names} may pass tokens on in a circle: none comes back"]
    return []


def _gone(registry: Registry, left: Iterable[str]) -> tuple[Agent, ...]:
    """Return the unrevoked agents of *left*, and the agents that end with them."""
    current = filter(None, map(registry.find_agent, left))
    gone = {one.id: one for one in current if one.status is not AgentStatus.REVOKED}
    for one in [*gone.values()]:
        gone |= {each.id: each for each in registry.lifetimes.derived(one.id)}
    return tuple(sorted(gone.values(), key=lambda agent: agent.name))


async def _just_revoked(
    broker: Broker, left: Iterable[str], prune: int | UnsetType
) -> tuple[Agent, ...]:
    """Return the revoked agents of *left* that could return without a new decision.

    The person who revoked one may restore it alone for a time, at any broker, and a
    change may wait that restores it. The files end them for good, and that is another
    decision: it is recorded once, and cancels such a change.
    """
    if prune is UNSET:
        return ()
    revoked = list[Agent]()
    # By the wall clock, which the brokers of a team share; twice, as clocks differ.
    since = broker.clock.now() - 2 * OWN
    for one in filter(None, map(broker.registry.find_agent, left)):
        if one.status is not AgentStatus.REVOKED or one.revoked_at is None:
            continue
        if one.revoked_at >= since or changes_about(broker, one.id):
            query = EventQuery(type=EventType.AGENT_REVOKED, agent=one.id, limit=1)
            events = (await broker.ledger.events(query)).events
            if not events or events[0].reason not in {GONE, TEMPLATE_REVOKED}:
                revoked.append(one)
    return tuple(sorted(revoked, key=lambda agent: agent.name))


def _pruned(gone: tuple[Agent, ...], prune: int | UnsetType) -> tuple[Agent, ...]:
    """Return the agents to be revoked, if their number is the one that was said."""
    if prune is UNSET:
        return ()
    if prune != len(gone):
        names = ", ".join(visible(agent.name, 60) for agent in gone[:_LISTED])
        more = f" and {len(gone) - _LISTED} more" if len(gone) > _LISTED else ""
        raise ConflictError(
            f"the agents that came by apply and stand in no file are {len(gone)}"
            + (f": {names}{more}" if gone else ""),
            f"--prune {len(gone)} revokes them" if gone else "leave --prune out",
        )
    return gone
