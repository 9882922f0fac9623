"""The operators' wire about agents, services and limits that come from files."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import UNSET, Meta, UnsetType, field

from agentvault_tui.operator_api.requests import WireRequest
from agentvault_tui.operator_api.shapes import Moment, WireShape

MOST_AGENTS: Final = 1000
"""Agents of one request: others' requests wait while they are compared."""
_MOST_SERVICES: Final = 200
_Places = dict[Annotated[str, Meta(max_length=400)], tuple[str, ...]]
ServiceName = Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9_-]{0,62}$")]
"""Names a file where it is exported: whatever a broker says, none elsewhere."""


class AgentEntry(WireRequest, kw_only=True):
    """An agent in a file; its name is its key.

    An absent member is empty, or from its template: scopes and delegates that a file
    does not name are removed.
    """

    owner: Annotated[str, Meta(min_length=1, max_length=200)] | UnsetType = UNSET
    """Needed, but with a template."""
    purpose: Annotated[str, Meta(max_length=1000)] | UnsetType = UNSET
    scopes: tuple[str, ...] | UnsetType = UNSET
    public_key: Annotated[str, Meta(min_length=1, max_length=8192)] | None = None
    """PEM SPKI, or a JWK; absent, an agent keeps the secret it has, and no key."""
    subject: Annotated[str, Meta(min_length=1, max_length=1000)] | None = None
    """``ISSUER:SUBJECT`` of its platform's tokens, in place of a key or a secret."""
    until: Moment | None = None
    """When it is revoked by itself; absent, an end that it has stays."""
    resource_server: bool = False
    """Implied by its served scopes."""
    serves: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    delegates: dict[str, tuple[str, ...]] | UnsetType = UNSET
    """The scopes that it may pass on, by the name of the agent that it may pass to."""
    template: bool = False
    """Whether it is never served, and others are made from it."""
    from_template: str | None = field(name="from", default=None)
    """The name of the template that it is made from, and ends with."""


class FilesRequest(WireRequest, kw_only=True):
    """Put files in effect, or plan it; names are the identity."""

    agents: Annotated[dict[str, AgentEntry], Meta(max_length=MOST_AGENTS)] = field(
        default_factory=dict
    )
    """By name."""
    places: Annotated[_Places, Meta(max_length=MOST_AGENTS)] = field(
        default_factory=dict
    )
    """The names of the agents in each file, for the person who renames or removes one:
    each of this request, and in one file."""
    services: Annotated[dict[str, str], Meta(max_length=_MOST_SERVICES)] = field(
        default_factory=dict
    )
    """The texts of service files, by name; those that are absent stay as they are."""
    limits: str | UnsetType = UNSET
    """The text of ``limits.toml``; absent, the limits stay as they are."""
    plan: bool = False
    """Only return the difference."""
    prune: Annotated[int, Meta(ge=0)] | UnsetType = UNSET
    """Revoke the agents that came by files and stand in none any more: so many."""
    accept: tuple[str, ...] = ()
    """Names of agents to which files grant, though an operator registered them who may
    not grant, or though a removed agent had their name, key or subject."""


FieldValue = str | bool | tuple[str, ...] | dict[str, tuple[str, ...]] | None


class AgentFieldChange(WireShape, kw_only=True):
    """One field of an agent, or the text of a file, before and after."""

    field: str
    before: FieldValue
    after: FieldValue


class FileChange(WireShape, kw_only=True):
    """The change of one thing by the files."""

    kind: Literal["agent", "service", "limits"]
    name: str
    id: str | None = None
    """An agent's; null while it is only planned."""
    change: Literal["add", "change", "revoke"]
    widens: bool
    """Whether anything more may be done than before."""
    fields: tuple[AgentFieldChange, ...] = ()


class FilesAnswer(WireShape, kw_only=True):
    """The difference between files and the active state."""

    digest: str
    """SHA-256 over all that the files say, as the event names it."""
    applied: bool
    """Whether it is in effect now; false of a plan, and where there was none."""
    recorded: bool = True
    """Whether it is in the ledger: a cut is in effect before it can be."""
    changes: tuple[FileChange, ...]
    gone: tuple[str, ...]
    """Agents that came by files, are served, and stand in none any more."""
    notes: tuple[str, ...]


class FilesInfo(WireShape, kw_only=True):
    """The active state, as files."""

    agents: dict[str, AgentEntry]
    """Those that are served."""
    services: dict[ServiceName, str]
    """Texts of service files, by name."""
    limits: str | None
    """The text of ``limits.toml``; null where there is none."""
    left_out: tuple[str, ...]
    """The names left out, with the reason."""
