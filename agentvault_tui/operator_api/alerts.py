"""The operators' wire about alerts and exports."""

from __future__ import annotations

from typing import Annotated

from agentvault_tui.operator_api.requests import ShortId, WireRequest
from agentvault_tui.operator_api.shapes import Text, Time, WireShape


class SinkInfo(WireShape[Text, Time], kw_only=True):
    """Where alerts or events go, and how far that is."""

    name: Annotated[Text, 80]
    kind: Annotated[Text, 20]
    events: tuple[Text, ...]
    """The filters of routes to it; empty if it carries every event."""
    seq: int
    """The last event it is done with."""
    behind: int
    """Events of the ledger after it."""
    held: int
    """Alerts that wait for a digest or the end of quiet hours."""
    dead: int
    problem: Text | None
    """Why the last try failed."""
    next_at: Time | None
    """When it is tried again."""
    sent_at: Time | None
    """When it last took something, since the start."""


class DeadAlertInfo(WireShape[Text, Time], kw_only=True):
    """An alert that its sink did not take for a day."""

    id: Annotated[Text, 80]
    sink: Annotated[Text, 80]
    kind: Annotated[Text, 20]
    """A type of event, a signal, or ``digest``."""
    title: Text
    events: tuple[int, ...]
    """The numbers of those it tells of."""
    at: Time
    """When that happened."""
    died_at: Time
    problem: Text


class AlertList(WireShape[Text, Time], kw_only=True):
    """The sinks, and the alerts that were given up, oldest first."""

    sinks: tuple[SinkInfo[Text, Time], ...]
    dead: tuple[DeadAlertInfo[Text, Time], ...]


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
