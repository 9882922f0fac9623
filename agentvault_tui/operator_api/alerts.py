"""The operators' wire about alerts and exports."""

from __future__ import annotations

from agentvault_tui.operator_api.requests import ShortId, WireRequest
from agentvault_tui.operator_api.shapes import Moment, WireShape


class SinkInfo(WireShape, kw_only=True):
    """Where alerts or events go, and how far that is."""

    name: str
    kind: str
    events: tuple[str, ...]
    """The filters of routes to it; empty if it carries every event."""
    seq: int
    """The last event it is done with."""
    behind: int
    """Events of the ledger after it."""
    held: int
    """Alerts that wait for a digest or the end of quiet hours."""
    dead: int
    problem: str | None
    """Why the last try failed."""
    next_at: Moment | None
    """When it is tried again."""
    sent_at: Moment | None
    """When it last took something, since the start."""


class DeadAlertInfo(WireShape, kw_only=True):
    """An alert that its sink did not take for a day."""

    id: str
    sink: str
    kind: str
    """A type of event, a signal, or ``digest``."""
    title: str
    events: tuple[int, ...]
    """The numbers of those it tells of."""
    at: Moment
    """When that happened."""
    died_at: Moment
    problem: str


class AlertList(WireShape, kw_only=True):
    """The sinks, and the alerts that were given up, oldest first."""

    sinks: tuple[SinkInfo, ...]
    dead: tuple[DeadAlertInfo, ...]


class AlertSentInfo(WireShape, kw_only=True):
    """How a try went."""

    sink: str
    ok: bool
    ms: float
    problem: str | None


class TestSinkRequest(WireRequest, kw_only=True):
    """Try a sink."""

    sink: ShortId


class RetryAlertRequest(WireRequest, kw_only=True):
    """Send an alert that was given up."""

    id: ShortId
