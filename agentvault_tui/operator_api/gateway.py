"""The operators' wire about calls through the gateway."""

from __future__ import annotations

from agentvault_tui.operator_api.shapes import Moment, WireShape


class CallInfo(WireShape, kw_only=True):
    """A call through the gateway."""

    id: str
    agent_id: str
    agent_name: str
    service: str
    route: str
    method: str
    path: str
    state: str
    """``held``, ``sending``, ``streaming`` or ``ended``."""
    started_at: Moment
    bytes_in: int
    """Of the body that was received from the service."""
    bytes_out: int
    status: int | None
    ended: str | None
    """``done``, ``failed`` or ``cut``."""
    decision_id: str | None
    stepup_id: str | None


class CallList(WireShape, kw_only=True):
    """Calls in flight and held, oldest first."""

    calls: tuple[CallInfo, ...]


class HeldBody(WireShape, kw_only=True):
    """The body of a held call, while it is in memory."""

    sha256: str | None
    bytes: int | None
    base64: str | None
    """All of it; null once it is in memory no more: decided, or after a restart."""
