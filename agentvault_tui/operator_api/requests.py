"""The operators' wire, inwards: the types of bodies and queries."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from msgspec import UNSET, Meta, UnsetType, field

from agentvault_tui.model import (
    EventType,
    Outcome,
    ParameterBound,
    Repeat,
    StepUpStatus,
)
from agentvault_tui.model.waiting import BOUNDED
from agentvault_tui.operator_api.shapes import Json, Moment, WireShape

Word = Annotated[str, Meta(min_length=1, max_length=4000)]
Reason = Annotated[str, Meta(max_length=1000)]
ShortId = Annotated[str, Meta(min_length=1, max_length=64)]
ConnectionName = Annotated[str, Meta(min_length=1, max_length=128)]
Limit = Annotated[int, Meta(ge=1, le=1000)]
Seq = Annotated[int, Meta(ge=0, lt=10**18)]
"""A number that SQLite can hold."""


def one_of(kind: type[StrEnum]) -> Meta:
    """Name the words that count; a broker of another version may know others."""
    return Meta(extra_json_schema={"enum": [word.value for word in kind]})


class WireRequest(
    WireShape, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A body: a misspelt member is refused, and one that says nothing is left out."""


class AgentQuery(WireShape, kw_only=True, forbid_unknown_fields=True):
    """Which agents: a page in the order of registration, or those that are named."""

    after: str | None = None
    ids: str | None = None
    """Ids with commas between them."""
    limit: Annotated[int, Meta(ge=1, le=500)] = 500
    name: str | None = None
    tokens: bool = False


class AgentRequest(WireRequest, kw_only=True):
    """Register an agent."""

    name: Word
    owner: Annotated[str, Meta(max_length=4000)] = ""
    purpose: Annotated[str, Meta(max_length=4000)] = ""
    scopes: tuple[str, ...] = ()
    public_key: Annotated[str, Meta(min_length=1, max_length=8192)] | Json | None = None
    """PEM SPKI, or a JWK as text or as an object."""
    subject: Annotated[str, Meta(min_length=1, max_length=1000)] | None = None
    """``ISSUER:SUBJECT`` of its platform's tokens, in place of a key or a secret."""
    until: Moment | None = None
    """When it is revoked by itself."""
    template: bool = False
    """Never served itself: other agents are made from it."""
    from_template: ShortId | None = field(name="from", default=None)
    """The id of the template that gives it scopes, owner and delegates."""
    resource_server: bool = False
    serves: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()


class NewSecretRequest(WireRequest, kw_only=True):
    """Make a new client secret for an agent, in place of the one it had."""

    agent_id: Word


class ScopesRequest(WireRequest, kw_only=True):
    """Grant and remove scopes of one agent, or set those of a resource server."""

    agent_id: Word
    grant: tuple[str, ...] = ()
    ungrant: tuple[str, ...] = ()
    seconds: Annotated[int, Meta(ge=1, le=31_622_400)] | None = None
    """How long the scopes of `grant` last; left out, for good."""
    serves: tuple[str, ...] | UnsetType = UNSET
    """Scopes it serves, in place of those it did; empty for all."""
    resources: tuple[str, ...] | UnsetType = UNSET
    """Likewise; whichever of the two is absent stays as it is."""


class RateRequest(WireRequest, kw_only=True):
    """Say how many permitted decisions an agent may have a second."""

    agent_id: Word
    decisions_a_second: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    """0 for no bound; null, or absent, for as many as the settings say."""


class RenameRequest(WireRequest, kw_only=True):
    """Give an agent another name."""

    agent_id: Word
    name: Word


class AgentRemoveRequest(WireRequest, kw_only=True):
    """Take a revoked agent out of all lists; its history stays."""

    agent_id: Word


class DelegatesRequest(WireRequest, kw_only=True):
    """Say which scopes an agent may pass on to another, in place of those it could."""

    agent_id: Word
    to: Word
    """The other agent's id."""
    scopes: tuple[str, ...] = ()
    """None: nothing, and the delegated tokens end."""


class TreeQuery(WireShape, kw_only=True):
    """The delegation trees with a token of the agent; all without one."""

    agent: str | None = None


class OneOrAllRequest(WireRequest, kw_only=True):
    """Which agent, or all of them."""

    agent_id: Word | UnsetType = UNSET
    all: bool | UnsetType = UNSET


