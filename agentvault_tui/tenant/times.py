"""Times as Auth0's APIs and its log write them."""

from __future__ import annotations

from datetime import UTC, datetime


def millis(at: datetime) -> str:
    """Return *at*, a time in UTC, to the millisecond (RFC 3339)."""
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def of_epoch(seconds: float | None) -> str | None:
    """Return a time in epoch *seconds* to the millisecond; None for none."""
    return None if seconds is None else millis(datetime.fromtimestamp(seconds, UTC))
