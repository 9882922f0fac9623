"""Navigation: requests of screens and dialogs to the app.

The app alone knows every screen, so no screen imports another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from textual.binding import ActiveBinding
from textual.message import Message

from agentvault_tui.console.desk import Desk


@dataclass
class ShowAgent(Message):
    """Open an agent's screen over the screen in front; dialogs close."""

    agent_id: str


@dataclass
class ShowStepUp(Message):
    """Open the dialog of a step-up or change over the screen in front."""

    stepup_id: str


@dataclass
class ShowAudit(Message):
    """Open the audit screen with a filter: held at event *seq*, or following."""

    filter: str
    seq: int | None
    full: bool = False
    """Whether the event is shown in full at once."""


@dataclass
class ShowList(Message):
    """Open a screen of lists, by its `PolledScreen.SHOWS`, over the screen in front."""

    name: str


@dataclass
class GoToAgent(Message):
    """Go back to the list of agents, with the cursor on one of them."""

    agent_id: str


class ShowPast(Message):
    """Open the time machine over the home screen."""


@dataclass
class ShowKeys(Message):
    """List the keys that work where *bindings* were active."""

    desk: Desk
    bindings: Mapping[str, ActiveBinding]
