"""The operators' wire: one type for each request, answer and event.

The broker writes these types, console and command line read them, and
``docs/operator-api.json`` is made from them. A reader ignores members it does not know.
A member with a default came later than the first version: a broker of an earlier one
may leave it out. One that is `msgspec.UNSET` is absent. Moments are RFC 3339, in UTC.

A shape is read as ``Info`` (texts of others as `str`, moments as text) or, after
`displayer.Displayer.read`, as ``Info[Shown, datetime]``: then it can be drawn. A shape
whose absent texts are drawn as empty ones is ``Info[Shown, datetime, Shown]``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias
from urllib.parse import urlsplit

from msgspec import UNSET, Meta, Struct, UnsetType, field

Json: TypeAlias = dict[str, object]
"""A JSON object whose members others choose."""
Moment = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
OUTCOMES: Final = ("allowed", "denied", "escalated")


DRAWN: Final = "drawn"
"""Marks the members that `Displayer.read` converts."""
if TYPE_CHECKING:
    from typing import Generic

    from typing_extensions import TypeVar

    Text = TypeVar("Text", bound=str, default=str)
    Time = TypeVar("Time", default=str)
    Maybe = TypeVar("Maybe", default=str | None)
else:
    # All kinds are one class: msgspec and OpenAPI see texts and moments of the wire.
    Text = Annotated[str, DRAWN, 200]
    """Text of others. The number is the cells it may take where it is drawn; where
    a member is ``Annotated[Text, 80]``, the last one counts."""
    Time = Annotated[Moment, DRAWN]
    Maybe = Annotated[str | None, DRAWN, 200]
    """Text of others: null where there is none, and empty where it is drawn."""

    class Generic:
        """Accepts both kinds, and marks the shapes in a shape that are converted."""

        __slots__ = ()

        def __class_getitem__(cls, kinds: object) -> Any:
            drawn = kinds in ((Text, Time), (Text, Time, Maybe))
            return Annotated[cls, DRAWN] if drawn else cls


ABSENT: Final[Any] = None
"""The default of a `Maybe`."""


class WireShape(Struct, Generic[Text, Time, Maybe], kw_only=True):
    """A request, an answer, or a part of one."""


class AgentRef(WireShape[Text, Time], kw_only=True):
    """An agent by its id and name."""

    id: Annotated[Text, 80]
    name: Annotated[Text, 80]


class TokenInfo(WireShape, kw_only=True, gc=False):
    """A live token, without anything that could use it."""

    id: str
    agent_id: str
    scope: str
    kind: str
    single_use: bool = False
    issued_at: Moment
    expires_at: Moment


class CountsInfo(WireShape, kw_only=True, gc=False):
    """How token requests were answered."""

    allowed: int = 0
    denied: int = 0
    escalated: int = 0


class StepInfo(WireShape[Text, Time], kw_only=True, gc=False):
    """One step of a revocation, at the tenant or at a provider."""

    step: Annotated[Text, 80]
    connection: Annotated[Text, 80] | None = None
    status: Annotated[Text, 20]
    """``pending``, ``confirmed``, ``failed``, ``withdrawn`` or ``left``."""
    ms: float | None = None
    attempts: int = 0
    problem: Text | None = None
    """Why it is not done yet, was given up, or left."""
    reason: Annotated[Text, 80] | None = None
    """``no_credential``, or null."""
    begun_at: Time | None = None
    next_at: Time | None = None
    """When it is tried again."""

    @property
    def ends(self) -> str:
        """The effect of the step."""
        return f"{self.connection} token" if self.connection else self.step


class DelegateInfo(AgentRef[Text, Time], kw_only=True):
    """Another agent of a delegation."""

    scopes: tuple[Annotated[Text, 80], ...] = ()
    """The scopes that may be delegated to it."""
    live: int = 0
    """Live tokens that were."""


class ProviderOutlook(WireShape[Text, Time], kw_only=True):
    """The effect of a revocation on an account at its provider."""

    known: bool
    """Whether anything is known that revokes there."""
    kept_for: tuple[AgentRef[Text, Time], ...]
    """Agents that would lose it too: it is left."""
    may_cut: tuple[AgentRef[Text, Time], ...]
    """Agents that lose it too, if theirs is the same person's."""


