"""The console's records: the broker's answers with displayable text."""

from __future__ import annotations

from datetime import datetime
from typing import Final, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from msgspec import Struct, field

from agentvault_tui.held_body import Described, DocumentInfo
from agentvault_tui.model import CHANGE_ID
from agentvault_tui.operator_api.alerts import AlertList
from agentvault_tui.operator_api.gateway import CallInfo, ServiceList
from agentvault_tui.operator_api.limits import LimitInfo, LimitUseInfo
from agentvault_tui.operator_api.shapes import (
    OPEN,
    AgentInfo,
    DeviceInfo,
    PanicInfo,
    StepInfo,
)
from agentvault_tui.text import Shown

RISKS: Final = ("low", "medium", "high")
QUARTERS: Final = 96
"""Of an hour, in a day."""
_NOTHING: Final = Shown("")
AT: Final = "connection:"
"""The beginning of the resource if an account at a provider is used."""
STEPUP_WORDS: Final = {"pending": "waiting", "authorizing": "verifying"}
"""How a person reads a step-up's status, where it is not the wire's word."""


AgentRow: TypeAlias = AgentInfo[Shown, datetime]
AlertRows: TypeAlias = AlertList[Shown, datetime]
CallRow: TypeAlias = CallInfo[Shown, datetime]
PanicRow: TypeAlias = PanicInfo[Shown, datetime]
ServiceRows: TypeAlias = ServiceList[Shown, datetime]
DeviceRow: TypeAlias = DeviceInfo[Shown, datetime]
UpstreamStep: TypeAlias = StepInfo[Shown, datetime]


def stepup_state(status: str) -> str:
    return STEPUP_WORDS.get(status, status)


class ScopeRow(Struct, frozen=True):
    """A scope as the broker's catalogue describes it."""

    name: Shown
    risk: str
    """``low``, ``medium`` or ``high``; a scope without description counts as high."""
    description: Shown
    revoking: Shown


class TokenScope(NamedTuple):
    """A token's scope and kind, shared by all tokens that have both."""

    scope: Shown
    elevated: bool


class LiveToken(NamedTuple):
    """A live token, without its secret."""

    key: int
    """Tells it from the others of its agent."""
    kind: TokenScope
    ends: float
    """When, in epoch seconds."""

    @property
    def scope(self) -> Shown:
        return self.kind.scope

    @property
    def elevated(self) -> bool:
        return self.kind.elevated

    def remaining(self, now: datetime) -> float:
        """Return the seconds left; never below 0."""
        return max(self.ends - now.timestamp(), 0.0)


class TreeRow(NamedTuple):
    """A live token of a delegation tree, or several that are alike."""

    id: Shown
    agent_id: Shown
    name: Shown
    depth: int
    scope: Shown
    resource: Shown
    below: int
    """Tokens that end with it."""
    expires_at: datetime
    """Of several the last."""
    tokens: int = 1


class DeciderRow(Struct, frozen=True):
    """Who decided a step-up."""

    name: Shown
    amr: tuple[Shown, ...]
    auth_time: datetime | None


class HeldRequest(NamedTuple):
    """The HTTP request of a held call: the sent form, but for the credential."""

    method: Shown
    url: Shown
    headers: tuple[tuple[Shown, Shown], ...]
    body: Described
    """As it came: pass its texts through `text.visible`."""
    documents: tuple[DocumentInfo, ...] = ()
    """Those that it names, likewise."""


class BodyView(Struct, frozen=True):
    """A body for a person; every text went through `text.visible`."""

    summary: str
    """Its kind and size, in our own words."""
    members: tuple[tuple[Shown, Shown], ...] = ()
    """Names and values, amounts and recipients first."""
    raw: tuple[Shown, ...] = ()
    """As it is: lines of text, each with a mark where it ends, or rows of bytes."""
    problem: str = ""
    """Why it is not all here, if it is not."""
    foreign: bool = False
    """Whether this is not the body that the step-up's digest covers."""
    lost: bool = False
    """Whether no broker has it any more, so that the step-up can only be denied."""


class RepeatRow(NamedTuple):
    """An approval of the next ones like it."""

    words: Shown
    """The repeats that are approved next to the request itself."""
    left: int
    until: datetime | None
    """Until when it replaces a person; None before the approval."""


class TextRow(NamedTuple):
    """A text that a change replaces, by the SHA-256 of before and after."""

    name: Shown
    before: Shown
    """Empty where there was none."""
    after: Shown
    """Empty where it is removed, or is secret."""


