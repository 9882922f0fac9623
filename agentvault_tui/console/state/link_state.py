"""The state of the console's link to the broker."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from msgspec import Struct

from agentvault_tui.text import Shown


class LinkState(StrEnum):
    """Whether the screen shows the broker's present state."""

    CONNECTING = "connecting"
    """Nothing has been seen yet."""
    LIVE = "live"
    STALE = "stale"
    """The console itself was stopped, or is catching up: true a moment ago."""
    LOST = "lost"
    """The broker does not answer."""


class LinkView(Struct, frozen=True):
    """The link's state, and why."""

    state: LinkState = LinkState.CONNECTING
    reason: Shown = Shown("")
    since: datetime | None = None

    @property
    def live(self) -> bool:
        return self.state is LinkState.LIVE