class AccountInfo(WireShape[Text, Time], kw_only=True):
    """An account at a provider, connected for an agent."""

    connection: Annotated[Text, 80]
    account: str = ""
    user: str = ""
    user_name: str = ""
    provider_scopes: tuple[str, ...] = ()
    since: Time | None = None
    removing: bool = False
    outside_until: Time | None = None
    shared_with: tuple[AgentRef[Text, Time], ...] = ()
    provider_user: str | None = None
    at_provider: ProviderOutlook[Text, Time] | None = None


class ConnectionInfo(AccountInfo, kw_only=True):
    """An account with its agent and the scopes its connection represents."""

    agent_id: str
    agent_name: str
    scopes: tuple[str, ...]


class PastAgentInfo(WireShape[Text, Time], kw_only=True):
    """An agent by the ledger's events."""

    id: Annotated[Text, 80]
    client_id: str
    name: Annotated[Text, 80]
    owner: Annotated[Text, 80]
    purpose: Annotated[Text, 400]
    status: str
    """``active``, ``revoked``, or ``template``: never served itself."""
    scopes: tuple[str, ...]
    resource_server: bool = False
    serves: tuple[Annotated[Text, 80], ...] = ()
    resources: tuple[Annotated[Text, 80], ...] = ()
    created_at: Time
    revoked_at: Time | None = None
    until: Time | None = None
    """When it is revoked by itself, or was."""
    template: bool = False
    """Whether others are made from it, whatever its status."""
    from_template: Annotated[Text, 80] | None = field(name="from", default=None)
    """The id of the template that it was made from, and ends with."""
    last_seen_at: Time | None
    tokens: tuple[TokenInfo, ...] | UnsetType = UNSET
    """The soonest to expire, at most a hundred; absent on a page without tokens."""
    tokens_live: int | None = None
    """How many there are."""
    counts: CountsInfo

    @property
    def revoked(self) -> bool:
        """Whether it is refused until a restore."""
        return self.status == "revoked"

    @property
    def listed_tokens(self) -> tuple[TokenInfo, ...]:
        """The tokens that came with it."""
        return () if self.tokens is UNSET else self.tokens

    @property
    def live_tokens(self) -> int:
        """How many live tokens there are, listed or not."""
        live = self.tokens_live
        return len(self.listed_tokens) if live is None else live


class AgentInfo(PastAgentInfo[Text, Time], kw_only=True):
    """An agent with its state, and the effect of a revocation."""

    removed_at: Moment | None = None
    """Since when it is in no list; sent once more when that begins."""
    subject: Text | None = None
    """``ISSUER:SUBJECT`` of its platform's tokens, where it authenticates by them."""
    decisions_a_second: int | None = None
    """Permitted decisions it may have a second; null: as the settings say; 0: any."""
    tokens_elevated: int = 0
    next_token: TokenInfo | UnsetType | None = UNSET
    """Where tokens are not listed: the next to expire."""
    at_tenant: tuple[Annotated[Text, 80], ...] = ()
    """The steps a revocation would take at the tenant."""
    upstream: tuple[StepInfo[Text, Time], ...] = ()
    """The steps of its last revocation or restore, as they are."""
    connections: tuple[AccountInfo[Text, Time], ...] = ()
    outside_until: Time | None = None
    """Until when a provider's token that was handed out can still be used."""
    shared_with: tuple[AgentRef[Text, Time], ...] = ()
    """Served agents that use one of its accounts as well."""
    delegates: tuple[DelegateInfo[Text, Time], ...] = ()
    """Whom it may pass tokens on to, or has."""
    delegated_by: tuple[DelegateInfo[Text, Time], ...] = ()
    """Who passed tokens on to it that live."""
    delegated_below: int = 0
    """Live tokens of others that a revocation ends: exchanged for its own."""
    derived: tuple[AgentRef, ...] = ()
    """Some of the `derived_total` agents made from it, which a revocation ends too."""
    derived_total: int = 0


