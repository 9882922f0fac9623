"""The operators' wire, outwards: events of the ledger, the past, and activity."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, UnsetType, field

from agentvault_tui.operator_api.advice import AdviceInfo
from agentvault_tui.operator_api.limits import LimitList
from agentvault_tui.operator_api.shapes import (
    ABSENT,
    CountsInfo,
    Json,
    Maybe,
    Moment,
    PastAgentInfo,
    StatusInfo,
    Text,
    Time,
    WireShape,
)
from agentvault_tui.operator_api.stepups import StepUpInfo


class ActorInfo(WireShape[Text, Time], kw_only=True, gc=False):
    """Who acted; an agent's name is untrusted."""

    kind: Annotated[Text, 20]
    id: Annotated[Text, 80]
    name: Annotated[Text, 80]


class EventInfo(WireShape[Text, Time, Maybe], kw_only=True):
    """One event of the ledger."""

    seq: int
    time: Time
    type: Annotated[Text, 80]
    actor: ActorInfo[Text, Time]
    agent_id: Annotated[Maybe, 80] = ABSENT
    action: Annotated[Maybe, 80] = ABSENT
    resource: Annotated[Maybe, 80] = ABSENT
    outcome: Annotated[Maybe, 80] = ABSENT
    reason: Maybe = ABSENT
    rule: Annotated[Maybe, 80] = ABSENT
    decision_id: Annotated[Maybe, 80] = ABSENT
    detail: Json = field(default_factory=dict)
    hash: Annotated[Text, 80] = ""  # type: ignore[assignment]


class LoosenedInfo(WireShape, kw_only=True):
    """A recent loosening, sent to a client that joins the stream."""

    event: EventInfo


class EventPageInfo(WireShape, kw_only=True):
    """Events: newest first with ``before``, oldest first with ``after``."""

    events: tuple[EventInfo, ...]
    next: int | None = None
    """The value of the same parameter for the next page; null at the end."""


class LinkInfo(WireShape, kw_only=True):
    """The data to compute a link of the chain again."""

    seq: int
    body: str
    hash: str
    previous_hash: str


class EventProofInfo(LinkInfo, kw_only=True):
    """An event with its link."""

    event: EventInfo
    ledger: str


class LinkList(WireShape, kw_only=True):
    """Links of the chain of one ledger."""

    ledger: str
    links: tuple[LinkInfo, ...]


class StoryInfo(WireShape, kw_only=True):
    """The events that share a decision, oldest first."""

    events: tuple[EventInfo, ...]
    complete: bool


class PlaceInfo(WireShape, kw_only=True):
    """An event's place in the ledger."""

    seq: int
    time: Moment


class AroundInfo(WireShape, kw_only=True):
    """Events around a moment; a turn is one that no agent's routine made."""

    first: PlaceInfo | None
    last: PlaceInfo | None
    before: PlaceInfo | None
    after: PlaceInfo | None
    turn_before: PlaceInfo | None
    turn_after: PlaceInfo | None


class PastInfo(WireShape, kw_only=True):
    """The broker's knowledge at a moment."""

    seq: int
    time: Moment
    at: Moment
    status: StatusInfo
    minute: dict[str, CountsInfo]
    """How agents were answered in the minute before, by id; the quiet are left out."""
    around: AroundInfo
    agents: tuple[PastAgentInfo, ...] | UnsetType = UNSET
    stepups: tuple[StepUpInfo, ...] | UnsetType = UNSET


class ScopeUseInfo(WireShape[Text, Time], kw_only=True, gc=False):
    """How one scope was asked for and used."""

    scope: Annotated[Text, 80]
    granted: bool
    allowed: int = 0
    denied: int = 0
    escalated: int = 0
    redeemed: int = 0
    uses: int = 0
    """Allowed by policy, or elevated and redeemed."""
    last_used_at: Time | None = None
    last_asked_at: Time | None = None


class DenialsInfo(WireShape[Text, Time], kw_only=True, gc=False):
    """Refusals for one reason."""

    reason: Annotated[Text, 80]
    count: int
    last_at: Time


class QuartersInfo(WireShape[Text, Time], kw_only=True):
    """Answers of the last 24 hours, a number a quarter of an hour, oldest first."""

    start: Time
    seconds: int
    allowed: tuple[int, ...] = ()
    denied: tuple[int, ...] = ()
    escalated: tuple[int, ...] = ()

    @property
    def series(self) -> tuple[tuple[int, ...], ...]:
        """For each of `OUTCOMES`, a number a quarter; the last quarter goes on."""
        return self.allowed, self.denied, self.escalated

    @property
    def totals(self) -> tuple[int, ...]:
        """The sum for each outcome."""
        return tuple(map(sum, self.series))

    def at(self, index: int) -> tuple[int, ...]:
        """Return the numbers of one quarter, for each outcome."""
        return tuple(numbers[index] for numbers in self.series)


class RevokeForecast(WireShape, kw_only=True):
    """The rights that a revocation would end now."""

    tokens: int
    elevated: int
    stepups: int


class RevokedInfo(WireShape[Text, Time], kw_only=True):
    """The rights that the active revocation ended."""

    at: Time
    by: Annotated[Text, 120]
    reason: Annotated[Text, 300] | None
    tokens: int
    stepups: int


class PastActivityInfo(WireShape[Text, Time, Maybe], kw_only=True):
    """The counted actions of one agent."""

    agent_id: Annotated[Text, 80]
    head: int
    whole: bool = True
    """Whether everything is counted, or of very many requests the latest."""
    scopes: tuple[ScopeUseInfo[Text, Time], ...]
    denials: tuple[DenialsInfo[Text, Time], ...]
    quarters: QuartersInfo[Text, Time]


class ActivityInfo(PastActivityInfo[Text, Time, Maybe], kw_only=True):
    """The counted actions of one agent, and the effect of revoking it."""

    revoke: RevokeForecast
    revoked: RevokedInfo[Text, Time] | None = None
    """Null of an agent that is served, and while the record is on its way."""
    limits: LimitList[Text, Time, Maybe]
    """Windows of which at most a fifth is left to it."""
    trials: tuple[AdviceInfo, ...] = ()
    """Its permissions removed on trial, the first to end first."""