class StepUpRow(Struct, frozen=True):
    """A request held for a person. Texts are whole: cut them where they are drawn."""

    id: Shown
    agent_id: Shown
    agent_name: Shown
    action: Shown
    scope: Shown
    resource: Shown
    """Empty when the agent named none."""
    parameters: tuple[tuple[Shown, Shown], ...]
    """Names and values, values that are not plain text as compact JSON."""
    reason: Shown
    """The agent's own words: unverified."""
    rule: Shown
    why: Shown
    risk: str
    digest: Shown
    fingerprint: Shown
    ttl: int
    count: int
    problem: Shown
    """Why the last try at approving led to no decision; empty when it was none."""
    requested_at: datetime
    expires_at: datetime
    status: Shown
    """One of model.StepUpStatus."""
    decided_by: DeciderRow | None
    decided_at: datetime | None
    denial: Shown
    device: DeviceRow | None
    gist: Shown = _NOTHING
    """How much the action moves, when its parameters say so."""
    wish: Shown = _NOTHING
    """The wish, in words: "pay 4,200 USD to Northwind GmbH"."""
    begun_at: datetime | None = None
    """When the tenant gave the last code for it."""
    redeemed_at: datetime | None = None
    connection: Shown = _NOTHING
    """Of the provider whose own token an approval issues; empty for one of ours."""
    others: tuple[tuple[Shown, Shown], ...] = ()
    """The other facts for a resource server: members of details of other types, and a
    resource indicator that is not the resource."""
    unlimited: bool = False
    """Whether only the scope limits the use of the token."""
    request: HeldRequest | None = None
    """Of a held call."""
    evaluation: bool = False
    """Whether the same question is asked again after a yes, and answered with yes."""
    repeat: RepeatRow | None = None
    """How often more the same is, or is to be, approved."""
    approvals: Shown = _NOTHING
    """Who has approved and who may still; empty where one person decides."""
    texts: tuple[TextRow, ...] = ()
    """Texts that a change replaces."""

    @property
    def open(self) -> bool:
        return self.status in OPEN

    @property
    def is_change(self) -> bool:
        """Whether an operator asks for a change, and no agent for an action."""
        return self.id.startswith(f"{CHANGE_ID}_")

    @property
    def headline(self) -> str:
        """The agent and its wish, in one sentence."""
        return f"{self.agent_name} wants to {self.wish}"

    @property
    def token_alone(self) -> bool:
        """Whether the approval issues a token, and is not for one request."""
        bound = self.request or self.evaluation or self.is_change
        return not (bound or self.connection)

    def repeats(self, now: datetime) -> float:
        """Return for how many seconds its approval still replaces a person."""
        repeat = self.repeat if self.status in {"approved", "redeemed"} else None
        if repeat is None or repeat.until is None or not repeat.left:
            return 0.0
        return max((repeat.until - now).total_seconds(), 0.0)

    @property
    def state(self) -> str:
        return stepup_state(self.status)

    def remaining(self, now: datetime) -> float:
        """Return the seconds left to decide; never below 0."""
        return max((self.expires_at - now).total_seconds(), 0.0)

    def age(self, now: datetime) -> float:
        return max((now - self.requested_at).total_seconds(), 0.0)


class LimitRow(NamedTuple):
    """One window of a limit, or a limit that nothing is used of."""

    id: Shown
    limit: Shown
    whose: Shown
    left: int
    rest: Shown
    """The rest, in words."""
    allows: Shown
    frees_at: datetime | None
    beyond: Shown
    near: bool
    """Whether at most a fifth is left."""
    agent_id: Shown = _NOTHING
    """Of the agent whose window it is; empty where that is no one agent's."""


class EventRow(NamedTuple):
    """One line of the audit."""

    seq: int
    time: datetime
    type: Shown
    agent_id: Shown
    """Empty for events that are about no agent."""
    actor: Shown
    action: Shown
    resource: Shown
    outcome: str
    """``allowed``, ``denied``, ``escalated``, or empty."""
    reason: Shown
    rule: Shown
    decision_id: Shown
    note: Shown = _NOTHING
    """How much the action moves, when its parameters say so."""
    hash: Shown = _NOTHING
    """By the broker's own word with the event."""
    word: str = "changed"
    """Its outcome word, one of `presenters.outcomes.OUTCOME_WORDS`."""


class EventPage(Struct, frozen=True):
    """A page of the audit, in the order it was asked for."""

    rows: tuple[EventRow, ...]
    next: int | None
    """Where reading goes on; None at the end."""


class StatusRow(Struct, frozen=True):
    """The broker's own state."""

    version: Shown = _NOTHING
    tenant: Shown = _NOTHING
    """The issuer's host."""
    tenant_reachable: bool = True
    head: int = 0
    writable: bool = True
    fault: bool = False
    """Whether the ledger was found to differ from its record."""
    panic: PanicRow = field(default_factory=lambda: PanicInfo(on=False))
    warnings: tuple[Shown, ...] = ()
    undelivered: str = ""
    """How many alerts did not arrive, in words; empty where all did."""
    brokers: int = 0
    """How many live that share the ledger; 0 where one has its own."""
    broker_names: tuple[tuple[Shown, Shown], ...] = ()
    """Ids of several brokers, and their distinct names; none of one alone."""
    separated: bool = False
    """Whether the broker cannot reach its team's store."""


def host_of(issuer: str) -> str:
    """Return host and port of an issuer, or all of it where that is no URL."""
    try:
        return urlsplit(issuer).netloc or issuer
    except ValueError:
        return issuer


def whose_limit(limit: LimitInfo, use: LimitUseInfo | None) -> str:
    """Name the subject of a limit's row."""
    if limit.per == "all":
        return "everyone"
    if use is None:
        return "nothing used"
    return use.agent_name or use.resource or "no resource"
