"""The operators' wire about changes: loosenings that wait for a person's factor."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from agentvault_tui.operator_api.requests import Limit, Reason, WireRequest, Word
from agentvault_tui.operator_api.shapes import Json, Moment, WireShape
from agentvault_tui.operator_api.stepups import ApprovalsInfo, DeciderInfo, DeviceInfo

CHANGE_STATUSES = (
    *("pending", "authorizing", "applied", "denied", "expired", "cancelled"),
)


class ChangeQuery(WireShape, kw_only=True):
    """Which changes."""

    status: (
        Annotated[str, Meta(extra_json_schema={"enum": [*CHANGE_STATUSES]})] | None
    ) = None
    limit: Limit = 50


class ChangeDecision(WireRequest, kw_only=True):
    """Approve the change with exactly this digest, or deny it."""

    id: Word
    decision: Literal["approve", "deny"]
    digest: Annotated[str, Meta(max_length=4000)] = ""
    reason: Reason = ""


class PersonInfo(WireShape, kw_only=True):
    """Who asked: a person's subject, or the uid of a local user."""

    sub: str
    name: str


class TextInfo(WireShape, kw_only=True):
    """A text that is replaced, by the SHA-256 of before and after."""

    name: str
    before: str | None
    after: str | None
    diff: str | UnsetType = UNSET
    """Lines of a unified diff, where one change is read."""


class ChangeInfo(WireShape, kw_only=True):
    """A loosening that waits for a person, or that was decided."""

    id: str
    digest: str
    fingerprint: str
    kind: str
    kinds: tuple[str, ...]
    """All that it is of; the first is its kind."""
    summary: str
    call: str
    resource: str | None
    details: Json
    """All that a person decides about, but for secrets."""
    texts: tuple[TextInfo, ...]
    reason: str | None
    requested_by: PersonInfo
    requested_at: Moment
    expires_at: Moment
    status: str
    have: int
    """How many people have approved."""
    need: int
    """How many different people have to."""
    approvals: ApprovalsInfo | None = None
    problem: str | None = None
    """Why the last try at approving led to no decision, or why it is cancelled."""
    decided_by: DeciderInfo | tuple[DeciderInfo, ...] | None = None
    decided_at: Moment | None = None
    denial: str | None = None
    device: DeviceInfo | None = None
    """While authorizing, for the session that began it, else null."""
    taken: Json | UnsetType = UNSET
    """The agent after the part that was taken away at once, where one call did both."""
    request: Json | None = None
    """The body that carries it out, where one change is read; null for secrets."""
    result: Json | None = None
    """The answer of the call, once, to the session that asked."""
    client_secret: str | UnsetType = UNSET
    """Once, with `result`, where that holds one."""


class ChangeList(WireShape, kw_only=True):
    """Changes: the waiting ones first, then the latest decided."""

    changes: tuple[ChangeInfo, ...]
