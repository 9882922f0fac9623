"""Register agents: identity, owner, permissions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from typing import Final

from msgspec.structs import replace as replaced

from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.public_key import parse_public_key
from agentvault_tui.broker.subjects import check_subject
from agentvault_tui.clock import Deadline, iso, parse_iso
from agentvault_tui.errors import ConflictError, UsageError
from agentvault_tui.lookalikes import fold_text
from agentvault_tui.model import (
    Actor,
    Agent,
    AgentId,
    Credential,
    Draft,
    EventType,
    new_id,
    new_secret,
    sha256_hex,
)
from agentvault_tui.operator_api.requests import AgentRequest
from agentvault_tui.policy.resources import canonical
from agentvault_tui.text import in_full, visible

_HIDDEN: Final = "⟦U+"
"""How `in_full` begins to spell a character that is not seen."""
_NAME: Final = re.compile(r"[^\x00-\x1f\x7f]{1,100}")
_ID: Final = re.compile(r"(agt|brk|chg|sup)_[0-9a-z]{16}")
"""An id after `fold_text`: rules name agents by name or id."""
_OWNER: Final = re.compile(r"[^\x00-\x1f\x7f]{1,200}")
_PURPOSE_CAP: Final = 1000
_RESOURCE_CAP: Final = 500
_RESOURCES_CAP: Final = 64
_URI: Final = re.compile(r"[a-z][a-z0-9+.-]*:[^#]*")


@dataclass(frozen=True, slots=True)
class Registered:
    """The new agent, and its secret, shown this once."""

    agent: Agent
    client_secret: str | None = field(repr=False)


async def register(
    broker: Broker, wanted: AgentRequest, operator: Actor, *, confirmed: bool = True
) -> Registered:
    """Register an agent.

    Args:
        broker: the broker.
        wanted: the operator's data.
        operator: who registers it.
        confirmed: whether that was somebody who may grant; if not, files grant it
            nothing until such a person accepts it.

    Returns:
        the agent, and its secret, which is stored as a hash alone.

    Raises:
        UsageError: a field is missing or too long, a scope unknown, a key unusable.
        ConflictError: the name is taken, a token of its subject is another's too, or
            a removed agent had its key or subject.
        LedgerUnwritableError: it could not be recorded.
    """
    agent = new_agent(broker, wanted)
    if broker.registry.lifetimes.removed.has_credential(agent.credential):
        raise ConflictError(
            f"an agent that was revoked and removed had the key or subject of"
            f" {visible(agent.name, 60)}",
            "give it another, or apply a file with it: apply -f FILE --accept NAME",
        )
    check_scopes(broker, (*agent.scopes, *agent.serves))
    secret = None
    if agent.credential.kind == "none" and not agent.template:
        secret = new_secret("av_s")
        credential = Credential(secret_sha256=sha256_hex(secret))
        agent = replace(agent, credential=credential)
    subject = agent.credential.subject
    async with broker.registry.giving_subject if subject else nullcontext():
        if subject:
            check_subject_free(broker, subject)
        with registering(broker, agent):
            draft = registered_draft(agent, operator)
            if not confirmed:
                draft.detail["confirmed"] = False
            await broker.record(draft, changes=[agent])
            broker.registry.put_agent(agent)
    check_end(broker, agent)  # what ended meanwhile is revoked at the next look
    return Registered(agent, secret)


@contextmanager
def registering(broker: Broker, *agents: Agent) -> Iterator[None]:
    """Reserve names of new *agents* while they are recorded.

    Raises:
        ConflictError: a name is taken.
    """
    registry = broker.registry
    with ExitStack() as undo:
        for agent in agents:
            folded = fold_text(agent.name)
            if registry.is_name_taken(folded):
                raise ConflictError(
                    f"an agent has the name {visible(agent.name, 60)}, or one that "
                    "looks alike",
                    "choose another name",
                )
            registry.registering.add(folded)
            undo.callback(registry.registering.discard, folded)
        yield


def new_agent(broker: Broker, wanted: AgentRequest) -> Agent:
    """Return the agent that is described, with its key or subject for a credential.

    Args:
        broker: the broker.
        wanted: the operator's data.

    Returns:
        the agent, not registered yet.

    Raises:
        UsageError: a text is missing or too long, a resource no URI, a key or subject
            unusable, or it would have no time; or a template is more than that.
        NotFoundError: there is no such template.
        ConflictError: that template is revoked, or is none.
    """
    wanted, template = _filled(broker, wanted)
    _check_texts(wanted)
    agent_id = AgentId(new_id("agt"))
    key, until = wanted.public_key, moment_of(wanted.until)
    agent = Agent(
        id=agent_id,
        client_id=agent_id,
        name=wanted.name,
        owner=wanted.owner,
        purpose=wanted.purpose,
        scopes=tuple(sorted(set(wanted.scopes))),
        created_at=broker.clock.now(),
        resource_server=_is_resource_server(wanted),
        serves=tuple(sorted(set(wanted.serves))),
        resources=check_resources(wanted.resources),
        credential=Credential(
            public_key=None
            if key is None
            else parse_public_key(key if isinstance(key, str) else json.dumps(key)),
            subject=_subject(broker, wanted),
        ),
        delegates=template.delegates if template else (),
        until=end_of(broker, until, template),
        template=wanted.template,
        from_template=template.id if template else None,
    ).restored()
    check_end(broker, agent)
    return agent


def _filled(broker: Broker, wanted: AgentRequest) -> tuple[AgentRequest, Agent | None]:
    """Return *wanted* completed from its template, and the template."""
    secret = wanted.public_key or wanted.subject
    if wanted.template and (secret or _is_resource_server(wanted)):
        raise UsageError(
            "a template neither authenticates nor serves",
            "give keys and subjects to the agents made from it",
        )
    if wanted.from_template is None:
        return wanted, None
    template = broker.registry.agent(wanted.from_template)
    if not template.template:
        raise ConflictError(
            f"{visible(template.name, 60)} is no template",
            "agentvault agents add NAME --template makes one",
        )
    own = wanted.scopes or wanted.owner or wanted.template
    if own or _is_resource_server(wanted):
        raise UsageError(
            "an agent made from a template has its scopes and its owner",
            "leave out everything but name, purpose, credential and end",
        )
    filled = replaced(
        wanted,
        owner=template.owner,
        purpose=wanted.purpose or template.purpose,
        scopes=template.scopes,
    )
    return filled, template


def moment_of(text: str | None) -> datetime | None:
    """Read when an agent ends; UsageError: it is no time."""
    try:
        return parse_iso(text) if text else None
    except (ValueError, OverflowError):
        raise UsageError("'until' is no time", "2026-11-24T18:00:00Z") from None


def end_of(
    broker: Broker, until: datetime | None, template: Agent | None
) -> Deadline | None:
    """Return when an agent ends: at a moment, and no later than its template."""
    ends = []
    if until is not None:
        left = (until - broker.clock.now()).total_seconds()
        ends.append(Deadline.after(broker.clock, left)._replace(wall=until))
    if template is not None and template.until is not None:
        ends.append(template.until)
    return min(ends, key=lambda end: end.remaining(broker.clock), default=None)


def check_end(broker: Broker, agent: Agent) -> None:
    """Refuse to serve *agent* where it would be revoked at once.

    Raises:
        UsageError: its time is over.
        ConflictError: its template is revoked.
    """
    if agent.until is not None and agent.until.passed(broker.clock):
        raise UsageError(
            f"the time of {visible(agent.name, 60)} is over", "give a later --until"
        )
    template = agent.from_template
    if template is not None and not broker.registry.lifetimes.is_template(template):
        name = visible(broker.registry.agent(template).name, 60)
        raise ConflictError(f"the template {name} is revoked", "restore it first")


def _subject(broker: Broker, wanted: AgentRequest) -> str | None:
    """Return the subject of a new agent, of a platform that is set up here."""
    if not (subject := wanted.subject):
        return None
    if wanted.public_key:
        raise UsageError("an agent has either a key or a subject, not both")
    check_subject(subject)
    names, name = broker.admitting.issuers.names, subject.partition(":")[0]
    if name not in names:
        raise UsageError(
            f"no issuer is called {visible(name, 60)}",
            f"known: {', '.join(names)}"
            if names
            else "write [issuers.NAME] in config.toml and start the broker anew",
        )
    return subject


def check_subject_free(
    broker: Broker, subject: str, but: AgentId | None = None
) -> None:
    """Refuse a subject that some token of another agent than *but* could match too.

    Raises:
        ConflictError: it overlaps with that of an agent that is not revoked.
    """
    if broker.registry.is_subject_taken(subject, but):
        raise ConflictError(
            f"a token of {visible(subject, 120)} could be another agent's too",
            "give subjects of which no two match the same token",
        )


def check_scopes(broker: Broker, scopes: tuple[str, ...]) -> None:
    """Refuse scopes the catalogue does not know, naming the nearest it does.

    Args:
        broker: the broker.
        scopes: as they were named.

    Raises:
        UsageError: with the unknown scope and up to three near ones.
    """
    catalogue = broker.deciding.policy.catalogue
    for scope in scopes:
        if catalogue.get(scope) is None:
            near = catalogue.nearest(scope)
            raise UsageError(
                f"unknown scope {visible(scope, 60)}",
                f"did you mean {', '.join(near)}"
                if near
                else "agentvault policy check lists the catalogue",
            )


def check_name(name: str) -> None:
    """Refuse an invalid name of an agent.

    Raises:
        UsageError: it is empty, too long, or reads as another name or as an id.
    """
    if not _NAME.fullmatch(name) or not name.strip():
        raise UsageError("a name has 1 to 100 characters, on one line")
    if _ID.fullmatch(fold_text(name)):
        raise UsageError(
            f"the name {visible(name, 60)} has the form of an id", "choose another"
        )
    _check_shown("name", name)


def _check_shown(what: str, text: str) -> None:
    """Refuse a text that reads as another one: Unicode UTR 36 section 2."""
    if _is_hidden(text):
        raise UsageError(
            f"the {what} {visible(text, 60)} holds bidirectional or invisible"
            " characters",
            "write it without them",
        )


@lru_cache(maxsize=1000)
def _is_hidden(text: str) -> bool:
    """Check whether a character is not seen; a file names few owners, many times."""
    return _HIDDEN in in_full(text)


def _check_texts(wanted: AgentRequest) -> None:
    check_name(wanted.name)
    owner = wanted.owner
    if not _OWNER.fullmatch(owner) or owner != owner.strip():
        raise UsageError(
            "an owner has 1 to 200 characters, on one line, and no blanks around them",
            "who answers for this agent?",
        )
    _check_shown("owner", owner)
    if len(wanted.purpose) > _PURPOSE_CAP:
        raise UsageError(f"a purpose has at most {_PURPOSE_CAP} characters")


def _is_resource_server(wanted: AgentRequest) -> bool:
    serves = wanted.serves or wanted.resources
    return wanted.resource_server or bool(serves)


def check_resources(named: Iterable[str]) -> tuple[str, ...]:
    """Return resources in canonical form, sorted; UsageError: one has none."""
    resources = tuple(sorted({_resource(each) for each in named}))
    if len(resources) > _RESOURCES_CAP:
        raise UsageError(f"a resource server has at most {_RESOURCES_CAP} resources")
    return resources


def _resource(named: str) -> str:
    """Return a resource in canonical form (RFC 8707 section 2), or a UsageError."""
    resource = canonical(named) if len(named) <= _RESOURCE_CAP else None
    if resource is None or not _URI.fullmatch(resource):
        raise UsageError(
            f"{visible(named, 60)} cannot be a resource server's resource",
            "write a URI without a fragment, such as stripe:acct_42 or "
            "https://api.example/",
        )
    return resource


def ending_detail(agent: Agent) -> dict[str, object]:
    """Return an event's detail about the end of an agent.

    Args:
        agent: the agent.

    Returns:
        members of ``detail``: when it ends, and the template that it ends with.
    """
    detail: dict[str, object] = {}
    if agent.until is not None:
        detail["until"] = iso(agent.until.wall)
    if agent.template:
        detail["template"] = True
    if agent.from_template is not None:
        detail["from_template"] = agent.from_template
        detail["delegates"] = {one.agent_id: one.scopes for one in agent.delegates}
    return detail


def registered_draft(agent: Agent, operator: Actor) -> Draft:
    """Return the event that *agent* is registered."""
    return Draft(
        EventType.AGENT_REGISTERED,
        operator,
        agent_id=agent.id,
        detail={
            "agent": agent.name,
            "owner": agent.owner,
            "purpose": agent.purpose,
            "scopes": list(agent.scopes),
            "resource_server": agent.resource_server,
            **({"serves": list(agent.serves)} if agent.serves else {}),
            **({"resources": list(agent.resources)} if agent.resources else {}),
            "credential": agent.credential.kind,
            **({"subject": subject} if (subject := agent.credential.subject) else {}),
            **ending_detail(agent),
        },
    )