class RestoreRequest(OneOrAllRequest, kw_only=True):
    """Serve one agent again, or lift the panic."""

    until: Moment | None = None
    """When it is revoked by itself now; needed where its time was over."""


class RevokeRequest(OneOrAllRequest, kw_only=True):
    """Cut one agent off, or all of them."""

    reason: Reason = ""


class TokenRevokeRequest(WireRequest, kw_only=True):
    """Revoke one live token."""

    id: Word
    reason: Reason = ""


class StepUpQuery(WireShape, kw_only=True):
    """Which step-ups."""

    status: Annotated[str, one_of(StepUpStatus)] | None = None
    agent: str | None = None
    limit: Limit = 50


class StepUpShowQuery(WireShape, kw_only=True):
    """Which parts of a step-up to return."""

    body: bool = True
    """Whether to include the content of a held call, as ``request.body``."""


class BeforeQuery(WireShape, kw_only=True):
    """How many earlier step-ups of the same agent and action."""

    limit: Annotated[int, Meta(ge=1, le=50)] = 5


class ParameterMax(WireRequest, kw_only=True):
    """The largest value of a parameter."""

    max: Annotated[int, Meta(ge=0, lt=2**53)]


class RepeatRequest(WireRequest, kw_only=True):
    """How often more the same is approved with one proof, and for how long."""

    count: Annotated[int, Meta(ge=1, le=20)]
    within: Annotated[int, Meta(ge=1, le=3600)]
    """Seconds, from the proof."""
    bounds: dict[Literal["amount", "count", "recipients"], ParameterMax] = field(
        default_factory=dict
    )
    """Every other parameter has to be the same."""

    @property
    def repeat(self) -> Repeat:
        """Return it for the approval."""
        bounds = (ParameterBound(name, most.max) for name, most in self.bounds.items())
        return Repeat(self.count, self.within, tuple(sorted(bounds)))

    @classmethod
    def of(cls, count: int, within: int, bounds: Iterable[str]) -> Self:
        """Read *bounds* as people write them, ``NAME=MAX``.

        Raises:
            ValueError: one of them is none, or twice.
        """
        most: dict[Any, ParameterMax] = {}
        for bound in bounds:
            name, _, value = bound.partition("=")
            number = value.isascii() and value.isdecimal() and len(value) < 16
            if name not in BOUNDED or name in most or not number:
                choices = ", ".join(BOUNDED)
                raise ValueError(f"A bound is NAME=MAX, once each: {choices}.")
            most[name] = ParameterMax(max=int(value))
        return cls(count=count, within=within, bounds=most)


class Factor(WireRequest, kw_only=True):
    """The factor by which a person who is signed in here approves; in no repr or log.

    It is a one-time code, or the assertion of a security key.
    """

    otp: Annotated[str, Meta(max_length=16)] = ""
    """The one-time code that their authenticator shows now."""
    passkey: Annotated[str, Meta(max_length=8000)] = ""
    """The assertion of their security key, as a browser would encode it in JSON."""
    password: Annotated[str, Meta(max_length=256)] = ""
    """Where the sign-in is older than eight hours."""

    def __repr__(self) -> str:
        return "Factor(…)"


class DecisionRequest(WireRequest, kw_only=True):
    """Approve the step-up with exactly this digest, or deny it."""

    id: Word
    decision: Literal["approve", "deny"]
    digest: Annotated[str, Meta(max_length=4000)] = ""
    repeat: RepeatRequest | None = None
    """Approve the next ones like it too."""
    factor: Factor | None = None
    """Approve it here; without one the answer has a code for another device."""
    reason: Reason = ""


class KeyRequest(WireRequest, kw_only=True):
    """Begin to approve the step-up with exactly this digest by a security key."""

    id: Word
    digest: Annotated[str, Meta(max_length=4000)]
    repeat: RepeatRequest | None = None
    """As in `DecisionRequest`."""


class AuditQuery(WireShape, kw_only=True):
    """Which events."""

    after: Seq | UnsetType = UNSET
    before: Seq | UnsetType = UNSET
    since: Moment | None = None
    until: Moment | None = None
    agent: str | None = None
    outcome: Annotated[str, one_of(Outcome)] | None = None
    type: Annotated[str, one_of(EventType)] | None = None
    q: str | None = None
    limit: Limit = 100


class LinksQuery(WireShape, kw_only=True):
    """Which links."""

    seq: str
    """Numbers of events with commas between them, at most 200."""


