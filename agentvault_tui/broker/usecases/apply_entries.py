"""Agents in files: the agent that an entry makes, and the entry of an agent."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Final

from msgspec import UNSET
from msgspec.structs import asdict
from msgspec.structs import replace as replaced

from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.registry import Registry
from agentvault_tui.broker.subjects import Subjects
from agentvault_tui.broker.usecases.register import (
    check_scopes,
    end_of,
    moment_of,
    new_agent,
)
from agentvault_tui.broker.usecases.timed_grants import ends_of
from agentvault_tui.clock import Deadline, iso
from agentvault_tui.errors import UsageError
from agentvault_tui.lookalikes import fold_text
from agentvault_tui.model import Agent, AgentId, AgentStatus, Delegate
from agentvault_tui.operator_api.files import AgentEntry, FilesInfo, FilesRequest
from agentvault_tui.operator_api.requests import AgentRequest
from agentvault_tui.text import visible

_INHERITED: Final = ("owner", "purpose", "scopes", "delegates")
"""An agent's members from its template, if its entry omits them."""
_NOTHING: Final = AgentEntry(owner="", purpose="", scopes=(), delegates={})
_A_TURN: Final = 25
"""Agents handled in one turn of the event loop."""
NEXT_TURN: Final = partial(asyncio.sleep, 0)
"""Waits for a turn behind all that is ready now."""


async def files_of(
    broker: Broker, turn: Callable[[], Awaitable[None]] = NEXT_TURN
) -> FilesInfo:
    """Return the active state as files.

    Args:
        broker: the broker.
        turn: waits for a turn of the event loop in which the next agents are handled.

    Returns:
        the agents that are served, services and limits, and the names left out.
    """
    registry = broker.registry
    agents, left_out = dict[str, AgentEntry](), list[str]()
    for number, agent in enumerate(registry.agents(), 1):
        if number % _A_TURN == 0:
            await turn()
        shown = visible(agent.name, 60)
        if agent.status is AgentStatus.REVOKED:
            left_out.append(f"{shown} ({agent.id}) is revoked")
        elif len(registry.agents_named(agent.name)) > 1:
            left_out.append(f"{shown} ({agent.id}) shares its name with another agent")
        elif _template_shares_its_name(registry, agent):
            left_out.append(
                f"{shown} ({agent.id}) is made from one of several"
                " templates with the same name"
            )
        else:
            ends = ends_of(broker, agent)
            lasting = tuple(one for one in agent.scopes if one not in ends)
            agents[agent.name] = _exported(registry, replace(agent, scopes=lasting))
            left_out += [
                f"{scope} of {shown} ({agent.id}) ends at {end}"
                for scope, end in ends.items()
            ]
    gateway = broker.extensions.gateway
    services = {} if gateway is None else gateway.service_texts()
    return FilesInfo(
        agents=agents,
        services=services,
        limits=broker.deciding.policy.texts.limits,
        left_out=tuple(left_out),
    )


def _template_shares_its_name(registry: Registry, agent: Agent) -> bool:
    if agent.from_template is None:
        return False
    name = registry.agent(agent.from_template).name
    return len(registry.agents_named(name)) > 1


def _exported(registry: Registry, agent: Agent) -> AgentEntry:
    """Return an agent's entry, without the members that it has by default."""

    def entry(one: Agent) -> AgentEntry:
        return entry_of(one, lambda other: registry.agent(other).name)

    fields, origin = entry(agent), agent.from_template
    silent = entry(registry.agent(origin)) if origin else _NOTHING
    same = [one for one in _INHERITED if getattr(fields, one) == getattr(silent, one)]
    return replaced(fields, **dict.fromkeys(same, UNSET))


def filled(
    registry: Registry, entries: Mapping[str, AgentEntry]
) -> dict[str, AgentEntry]:
    """Return *entries* completed from their templates, templates first.

    Raises:
        UsageError: there is no such template.
    """
    done = dict[str, AgentEntry]()
    for name, entry in sorted(entries.items(), key=lambda one: not one[1].template):
        source = _NOTHING
        if (origin := entry.from_template) is not None:
            shown = f"the agent {visible(name, 60)} is made from {visible(origin, 60)}"
            registered = agent_named(registry, origin)
            if origin in done:
                source = done[origin]
            elif registered is None:
                raise UsageError(
                    f"{shown}, which no file names and which is not registered"
                )
            else:
                source = entry_of(registered, lambda one: registry.agent(one).name)
            if entry.template or not source.template:
                raise UsageError(
                    f"{shown}: a template is made from none, and no other agent is one"
                )
        absent = [one for one in _INHERITED if getattr(entry, one) is UNSET]
        done[name] = replaced(entry, **{one: getattr(source, one) for one in absent})
    return done


