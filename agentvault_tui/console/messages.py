"""Navigation: what screens and dialogs ask the app to open.

The app alone knows every screen, so no screen imports another.
"""

from __future__ import annotations

from collections.abc import Mapping

from textual.binding import ActiveBinding
from textual.message import Message

from agentvault_tui.console.desk import Desk


class ShowAgent(Message):
    """Open an agent's screen over the screen in front; dialogs close."""

    def __init__(self, agent_id: str) -> None:
        super().__init__()
        self.agent_id = agent_id


class ShowAudit(Message):
    """Open the audit screen with a filter: held at event *seq*, or following."""

    def __init__(self, filter_: str, seq: int | None, *, full: bool = False) -> None:
        super().__init__()
        self.filter = filter_
        self.seq = seq
        self.full = full
        """Whether the event is shown in full at once."""


class ShowList(Message):
    """Open a screen of lists, by its `PolledScreen.SHOWS`, over the screen in front."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


class GoToAgent(Message):
    """Go back to the list of agents, with the cursor on one of them."""

    def __init__(self, agent_id: str) -> None:
        super().__init__()
        self.agent_id = agent_id


class ShowPast(Message):
    """Open the time machine over the home screen."""


class ShowKeys(Message):
    """List the keys that work where *bindings* were active."""

    def __init__(self, desk: Desk, bindings: Mapping[str, ActiveBinding]) -> None:
        super().__init__()
        self.desk = desk
        self.bindings = dict(bindings)
