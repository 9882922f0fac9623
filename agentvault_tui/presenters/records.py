"""The console's records: the broker's answers with displayable text."""

from __future__ import annotations

from datetime import datetime
from typing import Final, NamedTuple, TypeAlias

from msgspec import Struct

from agentvault_tui.headline import headline as words
from agentvault_tui.operator_api.access import TreeToken
from agentvault_tui.operator_api.alerts import AlertList
from agentvault_tui.operator_api.gateway import CallInfo, ServiceList
from agentvault_tui.operator_api.history import EventInfo
from agentvault_tui.operator_api.shapes import (
    AgentInfo,
    ScopeInfo,
    StatusInfo,
    StepInfo,
)
from agentvault_tui.operator_api.stepups import (
    DeviceInfo,
    HeldRequestInfo,
    StepUpInfo,
    people,
)
from agentvault_tui.presenters.moments import plural
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
StatusRow: TypeAlias = StatusInfo[Shown, datetime]
ServiceRows: TypeAlias = ServiceList[Shown, datetime]
DeviceRow: TypeAlias = DeviceInfo[Shown, datetime]
HeldRequest: TypeAlias = HeldRequestInfo[Shown, datetime]
UpstreamStep: TypeAlias = StepInfo[Shown, datetime]


def stepup_state(status: str) -> str:
    return STEPUP_WORDS.get(status, status)


def undelivered(status: StatusRow) -> str:
    """Say how many alerts did not arrive; empty where all did."""
    dead = status.alerts_dead
    return f"{plural(dead, 'alert')} did not arrive" if dead else ""


class ScopeRow(ScopeInfo[Shown, datetime, Shown], kw_only=True):
    """A scope as the broker's catalogue describes it.

    `risk` is ``low``, ``medium`` or ``high``; a scope without description counts as
    high.
    """

    name: Shown


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


class TreeRow(TreeToken[Shown, datetime, Shown], kw_only=True):
    """A live token of a delegation tree, or several that are alike.

    Of several, `below` is the sum and `expires_at` the last.
    """

    tokens: int = 1


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


class TextRow(NamedTuple):
    """A text that a change replaces, by the SHA-256 of before and after."""

    name: Shown
    before: Shown
    """Empty where there was none."""
    after: Shown
    """Empty where it is removed, or is secret."""


class StepUpRow(StepUpInfo[Shown, datetime, Shown], kw_only=True):
    """A request held for a person. Texts are whole: cut them where they are drawn.

    Its own members are derived from `parameters` and `authorization_details`, which are
    raw and therefore left out of it, as `request.body` is. `risk` is one of `RISKS`;
    `unlimited` is computed here, whatever the broker says.
    """

    members: tuple[tuple[Shown, Shown], ...]
    """Names and values of the parameters; those that are no plain text as JSON."""
    others: tuple[tuple[Shown, Shown], ...] = ()
    """The other facts for a resource server: members of details of other types, and a
    resource indicator that is not the resource."""
    texts: tuple[TextRow, ...] = ()
    """Texts that a change replaces."""
    gist: Shown = _NOTHING
    """How much the action moves, when its parameters say so."""
    wish: Shown = _NOTHING
    """The wish, in words: "pay 4,200 USD to Northwind GmbH"."""

    def __hash__(self) -> int:
        """Hash the digest, for caches of what is drawn of it."""
        return hash(self.digest)

    @property
    def approvers(self) -> str:
        """Who has approved and who may still; empty where any one person decides."""
        if self.approvals is not None:
            return self.approvals.words
        return "one approver, with a second factor" if self.is_change else ""

    @property
    def headline(self) -> str:
        """The agent and its wish, in one sentence."""
        return words(self.agent_name, self.wish)

    @property
    def token_alone(self) -> bool:
        """Whether the approval issues a token, and is not for one request."""
        bound = self.request or self.evaluation or self.is_change
        return not (bound or self.connection)

    def repeats(self, now: datetime) -> float:
        """Return for how many seconds its approval still replaces a person."""
        repeat = self.repeat if self.status in {"approved", "redeemed"} else None
        if repeat is None or repeat.expires_at is None or not repeat.left:
            return 0.0
        return max((repeat.expires_at - now).total_seconds(), 0.0)

    @property
    def state(self) -> str:
        return stepup_state(self.status)

    @property
    def decided_name(self) -> str:
        """The people who decided it, in their order; empty while none has."""
        return people(self.decided_by)

    @property
    def factors(self) -> str:
        """The factors of the last person who decided it."""
        return ", ".join(self.deciders[-1].amr) if self.deciders else ""

    def remaining(self, now: datetime) -> float:
        """Return the seconds left to decide; never below 0."""
        return max((self.expires_at - now).total_seconds(), 0.0)

    def age(self, now: datetime) -> float:
        return max((now - self.requested_at).total_seconds(), 0.0)


class EventRow(EventInfo[Shown, datetime, Shown], kw_only=True):
    """One line of the audit; its raw `detail` is left out.

    `outcome` is ``allowed``, ``denied``, ``escalated`` or empty. `reason` is also how a
    call ended, or what a change loosened.
    """

    note: Shown = _NOTHING
    """How much the action moves, when its parameters say so."""
    word: str = "changed"
    """Its outcome word, one of `presenters.outcomes.OUTCOME_WORDS`."""


class EventPage(Struct, frozen=True):
    """A page of the audit, in the order it was asked for."""

    rows: tuple[EventRow, ...]
    next: int | None
    """Where reading goes on; None at the end."""