def entry_of(agent: Agent, name_of: Callable[[AgentId], str]) -> AgentEntry:
    """Return the entry of an agent.

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
        until=iso(agent.until.wall) if agent.until else None,
        resource_server=agent.resource_server,
        serves=agent.serves,
        resources=agent.resources,
        delegates={name_of(one.agent_id): one.scopes for one in agent.delegates},
        template=agent.template,
        from_template=name_of(agent.from_template) if agent.from_template else None,
    )


def agent_named(registry: Registry, name: str) -> Agent | None:
    """Return the agent of that name, None where there is none."""
    agents = registry.agents_named(name)
    if len(agents) > 1:
        ids = ", ".join(agent.id for agent in agents)
        raise UsageError(f"{len(agents)} agents are called {visible(name, 60)}: {ids}")
    return agents[0] if agents else None


def check_names(registry: Registry, new: Iterable[str]) -> None:
    """Refuse new names that a hurried reader takes for another."""
    seen: dict[str, str] = {}
    for name in new:
        folded = fold_text(name)
        if registry.is_name_taken(folded) or folded in seen:
            other = visible(seen.get(folded, "one that is registered"), 60)
            raise UsageError(
                f"the name {visible(name, 60)} looks like {other}",
                "a registered name never changes; choose another for a new agent",
            )
        seen[folded] = name


def described(
    broker: Broker,
    name: str,
    entry: AgentEntry,
    before: Agent | None,
    template: Agent | None,
) -> Agent:
    """Return the agent as its entry says, but for whom it may pass tokens on to."""
    registry = broker.registry
    origin = template.id if template else None
    if before and (before.template, before.from_template) != (entry.template, origin):
        raise UsageError(
            f"whether {visible(name, 60)} is a template, and of which it was made,"
            " never changes",
            "choose another name for a new agent",
        )
    if before and entry == entry_of(before, lambda one: registry.agent(one).name):
        return before
    fields = asdict(entry)
    del fields["delegates"], fields["from_template"]
    registered = before.credential.subject if before else None
    same = registered is not None and fields["subject"] == registered
    if same:
        del fields["subject"]  # its issuer may be gone from the settings since
    try:
        until = moment_of(entry.until)
        if before:
            del fields["until"]  # it may be over
        made = new_agent(broker, AgentRequest(name=name, **fields))
        scopes = (*before.scopes, *before.serves) if before else ()
        check_scopes(broker, tuple({*made.scopes, *made.serves} - {*scopes}))
    except UsageError as error:
        what = f"the agent {visible(name, 60)}: {error.what}"
        raise UsageError(what, error.remedy) from None
    if before is None:
        if template is None:
            return made
        if template.status is AgentStatus.REVOKED:
            what = f"the template {visible(template.name, 60)} is revoked"
            raise UsageError(what, "restore it first")
        return replace(
            made, from_template=origin, until=end_of(broker, until, template)
        )
    absent = made.credential.kind == "none"
    retains = absent and (same or before.credential.kind == "secret")
    return replace(
        before,
        owner=made.owner,
        purpose=made.purpose,
        scopes=made.scopes,
        resource_server=made.resource_server,
        serves=made.serves,
        resources=made.resources,
        credential=before.credential if retains else made.credential,
        until=_end(broker, before, until),
    )


def check_places(wanted: FilesRequest) -> None:
    """Refuse files that have agents which the request does not, or two have."""
    named = [name for names in wanted.places.values() for name in names]
    for name, count in Counter(named).items():
        if count > 1 or name not in wanted.agents:
            raise UsageError(
                f"places: {visible(name, 60)} is no agent of this request, or is in two"
                " files"
            )


def check_subjects(registry: Registry, changed: Iterable[Agent]) -> None:
    """Refuse agents of which two match the same token."""
    others = Subjects()
    for agent in changed:
        if not (subject := agent.credential.subject):
            continue
        taken = registry.is_subject_taken(subject, agent.id)
        if taken or any(others.overlapping(subject)):
            raise UsageError(
                f"the agent {visible(agent.name, 60)}: a token of"
                f" {visible(subject, 120)} could be another agent's too",
                "give subjects of which no two match the same token",
            )
        others.add(subject, agent.id)


def _end(broker: Broker, before: Agent, until: datetime | None) -> Deadline | None:
    """Return the end of an agent with *until* in its file, if there is one."""
    if until is None or (before.until and before.until.wall == until):
        return before.until
    origin = before.from_template
    template = broker.registry.agent(origin) if origin else None
    end = end_of(broker, until, template)
    if end is None or end.passed(broker.clock):
        raise UsageError(f"the time of {visible(before.name, 60)} is over")
    return end


def delegates_of(
    broker: Broker,
    name: str,
    entry: AgentEntry,
    plain: Mapping[str, Agent],
    before: Agent | None,
) -> tuple[Delegate, ...]:
    """Return whom an entry lets its agent pass tokens on to."""
    delegates: list[Delegate] = []
    for other, scopes in (entry.delegates or {}).items():
        shown = f"the agent {visible(name, 60)} delegates to {visible(other, 60)}"
        to = plain.get(other) or agent_named(broker.registry, other)
        if to is None:
            raise UsageError(
                f"{shown}, which no file names and which is not registered"
            )
        if other == name:
            raise UsageError(f"{shown}: an agent passes nothing on to itself")
        may_delegate = before.may_pass_on(to.id) if before else frozenset()
        try:
            check_scopes(broker, tuple(sorted(frozenset(scopes) - may_delegate)))
        except UsageError as error:
            raise UsageError(f"{shown}: {error.what}", error.remedy) from None
        if scopes:
            delegates.append(Delegate(to.id, tuple(sorted(set(scopes)))))
    return tuple(sorted(delegates))
