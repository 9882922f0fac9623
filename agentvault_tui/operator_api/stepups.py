"""The operators' wire about step-ups: requests held for a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

from msgspec import UNSET, UnsetType
from msgspec.structs import asdict

from agentvault_tui.held_body import Described, DocumentInfo, HeldContent
from agentvault_tui.model import CHANGE_ID, repeat_words
from agentvault_tui.operator_api.shapes import (
    ABSENT,
    Json,
    Maybe,
    Text,
    Time,
    WireShape,
)

OPEN: Final = frozenset({"pending", "authorizing"})
"""Statuses of step-ups that can still be decided."""
WHOLE: Final = 700_000
"""More cells than the largest field the broker lets in can become."""


class DeviceInfo(WireShape[Text, Time], kw_only=True):
    """The approver's way to the tenant (RFC 8628 section 3.2)."""

    user_code: Annotated[Text, 40]
    verification_uri: Annotated[Text, 1000]
    verification_uri_complete: Annotated[Text, 1000]
    """Also the content of the QR code: a character that we would not show is not in
    it."""
    expires_in: int
    interval: int
    expires_at: Time


class DeciderInfo(WireShape[Text, Time], kw_only=True):
    """Who decided a step-up: an approver, or the local operator who denied."""

    sub: Annotated[Text, 80]
    name: Annotated[Text, 80]
    amr: tuple[Annotated[Text, 20], ...] = ()
    auth_time: Time | None = None


class RepeatInfo(WireShape[Text, Time], kw_only=True):
    """How often more the same is, or is to be, approved with one proof."""

    count: int
    within: int
    """Seconds."""
    bounds: dict[Annotated[Text, 40], dict[str, int]]
    """The largest value (``max``) of each parameter that may differ."""
    left: int
    """How often it still replaces a person."""
    expires_at: Time | None
    """Null until it is approved."""

    @property
    def words(self) -> str:
        """The repeats that are approved next to the request itself."""
        most = {str(name): one.get("max", 0) for name, one in self.bounds.items()}
        return repeat_words(self.count, self.within, most)


class ApprovalsInfo(WireShape[Text, Time], kw_only=True):
    """Where several people have to approve: who has, and who may still."""

    have: int
    need: int
    by: tuple[DeciderInfo[Text, Time], ...]
    may: Annotated[Text, 4000]

    @property
    def words(self) -> str:
        """Who has approved, and who may still."""
        names = people(self.by)
        has = f"{self.have} of {self.need}{f' ({names})' if names else ''}"
        return f"{has}; may still: {self.may}"


def people(
    by: DeciderInfo[Any, Any] | Sequence[DeciderInfo[Any, Any]] | None,
) -> str:
    """Name the people of a decision, in their order; empty while there is none."""
    several = (by,) if isinstance(by, DeciderInfo) else by or ()
    return ", ".join(one.name or one.sub for one in several)


class MoneyInfo(WireShape, kw_only=True):
    """How the amount of a request is written, as its service's file says."""

    unit: str
    """``minor`` or ``major``."""
    exponent: int
    """Digits of the minor unit of the currency."""


class HeldRequestInfo(WireShape[Text, Time], kw_only=True):
    """The HTTP request of a held call, without its credential."""

    # The members about the body and the documents stay raw: `held_body` words them,
    # and each caller makes its words displayable.
    method: Annotated[Text, 80]
    url: Annotated[Text, WHOLE]
    headers: dict[Annotated[Text, WHOLE], Annotated[Text, WHOLE]]
    body_sha256: str | None = None
    body_bytes: int | None = None
    body_kind: str | None = None
    """``none``, ``json``, ``form``, ``multipart`` or ``opaque``."""
    body_type: str | None = None
    """Its media type, as it is sent."""
    body_encoding: str | None = None
    """The ``Content-Encoding`` of an opaque one."""
    configuration_sha256: str | None = None
    """Of the file that says where the request goes."""
    references: tuple[DocumentInfo, ...] = ()
    """Documents that it names: the approval is for them as they were fetched."""
    body: HeldContent | UnsetType = UNSET
    """The content that is sent. Only the answer about one step-up has it, while the
    step-up is open and the broker that holds the body can be asked."""

    @property
    def described(self) -> Described:
        """The body, as the step-up describes it."""
        return Described.of(asdict(self))


class StepUpInfo(WireShape[Text, Time, Maybe], kw_only=True):
    """A request held for a person: everything they decide about."""

    id: Annotated[Text, 80]
    agent_id: Annotated[Text, 80]
    agent_name: Annotated[Text, WHOLE]
    scope: Annotated[Text, WHOLE]
    action: Annotated[Text, WHOLE]
    resource: Annotated[Maybe, WHOLE]
    parameters: Json
    money: MoneyInfo | None = None
    resource_indicator: Annotated[Maybe, WHOLE] = ABSENT
    authorization_details: tuple[Json, ...] | None = None
    """RFC 9396, as a resource server will see it."""
    request: HeldRequestInfo[Text, Time] | None = None
    evaluation: bool = False
    """Whether an evaluation asked: it is answered once, and no token is issued."""
    unlimited: bool = False
    """Whether only the scope limits the use of the token."""
    repeat: RepeatInfo[Text, Time] | None = None
    repeat_of: Annotated[Maybe, 80] = ABSENT
    """The step-up whose approval replaced a person."""
    reason: Annotated[Maybe, WHOLE]
    """The agent's own words: unverified."""
    rule: Text
    why: Annotated[Text, 1000]
    risk: str
    policy_version: Text = ""  # type: ignore[assignment]
    nonce: Text = ""  # type: ignore[assignment]
    digest: Text
    fingerprint: Annotated[Text, 8]
    ttl: int
    count: int = 1
    connection: Annotated[Maybe, 80] = ABSENT
    problem: Annotated[Maybe, 400] = ABSENT
    """Why the last try at approving led to no decision."""
    requested_at: Time
    expires_at: Time
    status: Annotated[Text, 20]
    decided_by: DeciderInfo[Text, Time] | tuple[DeciderInfo[Text, Time], ...] | None = (
        None
    )
    """A list, in their order, where several people had to approve."""
    approvals: ApprovalsInfo[Text, Time] | None = None
    """Null where one person decides."""
    decided_at: Time | None = None
    fetched_at: Time | None = None
    denial: Annotated[Maybe, 400] = ABSENT
    begun_at: Time | None = None
    redeemed_at: Time | None = None
    device: DeviceInfo[Text, Time] | None = None
    """The caller's own, while authorizing; null for everybody else."""

    @property
    def deciders(self) -> tuple[DeciderInfo[Text, Time], ...]:
        """The people who decided it."""
        by = self.decided_by
        return by if isinstance(by, tuple) else (by,) if by else ()

    @property
    def open(self) -> bool:
        """Whether it can still be decided."""
        return self.status in OPEN

    @property
    def is_change(self) -> bool:
        """Whether an operator asks for a change, and no agent for an action."""
        return self.id.startswith(f"{CHANGE_ID}_")


class StepUpList(WireShape, kw_only=True):
    """Step-ups: the waiting ones first, then the latest decided."""

    stepups: tuple[StepUpInfo, ...]