class NewAgentInfo(AgentInfo, kw_only=True):
    """An agent just registered."""

    client_secret: str | UnsetType = UNSET
    """Shown once; absent for an agent with a key."""


class AgentPage(WireShape, kw_only=True):
    """Agents, oldest first; all counts are true for `head`."""

    agents: tuple[AgentInfo, ...]
    next: str | None = None
    """The id to read on after; null at the end."""
    total: int = 0
    head: int = 0


class RestoreAnswer(WireShape, kw_only=True):
    """The result of a restore."""

    agent: AgentInfo | UnsetType = UNSET
    """Absent when all were meant."""
    agents: int | UnsetType = UNSET
    """How many agents are served again, when all were meant; else absent."""


# The broker


class PanicInfo(WireShape[Text, Time], kw_only=True):
    """The panic switch."""

    on: bool
    since: Time | None = None
    by: Annotated[Text, 80] | None = None
    reason: Text | None = None

    @property
    def cause(self) -> str:
        """Who stopped everything, and why."""
        by = f" by {self.by}" if self.by else ""
        return f"{by}: {self.reason}" if self.reason else by


class TenantInfo(WireShape[Text, Time], kw_only=True):
    """The tenant as the broker reaches it."""

    issuer: Text
    kind: Annotated[Text, 20]
    reachable: bool | UnsetType = UNSET
    """Absent in the past."""
    way: Text | UnsetType = UNSET
    """Absent in the past."""

    @property
    def is_reachable(self) -> bool:
        """Whether it answers, as far as is known."""
        return self.reachable is not False

    @property
    def host(self) -> str:
        """Host and port of the issuer, or all of it where that is no URL."""
        try:
            return urlsplit(self.issuer).netloc or self.issuer
        except ValueError:
            return self.issuer


class VerifiedInfo(WireShape, kw_only=True):
    """Up to which event the whole ledger was found right, and when."""

    seq: int
    at: Moment
    complete: bool


class LedgerInfo(WireShape[Text, Time], kw_only=True):
    """The end of the chain."""

    head: int
    hash: Annotated[Text, 80]
    writable: bool | UnsetType = UNSET
    """Absent in the past."""
    verified: VerifiedInfo | UnsetType | None = UNSET
    """Absent in the past; null while it was never verified."""
    fault: Text | UnsetType | None = UNSET
    """Absent in the past; the problem that verification found, else null."""

    @property
    def is_writable(self) -> bool:
        """Whether it records, as far as is known."""
        return self.writable is not False


class MemberInfo(WireShape[Text, Time], kw_only=True):
    """One broker of a team: alive if it was seen within two seconds."""

    id: Annotated[Text, 80]
    host: Annotated[Text, 80]
    version: Annotated[Text, 20]
    since: Annotated[Text, 40]
    last_seen_at: Annotated[Text, 40]
    alive: bool
    in_step: bool
    reason: Text | None = None


class TeamInfo(WireShape[Text, Time], kw_only=True):
    """The brokers that share one store; `broker` is the one that answers."""

    name: Annotated[Text, 80]
    store: Text
    broker: str = ""
    brokers: tuple[MemberInfo[Text, Time], ...] = ()