class PastQuery(WireShape, kw_only=True):
    """Which moment: right after an event, or a time; exactly one of them."""

    seq: Seq | UnsetType = UNSET
    at: Moment | None = None


class PastActivityQuery(PastQuery, kw_only=True):
    """The agent and the moment."""

    agent: str = ""


class PolicyQuery(WireRequest, kw_only=True):
    """Which policy: the one in effect, or one that was."""

    version: Annotated[str, Meta(max_length=64)] = ""


class ApplyRequest(WireRequest, kw_only=True):
    """A policy to put into the home's file and in effect, in one step."""

    policy: Annotated[str, Meta(min_length=1)]
    """The text of the file."""
    limits: str | None = None
    """The text of ``limits.toml``, where that changes too."""
    plan: Annotated[str, Meta(max_length=80)] | None = None
    """The digest of the plan that this is; left out, none is compared."""
    strict: bool = False
    """Whether warnings of ``policy check`` refuse it too, as its errors do."""
    reason: Reason = ""


class ResetRequest(WireRequest, kw_only=True):
    """A return to shipped files of the policy, in the place of those that are gone."""

    gone: tuple[str, ...] = ()
    """The files, such as ``scopes.toml``; empty: all that are gone."""


class ExplainRequest(WireRequest, kw_only=True):
    """A question to policy; nothing is issued."""

    agent_id: Word
    scope: Annotated[str, Meta(max_length=4000)] = ""
    scopes: tuple[str, ...] = ()
    action: Annotated[str, Meta(max_length=4000)] = ""
    resource: Annotated[str, Meta(max_length=4000)] = ""
    parameters: Json = field(default_factory=dict)
    unit: Literal["minor", "major"] | None = None
    """Of the amount, as a service's file would state it; by ISO 4217."""
    now: Word | None = None
    source: Word | None = None
    country: Annotated[str, Meta(pattern="^[A-Z]{2}$")] | None = None
    depth: Annotated[int, Meta(ge=0, le=100)] = 0


class ConnectRequest(WireRequest, kw_only=True):
    """Begin to connect an account at a provider for an agent."""

    agent_id: Word
    connection: ConnectionName
    scopes: tuple[str, ...] = ()
    redirect_uri: Annotated[str, Meta(min_length=1, max_length=200)]


class ContinueRequest(WireRequest, kw_only=True):
    """The address at which the browser ended."""

    id: ShortId
    address: Word


class ConnectionQuery(WireShape, kw_only=True):
    """The agent."""

    agent: str | None = None


class RemoveRequest(WireRequest, kw_only=True):
    """Take an account away; one that others use too only when `shared` is said."""

    agent_id: Word
    connection: ConnectionName
    shared: bool = False


class LookRequest(WireRequest, kw_only=True):
    """Which step-up a seat has open, or none."""

    seat: ShortId
    looking_at: ShortId | None = None


class StreamQuery(WireShape, kw_only=True):
    """The purpose of the stream."""

    face: Literal["console", "plain", "stream"] = field(default="stream", name="as")


class PeopleRequest(WireRequest, kw_only=True):
    """Change a person of the embedded tenant."""

    change: str
    user: ShortId
    sub: Annotated[str, Meta(max_length=4000)] = ""
    roles: tuple[str, ...] = ()
    passkey: Annotated[str, Meta(max_length=4000)] = ""
    """The id of the passkey to remove."""


class TenantKeysRequest(WireRequest, kw_only=True):
    """Record that the embedded tenant's signing keys are replaced, before they are."""

    revoke: bool = False


class TryRequest(WireRequest, kw_only=True):
    """A request that is mapped to an action and decided about, and not sent."""

    agent_id: Word
    service: ShortId
    method: ShortId
    path: Word
    """With its query."""
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None
    """In Base64."""


class SecretRequest(WireRequest, kw_only=True):
    """Seal a secret."""

    name: ShortId
    value: str
    for_: tuple[str, ...] | None = field(default=None, name="for")
    """Origins that it may be sent to, or ``none`` alone; left out: those of the
    services and destinations that name it."""

    def __repr__(self) -> str:
        """Show the name alone."""
        return f"SecretRequest(name={self.name!r})"


class TeamKeyRequest(WireRequest, kw_only=True):
    """Make another key for the team."""

    lost: bool = False
    """Whether the key in effect is in no home any more."""


class SecretNameRequest(WireRequest, kw_only=True):
    """Remove a secret."""

    name: ShortId
