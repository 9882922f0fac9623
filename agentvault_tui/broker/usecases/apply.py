"""Put in force what files say: one plan, and one commit for all of it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from shlex import quote
from typing import Final

from msgspec import UNSET, UnsetType, to_builtins
from msgspec.structs import asdict
from msgspec.structs import replace as replaced

from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.cuts import Kept
from agentvault_tui.broker.registry import Registry
from agentvault_tui.broker.subjects import Subjects
from agentvault_tui.broker.usecases.apply_texts import TextEdits, edits_of, putting
from agentvault_tui.broker.usecases.credential import changed_draft
from agentvault_tui.broker.usecases.delegate import delegates_draft, undelegate
from agentvault_tui.broker.usecases.register import (
    Registration,
    check_scopes,
    new_agent,
    registered_draft,
    registering,
)
from agentvault_tui.broker.usecases.revoke import FAILED, InForce, cut_agent
from agentvault_tui.broker.usecases.scopes import scopes_draft, ungranting
from agentvault_tui.errors import (
    ConflictError,
    LedgerError,
    OvertakenError,
    UsageError,
)
from agentvault_tui.ledger import Change
from agentvault_tui.ledger.canonical import canonical
from agentvault_tui.lookalikes import fold_name
from agentvault_tui.model import (
    Actor,
    Agent,
    AgentId,
    AgentStatus,
    Delegate,
    Draft,
    EventType,
)
from agentvault_tui.operator_api.files import AgentEntry, FilesInfo, FilesRequest
from agentvault_tui.text import visible

GONE: Final = "gone from the files that were applied"
"""The reason of the revocation of an agent that no file names any more."""
_A_TURN: Final = 50
"""Agents that are compared in one turn of the event loop."""
_TOLD: Final = 20
"""Names in one sentence."""
Who = Callable[[bool], Awaitable[Actor]]
"""Returns who decides; it is told whether anything more may be done than before."""


@dataclass(frozen=True, slots=True)
class AgentChange:
    """An agent as it is, if it is there, and as files say it."""

    before: Agent | None
    after: Agent

    @property
    def narrowed(self) -> Agent | None:
        """The agent with what is taken away, and nothing else."""
        if self.before is None:
            return None
        kept = (
            Delegate(one.agent_id, tuple(sorted(left)))
            for one in self.before.delegates
            if (left := frozenset(one.scopes) & self.after.may_pass_on(one.agent_id))
        )
        scopes = frozenset(self.before.scopes) & frozenset(self.after.scopes)
        return replace(self.before, scopes=tuple(sorted(scopes)), delegates=tuple(kept))

    @property
    def widens(self) -> bool:
        """Whether anything but what is taken away changes."""
        return self.narrowed != self.after

    def receivers(self) -> Iterator[AgentId]:
        """Yield the agents that it may pass on to, before or after."""
        known = self.before.delegates if self.before else ()
        yield from sorted({one.agent_id for one in (*known, *self.after.delegates)})


@dataclass(frozen=True, slots=True)
class FilesPlan:
    """What applying files would change."""

    digest: str
    changes: tuple[AgentChange, ...]
    pruned: tuple[Agent, ...]
    """Agents to be revoked."""
    gone: tuple[Agent, ...]
    """Agents that came by files, are served, and stand in none any more."""
    notes: tuple[str, ...]
    edits: TextEdits

    def __bool__(self) -> bool:
        """Tell whether there is a difference."""
        return bool(self.changes or self.pruned or self.edits)

    @property
    def widens(self) -> bool:
        """Whether anything more may be done than before."""
        return bool(self.edits) or any(change.widens for change in self.changes)


@dataclass(frozen=True, slots=True)
class FilesApplied:
    """A plan that was carried out."""

    plan: FilesPlan
    recorded: bool


async def plan_files(
    broker: Broker, wanted: FilesRequest, came: frozenset[str], edits: TextEdits
) -> FilesPlan:
    """Compare files with what is in force, in several turns of the event loop.

    Args:
        broker: the broker.
        wanted: what the files say.
        came: what came by files; see `Ledger.applied`.
        edits: what changes of limits and services.

    Returns:
        the difference.

    Raises:
        UsageError: what a file says cannot be.
        ConflictError: the number of agents to be revoked is another.
    """
    said = to_builtins(replaced(wanted, plan=False, prune=UNSET))
    digest = hashlib.sha256(canonical(said).encode()).hexdigest()
    there = {name: _named(broker.registry, name) for name in wanted.agents}
    _check_names(broker.registry, [name for name, agent in there.items() if not agent])
    plain = dict[str, Agent]()
    for number, (name, entry) in enumerate(wanted.agents.items(), 1):
        plain[name] = _described(broker, name, entry, there[name])
        if number % _A_TURN == 0:
            await asyncio.sleep(0)
    changes, notes = list[AgentChange](), list[str]()
    for number, (name, entry) in enumerate(wanted.agents.items(), 1):
        if number % _A_TURN == 0:
            await asyncio.sleep(0)
        before, shown = there[name], visible(name, 60)
        after = replace(
            plain[name], delegates=_delegates(broker, name, entry, plain, before)
        )
        if after != before:
            changes.append(AgentChange(before, after))
        if after.status is AgentStatus.REVOKED:
            notes.append(f"{shown} is revoked, and stays so")
        elif after.credential.kind == "none" and not after.template:
            command = f"agentvault agents secret new {quote(shown)}"
            notes.append(f"{shown} cannot authenticate yet: {command}")
    _check_subjects(broker, changes)
    notes += _circle(changes, (one for one in there.values() if one))
    named = {one.id for one in plain.values()}
    left = map(broker.registry.agent_by_client_id, came - named)
    served = (one for one in left if one and one.status is AgentStatus.ACTIVE)
    gone = tuple(sorted(served, key=lambda agent: agent.name))
    pruned = _pruned(gone, wanted.prune)
    return FilesPlan(
        f"sha256:{digest}", tuple(changes), pruned, gone, tuple(notes), edits
    )


async def apply_files(broker: Broker, wanted: FilesRequest, who: Who) -> FilesApplied:
    """Put in force what files say, all of it or nothing, in one commit.

    What is taken away ends in memory first, as each single command does it. What is
    given counts once the commit is on disk. Where only something is taken away, a
    ledger that cannot write is no obstacle.

    Args:
        broker: the broker.
        wanted: what the files say.
        who: returns who decides, or refuses.

    Returns:
        what changed, and whether it is in the ledger already.

    Raises:
        UsageError: what a file says cannot be.
        ConflictError: the number to be revoked is another, or an agent was cut off
            meanwhile: its revocation stands.
        ForbiddenError: whoever asks may not decide that.
        OvertakenError: another broker changed something meanwhile: apply anew.
        LedgerError: it could not be recorded, and nothing was given.
    """
    registry = broker.registry
    async with broker.policy_state.applying, AsyncExitStack() as locks:
        came = await broker.ledger.applied()
        named = [_named(registry, name) for name in wanted.agents]
        # Whoever gives more to one of them waits; who cuts it off does not.
        there = {agent.id for agent in named if agent}
        for agent_id in sorted(there | {AgentId(one) for one in came}):
            await locks.enter_async_context(registry.changing[agent_id])
        edits = await edits_of(broker, wanted)
        plan = await plan_files(broker, wanted, came, edits)
        operator = await who(plan.widens)
        if plan.widens:
            broker.ledger.check_writable()
            # A cut that is recorded after it would end what it gives.
            await broker.cuts.record_missed()
        recorded = not plan or await _carry_out(broker, plan, operator)
        return FilesApplied(plan, recorded)


async def _carry_out(broker: Broker, plan: FilesPlan, operator: Actor) -> bool:
    """Cut in memory, commit, and give; return whether it is in the ledger."""
    registry = broker.registry
    new = [one.after for one in plan.changes if one.before is None]
    with registering(broker, *new):
        async with AsyncExitStack() as blocks:
            cuts = [
                cut_agent(broker, agent.id, GONE, operator)[1] for agent in plan.pruned
            ]
            for change in plan.changes:
                cuts += await _narrow(broker, blocks, change, operator)
            writing = putting(broker, plan.edits, operator, plan.digest)
            texts = await blocks.enter_async_context(writing)
            if cuts:
                blocks.enter_context(broker.cutting())
            try:
                await _commit(broker, plan, cuts, texts, operator)
            except (LedgerError, ConflictError) as error:
                kept = [await cut.record(broker, operator) for cut in cuts]
                if isinstance(error, ConflictError | OvertakenError):
                    raise  # nothing of it was written
                if plan.widens:
                    await _undo(broker, plan, operator)
                    raise
                return set(kept) == {Kept.LEDGER}
            # Whoever was cut off meanwhile has a record behind this one, which counts.
            overtaken = _moved(registry, plan)
            for change in plan.changes:
                if change.after.id not in overtaken:
                    registry.put_agent(change.after)
            for cut in cuts:
                await broker.record_ended(cut.below, operator, cut.reason)
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
    """Record the plan, cuts that are in force included, in one transaction."""
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
            },
        ),
        *texts[0],
    ]
    changes: list[Change] = texts[1]
    for cut in cuts:
        drafts += cut.drafts
        # The row of an agent that stays is written once, as it is in the end.
        rows = (row for row in cut.changes if getattr(row, "id", None) not in new)
        changes += rows
    for number, change in enumerate(plan.changes, 1):
        drafts += _drafts(broker.registry, change, new, operator, plan.digest)
        changes.append(change.after)
        if number % _A_TURN == 0:
            await asyncio.sleep(0)
    if _moved(broker.registry, plan):
        raise _overtaken("what the files give was not given")
    urgent = not plan.widens
    await broker.ledger.commit(*drafts, changes=changes, urgent=urgent)


async def _narrow(
    broker: Broker, blocks: AsyncExitStack, change: AgentChange, operator: Actor
) -> list[InForce]:
    """Take away in memory what *change* takes; in *blocks* no token of it lives."""
    registry, agent_id = broker.registry, change.after.id
    before = registry.agent_by_client_id(agent_id)
    cuts: list[InForce] = []
    if before is None or before != change.before:
        return cuts  # new, or cut off while others were narrowed: see `_moved`
    for to in change.receivers():
        if taken := before.may_pass_on(to) - change.after.may_pass_on(to):
            agent, other = registry.agent(agent_id), registry.agent(to)
            cuts.append(undelegate(broker, agent, other, taken, operator)[1])
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
    """Yield the events of what *change* gives, as the single commands write them."""
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
        plain = ("owner", "purpose", "resource_server", "credential")
        fields = [f for f in plain if getattr(before, f) != getattr(after, f)]
        if fields:
            yield changed_draft(operator, after, fields)
    for to in change.receivers():
        known = before.may_pass_on(to) if before else frozenset()
        if after.may_pass_on(to) != known:
            other = new.get(to) or registry.agent(to)
            yield delegates_draft(operator, after, other)


async def _undo(broker: Broker, plan: FilesPlan, operator: Actor) -> None:
    """Keep agents as they are though a commit about them may have reached the disk."""
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


async def files_of(broker: Broker) -> FilesInfo:
    """Return what is in force, as files say it.

    Args:
        broker: the broker.

    Returns:
        the agents that are served, services and limits, and what is left out.

    Raises:
        PolicyError: a service file cannot be read.
    """
    registry = broker.registry
    agents, left_out = dict[str, AgentEntry](), list[str]()
    for agent in registry.agents():
        shown = visible(agent.name, 60)
        if agent.status is AgentStatus.REVOKED:
            left_out.append(f"{shown} ({agent.id}) is revoked")
        elif len(registry.agents_named(agent.name)) > 1:
            left_out.append(f"{shown} ({agent.id}) shares its name with another agent")
        elif agent.status is AgentStatus.TEMPLATE or agent.until or agent.from_template:
            left_out.append(f"{shown} ({agent.id}) ends by itself, or is a template")
        else:
            agents[agent.name] = entry_of(agent, lambda one: registry.agent(one).name)
    gateway, services = broker.gateway, dict[str, str]()
    if gateway is not None:
        services = await asyncio.to_thread(gateway.service_texts)
    return FilesInfo(
        agents=agents,
        services=services,
        limits=broker.policy.texts.limits,
        left_out=tuple(left_out),
    )


def entry_of(agent: Agent, name_of: Callable[[AgentId], str]) -> AgentEntry:
    """Return what a file would say of an agent.

    Args:
        agent: the agent.
        name_of: returns the name of an agent that it may pass tokens on to.

    Returns:
        its entry, without its name.
    """
    return AgentEntry(
        owner=agent.owner,
        purpose=agent.purpose,
        scopes=agent.scopes,
        public_key=agent.credential.public_key,
        subject=agent.credential.subject,
        resource_server=agent.resource_server,
        serves=agent.serves,
        resources=agent.resources,
        delegates={name_of(one.agent_id): one.scopes for one in agent.delegates},
    )


def _named(registry: Registry, name: str) -> Agent | None:
    """Return the agent of that name, None where there is none."""
    found = registry.agents_named(name)
    if len(found) > 1:
        ids = ", ".join(agent.id for agent in found)
        raise UsageError(f"{len(found)} agents are called {visible(name, 60)}: {ids}")
    return found[0] if found else None


def _check_names(registry: Registry, new: Iterable[str]) -> None:
    """Refuse new names that a hurried reader takes for another."""
    seen: dict[str, str] = {}
    for name in new:
        folded = fold_name(name)
        if registry.is_name_taken(folded) or folded in seen:
            other = visible(seen.get(folded, "one that is registered"), 60)
            raise UsageError(
                f"the name {visible(name, 60)} looks like {other}",
                "a registered name never changes; choose another for a new agent",
            )
        seen[folded] = name


def _described(
    broker: Broker, name: str, entry: AgentEntry, before: Agent | None
) -> Agent:
    """Return the agent as its entry says, but for whom it may pass tokens on to."""
    registry = broker.registry
    if before and entry == entry_of(before, lambda one: registry.agent(one).name):
        return before
    fields = asdict(entry)
    del fields["delegates"]
    known_as = before.credential.subject if before else None
    same = known_as is not None and fields["subject"] == known_as
    if same:
        del fields["subject"]  # its issuer may be gone from the settings since
    try:
        made = new_agent(broker, Registration(name=name, **fields))
        known = (*before.scopes, *before.serves) if before else ()
        check_scopes(broker, tuple({*made.scopes, *made.serves} - {*known}))
    except UsageError as error:
        what = f"the agent {visible(name, 60)}: {error.what}"
        raise UsageError(what, error.remedy) from None
    if before is None:
        return made
    absent = made.credential.kind == "none"
    if before.template and (made.resource_server or not absent):
        raise UsageError(
            f"{visible(name, 60)} is a template, which neither authenticates nor serves"
        )
    kept = absent and (same or before.credential.kind == "secret")
    return replace(
        before,
        owner=made.owner,
        purpose=made.purpose,
        scopes=made.scopes,
        resource_server=made.resource_server,
        serves=made.serves,
        resources=made.resources,
        credential=before.credential if kept else made.credential,
    )


def _check_subjects(broker: Broker, changes: Iterable[AgentChange]) -> None:
    """Refuse subjects of which two match the same token."""
    others = Subjects()
    for change in changes:
        subject = change.after.credential.subject
        before = change.before and change.before.credential.subject
        if not subject or subject == before:
            continue
        taken = broker.registry.is_subject_taken(subject, change.after.id)
        if taken or any(others.overlapping(subject)):
            raise UsageError(
                f"the agent {visible(change.after.name, 60)}: a token of"
                f" {visible(subject, 120)} could be another agent's too",
                "give subjects of which no two match the same token",
            )
        others.add(subject, change.after.id)


def _delegates(
    broker: Broker,
    name: str,
    entry: AgentEntry,
    plain: Mapping[str, Agent],
    before: Agent | None,
) -> tuple[Delegate, ...]:
    """Return whom an entry lets its agent pass tokens on to."""
    found: list[Delegate] = []
    for other, scopes in entry.delegates.items():
        shown = f"the agent {visible(name, 60)} delegates to {visible(other, 60)}"
        to = plain.get(other) or _named(broker.registry, other)
        if to is None:
            raise UsageError(
                f"{shown}, which no file names and which is not registered"
            )
        if other == name:
            raise UsageError(f"{shown}: an agent passes nothing on to itself")
        known = before.may_pass_on(to.id) if before else frozenset()
        try:
            check_scopes(broker, tuple(sorted(frozenset(scopes) - known)))
        except UsageError as error:
            raise UsageError(f"{shown}: {error.what}", error.remedy) from None
        if scopes:
            found.append(Delegate(to.id, tuple(sorted(set(scopes)))))
    return tuple(sorted(found))


def _circle(changes: Iterable[AgentChange], agents: Iterable[Agent]) -> list[str]:
    """Tell of agents that may pass tokens on in a circle, where that is new."""
    if not any(one.after.delegates for one in changes):
        return []
    known = {agent.id: agent for agent in agents}
    known |= {one.after.id: one.after for one in changes}
    graph = {
        agent.id: [one.agent_id for one in agent.delegates] for agent in known.values()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        names = " to ".join(visible(known[one].name, 60) for one in error.args[1][::-1])
        return [f"{names} may pass tokens on in a circle: none comes back"]
    return []


def _pruned(gone: tuple[Agent, ...], prune: int | UnsetType) -> tuple[Agent, ...]:
    """Return the agents to be revoked, if their number is the one that was said."""
    if prune is UNSET:
        return ()
    if prune != len(gone):
        names = ", ".join(visible(agent.name, 60) for agent in gone[:_TOLD])
        more = f" and {len(gone) - _TOLD} more" if len(gone) > _TOLD else ""
        raise ConflictError(
            f"the agents that came by apply and stand in no file are {len(gone)}"
            + (f": {names}{more}" if gone else ""),
            f"--prune {len(gone)} revokes them" if gone else "leave --prune out",
        )
    return gone