class StatusInfo(WireShape[Text, Time], kw_only=True):
    """The broker in one line."""

    version: Annotated[Text, 20]
    tenant: TenantInfo[Text, Time]
    ledger: LedgerInfo[Text, Time]
    panic: PanicInfo[Text, Time]
    agents: int
    stepups_pending: int
    alerts_dead: int = 0
    """Alerts that their sinks did not take for a day."""
    policy_version: Text | UnsetType = UNSET
    """Absent in the past."""
    warnings: tuple[Text, ...]
    agents_url: Text | UnsetType = UNSET
    """Where agents reach the broker; absent until they can, and in the past."""
    team: TeamInfo[Text, Time] | UnsetType = UNSET
    stale: bool | UnsetType = UNSET
    """True while the team's store is away: changes of other brokers are unknown."""

    @property
    def brokers(self) -> tuple[MemberInfo[Text, Time], ...]:
        """The brokers of the team; none without a team."""
        return self.team.brokers if self.team else ()


class HeadInfo(WireShape, kw_only=True):
    """The event ``reset``: the ledger is not the one the client saw."""

    head: int = 0
    hash: str = ""


# Policy


class ScopeInfo(WireShape[Text, Time, Maybe], kw_only=True):
    """A scope of the catalogue."""

    description: Text
    risk: str
    revoking: Annotated[Maybe, 400] = ABSENT


# Connections


class ConnectStepInfo(WireShape, kw_only=True):
    """A page for a browser, or the connected account."""

    id: str | UnsetType = UNSET
    step: str
    """``sign_in``, ``consent`` or ``done``."""
    page: str | UnsetType = UNSET
    redirect_uri: str | UnsetType = UNSET
    expires_at: Moment | UnsetType = UNSET
    connection: ConnectionInfo | UnsetType = UNSET
    """Present once it is done, when the others are absent."""


class ConnectionList(WireShape, kw_only=True):
    """Connected accounts, oldest first."""

    connections: tuple[ConnectionInfo, ...]


class RemovedInfo(WireShape, kw_only=True):
    """The removed scopes, and the remaining ones."""

    connection: str
    account: str
    at_tenant: str
    also: tuple[AgentRef, ...]
    outside_until: Moment | None


# People


class SeatInfo(WireShape[Text, Time], kw_only=True):
    """One operator's open stream."""

    id: Annotated[Text, 64]
    uid: str
    name: Annotated[Text, 40]
    signed_in: bool = False
    face: str = "stream"
    """``console``, ``plain``, or ``stream`` for a listener."""
    since: Time
    terminal: Annotated[Text, 20] | None = None
    """As the broker's kernel names it."""
    looking_at: Annotated[Text, 64] | None = None
    """A step-up's id."""
    role: Annotated[Text, 20] | None = None
    """As the tenant says; null when it says nothing."""
    refused: dict[str, Annotated[Text, 300]] = field(default_factory=dict)
    """The operator's missing rights, each with the broker's reason."""

    @property
    def display_name(self) -> str:
        """The name, and the role if there is one."""
        return f"{self.name} ({self.role})" if self.role else self.name

    @property
    def title(self) -> str:
        """The name, and the terminal that tells two of one name apart."""
        return f"{self.name} on {self.terminal}" if self.terminal else self.name


class PresenceInfo(WireShape, kw_only=True):
    """Who is connected, the longest here first."""

    operators: tuple[SeatInfo, ...]
    unlisted: int = 0
    you: str | UnsetType | None = UNSET
    """The reader's own seat; only in the first event of a stream."""


class ByInfo(WireShape, kw_only=True):
    """Who a change is recorded under."""

    by: AgentRef


class ChangedPersonInfo(ByInfo, kw_only=True):
    """A change of a person that was made."""

    made: Json
    """What is shown once: a password, a one-time code seed, a link's token."""


class ProblemInfo(WireShape, kw_only=True):
    """A problem document (RFC 9457): `title` is the status, `remedy` the remedy."""

    type: str = "about:blank"
    title: str = ""
    status: int = 0
    detail: str = ""
    error: str | UnsetType = UNSET
    needed_role: str | UnsetType = UNSET
    factor: str | UnsetType = UNSET
    """Which factor is missing or wrong, where one was typed at a console."""
    remedy: str | UnsetType = UNSET
